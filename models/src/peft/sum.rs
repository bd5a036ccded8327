//! What several tunings of one model come to together.

use std::collections::{BTreeMap, BTreeSet};

use wgtune_engine::{DType, Tensor, ops};

use super::Tuned;
use crate::error::{Error, Result};
use crate::transformer::Decoder;

/// Tunings of one model, each with a weight: a parameter W becomes W + sum_i w_i (W_i - W), where W_i is what the i-th makes of it.
///
/// It is the sum of the updates themselves. PEFT's `add_weighted_adapter` of type `linear` weighs A and B instead, whose product then
/// has a share of every A with every B.
pub struct WeightedSum {
    base: Decoder,
    parts: Vec<Part>,
}

struct Part {
    tuned: Tuned,
    weight: f32,
    /// The decoder's own, by name.
    parameters: BTreeMap<String, Tensor>,
}

/// How a parameter [rows, columns] differs from the base's.
pub(super) enum Difference {
    /// By a product of [rows, rank] and [rank, columns].
    Product([Tensor; 2]),
    /// By this, in f32.
    Whole(Tensor),
}

impl WeightedSum {
    /// Those of a bare model. If one has an output projection of its own where the model's is tied, so has the sum.
    ///
    /// # Errors
    /// A model with other parameters than the base.
    pub fn new(base: Decoder, tunings: Vec<(Tuned, f32)>) -> Result<WeightedSum> {
        let is_tied = tunings.iter().all(|(tuned, _)| tuned.decoder.blueprint().tie_word_embeddings);
        let base = if is_tied { base } else { base.untied() };
        let part = |(tuned, weight): (Tuned, f32)| {
            let decoder = if is_tied { tuned.decoder.clone() } else { tuned.decoder.untied() };
            check_alike(&base, &decoder)?;
            let parameters = decoder.parameters().into_iter().map(|(name, tensor)| (name, tensor.detach())).collect();
            Ok(Part { tuned, weight, parameters })
        };
        let parts = tunings.into_iter().map(part).collect::<Result<_>>()?;
        Ok(WeightedSum { base, parts })
    }

    /// The bare model.
    pub fn base(&self) -> &Decoder {
        &self.base
    }

    /// The model with the sum in its weights, or with what adds to them where that is a single tuning, whole.
    pub fn tuned(&self) -> Tuned {
        match self.single() {
            Some(part) => part.tuned.clone(),
            None => Tuned::bare(self.base.mapped(|name, tensor| self.merged(name, tensor).unwrap_or_else(|| tensor.clone()))),
        }
    }

    /// A parameter of the base with what is added to it, in f32; `None` where nothing is.
    pub fn merged(&self, name: &str, parameter: &Tensor) -> Option<Tensor> {
        match self.single() {
            Some(part) => part.changed(name),
            None => Some(ops::add(&ops::cast(&parameter.detach(), DType::F32), &self.whole(name, parameter)?)),
        }
    }

    /// Whether one of them trained this parameter itself.
    pub fn trains(&self, name: &str) -> bool {
        self.parts.iter().any(|part| part.tuned.method.trains(name))
    }

    /// Whether the differences of all linear layers of blocks are products of thin matrices.
    pub fn is_of_products(&self) -> bool {
        let is_product = |part: &Part, name: &str| part.changed(name).is_none() || part.update(name).is_some();
        let mut names = self.base.linears().map(|layer| format!("{}.weight", layer.path));
        names.all(|name| self.parts.iter().all(|part| is_product(part, &name)))
    }

    /// How a parameter differs from the base's; `None` where nobody changes it.
    pub(super) fn difference(&self, name: &str, parameter: &Tensor) -> Option<Difference> {
        let changing: Vec<&Part> = self.parts.iter().filter(|part| part.changed(name).is_some()).collect();
        let products: Option<Vec<[Tensor; 2]>> = changing.iter().map(|part| part.update(name)).collect();
        match products {
            Some(products) if products.is_empty() => None,
            Some(products) => {
                let side = |side: usize| products.iter().map(|product| &product[side]).collect::<Vec<_>>();
                Some(Difference::Product([ops::cat(&side(0), 1), ops::cat(&side(1), 0)]))
            }
            None => self.whole(name, parameter).map(Difference::Whole),
        }
    }

    fn whole(&self, name: &str, parameter: &Tensor) -> Option<Tensor> {
        let parameter = ops::cast(&parameter.detach(), DType::F32);
        let added = |part: &Part| Some(ops::scale(&ops::sub(&part.changed(name)?, &parameter), part.weight));
        self.parts.iter().filter_map(added).reduce(|sum, added| ops::add(&sum, &added))
    }

    fn single(&self) -> Option<&Part> {
        match &self.parts[..] {
            [part] if part.weight == 1.0 => Some(part),
            _ => None,
        }
    }
}

impl Part {
    /// What it makes of a parameter, in f32; `None` where that is what it was.
    fn changed(&self, name: &str) -> Option<Tensor> {
        let own = &self.parameters[name];
        let whole = || self.tuned.method.trains(name).then(|| ops::cast(own, DType::F32));
        self.tuned.method.merged(name, own).or_else(whole)
    }

    /// The product that it adds to a parameter, weighted, where it adds one and does nothing else.
    fn update(&self, name: &str) -> Option<[Tensor; 2]> {
        let [left, right] = self.tuned.method.update(name)?;
        Some([ops::scale(&left, self.weight), right])
    }
}

fn check_alike(base: &Decoder, other: &Decoder) -> Result<()> {
    let shapes = |decoder: &Decoder| -> BTreeSet<(String, Vec<usize>)> {
        decoder.parameters().into_iter().map(|(name, tensor)| (name, tensor.shape().to_vec())).collect()
    };
    let (own, others) = (shapes(base), shapes(other));
    match own.symmetric_difference(&others).next() {
        None => Ok(()),
        Some(parameter @ (name, shape)) => {
            let who = if own.contains(parameter) { "the base" } else { "the tuned model" };
            let message = format!("`{name}` {shape:?} is in {who} alone: expected models of the same parameters");
            Err(Error::Data { message })
        }
    }
}
