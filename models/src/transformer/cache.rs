//! Keys and values of the tokens so far, so that the next token need not compute them again. They lie in pages, as memory does in an
//! operating system (Kwon et al. 2023, arXiv:2309.06180): rows of any length share one pool, and leave no gaps in it.

use std::sync::Arc;

use wgtune_engine::{Device, Tensor, ops};

use super::Input;
use super::blueprint::Blueprint;

/// Tokens of a page.
const PAGE: usize = 64;

/// The key-value cache of one decoder: a pool of pages a layer, which grows by need.
pub struct Cache {
    device: Device,
    /// KV and D.
    heads: [usize; 2],
    /// Of each layer keys and values, two tensors [P, PAGE, KV, D].
    pools: Arc<Vec<(Tensor, Tensor)>>,
    /// P.
    pages: usize,
    free: Vec<u32>,
}

/// A row of a cache: the pages that hold its tokens, and how many tokens these are.
#[derive(Default)]
pub struct Row {
    pages: Vec<u32>,
    length: usize,
}

/// What one pass reads and writes of a cache: its pools, and where the rows of the pass lie in them.
#[derive(Clone)]
pub struct Cached {
    pools: Arc<Vec<(Tensor, Tensor)>>,
    pages: ops::Pages,
}

impl Row {
    /// How many tokens it holds.
    pub fn length(&self) -> usize {
        self.length
    }
}

impl Cache {
    /// An empty cache.
    pub fn new(blueprint: &Blueprint, device: &Device) -> Cache {
        let heads = [blueprint.num_key_value_heads, blueprint.head_dim];
        let empty = || device.zeros([0, PAGE, heads[0], heads[1]]);
        let pools = (0..blueprint.num_hidden_layers).map(|_| (empty(), empty())).collect();
        Cache { device: device.clone(), heads, pools: Arc::new(pools), pages: 0, free: Vec::new() }
    }

    /// The pass of `tokens`, at least one a row, behind those that rows of this cache hold, and which these then count: it has to be
    /// made before the next. Rows with fewer tokens than others are filled up at their beginnings, so that the last of all rows stand
    /// side by side.
    pub fn input(&mut self, rows: &mut [(&mut Row, &[u32])]) -> Input {
        for (row, tokens) in rows.iter_mut() {
            row.length += tokens.len();
            while row.pages.len() * PAGE < row.length {
                row.pages.push(self.page());
            }
        }
        let count = rows.len();
        let longest = rows.iter().map(|(_, tokens)| tokens.len()).max().unwrap_or(0);
        // A power of two, so that a device that measures what is fastest meets few sizes.
        let width = rows.iter().map(|(row, _)| row.pages.len()).max().unwrap_or(0).next_power_of_two();
        let (mut ids, mut positions, mut table) = (Vec::new(), Vec::new(), Vec::new());
        for (row, tokens) in rows.iter() {
            let before = vec![0; longest - tokens.len()];
            ids.extend(before.iter().chain(*tokens));
            positions.extend(before.iter().copied().chain((row.length - tokens.len()) as u32..row.length as u32));
            table.extend(row.pages.iter().copied().chain([0].into_iter().cycle()).take(width));
        }
        let lengths: Vec<u32> = rows.iter().map(|(row, _)| row.length as u32).collect();
        let tensor = |values: &[u32], columns| self.device.tensor_u32(values, [count, columns]);
        let pages = ops::Pages { table: tensor(&table, width), lengths: self.device.tensor_u32(&lengths, [count]) };
        Input {
            ids: tensor(&ids, longest),
            positions: tensor(&positions, longest),
            end: lengths.iter().max().map_or(0, |&length| length as usize),
            lengths: None,
            segments: None,
            cached: Some(Cached { pools: self.pools.clone(), pages }),
        }
    }

    /// Takes back the pages of a row that has ended.
    pub fn retire(&mut self, row: Row) {
        self.free.extend(row.pages);
    }

    /// A page that is free; where there is none, the pool doubles.
    fn page(&mut self) -> u32 {
        if self.free.is_empty() {
            let more = self.pages.max(1);
            let [heads, width] = self.heads;
            let grown = |pool: &Tensor| ops::cat(&[pool, &self.device.zeros([more, PAGE, heads, width])], 0);
            self.pools = Arc::new(self.pools.iter().map(|(keys, values)| (grown(keys), grown(values))).collect());
            self.free.extend((self.pages as u32..(self.pages + more) as u32).rev());
            self.pages += more;
        }
        self.free.pop().expect("the pool has just grown")
    }
}

impl Cached {
    /// Puts a layer's new keys and values [B, T, KV, D] behind those of their rows, and lets the query [B, T, H, D] attend to all.
    pub(super) fn attention(&self, layer: usize, query: &Tensor, [key, value]: [&Tensor; 2], window: Option<usize>) -> Tensor {
        let (keys, values) = &self.pools[layer];
        ops::write_pages(keys, key, &self.pages);
        ops::write_pages(values, value, &self.pages);
        ops::paged_attention(query, keys, values, &self.pages, window)
    }
}
