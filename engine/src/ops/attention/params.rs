//! What the three kernels are told.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::{Mask, Pages};
use crate::kernel::{Constants, Cost, Halves, Io, Shader, Target, Traits, grid};
use crate::real::Real;
use crate::tensor::Tensor;

/// No limit on how far back a query sees.
const UNLIMITED: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    /// Batch rows times parts.
    pub batch: u32,
    pub queries: u32,
    pub keys: u32,
    pub heads: u32,
    pub key_heads: u32,
    pub head_dim: u32,
    pub start: u32,
    pub window: u32,
    pub prefix: u32,
    pub causal: u32,
    pub has_lengths: u32,
    pub has_segments: u32,
    /// Parts that the keys are cut into, or in the gradients of those the queries, all but the last of one size.
    pub parts: u32,
    pub scale: f32,
    /// Keys of a page; 0 where they do not lie in pages.
    pub page_size: u32,
    /// Pages that a row's table names.
    pub pages: u32,
    pub query: Rows,
    pub key: Rows,
    pub value: Rows,
}

/// How an input [B, N, H, D] lies, in elements: the strides of its first three axes, and where it starts.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Rows {
    pub batch: u32,
    pub position: u32,
    pub head: u32,
    pub offset: u32,
}

impl Params {
    pub fn new(query: &Tensor, key: &Tensor, value: &Tensor, mask: &Mask, scale: f32) -> Params {
        let [q, k] = [query.shape(), key.shape()].map(|shape| [shape[0], shape[1], shape[2], shape[3]].map(|size| size as u32));
        Params {
            batch: q[0],
            queries: q[1],
            keys: k[1],
            heads: q[2],
            key_heads: k[2],
            head_dim: q[3],
            start: mask.start as u32,
            window: mask.window.map_or(UNLIMITED, |window| window as u32),
            prefix: mask.prefix as u32,
            causal: mask.causal.into(),
            has_lengths: mask.lengths.is_some().into(),
            has_segments: mask.segments.is_some().into(),
            parts: 1,
            scale,
            page_size: 0,
            pages: 0,
            query: Rows::new(query),
            key: Rows::new(key),
            value: Rows::new(value),
        }
    }

    /// The same where key and value lie in pages [P, page_size, KV, D].
    pub fn in_pages(self, pages: &Pages) -> Params {
        let (page_size, pages) = (self.keys, pages.table.size(1) as u32);
        let shared = |rows: Rows| Rows { batch: 0, ..rows };
        let (keys, key, value) = (pages * page_size, shared(self.key), shared(self.value));
        Params { keys, start: keys.saturating_sub(self.queries), has_lengths: 1, page_size, pages, key, value, ..self }
    }

    /// The same with keys, or queries, cut into so many parts, each a batch row.
    pub fn in_parts(self, parts: u32) -> Params {
        Params { batch: self.batch * parts, parts, ..self }
    }

    /// How many query heads share a key head.
    pub fn group(&self) -> usize {
        (self.heads / self.key_heads) as usize
    }

    /// The work of `products` products of the pairs of query and key that are seen, each over D, and of reading and writing
    /// `elements`. All rows count as full, and as one segment: a device knows their lengths, this does not.
    pub fn cost(&self, products: u64, elements: u64) -> Cost {
        let rows = u64::from(self.batch / self.parts) * u64::from(self.heads);
        Cost { flops: 2 * products * rows * self.pairs_seen() * u64::from(self.head_dim), bytes: 4 * elements }
    }

    /// The pairs of a query and a key that it sees, of a row and head of full length, as [`Inputs::seen`] counts them one by one.
    fn pairs_seen(&self) -> u64 {
        let [queries, keys, start, window] = [self.queries, self.keys, self.start, self.window].map(i64::from);
        // One past a query's own position among the keys.
        let next = start + 1..start + 1 + queries;
        let ends = match self.causal {
            0 => queries * keys,
            _ => sum_clamped(next.clone(), i64::from(self.prefix).min(keys), keys),
        };
        (ends - sum_clamped(next.start - window..next.end - window, 0, keys)) as u64
    }

    /// Workgroups of shaders whose 32 invocations each have two positions of a head.
    pub fn pairs(&self, positions: u32, heads: u32) -> [u32; 3] {
        grid(self.batch as usize * heads as usize * positions.div_ceil(2) as usize, 32)
    }

