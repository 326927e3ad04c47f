//! `spillover check`: reports a configuration's problems, or summarises it in one line.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use super::{Clients, Config, file::load};

/// Loads the configuration at `path`. Reports every problem on standard error (exit status 2), or a
/// summary on standard output (0). Also reports settings without effect on standard error, which
/// count as problems if `strict`. Starts nothing.
///
/// `build` builds the runtime, which reveals the problems that concern no single key.
pub fn check(
    path: &Path,
    strict: bool,
    build: impl FnOnce(Config) -> Result<(), String>,
) -> ExitCode {
    // A reader that has gone does not fail the check.
    match load(path) {
        Err(problems) => {
            let _ = writeln!(io::stderr().lock(), "{problems}");
            ExitCode::from(2)
        }
        Ok(config) => {
            for problem in &config.idle {
                let _ = writeln!(io::stderr().lock(), "warning: {problem}");
            }
            if strict && !config.idle.is_empty() {
                return ExitCode::from(2);
            }
            let line = format!("{}: ok; {}", path.display(), Summary(&config));
            if let Err(problem) = build(config) {
                let _ = writeln!(io::stderr().lock(), "{}: {problem}", path.display());
                return ExitCode::from(2);
            }
            let _ = writeln!(io::stdout().lock(), "{line}");
            ExitCode::SUCCESS
        }
    }
}

/// The configuration in one line, without secrets.
struct Summary<'a>(&'a Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.0;
        let scheme = if config.listen.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}; models: ", config.listen.address)?;
        for (index, (name, model)) in config.models.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            let (ptu, standard) = (model.ptu.len(), model.standard.len());
            write!(f, "{separator}{name} ({ptu} PTU, {standard} Standard)")?;
        }
        match &config.clients {
            Clients::Open => f.write_str("; no key required")?,
            Clients::Keyed(clients) => {
                let names: Vec<&str> = clients.iter().map(|client| client.name.as_str()).collect();
                write!(f, "; clients: {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}
