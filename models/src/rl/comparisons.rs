//! Answers to one prompt that somebody ranked, in batches of all pairs.

use wgtune_engine::{Device, Tensor, ops};

use super::reference::Referred;
use crate::data::batch::Batch;
use crate::data::encode::{Encoder, Example, Report};
use crate::data::order::Order;
use crate::data::rows::{Content, Dataset, Row};
use crate::error::Result;
use crate::train::pass::Lesson;
use crate::transformer::Rows;

/// Answers to one prompt, the best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Each behind the prompt; two of them at least are not the same.
    pub answers: Vec<Example>,
    /// By how much the scores of any two differ at least.
    pub margin: f64,
}

impl Comparison {
    /// Those of which the first is better than the second.
    fn pairs(&self) -> Vec<[usize; 2]> {
        let all = (0..self.answers.len()).flat_map(|one| (one + 1..self.answers.len()).map(move |other| [one, other]));
        all.filter(|[one, other]| self.answers[*one].ids != self.answers[*other].ids).collect()
    }
}

/// By how much the better answers of a row are to be better; 0 where the row does not say.
///
/// # Errors
/// A row that is no comparison.
pub fn margin(dataset: &Dataset, row: &Row) -> Result<f64> {
    match row.content {
        Content::Ranked { margin, .. } => Ok(margin),
        _ => {
            let message = "a row without a preference; expected `chosen` and `rejected`, or `answers`".into();
            Err(dataset.error_at(row, message))
        }
    }
}

/// The comparisons of rows of `dataset`. A row with an answer that has no token within the length, or whose answers are all the same,
/// is left out.
///
/// # Errors
/// A row that is no comparison; as [`Encoder::examples`].
pub fn comparisons(encoder: &Encoder, dataset: &Dataset, rows: &[Row]) -> Result<(Vec<Comparison>, Report)> {
    let mut report = Report { rows: rows.len(), ..Report::default() };
    let mut comparisons = Vec::new();
    for row in rows {
        let margin = margin(dataset, row)?;
        let comparison = Comparison { answers: encoder.answers(dataset, row, &mut report)?, margin };
        if comparison.answers.iter().any(|answer| answer.trained_tokens() == 0) {
            report.leave_out(dataset, row);
        } else if comparison.pairs().is_empty() {
            report.alike += 1;
        } else {
            comparisons.push(comparison);
        }
    }
    report.count(comparisons.iter().flat_map(|comparison| &comparison.answers));
    Ok((comparisons, report))
}

/// Hands out the comparisons of a run.
#[derive(Debug, Clone)]
pub struct Comparisons {
    all: Vec<Comparison>,
    order: Order,
    padding: u32,
    /// How likely a reference finds each answer, if that is known.
    reference: Vec<f32>,
    /// Which of all answers is the first of each comparison.
    firsts: Vec<usize>,
}

/// Some comparisons, all pairs of each.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Their answers.
    pub answers: Batch,
    /// How likely the reference finds each, where that is known.
    pub reference: Vec<f32>,
    /// The row of the better answer of each pair.
    pub chosen: Vec<u32>,
    /// That of the other.
    pub rejected: Vec<u32>,
    /// What a pair weighs: those of a comparison come to 1 together.
    pub weights: Vec<f32>,
    /// By how much the scores of each differ at least.
    pub margins: Vec<f32>,
    /// How many comparisons there are.
    pub comparisons: usize,
}

impl Comparisons {
    /// These, so many a batch, in an order of each epoch's own where there is a seed.
    ///
    /// # Panics
    /// If there are none.
    #[track_caller]
    pub fn new(all: Vec<Comparison>, batch_size: usize, seed: Option<u64>, padding: u32) -> Comparisons {
        let order = Order::new(all.len(), batch_size, seed);
        let mut answers = 0;
        let firsts = all.iter().map(|comparison| {
            answers += comparison.answers.len();
            answers - comparison.answers.len()
        });
        Comparisons { firsts: firsts.collect(), order, padding, reference: Vec::new(), all }
    }

