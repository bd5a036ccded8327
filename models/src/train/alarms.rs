//! What goes wrong in learning, told in plain words as it begins.

use std::collections::BTreeSet;

/// Watches the figures of a run.
#[derive(Debug, Default)]
pub struct Alarms {
    /// Of the first update that has each.
    first: Option<First>,
    /// What was so at the last update.
    sounding: BTreeSet<&'static str>,
}

#[derive(Debug, Clone, Copy)]
struct First {
    entropy: f64,
    reward: f64,
    deviation: f64,
    length: f64,
    cut: f64,
}

/// Nats that an estimate of a distance, a mean over answers, may be below 0 by chance.
const BELOW: f64 = -0.1;
/// How far from 1 a ratio may be that is 1 but for rounding.
const ROUNDING: f64 = 1e-3;
/// The share of its first entropy at which a policy says the same to everything.
const COLLAPSED: f64 = 0.2;
/// By how many of its first deviations a reward has risen for certain.
const RISEN: f64 = 0.5;
/// How many times longer answers are that have run away.
const LONGER: f64 = 1.5;

impl Alarms {
    /// What begins to be so at an update, by the figures that it has: each once, until it has ceased.
    pub fn hear(&mut self, figure: &dyn Fn(&str) -> Option<f64>) -> Vec<String> {
        let of = |name: &str| figure(name).unwrap_or(f64::NAN);
        let now = First {
            entropy: of("entropy"),
            reward: of("reward"),
            deviation: of("reward_std"),
            length: of("completions/mean_length"),
            cut: of("completions/clipped_ratio"),
        };
        // No recipe without rewards has anything to be told here.
        if now.reward.is_nan() {
            return Vec::new();
        }
        let first = *self.first.get_or_insert(now);
        let begins = of("phase/update") == 0.0;
        let kl = figure("objective/kl").or(figure("kl")).unwrap_or(0.0);
        let ratio = figure("val/ratio").or(figure("ratio")).unwrap_or(1.0);
        let mut found: Vec<(&'static str, String)> = Vec::new();
        let mut tell = |is_so: bool, kind: &'static str, text: String| {
            if is_so {
                found.push((kind, text));
            }
        };
        tell(
            kl < BELOW,
            "kl",
            format!(
                "the distance from the reference is {kl:.3} nats, and none is below 0: the answers are not drawn as the policy says, by top-k, top-p or another temperature"
            ),
        );
        // A ratio is above 0 wherever a token counts.
        let learns = ratio != 0.0;
        tell(!learns, "unlearnt", "no answer of this update is learnt from: all were cut at the length, and dropped".into());
        tell(
            learns && begins && (ratio - 1.0).abs() > ROUNDING,
            "ratio",
            format!(
                "the policy finds its answers {ratio:.4} times as likely as it did when they were measured, before it learnt from them: expected 1"
            ),
        );
        // An entropy near the limit is below it at one update and not at the next.
        let limit = if self.sounding.contains("entropy") { 2.0 * COLLAPSED } else { COLLAPSED };
        tell(
            learns && now.entropy < limit * first.entropy,
            "entropy",
            format!("the entropy fell from {:.3} to {:.3} nats a token: the answers become the same", first.entropy, now.entropy),
        );
        tell(
            now.reward > first.reward + RISEN * first.deviation.max(1e-9) && now.length > LONGER * first.length,
            "length",
            format!(
                "the reward rose from {:.3} to {:.3} while answers grew from {:.1} to {:.1} tokens: it may be length that is rewarded",
                first.reward, now.reward, first.length, now.length
            ),
        );
        tell(
            of("completions/clipped_ratio") == 1.0 && first.cut < 1.0,
            "cut",
            "every answer is cut at the length: none ends any more".into(),
        );
        tell(
            figure("frac_reward_zero_std") == Some(1.0),
            "groups",
            "all answers to each prompt have the same reward: the loss is 0 because none is better than its group".into(),
        );
        tell(
            figure("frac_reward_zero_std").is_none() && now.deviation == 0.0,
            "spread",
            format!("all answers have the reward {:.3}: there is nothing to learn from it", now.reward),
        );
        let kinds: Vec<&'static str> = found.iter().map(|(kind, _)| *kind).collect();
        let new = found.into_iter().filter(|(kind, _)| !self.sounding.contains(kind)).map(|(_, text)| text).collect();
        // Whether a ratio is 1 is only known where a phase begins.
        let keeps = |kind: &&'static str| *kind == "ratio" && !begins;
        self.sounding = self.sounding.iter().copied().filter(|kind| keeps(kind)).chain(kinds).collect();
        new
    }
}

