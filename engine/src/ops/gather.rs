//! Rows of a table by index, and rows added into a table by index.

use bytemuck::{Pod, Zeroable};

use super::{Op, cast, full, matmul::storage};
use crate::buffer::BufferRef;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Data, Indices, Io, Kernel, Lowering, Shader, grid};
use crate::real::Real;
use crate::shape::Shape;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op {
    name: "gather",
    kernels: &[AnyKernel::of::<Gather>(), AnyKernel::of::<GatherMore>(), AnyKernel::of::<ScatterAdd>()],
    cases,
};

/// y [.., H] = table[indices]: the rows of a table [V, H] (f32, or frozen f16 or bf16) at u32 indices [..], each below V. An
/// embedding.
///
/// Derivative: the gradient's rows are added into a table of zeros, [`scatter_add`].
#[track_caller]
pub fn gather(table: &Tensor, indices: &Tensor) -> Tensor {
    assert!(
        table.rank() == 2 && table.dtype() != DType::U32 && indices.dtype() == DType::U32,
        "[gather] expected a table [V, H] and u32 indices, got {table:?} and {indices:?}"
    );
    let [table_rows, width] = [table.size(0), table.size(1)];
    let params = params(table_rows, width, indices, table.dtype());
    let y = table.device().empty(with_columns(indices.shape(), width), DType::F32);
    let saved = indices.detach().whole();
    dispatch::<Gather>(params, &[&table.detach().whole(), &saved, &y]);
    y.with_rule("gather", [table], move |g, _| [Some(scatter_add(g, &saved, table_rows))])
}

/// y [V, H], zeros to which each of the rows [.., H] is added at its u32 index [..] below V = `table_rows`, in the order of the
/// rows whatever the device.
///
/// Derivative: the gradient's rows at the indices, [`gather`].
#[track_caller]
pub fn scatter_add(rows: &Tensor, indices: &Tensor, table_rows: usize) -> Tensor {
    let width = rows.last_size();
    assert!(
        rows.dtype() == DType::F32 && indices.dtype() == DType::U32 && rows.shape() == with_columns(indices.shape(), width),
        "[scatter_add] expected f32 rows [.., H] and u32 indices [..], got {rows:?} and {indices:?}"
    );
    let y = full(rows.device(), 0.0, [table_rows, width]);
    let (added, saved) = (rows.detach().whole(), indices.detach().whole());
    let all = params(table_rows, width, indices, DType::F32);
    for first in (0..all.rows).step_by(MOST_ADDED) {
        let end = all.rows.min(first + MOST_ADDED as u32);
        let params = ScatterParams { first, end, width: all.width, table_first: 0, table_rows: all.table_rows };
        dispatch::<ScatterAdd>(params, &[&added, &saved, &y]);
    }
    y.with_rule("scatter_add", [rows], move |g, _| [Some(gather(g, &saved))])
}

/// Rows that one dispatch adds: no invocation may loop for longer (`Traits::iterations_fit`).
const MOST_ADDED: usize = 1 << 15;

fn with_columns(shape: Shape, width: usize) -> Shape {
    Shape::new(&[&shape[..], &[width]].concat())
}

#[track_caller]
fn params(table_rows: usize, width: usize, indices: &Tensor, dtype: DType) -> Params {
    assert!(table_rows > 0 || indices.elements() == 0, "[gather] expected a table with rows, got [0, {width}]");
    let [rows, width, table_rows] = [indices.elements(), width, table_rows].map(|size| size as u32);
    Params { rows, width, table_rows, first: 0, dtype: storage(dtype) }
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    rows: u32,
    width: u32,
    table_rows: u32,
    /// The index of the first row of the table.
    first: u32,
    dtype: u32,
}

/// Table, indices -> y. With `UPDATE`, rows that the table does not have stay as they were: it is a part of one.
struct Rows<const UPDATE: bool>;

type Gather = Rows<false>;
type GatherMore = Rows<true>;

