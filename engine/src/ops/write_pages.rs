//! Rows of any lengths in pages of a pool that stays where it is: how a key-value cache grows (Kwon et al. 2023, arXiv:2309.06180).

use bytemuck::{Pod, Zeroable};

use super::{Op, copy};
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Io, Kernel, Shader, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, Input};

pub(crate) const OP: Op = Op { name: "write_pages", kernels: &[AnyKernel::of::<WritePages>()], cases };

/// Where the tokens of B rows lie in a pool [P, S, ..] of P pages of S tokens: token i of row b in page `table[b][i / S]`, at i % S.
/// No two rows share a page.
#[derive(Clone, Debug)]
pub struct Pages {
    /// u32 [B, W]: the pages of each row; those past its length are any of the pool, and not looked at.
    pub table: Tensor,
    /// u32 [B]: how many tokens each row has, at most W S.
    pub lengths: Tensor,
}

impl Pages {
    /// That they are of so many rows.
    #[track_caller]
    pub(super) fn check(&self, op: &str, rows: usize) {
        let Pages { table, lengths } = self;
        let u32s = table.dtype() == DType::U32 && lengths.dtype() == DType::U32;
        let fits = u32s && table.shape().len() == 2 && table.size(0) == rows && *lengths.shape() == [rows];
        assert!(fits, "[{op}] expected a table u32 [{rows}, W] and lengths u32 [{rows}], got {table:?} and {lengths:?}");
    }
}

/// Writes x [B, T, ..], the last T tokens of B rows, to their places in `pool` [P, S, ..]; of a row with fewer than T tokens, the
/// last that it has. In place: nothing on the tape may depend on what is overwritten, so neither side may require a gradient.
#[track_caller]
pub fn write_pages(pool: &Tensor, x: &Tensor, pages: &Pages) {
    let (to, from) = (pool.shape(), x.shape());
    let fits = to.len() >= 2 && to.len() == from.len() && to[1] > 0 && to[2..] == from[2..];
    assert!(fits, "[write_pages] expected rows [B, T, ..] for a pool [P, S, ..] of {to:?}, got {from:?}");
    pages.check("write_pages", from[0]);
    let frozen = !pool.requires_grad() && !x.requires_grad();
    assert!(frozen && x.dtype() == DType::F32, "[write_pages] expected f32 off the tape, got {x:?}");
    let params = Params {
        elements: x.elements() as u32,
        tokens: from[1] as u32,
        row: from[2..].iter().product::<usize>() as u32,
        page_size: to[1] as u32,
        pages: pages.table.size(1) as u32,
    };
    dispatch::<WritePages>(params, &[&x.whole(), &pages.table.whole(), &pages.lengths.whole(), pool]);
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    elements: u32,
    tokens: u32,
    /// Elements of a token.
    row: u32,
    page_size: u32,
    /// Pages that a row's table names.
    pages: u32,
}

/// x, table, lengths -> pool.
struct WritePages;

impl Kernel for WritePages {
    type Params = Params;
    const NAME: &'static str = "write_pages";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Update];
    const SHADERS: &'static [Shader<Params>] = &[Shader::new("write_pages", |p| grid(p.elements as usize, 256))];
    fn cost(p: &Params) -> Cost {
        Cost { flops: 0, bytes: 8 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, table, lengths, pool) = (io.real(0), io.u32(1), io.u32(2), io.real_mut(3));
        let [tokens, row, size, pages] = [p.tokens, p.row, p.page_size, p.pages].map(|size| size as usize);
        if x.is_empty() {
            return;
        }
        for (at, x) in x.chunks_exact(row).enumerate() {
            let (batch, token) = (at / tokens, at % tokens);
            let position = (lengths[batch] as usize + token).checked_sub(tokens);
            if let Some(position) = position.filter(|position| *position < pages * size) {
                let place = table[batch * pages + position / size] as usize * size + position % size;
                pool[place * row..][..row].copy_from_slice(x);
            }
        }
    }
}

fn cases() -> Vec<Case> {
    // Tokens a page and tokens written, then the pages and the length of each row.
    let of = |name: &str, [size, tokens]: [usize; 2], rows: &[(&[u32], u32)]| {
        let width = rows.iter().map(|(pages, _)| pages.len()).max().unwrap_or(0);
        let table: Vec<u32> = rows.iter().flat_map(|(pages, _)| pages.iter().copied().chain([0; 8]).take(width)).collect();
        let lengths: Vec<u32> = rows.iter().map(|(_, length)| *length).collect();
        let inputs = [
            Input::fixed([7, size, 3, 5]),
            Input::fixed([rows.len(), tokens, 3, 5]),
            Input::given_indices([rows.len(), width], &table),
            Input::given_indices([rows.len()], &lengths),
        ];
        Case::new(format!("write_pages {name}"), inputs, move |x| {
            let pool = copy(&x[0]);
            write_pages(&pool, &x[1], &Pages { table: x[2].clone(), lengths: x[3].clone() });
            vec![pool]
        })
    };
    vec![
        of("one token a row", [4, 1], &[(&[5, 2], 5), (&[1], 4), (&[0, 3, 6], 9)]),
        of("of a row's beginning", [64, 65], &[(&[6, 1], 65)]),
        of("across pages", [3, 8], &[(&[2, 6, 1, 4], 11), (&[0, 3, 5], 9)]),
        of("of rows with fewer tokens", [4, 6], &[(&[2], 3), (&[4, 1], 8), (&[0], 0)]),
        of("of no rows", [4, 2], &[]),
        of("of nothing", [4, 0], &[(&[1], 2)]),
    ]
}
