//! What a result is held against: itself in f64, element by element.

use super::{Case, Draw};
use crate::device::Device;

/// How far numbers are nudged, by their own size: little enough for functions to be straight.
pub(super) const NUDGE: f64 = 1e-3;
/// How often: seldom does an element that moves stand still each time.
const NUDGES: u64 = 4;
/// What of a tensor's largest value each element's size has at least, for functions that run out: 1 + erf(x) of GELU far below 0.
const FLOOR: f64 = 1.0 / 16.0;

/// The results of a case in f64.
pub(super) struct Truth(Vec<Vec<Element>>);

/// One number of a result in f64.
struct Element {
    value: f64,
    /// Its own, and how far it moves when all that it is computed from moves, each by itself and by a random share: of a sum, the root
    /// of the squares of its terms, however they cancel.
    size: f64,
}

impl Truth {
    /// Of a case, with the size of what each element is made of.
    pub fn of(case: &Case) -> Result<Truth, String> {
        let device = Device::reference();
        let exact = case.outcome(&device, &case.run, Draw::Plain)?;
        let mut squares: Vec<Vec<f64>> = exact.iter().map(|values| vec![0.0; values.len()]).collect();
        for nudge in 0..NUDGES {
            let nudged = case.outcome(&device, &case.run, Draw::Nudged(nudge))?;
            for ((squares, exact), nudged) in squares.iter_mut().zip(&exact).zip(&nudged) {
                for ((square, exact), nudged) in squares.iter_mut().zip(exact).zip(nudged) {
                    *square += ((nudged - exact) / NUDGE).powi(2) / NUDGES as f64;
                }
            }
        }
        let share = if case.cancels { 1.0 } else { FLOOR };
        let elements = |(values, squares): (&Vec<f64>, &Vec<f64>)| -> Vec<Element> {
            let largest = values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
            let least = share * largest + f64::from(f32::MIN_POSITIVE);
            let element = |(&value, square): (&f64, &f64)| Element { value, size: value.abs() + square.sqrt() + least };
            values.iter().zip(squares).map(element).collect()
        };
        Ok(Truth(exact.iter().zip(&squares).map(elements).collect()))
    }

    /// The same sizes around the values of another computation.
    pub fn around(&self, values: &[Vec<f64>]) -> Truth {
        let moved = |(elements, values): (&Vec<Element>, &Vec<f64>)| -> Vec<Element> {
            elements.iter().zip(values).map(|(element, &value)| Element { value, ..*element }).collect()
        };
        Truth(self.0.iter().zip(values).map(moved).collect())
    }

    /// Says which element of which result is further away than `tolerance` of its size.
    pub fn compare(&self, got: &[Vec<f64>], tolerance: f64) -> Result<(), String> {
        if self.0.len() != got.len() {
            return Err(format!("expected {} results, got {}", self.0.len(), got.len()));
        }
        for (which, (expected, got)) in self.0.iter().zip(got).enumerate() {
            if expected.len() != got.len() {
                return Err(format!("expected {} elements of result {which}, got {}", expected.len(), got.len()));
            }
            for (at, (Element { value, size }, g)) in expected.iter().zip(got).enumerate() {
                let gap = (value - g).abs();
                if gap.is_nan() || gap > tolerance * size {
                    return Err(format!(
                        "expected {value} at {at} of result {which}, got {g} (made of what is {size:.1e} in size, tolerance {tolerance:.1e})"
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;
    use crate::testing::Input;

    #[test]
    fn a_small_element_is_not_judged_by_a_large_one() {
        let input = Input::given([2, 4], &[900.0, 1000.0, -1100.0, 1200.0, 2.0, -3.0, 4.0, -3.0]);
        let case = Case::new("sums of rows", [input], |x| vec![ops::sum_axis(&x[0], 1)]).terms(4);
        let truth = Truth::of(&case).unwrap();
        // Of what is as large as 2000, or made of what is no smaller than 2000 / 16.
        for (near, far) in [([2000.0 + 4e-3, 0.0], [2000.0 + 4e-2, 0.0]), ([2000.0, 2e-4], [2000.0, 2e-3])] {
            assert_eq!(truth.compare(&[near.into()], case.tolerance()), Ok(()));
            assert!(truth.compare(&[far.into()], case.tolerance()).is_err());
        }
        assert!(truth.compare(&[vec![2000.0, f64::NAN]], case.tolerance()).is_err());
    }
}
