//! Holds the code to ARCHITECTURE.md: which module may import which.
//!
//! The floors below are the only list. The page's picture is made from it:
//! `SPILLOVER_BLESS=1 cargo test --test architecture` writes it anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The library's modules, from the highest level to the lowest. A module imports only modules of
/// lower levels.
const FLOORS: &[&[(&str, &str)]] = &[
    &[
        ("smart_fallback", "the PTU first, Standard when waiting would take too long"),
        ("region_rotate", "a pool of regional backends behind one client"),
        ("first_token", "a second attempt when the first shows no output in time"),
        ("retry_after", "a `tower::retry::Policy` that obeys the service's hints"),
    ],
    &[
        ("entra", "tokens from the credentials of the Azure SDK, fetched once for all requests"),
        ("gate", "admission to the PTU: paces requests, queues them, or spills them"),
        ("sticky", "requests that only one resource can answer"),
        ("inspect", "refusals visible only in the body"),
        ("replay", "streamed bodies, kept for another attempt"),
        ("wait", "an ordered queue for a service that refuses"),
    ],
    &[
        ("backend", "deployments, their credentials and addresses, pools of them"),
        ("request_copy", "a sent request, kept for another attempt"),
    ],
    &[
        ("events", "what layers report while a request is under way, and where that goes"),
        ("body", "bodies that can be sent again, and responses that are read as they pass"),
        ("twin", "two copies of one request: where each is, and its outcome"),
    ],
    &[
        ("served", "what the layers did for a request, attached to its response"),
        ("policy", "what follows a refusal or a failure: move on, wait, cooldowns"),
    ],
    &[("azure", "the service's wire surface: operations, paths, bodies, errors, streams")],
    &[
        ("classify", "interprets a response head: the hint, the refusal, the outcome"),
        ("cooldown", "cooldowns of backends, and their probes"),
        ("fleet", "state that several processes share, and its store"),
    ],
    &[("sync", "locks and atomics, or loom's")],
    &[
        ("attempts", "one attempt limit for all layers"),
        ("clock", "the one clock and the one sleep"),
        ("error", "the one error of a configuration"),
        ("hash", "the one hash that is the same in every process"),
        ("overrides", "limits of a single request"),
        ("random", "the one random draw"),
    ],
];

/// Modules outside the levels: they may import everything, and only tests import them.
const APART: &[&str] = &["fuzzing"];

#[test]
fn a_module_imports_only_what_stands_below_it() {
    let library = Library::read();
    let wrong: Vec<String> = library
        .imports()
        .filter(|import| floor(&import.to) <= floor(&import.from))
        .map(|import| format!("{}: `{}` imports `{}`", import.file, import.from, import.to))
        .collect();
    assert!(wrong.is_empty(), "these imports run up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_has_a_floor() {
    let listed: BTreeSet<&str> =
        modules().map(|(name, _)| name).chain(APART.iter().copied()).collect();
    let library = Library::read();
    let declared: BTreeSet<&str> = library.modules.iter().map(String::as_str).collect();
    assert_eq!(listed, declared, "FLOORS and src/lib.rs differ");
}

#[test]
fn the_library_s_modules_import_one_another_in_no_circle() {
    let library = Library::read();
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for import in library.imports() {
        imports.entry(import.from).or_default().insert(import.to);
    }
    // What imports only removed modules, or is imported by removed modules alone, is in no circle.
    while let Some(free) = imports.keys().find(|&module| {
        let imports_no_other = imports[module].iter().all(|to| !imports.contains_key(to));
        imports_no_other || !imports.values().any(|to| to.contains(module))
    }) {
        let free = free.clone();
        imports.remove(&free);
    }
    assert!(imports.is_empty(), "these modules import one another: {imports:?}");
}

#[test]
fn the_cores_import_nothing_but_the_standard_library() {
    let mut cores = Source::of_tree(Path::new("src/gate/core"));
    let wait = PathBuf::from("src/wait/core.rs");
    let module = module_of_file(&wait);
    cores.push(Source::read(wait, module));
    for source in cores {
        for path in source.paths() {
            let is_own = path.len() > 1 && path[1] == "core" && path[0] == source.module[0];
            let is_std = path.first().is_some_and(|first| first == "std");
            assert!(is_own || is_std, "{} imports {}", source.file.display(), path.join("::"));
        }
    }
}

#[test]
fn one_module_draws_random_numbers() {
    let drawing = Library::read().sources.into_iter().filter(|source| {
        source.paths().iter().any(|path| path[0] == "rand") || source.code.contains("rand::")
    });
    let files: Vec<PathBuf> = drawing.map(|source| source.file).collect();
    assert_eq!(files, [Path::new("src/random.rs")]);
}

#[test]
fn the_emulator_knows_nothing_of_the_layers() {
    for source in Source::of_tree(Path::new("emulator/src")) {
        assert!(
            !source.code.contains("tower_spillover"),
            "{} uses the layers that it is to be an independent judge of",
            source.file.display()
        );
    }
    let manifest = fs::read_to_string("emulator/Cargo.toml").expect("the emulator's manifest");
    assert!(!manifest.contains("tower-spillover"), "the emulator's manifest names the layers");
}

#[test]
fn the_page_shows_these_floors() {
    const BEGIN: &str = "```text\n";
    let page = fs::read_to_string("ARCHITECTURE.md").expect("ARCHITECTURE.md at the root");
    let start = page.find(BEGIN).expect("a picture") + BEGIN.len();
    let end = start + page[start..].find("```").expect("an end of the picture");
    let picture = picture();
    if std::env::var_os("SPILLOVER_BLESS").is_some() {
        let page = [&page[..start], &picture, &page[end..]].concat();
        fs::write("ARCHITECTURE.md", page).expect("a page that can be written");
    } else {
        assert_eq!(&page[start..end], picture, "SPILLOVER_BLESS=1 writes the picture anew");
    }
}

/// The levels as text, the highest first.
fn picture() -> String {
    let name_width = modules().map(|(name, _)| name.len()).max().expect("modules");
    let mut picture = String::new();
    for (depth, floor) in FLOORS.iter().enumerate() {
        let number = FLOORS.len() - depth;
        for (index, (name, what)) in floor.iter().enumerate() {
            let number = if index == 0 { format!("{number:>2}") } else { "  ".to_owned() };
            picture += &format!("{number}  {name:<name_width$}  {what}\n");
        }
    }
    picture
}

fn modules() -> impl Iterator<Item = (&'static str, &'static str)> {
    FLOORS.iter().copied().flatten().copied()
}

/// The floor of a module, counted from the roof.
fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.iter().any(|(name, _)| *name == module))
}

