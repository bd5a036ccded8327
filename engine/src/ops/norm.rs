//! Normalisation of rows: root mean square and layer norm. They are one kernel: the first takes the mean to be 0.

use bytemuck::{Pod, Zeroable};

use super::team::{self, Rows};
use super::{Op, add, full, mean_axis, mul, rsqrt, square, sub, sum_axis, sum_to};
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Constants, Cost, Epilogue, Io, Kernel, Rowwise, Shader, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op {
    name: "norm",
    kernels: &[AnyKernel::of::<Norm>(), AnyKernel::of::<NormGrad>(), AnyKernel::of::<NormWeightGrad>()],
    cases,
};

/// y = x / sqrt(mean x^2 + eps) * weight over the last axis, x [.., H], weight [H] (Zhang and Sennrich 2019, arXiv:1910.07467).
///
/// Derivatives, for the gradient g, r = 1 / sqrt(mean x^2 + eps) and n = x r: dx = r (g w - n mean(g w n)), dw = sum g n over
/// the rows.
#[track_caller]
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Tensor {
    norm("rms_norm", false, x, weight, None, eps)
}

/// y = (x - mean x) / sqrt(variance x + eps) * weight + bias over the last axis, x [.., H], weight and bias [H] (Ba et al. 2016,
/// arXiv:1607.06450).
///
/// Derivatives, for the gradient g, r = 1 / sqrt(variance x + eps) and n = (x - mean x) r:
/// dx = r (g w - mean(g w) - n mean(g w n)), dw = sum g n and db = sum g over the rows.
#[track_caller]
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Tensor {
    norm("layer_norm", true, x, weight, Some(bias), eps)
}

#[track_caller]
fn norm(name: &'static str, centered: bool, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f32) -> Tensor {
    let width = x.last_size();
    let is_row = |row: &Tensor| row.dtype() == DType::F32 && *row.shape() == [width];
    assert!(
        x.dtype() == DType::F32 && x.rank() > 0 && is_row(weight) && bias.is_none_or(is_row),
        "[{name}] expected f32 [.., H], a weight [H] and a bias [H], got {x:?}, {weight:?} and {bias:?}"
    );
    let rows = x.elements() / width.max(1);
    let params = Params { rows: rows as u32, width: width as u32, centered: centered.into(), biased: bias.is_some().into(), eps };
    let (input, scale) = (x.detach().whole(), weight.detach().whole());
    let offset = bias.map_or_else(|| scale.clone(), |bias| bias.detach().whole());
    let y = x.device().empty(x.shape(), DType::F32);
    let statistics = x.device().empty([rows, 2], DType::F32);
    dispatch::<Norm>(params, &[&input, &scale, &offset, &y, &statistics]);
    y.with_rule(name, [x, weight, bias.unwrap_or(&offset)], move |g, [for_x, for_weight, for_bias]| {
        let g = g.whole();
        let dx = for_x.then(|| {
            let dx = g.device().empty(g.shape(), DType::F32);
            let params = GradParams { rows: params.rows, width: params.width, centered: params.centered, has_residual: 0 };
            dispatch::<NormGrad>(params, &[&input, &scale, &g, &statistics, &g, &dx]);
            dx
        });
        let dw = for_weight.then(|| weight_grad(params, &input, &g, &statistics));
        let db = for_bias.then(|| sum_to(&g, [width].into()));
        [dx, dw, db]
    })
}

/// dw [width] = sum g n over the rows, of x and g [rows, width] and the rows' means and rates.
fn weight_grad(params: Params, x: &Tensor, g: &Tensor, statistics: &Tensor) -> Tensor {
    let parts = g.device().empty([(params.rows as usize).div_ceil(PART), params.width as usize], DType::F32);
    dispatch::<NormWeightGrad>(params, &[x, g, statistics, &parts]);
    sum_axis(&parts, 0)
}

/// The same, of an RMS norm.
pub(super) fn rms_weight_grad(x: &Tensor, g: &Tensor, statistics: &Tensor) -> Tensor {
    let (rows, width) = (statistics.size(0) as u32, x.last_size() as u32);
    weight_grad(Params { rows, width, centered: 0, biased: 0, eps: 0.0 }, x, g, statistics)
}

/// The same by primitives.
fn composed(centered: bool, x: &Tensor, weight: &Tensor, eps: f32) -> Tensor {
    let axis = x.rank() - 1;
    let kept = x.shape().with(axis, 1);
    let x = if centered { sub(x, &mean_axis(x, axis).reshape(kept)) } else { x.clone() };
    let variance = mean_axis(&square(&x), axis).reshape(kept);
    mul(&mul(&x, &rsqrt(&add(&variance, &full(x.device(), eps, [])))), weight)
}

