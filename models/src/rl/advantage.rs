//! How much better an action was than what was expected: pure functions of rewards and values on the host, in f64.

/// Rewards of an answer's tokens made advantages and returns, by lambdas of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Discount {
    /// What a reward one token later is worth.
    pub gamma: f64,
    /// Of the advantages that the policy learns from: 0 trusts the critic, 1 the rewards.
    pub policy: f64,
    /// Of the returns that the critic learns (VC-PPO: Yuan et al. 2025, arXiv:2503.01491).
    pub critic: f64,
}

/// Generalised advantages A_t = d_t + gamma lambda A_(t+1), d_t = r_t + gamma V_(t+1) - V_t, with V and A 0 behind the last token.
/// Schulman et al. 2015, arXiv:1506.02438.
///
/// # Panics
/// If there are not as many values as rewards.
#[track_caller]
pub fn generalised(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> Vec<f64> {
    assert!(rewards.len() == values.len(), "[generalised] expected {} values, got {}", rewards.len(), values.len());
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for at in (0..rewards.len()).rev() {
        let delta = rewards[at] + gamma * next_value - values[at];
        next_advantage = delta + gamma * lambda * next_advantage;
        next_value = values[at];
        advantages[at] = next_advantage;
    }
    advantages
}

impl Discount {
    /// Advantages, and returns R_t = A_t + V_t, of an answer's tokens.
    pub fn of(&self, rewards: &[f64], values: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let advantages = generalised(rewards, values, self.gamma, self.policy);
        let returns = match self.critic == self.policy {
            true => advantages.clone(),
            false => generalised(rewards, values, self.gamma, self.critic),
        };
        (advantages, returns.iter().zip(values).map(|(advantage, value)| advantage + value).collect())
    }
}

/// The mean and the deviation of numbers, the latter with Bessel's correction; both 0 of none, and a deviation of 0 of one.
pub fn moments(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

/// Scales numbers to a deviation of 1, as they are (x - mean) / sqrt(variance + 1e-8), and where `shifts` to a mean of 0.
pub fn whiten(numbers: &mut [f64], shifts: bool) {
    let (mean, deviation) = moments(numbers);
    let scale = 1.0 / (deviation * deviation + 1e-8).sqrt();
    let kept = if shifts { 0.0 } else { mean };
    numbers.iter_mut().for_each(|number| *number = (*number - mean) * scale + kept);
}

/// What the advantages of a group are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// The deviation of its own rewards.
    Group,
    /// The deviation of all groups' rewards (Hu et al. 2025, arXiv:2501.03262).
    Batch,
    /// Nothing (Liu et al. 2025, arXiv:2503.20783).
    None,
}

/// Advantages of answers whose rewards stand in groups of `size`: each less its group's mean, over a spread + 1e-4. And how many groups
/// have none, since all their rewards are equal. Shao et al. 2024, arXiv:2402.03300.
///
/// # Panics
/// If the last group is not whole.
#[track_caller]
pub fn of_groups(rewards: &[f64], size: usize, spread: Spread) -> (Vec<f64>, usize) {
    assert!(
        size > 0 && rewards.len().is_multiple_of(size),
        "[of_groups] expected groups of {size}, got {} rewards",
        rewards.len()
    );
    let of_all = moments(rewards).1;
    let is_flat = |group: &[f64]| group.iter().all(|reward| *reward == group[0]);
    let advantages = rewards.chunks(size).flat_map(|group| {
        let (mean, own) = moments(group);
        let divisor = match spread {
            Spread::Group => own + 1e-4,
            Spread::Batch => of_all + 1e-4,
            Spread::None => 1.0,
        };
        // Equal rewards have a mean that may be rounded.
        let flat = is_flat(group);
        group.iter().map(move |reward| if flat { 0.0 } else { (reward - mean) / divisor })
    });
    (advantages.collect(), rewards.chunks(size).filter(|group| is_flat(group)).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn near(found: &[f64], expected: &[f64]) {
        // The roundings of a few sums of numbers below 10.
        let is_near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(is_near), "{found:?}, expected {expected:?}");
    }

    #[test]
    fn advantages_by_hand() {
        // d = [1 + 0.5 * 4 - 2, 0 + 0.5 * 6 - 4, 2 - 6] = [1, -1, -4]; A_2 = -4, A_1 = -1 - 0.25 * 4 = -2, A_0 = 1 - 0.25 * 2.
        let (rewards, values) = ([1.0, 0.0, 2.0], [2.0, 4.0, 6.0]);
        near(&generalised(&rewards, &values, 0.5, 0.5), &[0.5, -2.0, -4.0]);
        // With lambda 0 they are the deltas; with lambda 1, what came less what was expected.
        near(&generalised(&rewards, &values, 0.5, 0.0), &[1.0, -1.0, -4.0]);
        near(&generalised(&rewards, &values, 0.5, 1.0), &[1.0 + 0.25 * 2.0 - 2.0, 0.5 * 2.0 - 4.0, 2.0 - 6.0]);
        let (advantages, returns) = Discount { gamma: 0.5, policy: 0.5, critic: 1.0 }.of(&rewards, &values);
        near(&advantages, &[0.5, -2.0, -4.0]);
        near(&returns, &[1.5, 1.0, 2.0]);
        assert!(generalised(&[], &[], 1.0, 1.0).is_empty());
    }

    #[test]
    fn whitened_numbers_have_a_deviation_of_one() {
        let mut numbers = [1.0, 3.0, 5.0];
        whiten(&mut numbers, true);
        // The deviation is 2; 1e-8 under the root moves the rest by 2e-9.
        assert!((numbers[0] + 1.0).abs() < 1e-8 && numbers[1] == 0.0 && (numbers[2] - 1.0).abs() < 1e-8, "{numbers:?}");
        let mut numbers = [1.0, 3.0, 5.0];
        whiten(&mut numbers, false);
        assert!((numbers[0] - 2.0).abs() < 1e-8 && numbers[1] == 3.0, "{numbers:?}");
        for mut few in [vec![], vec![7.0], vec![7.0, 7.0]] {
            whiten(&mut few, true);
            assert!(few.iter().all(|number| *number == 0.0), "{few:?}");
        }
    }

    #[test]
    fn a_group_without_spread_has_no_advantages() {
        // 0.1 is no sum of halves, and the mean of three is not its own bits.
        let rewards = [0.1, 0.1, 0.1, 0.0, 1.0, 2.0];
        let (advantages, flat) = of_groups(&rewards, 3, Spread::Group);
        near(&advantages, &[0.0, 0.0, 0.0, -1.0 / 1.0001, 0.0, 1.0 / 1.0001]);
        assert_eq!((flat, &advantages[..3]), (1, &[0.0; 3][..]));
        near(&of_groups(&rewards, 3, Spread::None).0[3..], &[-1.0, 0.0, 1.0]);
        let deviation = moments(&rewards).1;
        near(&of_groups(&rewards, 3, Spread::Batch).0[3..], &[-1.0 / (deviation + 1e-4), 0.0, 1.0 / (deviation + 1e-4)]);
        assert_eq!(of_groups(&[3.0], 1, Spread::Group), (vec![0.0], 1));
    }
}
