//! DoRA (Liu et al. 2024, arXiv:2402.09353): an updated weight is a direction and a magnitude, W' = m (W + s B A) / |W + s B A|, where
//! |.| is the length of each row, and m is trained beside B and A.

use wgtune_engine::{DType, Tensor, ops};

/// What a layer's update has beside A and B.
#[derive(Clone)]
pub(super) struct Magnitude {
    /// m [outputs].
    pub trained: Tensor,
    /// W [outputs, inputs].
    weight: Tensor,
    /// |W|^2 [outputs].
    squares: Tensor,
}

impl Magnitude {
    /// That of a weight W [outputs, inputs]; without one that was trained it is |W|, which changes nothing while B A is zero.
    pub fn new(weight: &Tensor, trained: Option<Tensor>) -> Magnitude {
        let weight = weight.detach();
        let squares = {
            let values = ops::cast(&weight, DType::F32);
            ops::sum_axis(&ops::mul(&values, &values), 1)
        };
        Magnitude { trained: trained.unwrap_or_else(|| ops::sqrt(&squares)), weight, squares }
    }

    /// m / |W + s B A| [outputs], in which the length is a constant to the gradient, as in the paper's section 4.3.
    pub fn factor(&self, a: &Tensor, b: &Tensor, scale: f32) -> Tensor {
        let (a, b) = (a.detach(), b.detach());
        // Row by row |W + s B A|^2 = |W|^2 + 2 s (W A^T) . B + s^2 (B A A^T) . B, in which B A is never whole.
        let crossed = ops::scale(&ops::linear(&a, &self.weight).transpose(), 2.0 * scale);
        let own = ops::scale(&ops::linear(&b, &ops::linear(&a, &a)), scale * scale);
        let squares = ops::add(&self.squares, &ops::sum_axis(&ops::mul(&ops::add(&crossed, &own), &b), 1));
        // A row that B A takes away is 0, and what is left of it here may be below.
        let lengths = ops::sqrt(&ops::maximum(&squares, &ops::full(a.device(), f32::MIN_POSITIVE, [])));
        ops::div(&self.trained, &lengths)
    }
}
