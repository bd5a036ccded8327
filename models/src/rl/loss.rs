//! What is made less when a model learns from judgements: pure functions of log-probabilities, scores and values.
//!
//! Each variant of a loss is a row of a table. Log-probabilities are in nats. What is of pairs is [P], of answers [R], and of their
//! tokens [N], all answers' one behind the other: nothing is padded.

use wgtune_engine::{Tensor, ops};

/// ln sigmoid(x), without an overflow on either side.
pub fn log_sigmoid(x: &Tensor) -> Tensor {
    ops::neg(&ops::softplus(&ops::neg(x)))
}

/// x held between two numbers; no gradient flows where it is past one.
pub(super) fn clamp(x: &Tensor, low: f32, high: f32) -> Tensor {
    let bound = |value| ops::full(x.device(), value, [1]);
    ops::minimum(&ops::maximum(x, &bound(low)), &bound(high))
}

/// The loss of each pair of scores [P]: -ln sigmoid(chosen - rejected - margin) + centre (chosen + rejected)^2. The first is the
/// model of Bradley and Terry (Ouyang et al. 2022, arXiv:2203.02155), the margin that of Llama 2 (arXiv:2307.09288, section 3.2.2),
/// and the last keeps scores around 0 (Eisenstein et al. 2023, arXiv:2312.09244).
pub fn reward(chosen: &Tensor, rejected: &Tensor, margin: &Tensor, centre: f32) -> Tensor {
    let pairs = ops::neg(&log_sigmoid(&ops::sub(&ops::sub(chosen, rejected), margin)));
    match centre {
        0.0 => pairs,
        _ => ops::add(&pairs, &ops::scale(&ops::square(&ops::add(chosen, rejected)), centre)),
    }
}

/// A way of learning from pairs beside a reference.
pub struct PairLoss {
    /// What it is called.
    pub name: &'static str,
    /// Its formula and its source.
    pub about: &'static str,
    /// Whether it takes a share of labels that may be wrong.
    pub smooths: bool,
    /// Whether an answer's log-probability is the mean of its tokens', and not their sum.
    pub is_mean: bool,
    /// Of each pair, by how much more than the reference the policy prefers the chosen answer (h), by beta, and by the share of
    /// labels that may be wrong (s).
    pub of: fn(&Tensor, f32, f32) -> Tensor,
}

/// Those of DPO.
pub static PAIR_LOSSES: [PairLoss; 4] = [
    PairLoss {
        name: "sigmoid",
        about: "-(1 - s) ln sigmoid(beta h) - s ln sigmoid(-beta h): Rafailov et al. 2023, arXiv:2305.18290; s by Mitchell 2023",
        smooths: true,
        is_mean: false,
        of: |h, beta, smoothing| {
            let [right, wrong] = both_ways(h, beta);
            ops::add(&ops::scale(&right, smoothing - 1.0), &ops::scale(&wrong, -smoothing))
        },
    },
    PairLoss {
        name: "ipo",
        about: "(h - 1 / (2 beta))^2, h by means over tokens: Azar et al. 2023, arXiv:2310.12036",
        smooths: false,
        is_mean: true,
        of: |h, beta, _| ops::square(&ops::sub(h, &ops::full(h.device(), 0.5 / beta, [1]))),
    },
    PairLoss {
        name: "hinge",
        about: "max(0, 1 - beta h): Zhao et al. 2023, arXiv:2305.10425",
        smooths: false,
        is_mean: false,
        of: |h, beta, _| ops::relu(&ops::sub(&ops::full(h.device(), 1.0, [1]), &ops::scale(h, beta))),
    },
    PairLoss {
        name: "robust",
        about: "(-(1 - s) ln sigmoid(beta h) + s ln sigmoid(-beta h)) / (1 - 2 s): Chowdhury et al. 2024, arXiv:2403.00409",
        smooths: true,
        is_mean: false,
        of: |h, beta, smoothing| {
            let [right, wrong] = both_ways(h, beta);
            let sum = ops::add(&ops::scale(&right, smoothing - 1.0), &ops::scale(&wrong, smoothing));
            ops::scale(&sum, 1.0 / (1.0 - 2.0 * smoothing))
        },
    },
];

/// ln sigmoid(beta h) and ln sigmoid(-beta h).
fn both_ways(h: &Tensor, beta: f32) -> [Tensor; 2] {
    [beta, -beta].map(|beta| log_sigmoid(&ops::scale(h, beta)))
}

/// The loss of each answer [B] that is good (1) or not (0), by its log-ratio ln(policy / reference): w (1 - sigmoid(beta (ratio - kl)))
/// where it is good, w (1 - sigmoid(beta (kl - ratio))) where it is not; `weights` are w, and `kl` [1] takes no gradient.
/// KTO: Ethayarajh et al. 2024, arXiv:2402.01306.
pub fn kto(log_ratio: &Tensor, good: &Tensor, weights: &Tensor, kl: &Tensor, beta: f32) -> Tensor {
    let one = ops::full(good.device(), 1.0, [1]);
    let sign = ops::sub(&ops::scale(good, 2.0), &one);
    let gain = ops::sigmoid(&ops::scale(&ops::mul(&ops::sub(log_ratio, &kl.detach()), &sign), beta));
    ops::mul(weights, &ops::sub(&one, &gain))
}

/// The term of each pair [P] by the odds of its answers, whose mean log-probabilities these are: -ln sigmoid(ln odds(chosen) -
/// ln odds(rejected)), odds(p) = p / (1 - p). ORPO: Hong et al. 2024, arXiv:2403.07691.
pub fn odds_ratio(chosen: &Tensor, rejected: &Tensor) -> Tensor {
    // What is certain, and whose odds are past all numbers, counts as nearly so.
    let log_odds = |x: &Tensor| {
        let x = clamp(x, -1e30, -1e-7);
        ops::sub(&x, &log_of_rest(&x))
    };
    ops::neg(&log_sigmoid(&ops::sub(&log_odds(chosen), &log_odds(rejected))))
}

/// ln(1 - e^x) for x < 0, as ln tanh(-x/2) + ln(1 + e^x), which loses no digits near 0.
fn log_of_rest(x: &Tensor) -> Tensor {
    ops::add(&ops::log(&ops::tanh(&ops::scale(x, -0.5))), &ops::softplus(x))
}

/// An estimate of how far a policy is from its reference, token by token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimator {
    /// ln(policy / reference).
    K1,
    /// e^r - 1 - r, r = ln(reference / policy): never below 0, and of less variance.
    K3,
}

impl Estimator {
    /// Of each token's log-probabilities. Schulman 2020, <http://joschu.net/blog/kl-approx.html>.
    pub fn of(self, policy: &Tensor, reference: &Tensor) -> Tensor {
        match self {
            Estimator::K1 => ops::sub(policy, reference),
            Estimator::K3 => {
                let r = ops::sub(reference, policy);
                ops::sub(&ops::sub(&ops::exp(&r), &ops::full(r.device(), 1.0, [1])), &r)
            }
        }
    }
}

#[cfg(test)]
#[path = "loss_tests.rs"]
mod tests;
