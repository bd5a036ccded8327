//! Orders that depend on a seed and nothing else.

use wgtune_engine::random::Philox;

/// The numbers below `count` in an order that depends on `seed` and `epoch` (Fisher and Yates).
pub(crate) fn permutation(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let random = Philox::new(seed).stream(epoch);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, random.below(last as u64, last + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_once_in_an_order_of_its_own() {
        let order = permutation(1000, 7, 0);
        let mut sorted = order.clone();
        sorted.sort();
        assert!(sorted.into_iter().eq(0..1000));
        assert_eq!(order, permutation(1000, 7, 0));
        assert_ne!(order, permutation(1000, 7, 1));
        assert_ne!(order, permutation(1000, 8, 0));
        assert!(permutation(0, 7, 0).is_empty());
    }

    #[test]
    fn every_place_is_as_likely_as_any() {
        // Where 0 of 4 ends up over 4,000 seeds: 1,000 each expected, deviation sqrt(4000 * 3/16) = 27; 5 of it.
        let mut counts = [0; 4];
        for seed in 0..4000 {
            let place = permutation(4, seed, 0).iter().position(|&i| i == 0).unwrap();
            counts[place] += 1;
        }
        assert!(counts.iter().all(|count| (865..=1135).contains(count)), "{counts:?}");
    }
}
