//! The learning rate of each step, by the formulas of transformers' `get_*_schedule_with_warmup`.

use std::f64::consts::PI;

/// How the learning rate goes on after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls in a straight line to 0.
    Linear,
    /// It falls to 0 along half a cosine. Loshchilov & Hutter, 2017, <https://arxiv.org/abs/1608.03983>.
    Cosine,
}

/// A learning rate over a whole run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRate {
    /// Its greatest value.
    pub peak: f64,
    /// Steps over which it rises in a straight line from 0; 0 for none.
    pub warmup_steps: usize,
    /// Steps of the run, the warm-up included.
    pub total_steps: usize,
    /// What it does after the warm-up.
    pub schedule: Schedule,
}

impl LearningRate {
    /// The learning rate of the update that follows `step` others. With a warm-up that of the first is 0.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let decay_steps = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / decay_steps as f64).min(1.0);
        self.peak
            * match self.schedule {
                Schedule::Constant => 1.0,
                Schedule::Linear => 1.0 - progress,
                Schedule::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule, warmup_steps: usize, steps: &[usize]) -> Vec<f64> {
        let rate = LearningRate { peak: 8.0, warmup_steps, total_steps: 10, schedule };
        steps.iter().map(|&step| rate.at(step)).collect()
    }

    #[test]
    fn warm_up_rises_from_zero_in_a_line() {
        for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
            assert_eq!(rates(schedule, 4, &[0, 1, 2, 3, 4]), [0.0, 2.0, 4.0, 6.0, 8.0]);
            assert_eq!(rates(schedule, 0, &[0]), [8.0]);
        }
    }

    #[test]
    fn each_schedule_decays_as_its_name_says() {
        let steps = [2, 4, 6, 8, 10, 11];
        assert_eq!(rates(Schedule::Constant, 2, &steps), [8.0; 6]);
        assert_eq!(rates(Schedule::Linear, 2, &steps), [8.0, 6.0, 4.0, 2.0, 0.0, 0.0]);
        let root = 2f64.sqrt();
        let expected = [8.0, 4.0 + 2.0 * root, 4.0, 4.0 - 2.0 * root, 0.0, 0.0];
        for (found, expected) in rates(Schedule::Cosine, 2, &steps).iter().zip(expected) {
            // The roundings of one cosine near values up to 8.
            assert!((found - expected).abs() < 1e-14, "{found} {expected}");
        }
    }

    #[test]
    fn a_warm_up_as_long_as_the_run_only_rises() {
        assert_eq!(rates(Schedule::Cosine, 10, &[5, 10, 11]), [4.0, 8.0, 0.0]);
    }
}
