//! A running `spillover`, and its output.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio},
};

/// Stopped at the end of the test.
pub(crate) struct Started {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Started {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        Self::with(arguments, |command| command)
    }

    /// `change` sets up its environment.
    pub(crate) fn with(
        arguments: &[&str],
        change: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Self {
        Self::of(change(&mut command(arguments)))
    }

    /// Started by a shell, which calls it `$0`, and the arguments `$1` and so on.
    #[cfg(unix)]
    pub(crate) fn shell(text: &str, arguments: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", text, env!("CARGO_BIN_EXE_spillover")]).args(arguments);
        Self::of(shell.env("AZURE_KEY", "azure-key").env("TEAM_B_KEY", "a-key-of-team-b-0001"))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line on stdout.
    pub(crate) fn line(&mut self) -> String {
        self.lines.next().expect("it is still printing").unwrap()
    }

    /// The address in the next line, which must report a listener; an operators' address may
    /// precede it.
    pub(crate) fn endpoint(&mut self) -> String {
        self.endpoints().0
    }

    /// The address for clients, and the operators' address if there is one.
    pub(crate) fn endpoints(&mut self) -> (String, Option<String>) {
        let mut line = self.line();
        let admin = line.strip_prefix("admin on ").map(str::to_owned);
        if admin.is_some() {
            line = self.line();
        }
        let words = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}"));
        (words.split(' ').next().unwrap().to_owned(), admin)
    }

    /// Its standard error, which must be piped.
    pub(crate) fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("it is piped, and was not taken")
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Sends the signal `name`.
    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        let (pid, name) = (self.pid(), format!("-{name}"));
        assert!(Command::new("kill").args([&name, &pid]).status().unwrap().success());
    }

    /// Its output after SIGTERM; it must exit successfully.
    #[cfg(unix)]
    pub(crate) fn terminated(self) -> String {
        self.signal("TERM");
        self.ended()
    }

    /// Its output until it exits, which must be successful.
    pub(crate) fn ended(mut self) -> String {
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
