//! Whether what was timed is right: its results, or a sample of their elements, beside the same in f64.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wgtune_engine::{DType, Device, Result, Tensor, ops};

use super::workload::{Indices, Outcome, TOGETHER, Workload, gradient_like, gradient_numbers, normal_at, places};

/// Work in f64 that is worth waiting for: operations, and elements of all that is read and written.
const FLOPS: f64 = 1e9;
const ELEMENTS: f64 = 6.4e7;
/// Of an axis that can be sampled so many indices are taken, evenly from the first to the last; fewer where that is still too much.
const SAMPLES: usize = 16;

/// What was compared with f64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checked {
    /// All elements of one of the timed runs.
    Whole,
    /// Some elements of one of the timed runs.
    Sample,
    /// All elements of a run of a smaller shape, which was not timed.
    Smaller,
}

/// How far results are from f64.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The largest difference, relative to the largest of the expected elements of each result; NaN where one is NaN.
    pub error: f64,
    /// Elements that were compared.
    pub elements: u64,
    pub of: Checked,
}

/// Compares what a workload of so many operations came to with the same in f64. `None` where that would take too long even of a
/// sample.
///
/// # Errors
/// What the devices met.
pub fn check(workload: &Workload, seed: u64, outcome: &Outcome, flops: u64) -> Result<Option<Check>> {
    let results = outcome.results(workload);
    let samples = results.iter().map(|(_, letters)| Sample::of(workload, &results, letters, flops as f64));
    let Some(samples) = samples.collect::<Option<Vec<Sample>>>() else { return Ok(None) };
    let mut check = Check { error: 0.0, elements: 0, of: Checked::Whole };
    // Results that are sampled alike are computed together.
    for (first, sample) in samples.iter().enumerate().filter(|(first, sample)| !samples[..*first].contains(sample)) {
        let reference = sample.reference(workload, seed, &results[0])?;
        let expected = reference.results(workload);
        for at in (first..results.len()).filter(|&at| samples[at] == *sample) {
            let (got, letters) = results[at];
            let got = read(&sample.taken(got, letters))?;
            check.error = larger(check.error, largest_difference(&got, &read(expected[at].0)?));
            check.elements += got.len() as u64;
        }
        if sample.share() < 1.0 {
            check.of = Checked::Sample;
        }
    }
    Ok(Some(check))
}

/// The first elements of each result, to tell whether another run with other inputs wrote anything.
///
/// # Errors
/// What the device met.
pub fn beginnings(outcome: &Outcome, workload: &Workload) -> Result<Vec<Vec<f64>>> {
    let beginning = |x: &Tensor| read(&x.reshape([x.elements()]).slice(0, 0..x.elements().min(4096)));
    outcome.results(workload).iter().map(|(result, _)| beginning(result)).collect()
}

/// Which indices of the axes with these letters are computed in f64.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    /// For each letter how many there are, and those that are taken.
    chosen: BTreeMap<char, (usize, Vec<usize>)>,
}

impl Sample {
    /// The largest sample of a result that can be afforded, where one can.
    fn of(workload: &Workload, results: &[(&Tensor, &[char])], letters: &[char], flops: f64) -> Option<Sample> {
        let whole = Sample { chosen: BTreeMap::new() };
        let of = |count: usize| {
            let mut chosen = BTreeMap::new();
            for (shape, inputs) in workload.inputs() {
                for (&size, letter) in
                    shape.iter().zip(inputs).filter(|(_, letter)| **letter != TOGETHER && letters.contains(letter))
                {
                    let (least, _) = chosen.entry(*letter).or_insert((size, Vec::new()));
                    *least = size.min(*least);
                }
            }
            chosen.values_mut().for_each(|(size, indices)| *indices = spread(*size, count));
            Sample { chosen }
        };
        let counts = std::iter::successors(Some(SAMPLES), |count| Some(count / 2)).take_while(|&count| count > 0);
        std::iter::once(whole).chain(counts.map(of)).find(|sample| {
            let inputs = workload.inputs().map(|(shape, letters)| sample.elements(shape, letters));
            let all: f64 = inputs.chain(results.iter().map(|(result, letters)| sample.elements(&result.shape(), letters))).sum();
            flops * sample.share() <= FLOPS && all <= ELEMENTS
        })
    }

