use super::*;
use crate::data::IGNORE;
use crate::data::batch::Batch;
use crate::data::encode::Example;
use crate::rl::near::{REFERENCE, gradient, leaf, near};

#[test]
fn a_ratio_past_the_clip_has_no_gradient_where_it_went_the_right_way() {
    let ratio = leaf(&[1.5, 1.5, 0.5, 0.5, 1.0]);
    let advantages = ratio.device().tensor(&[1.0, -1.0, 1.0, -1.0, 2.0], [5]);
    let clip = Clip { low: 0.2, high: 0.3, dual: 0.0 };
    let loss = clipped(&ratio, &advantages, clip);
    near(&loss, &[-1.3, 1.5, -0.5, 0.8, -2.0]);
    near(&gradient(&loss, &ratio), &[0.0, 1.0, -1.0, 0.0, -2.0]);
    near(&is_clipped(&ratio, &advantages, clip), &[1.0, 0.0, 0.0, 1.0, 0.0]);
    let loss = clipped(&ratio, &advantages, Clip { dual: 1.25, ..clip });
    near(&loss, &[-1.3, 1.25, -0.5, 0.8, -2.0]);
    near(&gradient(&loss, &ratio), &[0.0, 0.0, -1.0, 0.0, -2.0]);
}

#[test]
fn cispo_keeps_the_gradient_of_every_token() {
    let log_probs = leaf(&[-1.0, -2.0]);
    let ratio = ratios(&log_probs, &log_probs.device().tensor(&[-1.0, -4.0], [2]), None);
    let cispo = POLICY_LOSSES.iter().find(|loss| loss.name == "cispo").unwrap();
    let advantages = log_probs.device().tensor(&[1.0, -1.0], [2]);
    // e^2 is past 1 + 4.
    let loss = (cispo.of)(&ratio, &advantages, &log_probs, Clip { low: 0.2, high: 4.0, dual: 0.0 });
    near(&loss, &[1.0, 5.0 * -2.0]);
    near(&gradient(&loss, &log_probs), &[-1.0, 5.0]);
}

#[test]
fn an_answers_ratio_is_that_of_its_mean() {
    let device = &REFERENCE;
    let example = |length: usize| Example { ids: vec![1; length + 1], labels: [vec![IGNORE], vec![1; length]].concat() };
    let answers = Answers::of(&Batch::of_rows(&[vec![&example(2)], vec![&example(3)]], 0));
    let log_probs = device.tensor(&[-1.0, -2.0, -1.0, -1.0, -1.0], [5]);
    let old = device.tensor(&[-2.0, -1.5, -1.0, -1.0, -4.0], [5]);
    let [first, second] = [0.25f64.exp(), 1f64.exp()];
    near(&ratios(&log_probs, &old, Some(&answers)), &[first, first, second, second, second]);
    near(&ratios(&log_probs, &old, None).slice(0, 0..3), &[1f64.exp(), (-0.5f64).exp(), 1.0]);
}

#[test]
fn each_share_weighs_tokens_as_it_says() {
    let of = |share: Share| share.of(&[1, 3], 4);
    assert_eq!(of(Share::Answer), (vec![1.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0], 2));
    assert_eq!(of(Share::BatchToken), (vec![0.25; 4], 1));
    assert_eq!(of(Share::Token), (vec![1.0; 4], 4));
    assert_eq!(of(Share::LongestToken), (vec![0.25; 4], 2));
}

#[test]
fn a_value_is_held_near_the_old_one() {
    let (values, old) = (leaf(&[1.0, 1.0, 0.125]), leaf(&[0.0, 0.0, 0.0]));
    let returns = old.device().tensor(&[2.0, 0.5, 1.0], [3]);
    // Held at 0.25: (0.25 - 2)^2 is more than (1 - 2)^2, and (0.25 - 0.5)^2 less than (1 - 0.5)^2.
    let loss = value(&values, &old, &returns, 0.25);
    near(&loss, &[0.5 * 1.75 * 1.75, 0.5 * 0.25, 0.5 * 0.875 * 0.875]);
    near(&gradient(&loss, &values), &[0.0, 0.5, -0.875]);
    near(&value(&values, &old, &returns, 0.0), &[0.5, 0.125, 0.5 * 0.875 * 0.875]);
}
