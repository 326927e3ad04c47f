//! `spillover serve --config` while its file changes: the active configuration, and the log.

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    emulate,
    served::{Azure, Gateway},
};

/// One model with one backend, in a folder that the gateway also logs to.
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

/// The number of events with this message so far.
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
        events(gateway, KEPT)
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
    assert!(events(&gateway, RELOADED).is_empty());
    gateway.signal("HUP");
    gateway.eventually(|gateway| events(gateway, RELOADED).len() == 1);
    assert_eq!(backend(&gateway), "east");
}

/// The file is a pipe, so that the program waits for it as long as the test needs.
#[cfg(target_os = "linux")]
#[test]
fn hangups_from_the_first_moment_on_end_nothing() {
    let scene = Scene::new("early-hangup");
    let text = scene.config(0);
    fs::remove_file(&scene.config).unwrap();
    assert!(Command::new("mkfifo").arg(&scene.config).status().unwrap().success());
    let program = Gateway::begin(&scene.config);
    let is_heard = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        program.hears_hangups()
    });
    assert!(is_heard, "it hears them before it has read its file");
    let is_over = Arc::new(AtomicBool::new(false));
    let hangups = {
        let (pid, is_over) = (program.pid(), Arc::clone(&is_over));
        thread::spawn(move || {
            while !is_over.load(Relaxed) {
                assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
            }
        })
    };
    let mut pipe = fs::OpenOptions::new().write(true).open(&scene.config).unwrap();
    let next = scene.config.with_file_name("next.toml");
    fs::write(&next, &text).unwrap();
    fs::rename(&next, &scene.config).unwrap();
    pipe.write_all(text.as_bytes()).unwrap();
    drop(pipe);
    let gateway = program.listening();
    gateway.eventually(|gateway| events(gateway, RELOADED).len() > 2);
    is_over.store(true, Relaxed);
    hangups.join().unwrap();
    assert_eq!(backend(&gateway), "east");
}

/// A folder as Kubernetes mounts a ConfigMap or a Secret: the visible files are links through
/// `..data`, which is swapped as a whole.
struct Mounted {
    folder: PathBuf,
    version: u32,
}

impl Mounted {
    fn new(folder: PathBuf, name: &str, text: &str) -> Self {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let mut mounted = Self { folder, version: 0 };
        mounted.swap(name, text);
        symlink(PathBuf::from("..data").join(name), mounted.folder.join(name)).unwrap();
        mounted
    }

    /// The steps of the kubelet's atomic writer.
    fn swap(&mut self, name: &str, text: &str) {
        let versioned = |version| self.folder.join(format!("..2026_11_22_{version}"));
        let (last, next) = (versioned(self.version), versioned(self.version + 1));
        fs::create_dir(&next).unwrap();
        fs::write(next.join(name), text).unwrap();
        let link = self.folder.join("..data_tmp");
        symlink(next.file_name().unwrap(), &link).unwrap();
        fs::rename(&link, self.folder.join("..data")).unwrap();
        if self.version > 0 {
            fs::remove_dir_all(last).unwrap();
        }
        self.version += 1;
    }
}

#[test]
fn a_swapped_config_map_and_a_rotated_secret_are_followed_and_a_bad_one_changes_nothing() {
    let scene = Scene::new("mounted");
    let folder = |name| scene.config.with_file_name(name);
    let config = |resource| scene.config(resource).replace("env:AZURE_KEY", "file:../keys/azure");
    let mut map = Mounted::new(folder("etc"), "g.toml", &config(0));
    let mut keys = Mounted::new(folder("keys"), "azure", "azure-key\n");
    let gateway = Gateway::start(&folder("etc").join("g.toml"));
    assert_eq!(backend(&gateway), "east");
    for resource in [1, 0, 1] {
        map.swap("g.toml", &config(resource));
        gateway.eventually(|gateway| backend(gateway) == ["east", "sweden"][resource]);
    }
    keys.swap("azure", "of-nobody");
    gateway.eventually(|gateway| gateway.chat("text", &[]).status() == 502);
    map.swap("g.toml", "[models.text]\nmax_wait = \"soon\"\n");
    gateway.eventually(|gateway| {
        let kept = events(gateway, KEPT);
        kept.iter().any(|event| event["problem"].as_str().unwrap().contains("max_wait"))
    });
    // With an invalid file, the secrets to watch are unknown; with a valid one they are read again.
    keys.swap("azure", "azure-key");
    map.swap("g.toml", &config(0));
    gateway.eventually(|gateway| backend(gateway) == "east");
}

#[test]
fn an_editor_s_rename_over_the_file_is_followed() {
    let scene = Scene::new("editor");
    let gateway = Gateway::start(&scene.config);
    for (turn, resource) in [1, 0, 1, 0].into_iter().enumerate() {
        let draft = scene.config.with_file_name(format!(".g.toml.{turn}.swp"));
        fs::write(&draft, scene.config(resource)).unwrap();
        // Some editors keep the previous text beside the file, others do not.
        if turn % 2 == 0 {
            fs::rename(&scene.config, scene.config.with_file_name("g.toml~")).unwrap();
        }
        fs::rename(&draft, &scene.config).unwrap();
        gateway.eventually(|gateway| backend(gateway) == ["east", "sweden"][resource]);
    }
    gateway.eventually(|gateway| events(gateway, RELOADED).len() >= 4);
}

#[test]
fn what_takes_a_restart_is_told_by_key_and_the_rest_is_served_by() {
    let scene = Scene::new("restart");
    let gateway = Gateway::start(&scene.config);
    let text = scene.config(1).replace("127.0.0.1:0", "127.0.0.1:1");
    scene.write(&format!("telemetry.log = \"debug\"\n{text}"));
    gateway.eventually(|gateway| backend(gateway) == "sweden");
    gateway.eventually(|gateway| {
        let told = events(gateway, "changed, but keeps its value until a restart");
        let keys: Vec<_> = told.iter().map(|event| event["key"].as_str().unwrap()).collect();
        keys == ["listen.address", "telemetry.log"]
    });
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

const KEPT: &str = "configuration not reloaded; the last one stays";
const RELOADED: &str = "configuration reloaded";

#[test]
fn what_does_nothing_is_logged_at_the_start_and_at_a_reload() {
    let scene = Scene::new("idle");
    let text = scene.config(0) + "priority = 2\n";
    scene.write(&text);
    let gateway = Gateway::start(&scene.config);
    let told = |gateway: &Gateway| gateway.log().matches("has no effect").count();
    gateway.eventually(|gateway| told(gateway) == 1);
    assert!(gateway.log().contains(r#""key":"models.text.standard[0].priority""#));
    scene.write(&(text + "weight = 3\n"));
    gateway.eventually(|gateway| told(gateway) == 3);
}
