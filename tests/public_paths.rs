//! What the library exports, item by item: `tests/public_paths.txt` lists it, and a change to it is seen.
//!
//! `SPILLOVER_BLESS=1 cargo test --test public_paths` writes the list anew. What `#[doc(hidden)]` hides is
//! not in it, nor are implementations of traits.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{Attribute, Fields, Item, UseTree, Visibility};

const LIST: &str = "tests/public_paths.txt";

#[test]
fn the_library_exports_what_is_listed_and_nothing_else() {
    let exported = Library::read().exports().into_iter().collect::<Vec<_>>().join("\n") + "\n";
    if std::env::var_os("SPILLOVER_BLESS").is_some() {
        fs::write(LIST, exported).expect("a list that can be written");
        return;
    }
    let listed = fs::read_to_string(LIST).expect("the list");
    let (listed, exported): (BTreeSet<&str>, BTreeSet<&str>) =
        (listed.lines().collect(), exported.lines().collect());
    let added: Vec<&&str> = exported.difference(&listed).collect();
    let removed: Vec<&&str> = listed.difference(&exported).collect();
    assert!(
        added.is_empty() && removed.is_empty(),
        "exported and not listed: {added:#?}\nlisted and not exported: {removed:#?}\n\
         If that is meant, SPILLOVER_BLESS=1 writes the list anew."
    );
}

/// A path from the crate's root, whose last part may be an item.
type ModulePath = Vec<String>;

/// The library's modules, parsed, by their paths.
struct Library(BTreeMap<ModulePath, Vec<Item>>);

impl Library {
    fn read() -> Self {
        let mut library = Self(BTreeMap::new());
        library.load(Vec::new(), Path::new("src/lib.rs"), Path::new("src"));
        library
    }

    /// Parses the module at `path`, which is in `file` and has its children in `folder`.
    fn load(&mut self, path: ModulePath, file: &Path, folder: &Path) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        let mut items = Vec::new();
        for item in parsed.items {
            match item {
                Item::Mod(module) if is_for_tests(&module.attrs) => drop(module),
                Item::Mod(module) if module.content.is_none() => {
                    let name = module.ident.to_string();
                    let child = [&path[..], std::slice::from_ref(&name)].concat();
                    let (file, folder) = file_of(folder, &name);
                    self.load(child, &file, &folder);
                    items.push(Item::Mod(module));
                }
                Item::Macro(call) => match syn::parse2::<syn::File>(call.mac.tokens.clone()) {
                    Ok(inside) => items.extend(inside.items),
                    Err(_) => drop(call),
                },
                item => items.push(item),
            }
        }
        self.0.insert(path, items);
    }

    /// Every public item with its members, by each module through which it can be named.
    fn exports(&self) -> BTreeSet<String> {
        let mut exports = BTreeSet::new();
        self.export_module(&Vec::new(), &mut exports);
        exports
    }

    fn export_module(&self, path: &ModulePath, exports: &mut BTreeSet<String>) {
        for item in &self.0[path] {
            let (attrs, vis) = head(item);
            if !is_public(vis) || is_hidden(attrs) {
                continue;
            }
            if let Item::Mod(module) = item {
                let child = [&path[..], &[module.ident.to_string()]].concat();
                exports.insert(shown(&child));
                self.export_module(&child, exports);
            } else if let Item::Use(import) = item {
                for (source, name) in imported(&import.tree) {
                    let (defined_in, found) = self.find(path, &source);
                    self.export_item(path, &name, &defined_in, found, exports);
                }
            } else if let Some(name) = name_of(item) {
                self.export_item(path, &name, path, item, exports);
            }
        }
    }

    fn export_item(
        &self,
        path: &ModulePath,
        name: &str,
        defined_in: &ModulePath,
        item: &Item,
        exports: &mut BTreeSet<String>,
    ) {
        if is_hidden(head(item).0) {
            return;
        }
        let item_path = shown(&[&path[..], &[name.to_owned()]].concat());
        // The root's exports are those of the modules, once more.
        if !path.is_empty() || defined_in.is_empty() {
            let own = name_of(item).expect("an item with a name");
            let members = members(item).into_iter().chain(self.methods(defined_in, &own));
            exports.extend(members.map(|member| format!("{item_path}::{member}")));
        }
        exports.insert(item_path);
    }

    /// The item that `source` names in the module at `path`, and the module that defines it.
    fn find(&self, path: &ModulePath, source: &[String]) -> (ModulePath, &Item) {
        let absolute = match source[0].as_str() {
            "crate" => source[1..].to_vec(),
            "self" => [&path[..], &source[1..]].concat(),
            "super" => [&path[..path.len() - 1], &source[1..]].concat(),
            _ => [&path[..], source].concat(),
        };
        let (name, module) = absolute.split_last().expect("a name");
        let module = module.to_vec();
        let items = self.0.get(&module).unwrap_or_else(|| panic!("no module {module:?}"));
        if let Some(item) = items.iter().find(|item| name_of(item).as_ref() == Some(name)) {
            return (module, item);
        }
        let imports = items.iter().filter_map(|item| match item {
            Item::Use(import) => Some(imported(&import.tree)),
            _ => None,
        });
        let (source, _) = imports
            .flatten()
            .find(|(_, imported)| imported == name)
            .unwrap_or_else(|| panic!("{absolute:?} is not found"));
        self.find(&module, &source)
    }

    /// The public methods and constants of the type `name`, wherever they are written.
    fn methods(&self, defined_in: &ModulePath, name: &str) -> Vec<String> {
        let is_defined =
            |items: &[Item]| items.iter().any(|it| name_of(it).as_deref() == Some(name));
        let mut methods = Vec::new();
        for (path, items) in &self.0 {
            // A type of that name in the module of the implementation is meant by it.
            if path != defined_in && is_defined(items) {
                continue;
            }
            for item in items {
                let Item::Impl(block) = item else { continue };
                let syn::Type::Path(of) = &*block.self_ty else { continue };
                let is_meant = of.path.segments.last().is_some_and(|last| last.ident == name);
                if block.trait_.is_some() || !is_meant || is_for_tests(&block.attrs) {
                    continue;
                }
                methods.extend(block.items.iter().filter_map(|member| match member {
                    syn::ImplItem::Fn(it) if is_open(&it.vis, &it.attrs) => {
                        Some(it.sig.ident.to_string())
                    }
                    syn::ImplItem::Const(it) if is_open(&it.vis, &it.attrs) => {
                        Some(it.ident.to_string())
                    }
                    _ => None,
                }));
            }
        }
        methods
    }
}

