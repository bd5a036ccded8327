//! Rotary position embedding: its configuration, and the frequencies that each scaling gives.
//!
//! Rotary embedding: Su et al., 2021, <https://arxiv.org/abs/2104.09864>. The scalings follow
//! `modeling_rope_utils.py` of transformers, the reference that models are published against.

use std::f64::consts::PI;

use serde_json::{Map, Value, json};

use super::json::Object;
use crate::error::Result;

/// How positions become rotations.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// The base of the frequencies: pair `i` turns by `theta^(-2i/head_dim)` a position.
    pub theta: f64,
    /// How the frequencies are stretched past the length that the model was first trained on.
    pub scaling: RopeScaling,
}

/// A way of stretching the frequencies. Every `factor` is the ratio of the new length to the old.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None: `rope_type` is `default`.
    Default,
    /// Position interpolation, <https://arxiv.org/abs/2306.15595>: all frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// A base that grows with the sequence once it is longer than `max_position_embeddings`.
    Dynamic {
        /// The stretch.
        factor: f64,
    },
    /// Llama 3.1: long waves are divided by `factor`, short ones kept, those between blended.
    Llama3 {
        /// The divisor of the long waves.
        factor: f64,
        /// Waves longer than `original_max_position_embeddings / low_freq_factor` are long.
        low_freq_factor: f64,
        /// Waves shorter than `original_max_position_embeddings / high_freq_factor` are short.
        high_freq_factor: f64,
        /// The length that the model was first trained on.
        original_max_position_embeddings: usize,
    },
    /// YaRN, <https://arxiv.org/abs/2309.00071>: interpolation of slow pairs only, and a temperature.
    Yarn(Yarn),
}

/// The parameters of YaRN.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// The stretch.
    pub factor: f64,
    /// The length that the model was first trained on; `max_position_embeddings` where not given.
    pub original_max_position_embeddings: Option<usize>,
    /// What cosine and sine are multiplied with; computed from `factor` where not given.
    pub attention_factor: Option<f64>,
    /// Pairs that turn more often than this over the original length are kept.
    pub beta_fast: f64,
    /// Pairs that turn less often than this are divided by `factor`.
    pub beta_slow: f64,
    /// With `mscale_all_dim`, another way to state `attention_factor` (DeepSeek).
    pub mscale: Option<f64>,
    /// See `mscale`.
    pub mscale_all_dim: Option<f64>,
    /// Whether the bounds of the blend are rounded to whole pairs.
    pub truncate: bool,
}

/// The `head_dim / 2` inverse frequencies (radians a position), and the factor that cosine and sine are
/// multiplied with. `sequence_length` is the longest sequence that will be seen; only
/// [`RopeScaling::Dynamic`] looks at it.
pub fn rope_frequencies(
    rope: &RopeConfig,
    head_dim: usize,
    max_position_embeddings: usize,
    sequence_length: usize,
) -> (Vec<f64>, f64) {
    let plain = frequencies(rope.theta, head_dim);
    match &rope.scaling {
        RopeScaling::Default => (plain, 1.0),
        RopeScaling::Linear { factor } => (plain.iter().map(|f| f / factor).collect(), 1.0),
        RopeScaling::Dynamic { factor } => {
            let dim = head_dim as f64;
            let stretch = sequence_length.max(max_position_embeddings) as f64 / max_position_embeddings as f64;
            let growth = (factor * stretch - (factor - 1.0)).powf(dim / (dim - 2.0));
            (frequencies(rope.theta * growth, head_dim), 1.0)
        }
        &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let scale = |frequency: f64| {
                // How many waves fit into the original length.
                let waves = original_max_position_embeddings as f64 * frequency / (2.0 * PI);
                let kept = (waves - low_freq_factor) / (high_freq_factor - low_freq_factor);
                blend(frequency / factor, frequency, kept)
            };
            (plain.into_iter().map(scale).collect(), 1.0)
        }
        RopeScaling::Yarn(yarn) => {
            let original = yarn.original_max_position_embeddings.unwrap_or(max_position_embeddings) as f64;
            let (low, high) = yarn.blended_pairs(rope.theta, head_dim as f64, original);
            let scale = |(pair, frequency): (usize, f64)| {
                let interpolated = (pair as f64 - low) / (high - low);
                blend(frequency, frequency / yarn.factor, interpolated)
            };
            let scaled = plain.into_iter().enumerate().map(scale).collect();
            (scaled, yarn.attention_factor())
        }
    }
}

fn frequencies(theta: f64, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2).map(|pair| theta.powf(-2.0 * pair as f64 / head_dim as f64)).collect()
}

/// `from` at or below share 0, `to` at or above 1, linear between.
fn blend(from: f64, to: f64, share: f64) -> f64 {
    let share = share.clamp(0.0, 1.0);
    from * (1.0 - share) + to * share
}