impl<const UPDATE: bool> Kernel for Rows<UPDATE> {
    type Params = Params;
    const NAME: &'static str = if UPDATE { "gather_more" } else { "gather" };
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, if UPDATE { Access::Update } else { Access::Write }];
    const SHADERS: &'static [Shader<Params>] = &[Shader::new("gather", |p: &Params| grid((p.rows * p.width) as usize, 256))
        .with(|p| vec![("DTYPE", p.dtype.into()), ("UPDATE", UPDATE.into())])];
    /// A table that is too large to bind is read in bands of its rows.
    fn lower(p: &Params, buffers: &[BufferRef], into: &mut Lowering) {
        let (table, width) = (buffers[0], p.width as usize);
        let Some(at_once) = into.traits.rows_in_binding(p.table_rows, width * table.dtype.size()) else { return };
        for first in (0..p.table_rows).step_by(at_once as usize) {
            let table_rows = at_once.min(p.table_rows - first);
            let band = table.part(first as usize * width, table_rows as usize * width);
            let (params, buffers) = (Params { table_rows, first, ..*p }, [band, buffers[1], buffers[2]]);
            match first {
                0 => into.dispatch::<Gather>(params, &buffers),
                _ => into.dispatch::<GatherMore>(params, &buffers),
            }
        }
    }
    fn indices(p: &Params) -> Option<Indices> {
        Some(Indices { binding: 1, below: p.table_rows, or_none: false })
    }
    fn cost(p: &Params) -> Cost {
        let width = if p.dtype == 0 { 4 } else { 2 };
        Cost { flops: 0, bytes: u64::from(p.rows) * (4 + u64::from(p.width) * (4 + width)) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (indices, y) = (io.u32(1), io.real_mut(2));
        match io.data(0) {
            Data::Real(table) => copy_rows(p, UPDATE, table, indices, y, |x| x),
            Data::F16(table) => copy_rows(p, UPDATE, table, indices, y, |x| R::from_f32(x.to_f32())),
            Data::BF16(table) => copy_rows(p, UPDATE, table, indices, y, |x| R::from_f32(x.to_f32())),
            Data::U32(_) => unreachable!("[gather] expected a floating-point table"),
        }
    }
}

fn copy_rows<R: Real, T: Copy + Sync>(
    p: &Params,
    update: bool,
    table: &[T],
    indices: &[u32],
    y: &mut [R],
    widen: impl Fn(T) -> R + Sync,
) {
    let width = p.width as usize;
    parallel::rows(
        y,
        width,
        1,
        #[inline(always)]
        |first, _, chunk| {
            for (y, &index) in chunk.chunks_exact_mut(width).zip(&indices[first..]) {
                let row = index.wrapping_sub(p.first);
                if update && row >= p.table_rows {
                    continue;
                }
                y.iter_mut().zip(&table[row as usize * width..]).for_each(|(y, &x)| *y = widen(x));
            }
        },
    );
}

/// The rows from `first` up to `end`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ScatterParams {
    first: u32,
    end: u32,
    width: u32,
    /// The index of the first row of the table; what is added to rows that it does not have is not for this part of one.
    table_first: u32,
    table_rows: u32,
}

struct ScatterAdd;

/// The table's rows are dealt out to this many invocations a column: many where the device has them, few where each invocation
/// costs another walk through the indices.
const fn dealt<const BUCKETS: usize>() -> Shader<ScatterParams> {
    Shader::new("scatter_add", |p: &ScatterParams| grid(p.width as usize * BUCKETS, 64))
        .with(|_| vec![("BUCKETS", BUCKETS as f64)])
}

