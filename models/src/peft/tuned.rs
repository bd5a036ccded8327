//! A decoder and what of it is trained.

use std::sync::Arc;

use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Tensor, ops};

use super::{Full, Method};
use crate::transformer::{Decoder, Forward};

/// A model and its method.
#[derive(Clone)]
pub struct Tuned {
    /// The model.
    pub decoder: Decoder,
    /// What of it is trained, and what is added to it.
    pub method: Arc<dyn Method>,
}

impl Tuned {
    /// A model as it is.
    pub fn bare(decoder: Decoder) -> Tuned {
        Tuned { decoder, method: Arc::new(Full::default()) }
    }

    /// The same model with what its method trains on the tape, in f32.
    pub fn requiring_grad(&self) -> Tuned {
        let decoder = self.decoder.mapped(|name, tensor| match self.method.trains(name) {
            true if tensor.dtype() == DType::F32 => tensor.requiring_grad(),
            true => ops::cast(tensor, DType::F32).requiring_grad(),
            false => tensor.clone(),
        });
        Tuned { decoder, method: self.method.mapped(&Tensor::requiring_grad) }
    }

    /// The same model with nothing on the tape.
    pub fn detach(&self) -> Tuned {
        Tuned { decoder: self.decoder.detach(), method: self.method.mapped(&Tensor::detach) }
    }

    /// What is trained: of the decoder, under its names, and what is added, under those of the adapter's file.
    pub fn parameters(&self) -> Vec<(String, &Tensor)> {
        let own = self.decoder.parameters().into_iter().filter(|(name, _)| self.method.trains(name));
        own.chain(self.method.parameters()).collect()
    }

    /// A training pass, whose dropout is drawn from `random`.
    pub fn training(&self, random: Philox, checkpoint_blocks: bool) -> Forward {
        Forward { tuning: self.method.tuning(Some(random)), checkpoint_blocks }
    }

    /// A pass without dropout.
    pub fn forward(&self) -> Forward {
        Forward { tuning: self.method.tuning(None), checkpoint_blocks: false }
    }

    /// The ids of the virtual tokens that a text begins with: they follow those of the vocabulary.
    pub fn opening(&self) -> Vec<u32> {
        let vocabulary = self.decoder.blueprint().vocab_size as u32;
        (vocabulary..vocabulary + self.method.opening() as u32).collect()
    }

    /// A text's tokens behind the virtual ones.
    pub fn opened(&self, ids: &[u32]) -> Vec<u32> {
        [&self.opening(), ids].concat()
    }

    /// How many positions are taken before a text's own tokens: by virtual tokens, and by a prefix of keys.
    pub fn taken(&self) -> usize {
        self.method.opening() + self.forward().tuning.prefix_length(0)
    }

    /// The logits [T, V] of a text, of whose tokens T there are no virtual ones.
    pub fn logits(&self, ids: &[u32]) -> Tensor {
        let (opened, forward) = (self.opened(ids), self.forward());
        let hidden = self.decoder.hidden(&self.decoder.text(&opened, &forward), &forward);
        let [first, end, width] = [opened.len() - ids.len(), opened.len(), hidden.last_size()];
        self.decoder.logits(&hidden.reshape([end, width]).slice(0, first..end))
    }

    /// (trained, all): how many numbers are trained, and how many there are.
    pub fn sizes(&self) -> (usize, usize) {
        let count = |parameters: &[(String, &Tensor)]| parameters.iter().map(|(_, tensor)| tensor.elements()).sum::<usize>();
        (count(&self.parameters()), count(&self.decoder.parameters()) + count(&self.method.parameters()))
    }
}