impl Yarn {
    /// The pairs between which frequencies go from kept to divided.
    fn blended_pairs(&self, theta: f64, head_dim: f64, original: f64) -> (f64, f64) {
        let pair_that_turns = |rotations: f64| head_dim * (original / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let mut low = pair_that_turns(self.beta_fast);
        let mut high = pair_that_turns(self.beta_slow);
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(head_dim - 1.0));
        // The reference's guard against a division by zero.
        if low == high { (low, high + 0.001) } else { (low, high) }
    }

    fn attention_factor(&self) -> f64 {
        let scale = |weight: f64| {
            if self.factor <= 1.0 { 1.0 } else { 0.1 * weight * self.factor.ln() + 1.0 }
        };
        match (self.attention_factor, self.mscale, self.mscale_all_dim) {
            (Some(given), _, _) => given,
            (None, Some(one), Some(all)) if one != 0.0 && all != 0.0 => scale(one) / scale(all),
            _ => scale(1.0),
        }
    }
}

impl RopeConfig {
    /// Reads either spelling: `rope_parameters`, or `rope_theta` beside `rope_scaling`.
    pub(crate) fn from_config(config: &Object) -> Result<RopeConfig> {
        reject_partial(config)?;
        let outer_theta = config.positive("rope_theta")?;
        let parameters = match config.object("rope_parameters")? {
            Some(parameters) => Some(parameters),
            None => config.object("rope_scaling")?,
        };
        let Some(parameters) = parameters else {
            return Ok(RopeConfig { theta: outer_theta.unwrap_or(10_000.0), scaling: RopeScaling::Default });
        };
        reject_partial(&parameters)?;
        let theta = parameters.positive("rope_theta")?.or(outer_theta);
        Ok(RopeConfig { theta: theta.unwrap_or(10_000.0), scaling: RopeScaling::from_parameters(&parameters)? })
    }

    /// The object that transformers 5 calls `rope_parameters`.
    pub(crate) fn to_parameters(&self) -> Map<String, Value> {
        let mut parameters = self.scaling.to_parameters();
        parameters.insert("rope_theta".into(), json!(self.theta));
        parameters
    }
}

fn reject_partial(keys: &Object) -> Result<()> {
    match keys.positive("partial_rotary_factor")? {
        None | Some(1.0) => Ok(()),
        Some(_) => Err(keys.error("partial_rotary_factor", "1: the whole head is rotated")),
    }
}

impl RopeScaling {
    fn from_parameters(keys: &Object) -> Result<RopeScaling> {
        // Before `rope_type` the key was `type`.
        let key = if keys.get("rope_type").is_none() { "type" } else { "rope_type" };
        let needed = |key: &str| keys.required(key, "a number above 0", keys.positive(key)?);
        Ok(match keys.string(key)?.as_deref() {
            None | Some("default") => RopeScaling::Default,
            Some("linear") => RopeScaling::Linear { factor: needed("factor")? },
            Some("dynamic") => RopeScaling::Dynamic { factor: needed("factor")? },
            Some("llama3") => {
                let length = "original_max_position_embeddings";
                let high_freq_factor = needed("high_freq_factor")?;
                let low_freq_factor = needed("low_freq_factor")?;
                if high_freq_factor <= low_freq_factor {
                    return Err(keys.error("high_freq_factor", "more than `low_freq_factor`"));
                }
                RopeScaling::Llama3 {
                    factor: needed("factor")?,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_position_embeddings: keys.required(length, "a positive integer", keys.size(length)?)?,
                }
            }
            Some("yarn") => RopeScaling::Yarn(Yarn {
                factor: needed("factor")?,
                original_max_position_embeddings: keys.size("original_max_position_embeddings")?,
                attention_factor: keys.positive("attention_factor")?,
                beta_fast: keys.positive("beta_fast")?.unwrap_or(32.0),
                beta_slow: keys.positive("beta_slow")?.unwrap_or(1.0),
                mscale: keys.optional("mscale", "a number", Value::as_f64)?,
                mscale_all_dim: keys.optional("mscale_all_dim", "a number", Value::as_f64)?,
                truncate: keys.bool("truncate")?.unwrap_or(true),
            }),
            Some(_) => {
                return Err(keys.error(key, "one of default, linear, dynamic, llama3, yarn"));
            }
        })
    }

