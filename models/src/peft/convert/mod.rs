//! Other ways of tuning, and sums of them, as one LoRA.

mod truncated;

use std::collections::BTreeMap;

use wgtune_engine::{Device, Tensor, ops};

use super::lora::{Lora, LoraConfig, check_rank};
use super::sum::Difference;
use super::targets::{Targets, is_or_ends_in};
use super::{Tuned, WeightedSum};
use crate::error::{Error, Result};
use truncated::{Factors, Vectors, nearest, vectors};

/// A LoRA made of something else, and how far off it is.
pub struct Converted {
    /// The LoRA on its base.
    pub tuned: Tuned,
    /// The rank of each layer.
    pub ranks: BTreeMap<String, usize>,
    /// |D - B A| / |D| over all layers, in Frobenius' norm, where D is how the weights differ.
    pub error: f64,
    /// The same of the layer where it is largest.
    pub worst: (String, f64),
    /// Parameters that differ, and that a LoRA cannot hold: norms, biases, embeddings.
    pub left_out: Vec<String>,
}

/// One LoRA of a sum, scaled by 1. A layer whose difference is a product of thin matrices, as those of LoRAs are, keeps it: ranks
/// add up, to a layer's width at most. With a rank, each layer has the nearest product of that rank, or of its own where that is less.
/// `told` is called before each parameter.
///
/// # Errors
/// A rank above a layer's width; none where a difference is no product; a sum that changes no layer; a device that failed; what `told`
/// returns.
pub fn to_lora(sum: &WeightedSum, base: &str, rank: Option<usize>, told: &mut dyn FnMut() -> Result<()>) -> Result<Converted> {
    let embedding = format!("{}.weight", sum.base().embedding().path);
    let linears: Vec<&str> = sum.base().linears().map(|layer| layer.path.as_str()).collect();
    let (mut layers, mut left_out) = (BTreeMap::new(), Vec::new());
    for (name, parameter) in sum.base().parameters() {
        told()?;
        let path = name.strip_suffix(".weight").unwrap_or_default();
        let is_embedding = name == embedding;
        let update = match sum.difference(&name, parameter) {
            None => continue,
            Some(Difference::Product(product)) => Update::of_product(path, product, is_embedding, rank)?,
            Some(Difference::Whole(difference)) if linears.contains(&path) => Update::of_whole(path, &difference, rank)?,
            Some(Difference::Whole(difference)) => {
                if difference.to_vec()?.iter().any(|value| *value != 0.0) {
                    left_out.push(name);
                }
                continue;
            }
        };
        if update.square > 0.0 {
            layers.insert(path.to_string(), update);
        }
    }
    let relative = |update: &Update| (update.square_off / update.square).sqrt();
    let worst = layers.iter().map(|(path, update)| (path.clone(), relative(update)));
    let Some(worst) = worst.max_by(|(_, a), (_, b)| a.total_cmp(b)) else {
        return Err(Error::Data { message: "no layer differs from the base's: expected one that a LoRA can hold".into() });
    };
    let total = |of: fn(&Update) -> f64| layers.values().map(of).sum::<f64>();
    let error = (total(|update| update.square_off) / total(|update| update.square)).sqrt();
    let ranks: BTreeMap<String, usize> = layers.iter().map(|(path, update)| (path.clone(), update.a.size(0))).collect();
    let all: Vec<&str> = linears.into_iter().chain([sum.base().embedding().path.as_str()]).collect();
    let factors = layers.into_iter().map(|(path, update)| (path, [update.a, update.b])).collect();
    let tuned = Lora::of(config(&ranks, &all, base), sum.base().clone(), &factors)?;
    Ok(Converted { tuned, ranks, error, worst, left_out })
}

/// A layer's factors, and the squares of Frobenius' norm of its difference, and of what they are off by.
struct Update {
    a: Tensor,
    b: Tensor,
    square: f64,
    square_off: f64,
}

