//! A decoder and what of it is trained.

use std::sync::Arc;

use wgtune_engine::Tensor;
use wgtune_engine::random::Philox;

use crate::peft::Lora;
use crate::transformer::{Decoder, Forward};

/// A model in training: whole, or frozen under LoRA.
#[derive(Clone)]
pub struct Tuned {
    /// The model; its parameters are on the tape where it is trained whole.
    pub decoder: Decoder,
    /// The updates that are trained instead.
    pub lora: Option<Lora>,
}

impl Tuned {
    /// The parameters that are trained, under the names of the file that they are saved in.
    pub fn parameters(&self) -> Vec<(String, &Tensor)> {
        match &self.lora {
            Some(lora) => lora.parameters(),
            None => self.decoder.parameters(),
        }
    }

    /// A training pass, whose dropout is drawn from `random`.
    pub fn training(&self, random: Philox, checkpoint_blocks: bool) -> Forward {
        match &self.lora {
            Some(lora) => Forward { tuning: Arc::new(lora.dropping(random)), checkpoint_blocks },
            None => Forward { tuning: Arc::new(()), checkpoint_blocks },
        }
    }

    /// The same model off the tape, and a pass without dropout.
    pub fn evaluation(&self) -> (Decoder, Forward) {
        let tuning: Arc<dyn crate::peft::Tuning> = match &self.lora {
            Some(lora) => Arc::new(lora.detach()),
            None => Arc::new(()),
        };
        (self.decoder.detach(), Forward { tuning, checkpoint_blocks: false })
    }

    /// (trained, all): how many numbers are trained, and how many there are.
    pub fn sizes(&self) -> (usize, usize) {
        let count = |parameters: Vec<(String, &Tensor)>| parameters.iter().map(|(_, tensor)| tensor.elements()).sum::<usize>();
        let trained = count(self.parameters());
        let base = count(self.decoder.parameters());
        (trained, if self.lora.is_some() { base + trained } else { base })
    }
}