    /// Workgroups of shaders that have 64 queries of a head each.
    pub fn query_tiles(&self) -> [u32; 3] {
        [self.queries.div_ceil(64), self.heads, self.batch]
    }

    /// Workgroups of shaders that have 64 keys of a head each.
    pub fn key_tiles(&self) -> [u32; 3] {
        [self.keys.div_ceil(64), self.key_heads, self.batch]
    }

    /// Workgroups of shaders that have 32 rows of a key head each.
    pub fn blocks(&self, rows: u32) -> [u32; 3] {
        [rows.div_ceil(32), self.key_heads, self.batch]
    }

    /// Rows of a key head: the queries of its group.
    pub fn rows(&self) -> u32 {
        self.queries * self.group() as u32
    }

    /// What all shaders but those of rows are specialised for.
    pub fn constants(&self) -> Constants {
        let [in_pages, in_parts] = [self.page_size > 0, self.parts > 1].map(f64::from);
        vec![("HEAD_DIM", self.head_dim.into()), ("IN_PAGES", in_pages), ("IN_PARTS", in_parts)]
    }

    /// Elements of the query, and of the key.
    pub fn elements(&self) -> [u64; 2] {
        let a_position = u64::from(self.batch / self.parts) * u64::from(self.head_dim);
        [(self.queries, self.heads), (self.keys, self.key_heads)].map(|(n, heads)| a_position * u64::from(n) * u64::from(heads))
    }
}

/// The sum of `numbers`, each brought to between `low` and `high`.
fn sum_clamped(numbers: Range<i64>, low: i64, high: i64) -> i64 {
    let [first, end] = [numbers.start, numbers.end].map(|number| number.clamp(low, high));
    let below = numbers.end.min(low) - numbers.start.min(low);
    let above = numbers.end.max(high) - numbers.start.max(high);
    low * below + (first + end - 1) * (end - first) / 2 + high * above
}

/// One of the three kernels: what it goes through for a row of its own. Unless it says otherwise its rows are queries.
pub(super) trait Pass {
    /// Rows that each invocation of a variant goes through: keys, or the queries of a group.
    fn columns(params: &Params) -> u32 {
        params.keys
    }
    /// Workgroups of the variant that runs anywhere, two rows an invocation.
    fn pairs(params: &Params) -> [u32; 3] {
        params.pairs(params.queries, params.heads)
    }
    /// Workgroups of the variants by tiles.
    fn tiles(params: &Params) -> [u32; 3] {
        params.query_tiles()
    }
    /// Workgroups of the variant that has eight rows a subgroup.
    fn blocks(params: &Params) -> [u32; 3] {
        params.blocks(params.rows())
    }
}

/// Bytes of workgroup memory of the tiles (`attention_tiles.wgsl`).
const TILE_BYTES: u32 = 16 * (544 + 1088);

