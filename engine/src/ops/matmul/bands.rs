//! Products with a weight past what a kernel can be given at once, and those that give its gradient: it is bound in bands of its rows.

use super::params::{Params as Product, Side};
use super::product::{Matmul, MatmulAccumulate};
use super::row::{self, Matvec};
use crate::buffer::BufferRef;
use crate::dtype::DType;
use crate::kernel::{Kernel, Lowering};
use crate::ops::cat::{Place, PlaceParams};

/// Records a product of two matrices whose result is too large to bind, band by band of its rows. False, and nothing recorded, where
/// it need not be, or cannot.
pub(super) fn result_lowered<K: Kernel<Params = Product>>(p: &Product, buffers: &[BufferRef], into: &mut Lowering) -> bool {
    let [a, b, bias, residual, y, ..] = buffers[..] else { unreachable!("a product has five buffers and scales") };
    let is_plain = p.outer * p.inner == 1 && p.turned == 0 && !p.ending.drops.is_any();
    let width = p.n as usize;
    let Some(at_once) = into.traits.rows_in_binding(p.m, width * y.dtype.size()).filter(|_| is_plain) else { return false };
    for first in (0..p.m).step_by(at_once as usize) {
        let rows = at_once.min(p.m - first);
        let band = |buffer: BufferRef| buffer.part(first as usize * width, rows as usize * width);
        let residual = if p.ending.has_residual == 1 { band(residual) } else { a };
        let a_of_rows = Side { offset: p.a.offset + first * p.a.row, ..p.a };
        record::<K>(Product { m: rows, a: a_of_rows, ..*p }, [a, b, bias, residual, band(y)], into);
    }
    true
}

/// The same of one whose right side is: bands are columns of the result where its rows lie along the sums, and terms of the sums where
/// they lie along the columns.
pub(super) fn lowered(p: &Product, buffers: &[BufferRef], into: &mut Lowering) -> bool {
    let [a, b, _, _, y, ..] = buffers[..] else { unreachable!("a product has five buffers and scales") };
    let along_sums = p.b.row == 1;
    let (rows, stride) = if along_sums { (p.n, p.b.column) } else { (p.k, p.b.row) };
    let is_plain = p.outer * p.inner == 1 && p.turned == 0 && p.b.offset == 0 && p.ending.is_plain() && p.m > 0;
    let fits = b.elements == rows as usize * stride as usize && (along_sums || p.b.column == 1);
    let Some(at_once) = into.traits.rows_in_binding(rows, stride as usize * b.dtype.size()).filter(|_| is_plain && fits) else {
        return false;
    };
    for first in (0..rows).step_by(at_once as usize) {
        let count = at_once.min(rows - first);
        let band = b.part(first as usize * stride as usize, count as usize * stride as usize);
        if along_sums {
            let columns = into.buffer(DType::F32, p.m as usize * count as usize);
            record::<Matmul>(Product { n: count, ..*p }, [a, band, a, a, columns], into);
            into.dispatch::<Place>(PlaceParams::of_columns(p.m, count, first, p.n), &[columns, y]);
        } else {
            let terms = Product { k: count, a: Side { offset: p.a.offset + first * p.a.column, ..p.a }, ..*p };
            match first {
                0 => record::<Matmul>(terms, [a, band, a, a, y], into),
                _ => record::<MatmulAccumulate>(terms, [a, band, a, a, y], into),
            }
        }
    }
    true
}

/// What is best run in the place of a product that can be bound, or that itself.
fn record<K: Kernel<Params = Product>>(p: Product, [a, b, bias, residual, y]: [BufferRef; 5], into: &mut Lowering) {
    let (before, buffers) = (into.steps.len(), [a, b, bias, residual, y, a, a]);
    K::lower(&p, &buffers, into);
    if into.steps.len() == before {
        into.dispatch::<K>(p, &buffers);
    }
}

/// [`lowered`] of one row.
pub(super) fn row_lowered(p: &row::Params, buffers: &[BufferRef], into: &mut Lowering) {
    let [x, weight, _, _, y] = buffers[..] else { unreachable!("a product of one row has five buffers") };
    let is_plain = p.offset == 0 && p.ending.is_plain();
    let at_once = into.traits.rows_in_binding(p.n, p.k as usize * weight.dtype.size());
    let Some(at_once) = at_once.filter(|_| is_plain && weight.elements == p.n as usize * p.k as usize) else { return };
    for first in (0..p.n).step_by(at_once as usize) {
        let count = at_once.min(p.n - first);
        let band = weight.part(first as usize * p.k as usize, count as usize * p.k as usize);
        into.dispatch::<Matvec>(row::Params { n: count, ..*p }, &[x, band, x, x, y.part(first as usize, count as usize)]);
    }
}
