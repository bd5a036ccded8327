//! `wgtune completions`.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::Program;
use crate::common::{Outcome, print_line};
use crate::config::Given;

/// Prints a script that completes commands and options in a shell
#[derive(Args)]
#[command(after_help = "Examples:\n  wgtune completions bash > ~/.local/share/bash-completion/completions/wgtune\n  \
    wgtune completions zsh > ~/.zfunc/_wgtune\n  wgtune completions fish > ~/.config/fish/completions/wgtune.fish")]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    let mut script = Vec::new();
    generate(arguments.shell, &mut Program::command(), "wgtune", &mut script);
    print_line(String::from_utf8(script)?.trim_end())
}
