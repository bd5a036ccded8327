//! What becomes of scores before they are rewards of tokens: their limits, and what it costs to leave the reference.

/// What it costs to leave the reference, a nat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlCost {
    /// Now.
    pub coefficient: f64,
    /// It rises where answers are further away than this, and falls where they are nearer (Ziegler et al. 2019, arXiv:1909.08593); 0
    /// is neither.
    pub target: f64,
    /// Over how many answers.
    pub horizon: f64,
}

impl KlCost {
    /// After so many answers that were so far away.
    pub fn after(self, kl: f64, answers: usize) -> KlCost {
        if self.target <= 0.0 {
            return self;
        }
        let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
        // A phase of more answers than the horizon has moves it as one of so many: no cost falls below 0.
        let share = (answers as f64 / self.horizon).min(1.0);
        KlCost { coefficient: self.coefficient * (1.0 + error * share), ..self }
    }
}

/// What is done to scores.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shaping {
    /// They are held within this of 0; 0 is any.
    pub clip: f64,
    /// What an answer that does not end costs.
    pub missing_end: f64,
    /// Whether rewards of tokens are scaled to a deviation of 1.
    pub whitens: bool,
}

impl Shaping {
    /// What a score counts.
    pub fn of(&self, score: f64, has_ended: bool) -> f64 {
        let score = if self.clip > 0.0 { score.clamp(-self.clip, self.clip) } else { score };
        if has_ended { score } else { score - self.missing_end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_costs_to_leave_the_reference_follows_its_target() {
        let cost = KlCost { coefficient: 0.1, target: 6.0, horizon: 1000.0 };
        let after = |kl: f64| cost.after(kl, 100).coefficient;
        assert!((after(6.6) - 0.1 * 1.01).abs() < 1e-12, "10 % too far, over a tenth of the horizon");
        assert_eq!([after(600.0), after(0.0)], [0.1 * 1.02, 0.1 * 0.98], "a fifth at most");
        assert_eq!(cost.after(0.0, 1_000_000).coefficient, 0.1 * 0.8, "a fifth, of however many answers");
        assert_eq!(KlCost { target: 0.0, ..cost }.after(600.0, 100), KlCost { target: 0.0, ..cost });
    }

    #[test]
    fn scores_are_held_and_answers_that_do_not_end_cost() {
        let shaping = Shaping { clip: 2.0, missing_end: 1.0, whitens: false };
        assert_eq!([shaping.of(3.0, true), shaping.of(-3.0, false), shaping.of(1.0, false)], [2.0, -3.0, 0.0]);
        assert_eq!(Shaping::default().of(300.0, false), 300.0);
    }
}
