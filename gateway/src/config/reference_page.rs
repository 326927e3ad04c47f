//! Compares the documentation page of all keys with the code that reads them.

use std::{cell::RefCell, collections::BTreeSet, fs, thread};

use super::{
    file::Reading,
    tests::{EXAMPLE, folder, reading},
};

const PAGE: &str = include_str!("../../../docs/configuration.md");

thread_local! {
    static ASKED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Records a key that a reader asks for.
pub(super) fn note(path: String) {
    ASKED.with_borrow_mut(|asked| asked.insert(path));
}

/// A row of the page: a key with its section; names chosen by the user are written as NAME.
struct Row {
    path: String,
    default: String,
}

/// Rows with several keys, or for several sections, count once for each.
fn rows() -> Vec<Row> {
    let mut sections = Vec::new();
    let mut rows = Vec::new();
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            let names = title.split('`').skip(1).step_by(2);
            sections = names.map(|name| name.trim_matches(['[', ']']).to_owned()).collect();
            if sections.is_empty() {
                sections.push(String::new());
            }
        }
        let Some(cells) = line.strip_prefix("| `") else { continue };
        let (keys, rest) = cells.split_once(" | ").expect("a row has cells");
        let default = rest.split(" | ").next().unwrap_or_default().to_owned();
        for key in format!("`{keys}").split('`').skip(1).step_by(2) {
            for section in &sections {
                let path =
                    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
                rows.push(Row { path, default: default.clone() });
            }
        }
    }
    rows
}

/// The keys that reading `text` asks for, in the page's notation; panics if the text is invalid.
fn asked(text: &str) -> BTreeSet<String> {
    ASKED.take();
    debug_of(text);
    let own = ["models", "classes", "clients"];
    let paths = ASKED.take();
    let names = |path: String| {
        let path = path.replace(".\"gpt-4o\"", ".NAME");
        let mut parts: Vec<&str> =
            path.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect();
        if parts.len() > 2 && own.contains(&parts[0]) {
            parts[1] = "NAME";
        }
        parts.join(".")
    };
    paths.into_iter().map(names).collect()
}

fn debug_of(text: &str) -> String {
    let folder = folder(&format!("reference-{:?}", thread::current().id()));
    let Reading { result, .. } = reading(&folder, text.as_bytes());
    fs::remove_dir_all(folder).expect("a folder");
    let mut config = result.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    // Warnings contain line numbers.
    config.idle.clear();
    format!("{config:?}")
}

#[test]
fn the_page_lists_every_key_and_no_other() {
    let asked = asked(EXAMPLE);
    let rows = rows();
    let is_within = |path: &str, row: &Row| {
        path == row.path || path.strip_prefix(&row.path).is_some_and(|rest| rest.starts_with('.'))
    };
    let is_section =
        |path: &String| asked.iter().any(|other| other.starts_with(&format!("{path}.")));
    let missing: Vec<_> = asked
        .iter()
        .filter(|path| !is_section(path) && !rows.iter().any(|row| is_within(path, row)))
        .collect();
    let stale: Vec<_> = rows
        .iter()
        .filter(|row| !asked.iter().any(|path| is_within(path, row)))
        .map(|row| &row.path)
        .collect();
    assert!(missing.is_empty() && stale.is_empty(), "missing {missing:?}, stale {stale:?}");
}

#[test]
fn a_default_of_the_page_is_the_default_of_the_code() {
    let mut compared = 0;
    for Row { path, default } in rows() {
        let Some(value) = default.strip_prefix('`').and_then(|it| it.strip_suffix('`')) else {
            continue;
        };
        let (section, key) = path.rsplit_once('.').unwrap_or(("", &path));
        // Keys that require another setting have a default only with it.
        let beside = match section {
            "tokens" => "tenant = \"22222222-3333-4444-5555-666666666666\"\naudience = [\"a\"]\n",
            "entra" => "kind = \"workload\"\n",
            "fleet" => "name = \"prod\"\nstore = \"rediss://redis.contoso.internal:6380\"\n",
            "listen.cors" => "origins = [\"https://app.example.com\"]\n",
            _ => "",
        };
        assert_eq!(
            debug_of(&minimal(section, beside)),
            debug_of(&minimal(section, &format!("{beside}{key} = {value}\n"))),
            "{path}"
        );
        compared += 1;
    }
    assert!(compared > 40, "the page was not understood: {compared}");
}

/// A minimal configuration, with `lines` in the section.
fn minimal(section: &str, lines: &str) -> String {
    let mut text = String::new();
    let mut put = |name: &str, own: &str| {
        let is_it = section == name.trim_matches(['[', ']']).replace("gpt-4o", "NAME");
        let head = if name.is_empty() { String::new() } else { format!("{name}\n") };
        text += &format!("{head}{own}{}\n", if is_it { lines } else { "" });
        is_it
    };
    let mut is_found = put("", "");
    is_found |= put("[models.gpt-4o]", "");
    is_found |= put("[models.gpt-4o.gate]", "");
    let backend = |name: &str, host: &str| {
        format!(
            "name = \"{name}\"\nendpoint = \"https://{host}.openai.azure.com\"\nkey = \"env:KEY\"\n"
        )
    };
    is_found |= put("[[models.gpt-4o.ptu]]", &backend("a", "a"));
    is_found |= put("[[models.gpt-4o.standard]]", &backend("b", "b"));
    is_found |= put("[clients.NAME]", "keys = [\"env:CLIENT\"]\n");
    is_found |= put("[classes.NAME]", "");
    if !is_found {
        put(&format!("[{section}]"), "");
    }
    text
}
