use super::*;
use crate::rl::near::{gradient, leaf, near};

const LN_2: f64 = std::f64::consts::LN_2;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[test]
fn a_pair_of_equal_scores_costs_ln_2_and_pulls_both_by_a_half() {
    let (chosen, rejected) = (leaf(&[0.5, 100.0, -100.0]), leaf(&[0.5, -100.0, 100.0]));
    let none = chosen.device().zeros([1]);
    let loss = reward(&chosen, &rejected, &none, 0.0);
    near(&loss, &[LN_2, 0.0, 200.0]);
    near(&gradient(&loss, &chosen), &[-0.5, 0.0, -1.0]);
    // (0.5 + 0.5)^2 is 1.
    near(&reward(&chosen, &rejected, &none, 0.25), &[LN_2 + 0.25, 0.0, 200.0]);
    let margin = chosen.device().tensor(&[1.0, 0.0, 0.0], [3]);
    near(&reward(&chosen, &rejected, &margin, 0.0).slice(0, 0..1), &[(1.0 + 1f64.exp()).ln()]);
}

#[test]
fn pair_losses_where_nothing_is_preferred_and_where_something_is() {
    let expected = |name: &str, h: f64| match name {
        // beta 0.5, s 0.25.
        "sigmoid" => -0.75 * sigmoid(0.5 * h).ln() - 0.25 * sigmoid(-0.5 * h).ln(),
        "ipo" => (h - 1.0).powi(2),
        "hinge" => (1.0 - 0.5 * h).max(0.0),
        "robust" => (-0.75 * sigmoid(0.5 * h).ln() + 0.25 * sigmoid(-0.5 * h).ln()) / 0.5,
        _ => panic!("{name}"),
    };
    for loss in &PAIR_LOSSES {
        let h = leaf(&[0.0, 3.0, -2.0]);
        near(&(loss.of)(&h, 0.5, 0.25), &[0.0, 3.0, -2.0].map(|h| expected(loss.name, h)));
    }
}

#[test]
fn a_good_answer_is_pulled_above_the_mean_and_a_bad_one_below() {
    let ratio = leaf(&[1.0, 1.0]);
    let tensor = |values: &[f32]| ratio.device().tensor(values, [values.len()]);
    let loss = kto(&ratio, &tensor(&[1.0, 0.0]), &tensor(&[1.0, 2.0]), &tensor(&[0.5]), 1.0);
    near(&loss, &[1.0 - sigmoid(0.5), 2.0 * (1.0 - sigmoid(-0.5))]);
    let slope = sigmoid(0.5) * (1.0 - sigmoid(0.5));
    near(&gradient(&loss, &ratio), &[-slope, 2.0 * slope]);
}

#[test]
fn odds_of_answers_that_are_almost_certain() {
    // Odds of a half are 1; those of e^-1e-4 are 1 / (e^1e-4 - 1).
    let (chosen, rejected) = (leaf(&[-(2f32.ln()), -1e-4]), leaf(&[-(2f32.ln()), -(2f32.ln())]));
    let certain = f64::from(-1e-4f32) - (-f64::from(-1e-4f32).exp_m1()).ln();
    near(&odds_ratio(&chosen, &rejected), &[LN_2, -sigmoid(certain).ln()]);
}

#[test]
fn estimates_of_the_distance_by_hand() {
    let (policy, reference) = (leaf(&[-1.0, -2.0]), leaf(&[-1.0, -1.0]));
    near(&Estimator::K1.of(&policy, &reference), &[0.0, -1.0]);
    near(&Estimator::K3.of(&policy, &reference), &[0.0, 1f64.exp() - 2.0]);
}
