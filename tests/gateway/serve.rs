//! `spillover serve` as a program: the demonstration, and its end by a signal.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// A demonstration that runs, with the lines that it printed.
struct Demo {
    child: Child,
    lines: Vec<String>,
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_spillover"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program is there");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = Vec::new();
        for line in output.lines() {
            lines.push(line.expect("text"));
            if lines.last().is_some_and(|line| line.starts_with("listening on http://127.0.0.1:")) {
                break;
            }
        }
        Self { child, lines }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shell(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("a shell");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_printed_command_works_as_it_stands() {
    let demo = Demo::start();
    let curl = demo.lines.iter().find(|line| line.starts_with("curl ")).expect("a command");
    let answer = shell(&format!("{curl} -s -m 20"));
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("x-spillover-backend: ptu-east"), "{answer}");
    assert!(answer.contains(r#""object":"chat.completion""#), "{answer}");
}

#[test]
fn a_signal_ends_it_with_success() {
    let mut demo = Demo::start();
    shell(&format!("kill -TERM {}", demo.child.id()));
    assert!(demo.child.wait().expect("it ends").success());
}