    /// All answers.
    pub fn answers(&self) -> impl Iterator<Item = &Example> {
        self.all.iter().flat_map(|comparison| &comparison.answers)
    }

    /// Batches of an epoch.
    pub fn batches_per_epoch(&self) -> usize {
        self.order.batches_per_epoch()
    }

    /// Batch number `index` of the run.
    pub fn batch(&self, index: usize) -> Pairs {
        self.pairs(&self.order.batch(index))
    }

    /// All of them at once.
    pub fn whole(&self) -> Pairs {
        self.pairs(&(0..self.all.len()).collect::<Vec<_>>())
    }

    fn pairs(&self, items: &[usize]) -> Pairs {
        let (mut rows, mut reference) = (Vec::new(), Vec::new());
        let [mut chosen, mut rejected] = [const { Vec::new() }; 2];
        let [mut weights, mut margins] = [const { Vec::new() }; 2];
        for &item in items {
            let (comparison, first) = (&self.all[item], rows.len());
            let pairs = comparison.pairs();
            for [better, other] in &pairs {
                chosen.push((first + better) as u32);
                rejected.push((first + other) as u32);
                weights.push(1.0 / pairs.len() as f32);
                margins.push(comparison.margin as f32);
            }
            rows.extend(comparison.answers.iter().map(|answer| vec![answer]));
            let of_all = self.firsts[item]..self.firsts[item] + comparison.answers.len();
            reference.extend(self.reference.get(of_all).unwrap_or_default());
        }
        let answers = Batch::of_rows(&rows, self.padding);
        Pairs { answers, reference, chosen, rejected, weights, margins, comparisons: items.len() }
    }

    /// The batches of an epoch, for what was held out.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = Pairs> {
        (0..self.batches_per_epoch()).map(|index| self.batch(index))
    }
}

impl Referred for Comparisons {
    fn examples(&self) -> Vec<&Example> {
        self.answers().collect()
    }

    fn refer(&mut self, log_probs: Vec<f32>) {
        self.reference = log_probs;
    }
}

impl Pairs {
    /// What is given of each answer [R], of the better and of the other one of each pair [P].
    pub fn sides(&self, of_answers: &Tensor) -> [Tensor; 2] {
        let column = of_answers.reshape([self.answers.rows, 1]);
        let side = |rows: &[u32]| {
            let rows = column.device().tensor_u32(rows, [rows.len()]);
            ops::gather(&column, &rows).reshape([rows.elements()])
        };
        [side(&self.chosen), side(&self.rejected)]
    }

    /// The sum over comparisons of what is given of their pairs [P].
    pub fn sum(&self, of_pairs: &Tensor) -> Tensor {
        ops::sum(&ops::mul(of_pairs, &self.of_pairs(of_pairs.device(), &self.weights)))
    }

    /// The mean over comparisons of how many tokens their better answers have, of all answers' lengths.
    pub fn chosen_tokens(&self, lengths: &[usize]) -> f32 {
        let tokens = self.chosen.iter().zip(&self.weights).map(|(&row, weight)| weight * lengths[row as usize] as f32);
        tokens.sum::<f32>() / self.comparisons as f32
    }

    /// A number for each pair [P].
    pub fn of_pairs(&self, device: &Device, numbers: &[f32]) -> Tensor {
        device.tensor(numbers, [numbers.len()])
    }

    /// How the reference finds each answer [R].
    ///
    /// # Panics
    /// If that is not known.
    #[track_caller]
    pub fn reference(&self, device: &Device) -> Tensor {
        device.tensor(&self.reference, [self.answers.rows])
    }
}

impl Lesson for Pairs {
    fn rows(&self) -> Rows<'_> {
        self.answers.rows()
    }

    fn tokens(&self) -> usize {
        self.answers.tokens()
    }

    fn targets(&self) -> usize {
        self.comparisons
    }

    fn trained_tokens(&self) -> usize {
        self.answers.trained_tokens()
    }
}