/// The variants of a kernel, from the stems of: rows; tiles in shared memory, for devices with cheap barriers; subgroups, for
/// adapters on the CPU; tiles on matrix units, of 16 x 16, of 8 x 8, and emulated.
pub(super) const fn variants<P: Pass>(stems: [&'static str; 6]) -> [Shader<Params>; 6] {
    let [row, tile, subgroup, matrix_16, matrix_8, emulated] = stems;
    [
        Shader::new(row, P::pairs)
            .written_for(Target::Software)
            .allowed(|p, traits| traits.iterations_fit(p.iterations_of_rows(P::columns(p)))),
        Shader::new(tile, P::tiles)
            .with(Params::constants)
            .allowed(|p, traits| {
                traits.workgroup_memory >= TILE_BYTES && traits.iterations_fit(p.iterations_of_tiles(P::columns(p)))
            })
            .preferred(|_, traits| !traits.software),
        Shader::new(subgroup, P::blocks)
            .with(Params::constants)
            .written_for(Target::Software)
            .allowed(|p, traits| p.suits_subgroups(P::columns(p), traits)),
        matrices::<P>(matrix_16, Halves::Matrices16),
        matrices::<P>(matrix_8, Halves::Matrices8),
        matrices::<P>(emulated, Halves::Emulated)
            .allowed(|p, traits| p.suits_halves(traits) && traits.iterations_fit(p.iterations_emulated(P::columns(p))))
            .preferred(|_, _| false),
    ]
}

const fn matrices<P: Pass>(stem: &'static str, halves: Halves) -> Shader<Params> {
    Shader::new(stem, P::tiles).with(Params::constants).written_for(Target::Halves(halves)).allowed(Params::suits_halves)
}

impl Params {
    /// Sizes and layouts by which variants differ in speed. Where the queries start, and how long rows are, changes from call to
    /// call.
    pub fn bucket(&self) -> [u32; 12] {
        let is_paged = u32::from(self.page_size > 0);
        let flags =
            self.causal | self.has_lengths << 1 | self.has_segments << 2 | u32::from(self.is_in_vectors()) << 3 | is_paged << 4;
        let [query, key, value] = [self.query, self.key, self.value].map(|rows| rows.position);
        let Params { batch, queries, keys, heads, key_heads, head_dim, parts, window, .. } = *self;
        [batch, queries, keys, heads, key_heads, head_dim, parts, window, flags, query, key, value]
    }

    /// Blocks of sixteen columns, each with two or three loops over D.
    fn iterations_of_rows(&self, columns: u32) -> u64 {
        u64::from(columns.div_ceil(16)) * u64::from(3 * self.head_dim + 1)
    }

    /// Blocks of 64 columns: two products in steps of 16 dimensions, of 17 iterations each, and two sums for 64 at a time, of 18.
    fn iterations_of_tiles(&self, columns: u32) -> u64 {
        let block = 34 * self.head_dim.div_ceil(16) + 36 * self.head_dim.div_ceil(64);
        u64::from(columns.div_ceil(64)) * u64::from(block)
    }

    /// Blocks of 32 columns, with up to four products of two matrices for every sixteen dimensions, each of sixteen steps.
    fn iterations_emulated(&self, columns: u32) -> u64 {
        160 * u64::from(columns.div_ceil(32)) * u64::from(self.head_dim.div_ceil(16) + 1)
    }

    /// Blocks of four columns a lane: two products in steps of eight dimensions, and two sums in steps of a lane. Adapters of four
    /// lanes gain little, and SwiftShader, one of them, compiles this for minutes.
    fn suits_subgroups(&self, columns: u32, traits: &Traits) -> bool {
        let Some((lanes @ 8.., ..=16)) = traits.subgroups else { return false };
        let [lanes, columns, dim] = [lanes, columns, self.head_dim].map(u64::from);
        // A workgroup's four blocks of rows, each in parts of the dimensions, over the subgroups of 32 invocations.
        let items = (4 * dim.div_ceil(16 * lanes) * lanes).div_ceil(32);
        let block = dim / 4 + 2 * lanes + 1;
        self.is_in_vectors() && traits.iterations_fit(items * columns.div_ceil(4 * lanes) * block)
    }

    /// Whether there are products of f16, and a tile of theirs holds these rows, in whole matrices: at D = 128 it takes 32 KiB.
    pub fn suits_halves(&self, traits: &Traits) -> bool {
        let fits = self.head_dim.is_multiple_of(16) && self.head_dim <= 128 && traits.workgroup_memory >= 32 << 10;
        traits.halves.is_some() && fits && self.is_in_vectors()
    }

    /// Whether rows are of whole pairs of vectors, and start at one.
    fn is_in_vectors(&self) -> bool {
        let rows = [self.query, self.key, self.value];
        let starts = rows.iter().flat_map(|rows| [rows.batch, rows.position, rows.head, rows.offset]);
        self.head_dim.is_multiple_of(8) && starts.into_iter().all(|start| start.is_multiple_of(4))
    }
}

impl Rows {
    fn new(x: &Tensor) -> Rows {
        let strides = x.layout().strides();
        Rows { batch: strides[0] as u32, position: strides[1] as u32, head: strides[2] as u32, offset: x.layout().offset as u32 }
    }

    /// Of a tensor [B, T, H, width] without gaps.
    pub fn contiguous(params: &Params, width: usize) -> Rows {
        let head = width as u32;
        let position = params.heads * head;
        Rows { batch: params.queries * position, position, head, offset: 0 }
    }

    /// Where a row of D elements starts.
    pub fn at(&self, batch: usize, position: usize, head: usize) -> usize {
        self.offset as usize + batch * self.batch as usize + position * self.position as usize + head * self.head as usize
    }
}

/// The inputs that all three twins read.
pub(super) struct Inputs<'a, R> {
    pub params: &'a Params,
    pub query: &'a [R],
    pub key: &'a [R],
    pub value: &'a [R],
    lengths: Option<&'a [u32]>,
    segments: Option<&'a [u32]>,
    pages: Option<&'a [u32]>,
}

