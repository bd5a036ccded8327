//! What is known of indices before any is computed, so that one out of range is found as it is recorded, alike for every device.

use super::Tensor;
use crate::error::Error;
use crate::kernel::Indices;

/// A bound of a buffer's u32: of what the host gave, of an argmax, of a copy.
#[derive(Clone, Copy, Default)]
pub(super) struct Bound {
    /// The largest, the largest u32 apart.
    largest: Option<u32>,
    /// Whether the largest u32 is among them, which stands for none.
    has_none: bool,
}

impl Bound {
    /// Of little-endian bytes.
    pub fn of(bytes: &[u8]) -> Bound {
        let elements = bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        elements.fold(Bound::default(), |bound, element| match element {
            u32::MAX => Bound { has_none: true, ..bound },
            _ => Bound { largest: bound.largest.max(Some(element)), ..bound },
        })
    }

    /// Of indices into so many.
    pub fn below(count: usize) -> Bound {
        Bound { largest: count.checked_sub(1).map(|last| last as u32), has_none: false }
    }
}

impl Tensor {
    /// The error if one of its elements may be out of the range that a kernel finds its way in. Of a view, all that its buffer
    /// holds counts.
    pub(super) fn out_of_range(&self, op: &'static str, indices: &Indices) -> Option<Error> {
        let Bound { largest, has_none } = self.buffer.bound;
        let none = (has_none && !indices.or_none).then_some(u32::MAX);
        let index = none.or(largest.filter(|&largest| largest >= indices.below))?;
        Some(Error::IndexOutOfRange { op, index, below: indices.below })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::device_names;
    use crate::{Device, ops};

    /// Three rows of two.
    fn table(device: &Device) -> Tensor {
        device.tensor(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [3, 2])
    }

    #[test]
    fn an_index_out_of_range_is_told_once_and_loses_only_what_depends_on_it() {
        for device in device_names().map(|name| Device::open(name).unwrap()) {
            let table = table(&device);
            let sums = device.zeros([2, 2]);
            device.flush().unwrap();
            let before = device.memory().in_use;

            let bad = ops::gather(&table, &device.tensor_u32(&[0, 3], [2]));
            let good = ops::gather(&table, &device.tensor_u32(&[0, 2], [2]));
            let expected = "[gather] expected indices below 3, got 3";
            assert_eq!(device.flush().unwrap_err().to_string(), expected, "{device:?}");
            device.flush().unwrap();
            assert_eq!(ops::add(&good, &good).to_vec().unwrap(), [0.0, 2.0, 8.0, 10.0], "{device:?}");
            assert_eq!(ops::add(&good, &bad).to_vec().unwrap_err().to_string(), expected, "{device:?}");

            // What was to be updated goes too, and gives its memory back.
            ops::matmul_accumulate(&sums, &bad.transpose(), &bad, 1.0);
            drop((bad, good, sums));
            device.flush().unwrap();
            assert!(device.memory().in_use < before, "{device:?}");
            assert_eq!(table.to_vec().unwrap()[5], 5.0);
        }
    }

    #[test]
    fn every_op_that_finds_its_way_by_indices_names_the_one_that_is_out_of_range() {
        for device in device_names().map(|name| Device::open(name).unwrap()) {
            let indices = |elements: &[u32]| device.tensor_u32(elements, [elements.len()]);
            let (table, none) = (table(&device), ops::IGNORE);
            let [cos, sin] = [0, 1].map(|column| table.slice(1, column..column + 1));
            let heads = device.zeros([1, 2, 1, 2]);
            let turned = |positions: &[u32]| ops::rope(&heads, &cos, &sin, &indices(positions).reshape([1, 2]));
            let weight = device.tensor(&[1.0; 2], [2]);
            let normed =
                |positions: &[u32]| ops::rms_norm_rope(&heads, &weight, 1e-5, &cos, &sin, &indices(positions).reshape([1, 2]));
            let refused = [
                (ops::gather(&table, &indices(&[1, 7])), "[gather] expected indices below 3, got 7"),
                (ops::gather(&table, &indices(&[none])), "[gather] expected indices below 3, got 4294967295"),
                (ops::scatter_add(&table, &indices(&[1, 0, 4]), 4), "[scatter_add] expected indices below 4, got 4"),
                (turned(&[0, 3]), "[rope] expected indices below 3, got 3"),
                (normed(&[5, 0]), "[rms_norm_rope] expected indices below 3, got 5"),
                (ops::cross_entropy(&table, &indices(&[1, none, 2])).loss, "[cross_entropy] expected indices below 2, got 2"),
                (
                    ops::linear_cross_entropy(&table.requiring_grad(), &table, &indices(&[1, none, 3])).loss,
                    "[cross_entropy_grad] expected indices below 3, got 3",
                ),
                (
                    ops::log_probs(&table, &table, &indices(&[9, none, 0]), 1.0).entropy,
                    "[cross_entropy] expected indices below 3, got 9",
                ),
            ];
            assert!(device.flush().is_err(), "{device:?}");
            for (tensor, expected) in refused {
                assert_eq!(tensor.to_vec().unwrap_err().to_string(), expected, "{device:?}");
            }
            assert_eq!(ops::cross_entropy(&table, &indices(&[1, none, 0])).loss.to_vec().unwrap().len(), 1);
        }
    }

    #[test]
    fn a_bound_goes_with_views_and_copies_and_an_argmax_has_that_of_its_axis() {
        let device = Device::cpu();
        let table = table(&device);
        let best = ops::argmax_axis(&device.tensor(&[0.0; 8], [2, 4]), 1);
        let listed = device.tensor_u32(&[0, 1, 2, 3], [2, 2]);
        let copied = listed.transpose().whole();
        for (indices, index) in [(best, 3), (listed.slice(0, 1..2), 3), (copied, 3)] {
            let error = ops::gather(&table, &indices).to_vec().unwrap_err();
            assert_eq!(error.to_string(), format!("[gather] expected indices below 3, got {index}"));
        }
        let within = ops::gather(&table, &ops::argmax_axis(&table, 0));
        assert_eq!(within.to_vec().unwrap(), [4.0, 5.0, 4.0, 5.0]);
    }
}
