//! Files that are not regular: pipes, folders, and endless ones, where a file is expected.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use spillover_testing::real::Stopwatch;

use crate::{
    emulate,
    served::{Azure, Gateway},
    started::{ran, stderr},
};

/// Replaces a file with something else.
fn replaced(file: &Path, odd: &str) {
    let next = file.with_file_name("odd");
    let _ = fs::remove_file(&next);
    let _ = fs::remove_dir(&next);
    match odd {
        "pipe" => assert!(Command::new("mkfifo").arg(&next).status().unwrap().success()),
        "folder" => fs::create_dir(&next).unwrap(),
        "link to itself" => std::os::unix::fs::symlink(&next, &next).unwrap(),
        "zeros" => std::os::unix::fs::symlink("/dev/zero", &next).unwrap(),
        other => panic!("{other}"),
    }
    fs::remove_file(file).unwrap();
    fs::rename(&next, file).unwrap();
}

fn restored(file: &Path, text: &str) {
    let next = file.with_file_name("next");
    fs::write(&next, text).unwrap();
    if file.is_dir() {
        fs::remove_dir(file).unwrap();
    }
    fs::rename(&next, file).unwrap();
}

fn configuration(azure: &Azure, resource: usize) -> String {
    let (endpoint, name) = (azure.endpoint(resource), ["east", "sweden"][resource]);
    format!(
        "listen.address = \"127.0.0.1:0\"\nclients.open = true\n[[models.text.standard]]\n\
         name = \"{name}\"\nendpoint = \"{endpoint}\"\nkey = \"file:key\"\n"
    )
}

const ODD: [&str; 4] = ["pipe", "folder", "link to itself", "zeros"];

fn kept(gateway: &Gateway) -> usize {
    gateway.log().matches("configuration not reloaded").count()
}

fn threads(gateway: &Gateway) -> usize {
    fs::read_dir(format!("/proc/{}/task", gateway.pid())).map_or(0, Iterator::count)
}

#[test]
fn a_configuration_or_a_secret_that_is_no_file_for_a_time_stops_no_later_reload() {
    let azure = Azure::new("odd-files");
    let config: PathBuf = emulate::file("odd-files/g.toml", &configuration(&azure, 0));
    let key = emulate::file("odd-files/key", "azure-key");
    let gateway = Gateway::start(&config);
    let backend = |gateway: &Gateway| {
        gateway.chat("text", &[]).header("x-spillover-backend").unwrap_or_default().to_owned()
    };
    assert_eq!(backend(&gateway), "east");
    let before = threads(&gateway);
    let mut resource = 0;
    for odd in ODD {
        let told = kept(&gateway);
        replaced(&config, odd);
        gateway.signal("HUP");
        gateway.eventually(|gateway| kept(gateway) > told);
        resource = 1 - resource;
        restored(&config, &configuration(&azure, resource));
        let expected = ["east", "sweden"][resource];
        gateway.eventually(|gateway| backend(gateway) == expected);

        let told = kept(&gateway);
        replaced(&key, odd);
        gateway.signal("HUP");
        gateway.eventually(|gateway| kept(gateway) > told);
        assert_eq!(backend(&gateway), expected, "the last configuration stays");
        restored(&key, "azure-key");
        resource = 1 - resource;
        fs::write(&config, configuration(&azure, resource)).unwrap();
        let expected = ["east", "sweden"][resource];
        gateway.eventually(|gateway| backend(gateway) == expected);
    }
    assert!(threads(&gateway) <= before + 4, "{before} threads, then {}", threads(&gateway));
}

/// Fails within seconds, with a message about it.
fn refuses(command: &mut Command, reason: &str) {
    let begun = Stopwatch::start();
    let out = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && text.contains(reason), "{command:?}: {text}");
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

fn spillover(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spillover"));
    command.args(arguments);
    command
}

#[test]
fn what_has_no_end_is_refused_by_every_command() {
    for arguments in [&["check", "--config", "/dev/zero"], &["serve", "--config", "/dev/zero"]] {
        refuses(&mut spillover(arguments), "larger than 16 MiB, which no configuration needs");
    }
    for arguments in [
        &["emulate", "--config", "/dev/zero"][..],
        &["load", "--targets", "/dev/zero"],
        &["load", "--endpoint", "http://127.0.0.1:9", "--key", "file:/dev/zero"],
        &["load", "--endpoint", "https://127.0.0.1:9", "--trust", "/dev/zero"],
    ] {
        refuses(&mut spillover(arguments), "larger than 1 MiB");
    }
    for arguments in [
        &["check", "--config", "/"][..],
        &["serve", "--config", "/"],
        &["load", "--targets", "/"],
        &["load", "--endpoint", "http://127.0.0.1:9", "--trace", "/"],
    ] {
        refuses(&mut spillover(arguments), "directory");
    }
}

#[test]
fn a_pipe_without_an_end_is_refused_and_one_with_an_end_is_read() {
    let waiting = ["check", "load", "serve", "trace"].map(|command| {
        thread::spawn(move || {
            let pipe = emulate::file(&format!("endless-{command}/pipe"), "");
            fs::remove_file(&pipe).unwrap();
            assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            let path = pipe.to_str().unwrap();
            let mut command = match command {
                "load" => spillover(&["load", "--targets", path]),
                "trace" => {
                    spillover(&["load", "--endpoint", "http://127.0.0.1:9", "--trace", path])
                }
                other => spillover(&[other, "--config", path]),
            };
            refuses(&mut command, "did not end within 5 s");
        })
    });
    let standard_input = thread::spawn(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        refuses(
            spillover(&["load", "--targets", "/dev/stdin"]).stdin(reader),
            "did not end within 5 s",
        );
        drop(writer);
    });
    let (reader, mut writer) = std::io::pipe().unwrap();
    thread::spawn(move || {
        // In two pieces, with a pause.
        writer.write_all(b"clients.open = true\n").unwrap();
        thread::sleep(Duration::from_millis(300));
        writer.write_all(b"[models]\n").unwrap();
    });
    let out = spillover(&["check", "--config", "/dev/stdin"]).stdin(reader).output().unwrap();
    assert!(stderr(&out).contains("models: has no model"), "{}", stderr(&out));
    let empty = ran(&["check", "--config", "/dev/null"]);
    assert!(stderr(&empty).contains("models"), "{}", stderr(&empty));
    for thread in waiting {
        thread.join().unwrap();
    }
    standard_input.join().unwrap();
}