/// The variants, public fields or members that an item declares itself.
fn members(item: &Item) -> Vec<String> {
    match item {
        Item::Enum(item) => item.variants.iter().map(|it| it.ident.to_string()).collect(),
        Item::Struct(item) => match &item.fields {
            Fields::Named(fields) => {
                let open = fields.named.iter().filter(|field| is_public(&field.vis));
                open.filter_map(|field| field.ident.as_ref().map(ToString::to_string)).collect()
            }
            Fields::Unnamed(fields) => {
                let numbered = fields.unnamed.iter().enumerate();
                let open = numbered.filter(|(_, field)| is_public(&field.vis));
                open.map(|(index, _)| index.to_string()).collect()
            }
            Fields::Unit => Vec::new(),
        },
        Item::Trait(item) => {
            let members = item.items.iter().filter_map(|member| match member {
                syn::TraitItem::Fn(it) if !is_hidden(&it.attrs) => Some(it.sig.ident.to_string()),
                syn::TraitItem::Type(it) => Some(it.ident.to_string()),
                syn::TraitItem::Const(it) => Some(it.ident.to_string()),
                _ => None,
            });
            members.collect()
        }
        _ => Vec::new(),
    }
}

/// The paths that a tree imports, each with the name that it gets.
fn imported(tree: &UseTree) -> Vec<(Vec<String>, String)> {
    match tree {
        UseTree::Path(tree) => {
            let first = tree.ident.to_string();
            let inside = imported(&tree.tree).into_iter();
            inside.map(|(rest, name)| ([vec![first.clone()], rest].concat(), name)).collect()
        }
        UseTree::Group(tree) => tree.items.iter().flat_map(imported).collect(),
        UseTree::Name(tree) => {
            let name = tree.ident.to_string();
            vec![(vec![name.clone()], name)]
        }
        UseTree::Rename(tree) => vec![(vec![tree.ident.to_string()], tree.rename.to_string())],
        other => panic!("not understood: {other:?}"),
    }
}

fn head(item: &Item) -> (&[Attribute], &Visibility) {
    match item {
        Item::Const(it) => (&it.attrs, &it.vis),
        Item::Enum(it) => (&it.attrs, &it.vis),
        Item::Fn(it) => (&it.attrs, &it.vis),
        Item::Mod(it) => (&it.attrs, &it.vis),
        Item::Static(it) => (&it.attrs, &it.vis),
        Item::Struct(it) => (&it.attrs, &it.vis),
        Item::Trait(it) => (&it.attrs, &it.vis),
        Item::Type(it) => (&it.attrs, &it.vis),
        Item::Use(it) => (&it.attrs, &it.vis),
        _ => (&[], &Visibility::Inherited),
    }
}

fn name_of(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(it) => it.ident.to_string(),
        Item::Enum(it) => it.ident.to_string(),
        Item::Fn(it) => it.sig.ident.to_string(),
        Item::Static(it) => it.ident.to_string(),
        Item::Struct(it) => it.ident.to_string(),
        Item::Trait(it) => it.ident.to_string(),
        Item::Type(it) => it.ident.to_string(),
        _ => return None,
    })
}

fn is_open(vis: &Visibility, attrs: &[Attribute]) -> bool {
    is_public(vis) && !is_hidden(attrs) && !is_for_tests(attrs)
}

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

fn is_hidden(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| {
        attr.path().is_ident("doc")
            && attr.parse_args::<syn::Ident>().is_ok_and(|word| word == "hidden")
    })
}

/// Whether something is compiled for tests, models or fuzzers alone.
fn is_for_tests(attrs: &[Attribute]) -> bool {
    attrs.iter().filter(|attr| attr.path().is_ident("cfg")).any(|attr| {
        let condition = attr.meta.require_list().expect("a condition").tokens.to_string();
        let names_tests = ["test", "spillover_loom", "fuzzing", "doctest"]
            .iter()
            .any(|it| condition.contains(it));
        names_tests && !condition.contains("not")
    })
}

fn file_of(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let inside = folder.join(name);
    let file = folder.join(format!("{name}.rs"));
    (if file.exists() { file } else { inside.join("mod.rs") }, inside)
}

fn shown(path: &[String]) -> String {
    format!("tower_spillover::{}", path.join("::"))
}