    /// The part of the work that is done.
    fn share(&self) -> f64 {
        self.chosen.values().map(|(size, indices)| indices.len() as f64 / *size as f64).product()
    }

    fn elements(&self, shape: &[usize], letters: &[char]) -> f64 {
        self.indices(shape, letters)
            .iter()
            .zip(shape)
            .map(|(chosen, &size)| chosen.as_ref().map_or(size, Vec::len) as f64)
            .product()
    }

    /// For each axis of a tensor the indices that are taken, where not all are.
    fn indices(&self, shape: &[usize], letters: &[char]) -> Vec<Option<Vec<usize>>> {
        let of_axis = |(axis, &length): (usize, &usize)| {
            let (size, chosen) = self.chosen.get(letters.get(axis)?)?;
            let each = length / size;
            Some(chosen.iter().flat_map(|index| index * each..(index + 1) * each).collect())
        };
        shape.iter().enumerate().map(of_axis).collect()
    }

    /// The same, all named.
    fn all_indices(&self, shape: &[usize], letters: &[char]) -> Option<Indices> {
        let indices = self.indices(shape, letters);
        let all = || indices.iter().zip(shape).map(|(chosen, &size)| chosen.clone().unwrap_or_else(|| (0..size).collect()));
        indices.iter().any(Option::is_some).then(|| all().collect())
    }

    /// These elements of a result.
    fn taken(&self, result: &Tensor, letters: &[char]) -> Tensor {
        let indices = self.indices(&result.shape(), letters);
        indices.iter().enumerate().fold(result.clone(), |result, (axis, chosen)| {
            let Some(chosen) = chosen else { return result };
            let parts: Vec<Tensor> = chosen.iter().map(|&index| result.slice(axis, index..index + 1)).collect();
            ops::cat(&parts.iter().collect::<Vec<_>>(), axis)
        })
    }

    /// What of the workload is taken, in f64. `first` is its first output.
    fn reference(&self, workload: &Workload, seed: u64, first: &(&Tensor, &[char])) -> Result<Outcome> {
        let parts: Vec<_> = workload.inputs().map(|(shape, letters)| self.all_indices(shape, letters)).collect();
        let inputs = workload.tensors_at(&Device::reference(), seed, &parts);
        let shape = first.0.shape();
        let places_of_gradient = self.all_indices(&shape, first.1).map(|indices| places(&shape, &indices));
        let outcome = workload.run(&inputs, |output| match &places_of_gradient {
            Some(places) => output.device().tensor(&normal_at(gradient_numbers(seed), places), output.shape()),
            None => gradient_like(output, seed),
        });
        Ok(outcome)
    }
}

/// So many indices below `size`, evenly from the first to the last.
fn spread(size: usize, count: usize) -> Vec<usize> {
    match count.min(size) {
        0 => Vec::new(),
        1 => vec![(size - 1) / 2],
        count => (0..count).map(|at| at * (size - 1) / (count - 1)).collect(),
    }
}

fn read(tensor: &Tensor) -> Result<Vec<f64>> {
    match tensor.dtype() {
        DType::U32 => Ok(tensor.to_vec_u32()?.into_iter().map(f64::from).collect()),
        _ => tensor.to_vec_f64(),
    }
}

/// The larger of two errors: one that is NaN is no small one.
pub fn larger(most: f64, next: f64) -> f64 {
    if next <= most || most.is_nan() { most } else { next }
}

fn largest_difference(got: &[f64], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(f64::MIN_POSITIVE, |most, value| most.max(value.abs()));
    got.iter().zip(expected).map(|(got, expected)| (got - expected).abs() / largest).fold(0.0, larger)
}

