//! The tables of cosines and sines that rotate queries and keys.

use std::sync::{Arc, Mutex};

use wgtune_engine::{Device, Tensor};

use super::blueprint::Blueprint;
use crate::formats::rope::{RopeConfig, RopeScaling, rope_frequencies};

/// Cosines and sines [positions, D/2], made as long as they are needed and kept.
#[derive(Clone)]
pub(super) struct Rope {
    tables: Arc<Mutex<Option<Tables>>>,
}

#[derive(Clone)]
pub(super) struct Tables {
    positions: usize,
    pub cos: Tensor,
    pub sin: Tensor,
}

impl Rope {
    pub fn new() -> Rope {
        Rope { tables: Arc::default() }
    }

    /// Tables for at least `positions` positions.
    pub fn tables(&self, rope: &RopeConfig, blueprint: &Blueprint, device: &Device, positions: usize) -> Tables {
        let mut tables = self.tables.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Dynamic scaling has other frequencies for every length past the model's own; all else only needs to be long enough.
        let exact = matches!(rope.scaling, RopeScaling::Dynamic { .. }) && positions > blueprint.max_position_embeddings;
        match &*tables {
            Some(made) if made.positions == positions || (!exact && made.positions > positions) => made.clone(),
            _ => {
                let length = if exact { positions } else { positions.next_power_of_two().max(64) };
                tables.insert(Tables::new(rope, blueprint, device, length, positions)).clone()
            }
        }
    }
}

impl Tables {
    fn new(rope: &RopeConfig, blueprint: &Blueprint, device: &Device, length: usize, sequence: usize) -> Tables {
        let (frequencies, factor) = rope_frequencies(rope, blueprint.head_dim, blueprint.max_position_embeddings, sequence);
        let table = |function: fn(f64) -> f64| {
            let values: Vec<f32> = (0..length)
                .flat_map(|position| frequencies.iter().map(move |frequency| position as f64 * frequency))
                .map(|angle| (function(angle) * factor) as f32)
                .collect();
            device.tensor(&values, [length, frequencies.len()])
        };
        Tables { positions: length, cos: table(f64::cos), sin: table(f64::sin) }
    }
}
