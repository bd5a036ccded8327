//! Rewrites of a recording between the ops and the device, each a function with its own tests.

mod dead;
mod place;

pub use dead::drop_dead;
pub use place::{Placement, Slots, place};
