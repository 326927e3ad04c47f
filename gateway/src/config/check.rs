//! `spillover check`: what is wrong with a configuration, or what it says in one line.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use super::{Clients, Config, file::load};

/// Loads the configuration at `path` and says on standard error everything that is wrong with it
/// (exit status 2), or on standard output what it configures (0). On standard error it says, too, what
/// does nothing, which is wrong where the check is `strict`. Nothing listens.
pub fn check(path: &Path, strict: bool) -> ExitCode {
    // A reader that went away is no failure of the check.
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
            let _ = writeln!(io::stdout().lock(), "{}: ok; {}", path.display(), Summary(&config));
            ExitCode::SUCCESS
        }
    }
}

/// What is configured, in one line without secrets.
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
            Clients::Open => f.write_str("; open to anybody")?,
            Clients::Keyed(clients) => {
                let names: Vec<&str> = clients.iter().map(|client| client.name.as_str()).collect();
                write!(f, "; clients: {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}
