//! `spillover completions`: shell completions for `spillover`.

use std::process::ExitCode;

use clap_complete::Shell;

use crate::output;

/// Prints the script for `shell`.
pub(crate) fn print(mut command: clap::Command, shell: Shell) -> ExitCode {
    // Generate in memory first: a pipe that closes early must not cause a panic.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "spillover", &mut script);
    match output::print(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::report_unwritten(&error),
    }
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  spillover completions bash > ~/.local/share/bash-completion/completions/spillover
  spillover completions zsh  > ~/.zfunc/_spillover
  spillover completions fish > ~/.config/fish/completions/spillover.fish

Exit status: 0 if printed, 1 if it cannot be written.";
