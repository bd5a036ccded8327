//! Losses and advantages of preference optimisation and reinforcement learning against TRL's: the fixture says which of its functions.

use std::path::Path;

use serde_json::Value;
use wgtune_engine::{Device, Tensor, ops};
use wgtune_models::data::IGNORE;
use wgtune_models::data::batch::Batch;
use wgtune_models::data::encode::Example;
use wgtune_models::rl::advantage::{Discount, Spread, of_groups, whiten};
use wgtune_models::rl::loss::{self, Estimator, PAIR_LOSSES};
use wgtune_models::rl::policy::{self, Clip, Objective, POLICY_LOSSES};
use wgtune_models::train::answers::Answers;

use crate::{Check, Outcome};

/// Cases in f64 on the reference device, whose factors are given in f32 (6e-8 of them): within this of 1 + |x|.
const BOUND: f64 = 1e-6;

/// A case of the fixture on a device.
struct Case<'a> {
    json: &'a Value,
    device: Device,
}

/// One check a case. They are of f64, so they run beside those of the CPU alone.
pub fn checks(device: &str) -> Vec<Check> {
    if device != "cpu" {
        return Vec::new();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rl.json");
    let text = std::fs::read_to_string(&path).expect("the fixture is committed");
    let all: Value = serde_json::from_str(&text).expect("the fixture is JSON");
    let cases = all["cases"].as_array().expect("a list of cases").clone();
    let check = |json: Value| {
        let name = format!("rl: {}", json["name"].as_str().unwrap_or_default());
        Check::new(name, move |_| Case { json: &json, device: Device::reference() }.run())
    };
    cases.into_iter().map(check).collect()
}

impl Case<'_> {
    fn run(&self) -> Outcome {
        let name = self.json["name"].as_str().unwrap_or_default();
        match name.split('/').next().unwrap_or_default() {
            "reward" => self.reward(),
            "dpo" => self.dpo(),
            "kto" => self.kto(),
            "orpo" => self.orpo(),
            "gae" => self.gae(),
            "whiten" => self.whiten(),
            "kl" => self.kl(),
            "ppo" if name == "ppo/value" => self.value(),
            "ppo" | "grpo" => self.policy(),
            "advantages" => self.advantages(),
            _ => Err(format!("{name}: expected a case that is known here").into()),
        }
    }

    fn reward(&self) -> Outcome {
        let [chosen, rejected, margin] = ["chosen", "rejected", "margin"].map(|key| self.leaf(key));
        let loss = ops::mean(&loss::reward(&chosen, &rejected, &margin.detach(), self.number("centre") as f32));
        self.differentiated(&loss, &[("chosen", &chosen), ("rejected", &rejected)])
    }

    fn dpo(&self) -> Outcome {
        let name = self.json["options"]["loss"].as_str().unwrap_or_default();
        let of = PAIR_LOSSES.iter().find(|loss| loss.name == name).ok_or(format!("no loss {name}"))?;
        let [chosen, rejected] = ["policy_chosen", "policy_rejected"].map(|key| self.leaf(key));
        let ratio = |policy: &Tensor, side: &str| {
            let ratio = ops::sub(policy, &self.tensor(&format!("reference_{side}")));
            if of.is_mean { ops::div(&ratio, &self.tensor(&format!("lengths_{side}"))) } else { ratio }
        };
        let h = ops::sub(&ratio(&chosen, "chosen"), &ratio(&rejected, "rejected"));
        let mut loss = ops::mean(&(of.of)(&h, self.number("beta") as f32, self.number("label_smoothing") as f32));
        let weight = self.number("sft_weight") as f32;
        if weight > 0.0 {
            let tokens: f64 = self.values("lengths_chosen").iter().sum();
            loss = ops::sub(&loss, &ops::scale(&ops::sum(&chosen), weight / tokens as f32));
        }
        self.differentiated(&loss, &[("policy_chosen", &chosen), ("policy_rejected", &rejected)])
    }

    fn kto(&self) -> Outcome {
        let (policy, good) = (self.leaf("policy"), self.values("labels"));
        let kl = ops::relu(&ops::mean(&ops::sub(&self.tensor("policy_kl"), &self.tensor("reference_kl")))).reshape([1]);
        let [desirable, undesirable] = ["desirable_weight", "undesirable_weight"].map(|key| self.number(key) as f32);
        let weights: Vec<f32> = good.iter().map(|&good| if good > 0.0 { desirable } else { undesirable }).collect();
        let ratio = ops::sub(&policy, &self.tensor("reference"));
        let weights = self.device.tensor(&weights, [weights.len()]);
        let losses = loss::kto(&ratio, &self.tensor("labels"), &weights, &kl, self.number("beta") as f32);
        self.near("kl", &kl.to_vec_f64()?, &[self.output("kl")])?;
        self.differentiated(&ops::mean(&losses), &[("policy", &policy)])
    }

    fn orpo(&self) -> Outcome {
        let [chosen, rejected] = ["policy_chosen_average", "policy_rejected_average"].map(|key| self.leaf(key));
        let loss = ops::scale(&ops::mean(&loss::odds_ratio(&chosen, &rejected)), self.number("beta") as f32);
        self.differentiated(&loss, &[("policy_chosen_average", &chosen), ("policy_rejected_average", &rejected)])
    }

    fn gae(&self) -> Outcome {
        let lambda = self.number("lam");
        let discount = Discount { gamma: self.number("gamma"), policy: lambda, critic: lambda };
        let (mut advantages, mut returns) = (Vec::new(), Vec::new());
        for (rewards, values) in self.rows("rewards").iter().zip(self.rows("values")) {
            let (own, sums) = discount.of(rewards, &values);
            advantages.extend(own);
            returns.extend(sums);
        }
        self.near("advantages", &advantages, &self.packed("advantages"))?;
        self.near("returns", &returns, &self.packed("returns"))
    }

    fn whiten(&self) -> Outcome {
        let mut values = self.rows("values").concat();
        whiten(&mut values, self.json["options"]["shift_mean"] == true);
        self.near("whitened", &values, &self.packed("whitened"))
    }

    fn kl(&self) -> Outcome {
        let estimator = if self.json["options"]["estimator"] == "k1" { Estimator::K1 } else { Estimator::K3 };
        let [policy, reference] = ["log_probs", "reference"].map(|key| self.tokens(key));
        self.near("kl", &estimator.of(&policy, &reference).to_vec_f64()?, &self.packed("kl"))
    }

    fn value(&self) -> Outcome {
        let [values, old, returns] = ["values", "old_values", "returns"].map(|key| self.tokens(key));
        let loss = ops::mean(&policy::value(&values, &old, &returns, self.number("cliprange_value") as f32));
        self.differentiated(&loss, &[("values", &values)])
    }

    /// PPO's policy loss is the first of the table, with one clip and an advantage a token.
    fn policy(&self) -> Outcome {
        let options = &self.json["options"];
        let name = options["loss"].as_str().unwrap_or(POLICY_LOSSES[0].name);
        let of = POLICY_LOSSES.iter().find(|loss| loss.name == name).ok_or(format!("no loss {name}"))?;
        let is_ppo = options["cliprange"].is_number();
        let [low, mut high] = match is_ppo {
            true => [self.number("cliprange"); 2],
            false => ["epsilon_low", "epsilon_high"].map(|key| self.number(key)),
        };
        if name == "cispo" {
            // TRL's is the bound itself.
            high -= 1.0;
        }
        let beta = if is_ppo { 0.0 } else { self.number("beta") as f32 };
        let objective = Objective {
            loss: of,
            clip: Clip { low: low as f32, high: high as f32, dual: 0.0 },
            whole: options["importance_level"] == "sequence",
            beta,
            corrects: options["bias_correction_kl"] == true,
        };
        let lengths = self.lengths();
        let example = |&length: &usize| Example { ids: vec![1; length + 1], labels: [vec![IGNORE], vec![1; length]].concat() };
        let examples: Vec<Example> = lengths.iter().map(example).collect();
        let answers = Answers::of(&Batch::of_rows(&examples.iter().map(|example| vec![example]).collect::<Vec<_>>(), 0));
        let (log_probs, old) = (self.tokens("log_probs"), self.tokens("old"));
        let reference = (beta > 0.0).then(|| self.tokens("reference"));
        let advantages = match is_ppo {
            true => self.tokens("advantages"),
            false => answers.spread(&self.tensor("advantages")),
        };
        let terms = objective.of(&answers, &log_probs, &old, reference.as_ref(), &advantages.detach());
        let (weights, count) = of.share.of(&lengths, options["max_completion_length"].as_u64().unwrap_or(1) as usize);
        let weighed = ops::mul(&terms.losses, &self.device.tensor(&weights, [weights.len()]));
        if let Some(kl) = terms.kl {
            self.near("kl", &[kl.to_vec_f64()?.iter().sum::<f64>() / weights.len() as f64], &[self.output("kl")])?;
        }
        self.differentiated(&ops::scale(&ops::sum(&weighed), 1.0 / count as f32), &[("log_probs", &log_probs)])
    }

    fn advantages(&self) -> Outcome {
        let spread = match self.json["options"]["scale"].as_str() {
            Some("group") => Spread::Group,
            Some("batch") => Spread::Batch,
            _ => Spread::None,
        };
        let (found, flat) = of_groups(&self.values("rewards"), self.number("group") as usize, spread);
        self.near("advantages", &found, &self.list(&self.json["outputs"]["advantages"]))?;
        // TRL's count is by the spread that it divides by.
        match spread {
            Spread::Batch => Ok(()),
            _ => self.near("frac_reward_zero_std", &[flat as f64 / 4.0], &[self.output("frac_reward_zero_std")]),
        }
    }

    /// Holds a loss and its gradients against the fixture's.
    fn differentiated(&self, loss: &Tensor, leaves: &[(&str, &Tensor)]) -> Outcome {
        self.near("loss", &loss.to_vec_f64()?, &[self.output("loss")])?;
        let gradients = loss.backward();
        for (key, leaf) in leaves {
            let found = gradients.get(leaf).ok_or(format!("no gradient of {key}"))?.to_vec_f64()?;
            let expected = self.list(&self.json["gradients"][*key]);
            let expected = if leaf.elements() < expected.len() { self.without_padding(&expected) } else { expected };
            self.near(key, &found, &expected)?;
        }
        Ok(())
    }

    fn near(&self, what: &str, found: &[f64], expected: &[f64]) -> Outcome {
        if found.len() != expected.len() {
            return Err(format!("{what}: {} numbers, expected {}", found.len(), expected.len()).into());
        }
        let is_far = |(found, expected): &(&f64, &f64)| {
            let gap = (**found - **expected).abs();
            gap.is_nan() || gap > BOUND * (1.0 + expected.abs())
        };
        match found.iter().zip(expected).find(is_far) {
            None => Ok(()),
            Some((found, expected)) => Err(format!("{what}: {found}, expected {expected}").into()),
        }
    }

    fn list(&self, json: &Value) -> Vec<f64> {
        json.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    }

    fn number(&self, option: &str) -> f64 {
        self.json["options"][option].as_f64().unwrap_or(f64::NAN)
    }

    fn output(&self, key: &str) -> f64 {
        self.json["outputs"][key].as_f64().unwrap_or(f64::NAN)
    }

    fn values(&self, key: &str) -> Vec<f64> {
        self.list(&self.json["inputs"][key]["values"])
    }

    fn lengths(&self) -> Vec<usize> {
        self.values("lengths").iter().map(|&length| length as usize).collect()
    }

    fn tensor(&self, key: &str) -> Tensor {
        let values: Vec<f32> = self.values(key).iter().map(|&value| value as f32).collect();
        self.device.tensor(&values, [values.len()])
    }

    fn leaf(&self, key: &str) -> Tensor {
        self.tensor(key).requiring_grad()
    }

    /// Rows as long as they are.
    fn rows(&self, key: &str) -> Vec<Vec<f64>> {
        self.of_rows(&self.values(key))
    }

    fn of_rows(&self, values: &[f64]) -> Vec<Vec<f64>> {
        let lengths = self.lengths();
        values.chunks(values.len() / lengths.len()).zip(lengths).map(|(row, length)| row[..length].to_vec()).collect()
    }

    fn without_padding(&self, values: &[f64]) -> Vec<f64> {
        self.of_rows(values).concat()
    }

    fn packed(&self, output: &str) -> Vec<f64> {
        self.without_padding(&self.list(&self.json["outputs"][output]))
    }

    /// What is of each token, without padding, on the tape.
    fn tokens(&self, key: &str) -> Tensor {
        let values: Vec<f32> = self.rows(key).concat().iter().map(|&value| value as f32).collect();
        self.device.tensor(&values, [values.len()]).requiring_grad()
    }
}