/// One module's use of another.
struct Import {
    file: String,
    from: String,
    to: String,
}

/// The library's sources, without their tests.
struct Library {
    modules: Vec<String>,
    /// The module of each item that the crate's root exports.
    exports: BTreeMap<String, String>,
    sources: Vec<Source>,
}

impl Library {
    fn read() -> Self {
        let root = Source::read(PathBuf::from("src/lib.rs"), Vec::new());
        let modules: Vec<String> = root.declared_modules().collect();
        let exports = root
            .paths()
            .into_iter()
            .filter(|path| path.len() > 1)
            .map(|path| (path[path.len() - 1].clone(), path[0].clone()))
            .collect();
        let mut sources = Source::of_tree(Path::new("src"));
        sources.retain(|source| !source.module.is_empty());
        sources.retain(|source| !APART.contains(&source.module[0].as_str()));
        Self { modules, exports, sources }
    }

    fn imports(&self) -> impl Iterator<Item = Import> + '_ {
        self.sources.iter().flat_map(move |source| {
            let from = &source.module[0];
            let to = source.paths().into_iter().filter_map(|path| self.module_of(path.first()?));
            to.filter(move |to| to != from).map(move |to| Import {
                file: source.file.display().to_string(),
                from: from.clone(),
                to,
            })
        })
    }

    /// The module of this crate that `name`, the beginning of a path, stands for.
    fn module_of(&self, name: &str) -> Option<String> {
        let is_module = self.modules.iter().any(|module| module == name);
        if is_module { Some(name.to_owned()) } else { self.exports.get(name).cloned() }
    }
}

/// One file's code, without comments and tests.
struct Source {
    file: PathBuf,
    /// The file's module, from the crate's root.
    module: Vec<String>,
    code: String,
}

impl Source {
    /// All files of a folder, without those that are compiled for tests alone.
    fn of_tree(folder: &Path) -> Vec<Self> {
        let mut files = Vec::new();
        collect(folder, &mut files);
        assert!(!files.is_empty(), "no sources in {}", folder.display());
        let sources: Vec<Self> = files
            .into_iter()
            .map(|file| {
                let module = module_of_file(&file);
                Self::read(file, module)
            })
            .collect();
        let tests: Vec<Vec<String>> = sources.iter().flat_map(Self::test_modules).collect();
        sources
            .into_iter()
            .filter(|source| !tests.iter().any(|test| source.module.starts_with(test)))
            .collect()
    }

    fn read(file: PathBuf, module: Vec<String>) -> Self {
        let text = fs::read_to_string(&file).expect("a readable source");
        // A file's tests are its end.
        let is_start = |(at, _): &(usize, &str)| {
            text[*at..].lines().nth(1).is_some_and(|it| it.ends_with('{'))
        };
        let tests =
            text.match_indices("#[cfg(test)]\nmod ").chain(text.match_indices("#[cfg(all(test,"));
        let end = tests.filter(is_start).map(|(at, _)| at).min().unwrap_or(text.len());
        let text = &text[..end];
        let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        Self { file, module, code: lines.collect::<Vec<_>>().join("\n") }
    }

