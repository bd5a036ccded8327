//! `wgtune`: fine-tunes language models on any GPU. One file a command, in `commands`.

mod adapters;
mod advice;
mod commands;
mod common;
mod config;
mod data;
mod drawing;
mod endpoint;
mod jobs;
mod learning;
mod numbers;
mod page;
mod plan;
mod playing;
mod probes;
mod profile;
mod program;
mod progress;
mod report;
mod runs;
mod tables;
mod texts;
mod training;
mod tuning;
mod units;
mod watch;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use wgtune_models::formats::sandbox::{self, Allocator};

use crate::commands::Command;
use crate::config::{Asked, Given, Source};

/// Holds what runs in a sandbox to its memory.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Fine-tunes language models on any GPU: AMD, Intel, Apple, NVIDIA, a software adapter, or none.
#[derive(Parser)]
#[command(name = "wgtune", version, propagate_version = true, max_term_width = 110)]
#[command(after_help = "Example:\n  wgtune demo")]
struct Program {
    #[command(subcommand)]
    command: Command,
    /// Say nothing but results and errors: no notes, no progress
    #[arg(long, short, global = true)]
    quiet: bool,
}

/// Runs what the process was started with.
pub fn run() -> ExitCode {
    sandbox::silence_panics();
    let command = program();
    quieten_drivers();
    let asked = match config::expanded(&command, std::env::args_os().collect()) {
        Ok(asked) => asked,
        Err(error) => return failed(&error),
    };
    let mut all = Vec::with_capacity(asked.len());
    for Asked { typed, file, place } in asked {
        let (program, given) = match (parsed(&command, typed, file), place) {
            (Ok(parsed), _) => parsed,
            (Err(error), Some(place)) if error.use_stderr() => {
                return failed(&format!("{place}: {}", error.to_string().trim_start_matches("error: ").trim_end()));
            }
            (Err(error), _) => error.exit(),
        };
        common::say_nothing(program.quiet);
        all.push((program.command, given));
    }
    let chosen = command.find_subcommand(&all[0].1.command).expect("it was parsed");
    match commands::run(all) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let advice = advice::advice(&*error, chosen).map_or(String::new(), |advice| format!(": {advice}"));
            let code = failed(&format!("{error}{advice}"));
            if common::is_interrupt(&*error) { ExitCode::from(common::INTERRUPTED) } else { code }
        }
    }
}

/// What was typed, parsed, with the options that it gave, some of them by a file.
fn parsed(command: &clap::Command, typed: Vec<OsString>, file: Option<Source>) -> Result<(Program, Given), clap::Error> {
    let matches = command.clone().try_get_matches_from(typed)?;
    let program = Program::from_arg_matches(&matches)?;
    let (name, given) = matches.subcommand().expect("a command is required");
    Ok((program, Given::new(command.find_subcommand(name).expect("it was parsed"), given, file)))
}

/// The program's commands and their options.
fn program() -> clap::Command {
    // A negative number is a value, so that its option can say what it expects.
    let mut command = Program::command().mut_subcommands(|command| {
        command.mut_args(|argument| match argument.get_action().takes_values() {
            true => argument.allow_negative_numbers(true),
            false => argument,
        })
    });
    command.build();
    command
}

/// Says why. Nobody listening is no other failure.
fn failed(error: &dyn Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "wgtune: {error}");
    ExitCode::FAILURE
}

/// Keeps a layer of Mesa's from complaining of a desktop that is not there each time an adapter is looked for. It would say which
/// adapter comes first, and that is chosen here by what the adapters say of themselves.
#[allow(unsafe_code)] // the environment is the whole process's
fn quieten_drivers() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: the program has no other thread yet, which could read the environment meanwhile.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
