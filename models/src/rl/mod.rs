//! Learning from judgements: of pairs and ranks, of labels, and of what a model says itself.
//!
//! ```text
//! comparisons -> dpo, orpo, reward        labelled -> kto        rows that somebody judged
//! rollout -> phase -> grpo, ppo                                  what a policy says itself, judged as it says it
//! ```

pub mod advantage;
pub mod comparisons;
pub mod critic;
pub mod dpo;
pub mod grpo;
pub mod judge;
pub mod kto;
pub mod labelled;
pub mod loss;
#[cfg(test)]
mod near;
pub mod orpo;
pub mod phase;
pub mod player;
pub mod policy;
pub mod ppo;
pub mod reference;
pub mod reward;
pub mod rollout;
pub mod score;
pub mod scorers;
pub mod shaping;