impl Update {
    fn of_product(path: &str, [left, right]: [Tensor; 2], is_embedding: bool, rank: Option<usize>) -> Result<Update> {
        let (shape, device) = ([left.size(0), right.size(1)], left.device());
        rank.map_or(Ok(()), |rank| check_rank(path, rank, shape))?;
        let known = Factors { left: vectors(&left.transpose())?, right: vectors(&right)? };
        let most = rank.unwrap_or(shape[0].min(shape[1]));
        let kept = if known.left.len() > most { known.truncated(most) } else { known.clone() };
        let (left, right) = (rounded(&kept.left), rounded(&kept.right));
        let square_off = known.minus(&Factors { left: left.clone(), right: right.clone() }).square();
        let (columns, rows) = (tensor(device, &left, shape[0]), tensor(device, &right, shape[1]));
        // The weight of an embedding is [inputs, outputs].
        let [a, b] = if is_embedding { [columns, rows] } else { [rows, columns] };
        Ok(Update { a, b: ops::copy(&b.transpose()), square: known.square(), square_off })
    }

    fn of_whole(path: &str, difference: &Tensor, rank: Option<usize>) -> Result<Update> {
        let shape = [difference.size(0), difference.size(1)];
        let Some(rank) = rank else {
            let message = format!("the difference of {path} is no product of thin matrices: expected a rank to cut it to");
            return Err(Error::Data { message });
        };
        check_rank(path, rank, shape)?;
        let Factors { left, right } = nearest(difference, rank)?;
        let device = difference.device();
        let [a, b] = [tensor(device, &right, shape[1]), ops::copy(&tensor(device, &left, shape[0]).transpose())];
        let square =
            |tensor: &Tensor| -> Result<f64> { Ok(tensor.to_vec()?.iter().map(|&value| f64::from(value).powi(2)).sum()) };
        let square_off = square(&ops::sub(difference, &ops::matmul(&b, &a)))?;
        Ok(Update { a, b, square: square(difference)?, square_off })
    }
}

/// As f32 holds them.
fn rounded(vectors: &Vectors) -> Vectors {
    vectors.iter().map(|vector| vector.iter().map(|value| f64::from(*value as f32)).collect()).collect()
}

fn tensor(device: &Device, vectors: &Vectors, length: usize) -> Tensor {
    let values: Vec<f32> = vectors.iter().flatten().map(|value| *value as f32).collect();
    device.tensor(&values, [vectors.len(), length])
}

/// A LoRA of these ranks, scaled by 1; `all` are the layers that there are.
fn config(ranks: &BTreeMap<String, usize>, all: &[&str], base: &str) -> LoraConfig {
    let rank = ranks.values().copied().max().unwrap_or_default();
    let rank_pattern = rank_pattern(ranks, rank);
    LoraConfig {
        rank,
        alpha: rank as f64,
        targets: targets(ranks, all),
        alpha_pattern: rank_pattern.iter().map(|(name, own)| (name.clone(), *own as f64)).collect(),
        rank_pattern,
        base_model: Some(base.into()),
        ..LoraConfig::default()
    }
}

/// Ranks other than this one, by the last parts of names where all layers of such a part have the same, or else by whole names.
fn rank_pattern(ranks: &BTreeMap<String, usize>, rank: usize) -> BTreeMap<String, usize> {
    let is_alike = |part: &str, own: usize| ranks.iter().all(|(path, rank)| last_part(path) != part || *rank == own);
    let name = |path: &String, own: usize| {
        let part = last_part(path);
        if is_alike(part, own) { part.to_string() } else { path.clone() }
    };
    ranks.iter().filter(|(_, own)| **own != rank).map(|(path, own)| (name(path, *own), *own)).collect()
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The last parts of the layers' names where these name no others, or else whole names.
fn targets(ranks: &BTreeMap<String, usize>, all: &[&str]) -> Targets {
    let mut names: Vec<&str> = ranks.keys().map(|path| last_part(path)).collect();
    names.sort_unstable();
    names.dedup();
    let named = all.iter().filter(|path| names.iter().any(|name| is_or_ends_in(path, name))).count();
    match named == ranks.len() {
        true => Targets::Named(names.into_iter().map(String::from).collect()),
        false => Targets::Named(ranks.keys().cloned().collect()),
    }
}
