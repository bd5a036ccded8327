//! Functions of one number, element by element: one table.

use bytemuck::{Pod, Zeroable};

use super::Op;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Elementwise, Io, Kernel, Pointwise, Shader, grid};
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "unary", kernels: &[AnyKernel::of::<Unary>(), AnyKernel::of::<UnaryGrad>()], cases };

/// A row a function: its number in `unary_functions.wgsl`, its documentation, f, f', and the inputs it is tested on.
macro_rules! unary_family {
    ($($number:literal $name:ident $doc:literal, |$x:ident| $function:expr, $derivative:expr, $input:expr;)*) => {
        $(#[doc = $doc]
        #[track_caller]
        pub fn $name(x: &Tensor) -> Tensor {
            apply(stringify!($name), $number, x)
        })*

        fn run_function<R: Real>(operation: u32, x: &[R], y: &mut [R]) {
            match operation {
                $($number => parallel::elements(y, #[inline(always)] |first, y| {
                    let x = &x[first..first + y.len()];
                    for (y, &$x) in y.iter_mut().zip(x) {
                        *y = $function;
                    }
                }),)*
                _ => unreachable!("[unary] expected a number of the table, got {operation}"),
            }
        }

        /// f of every element, in place: an activation at the end of another kernel's twin.
        pub(super) fn run_in_place<R: Real>(operation: u32, y: &mut [R]) {
            match operation {
                $($number => parallel::elements(y, #[inline(always)] |_, y| for y in y {
                    let $x = *y;
                    *y = $function;
                }),)*
                _ => unreachable!("[unary] expected a number of the table, got {operation}"),
            }
        }

        fn run_derivative<R: Real>(operation: u32, x: &[R], dy: &[R], dx: &mut [R]) {
            match operation {
                $($number => parallel::elements(dx, #[inline(always)] |first, dx| {
                    let (x, dy) = (&x[first..first + dx.len()], &dy[first..first + dx.len()]);
                    #[allow(unused_variables)] // the derivative of a linear function is a constant
                    for ((dx, &$x), &dy) in dx.iter_mut().zip(x).zip(dy) {
                        *dx = $derivative * dy;
                    }
                }),)*
                _ => unreachable!("[unary] expected a number of the table, got {operation}"),
            }
        }

        fn cases() -> Vec<Case> {
            let mut cases = Vec::new();
            $(for size in EDGES {
                cases.push(Case::new(concat!(stringify!($name), " of ", "a row"), [$input([size])], |x| vec![$name(&x[0])]));
            })*
            cases.push(Case::new("past 65,535 workgroups", [Input::any([65_600 * 256])], |x| vec![neg(&x[0])]).large());
            cases
        }
    };
}

#[inline(always)]
fn real<R: Real>(value: f64) -> R {
    R::from_f64(value)
}

#[inline(always)]
fn cubic<R: Real>(x: R) -> R {
    real::<R>(SQRT_2_OVER_PI) * (x + real::<R>(0.044715) * x * x * x)
}

/// Beyond this GELU is 0 or the identity to the last bit, and its cubic would overflow.
#[inline(always)]
fn within<R: Real>(x: R) -> R {
    x.max(real(-20.0)).min(real(20.0))
}

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const SQRT_HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;
const INVERSE_SQRT_2_PI: f64 = 0.398_942_280_401_432_7;

