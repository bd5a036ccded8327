//! What becomes of a product on its way out.

use bytemuck::{Pod, Zeroable};

use crate::device::parallel;
use crate::kernel::Constants;
use crate::ops::dropout::Drops;
use crate::ops::unary;
use crate::real::Real;
use crate::tensor::Tensor;

/// What a product passes through before it is stored: `activation(scale * a b + bias) + residual`. The default changes nothing.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// What the product is multiplied by; no gradient flows into it.
    pub scale: f32,
    /// [N], added to every row.
    pub bias: Option<&'a Tensor>,
    /// Taken of each element. Its derivative needs its input, which a fused kernel does not keep: where a gradient is wanted, it
    /// runs as an op of its own.
    pub activation: Option<Activation>,
    /// Of the result's shape, added last.
    pub residual: Option<&'a Tensor>,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Epilogue { scale: 1.0, bias: None, activation: None, residual: None }
    }
}

/// An activation that a product can end with; each is the op of its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// [`relu`](crate::ops::relu).
    Relu,
    /// [`silu`](crate::ops::silu).
    Silu,
    /// [`gelu`](crate::ops::gelu).
    Gelu,
    /// [`gelu_tanh`](crate::ops::gelu_tanh).
    GeluTanh,
}

impl Activation {
    pub(super) fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Activation::Relu => unary::relu(x),
            Activation::Silu => unary::silu(x),
            Activation::Gelu => unary::gelu(x),
            Activation::GeluTanh => unary::gelu_tanh(x),
        }
    }

    /// Its number in the table of unary functions.
    fn operation(self) -> u32 {
        match self {
            Activation::Relu => 13,
            Activation::Silu => 14,
            Activation::Gelu => 15,
            Activation::GeluTanh => 16,
        }
    }
}

/// No number of the table of unary functions: the identity.
const IDENTITY: u32 = u32::MAX;

/// An [`Epilogue`] as kernels are told of it, and what a pass adds to it: the places that are dropped before the residual. Bias and
/// residual are bindings 2 and 3; what is absent is bound to any buffer, and not read.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Ending {
    pub scale: f32,
    pub has_bias: u32,
    pub has_residual: u32,
    pub operation: u32,
    pub drops: Drops,
}

impl Ending {
    pub fn new(epilogue: &Epilogue) -> Ending {
        Ending {
            scale: epilogue.scale,
            has_bias: epilogue.bias.is_some().into(),
            has_residual: epilogue.residual.is_some().into(),
            operation: epilogue.activation.map_or(IDENTITY, Activation::operation),
            drops: Drops::default(),
        }
    }

    /// Whether it only scales.
    pub fn is_plain(&self) -> bool {
        self.has_bias == 0 && self.has_residual == 0 && self.operation == IDENTITY && !self.drops.is_any()
    }

    /// Adds a residual, if there is none.
    pub fn add(&mut self) -> bool {
        std::mem::replace(&mut self.has_residual, 1) == 0
    }

    /// Drops places, if nothing comes after that.
    pub fn drop(&mut self, drops: [u32; 4]) -> bool {
        let is_last = self.has_residual == 0 && !self.drops.is_any();
        self.drops = bytemuck::cast(drops);
        is_last
    }

    /// What shaders are specialised for.
    pub fn constants(&self, accumulate: bool) -> Constants {
        vec![
            ("OPERATION", self.operation.into()),
            ("ACCUMULATE", accumulate.into()),
            ("HAS_BIAS", self.has_bias.into()),
            ("HAS_RESIDUAL", self.has_residual.into()),
            ("DROPS", self.drops.is_any().into()),
        ]
    }

    /// How many numbers it reads for a result of these rows and columns.
    pub fn reads(&self, rows: u64, columns: u64) -> u64 {
        u64::from(self.has_bias) * columns + u64::from(self.has_residual) * rows * columns
    }

    /// Puts into y what the product is to be added to. False if that is nothing, and y is as it was.
    pub fn begin<R: Real>(&self, y: &mut [R], width: usize, bias: &[R], residual: &[R]) -> bool {
        let added_first = self.has_residual == 1 && !self.changes_sums();
        match (self.has_bias == 1, added_first) {
            (false, false) => return false,
            (false, true) => parallel::rows(
                y,
                width,
                1,
                #[inline(always)]
                |first, rows, y| {
                    y.copy_from_slice(&residual[first * width..][..rows * width]);
                },
            ),
            (true, false) => parallel::rows(
                y,
                width,
                1,
                #[inline(always)]
                |_, _, y| {
                    y.chunks_exact_mut(width).for_each(|y| y.copy_from_slice(bias));
                },
            ),
            (true, true) => parallel::rows(
                y,
                width,
                1,
                #[inline(always)]
                |first, rows, y| {
                    let residual = residual[first * width..][..rows * width].chunks_exact(width);
                    for (y, residual) in y.chunks_exact_mut(width).zip(residual) {
                        y.iter_mut().zip(residual).zip(bias).for_each(|((y, &residual), &bias)| *y = bias + residual);
                    }
                },
            ),
        }
        true
    }

    /// What is left to do once the product has been added.
    pub fn end<R: Real>(&self, y: &mut [R], residual: &[R]) {
        if !self.changes_sums() {
            return;
        }
        if self.operation != IDENTITY {
            unary::run_in_place(self.operation, y);
        }
        // A block of draws is four elements.
        parallel::rows(
            y,
            1,
            4,
            #[inline(always)]
            |first, _, y| {
                if self.drops.is_any() {
                    self.drops.apply((first / 4) as u32, y);
                }
                if self.has_residual == 1 {
                    y.iter_mut().zip(&residual[first..]).for_each(|(y, &residual)| *y += residual);
                }
            },
        );
    }

    /// Whether something is done to the sums before the residual is added.
    fn changes_sums(&self) -> bool {
        self.operation != IDENTITY || self.drops.is_any()
    }
}
