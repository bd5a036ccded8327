//! The committed fixtures: models, and the tensors that the reference libraries computed with them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use wgtune_engine::Device;
use wgtune_models::data::IGNORE;
use wgtune_models::peft::{self, Settings, Start, Tuned};
use wgtune_models::transformer::load_decoder;
use wgtune_models::transformer::{Decoder, Forward, Input, Rows};

/// Every model of the fixtures.
pub const MODELS: [&str; 13] = [
    "llama",
    "llama_tied",
    "llama_bias",
    "llama_rope_linear",
    "llama_rope_dynamic",
    "llama_rope_llama3",
    "llama_rope_yarn",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm2",
    "bf16",
    "gpt2",
];

/// Every LoRA that trained as it is, with its training.
pub const LORAS: [&str; 6] = ["lora", "lora_saved", "lora_gpt2", "lora_bias", "lora_bias_qwen2", "lora_bias_gpt2"];

/// Every other way of tuning, on models of these families.
pub fn tuned() -> impl Iterator<Item = &'static str> {
    TUNED.iter().flat_map(|methods| methods.iter().copied())
}

const TUNED: [[&str; 3]; 9] = [
    ["tuned/prompt_llama", "tuned/prompt_qwen2", "tuned/prompt_gpt2"],
    ["tuned/p_tuning_mlp_llama", "tuned/p_tuning_mlp_qwen2", "tuned/p_tuning_mlp_gpt2"],
    ["tuned/p_tuning_lstm_llama", "tuned/p_tuning_lstm_qwen2", "tuned/p_tuning_lstm_gpt2"],
    ["tuned/prefix_llama", "tuned/prefix_qwen2", "tuned/prefix_gpt2"],
    ["tuned/prefix_projection_llama", "tuned/prefix_projection_qwen2", "tuned/prefix_projection_gpt2"],
    ["tuned/dora_llama", "tuned/dora_qwen2", "tuned/dora_gpt2"],
    ["tuned/ia3_llama", "tuned/ia3_qwen2", "tuned/ia3_gpt2"],
    ["tuned/adapters_pfeiffer_llama", "tuned/adapters_pfeiffer_qwen2", "tuned/adapters_pfeiffer_gpt2"],
    ["tuned/adapters_houlsby_llama", "tuned/adapters_houlsby_qwen2", "tuned/adapters_houlsby_gpt2"],
];

/// The model that an adapter is on.
pub fn base(adapter: &str) -> &str {
    match adapter {
        "lora_saved" => "llama_tied",
        "lora_bias" => "llama_bias",
        "lora_bias_qwen2" => "qwen2",
        "lora_gpt2" | "lora_bias_gpt2" => "gpt2",
        _ if adapter.starts_with("tuned/") => adapter.rsplit('_').next().unwrap_or_default(),
        _ => "llama",
    }
}

/// What trained an adapter of the fixtures, as it began: where a network wrote what was kept, with that network.
pub fn begun(adapter: &str, device: &Device) -> wgtune_models::Result<Tuned> {
    let decoder = load_decoder(&path(base(adapter)), device)?;
    let chosen = [
        ("p_tuning_mlp", "p-tuning", json!({"encoder": "mlp"})),
        ("p_tuning_lstm", "p-tuning", json!({"encoder": "lstm"})),
        ("prefix_projection", "prefix", json!({"prefix-projection": true})),
    ];
    let Some((_, method, chosen)) = chosen.into_iter().find(|(name, ..)| adapter.contains(name)) else {
        return peft::open(&path(adapter), decoder);
    };
    let sizes = json!({"virtual-tokens": 4, "encoder-hidden-size": 6});
    let method = peft::method(method).expect("it is in the list");
    let settings = Settings::new(method, |name| chosen.get(name).or(sizes.get(name)).cloned());
    let start = Start { decoder, base: base(adapter), seed: 0, encode: &|_| unreachable!("no text is tokenised") };
    let tuned = (method.begin)(&settings, start)?;
    let expected = Expected::of(adapter);
    for (name, parameter) in tuned.parameters() {
        let bytes: Vec<u8> = expected.floats(&expected.name("initial", &name)).iter().flat_map(|x| x.to_le_bytes()).collect();
        parameter.replace(&bytes);
    }
    Ok(tuned)
}

/// Where a fixture is.
pub fn path(name: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A file of reference tensors.
pub struct Expected(Vec<u8>);

impl Expected {
    pub fn open(file: impl AsRef<Path>) -> Expected {
        let path = path(file);
        Expected(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// What was computed with a model or an adapter.
    pub fn of(directory: &str) -> Expected {
        Expected::open(format!("{directory}/expected.safetensors"))
    }

    pub fn names(&self) -> Vec<String> {
        self.tensors().names().into_iter().map(String::from).collect()
    }

    /// The name of what is known of a parameter, which adapters name with what PEFT puts before it.
    pub fn name(&self, what: &str, parameter: &str) -> String {
        let names = ["", "base_model.model."].map(|before| format!("{what}.{before}{parameter}"));
        names.iter().find(|name| self.names().contains(name)).unwrap_or(&names[0]).clone()
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        self.elements(name, Dtype::F32, f32::from_le_bytes)
    }

    pub fn ids(&self, name: &str) -> Vec<u32> {
        self.elements(name, Dtype::I32, u32::from_le_bytes)
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors().tensor(name).unwrap_or_else(|error| panic!("{error}: {name}")).shape().to_vec()
    }

    fn elements<T>(&self, name: &str, dtype: Dtype, read: fn([u8; 4]) -> T) -> Vec<T> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{error}: {name}"));
        assert_eq!(tensor.dtype(), dtype, "{name}");
        tensor.data().as_chunks().0.iter().map(|bytes| read(*bytes)).collect()
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).expect("a fixture is a weight file")
    }
}

/// Rows of token ids [B, T], the first of each at position `start`.
pub struct Tokens {
    pub rows: usize,
    pub length: usize,
    pub start: usize,
    pub ids: Vec<u32>,
}

impl Tokens {
    /// The fixture's `input_ids`.
    pub fn of(expected: &Expected) -> Tokens {
        let shape = expected.shape("input_ids");
        Tokens { rows: shape[0], length: shape[1], start: 0, ids: expected.ids("input_ids") }
    }

    /// Part of every row.
    pub fn columns(&self, range: Range<usize>) -> Tokens {
        let ids = self.ids.chunks(self.length).flat_map(|row| &row[range.clone()]).copied().collect();
        Tokens { rows: self.rows, length: range.len(), start: self.start + range.start, ids }
    }

    /// The rows behind virtual tokens.
    pub fn behind(&self, opening: &[u32]) -> Tokens {
        let ids = self.ids.chunks(self.length).flat_map(|row| [opening, row].concat()).collect();
        Tokens { rows: self.rows, length: opening.len() + self.length, start: self.start, ids }
    }

    pub fn input(&self, decoder: &Decoder, forward: &Forward) -> Input {
        let end = self.start + self.length;
        let positions: Vec<u32> = (0..self.rows).flat_map(|_| self.start as u32..end as u32).collect();
        decoder.input(&Rows { count: self.rows, ids: &self.ids, positions: &positions, segments: None }, forward)
    }

    /// The token after each, where that is of the vocabulary, and nothing after a row's last, [B, T].
    pub fn targets(&self, vocabulary: usize) -> Vec<u32> {
        let target = |id: &u32| if (*id as usize) < vocabulary { *id } else { IGNORE };
        let after = |row: &[u32]| row[1..].iter().map(target).chain([IGNORE]).collect::<Vec<_>>();
        self.ids.chunks(self.length).flat_map(after).collect()
    }
}
