//! Dropout.

use bytemuck::{Pod, Zeroable};

use super::Op;
use crate::device::parallel;
use crate::dtype::DType;
use crate::kernel::{Access, AnyKernel, Cost, Elementwise, Finish, Io, Kernel, Pointwise, Shader, grid};
use crate::random::Philox;
use crate::real::Real;
use crate::tensor::{Tensor, dispatch};
use crate::testing::{Case, EDGES, Input};

pub(crate) const OP: Op = Op { name: "dropout", kernels: &[AnyKernel::of::<Dropout>()], cases };

/// y = x / (1 - probability) where the random number of the element's place is at least `probability`, 0 elsewhere
/// (Srivastava et al. 2014). The same numbers on every device; they are drawn again for the gradient rather than stored.
///
/// Derivative: the gradient under the same mask.
#[track_caller]
pub fn dropout(x: &Tensor, random: Philox, probability: f32) -> Tensor {
    assert!((0.0..1.0).contains(&probability), "[dropout] expected a probability of at least 0 and below 1, got {probability}");
    assert!(x.dtype() == DType::F32, "[dropout] expected f32, got {x:?}");
    if probability == 0.0 {
        return x.clone();
    }
    let drops = Drops {
        key: random.key(),
        dropped: (f64::from(probability) * f64::from(1u32 << 24)).ceil() as u32,
        kept_scale: 1.0 / (1.0 - probability),
    };
    let params = Params { drops, elements: x.elements() as u32, first_block: 0 };
    mask(x, params).with_rule("dropout", [x], move |g, _| [Some(mask(g, params))])
}

fn mask(x: &Tensor, params: Params) -> Tensor {
    let y = x.device().empty(x.shape(), DType::F32);
    dispatch::<Dropout>(params, &[&x.detach().whole(), &y]);
    y
}

/// Which places are dropped, and what the others are multiplied by. The default drops none.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Drops {
    /// An array: with two fields in its place the twin takes twice as long.
    key: [u32; 2],
    /// How many of the 2^24 numbers that a place may draw drop it.
    dropped: u32,
    kept_scale: f32,
}

impl Drops {
    pub(crate) fn is_any(&self) -> bool {
        self.dropped > 0
    }

    /// Applies it to `y`, which begins with the four places of a block.
    #[inline(always)]
    pub(super) fn apply<R: Real>(&self, first_block: u32, y: &mut [R]) {
        /// Blocks of four numbers that are drawn at once, to fill vector instructions.
        const BLOCKS: usize = 16;
        let (random, scale) = (Philox::with_key(self.key), R::from_f32(self.kept_scale));
        for (at, y) in y.chunks_mut(4 * BLOCKS).enumerate() {
            let words = random.blocks::<BLOCKS>(first_block + (at * BLOCKS) as u32);
            for (y, word) in y.iter_mut().zip(words.as_flattened()) {
                *y = if word >> 8 >= self.dropped { *y * scale } else { R::ZERO };
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Params {
    drops: Drops,
    elements: u32,
    /// Blocks of four places before the first element.
    first_block: u32,
}

struct Dropout;

impl Kernel for Dropout {
    type Params = Params;
    const NAME: &'static str = "dropout";
    const ACCESS: &'static [Access] = &[Access::Read, Access::Write];
    const SHADERS: &'static [Shader<Params>] = &[Shader::new("dropout", |p| grid(p.elements.div_ceil(4) as usize, 256))];
    const POINTWISE: Option<&'static Pointwise<Params>> = Some(&Pointwise {
        elementwise: Elementwise {
            elements: |p| Some(p.elements as usize),
            part: |p, range| Params { elements: range.len() as u32, first_block: p.first_block + (range.start / 4) as u32, ..*p },
        },
        numbers: |_| 0,
        function: |_| 0,
        expression: |_| "select(vec4(0.0), bitcast<f32>(#.w) * $0, draws(i, #.xy) >= vec4(#.z))".to_string(),
        import: Some("philox"),
        words: |p| bytemuck::cast(p.drops),
    });
    fn finish(p: &Params) -> Option<Finish> {
        Some(Finish::Dropout(bytemuck::cast(p.drops)))
    }
    fn cost(p: &Params) -> Cost {
        Cost { flops: u64::from(p.elements), bytes: 8 * u64::from(p.elements) }
    }
    fn run<R: Real>(p: &Params, io: &mut Io<R>) {
        let (x, y) = (io.real(0), io.real_mut(1));
        parallel::rows(
            y,
            1,
            4,
            #[inline(always)]
            |first, _, y| {
                y.copy_from_slice(&x[first..][..y.len()]);
                p.drops.apply(p.first_block + (first / 4) as u32, y);
            },
        );
    }
}

fn cases() -> Vec<Case> {
    let case =
        |size: usize| Case::new(format!("dropout {size}"), [Input::any([size])], |x| vec![dropout(&x[0], Philox::new(7), 0.3)]);
    let mut cases: Vec<Case> = EDGES.map(case).into();
    cases.push(Case::new("dropout of a view", [Input::any([7, 9])], |x| vec![dropout(&x[0].transpose(), Philox::new(8), 0.5)]));
    cases.push(Case::new("dropout of probability 0", [Input::any([5])], |x| vec![dropout(&x[0], Philox::new(9), 0.0)]));
    cases
        .push(Case::new("dropout in tasks", [Input::fixed([3 * 16 * 1024 + 5])], |x| vec![dropout(&x[0], Philox::new(10), 0.1)]));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn the_mask_is_that_of_the_places_random_numbers_and_keeps_the_mean() {
        let (count, random) = (100_001, Philox::new(3).stream(5));
        let ones = Device::cpu().tensor(&vec![1.0; count], [count]);
        let y = dropout(&ones, random, 0.25).to_vec().unwrap();
        for (place, &y) in y.iter().enumerate() {
            let expected = if random.uniform(place as u64) < 0.25 { 0.0 } else { 1.0 / 0.75 };
            assert_eq!(y, expected, "at {place}");
        }
        let mean = y.iter().map(|&y| f64::from(y)).sum::<f64>() / count as f64;
        // The standard error is sqrt(0.25 / 0.75 / 1e5) = 0.0018; five of them.
        assert!((mean - 1.0).abs() < 0.009, "mean {mean}");
    }
}
