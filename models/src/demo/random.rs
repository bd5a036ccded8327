//! Seeded choices.

use wgtune_engine::random::Philox;

use crate::hash::fnv1a;

/// Draws one choice after another.
pub(super) struct Random {
    stream: Philox,
    drawn: u64,
}

impl Random {
    /// The choices of row `index` of `stream` under `seed`: no two rows share a stream.
    pub(super) fn of_row(seed: u64, stream: &str, index: usize) -> Self {
        Self { stream: Philox::new(seed).stream(fnv1a(stream.bytes())).stream(index as u64), drawn: 0 }
    }

    /// A number in `0..end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        assert!(end > 0, "[below] expected a range that is not empty");
        self.drawn += 1;
        self.stream.below(self.drawn, end)
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
