//! The program on a GPU; ignored where there is no adapter.

#[path = "../program/folder.rs"]
#[allow(dead_code)] // what the other tests need of it
mod folder;
#[path = "../program/kills.rs"]
mod kills;

use libtest_mimic::{Arguments, Trial};
use wgtune_engine::device::adapters;

use folder::Folder;
use kills::{check_same, survives_kills};

/// Its tuner is on, and finds the fastest shaders while it runs.
const LORA: &str = "sft --model model --data rows.jsonl --steps 10 --batch-size 2 --dropout 0.2 --validation 0 --learning-rate 1e-2 \
     --save-every 1 --device gpu --seed 3";

const WEIGHTS: &str = "adapter_model.safetensors";

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
    let all = vec![trial("LoRA with dropout, tuned, comes to the same again and after five kills", same_again)];
    libtest_mimic::run(&arguments, all).exit();
}

fn same_again() {
    let folder = Folder::new();
    folder.succeeds(&format!("{LORA} --out tuning"));
    // The first half of a run is spent on opening the device and its kernels.
    survives_kills(&folder, LORA, WEIGHTS, 5, 0.4..1.0);
    check_same(&folder, "tuning", WEIGHTS);
}
