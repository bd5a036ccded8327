//! Learning from judgements: of pairs and ranks, of labels, and of what a model says itself.
//!
//! ```text
//! comparisons -> dpo, orpo, reward        labelled -> kto        (offline: rows that somebody judged)
//! ```

pub mod advantage;
pub mod comparisons;
pub mod dpo;
pub mod kto;
pub mod labelled;
pub mod loss;
pub mod orpo;
pub mod reference;
pub mod reward;
pub mod score;
