//! `wgtune`: fine-tunes language models on any GPU. One file a command, in `commands`.

mod commands;
mod common;
mod data;
mod profile;
mod progress;
mod training;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wgtune_models::formats::sandbox::{self, Allocator};

/// Holds a model's chat template and tokenizer to their memory.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Fine-tunes language models on any GPU: AMD, Intel, Apple, NVIDIA, a software adapter, or none.
#[derive(Parser)]
#[command(name = "wgtune", version, propagate_version = true, max_term_width = 110)]
#[command(after_help = "Example:\n  wgtune demo")]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(commands::bench::Arguments),
    Devices(commands::devices::Arguments),
    Pretrain(commands::pretrain::Arguments),
    Sft(commands::sft::Arguments),
    Generate(commands::generate::Arguments),
    Tokenize(commands::tokenize::Arguments),
    Eval(commands::eval::Arguments),
    Merge(commands::merge::Arguments),
    Logits(commands::logits::Arguments),
    Demo(commands::demo::Arguments),
}

fn main() -> ExitCode {
    sandbox::silence_panics();
    let outcome = match Program::parse().command {
        Command::Bench(arguments) => commands::bench::run(&arguments),
        Command::Devices(arguments) => commands::devices::run(&arguments),
        Command::Pretrain(arguments) => commands::pretrain::run(&arguments),
        Command::Sft(arguments) => commands::sft::run(&arguments),
        Command::Generate(arguments) => commands::generate::run(&arguments),
        Command::Tokenize(arguments) => commands::tokenize::run(&arguments),
        Command::Eval(arguments) => commands::eval::run(&arguments),
        Command::Merge(arguments) => commands::merge::run(&arguments),
        Command::Logits(arguments) => commands::logits::run(&arguments),
        Command::Demo(arguments) => commands::demo::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            common::note(format!("wgtune: {error}"));
            ExitCode::FAILURE
        }
    }
}
