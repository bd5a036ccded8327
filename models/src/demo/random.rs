//! Seeded choices.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
pub(super) struct Random(u64);

impl Random {
    /// The generator of row `index` of `stream` under `seed`: no two rows share a state.
    pub(super) fn of_row(seed: u64, stream: &str, index: usize) -> Self {
        let mut state = mix(seed);
        for byte in stream.bytes() {
            state = mix(state ^ u64::from(byte));
        }
        Self(mix(state ^ index as u64))
    }

    /// A number in `0..end`, by multiplication rather than remainder (Lemire 2019).
    pub(super) fn below(&mut self, end: usize) -> usize {
        assert!(end > 0, "[below] expected a range that is not empty");
        self.0 = self.0.wrapping_add(GOLDEN_GAMMA);
        ((u128::from(mix(self.0)) * end as u128) >> 64) as usize
    }

    /// True once in `times`.
    pub(super) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`, all equally likely.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// `N` different ones of `choices`, in random order (the first steps of Fisher and Yates).
    pub(super) fn pick_distinct<T: Copy, const N: usize>(&mut self, choices: &[T]) -> [T; N] {
        let mut left = choices.to_vec();
        std::array::from_fn(|_| left.swap_remove(self.below(left.len())))
    }
}

const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(GOLDEN_GAMMA);
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_choices_are_distinct() {
        for row in 0..100 {
            let mut picked: [usize; 5] = Random::of_row(1, "test", row).pick_distinct(&[0, 1, 2, 3, 4]);
            picked.sort();
            assert_eq!(picked, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn every_choice_comes_about_as_often() {
        let mut counts = [0; 4];
        for row in 0..4000 {
            counts[Random::of_row(7, "test", row).below(4)] += 1;
        }
        // 1000 expected; the standard deviation of a count is sqrt(4000 * 1/4 * 3/4) = 27.
        assert!(counts.iter().all(|count| (865..=1135).contains(count)), "{counts:?}");
    }
}
