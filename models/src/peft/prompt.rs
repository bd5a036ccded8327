//! Prompt tuning (Lester et al. 2021, arXiv:2104.08691): vectors of virtual tokens that stand before a text are trained, and the
//! model stays as it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use wgtune_engine::random::Philox;
use wgtune_engine::{Tensor, ops};

use super::files::{self, Files};
use super::settings::{Form, Setting, Settings};
use super::virtual_tokens::{self, TABLE, VirtualTokens};
use super::{Adapter, Entry, Kept, Method, Start, Tuned};
use crate::error::Result;
use crate::formats::model_card::Card;
use crate::nn::Tuning;
use crate::transformer::Decoder;

const PEFT_TYPE: &str = "PROMPT_TUNING";

pub(super) const ENTRY: Entry = Entry {
    name: "prompt",
    about: "Vectors of virtual tokens before a text",
    learning_rate: 3e-2,
    settings: &[
        virtual_tokens::COUNT,
        Setting {
            name: "virtual-init",
            help: "How virtual tokens begin, where no --virtual-text says",
            form: Form::OneOf(&[
                ("vocabulary", "As tokens drawn from the vocabulary"),
                ("random", "Normal, with the deviation that such tokens have"),
            ]),
        },
        virtual_tokens::TEXT,
    ],
    begin: |settings, start| Ok(Tuned::of(Arc::new(Prompt::begin(settings, &start)?), start.decoder)),
    adapter: Some(Adapter {
        peft_type: PEFT_TYPE,
        merges: false,
        open: |directory, decoder| Ok(Tuned::of(Arc::new(Prompt::open(directory, &decoder)?), decoder)),
    }),
};

/// Virtual tokens.
#[derive(Clone)]
struct Prompt {
    shared: VirtualTokens,
    /// [V, H].
    table: Tensor,
}

impl Prompt {
    fn begin(settings: &Settings, start: &Start) -> Result<Prompt> {
        let blueprint = start.decoder.blueprint();
        let width = blueprint.hidden_size;
        let shared = VirtualTokens::chosen(settings, blueprint, width, blueprint.num_attention_heads, start.base);
        let random = Philox::new(start.seed).stream(0x70_726f_6d70);
        let ids: Vec<u32> = match settings.text(virtual_tokens::TEXT.name) {
            "" => (0..shared.count as u64).map(|place| random.word(place) % blueprint.vocab_size as u32).collect(),
            text => virtual_tokens::ids(&(start.encode)(text)?, shared.count)?,
        };
        let device = start.decoder.device();
        let ids = device.tensor_u32(&ids, [shared.count]);
        let vectors = ops::gather(&start.decoder.embedding().weight.detach(), &ids);
        let is_random = settings.text("virtual-init") == "random" && settings.text(virtual_tokens::TEXT.name).is_empty();
        let table = if is_random { like(&vectors, random.stream(1))? } else { vectors };
        Ok(Prompt { shared, table })
    }

    fn open(directory: &Path, decoder: &Decoder) -> Result<Prompt> {
        let blueprint = decoder.blueprint();
        let starts = ["prompt_tuning_init", "prompt_tuning_init_text", "prompt_tuning_init_state_dict_path"];
        let own = [&starts[..], &["tokenizer_name_or_path", "tokenizer_kwargs"]].concat();
        let width = blueprint.hidden_size;
        let heads = blueprint.num_attention_heads;
        let (shared, table) = VirtualTokens::open(directory, decoder, PEFT_TYPE, &own, [width, heads], width)?;
        Ok(Prompt { shared, table })
    }
}

/// Normal numbers with the deviation of these.
fn like(vectors: &Tensor, random: Philox) -> Result<Tensor> {
    let values = vectors.to_vec()?;
    let deviation = (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt();
    let drawn: Vec<f32> = (0..values.len() as u64).map(|place| deviation * random.normal(place)).collect();
    Ok(vectors.device().tensor(&drawn, vectors.shape()))
}

impl Method for Prompt {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn parameters(&self) -> Vec<(String, &Tensor)> {
        vec![(TABLE.into(), &self.table)]
    }

    fn mapped(&self, map: &dyn Fn(&Tensor) -> Tensor) -> Arc<dyn Method> {
        Arc::new(Prompt { table: map(&self.table), ..self.clone() })
    }

    fn opening(&self) -> usize {
        self.shared.count
    }

    fn tuning(&self, _: Option<Philox>) -> Arc<dyn Tuning> {
        Arc::new(self.clone())
    }

    fn write(&self, _: &Decoder, kept: Kept, directory: &Path) -> Result<()> {
        // How a table began says nothing of one that was trained, and a reader might look for the tokenizer that it names.
        let config = self.shared.to_json(PEFT_TYPE, json!({"prompt_tuning_init": "RANDOM"}));
        let card = Card {
            base: self.shared.base(),
            method: "Prompt tuning",
            chosen: vec![("virtual tokens", self.shared.count.to_string())],
        };
        let tensors = BTreeMap::from([(TABLE.into(), self.table.clone())]);
        files::write(directory, Files { config, tensors, card, kept })
    }
}

impl Tuning for Prompt {
    fn virtual_tokens(&self) -> Option<Tensor> {
        Some(self.table.clone())
    }
}
