//! How answers are drawn: what commands share that let a model answer many prompts.

use clap::Args;
use wgtune_models::generate::Sampling;
use wgtune_models::rl::rollout::Sampler;

use crate::numbers::{MOST_TOKENS, above_zero, share, whole};

/// How answers are drawn.
#[derive(Args)]
pub struct Drawing {
    /// Tokens of the longest answer
    #[arg(long, default_value_t = 64, value_parser = whole(1..=MOST_TOKENS), value_name = "TOKENS")]
    pub max_new_tokens: usize,
    /// Divides the logits that answers are drawn by
    #[arg(long, default_value_t = 1.0, value_parser = above_zero)]
    temperature: f64,
    /// Draw only from the k most likely tokens; 0 is all
    #[arg(long, default_value_t = 0, value_parser = whole(0..=usize::MAX))]
    top_k: usize,
    /// Draw only from the most likely tokens that together reach this probability
    #[arg(long, default_value_t = 1.0, value_parser = share)]
    top_p: f64,
    /// Answers that are drawn together
    #[arg(long, default_value_t = 32, value_parser = whole(1..=65_536), value_name = "ANSWERS")]
    pub together: usize,
}

impl Drawing {
    /// What draws them, up to one of these tokens.
    pub fn sampler(&self, ends: Vec<u32>) -> Sampler {
        Sampler {
            sampling: Sampling {
                temperature: self.temperature as f32,
                top_k: self.top_k,
                top_p: self.top_p as f32,
                ..Sampling::default()
            },
            max_new_tokens: self.max_new_tokens,
            ends,
            batch: self.together,
        }
    }
}
