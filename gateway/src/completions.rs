//! `spillover completions`: shell completions for `spillover`.

use std::io;

use clap_complete::Shell;

/// Prints the script for `shell`.
pub(crate) fn print(mut command: clap::Command, shell: Shell) {
    // Generate in memory first: a pipe that closes early must not cause a panic.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "spillover", &mut script);
    let _ = io::Write::write_all(&mut io::stdout(), &script);
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  spillover completions bash > ~/.local/share/bash-completion/completions/spillover
  spillover completions zsh  > ~/.zfunc/_spillover
  spillover completions fish > ~/.config/fish/completions/spillover.fish";