    fn to_parameters(&self) -> Map<String, Value> {
        let parameters = match self {
            RopeScaling::Default => json!({"rope_type": "default"}),
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Dynamic { factor } => json!({"rope_type": "dynamic", "factor": factor}),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
            RopeScaling::Yarn(yarn) => json!({
                "rope_type": "yarn",
                "factor": yarn.factor,
                "original_max_position_embeddings": yarn.original_max_position_embeddings,
                "attention_factor": yarn.attention_factor,
                "beta_fast": yarn.beta_fast,
                "beta_slow": yarn.beta_slow,
                "mscale": yarn.mscale,
                "mscale_all_dim": yarn.mscale_all_dim,
                "truncate": yarn.truncate,
            }),
        };
        match parameters {
            Value::Object(map) => map.into_iter().filter(|(_, value)| !value.is_null()).collect(),
            _ => unreachable!("every arm is an object"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Base 10,000 and heads of 8: pair i turns by 10^-i, which makes every case workable by hand.
    fn scaled(scaling: RopeScaling, sequence_length: usize) -> (Vec<f64>, f64) {
        let rope = RopeConfig { theta: 10_000.0, scaling };
        rope_frequencies(&rope, 8, 100, sequence_length)
    }

    #[track_caller]
    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            // A few roundings of f64 in powf and ln.
            assert!((found / expected - 1.0).abs() < 1e-13, "{found} {expected}");
        }
    }

    #[test]
    fn default_and_linear() {
        assert_close(&scaled(RopeScaling::Default, 1).0, &[1.0, 0.1, 0.01, 0.001]);
        let linear = scaled(RopeScaling::Linear { factor: 4.0 }, 1).0;
        assert_close(&linear, &[0.25, 0.025, 0.0025, 0.00025]);
    }

    #[test]
    fn dynamic_changes_only_sequences_past_the_limit() {
        let dynamic = |length| scaled(RopeScaling::Dynamic { factor: 2.0 }, length).0;
        assert_close(&dynamic(100), &[1.0, 0.1, 0.01, 0.001]);
        // Length 450 of 100: the base grows by (2*4.5 - 1)^(8/6) = 8^(4/3) = 16. Pair i: 160000^(-i/4) = 20^-i.
        assert_close(&dynamic(450), &[1.0, 0.05, 0.0025, 0.000125]);
    }

    #[test]
    fn llama3_keeps_short_waves_divides_long_ones_and_blends() {
        // An original length of 2 pi * 200 holds 200, 20, 2, 0.2 waves, nearly: the length is an integer.
        let (found, factor) = scaled(
            RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 1257,
            },
            1,
        );
        let waves = 1257.0 * 0.01 / (2.0 * PI);
        let kept = (waves - 1.0) / 3.0;
        let blended = (1.0 - kept) * 0.01 / 8.0 + kept * 0.01;
        assert_close(&found, &[1.0, 0.1, blended, 0.001 / 8.0]);
        assert!((kept - 1.0 / 3.0).abs() < 1e-3);
        assert_eq!(factor, 1.0);
    }

    fn yarn() -> Yarn {
        Yarn {
            factor: 4.0,
            original_max_position_embeddings: Some(6283),
            attention_factor: None,
            beta_fast: 32.0,
            beta_slow: 1.0,
            mscale: None,
            mscale_all_dim: None,
            truncate: true,
        }
    }

    #[test]
    fn yarn_blends_between_the_pairs_that_turn_fast_and_slow() {
        // Over 6283 = 2 pi * 1000 positions pair i turns 1000 * 10^-i times: 32 times at i = 1.49, once at
        // i = 3.00 less a hair. Rounded outwards the blend runs from 1 to 3.
        let (found, factor) = scaled(RopeScaling::Yarn(yarn()), 1);
        let half = (0.01 + 0.0025) / 2.0;
        assert_close(&found, &[1.0, 0.1, half, 0.00025]);
        assert_close(&[factor], &[0.1 * 4f64.ln() + 1.0]);

        // Unrounded it begins at log10(1000/32), by the exact length 6283.
        let exact = Yarn { truncate: false, ..yarn() };
        let turns = 6283.0 / (2.0 * PI);
        let (low, high) = ((turns / 32.0).log10(), turns.log10());
        let share = (2.0 - low) / (high - low);
        let found = scaled(RopeScaling::Yarn(exact), 1).0;
        assert_close(&found[2..3], &[0.01 * (1.0 - share) + 0.0025 * share]);
    }

    #[test]
    fn yarn_takes_its_temperature_from_the_first_key_that_is_given() {
        let factor = |yarn| scaled(RopeScaling::Yarn(yarn), 1).1;
        let ln = 4f64.ln();
        let both = Yarn { mscale: Some(1.0), mscale_all_dim: Some(0.5), ..yarn() };
        assert_close(&[factor(both.clone())], &[(0.1 * ln + 1.0) / (0.05 * ln + 1.0)]);
        assert_eq!(factor(Yarn { attention_factor: Some(1.25), ..both }), 1.25);
        assert_eq!(factor(Yarn { factor: 0.5, ..yarn() }), 1.0);
    }
}
