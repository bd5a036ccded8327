//! The committed fixtures: models, and the tensors that the reference libraries computed with them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use wgtune_engine::Device;
use wgtune_models::data::IGNORE;
use wgtune_models::transformer::Input;

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

/// Every adapter that trained as it is.
pub const ADAPTERS: [&str; 4] = ["lora", "lora_rslora", "lora_saved", "lora_gpt2"];

/// The model that an adapter is on.
pub fn base(adapter: &str) -> &'static str {
    match adapter {
        "lora_saved" => "llama_tied",
        "lora_gpt2" => "gpt2",
        _ => "llama",
    }
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

    pub fn input(&self, device: &Device) -> Input {
        let (end, shape) = (self.start + self.length, [self.rows, self.length]);
        let positions: Vec<u32> = (0..self.rows).flat_map(|_| self.start as u32..end as u32).collect();
        Input {
            ids: device.tensor_u32(&self.ids, shape),
            positions: device.tensor_u32(&positions, shape),
            end,
            lengths: None,
            segments: None,
            cached: None,
        }
    }

    /// The token after each, and nothing after a row's last, [B, T].
    pub fn targets(&self) -> Vec<u32> {
        let after = |row: &[u32]| [&row[1..], &[IGNORE]].concat();
        self.ids.chunks(self.length).flat_map(after).collect()
    }
}
