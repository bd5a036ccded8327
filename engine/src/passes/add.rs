//! Lets products add: a product whose one reader adds something to it writes the sum itself.

use rustc_hash::{FxHashMap, FxHashSet};

use super::Reads;
use crate::ops::{addition, with_residual};
use crate::recording::{Command, Recording};

/// The recording without the additions that a product before them can make. Its reads stay as they are.
pub fn add_in_products(recording: Recording, reads: &Reads) -> Recording {
    let mut out: Vec<Command> = Vec::with_capacity(recording.commands.len());
    // Where each buffer was last written.
    let mut written: FxHashMap<u64, usize> = FxHashMap::with_capacity_and_hasher(recording.commands.len(), Default::default());
    let mut gone: FxHashSet<u64> = FxHashSet::default();
    for command in recording.commands {
        match &command {
            Command::Free { buffer } if gone.contains(&buffer.id) => continue,
            _ => {}
        }
        if let Some([a, b, sum]) = addition(&command) {
            // The other side must be there before the product; of two products, the later can add the earlier.
            let absorbed = [(a, b), (b, a)].into_iter().find_map(|(product, other)| {
                let at = *written.get(&product.id).filter(|_| reads.get(&product.id) == Some(&1))?;
                let is_there = written.get(&other.id).is_none_or(|&other| other < at);
                let adding = with_residual(&out[at], other, sum).filter(|_| is_there && product.id != other.id)?;
                Some((at, product, adding))
            });
            if let Some((at, product, adding)) = absorbed {
                out[at] = adding;
                gone.insert(product.id);
                written.insert(sum.id, at);
                continue;
            }
        }
        written.extend(command.writes().map(|buffer| (buffer.id, out.len())));
        out.push(command);
    }
    Recording { commands: out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::reads;
    use crate::{Device, ops};

    fn dispatches(device: &Device) -> (usize, usize) {
        let recorded = device.recorded();
        let reads = reads(&recorded, |_| true);
        (recorded.dispatches(), add_in_products(recorded, &reads).dispatches())
    }

    #[test]
    fn a_product_adds_what_was_there_before_it_on_either_side() {
        let device = Device::cpu();
        let [a, b, c] = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0, 10.0, 11.0, 12.0]].map(|x| device.tensor(&x, [2, 2]));
        let left = ops::add(&ops::matmul(&a, &b), &c);
        let right = ops::add(&c, &ops::matmul(&a, &b));
        let both = ops::add(&ops::matmul(&a, &b), &ops::matmul(&a, &c));
        assert_eq!(dispatches(&device), (7, 4));
        assert_eq!(left.to_vec().unwrap(), [28.0, 32.0, 54.0, 62.0]);
        assert_eq!(right.to_vec().unwrap(), [28.0, 32.0, 54.0, 62.0]);
        assert_eq!(both.to_vec().unwrap(), [19.0 + 31.0, 22.0 + 34.0, 43.0 + 71.0, 50.0 + 78.0]);
    }

    #[test]
    fn a_product_that_is_read_twice_or_kept_or_meets_a_later_result_is_written() {
        let device = Device::cpu();
        let a = device.tensor(&[1.0, 2.0, 3.0, 4.0], [2, 2]);
        let kept = ops::matmul(&a, &a);
        let sums = [ops::add(&kept, &a), ops::add(&ops::matmul(&a, &a), &ops::exp(&a))];
        let twice = ops::matmul(&a, &a);
        let doubled = ops::add(&twice, &twice);
        drop(twice);
        assert_eq!(dispatches(&device), (7, 7));
        drop((kept, sums, doubled));
    }
}