/// Rows whose contributions to the weight's gradient are summed together, before the sums are.
const PART: usize = 32;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    rows: u32,
    width: u32,
    centered: u32,
    biased: u32,
    eps: f32,
}

impl Rows for Params {
    fn size(&self) -> [u32; 2] {
        [self.rows, self.width]
    }
}

fn elements(p: &Params) -> u64 {
    u64::from(p.rows) * u64::from(p.width)
}

struct Norm;

impl Kernel for Norm {
    type Params = Params;
    const NAME: &'static str = "norm";
    // The bias is any buffer, and not read, where there is none.
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &team::shaders("norm_scalars", "norm_vectors", "norm_subgroups");
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        p.size()
    }
    const ROWWISE: Option<&'static Rowwise<Params>> = Some(&Rowwise {
        size: |p| p.size().map(|size| size as usize),
        result: 3,
        strides: |p| vec![p.width as usize, 0, 0, p.width as usize, 2],
        part: |p, rows| Params { rows: rows as u32, ..*p },
    });
    fn cost(p: &Params) -> Cost {
        Cost { flops: 4 * elements(p), bytes: 8 * (elements(p) + u64::from(p.rows)) + 4 * u64::from(p.width) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, weight, bias, y, statistics) = (io.real(0), io.real(1), io.real(2), io.real_mut(3), io.real_mut(4));
        let width = p.width as usize;
        let share = R::ONE / R::from_f64(f64::from(p.width));
        parallel::rows_of_two(
            (y, width),
            (statistics, 2),
            2,
            #[inline(always)]
            |first, _, y, statistics| {
                for (row, (y, statistics)) in y.chunks_exact_mut(width).zip(statistics.chunks_exact_mut(2)).enumerate() {
                    let x = &x[(first + row) * width..][..width];
                    let mean = if p.centered == 1 { parallel::lane_sum(x, |x| x) * share } else { R::ZERO };
                    let variance = parallel::lane_sum(x, |x| (x - mean) * (x - mean)) * share;
                    let rate = R::ONE / (variance + R::from_f32(p.eps)).sqrt();
                    statistics.copy_from_slice(&[mean, rate]);
                    match p.biased {
                        0 => y.iter_mut().zip(x).zip(weight).for_each(|((y, &x), &w)| *y = (x - mean) * rate * w),
                        _ => {
                            let rows = y.iter_mut().zip(x).zip(weight.iter().zip(bias));
                            rows.for_each(|((y, &x), (&w, &b))| *y = (x - mean) * rate * w + b);
                        }
                    }
                }
            },
        );
    }
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct GradParams {
    rows: u32,
    width: u32,
    centered: u32,
    has_residual: u32,
}

impl Rows for GradParams {
    fn size(&self) -> [u32; 2] {
        [self.rows, self.width]
    }
    fn own_constants(&self) -> Constants {
        vec![("HAS_RESIDUAL", self.has_residual.into())]
    }
}

struct NormGrad;

impl Kernel for NormGrad {
    type Params = GradParams;
    const NAME: &'static str = "norm_grad";
    // The residual is any buffer, and not read, where there is none.
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<GradParams>] =
        &team::shaders("norm_grad_scalars", "norm_grad_vectors", "norm_grad_subgroups");
    fn bucket(p: &GradParams) -> impl IntoIterator<Item = u32> {
        p.size()
    }
    const EPILOGUE: Option<&'static Epilogue<GradParams>> = Some(&Epilogue {
        result: 5,
        residual: 4,
        shared: |p| [p.rows, p.width, 0, 0],
        add: |p| std::mem::replace(&mut p.has_residual, 1) == 0,
        drop: |_, _| false,
    });
    fn cost(p: &GradParams) -> Cost {
        let elements = u64::from(p.rows) * u64::from(p.width);
        let bytes = (12 + 4 * u64::from(p.has_residual)) * elements + 8 * u64::from(p.rows) + 4 * u64::from(p.width);
        Cost { flops: 8 * elements, bytes }
    }
    fn run<R: Real>(p: &GradParams, io: &mut Io<R>) {
        let (x, weight, g, statistics, residual, dx) =
            (io.real(0), io.real(1), io.real(2), io.real(3), io.real(4), io.real_mut(5));
        let width = p.width as usize;
        let share = R::ONE / R::from_f64(f64::from(p.width));
        parallel::rows(
            dx,
            width,
            2,
            #[inline(always)]
            |first, _, chunk| {
                for (row, dx) in chunk.chunks_exact_mut(width).enumerate() {
                    let at = (first + row) * width;
                    let (x, g) = (&x[at..at + width], &g[at..at + width]);
                    let [mean, rate] = [statistics[2 * (first + row)], statistics[2 * (first + row) + 1]];
                    dx.iter_mut().zip(g).zip(weight).for_each(|((dx, &g), &w)| *dx = g * w);
                    let shift = if p.centered == 1 { parallel::lane_sum(dx, |gw| gw) * share } else { R::ZERO };
                    let slope = parallel::lane_dot(dx, x, |gw, x| gw * (x - mean) * rate) * share;
                    dx.iter_mut().zip(x).for_each(|(dx, &x)| *dx = rate * (*dx - shift - (x - mean) * rate * slope));
                    if p.has_residual == 1 {
                        dx.iter_mut().zip(&residual[at..]).for_each(|(dx, &residual)| *dx += residual);
                    }
                }
            },
        );
    }
}

