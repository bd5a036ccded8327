//! Matrix products.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::{Op, cast, sum_to};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Constants, Cost, Data, Io, Kernel, Shader, Traits, grid};
use crate::real::{Real, Threads};
use crate::shape::Layout;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, Input};

pub(crate) const OP: Op = Op { name: "matmul", kernels: &[AnyKernel::of::<Matmul>(), AnyKernel::of::<Matvec>()], cases };

/// a b over the last two axes: [.., M, K] times [.., K, N] gives [.., M, N]; the axes before broadcast. Either side may be a
/// view, so a transposed operand costs no copy. b may be stored as f16 or bf16 if it takes no gradient.
///
/// Derivatives, for the gradient g: da = g b^T and db = a^T g, summed over broadcast axes.
#[track_caller]
pub fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
    assert!(
        a.rank() >= 2 && b.rank() >= 2 && a.size(a.rank() - 1) == b.size(b.rank() - 2),
        "[matmul] expected [.., M, K] and [.., K, N], got {:?} and {:?}",
        a.shape(),
        b.shape()
    );
    let narrow = matches!(b.dtype(), DType::F16 | DType::BF16) && !b.requires_grad();
    assert!(a.dtype() == DType::F32 && (b.dtype() == DType::F32 || narrow), "[matmul] expected f32 (or a frozen f16 or bf16 right side), got {a:?} and {b:?}");
    let saved = (a.detach(), b.detach());
    multiply(&saved.0, &saved.1).with_rule("matmul", [a, b], move |g, needs| {
        let (a, b) = saved;
        [
            needs[0].then(|| sum_to(&multiply(g, &b.transpose()), a.shape())),
            needs[1].then(|| sum_to(&multiply(&a.transpose(), g), b.shape())),
        ]
    })
}

/// x W^T over the last axis: [.., K] with a weight [N, K] gives [.., N].
#[track_caller]
pub fn linear(x: &Tensor, weight: &Tensor) -> Tensor {
    let (shape, inputs) = (x.shape(), x.last_size());
    assert!(weight.rank() == 2 && weight.size(1) == inputs, "[linear] expected [.., K] and [N, K], got {shape:?} and {:?}", weight.shape());
    let rows = x.reshape([x.elements() / inputs.max(1), inputs]);
    matmul(&rows, &weight.transpose()).reshape(shape.with(shape.len() - 1, weight.size(0)))
}

fn multiply(a: &Tensor, b: &Tensor) -> Tensor {
    let (m, k, n) = (a.size(a.rank() - 2), a.last_size(), b.last_size());
    let row = m == 1 && a.elements() == k && b.rank() == 2 && b.layout().strides() == [1, k] && k > 1 && n > 1;
    if row {
        let y = a.device().empty(a.shape().with(a.rank() - 1, n), DType::F32);
        let params = MatvecParams { n: n as u32, k: k as u32, offset: b.layout().offset as u32, dtype: storage(b.dtype()) };
        dispatch::<Matvec>(params, &[&a.whole(), b, &y]);
        return y;
    }
    let b = if b.dtype() == DType::F32 { b.clone() } else { cast(b, DType::F32) };
    let batch = crate::Shape::new(&a.shape()[..a.rank() - 2]).broadcast(&crate::Shape::new(&b.shape()[..b.rank() - 2]));
    let (a, a_side) = side(a, &batch);
    let (b, b_side) = side(&b, &batch);
    let shape: Vec<usize> = batch.iter().copied().chain([m, n]).collect();
    let y = a.device().empty(shape, DType::F32);
    let [outer, inner] = two(&batch);
    let params = Params { m: m as u32, n: n as u32, k: k as u32, outer, inner, a: a_side, b: b_side };
    dispatch::<Matmul>(params, &[&a, &b, &y]);
    y
}

/// An operand whose batch axes are two, and how it lies.
fn side(x: &Tensor, batch: &[usize]) -> (Tensor, Side) {
    let matrix = [x.size(x.rank() - 2), x.last_size()];
    let shape = |batch: &[usize]| crate::Shape::new(&[batch, &matrix].concat());
    let expanded = x.layout().expand(shape(batch));
    let [outer, inner] = two(batch);
    let merged = [outer as usize, inner as usize];
    match expanded.reshape(shape(&merged)) {
        Some(layout) => (x.clone(), Side::new(&layout)),
        None => {
            let x = x.expand(shape(batch)).whole();
            let layout = x.layout().reshape(shape(&merged)).expect("a whole tensor takes any shape");
            (x, Side::new(&layout))
        }
    }
}

/// The batch axes as two: the last one, and the others.
fn two(batch: &[usize]) -> [u32; 2] {
    match batch.split_last() {
        Some((inner, outer)) => [outer.iter().product::<usize>() as u32, *inner as u32],
        None => [1, 1],
    }
}

/// How one operand lies: strides and offset in elements.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Side {
    outer: u32,
    inner: u32,
    row: u32,
    column: u32,
    offset: u32,
}