impl<'a, R: Real> Inputs<'a, R> {
    pub fn new(params: &'a Params, io: &Io<'a, R>) -> Self {
        Inputs {
            params,
            query: io.real(0),
            key: io.real(1),
            value: io.real(2),
            lengths: (params.has_lengths == 1).then(|| io.u32(3)),
            segments: (params.has_segments == 1).then(|| io.u32(4)),
            pages: (params.page_size > 0).then(|| io.u32(4)),
        }
    }

    /// The keys that a query may see, apart from segments.
    pub fn seen(&self, batch: usize, query: usize) -> Range<usize> {
        let p = self.params;
        let length = self.lengths.map_or(p.keys, |lengths| lengths[batch / p.parts as usize].min(p.keys)) as usize;
        // The queries of a row in pages are its last tokens, of which it may have fewer.
        let next = match self.pages {
            Some(_) => (length + query + 1).saturating_sub(p.queries as usize),
            None => p.start as usize + query + 1,
        };
        let size = p.keys.div_ceil(p.parts);
        let part = batch as u32 % p.parts * size;
        let mut end = length.min((part + size) as usize);
        if p.causal == 1 {
            end = end.min(next.max(p.prefix as usize));
        }
        next.saturating_sub(p.window as usize).max(part as usize).min(end)..end
    }

    /// The keys that any of these queries may see.
    pub fn reach(&self, batch: usize, queries: Range<usize>) -> Range<usize> {
        let seen = || queries.clone().map(|query| self.seen(batch, query)).filter(|keys| !keys.is_empty());
        seen().map(|keys| keys.start).min().unwrap_or(0)..seen().map(|keys| keys.end).max().unwrap_or(0)
    }

    /// Where a key lies: at its position in its row, or in the page that the row's table names.
    pub fn place(&self, row: usize, key: usize) -> usize {
        let Some(pages) = self.pages else { return key };
        let size = self.params.page_size as usize;
        pages[row * self.params.pages as usize + key / size] as usize * size + key % size
    }

    /// Cuts keys into blocks of at most `most` that lie one behind the other.
    pub fn blocks(&self, keys: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
        let (page_size, mut first) = (self.params.page_size as usize, keys.start);
        std::iter::from_fn(move || {
            let room = if page_size == 0 { most } else { most.min(page_size - first % page_size) };
            let block = first..(first + room).min(keys.end);
            first = block.end;
            (!block.is_empty()).then_some(block)
        })
    }

    /// The segments of a batch row, by position.
    pub fn segments(&self, batch: usize) -> Option<&'a [u32]> {
        let queries = self.params.queries as usize;
        self.segments.map(|segments| &segments[batch * queries..][..queries])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn pairs_that_are_seen_are_counted_as_they_are_met() {
        let device = Device::reference();
        let sizes = [(7, 7, 0), (5, 9, 4), (1, 12, 11), (3, 4, 6), (6, 4, 0), (4, 0, 0)];
        for ((queries, keys, start), causal) in sizes.into_iter().flat_map(|size| [(size, true), (size, false)]) {
            for (window, prefix) in [None, Some(1), Some(3), Some(40)].into_iter().flat_map(|w| [0, 2, 6, 99].map(|p| (w, p))) {
                let [query, key] = [queries, keys].map(|count| device.tensor(&vec![0.0; 4 * count], [1, count, 1, 4]));
                let mask = Mask { causal, start, window, prefix, ..Mask::default() };
                let params = Params::new(&query, &key, &key, &mask, 1.0);
                let inputs = Inputs::<f64> {
                    params: &params,
                    query: &[],
                    key: &[],
                    value: &[],
                    lengths: None,
                    segments: None,
                    pages: None,
                };
                let seen: usize = (0..queries).map(|query| inputs.seen(0, query).len()).sum();
                assert_eq!(params.pairs_seen(), seen as u64, "{queries} over {keys}, {mask:?}");
            }
        }
    }
}
