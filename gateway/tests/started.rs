//! A `spillover` that is running, and what it printed.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

/// Ends with the test.
pub(crate) struct Started {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Started {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        Self::with(arguments, |command| command)
    }

    /// `change` says in what surroundings it runs.
    pub(crate) fn with(
        arguments: &[&str],
        change: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Self {
        let mut command = command(arguments);
        let mut child = change(&mut command).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line on stdout.
    pub(crate) fn line(&mut self) -> String {
        self.lines.next().expect("it is still printing").unwrap()
    }

    /// The address of the next line, which must say that something listens.
    pub(crate) fn endpoint(&mut self) -> String {
        let line = self.line();
        let words = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}"));
        words.split(' ').next().unwrap().to_owned()
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Sends the signal called `name`.
    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        let (pid, name) = (self.pid(), format!("-{name}"));
        assert!(Command::new("kill").args([&name, &pid]).status().unwrap().success());
    }

    /// Everything that it prints after SIGTERM; it must end well.
    #[cfg(unix)]
    pub(crate) fn terminated(mut self) -> String {
        self.signal("TERM");
        let rest: Vec<_> = self.lines.by_ref().map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success());
        rest.join("\n")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs to its end.
pub(crate) fn ran(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spillover"));
    command.args(arguments);
    command
}