impl Kernel for ScatterAdd {
    type Params = ScatterParams;
    const NAME: &'static str = "scatter_add";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Update];
    const SHADERS: &'static [Shader<ScatterParams>] = &[dealt::<4>(), dealt::<64>().preferred(|_, traits| !traits.software)];
    /// A table that is too large to bind is written in bands of its rows.
    fn lower(p: &ScatterParams, buffers: &[BufferRef], into: &mut Lowering) {
        let (table, width) = (buffers[2], p.width as usize);
        let Some(at_once) = into.traits.rows_in_binding(p.table_rows, width * table.dtype.size()) else { return };
        for first in (0..p.table_rows).step_by(at_once as usize) {
            let table_rows = at_once.min(p.table_rows - first);
            let band = table.part(first as usize * width, table_rows as usize * width);
            let params = ScatterParams { table_first: p.table_first + first, table_rows, ..*p };
            into.dispatch::<ScatterAdd>(params, &[buffers[0], buffers[1], band]);
        }
    }
    fn indices(p: &ScatterParams) -> Option<Indices> {
        Some(Indices { binding: 1, below: p.table_rows, or_none: false })
    }
    fn cost(p: &ScatterParams) -> Cost {
        let (rows, added) = (u64::from(p.end - p.first), u64::from(p.end - p.first) * u64::from(p.width));
        Cost { flops: added, bytes: 4 * (rows + 3 * added) }
    }
    fn run<R: Real>(p: &ScatterParams, io: &mut Io<R>) {
        let (rows, indices, table, width) = (io.real(0), io.u32(1), io.real_mut(2), p.width as usize);
        // A stable sort keeps the order of additions to a row.
        let mut order: Vec<u32> = (p.first..p.end).collect();
        let index = |row: u32| indices[row as usize].wrapping_sub(p.table_first) as usize;
        order.sort_by_key(|&row| index(row));
        parallel::rows(
            table,
            width,
            1,
            #[inline(always)]
            |first, count, chunk| {
                let from = order.partition_point(|&row| index(row) < first);
                for &row in order[from..].iter().take_while(|&&row| index(row) < first + count) {
                    let sum = &mut chunk[(index(row) - first) * width..][..width];
                    sum.iter_mut().zip(&rows[row as usize * width..]).for_each(|(sum, &x)| *sum += x);
                }
            },
        );
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in EDGES {
        let (table, few) = (Input::any([7, size]), Input::indices([5], 7));
        cases.push(Case::new(format!("gather rows of {size}"), [table, few], |x| vec![gather(&x[0], &x[1])]).terms(5));
        let (table, indices) = (Input::any([17, 6]), Input::indices([size], 17));
        cases.push(Case::new(format!("gather {size} rows"), [table, indices], |x| vec![gather(&x[0], &x[1])]).terms(size));
        let (rows, indices) = (Input::any([size, 6]), Input::indices([size], 5));
        let case = Case::new(format!("scatter_add {size} rows"), [rows, indices], |x| vec![scatter_add(&x[0], &x[1], 5)]);
        cases.push(case.terms(size));
        let (rows, indices) = (Input::any([3, 2, 3]), Input::indices([3, 2], size.max(1) as u32));
        cases.push(Case::new(format!("scatter_add into {size} rows"), [rows, indices], move |x| {
            vec![scatter_add(&x[0], &x[1], size.max(1))]
        }));
    }
    for dtype in [DType::F16, DType::BF16] {
        // An odd width puts every other row in the middle of a word.
        cases.push(Case::new(format!("gather from {dtype}"), [Input::fixed([9, 5]), Input::indices([2, 4], 9)], move |x| {
            vec![gather(&cast(&x[0], dtype), &x[1])]
        }));
    }
    let many = [Input::any([70_000, 2]), Input::indices([70_000], 3)];
    cases.push(Case::new("scatter_add 70,000 rows", many, |x| vec![scatter_add(&x[0], &x[1], 3)]).terms(70_000).large());
    let many = [Input::any([2, 3]), Input::indices([2], 300_000)];
    cases.push(Case::new("scatter_add into 300,000 rows", many, |x| vec![scatter_add(&x[0], &x[1], 300_000)]).large());
    let large = [Input::any([300, 65]), Input::indices([66_000], 300)];
    cases.push(Case::new("gather past 65,535 workgroups", large, |x| vec![gather(&x[0], &x[1])]).large());
    cases
}
