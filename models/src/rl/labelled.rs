//! Answers that somebody called good or not, each by itself.

use wgtune_engine::Device;

use super::reference::Referred;
use crate::data::IGNORE;
use crate::data::batch::Batch;
use crate::data::encode::{Encoder, Example, Report};
use crate::data::order::Order;
use crate::data::rows::{Content, Dataset, Row};
use crate::error::Result;
use crate::train::pass::Lesson;
use crate::transformer::Rows;

/// An answer and what it was called.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// The answer behind its prompt.
    pub answer: Example,
    /// Whether it is good.
    pub is_good: bool,
}

/// The answers of rows of `dataset`: those that have a label, and of a comparison the first as good, and the others as not.
///
/// # Errors
/// A row that says neither; as [`Encoder::examples`].
pub fn labelled(encoder: &Encoder, dataset: &Dataset, rows: &[Row]) -> Result<(Vec<Labelled>, Report)> {
    let mut report = Report { rows: rows.len(), ..Report::default() };
    let mut all = Vec::new();
    for row in rows {
        let of_first = match &row.content {
            Content::Labelled { is_good, .. } => *is_good,
            Content::Ranked { .. } => true,
            _ => {
                let message = "a row without a label; expected `label`, or `chosen` and `rejected`".into();
                return Err(dataset.error_at(row, message));
            }
        };
        let answers = encoder.answers(dataset, row, &mut report)?.into_iter().enumerate();
        let answers = answers.map(|(at, answer)| Labelled { answer, is_good: of_first && at == 0 });
        let learnt = all.len();
        all.extend(answers.filter(|labelled| labelled.answer.trained_tokens() > 0));
        if all.len() == learnt {
            report.leave_out(dataset, row);
        }
    }
    report.count(all.iter().map(|labelled| &labelled.answer));
    Ok((all, report))
}

/// Hands out the answers of a run, each beside one that belongs to another prompt.
#[derive(Debug, Clone)]
pub struct Labels {
    all: Vec<Labelled>,
    /// The prompt of each with the answer of the next one that has another prompt.
    strangers: Vec<Example>,
    order: Order,
    padding: u32,
    /// How likely a reference finds each of the examples, if that is known.
    reference: Vec<f32>,
}

/// Some answers, and as many that belong to other prompts.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The answers, then the others.
    pub answers: Batch,
    /// How likely the reference finds each.
    pub reference: Vec<f32>,
    /// Whether each of the first half is good: 1 or 0.
    pub good: Vec<f32>,
    /// Which share of all answers is good, and which is not.
    pub shares: [f32; 2],
}

impl Labels {
    /// These, so many a batch, in an order of each epoch's own where there is a seed; no example is longer than `max_length`.
    ///
    /// # Panics
    /// If there are none.
    #[track_caller]
    pub fn new(all: Vec<Labelled>, batch_size: usize, seed: Option<u64>, padding: u32, max_length: usize) -> Labels {
        let order = Order::new(all.len(), batch_size, seed);
        let strangers = (0..all.len()).map(|at| stranger(&all, at, max_length)).collect();
        Labels { all, strangers, order, padding, reference: Vec::new() }
    }

    /// How many answers are good, and how many are not.
    pub fn counts(&self) -> [usize; 2] {
        let good = self.all.iter().filter(|labelled| labelled.is_good).count();
        [good, self.all.len() - good]
    }

    /// Batches of an epoch.
    pub fn batches_per_epoch(&self) -> usize {
        self.order.batches_per_epoch()
    }

    /// Batch number `index` of the run.
    pub fn batch(&self, index: usize) -> Judged {
        let items = self.order.batch(index);
        let answers = items.iter().map(|&item| vec![&self.all[item].answer]);
        let rows: Vec<Vec<&Example>> = answers.chain(items.iter().map(|&item| vec![&self.strangers[item]])).collect();
        let places = items.iter().copied().chain(items.iter().map(|item| self.all.len() + item));
        Judged {
            answers: Batch::of_rows(&rows, self.padding),
            reference: places.filter_map(|place| self.reference.get(place).copied()).collect(),
            shares: self.counts().map(|count| count as f32 / self.all.len() as f32),
            good: items.iter().map(|&item| f32::from(u8::from(self.all[item].is_good))).collect(),
        }
    }

    /// The batches of an epoch, for what was held out.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = Judged> {
        (0..self.batches_per_epoch()).map(|index| self.batch(index))
    }
}

impl Referred for Labels {
    /// All answers, and then those that belong to other prompts.
    fn examples(&self) -> Vec<&Example> {
        self.all.iter().map(|labelled| &labelled.answer).chain(&self.strangers).collect()
    }

    fn refer(&mut self, log_probs: Vec<f32>) {
        self.reference = log_probs;
    }
}

/// The prompt of one answer with another's tokens behind it.
fn stranger(all: &[Labelled], at: usize, max_length: usize) -> Example {
    let cut = |example: &Example| example.labels.iter().position(|&label| label != IGNORE).unwrap_or(example.ids.len());
    let own = &all[at].answer;
    let prompt = &own.ids[..cut(own)];
    let others = (1..all.len()).map(|step| &all[(at + step) % all.len()].answer);
    let other = others.into_iter().find(|other| other.ids[..cut(other)] != *prompt).unwrap_or(own);
    let mut ids = [prompt, &other.ids[cut(other)..]].concat();
    let mut labels = [&own.labels[..prompt.len()], &other.labels[cut(other)..]].concat();
    ids.truncate(max_length);
    labels.truncate(max_length);
    Example { ids, labels }
}

impl Judged {
    /// How many answers there are, strangers not counted.
    pub fn count(&self) -> usize {
        self.good.len()
    }

    /// A number for each answer.
    pub fn of_answers(&self, device: &Device, numbers: &[f32]) -> wgtune_engine::Tensor {
        device.tensor(numbers, [numbers.len()])
    }
}

impl Lesson for Judged {
    fn rows(&self) -> Rows<'_> {
        self.answers.rows()
    }

    fn tokens(&self) -> usize {
        self.answers.tokens()
    }

    fn targets(&self) -> usize {
        self.count()
    }

    fn trained_tokens(&self) -> usize {
        self.answers.trained_tokens()
    }
}