#[cfg(test)]
mod tests {
    use super::super::results::Direction::Backward;
    use super::super::workload::Input;
    use super::*;

    #[test]
    fn differences_are_relative_to_the_largest_and_nan_is_the_largest() {
        assert_eq!(largest_difference(&[1.0, -3.0], &[1.0, -4.0]), 0.25);
        assert!(largest_difference(&[f64::NAN, 2.0], &[1.0, 2.0]).is_nan());
        assert_eq!(largest_difference(&[], &[]), 0.0);
    }

    #[test]
    fn samples_go_from_the_first_to_the_last() {
        assert_eq!([spread(100, 4), spread(3, 16), spread(9, 1)], [vec![0, 33, 66, 99], vec![0, 1, 2], vec![4]]);
    }

    /// As if it took so many operations, with other values for its first output.
    fn checked(workload: &Workload, flops: u64, wrong: Option<&[f32]>) -> Option<Check> {
        let device = Device::cpu();
        let mut outcome = workload.run(&workload.tensors(&device, 3), |output| gradient_like(output, 3));
        if let Some(values) = wrong {
            let shape = outcome.outputs[0].shape();
            outcome.outputs[0] = device.tensor(values, shape);
        }
        check(workload, 3, &outcome, flops).unwrap()
    }

    fn product() -> Workload {
        let inputs = [Input::learnt([40, 24]), Input::learnt([50, 24])];
        Workload::new("matmul", "product", "", inputs, |x| vec![ops::linear(&x[0], &x[1])]).independent("r., c. -> rc")
    }

    #[test]
    fn a_sample_of_a_large_product_is_compared_and_finds_what_is_wrong() {
        // Of these, 8 of 40 rows by 8 of 50 columns are too many, and 4 by 4 are not.
        let checked = |wrong| checked(&product(), 1 << 36, wrong).unwrap();
        let right = checked(None);
        assert_eq!((right.of, right.elements), (Checked::Sample, 16));
        // f32 sums of 24 products.
        assert!(right.error < 1e-5, "{right:?}");
        assert!(checked(Some(&[0.0; 2000])).error > 0.5);
        assert!(checked(Some(&[f32::NAN; 2000])).error.is_nan());
    }

    #[test]
    fn gradients_are_sampled_along_what_they_are_independent_in() {
        let right = checked(&product().to(Backward), 1 << 33, None).unwrap();
        // 8 x 8 of the output, 4 rows of one gradient and 4 of the other.
        assert_eq!((right.of, right.elements), (Checked::Sample, 64 + 4 * 24 + 4 * 24));
        assert!(right.error < 1e-5, "{right:?}");
        let inputs = [Input::learnt([1, 12, 6, 8]), Input::learnt([1, 12, 2, 8]), Input::learnt([1, 12, 2, 8])];
        let causal = ops::Mask { causal: true, ..ops::Mask::default() };
        let attention =
            Workload::new("attention", "attention", "", inputs, move |x| vec![ops::attention(&x[0], &x[1], &x[2], &causal)])
                .independent("b.h., b.h., b.h. -> b.h.")
                .to(Backward);
        // Of two heads of keys, each with three of queries, one.
        let right = checked(&attention, 1_500_000_000, None).unwrap();
        assert_eq!((right.of, right.elements), (Checked::Sample, 12 * 8 * (3 + 3 + 1 + 1)));
        assert!(right.error < 1e-5, "{right:?}");
    }

    #[test]
    fn what_is_small_is_compared_whole_and_what_cannot_be_taken_apart_not_at_all() {
        let small = checked(&product(), 1000, None).unwrap();
        assert_eq!((small.of, small.elements), (Checked::Whole, 2000));
        let sum = Workload::new("reduce", "sum", "", [Input::learnt([9, 9])], |x| vec![ops::sum(&x[0])]);
        assert!(checked(&sum, 1 << 40, None).is_none());
    }
}
