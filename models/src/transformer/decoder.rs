//! The decoder: embedding, blocks, final norm, output projection.

use std::sync::Arc;

use wgtune_engine::{Device, Tensor, checkpoint, ops};

use super::attention::Positions;
use super::block::Block;
use super::blueprint::{self, Blueprint};
use super::cache::Cached;
use super::families::{HEAD, SCORE};
use super::rope::Rope;
use crate::error::Result;
use crate::nn::{Embedding, Linear, Norm, Source, Tuning};

/// A causal language model.
#[derive(Clone)]
pub struct Decoder {
    blueprint: Arc<Blueprint>,
    /// The output projection too, where the blueprint ties them.
    embedding: Embedding,
    /// Vectors of positions, where they are learned.
    positions: Option<Embedding>,
    blocks: Vec<Arc<Block>>,
    norm: Norm,
    /// [V, H].
    head: Option<Linear>,
    rope: Rope,
}

/// Tokens for one pass, in training, through a prompt, or one a row.
#[derive(Clone)]
pub struct Input {
    pub(super) tokens: Tokens,
    /// [B, T] u32: each token's place in its text, behind a prefix.
    pub(super) positions: Tensor,
    /// One more than the largest position.
    pub(super) end: usize,
    /// [B, T] u32: which text each token belongs to, where rows are packed.
    pub(super) segments: Option<Tensor>,
    /// Where rows go on behind tokens that a cache holds: see [`Cache::input`](super::Cache::input).
    pub(super) cached: Option<Cached>,
}

/// Ids of tokens; those past the vocabulary are of virtual ones.
#[derive(Clone)]
pub(super) struct Tokens {
    /// [B, T] u32: 0 in the place of a virtual token.
    pub ids: Tensor,
    /// [B, T] u32: one more than the number of a virtual token, and 0 for any other, where there are virtual ones.
    pub virtual_ids: Option<Tensor>,
}

/// Rows of tokens on the host, row-major.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// B: how many rows.
    pub count: usize,
    /// Their tokens [B, T]; the number of a virtual token is what it is above the vocabulary.
    pub ids: &'a [u32],
    /// Each token's place in its text [B, T].
    pub positions: &'a [u32],
    /// Which of its row's texts a token belongs to [B, T], where there are several.
    pub segments: Option<&'a [u32]>,
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

impl Rows<'_> {
    /// T: how many tokens each row has.
    pub fn length(&self) -> usize {
        self.ids.len() / self.count.max(1)
    }
}

impl Input {
    /// How many tokens of each row the pass takes: T.
    pub fn length(&self) -> usize {
        self.positions.size(1)
    }
}

impl Tokens {
    /// Those of rows of one length, for a model of so many tokens that is tuned so.
    pub fn new(device: &Device, ids: &[u32], shape: [usize; 2], vocabulary: usize, tuning: &dyn Tuning) -> Tokens {
        let is_virtual = |id: u32| id as usize >= vocabulary;
        if !ids.iter().any(|&id| is_virtual(id)) {
            return Tokens { ids: device.tensor_u32(ids, shape), virtual_ids: None };
        }
        let own: Vec<u32> = ids.iter().map(|&id| if is_virtual(id) { 0 } else { id }).collect();
        let number = |(at, &id): (usize, &u32)| match is_virtual(id) {
            true => (id as usize - vocabulary + tuning.virtual_tokens_before(at / shape[1]) + 1) as u32,
            false => 0,
        };
        let virtual_ids: Vec<u32> = ids.iter().enumerate().map(number).collect();
        Tokens { ids: device.tensor_u32(&own, shape), virtual_ids: Some(device.tensor_u32(&virtual_ids, shape)) }
    }
}

impl Decoder {
    /// The decoder that a blueprint describes, with parameters from `source`, which is asked for each once.
    pub fn build(blueprint: Blueprint, source: &mut Source<'_>) -> Result<Decoder> {
        let names = &blueprint.family.names;
        let Blueprint { vocab_size, hidden_size, max_position_embeddings, .. } = blueprint;
        let mut embedding = |name: &str, rows| Embedding::build(name.into(), [rows, hidden_size], source);
        Ok(Decoder {
            embedding: embedding(names.embedding, vocab_size)?,
            positions: names.positions.map(|name| embedding(name, max_position_embeddings)).transpose()?,
            blocks: (0..blueprint.num_hidden_layers)
                .map(|layer| Block::build(&blueprint, layer, source).map(Arc::new))
                .collect::<Result<_>>()?,
            norm: Norm::build(names.norm.into(), blueprint.norm, hidden_size, blueprint.epsilon, source)?,
            head: match (blueprint.scores, blueprint.tie_word_embeddings) {
                (true, _) => Some(Linear::build(SCORE.into(), [1, hidden_size], false, source)?),
                (false, true) => None,
                (false, false) => Some(Linear::build(HEAD.into(), [vocab_size, hidden_size], false, source)?),
            },
            rope: Rope::new(),
            blueprint: Arc::new(blueprint),
        })
    }

    /// The same decoder with what `map` makes of each parameter, by name; what it leaves as it is, both share.
    pub fn mapped(&self, map: impl Fn(&str, &Tensor) -> Tensor) -> Decoder {
        let mut parameters = self.parameters().into_iter();
        let mut source = |name: &str, _: &[usize]| {
            let (_, tensor) = parameters.next().expect("as many parameters as the same blueprint asks for");
            Ok(map(name, tensor))
        };
        Decoder::build((*self.blueprint).clone(), &mut source).expect("nothing is read")
    }

    /// The same decoder with every parameter off the tape: for evaluation while it is trained.
    pub fn detach(&self) -> Decoder {
        self.mapped(|_, tensor| tensor.detach())
    }

