//! Text out: rows that run together, each sampled token by token with the key-value cache.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wgtune_engine::random::Philox;

pub use self::sampling::{Drawn, Sampling, sample};
use crate::error::{Error, Result};
use crate::nn::Tuning;
use crate::peft::{Mixed, Tuned};
use crate::transformer::{Cache, Forward, Row};

mod sampling;

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// A token that ends a text, or what the caller waited for.
    Stop,
    /// As many tokens as were asked for.
    Length,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The new tokens, without the one that ended the text.
    pub ids: Vec<u32>,
    /// The token that ended it, where one did.
    pub end: Option<u32>,
    /// How likely each was among those that could be drawn: ln of its probability at the temperature it was drawn at, the token that
    /// ended the text included.
    pub log_probs: Vec<f32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Time for the prompt and the first token.
    pub prefill: Duration,
    /// Time for all further tokens, and for what ran beside them.
    pub decode: Duration,
}

impl Generated {
    /// Tokens a second after the first; 0 where there is none.
    pub fn tokens_per_second(&self) -> f64 {
        let further = self.ids.len().saturating_sub(1) as f64;
        if further > 0.0 { further / self.decode.as_secs_f64() } else { 0.0 }
    }
}

/// A text to continue, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which of the models continues it.
    pub model: usize,
    /// Its tokens so far, without the virtual ones that it begins with; or with all of these, where they stand elsewhere.
    pub prompt: Vec<u32>,
    /// At most so many new ones.
    pub max_new_tokens: usize,
    /// Tokens that end it.
    pub ends: Vec<u32>,
    /// How tokens are drawn.
    pub sampling: Sampling,
}

/// What is told of requests on the way, each by its place among them. `()` does not listen.
pub trait Listener {
    /// The next token of one. Where this returns `false` it ends, and the token counts.
    ///
    /// # Errors
    /// What ends all of them.
    fn token(&mut self, request: usize, token: u32) -> Result<bool> {
        let _ = (request, token);
        Ok(true)
    }

    /// One has ended so.
    ///
    /// # Errors
    /// What ends all of them.
    fn end(&mut self, request: usize, generated: &Generated) -> Result<()> {
        let _ = (request, generated);
        Ok(())
    }
}

impl Listener for () {}

/// Continues the texts of `requests` by `models`, which are one that is tuned in different ways, or not at all. Of the texts `batch`
/// run together: as one ends, the next takes its place. What comes of them, in their order. What comes of one does not depend on the
/// others, but for the last bits of its logits where more rows are multiplied in another order.
///
/// # Panics
/// Without a model.
///
/// # Errors
/// An empty prompt, a token outside the vocabulary, logits that are not finite, and whatever the device meets.
pub fn generate(
    models: &[Tuned],
    batch: usize,
    requests: &mut dyn Iterator<Item = Request>,
    listener: &mut dyn Listener,
) -> Result<Vec<Generated>> {
    // Dynamic rope turns all rows of a pass by the longest of them, so each runs alone.
    let decoder = &models[0].decoder;
    let batch = if decoder.blueprint().longest_text().is_none() { 1 } else { batch.max(1) };
    let tunings = models.iter().map(|model| model.forward().tuning).collect();
    let cache = Cache::new(decoder.blueprint(), decoder.device());
    let mut scheduler = Scheduler { models, tunings, listener, cache, running: Vec::new(), ended: Vec::new() };
    loop {
        while scheduler.running.len() < batch
            && let Some(request) = requests.next()
        {
            scheduler.admit(request)?;
        }
        if scheduler.running.is_empty() {
            return Ok(scheduler.ended.into_iter().flatten().collect());
        }
        scheduler.advance(0..scheduler.running.len())?;
    }
}

/// Rows that run together: one is admitted with a pass through its prompt, all that run take passes of a token each, and what has
/// ended is retired.
struct Scheduler<'a> {
    models: &'a [Tuned],
    /// Of each model.
    tunings: Vec<Arc<dyn Tuning>>,
    listener: &'a mut dyn Listener,
    cache: Cache,
    /// Those of one model stand together.
    running: Vec<Running>,
    /// Of all requests so far.
    ended: Vec<Option<Generated>>,
}

struct Running {
    /// Its request's place.
    place: usize,
    request: Request,
    random: Philox,
    row: Row,
    /// Virtual tokens, the prompt's, and the new ones.
    history: Vec<u32>,
    begun: Instant,
    generated: Generated,
    has_ended: bool,
}

