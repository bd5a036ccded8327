//! Orders that depend on a seed and nothing else.

/// SplitMix64: Steele, Lea & Flood, 2014, <https://doi.org/10.1145/2714064.2660195>.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform below `bound`; the bias of taking the upper half of a product is below bound / 2^64.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

/// The numbers below `count` in an order that depends on `seed` and `epoch` (Fisher and Yates).
pub(crate) fn permutation(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut random = SplitMix(SplitMix(seed).next() ^ SplitMix(!epoch).next());
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, random.below(last + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_numbers() {
        // Of the reference implementation, <https://prng.di.unimi.it/splitmix64.c>, seeded with 1234567.
        let mut random = SplitMix(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

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
