//! `spillover serve --config` while its file changes: what is served by, and what is said of it.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::Value;

use crate::{
    emulate,
    served::{Azure, Gateway},
};

/// One model with one backend, in a folder that the gateway logs to as well.
struct Scene {
    azure: Azure,
    config: PathBuf,
}

impl Scene {
    fn new(name: &str) -> Self {
        let scene =
            Self { azure: Azure::new(name), config: emulate::file(&format!("{name}/g.toml"), "") };
        scene.write(&scene.config(0));
        scene
    }

    fn config(&self, resource: usize) -> String {
        let (endpoint, name) = (self.azure.endpoint(resource), ["east", "sweden"][resource]);
        format!(
            "listen.address = \"127.0.0.1:0\"\nclients.open = true\n[[models.text.standard]]\n\
             name = \"{name}\"\nendpoint = \"{endpoint}\"\nkey = \"env:AZURE_KEY\"\n"
        )
    }

    fn write(&self, text: &str) {
        fs::write(&self.config, text).unwrap();
    }
}

fn backend(gateway: &Gateway) -> String {
    gateway.chat("text", &[]).header("x-spillover-backend").expect("one served").to_owned()
}

/// Events with this message, so far.
fn events(gateway: &Gateway, message: &str) -> Vec<Value> {
    let log = gateway.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines.filter(|event: &Value| event["message"] == message).collect()
}

#[test]
fn a_changed_file_is_served_by_and_a_bad_one_changes_nothing_and_is_told() {
    let scene = Scene::new("reload");
    let gateway = Gateway::start(&scene.config);
    assert_eq!(backend(&gateway), "east");
    scene.write(&scene.config(1));
    gateway.eventually(|gateway| backend(gateway) == "sweden");

    scene.write("[models.text]\nmax_wait = \"soon\"\n");
    let is_told = |gateway: &Gateway| {
        events(gateway, "configuration not reloaded; the last one stays")
            .iter()
            .any(|event| event["problem"].as_str().unwrap().contains("g.toml:2:12: "))
    };
    gateway.eventually(is_told);
    assert_eq!(backend(&gateway), "sweden");

    scene.write(&scene.config(0));
    gateway.eventually(|gateway| backend(gateway) == "east");
}

#[test]
fn a_hangup_reads_the_file_again_though_it_is_the_same() {
    let scene = Scene::new("hangup");
    let gateway = Gateway::start(&scene.config);
    // The signal is heard once the file is watched, which is a moment after it listens.
    std::thread::sleep(Duration::from_millis(500));
    assert!(events(&gateway, RELOADED).is_empty());
    gateway.signal("HUP");
    gateway.eventually(|gateway| events(gateway, RELOADED).len() == 1);
    assert_eq!(backend(&gateway), "east");
}

#[test]
fn a_folder_in_which_a_log_grows_holds_no_change_up() {
    let scene = Scene::new("unrest");
    let gateway = Gateway::start(&scene.config);
    let noise = scene.config.with_file_name("noise.log");
    let mut changed = false;
    let is_served = (0..400).any(|turn| {
        fs::write(&noise, turn.to_string()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        if turn == 20 {
            scene.write(&scene.config(1));
            changed = true;
        }
        changed && turn % 10 == 0 && backend(&gateway) == "sweden"
    });
    assert!(is_served, "{}", gateway.log());
}

const RELOADED: &str = "configuration reloaded";