    /// The names behind `mod`, whether public or not.
    fn declared_modules(&self) -> impl Iterator<Item = String> + '_ {
        self.code.lines().filter_map(|line| {
            let line = line.trim().strip_suffix(';')?;
            let name = line.rsplit_once("mod ")?.1;
            is_name(name).then(|| name.to_owned())
        })
    }

    /// The child modules that are compiled for tests, models and fuzzers alone.
    fn test_modules(&self) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        let mut is_for_tests = false;
        for line in self.code.lines().map(str::trim) {
            if line.starts_with("#[cfg(") {
                is_for_tests =
                    ["test", "spillover_loom", "fuzzing"].iter().any(|it| line.contains(it))
                        && !line.contains("not(");
            } else if let Some(name) = line.strip_suffix(';').and_then(|it| it.rsplit_once("mod "))
            {
                if is_for_tests {
                    found.push([&self.module[..], &[name.1.to_owned()]].concat());
                }
                is_for_tests = false;
            } else if !line.starts_with("#[") && !line.is_empty() {
                is_for_tests = false;
            }
        }
        found
    }

    /// Every path that this file imports or names, from the root of its crate; those of other crates
    /// begin with the crate's name.
    fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        let mut code = self.code.clone();
        // What a `use` imports.
        while let Some(start) = find_use(&code) {
            let end = start + code[start..].find(';').expect("an end of the import");
            let tree = code[start + "use ".len()..end].to_owned();
            paths.extend(flatten(&tree).into_iter().filter_map(|path| self.resolve(path, true)));
            code.replace_range(start..=end, "");
        }
        // What is named where it is used.
        for (start, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
            let is_whole = !code[..start].ends_with(|it: char| is_part_of_name(it) || it == ':');
            if is_whole {
                let path = code[start..].split(|it: char| !is_part_of_name(it) && it != ':');
                let path = path.into_iter().next().unwrap_or_default();
                let path = path.split("::").map(str::to_owned).filter(|it| !it.is_empty());
                paths.extend(self.resolve(path.collect(), false));
            }
        }
        paths
    }

    /// `path` from the crate's root.
    fn resolve(&self, mut path: Vec<String>, is_import: bool) -> Option<Vec<String>> {
        match path.first()?.as_str() {
            "crate" => {
                path.remove(0);
                Some(path)
            }
            "self" => Some([&self.module[..], &path[1..]].concat()),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                let depth = self.module.len().checked_sub(up)?;
                Some([&self.module[..depth], &path[up..]].concat())
            }
            _ => is_import.then_some(path),
        }
    }
}

/// Where the next `use` begins: at the beginning of a line, but for its visibility.
fn find_use(code: &str) -> Option<usize> {
    let mut start = 0;
    for line in code.split_inclusive('\n') {
        let at = line.find("use ").filter(|&at| {
            let before = line[..at].trim();
            before.is_empty() || before == "pub" || before.starts_with("pub(")
        });
        if let Some(at) = at {
            return Some(start + at);
        }
        start += line.len();
    }
    None
}

/// The paths of a tree of imports, as of `a::{b, c::d}`.
fn flatten(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.split("::").map(|part| part.trim().to_owned()).collect()];
    };
    let parents = tree[..open].split("::").map(str::trim).filter(|part| !part.is_empty());
    let parents: Vec<String> = parents.map(str::to_owned).collect();
    let inside = tree[open + 1..].trim_end().strip_suffix('}').expect("a closed tree");
    let mut depth = 0;
    let parts = inside.split(|it| {
        depth += i32::from(it == '{') - i32::from(it == '}');
        it == ',' && depth == 0
    });
    let parts = parts.map(str::trim).filter(|part| !part.is_empty());
    parts
        .flat_map(|part| flatten(part).into_iter())
        .map(|part| {
            let part = part.into_iter().filter(|name| name != "self" || parents.is_empty());
            parents.iter().cloned().chain(part).collect()
        })
        .collect()
}

fn is_part_of_name(it: char) -> bool {
    it.is_alphanumeric() || it == '_'
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_part_of_name)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// `src/gate/core/rate.rs` is `gate::core::rate`.
fn module_of_file(file: &Path) -> Vec<String> {
    let inside = file.iter().skip_while(|part| *part != "src").skip(1);
    let parts = inside.map(|part| part.to_string_lossy().trim_end_matches(".rs").to_owned());
    parts.filter(|part| part != "mod" && part != "lib").collect()
}

#[test]
fn trees_of_imports_are_read_as_the_compiler_reads_them() {
    let paths = |tree| flatten(tree).iter().map(|path| path.join("::")).collect::<Vec<_>>();
    assert_eq!(paths("crate::a"), ["crate::a"]);
    assert_eq!(
        paths("crate::{self, a::{b, c as d}, e}"),
        ["crate", "crate::a::b", "crate::a::c", "crate::e"]
    );
    let source = |module: &[&str], code: &str| Source {
        file: PathBuf::new(),
        module: module.iter().map(|&part| part.to_owned()).collect(),
        code: code.to_owned(),
    };
    let named = |source: &Source| {
        let paths = source.paths();
        paths.iter().map(|path| path.join("::")).collect::<Vec<_>>()
    };
    let deep = source(
        &["gate", "core", "rate"],
        "use super::{queue, super::Gate};\nuse std::time;\nlet a = crate::sync::now(super::super::x);",
    );
    assert_eq!(
        named(&deep),
        ["gate::core::queue", "gate::Gate", "std::time", "sync::now", "gate::x"]
    );
    assert_eq!(find_use("let text = \"to use {}\";"), None);
}