    /// The same decoder with an output projection of its own, which begins as the embedding that it was tied to.
    pub fn untied(&self) -> Decoder {
        let head = || Linear { path: HEAD.into(), weight: self.embedding.weight.clone(), bias: None };
        let blueprint = Blueprint { tie_word_embeddings: false, ..(*self.blueprint).clone() };
        Decoder { head: Some(self.head.clone().unwrap_or_else(head)), blueprint: Arc::new(blueprint), ..self.clone() }
    }

    /// The same decoder with a score [1, H] in the place of its output projection.
    pub fn scoring(&self, score: Tensor) -> Decoder {
        let head = Linear { path: SCORE.into(), weight: score, bias: None };
        let blueprint = Blueprint { scores: true, ..(*self.blueprint).clone() };
        Decoder { head: Some(head), blueprint: Arc::new(blueprint), ..self.clone() }
    }

    /// What it was built from.
    pub fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// Where it lives.
    pub fn device(&self) -> &Device {
        self.embedding.weight.device()
    }

    /// All parameters under Hugging Face's names, in the order in which [`build`](Self::build) asks for them.
    pub fn parameters(&self) -> Vec<(String, &Tensor)> {
        let mut all = Vec::new();
        let mut visit = |name, tensor| all.push((name, tensor));
        self.embedding.parameters(&mut visit);
        self.positions.iter().for_each(|positions| positions.parameters(&mut visit));
        self.blocks.iter().for_each(|block| block.parameters(&mut visit));
        self.norm.parameters(&mut visit);
        self.head.iter().for_each(|head| head.parameters(&mut visit));
        all
    }

    /// The linear layers of all blocks: what can be tuned by LoRA. The output projection is not among them.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.blocks.iter().flat_map(|block| block.linears())
    }

    /// What makes vectors of tokens.
    pub fn embedding(&self) -> &Embedding {
        &self.embedding
    }

    /// The weight [V, H] that turns hidden states into logits; [1, H], into scores.
    pub fn output_weight(&self) -> &Tensor {
        self.head.as_ref().map_or(&self.embedding.weight, |head| &head.weight)
    }

    /// Rows of whole texts for a pass that is made so.
    ///
    /// # Panics
    /// If tokens and their positions are not as many, and a whole number a row; if texts that share a row are to stand behind a
    /// prefix, which would be seen by the first of them alone.
    #[track_caller]
    pub fn input(&self, rows: &Rows, forward: &Forward) -> Input {
        let Rows { count, ids, positions, segments } = *rows;
        let (length, tuning) = (rows.length(), &*forward.tuning);
        assert!(
            count * length == ids.len() && positions.len() == ids.len(),
            "[Decoder] expected {count} rows of one length, and as many positions, got {} and {}",
            ids.len(),
            positions.len()
        );
        let has_prefix = (0..count).any(|row| tuning.prefix_length(row) > 0);
        assert!(segments.is_none() || !has_prefix, "[Decoder] expected no packed texts behind a prefix");
        let (device, shape) = (self.device(), [count, length]);
        let behind = |(at, position): (usize, &u32)| position + tuning.prefix_length(at / length) as u32;
        let positions: Vec<u32> = positions.iter().enumerate().map(behind).collect();
        Input {
            tokens: Tokens::new(device, ids, shape, self.blueprint.vocab_size, tuning),
            // Packed texts begin again at 0: what dynamic rope goes by is the longest of them.
            end: positions.iter().max().map_or(0, |&last| last as usize + 1),
            positions: device.tensor_u32(&positions, shape),
            segments: segments.map(|segments| device.tensor_u32(segments, shape)),
            cached: None,
        }
    }

    /// A whole text for a pass that is made so.
    pub fn text(&self, ids: &[u32], forward: &Forward) -> Input {
        let positions: Vec<u32> = (0..ids.len() as u32).collect();
        self.input(&Rows { count: 1, ids, positions: &positions, segments: None }, forward)
    }

    /// Hidden states [B, T, H] after the final norm. What a cache holds then, no gradient goes through.
    pub fn hidden(&self, input: &Input, forward: &Forward) -> Tensor {
        let at = self.at(input);
        let mut x = self.embedded(input, &*forward.tuning);
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

    /// Logits [.., V] of hidden states [.., H], or scores [.., 1].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        ops::linear(hidden, self.output_weight())
    }

    /// Vectors of tokens, and of their positions where these are learned.
    fn embedded(&self, input: &Input, tuning: &dyn Tuning) -> Tensor {
        let Tokens { ids, virtual_ids } = &input.tokens;
        let x = self.embedding.forward(ids);
        let x = tuning.embedding(&self.embedding, ids, &x).unwrap_or(x);
        let x = match virtual_ids {
            None => x,
            Some(virtual_ids) => {
                let vectors = tuning.virtual_tokens().expect("a way of tuning that has virtual tokens");
                // Row 0 stands where x is taken.
                let table = ops::cat(&[&self.device().zeros([1, vectors.size(1)]), &vectors], 0);
                let is_virtual = virtual_ids.reshape([ids.size(0), ids.size(1), 1]);
                ops::where_(&is_virtual, &ops::gather(&table, virtual_ids), &x)
            }
        };
        match &self.positions {
            Some(positions) => ops::add(&x, &positions.forward(&input.positions)),
            None => x,
        }
    }

    fn at(&self, input: &Input) -> Positions {
        let tables = match &self.blueprint.positions {
            blueprint::Positions::Rotary(rope) => Some(self.rope.tables(rope, &self.blueprint, self.device(), input.end)),
            blueprint::Positions::Learned => None,
        };
        Positions { positions: input.positions.clone(), tables, segments: input.segments.clone(), cached: input.cached.clone() }
    }
}
