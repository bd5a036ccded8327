//! Transformers, tuning methods, data, training and file formats.

pub mod data;
pub mod demo;
pub mod error;
pub mod formats;
pub mod train;

pub use error::{Error, Result};
