//! What can be chosen of LoRA, and the config that it comes to.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::{Bias, Init, Lora, LoraConfig};
use crate::error::{Error, Result};
use crate::peft::settings::{Form, Setting, Settings, names};
use crate::peft::targets::{self, Targets};
use crate::peft::{Adapter, Entry, Start};

pub(in crate::peft) const ENTRY: Entry = Entry {
    name: "lora",
    about: "Low-rank updates of a frozen model",
    // With all-linear and rank 8 it gains three times as much in 30 steps as 2e-4 on q_proj and v_proj does, and a little more in
    // 300: benches/results/2026-11-24-defaults.md.
    learning_rate: 5e-4,
    settings: &[
        Setting {
            name: "rank",
            help: "LoRA's rank, at most a layer's width",
            form: Form::Whole { range: 1..=65_536, default: 8 },
        },
        Setting { name: "alpha", help: "LoRA's alpha: updates are scaled by alpha / rank", form: Form::AboveZero(16.0) },
        Setting { name: "dropout", help: "Dropout of what enters an update", form: Form::BelowOne(0.0) },
        Setting {
            name: "targets",
            help: targets::HELP,
            form: Form::Text { value: "NAMES", default: "all-linear", check: |text| Targets::parse(text).map(drop) },
        },
        Setting {
            name: "init",
            help: "How A begins; B is zero",
            form: Form::OneOf(&[("kaiming", "Uniform within 1 / sqrt(inputs)"), ("gaussian", "Normal with deviation 1 / rank")]),
        },
        Setting {
            name: "rslora",
            help: "Scale updates by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732)",
            form: Form::Switch,
        },
        Setting {
            name: "dora",
            help: "Train the length of each row of an updated weight apart from its direction (Liu et al. 2024, arXiv:2402.09353)",
            form: Form::Switch,
        },
        Setting {
            name: "exclude",
            help: "Names of layers that are left out although the targets name them, separated by commas",
            form: Form::Text { value: "NAMES", default: "", check: |text| names(text).map(drop) },
        },
        Setting {
            name: "layers",
            help: "Numbers of the blocks to update, from 0, separated by commas; all unless given",
            form: Form::Text { value: "NUMBERS", default: "", check: |text| blocks(text).map(drop) },
        },
        Setting {
            name: "rank-pattern",
            help: "Other ranks of some layers, as q_proj=4,down_proj=16",
            form: Form::Text { value: "NAME=RANK,…", default: "", check: |text| pattern::<usize>(text).map(drop) },
        },
        Setting {
            name: "alpha-pattern",
            help: "Other alphas of some layers, as q_proj=8",
            form: Form::Text { value: "NAME=ALPHA,…", default: "", check: |text| pattern::<f64>(text).map(drop) },
        },
        Setting {
            name: "modules-to-save",
            help: "Names of modules that are trained whole beside the updates, and kept with them, separated by commas",
            form: Form::Text { value: "NAMES", default: "", check: |text| names(text).map(drop) },
        },
        Setting {
            name: "bias",
            help: "Biases of the model that are trained beside the updates, and kept with them",
            form: Form::OneOf(&[("none", "None"), ("all", "All"), ("lora_only", "Those of the updated layers")]),
        },
    ],
    begin: |settings, Start { decoder, base, seed, .. }| Lora::begin(LoraConfig::chosen(settings, base)?, decoder, seed),
    adapter: Some(Adapter { peft_type: "LORA", merges: true, open: Lora::open }),
};

impl LoraConfig {
    fn chosen(settings: &Settings, base: &str) -> Result<LoraConfig> {
        fn read<T: Default>(text: &str, parse: impl Fn(&str) -> std::result::Result<T, String>) -> Result<T> {
            if text.is_empty() { Ok(T::default()) } else { parse(text).map_err(|message| Error::Data { message }) }
        }
        let layers = settings.text("layers");
        Ok(LoraConfig {
            rank: settings.whole("rank"),
            alpha: settings.number("alpha"),
            dropout: settings.number("dropout"),
            targets: Targets::parse(settings.text("targets")).map_err(|message| Error::Data { message })?,
            exclude: read(settings.text("exclude"), names)?,
            layers: if layers.is_empty() { None } else { Some(read(layers, blocks)?) },
            rank_pattern: read(settings.text("rank-pattern"), pattern)?,
            alpha_pattern: read(settings.text("alpha-pattern"), pattern)?,
            rank_stabilised: settings.is_on("rslora"),
            decomposed: settings.is_on("dora"),
            init: if settings.text("init") == "gaussian" { Init::Gaussian } else { Init::Kaiming },
            saved: read(settings.text("modules-to-save"), names)?,
            bias: Bias::named(settings.text("bias")).expect("one of its names"),
            base_model: Some(base.into()),
            ..LoraConfig::default()
        })
    }
}

/// Numbers of blocks.
fn blocks(text: &str) -> std::result::Result<Vec<usize>, String> {
    let block = |part: &str| part.trim().parse().map_err(|_| format!("`{}`: expected numbers from 0, as 0,2,5", part.trim()));
    text.split(',').map(block).collect()
}

/// Names of layers, each with a number above 0.
fn pattern<T: FromStr + PartialOrd + Default>(text: &str) -> std::result::Result<BTreeMap<String, T>, String> {
    let pair = |part: &str| {
        let (name, text) = part.split_once('=')?;
        let (name, text) = (name.trim(), text.trim());
        let is_finite = text.parse().is_ok_and(f64::is_finite);
        let number = text.parse().ok().filter(|number| is_finite && *number > T::default())?;
        (!name.is_empty()).then(|| (name.to_string(), number))
    };
    let expected = |part: &str| format!("`{}`: expected a name and a number above 0, as q_proj=4", part.trim());
    let entry = |part: &str| pair(part).ok_or_else(|| expected(part));
    text.split(',').map(entry).collect()
}
