//! Keys and values of the tokens so far, so that the next token need not compute them again.

use wgtune_engine::{Device, Tensor, ops};

use super::blueprint::Blueprint;

/// The key-value cache of one decoder: per layer two tensors [B, capacity, KV, D], filled from the front.
pub struct Cache {
    layers: Vec<(Tensor, Tensor)>,
    length: usize,
    capacity: usize,
}

impl Cache {
    /// An empty cache for `rows` rows of at most `capacity` tokens.
    pub fn new(blueprint: &Blueprint, device: &Device, rows: usize, capacity: usize) -> Cache {
        let shape = [rows, capacity, blueprint.num_key_value_heads, blueprint.head_dim];
        let layers = (0..blueprint.num_hidden_layers).map(|_| (device.zeros(shape), device.zeros(shape))).collect();
        Cache { layers, length: 0, capacity }
    }

    /// How many tokens a row holds.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Puts a layer's new keys and values [B, T, KV, D] behind those it holds, and returns all of them.
    pub(super) fn extend(&self, layer: usize, key: &Tensor, value: &Tensor) -> (Tensor, Tensor) {
        let (keys, values) = &self.layers[layer];
        ops::write_rows(keys, key, self.length);
        ops::write_rows(values, value, self.length);
        (keys.clone(), values.clone())
    }

    /// Counts `tokens` new tokens, once every layer has them.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.length += tokens;
    }
}
