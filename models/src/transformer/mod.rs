//! One decoder for all families, which a blueprint tells it as data.
//!
//! Shapes: B rows, T tokens a row, H hidden width, Q query heads and KV key heads of width D, V vocabulary.

mod attention;
mod block;
mod blueprint;
mod cache;
mod decoder;
mod families;
mod rope;
mod weights;

pub use blueprint::{Activation, Blueprint, Positions};
pub use cache::{Cache, Cached, Row};
pub use decoder::{Decoder, Forward, Input, Rows};
pub use families::{FAMILIES, Family, Names, Projections, SCORE};
pub use weights::{load_decoder, new_decoder, save_decoder};
