//! Keys and values of the tokens so far, so that the next token need not compute them again. They lie in pages, as memory does in an
//! operating system (Kwon et al. 2023, arXiv:2309.06180): rows of any length share one pool, and leave no gaps in it.

use std::sync::Arc;

use wgtune_engine::{Device, Tensor, ops};

use super::blueprint::Blueprint;
use super::decoder::{Input, Tokens};
use crate::nn::Tuning;

/// Tokens of a page.
const PAGE: usize = 64;

/// The key-value cache of one decoder: a pool of pages a layer, which grows by need.
pub struct Cache {
    device: Device,
    /// Tokens that are not virtual.
    vocabulary: usize,
    /// KV and D.
    heads: [usize; 2],
    /// Of each layer keys and values, two tensors [P, PAGE, KV, D].
    pools: Arc<Vec<(Tensor, Tensor)>>,
    /// P.
    size: usize,
    free: Vec<u32>,
}

/// A row of a cache: the pages that hold its keys and values, and how many these are.
pub struct Row {
    pages: Vec<u32>,
    length: usize,
    /// Those of a prefix.
    prefix: usize,
}

/// What one pass reads and writes of a cache: its pools, and where the rows of the pass lie in them.
#[derive(Clone)]
pub struct Cached {
    pools: Arc<Vec<(Tensor, Tensor)>>,
    pages: ops::Pages,
}

impl Row {
    /// How many tokens it holds, a prefix not counted.
    pub fn tokens(&self) -> usize {
        self.length - self.prefix
    }
}

impl Cache {
    /// An empty cache.
    pub fn new(blueprint: &Blueprint, device: &Device) -> Cache {
        let heads = [blueprint.num_key_value_heads, blueprint.head_dim];
        let empty = || device.zeros([0, PAGE, heads[0], heads[1]]);
        let pools = (0..blueprint.num_hidden_layers).map(|_| (empty(), empty())).collect();
        let vocabulary = blueprint.vocab_size;
        Cache { device: device.clone(), vocabulary, heads, pools: Arc::new(pools), size: 0, free: Vec::new() }
    }

    /// A row without tokens, which begins with the prefix of a way of tuning.
    pub fn row(&mut self, tuning: &dyn Tuning) -> Row {
        let prefix = tuning.prefix_length(0);
        let mut row = Row { pages: Vec::new(), length: 0, prefix };
        if prefix > 0 {
            self.extend(&mut row, prefix);
            let pages = self.pages(&[&row]);
            for (layer, (keys, values)) in self.pools.iter().enumerate() {
                let written = tuning.prefixes(layer, 1).into_iter().flat_map(|(_, prefix)| prefix.into_iter().flatten());
                for (pool, part) in [keys, values].into_iter().zip(written) {
                    ops::write_pages(pool, &part.reshape([1, prefix, self.heads[0], self.heads[1]]), &pages);
                }
            }
        }
        row
    }

    /// The pass of `tokens` of a model that is tuned so, at least one a row, behind those that rows of this cache hold, and which these then count: it has to be
    /// made before the next. Rows with fewer tokens than others are filled up at their beginnings, so that the last of all rows stand
    /// side by side.
    pub fn input(&mut self, rows: &mut [(&mut Row, &[u32])], tuning: &dyn Tuning) -> Input {
        for (row, tokens) in rows.iter_mut() {
            self.extend(row, tokens.len());
        }
        let longest = rows.iter().map(|(_, tokens)| tokens.len()).max().unwrap_or(0);
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        for (row, tokens) in rows.iter() {
            let before = vec![0; longest - tokens.len()];
            ids.extend(before.iter().chain(*tokens));
            positions.extend(before.iter().copied().chain((row.length - tokens.len()) as u32..row.length as u32));
        }
        let shape = [rows.len(), longest];
        let rows: Vec<&Row> = rows.iter().map(|(row, _)| &**row).collect();
        Input {
            tokens: Tokens::new(&self.device, &ids, shape, self.vocabulary, tuning),
            positions: self.device.tensor_u32(&positions, shape),
            end: rows.iter().map(|row| row.length).max().unwrap_or(0),
            segments: None,
            cached: Some(Cached { pages: self.pages(&rows), pools: self.pools.clone() }),
        }
    }

    /// Makes room for more tokens at a row's end.
    fn extend(&mut self, row: &mut Row, tokens: usize) {
        row.length += tokens;
        while row.pages.len() * PAGE < row.length {
            row.pages.push(self.page());
        }
    }

    /// Where rows lie.
    fn pages(&self, rows: &[&Row]) -> ops::Pages {
        // A power of two, so that a device that measures what is fastest meets few sizes.
        let width = rows.iter().map(|row| row.pages.len()).max().unwrap_or(0).next_power_of_two();
        let of_row = |row: &&Row| row.pages.clone().into_iter().chain([0].into_iter().cycle()).take(width);
        let table: Vec<u32> = rows.iter().flat_map(of_row).collect();
        let lengths: Vec<u32> = rows.iter().map(|row| row.length as u32).collect();
        let table = self.device.tensor_u32(&table, [rows.len(), width]);
        ops::Pages { table, lengths: self.device.tensor_u32(&lengths, [rows.len()]) }
    }

    /// A layer's keys and values of a row, each [T, KV, D].
    pub fn content(&self, row: &Row, layer: usize) -> [Tensor; 2] {
        let (keys, values) = &self.pools[layer];
        let pages = self.device.tensor_u32(&row.pages, [row.pages.len()]);
        let [heads, width] = self.heads;
        [keys, values].map(|pool| {
            let rows = ops::gather(&pool.reshape([self.size, PAGE * heads * width]), &pages);
            rows.reshape([row.pages.len() * PAGE, heads, width]).slice(0, 0..row.length)
        })
    }

    /// Takes back the pages of a row that has ended.
    pub fn retire(&mut self, row: Row) {
        self.free.extend(row.pages);
    }

    /// A page that is free; where there is none, the pool doubles.
    fn page(&mut self) -> u32 {
        if self.free.is_empty() {
            let more = self.size.max(1);
            let [heads, width] = self.heads;
            let grown = |pool: &Tensor| ops::cat(&[pool, &self.device.zeros([more, PAGE, heads, width])], 0);
            self.pools = Arc::new(self.pools.iter().map(|(keys, values)| (grown(keys), grown(values))).collect());
            self.free.extend((self.size as u32..(self.size + more) as u32).rev());
            self.size += more;
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