impl Alarms {
    /// Why an update changes nothing, where what sounds says so.
    pub fn why_nothing_is_learnt(&self) -> Option<&'static str> {
        let sounds = |kind: &str| self.sounding.contains(kind);
        match sounds("unlearnt") {
            true => Some("all answers were cut at the length, and dropped; expected room for longer ones"),
            false if sounds("groups") || sounds("spread") => {
                Some("all answers have the same reward, and none is better than others")
            }
            false => None,
        }
    }
}

/// Whether what has never moved is looked for after this update: at 50, 500, 5000 and so on, wherever the run ends. At the first few some
/// need not have, as a factor that multiplies one of zeros.
pub fn looks_for_unmoved(step: usize) -> bool {
    let mut left = step;
    while left > 5 && left.is_multiple_of(10) {
        left /= 10;
    }
    left == 5 && step > 5
}

/// What is told of parameters that never moved, of so many, where others did.
pub fn unmoved(step: usize, unmoved: &[&str], all: usize) -> Option<String> {
    let first = unmoved.first().filter(|_| unmoved.len() < all)?;
    Some(format!("{} of {all} parameters never moved in {step} updates, as {first}", unmoved.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of a run whose updates have these figures.
    fn told(updates: &[&[(&str, f64)]]) -> Vec<usize> {
        let mut alarms = Alarms::default();
        let usual =
            [("reward", 0.5), ("reward_std", 0.5), ("entropy", 2.0), ("completions/mean_length", 10.0), ("phase/update", 0.0)];
        let figure =
            |own: &[(&str, f64)], name: &str| own.iter().chain(&usual).find(|(known, _)| *known == name).map(|(_, value)| *value);
        updates.iter().map(|own| alarms.hear(&|name| figure(own, name)).len()).collect()
    }

    #[test]
    fn each_alarm_sounds_where_it_begins_and_not_again_until_it_has_ceased() {
        let usual: &[(&str, f64)] = &[];
        for so in [
            &[("objective/kl", -1.0)][..],
            &[("val/ratio", 1.1)],
            &[("entropy", 0.3)],
            &[("reward", 2.0), ("completions/mean_length", 20.0)],
            &[("frac_reward_zero_std", 1.0)],
            &[("reward_std", 0.0)],
        ] {
            assert_eq!(told(&[usual, so, so, usual, so]), [0, 1, 0, 0, 1], "{so:?}");
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_not_told() {
        for so in [
            &[("objective/kl", 3.0)][..],
            &[("val/ratio", 1.3), ("phase/update", 2.0)],
            &[("entropy", 1.0)],
            &[("reward", 2.0)],
            &[("completions/mean_length", 20.0)],
            &[("frac_reward_zero_std", 0.5), ("reward_std", 0.0)],
        ] {
            assert_eq!(told(&[&[], so]), [0, 0], "{so:?}");
        }
        let mut alarms = Alarms::default();
        assert!(alarms.hear(&|name| (name == "loss").then_some(1.0)).is_empty());
    }

    #[test]
    fn what_never_moves_is_looked_for_now_and_then() {
        assert_eq!((1..6000).filter(|step| looks_for_unmoved(*step)).collect::<Vec<_>>(), [50, 500, 5000]);
        assert_eq!([unmoved(50, &[], 2), unmoved(50, &["a", "b"], 2)], [None, None], "all move, or none does");
        assert!(unmoved(50, &["a"], 2).unwrap().starts_with("1 of 2 parameters never moved in 50 updates, as a"));
    }
}
