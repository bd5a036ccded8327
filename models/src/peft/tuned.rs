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

    /// (trained, all): how many numbers are trained, and how many there are.
    pub fn sizes(&self) -> (usize, usize) {
        let count = |parameters: &[(String, &Tensor)]| parameters.iter().map(|(_, tensor)| tensor.elements()).sum::<usize>();
        (count(&self.parameters()), count(&self.decoder.parameters()) + count(&self.method.parameters()))
    }
}
