//! Properties of every configuration file.

use std::{fs, path::PathBuf, process};

use proptest::prelude::*;

use super::{
    file::{Reading, read},
    parse_context::Contents,
};
use crate::files;

pub(super) const EXAMPLE: &str = include_str!("../../../examples/spillover.toml");
const CANARY: &str = "canary-4fd1c0de";

pub(super) fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("spillover-config-{}-{name}", process::id()));
    fs::create_dir_all(folder.join("tls")).expect("a folder");
    fs::create_dir_all(folder.join("secrets")).expect("a folder");
    for (file, text) in [
        ("tls/cert.pem", include_str!("../../tests/tls/cert.pem")),
        ("tls/ca.pem", include_str!("../../tests/tls/cert.pem")),
        ("tls/key.pem", include_str!("../../tests/tls/key.pem")),
        ("secrets/onprem", CANARY),
    ] {
        fs::write(folder.join(file), text).expect("a file");
    }
    folder
}

pub(super) fn reading(folder: &std::path::Path, text: &[u8]) -> Reading {
    let file = folder.join("spillover.toml");
    fs::write(&file, text).expect("a file");
    read(&file, &|name| Some(format!("{CANARY}-{name}")), files::PATIENCE)
}

#[test]
fn a_configuration_never_shows_a_secret() {
    let folder = folder("secrets");
    let Reading { result, contents } = reading(&folder, EXAMPLE.as_bytes());
    let config = result.unwrap_or_else(|problems| panic!("{problems}"));
    let shown = format!("{config:?} {config:#?}");
    assert!(shown.contains("ptu-east") && !shown.contains(CANARY), "{shown}");
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
    let is_read = |name: &str| contents.keys().any(|file| file.ends_with(name));
    assert!(["spillover.toml", "tls/key.pem", "secrets/onprem"].iter().all(|name| is_read(name)));
    fs::remove_dir_all(folder).expect("a folder");
}

#[test]
fn a_changed_secret_changes_what_a_configuration_was_made_of() {
    let folder = folder("contents");
    let before: Contents = reading(&folder, EXAMPLE.as_bytes()).contents;
    assert_eq!(before, reading(&folder, EXAMPLE.as_bytes()).contents);
    fs::write(folder.join("secrets/onprem"), "another").expect("a file");
    assert_ne!(before, reading(&folder, EXAMPLE.as_bytes()).contents);
    fs::remove_dir_all(folder).expect("a folder");
}

#[test]
fn ten_thousand_clients_and_a_thousand_models_are_a_configuration() {
    let folder = folder("large");
    let mut text = String::new();
    for number in 1..=10_000 {
        let key = format!("{number:064x}");
        text.push_str(&format!("[clients.client-{number}]\nkeys = [\"sha256:{key}\"]\n"));
    }
    for number in 0..1_000 {
        text.push_str(&format!(
            "[[models.model-{number}.standard]]\nname = \"standard\"\n\
             endpoint = \"https://standard-{number}.openai.azure.com\"\nkey = \"env:KEY\"\n"
        ));
    }
    assert!(text.len() > 1 << 20, "{}", text.len());
    let config = reading(&folder, text.as_bytes()).result;
    assert_eq!(config.unwrap_or_else(|problems| panic!("{problems}")).models.len(), 1_000);
    fs::remove_dir_all(folder).expect("a folder");
}

#[cfg(unix)]
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "files change in real time")]
async fn a_replaced_file_and_a_swapped_link_are_loaded_again() {
    let folder = folder("watch");
    let file = folder.join("watched.toml");
    let good = |models: usize| {
        let model = |index| {
            format!(
                "[[models.m{index}.standard]]\nname = \"a\"\nauth = \"entra\"\n\
                 endpoint = \"https://a.example\"\n"
            )
        };
        let models: String = (0..models).map(model).collect();
        format!("clients.open = true\n{models}[entra]\nkind = \"workload\"\n")
    };
    fs::write(&file, good(1)).expect("a file");
    let (_, watch) = super::open(&file).unwrap_or_else(|problems| panic!("{problems}"));
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    let watching = tokio::spawn(watch.run(super::Hangup::new(), move |result| {
        sender.send(result.map(|config| config.models.len()).map_err(|p| p.iter().len())).ok();
    }));
    let next = folder.join("next.toml");
    tokio::time::timeout(std::time::Duration::from_secs(20), async {
        // Changes between the first reading and the start of the watcher are not missed.
        fs::write(&next, good(2)).expect("a file");
        fs::rename(&next, &file).expect("a rename");
        while told.recv().await != Some(Ok(2)) {}
        fs::write(&next, "broken").expect("a file");
        fs::remove_file(&file).expect("a file");
        std::os::unix::fs::symlink(&next, &file).expect("a link");
        while told.recv().await != Some(Err(1)) {}
        fs::write(&next, good(1)).expect("a file");
        while told.recv().await != Some(Ok(1)) {}
    })
    .await
    .expect("every change is told");
    watching.abort();
    fs::remove_dir_all(folder).expect("a folder");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_file_panics_and_no_problem_shows_a_secret(
        cut in any::<prop::sample::Index>(),
        length in 0usize..40,
        put in "[\\PC\n]{0,8}|= *|\"\"|-1|true|\\[\\[|\\]|1e999|0x|99999999999999999999|inf",
    ) {
        let folder = folder("mutated");
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        let start = cut.index(bytes.len());
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, put.bytes());
        if let Err(problems) = reading(&folder, &bytes).result {
            prop_assert!(problems.iter().len() > 0);
            prop_assert!(!problems.to_string().contains(CANARY));
        }
    }
}