impl Side {
    fn new(layout: &Layout) -> Side {
        let strides = layout.strides();
        Side {
            outer: strides[0] as u32,
            inner: strides[1] as u32,
            row: strides[2] as u32,
            column: strides[3] as u32,
            offset: layout.offset as u32,
        }
    }

    fn start(&self, p: &Params, batch: usize) -> usize {
        let (outer, inner) = (batch / p.inner as usize, batch % p.inner as usize);
        self.offset as usize + outer * self.outer as usize + inner * self.inner as usize
    }

    fn strides(&self) -> [usize; 2] {
        [self.row as usize, self.column as usize]
    }
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    m: u32,
    n: u32,
    k: u32,
    outer: u32,
    inner: u32,
    a: Side,
    b: Side,
}

impl Params {
    /// Whether both operands lie in whole vectors of four, each along one of its axes.
    fn is_in_vectors(&self) -> bool {
        let along = |side: &Side, stride: u32, next: u32, length: u32| {
            stride == 1 && [side.outer, side.inner, side.offset, next, length].iter().all(|number| number % 4 == 0)
        };
        let a = along(&self.a, self.a.column, self.a.row, self.k) || along(&self.a, self.a.row, self.a.column, self.m);
        let b = along(&self.b, self.b.column, self.b.row, self.n) || along(&self.b, self.b.row, self.b.column, self.k);
        a && b && self.m > 0 && self.n > 0 && self.k > 0
    }
}

/// The axes of the operands' vectors.
fn directions(p: &Params) -> Constants {
    vec![("A_ALONG_K", f64::from(p.a.column == 1)), ("B_ALONG_N", f64::from(p.b.column == 1))]
}

struct Matmul;

impl Kernel for Matmul {
    type Params = Params;
    const NAME: &'static str = "matmul";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[
        Shader { source: "matmul_blocked", constants: |_| vec![], workgroups: |p| tiles(p, 8, 256) },
        Shader { source: "matmul_tiled", constants: |_| vec![], workgroups: |p| tiles(p, 64, 64) },
        Shader { source: "matmul_subgroup", constants: directions, workgroups: |p| tiles(p, 32, 256) },
    ];
    fn choose(p: &Params, traits: &Traits) -> usize {
        match traits.software {
            true if Self::allows(p, 2, traits) => 2,
            true => 0,
            false => 1,
        }
    }
    fn allows(p: &Params, shader: usize, traits: &Traits) -> bool {
        let whole_subgroups = traits.subgroups.is_some_and(|(least, most)| least >= 4 && most <= 64);
        match shader {
            0 => true,
            1 => traits.loop_fits(p.k),
            _ => whole_subgroups && p.is_in_vectors(),
        }
    }
    fn cost(p: &Params) -> Cost {
        let [m, n, k, batches] = [p.m, p.n, p.k, p.outer * p.inner].map(u64::from);
        Cost { flops: 2 * batches * m * n * k, bytes: 4 * batches * (m * k + k * n + m * n) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (a, b, y) = (io.real(0), io.real(1), io.real_mut(2));
        let [m, n, k] = [p.m, p.n, p.k].map(|size| size as usize);
        if y.is_empty() {
            return;
        }
        let product = |batch: usize, y: &mut [R], threads: Threads| {
            if k == 0 {
                return y.fill(R::ZERO);
            }
            let (a, b) = (&a[p.a.start(p, batch)..], &b[p.b.start(p, batch)..]);
            R::gemm([m, n, k], R::ZERO, (y, [n, 1]), (a, p.a.strides()), (b, p.b.strides()), threads);
        };
        // Many small products are shared out whole; a few large ones each use every core.
        if y.len() / (m * n) >= 2 * rayon::current_num_threads() {
            y.par_chunks_mut(m * n).enumerate().for_each(|(batch, y)| product(batch, y, Threads::One));
        } else {
            y.chunks_mut(m * n).enumerate().for_each(|(batch, y)| product(batch, y, Threads::All));
        }
    }
}

fn tiles(p: &Params, rows: u32, columns: u32) -> [u32; 3] {
    // Every device takes 65,535 in a dimension; a workgroup goes on to further batches.
    [p.n.div_ceil(columns).max(1), p.m.div_ceil(rows).max(1), (p.outer * p.inner).clamp(1, 65_535)]
}

/// Storage types as shaders number them (`storage.wgsl`).
pub(crate) fn storage(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
        DType::U32 => unreachable!("[storage] expected a floating-point type"),
    }
}

/// y [N] = W [N, K] x [K]: one row of tokens, where the weight's rows lie in memory one after the other.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct MatvecParams {
    n: u32,
    k: u32,
    offset: u32,
    dtype: u32,
}

struct Matvec;