/// parts [rows / PART, width]: g n summed over each part of the rows.
struct NormWeightGrad;

fn in_parts(_: &Params) -> Constants {
    vec![("PART", PART as f64)]
}

impl Kernel for NormWeightGrad {
    type Params = Params;
    const NAME: &'static str = "norm_weight_grad";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[
        Shader::new("norm_weight_grad_scalars", |p: &Params| grid((p.rows as usize).div_ceil(PART) * p.width as usize, 64))
            .with(in_parts),
        Shader::new("norm_weight_grad_vectors", |p: &Params| grid((p.rows as usize).div_ceil(PART) * p.width as usize / 4, 64))
            .with(in_parts)
            .allowed(|p, _| p.width.is_multiple_of(4)),
    ];
    fn bucket(p: &Params) -> impl IntoIterator<Item = u32> {
        p.size()
    }
    fn cost(p: &Params) -> Cost {
        Cost { flops: 4 * elements(p), bytes: 8 * elements(p) + 8 * u64::from(p.rows) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, g, statistics, parts, width) = (io.real(0), io.real(1), io.real(2), io.real_mut(3), p.width as usize);
        parallel::rows(
            parts,
            width,
            PART,
            #[inline(always)]
            |first, _, chunk| {
                for (part, sum) in chunk.chunks_exact_mut(width).enumerate() {
                    sum.fill(R::ZERO);
                    let start = (first + part) * PART;
                    for row in start..(start + PART).min(p.rows as usize) {
                        let (x, g) = (&x[row * width..][..width], &g[row * width..][..width]);
                        let [mean, rate] = [statistics[2 * row], statistics[2 * row + 1]];
                        sum.iter_mut().zip(x).zip(g).for_each(|((sum, &x), &g)| *sum += g * (x - mean) * rate);
                    }
                }
            },
        );
    }
}

fn cases() -> Vec<Case> {
    type Function = fn(&[Tensor], f32) -> Tensor;
    let functions: [(&str, Function, Function); 2] = [
        ("rms_norm", |x, eps| rms_norm(&x[0], &x[1], eps), |x, eps| composed(false, &x[0], &x[1], eps)),
        ("layer_norm", |x, eps| layer_norm(&x[0], &x[1], &x[2], eps), |x, eps| add(&composed(true, &x[0], &x[1], eps), &x[2])),
    ];
    let mut cases = Vec::new();
    for (name, function, composed) in functions {
        let inputs = |shape: [usize; 2]| [Input::any(shape), Input::any([shape[1]]), Input::any([shape[1]])];
        for size in EDGES {
            // Normalising a row of one would cancel all digits of its gradient, but for a large eps.
            let case = Case::new(format!("{name} of rows of {size}"), inputs([3, size]), move |x| vec![function(x, 0.1)]);
            cases.push(case.terms(size).composed(move |x| vec![composed(x, 0.1)]));
            let case = Case::new(format!("{name} of {size} rows"), inputs([size, 33]), move |x| vec![function(x, 1e-5)]);
            cases.push(case.terms(size.max(33)).composed(move |x| vec![composed(x, 1e-5)]));
        }
        let long = Case::new(format!("{name} of long rows"), inputs([2, 70_001]), move |x| vec![function(x, 1e-5)]);
        cases.push(long.terms(70_001).large());
        // Every 264 rows the same, so that the inputs are soon drawn.
        let few = [Input::any([1, 264, 65]), Input::any([65]), Input::any([65])];
        let many = Case::new(format!("{name} past 65,535 workgroups"), few, move |x| {
            vec![function(&[x[0].expand([250, 264, 65]), x[1].clone(), x[2].clone()], 1e-5)]
        });
        cases.push(many.terms(65).large());
    }
    cases
}