impl Scheduler<'_> {
    /// A prompt has a pass of its own: it fills the device, its shapes and so its bits are those that it has alone, and nothing is
    /// padded.
    fn admit(&mut self, request: Request) -> Result<()> {
        let model = &self.models[request.model];
        check_prompt(model, &request.prompt)?;
        let row = self.cache.row(&*self.tunings[request.model]);
        let place = self.running.partition_point(|other| other.request.model <= request.model);
        let running = Running::new(self.ended.len(), model.opened(&request.prompt), request, row);
        let has_ended = running.has_ended;
        self.running.insert(place, running);
        self.ended.push(None);
        if has_ended { self.retire() } else { self.advance(place..place + 1) }
    }

    /// Takes some of the rows through what is new of their tokens, and draws the next of each.
    fn advance(&mut self, rows: Range<usize>) -> Result<()> {
        let rows = &mut self.running[rows];
        let groups = rows.chunk_by(|a, b| a.request.model == b.request.model);
        let tuning = Mixed::of(groups.map(|rows| (rows.len(), self.tunings[rows[0].request.model].clone())).collect());
        let forward = Forward { tuning, checkpoint_blocks: false };
        let mut new: Vec<(&mut Row, &[u32])> = Vec::with_capacity(rows.len());
        for Running { row, history, .. } in rows.iter_mut() {
            let tokens = &history[row.tokens()..];
            new.push((row, tokens));
        }
        let input = self.cache.input(&mut new, &*forward.tuning);
        let tokens = input.length();
        let decoder = &self.models[0].decoder;
        let hidden = decoder.hidden(&input, &forward).slice(1, tokens - 1..tokens);
        let mut logits = check_finite(decoder.logits(&hidden).to_vec()?)?;
        let vocabulary = logits.len() / rows.len();
        for (row, logits) in rows.iter_mut().zip(logits.chunks_exact_mut(vocabulary)) {
            row.draw(logits, self.listener)?;
        }
        self.retire()
    }

    fn retire(&mut self) -> Result<()> {
        for row in self.running.extract_if(.., |row| row.has_ended) {
            self.cache.retire(row.row);
            self.listener.end(row.place, &row.generated)?;
            self.ended[row.place] = Some(row.generated);
        }
        Ok(())
    }
}

impl Running {
    fn new(place: usize, history: Vec<u32>, request: Request, row: Row) -> Running {
        let zero = Duration::ZERO;
        Running {
            place,
            random: Philox::new(request.sampling.seed).stream(0x67656e),
            row,
            history,
            begun: Instant::now(),
            generated: Generated {
                ids: Vec::new(),
                end: None,
                log_probs: Vec::new(),
                finish_reason: FinishReason::Length,
                prefill: zero,
                decode: zero,
            },
            has_ended: request.max_new_tokens == 0,
            request,
        }
    }

    /// The next token, by the logits behind the last.
    fn draw(&mut self, logits: &mut [f32], listener: &mut dyn Listener) -> Result<()> {
        let step = self.generated.ids.len();
        let Drawn { token, log_prob } = sample(logits, &self.history, &self.request.sampling, self.random.uniform(step as u64));
        match step {
            0 => self.generated.prefill = self.begun.elapsed(),
            _ => self.generated.decode = self.begun.elapsed() - self.generated.prefill,
        }
        let is_end = self.request.ends.contains(&token);
        self.generated.log_probs.push(log_prob);
        if is_end {
            self.generated.end = Some(token);
        } else {
            self.generated.ids.push(token);
            self.history.push(token);
        }
        let is_stopped = is_end || !listener.token(self.place, token)?;
        if is_stopped {
            self.generated.finish_reason = FinishReason::Stop;
        }
        self.has_ended = is_stopped || step + 1 == self.request.max_new_tokens;
        Ok(())
    }
}

/// Checks that a prompt has tokens, all of the vocabulary but for the model's virtual ones, of which there are all or none.
///
/// # Errors
/// [`Error::Data`] naming the token.
pub fn check_prompt(model: &Tuned, prompt: &[u32]) -> Result<()> {
    let vocabulary = model.decoder.blueprint().vocab_size;
    if prompt.is_empty() {
        return Err(Error::Data { message: "the prompt is empty: expected at least one token".into() });
    }
    let past: Vec<u32> = prompt.iter().copied().filter(|id| *id as usize >= vocabulary).collect();
    let opening = model.opening();
    match past.first() {
        Some(id) if past != opening => {
            let or = if opening.is_empty() { "" } else { ", or all virtual tokens in their order" };
            Err(Error::Data { message: format!("token id {id} of the prompt: expected ids below {vocabulary}{or}") })
        }
        _ => Ok(()),
    }
}

/// The same logits.
///
/// # Errors
/// [`Error::Data`] if one is not finite.
pub fn check_finite(logits: Vec<f32>) -> Result<Vec<f32>> {
    match logits.iter().find(|logit| !logit.is_finite()) {
        Some(logit) => {
            let message = format!("a logit is {logit}; expected a finite number: look at the weights of model and adapter");
            Err(Error::Data { message })
        }
        None => Ok(logits),
    }
}