impl Kernel for Matvec {
    type Params = MatvecParams;
    const NAME: &'static str = "matvec";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<MatvecParams>] = &[
        Shader { source: "matvec_row", constants: element_type, workgroups: |p| grid(p.n as usize, 64) },
        Shader { source: "matvec_workgroup", constants: element_type, workgroups: |p| grid(p.n as usize, 1) },
    ];
    fn choose(_: &MatvecParams, traits: &Traits) -> usize {
        (!traits.software).into()
    }
    fn cost(p: &MatvecParams) -> Cost {
        let (weights, width) = (u64::from(p.n) * u64::from(p.k), if p.dtype == 0 { 4 } else { 2 });
        Cost { flops: 2 * weights, bytes: width * weights + 4 * u64::from(p.n + p.k) }
    }
    fn run<R: Real>(p: &MatvecParams, io: &mut Io<R>) {
        let (x, y, from) = (io.real(0), io.real_mut(2), p.offset as usize);
        match io.data(1) {
            Data::Real(w) => dot_rows(x, &w[from..], y, |w| w),
            Data::F16(w) => dot_rows(x, &w[from..], y, |w| R::from_f32(w.to_f32())),
            Data::BF16(w) => dot_rows(x, &w[from..], y, |w| R::from_f32(w.to_f32())),
            Data::U32(_) => unreachable!("[matvec] expected a floating-point weight"),
        }
    }
}

fn element_type(p: &MatvecParams) -> Constants {
    vec![("DTYPE", p.dtype.into())]
}

fn dot_rows<R: Real, W: Copy + Sync>(x: &[R], weight: &[W], y: &mut [R], widen: impl Fn(W) -> R + Sync) {
    parallel::rows(y, 1, x.len(), |first, _, y| {
        for (row, y) in y.iter_mut().enumerate() {
            let weight = &weight[(first + row) * x.len()..][..x.len()];
            // 64 running sums are four vectors of sixteen: enough to hide the latency of an addition.
            let mut lanes = [R::ZERO; 64];
            let (blocks, x_blocks) = (weight.chunks_exact(64), x.chunks_exact(64));
            let rest = blocks.remainder().iter().zip(x_blocks.remainder());
            let rest = rest.fold(R::ZERO, |sum, (&w, &x)| sum + widen(w) * x);
            for (weight, x) in blocks.zip(x_blocks) {
                for lane in 0..64 {
                    lanes[lane] += widen(weight[lane]) * x[lane];
                }
            }
            *y = lanes.into_iter().fold(rest, |sum, lane| sum + lane);
        }
    });
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for [m, k, n] in [[1, 1, 1], [2, 3, 4], [63, 65, 64], [64, 64, 64], [65, 257, 66], [257, 16, 255], [1, 255, 257], [256, 1, 3], [3, 0, 5], [0, 4, 5], [8, 6, 12], [36, 20, 260]] {
        let label = |kind: &str| format!("matmul {kind} {m}x{k}x{n}");
        cases.push(Case::new(label("NN"), [Input::any([m, k]), Input::any([k, n])], |x| vec![matmul(&x[0], &x[1])]).terms(m.max(k).max(n)));
        cases.push(Case::new(label("NT"), [Input::any([m, k]), Input::any([n, k])], |x| vec![matmul(&x[0], &x[1].transpose())]).terms(m.max(k).max(n)));
        cases.push(Case::new(label("TN"), [Input::any([k, m]), Input::any([k, n])], |x| vec![matmul(&x[0].transpose(), &x[1])]).terms(m.max(k).max(n)));
    }
    let long = [Input::any([4, 70_000]), Input::any([70_000, 4])];
    cases.push(Case::new("matmul over a vocabulary", long, |x| vec![matmul(&x[0], &x[1])]).terms(70_000).large());
    cases.push(Case::new("matmul batched", [Input::any([2, 3, 5, 7]), Input::any([2, 3, 7, 4])], |x| vec![matmul(&x[0], &x[1])]).terms(7));
    cases.push(Case::new("matmul broadcast", [Input::any([3, 1, 5, 7]), Input::any([2, 7, 4])], |x| vec![matmul(&x[0], &x[1])]).terms(21));
    cases.push(
        Case::new("matmul of grouped heads", [Input::any([2, 6, 4, 8]), Input::any([2, 9, 2, 8])], |x| {
            // Three query heads share a key head: [B, H, T, D] times [B, KV, 1, S, D], without a copy.
            let query = x[0].reshape([2, 2, 3, 4, 8]);
            let key = x[1].permute(&[0, 2, 3, 1]).reshape([2, 2, 1, 8, 9]);
            vec![matmul(&query, &key)]
        })
        .terms(27),
    );
    cases.push(Case::new("linear", [Input::any([2, 5, 64]), Input::any([33, 64])], |x| vec![linear(&x[0], &x[1])]).terms(64));
    cases.push(Case::new("linear of one row", [Input::any([1, 1, 193]), Input::any([300, 193])], |x| vec![linear(&x[0], &x[1])]).terms(193));
    for dtype in [DType::BF16, DType::F16] {
        for rows in [1, 9] {
            let label = format!("linear with a {dtype} weight, {rows} rows");
            cases.push(Case::new(label, [Input::any([rows, 66]), Input::fixed([34, 66])], move |x| vec![linear(&x[0], &cast(&x[1], dtype))]).terms(66));
        }
    }
    cases
}
