//! Transformers, tuning methods, data, training and file formats.

pub mod demo;
pub mod error;
pub mod formats;

pub use error::{Error, Result};
