//! The program on a GPU; ignored where there is no adapter.

#[path = "../program/folder.rs"]
#[allow(dead_code)] // what the other tests need of it
mod folder;
#[path = "../program/kills.rs"]
mod kills;

use libtest_mimic::{Arguments, Trial};
use wgtune_engine::device::adapters;

use kills::survives_kills;

/// Its tuner is on, and finds the fastest shaders while it runs.
const LORA: &str = "sft --model model --data rows.jsonl --steps 16 --batch-size 2 --dropout 0.2 --targets all-linear --learning-rate 1e-2 \
     --save-every 2 --device gpu --seed 3";

fn main() {
    let arguments = Arguments::from_args();
    let has_none = adapters().is_empty();
    let trial = |name: &str, run: fn()| {
        let run = move || {
            run();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(has_none)
    };
    let all = vec![trial("LoRA with dropout survives five kills with the tuner on", || {
        survives_kills(LORA, "adapter_model.safetensors", 5);
    })];
    libtest_mimic::run(&arguments, all).exit();
}