unary_family! {
    0 neg "-x.", |x| -x, -R::ONE, Input::any;
    1 exp "e^x.", |x| x.exp(), x.exp(), Input::small;
    2 log "The natural logarithm of x > 0; its derivative is 1/x.", |x| x.ln(), R::ONE / x, Input::positive;
    3 sqrt "The square root of x > 0; its derivative is 1/(2 sqrt x).", |x| x.sqrt(), real::<R>(0.5) / x.sqrt(), Input::positive;
    4 rsqrt "1 / sqrt x for x > 0; its derivative is -x^(-3/2)/2.", |x| R::ONE / x.sqrt(), real::<R>(-0.5) / (x * x.sqrt()), Input::positive;
    5 reciprocal "1 / x; its derivative is -1/x^2.", |x| R::ONE / x, -R::ONE / (x * x), Input::positive;
    6 square "x^2; its derivative is 2x.", |x| x * x, x + x, Input::any;
    7 abs "The magnitude of x; its derivative is x's sign, 0 at 0.", |x| x.abs(), sign(x), Input::any;
    8 sin "The sine of x in radians.", |x| x.sin(), x.cos(), Input::small;
    9 cos "The cosine of x in radians.", |x| x.cos(), -x.sin(), Input::small;
    10 tanh "The hyperbolic tangent of x; its derivative is 1 - tanh(x)^2.", |x| x.tanh(), R::ONE - x.tanh() * x.tanh(), Input::any;
    11 sigmoid "1 / (1 + e^-x); its derivative is s(1 - s).", |x| x.sigmoid(), x.sigmoid() * (R::ONE - x.sigmoid()), Input::any;
    12 softplus "ln(1 + e^x); its derivative is sigmoid(x).", |x| x.max(R::ZERO) + (R::ONE + (-x.abs()).exp()).ln(), x.sigmoid(), Input::any;
    13 relu "max(x, 0); its derivative at 0 is 0.", |x| x.max(R::ZERO), step(x), Input::any;
    14 silu "x sigmoid(x), also called swish (Ramachandran et al. 2017, arXiv:1710.05941).",
        |x| x * x.sigmoid(), x.sigmoid() * (R::ONE + x * (R::ONE - x.sigmoid())), Input::any;
    15 gelu "x Phi(x) with the normal distribution's Phi (Hendrycks and Gimpel 2016, arXiv:1606.08415).",
        |x| real::<R>(0.5) * x * (R::ONE + (x * real(SQRT_HALF)).erf()),
        real::<R>(0.5) * (R::ONE + (x * real(SQRT_HALF)).erf())
            + x * real(INVERSE_SQRT_2_PI) * (real::<R>(-0.5) * within(x) * within(x)).exp(),
        Input::any;
    16 gelu_tanh "GELU by tanh's approximation: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).",
        |x| real::<R>(0.5) * x * (R::ONE + cubic(within(x)).tanh()),
        {
            let (x, t) = (within(x), cubic(within(x)).tanh());
            let slope = real::<R>(SQRT_2_OVER_PI) * (R::ONE + real::<R>(0.134_145) * x * x);
            real::<R>(0.5) * (R::ONE + t) + real::<R>(0.5) * x * (R::ONE - t * t) * slope
        },
        Input::any;
}

#[inline(always)]
fn sign<R: Real>(x: R) -> R {
    if x > R::ZERO {
        R::ONE
    } else if x < R::ZERO {
        -R::ONE
    } else {
        R::ZERO
    }
}

#[inline(always)]
fn step<R: Real>(x: R) -> R {
    if x > R::ZERO { R::ONE } else { R::ZERO }
}

#[track_caller]
fn apply(name: &'static str, operation: u32, x: &Tensor) -> Tensor {
    assert!(x.dtype() == DType::F32, "[{name}] expected f32, got {x:?}");
    let input = x.detach().whole();
    let params = Params { elements: x.elements() as u32, operation };
    let y = x.device().empty(x.shape(), DType::F32);
    dispatch::<Unary>(params, &[&input, &y]);
    y.with_rule(name, [x], move |dy, _| {
        let dx = dy.device().empty(dy.shape(), DType::F32);
        dispatch::<UnaryGrad>(params, &[&input, &dy.whole(), &dx]);
        [Some(dx)]
    })
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    elements: u32,
    operation: u32,
}

struct Unary;

impl Kernel for Unary {
    type Params = Params;
    const NAME: &'static str = "unary";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] =
        &[Shader::new("unary", |p: &Params| grid(p.elements as usize, 1024)).with(|p| vec![("OPERATION", p.operation.into())])];
    const POINTWISE: Option<&'static Pointwise<Params>> = Some(&Pointwise {
        elementwise: Elementwise {
            elements: |p| Some(p.elements as usize),
            part: |p, range| Params { elements: range.len() as u32, ..*p },
        },
        numbers: |_| 0,
        function: |p| p.operation,
        expression: |operation| format!("unary_of_four({operation}u, $0)"),
        import: Some("unary_functions"),
        words: |_| [0; 4],
    });
    fn cost(p: &Params) -> Cost {
        Cost { flops: p.elements.into(), bytes: 8 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        run_function(p.operation, io.real(0), io.real_mut(1));
    }
}

struct UnaryGrad;

impl Kernel for UnaryGrad {
    type Params = Params;
    const NAME: &'static str = "unary_grad";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[Shader { source: "unary_grad", ..Unary::SHADERS[0] }];
    const POINTWISE: Option<&'static Pointwise<Params>> = Some(&Pointwise {
        elementwise: Elementwise {
            elements: |p| Some(p.elements as usize),
            part: |p, range| Params { elements: range.len() as u32, ..*p },
        },
        numbers: |_| 0,
        function: |p| p.operation,
        expression: |operation| format!("unary_derivative_of_four({operation}u, $0) * $1"),
        import: Some("unary_functions"),
        words: |_| [0; 4],
    });
    fn cost(p: &Params) -> Cost {
        Cost { flops: 2 * u64::from(p.elements), bytes: 12 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        run_derivative(p.operation, io.real(0), io.real(1), io.real_mut(2));
    }
}
