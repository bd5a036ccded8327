//! The commands, one file each: its arguments, and `run`.

mod bench;
mod compare;
mod completions;
mod convert;
mod demo;
mod devices;
mod dpo;
mod eval;
mod generate;
mod grpo;
mod judge;
mod kto;
mod logits;
mod merge;
mod orpo;
mod ppo;
mod pretrain;
mod reward;
mod rlhf;
mod score;
mod sft;
mod tasks;
mod tokenize;

use clap::Subcommand;

use crate::common::Outcome;
use crate::config::Given;

macro_rules! commands {
    ($($name:ident $variant:ident)*) => {
        /// What is to be done.
        #[derive(Subcommand)]
        pub enum Command {
            $($variant(Box<$name::Arguments>),)*
        }

        impl Command {
            fn run(&self, given: &Given) -> Outcome {
                match self {
                    $(Command::$variant(arguments) => $name::run(arguments, given),)*
                }
            }
        }
    };
}

/// Does what is asked, whose arguments are given by name too: one command, or several jobs of one.
pub fn run(asked: Vec<(Command, Given)>) -> Outcome {
    match &asked[..] {
        [(command, given)] => command.run(given),
        jobs => {
            fn sft((command, given): &(Command, Given)) -> (&sft::Arguments, &Given) {
                match command {
                    Command::Sft(arguments) => (arguments, given),
                    _ => unreachable!("no other command has jobs"),
                }
            }
            sft::run_jobs(&jobs.iter().map(sft).collect::<Vec<_>>())
        }
    }
}

// Adding a command is its file, and its names here and above, in the order of the program's help.
commands! {
    bench Bench
    devices Devices
    pretrain Pretrain
    sft Sft
    reward Reward
    score Score
    judge Judge
    ppo Ppo
    grpo Grpo
    dpo Dpo
    kto Kto
    orpo Orpo
    rlhf Rlhf
    compare Compare
    generate Generate
    tokenize Tokenize
    eval Eval
    merge Merge
    convert Convert
    tasks Tasks
    logits Logits
    demo Demo
    completions Completions
}
