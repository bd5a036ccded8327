//! Training: what every recipe shares, and the recipes.

pub mod schedule;
