//! What to do about an error that the engine or the models met: they name no options, and each command has others.

use std::error::Error;

use clap::Command;
use wgtune_engine::Error as DeviceError;
use wgtune_models::error::Error as ModelError;

/// Which options may help, the likeliest first, and with what value.
const LESS_MEMORY: [&str; 7] = [
    "--batch-size 1",
    "--max-length 512",
    "--checkpoint-blocks",
    "--together 8",
    "--max-new-tokens 64",
    "--tokens 64",
    "--device cpu",
];
const ANOTHER_DEVICE: [&str; 1] = ["--device cpu"];
const AFTER_A_LOSS: [&str; 2] = ["--resume", "--device cpu"];
const STABLE: [&str; 2] = ["--learning-rate 1e-5", "--clip 1"];
const FASTER: [&str; 1] = ["--learning-rate 1e-3"];
const ANY_BASE: [&str; 1] = ["--force"];

/// What to try, of the options that this command has; `None` where there is nothing to say.
pub fn advice(error: &(dyn Error + 'static), command: &Command) -> Option<String> {
    let options: &[&str] = match error.downcast_ref().map_or(error.downcast_ref(), of_device) {
        Some(DeviceError::OutOfMemory { .. } | DeviceError::TooLarge { .. }) => &LESS_MEMORY,
        Some(DeviceError::Lost { .. }) => &AFTER_A_LOSS,
        Some(DeviceError::NoAdapter | DeviceError::Open { .. } | DeviceError::Rejected { .. }) => &ANOTHER_DEVICE,
        _ => match error.downcast_ref() {
            Some(ModelError::NotFinite { .. }) => &STABLE,
            Some(ModelError::Unmoved { .. }) => &FASTER,
            Some(ModelError::OtherBase { .. }) => &ANY_BASE,
            _ => return None,
        },
    };
    let has = |option: &&&str| {
        let name = option.trim_start_matches('-').split(' ').next();
        command.get_arguments().any(|argument| argument.get_long() == name)
    };
    let known: Vec<&str> = options.iter().filter(has).copied().collect();
    (!known.is_empty()).then(|| format!("try {}", known.join(", or ")))
}

fn of_device(error: &ModelError) -> Option<&DeviceError> {
    match error {
        ModelError::Device(error) => Some(error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Program;

    fn advised(command: &str, error: impl Error + 'static) -> Option<String> {
        let program = Program::command();
        advice(&error, program.find_subcommand(command).expect("a command"))
    }

    #[test]
    fn only_options_that_the_command_has_are_named() {
        let device = || "a device".to_string();
        let out = || DeviceError::OutOfMemory { device: device(), in_use: 1, reason: "none left".into() };
        let words = |command| advised(command, ModelError::Device(out())).unwrap();
        assert_eq!(words("sft"), "try --batch-size 1, or --max-length 512, or --checkpoint-blocks, or --device cpu");
        assert_eq!(words("eval"), "try --batch-size 1, or --max-length 512, or --device cpu");
        assert_eq!(words("generate"), "try --max-new-tokens 64, or --device cpu");
        assert_eq!(words("merge"), "try --device cpu");
        assert_eq!(advised("bench", out()).unwrap(), "try --tokens 64, or --device cpu");
        let lost = || DeviceError::Lost { device: device(), reason: "gone".into() };
        assert_eq!(advised("pretrain", lost()).unwrap(), "try --resume, or --device cpu");
        assert_eq!(advised("logits", lost()).unwrap(), "try --device cpu");
        let ran_away = || ModelError::NotFinite { place: "step 1".into(), what: "loss", value: f64::NAN, first: None };
        assert_eq!(advised("sft", ran_away()).unwrap(), "try --learning-rate 1e-5, or --clip 1");
        assert_eq!(advised("eval", ran_away()), None);
        assert_eq!(advised("sft", ModelError::Interrupted), None);
    }

    #[test]
    fn every_option_that_is_ever_named_is_some_commands() {
        let program = Program::command();
        for option in LESS_MEMORY.iter().chain(&ANOTHER_DEVICE).chain(&AFTER_A_LOSS).chain(&STABLE) {
            let name = option.trim_start_matches('-').split(' ').next();
            let mut commands = program.get_subcommands();
            assert!(commands.any(|command| command.get_arguments().any(|argument| argument.get_long() == name)), "{option}");
        }
    }
}
