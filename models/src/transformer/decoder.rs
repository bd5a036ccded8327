//! The decoder: embedding, blocks, final norm, output projection.

use std::sync::Arc;

use wgtune_engine::{Device, Tensor, checkpoint, ops};

use super::attention::Positions;
use super::block::Block;
use super::cache::Cached;
use super::rope::Rope;
use crate::error::Result;
use crate::formats::config::ModelConfig;
use crate::nn::{Linear, RmsNorm, Source};
use crate::peft::Tuning;

/// A causal language model.
#[derive(Clone)]
pub struct Decoder {
    config: Arc<ModelConfig>,
    /// [V, H]; the output projection too, where the config ties them.
    embedding: Tensor,
    blocks: Vec<Arc<Block>>,
    norm: RmsNorm,
    /// [V, H].
    head: Option<Linear>,
    rope: Rope,
}

/// Tokens for one pass, in training, through a prompt, or one a row.
#[derive(Clone)]
pub struct Input {
    /// [B, T] u32.
    pub ids: Tensor,
    /// [B, T] u32: each token's place in its text.
    pub positions: Tensor,
    /// One more than the largest position.
    pub end: usize,
    /// [B] u32: how many tokens of each row are real, where rows are padded.
    pub lengths: Option<Tensor>,
    /// [B, T] u32: which text each token belongs to, where rows are packed.
    pub segments: Option<Tensor>,
    /// Where rows go on behind tokens that a cache holds: see [`Cache::input`](super::Cache::input).
    pub cached: Option<Cached>,
}

/// How a pass is made.
#[derive(Clone)]
pub struct Forward {
    /// What tunes the model; `Arc::new(())` is the bare model.
    pub tuning: Arc<dyn Tuning>,
    /// Recompute each block in the backward pass instead of keeping what happens inside.
    pub checkpoint_blocks: bool,
}

impl Default for Forward {
    fn default() -> Self {
        Forward { tuning: Arc::new(()), checkpoint_blocks: false }
    }
}

impl Input {
    /// One row of tokens, a whole text.
    pub fn row(device: &Device, ids: &[u32]) -> Input {
        let positions: Vec<u32> = (0..ids.len() as u32).collect();
        Input {
            ids: device.tensor_u32(ids, [1, ids.len()]),
            positions: device.tensor_u32(&positions, [1, ids.len()]),
            end: ids.len(),
            lengths: None,
            segments: None,
            cached: None,
        }
    }
}

impl Decoder {
    /// The decoder that a config describes, with parameters from `source`, which is asked for each once.
    pub fn build(config: ModelConfig, source: &mut Source<'_>) -> Result<Decoder> {
        let table = [config.vocab_size, config.hidden_size];
        Ok(Decoder {
            embedding: source("model.embed_tokens.weight", &table)?,
            blocks: (0..config.num_hidden_layers)
                .map(|layer| Block::build(&config, layer, source).map(Arc::new))
                .collect::<Result<_>>()?,
            norm: RmsNorm::build("model.norm".into(), config.hidden_size, config.rms_norm_eps, source)?,
            head: match config.tie_word_embeddings {
                true => None,
                false => Some(Linear::build("lm_head".into(), table, false, source)?),
            },
            rope: Rope::new(),
            config: Arc::new(config),
        })
    }

    /// The same decoder with every parameter off the tape: for evaluation while it is trained. It shares the parameters.
    pub fn detach(&self) -> Decoder {
        let mut parameters = self.parameters().into_iter().map(|(_, tensor)| tensor.detach());
        let mut source = |_: &str, _: &[usize]| Ok(parameters.next().expect("as many parameters as the same config asks for"));
        Decoder::build((*self.config).clone(), &mut source).expect("nothing is read")
    }

    /// What it was built from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where it lives.
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// All parameters under Hugging Face's names, in the order in which [`build`](Self::build) asks for them.
    pub fn parameters(&self) -> Vec<(String, &Tensor)> {
        let mut all = vec![("model.embed_tokens.weight".to_string(), &self.embedding)];
        let mut visit = |name, tensor| all.push((name, tensor));
        self.blocks.iter().for_each(|block| block.parameters(&mut visit));
        self.norm.parameters(&mut visit);
        self.head.iter().for_each(|head| head.parameters(&mut visit));
        all
    }

    /// The linear layers of all blocks: what can be tuned by LoRA. The output projection is not among them.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.blocks.iter().flat_map(|block| block.linears())
    }

    /// The weight [V, H] that turns hidden states into logits.
    pub fn output_weight(&self) -> &Tensor {
        self.head.as_ref().map_or(&self.embedding, |head| &head.weight)
    }

    /// Hidden states [B, T, H] after the final norm. What a cache holds then, no gradient goes through.
    pub fn hidden(&self, input: &Input, forward: &Forward) -> Tensor {
        let at = self.positions(input);
        let mut x = forward.tuning.embeddings(ops::gather(&self.embedding, &input.ids));
        for block in &self.blocks {
            x = if forward.checkpoint_blocks {
                let (block, at, tuning) = (block.clone(), at.clone(), forward.tuning.clone());
                checkpoint(&x, move |x| block.forward(x, &at, &*tuning))
            } else {
                block.forward(&x, &at, &*forward.tuning)
            };
        }
        self.norm.forward(&x)
    }

    /// Logits [.., V] of hidden states [.., H].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        ops::linear(hidden, self.output_weight())
    }

    fn positions(&self, input: &Input) -> Positions {
        Positions {
            positions: input.positions.clone(),
            tables: self.rope.tables(&self.config, self.device(), input.end),
            lengths: input.lengths.clone(),
            segments: input.segments.clone(),
            cached: input.cached.clone(),
        }
    }
}
