//! Whole steps: training, prefill and decoding of one model, by the code that the other commands run.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use wgtune_engine::Device;
use wgtune_engine::device::Span;
use wgtune_engine::random::Philox;
use wgtune_models::Result;
use wgtune_models::data::batch::{Loader, Options};
use wgtune_models::data::encode::Example;
use wgtune_models::generate::{Generated, Listener, Request, Sampling, generate};
use wgtune_models::peft::lora::{Lora, LoraConfig};
use wgtune_models::peft::{Targets, Tuned};
use wgtune_models::train::schedule::{LearningRate, Schedule};
use wgtune_models::train::sft::Sft;
use wgtune_models::train::trainer::Plan;
use wgtune_models::train::update::{Progress, Turn, step};
use wgtune_models::transformer::{Blueprint, Decoder, load_decoder};

use super::measure::repeat;
use super::results::{Ceilings, Direction, Measurement, title};
use super::workload::normal;

/// Tokens before the first one that decoding is timed at, as in `benches/pytorch.py`.
const PROMPT: usize = 8;

/// Which model takes the steps.
pub struct Subject {
    /// Its folder; without one, weights are random and the shape is SmolLM2-135M's.
    pub directory: Option<PathBuf>,
    pub seed: u64,
}

/// A step to be timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Prefill,
    /// A token of each of so many rows, which wear so many LoRA adapters of all linear layers in turn.
    Decode {
        rows: usize,
        adapters: usize,
    },
    Lora {
        checkpointed: bool,
    },
    LoraWithDropout,
    Full {
        checkpointed: bool,
    },
}

/// The model as a step takes it, kept for the next.
#[derive(Default)]
pub struct Loaded(Option<(bool, Tuned)>);

impl Loaded {
    /// The subject as this step takes it.
    ///
    /// # Errors
    /// What [`Subject::load`] says.
    pub fn of(&mut self, step: Step, subject: &Subject, device: &Device) -> Result<&Tuned> {
        let whole = step.trains_whole();
        // The one before goes first: both may not fit.
        let kept = self.0.take().filter(|(is_whole, _)| *is_whole == whole);
        let loaded = match kept {
            Some(loaded) => loaded,
            None => {
                let bare = Tuned::bare(subject.load(device)?);
                (whole, if whole { bare.requiring_grad() } else { bare })
            }
        };
        Ok(&self.0.insert(loaded).1)
    }
}

/// What one step took.
struct Timing {
    seconds: Vec<f64>,
    /// One step's dispatches.
    spans: Vec<Span>,
    /// Tokens that one step works through.
    tokens: usize,
    peak_tensor_bytes: u64,
}

impl Step {
    pub const ALL: [Step; 10] = [
        Step::Prefill,
        Step::Decode { rows: 1, adapters: 0 },
        Step::Decode { rows: 16, adapters: 0 },
        Step::Decode { rows: 16, adapters: 1 },
        Step::Decode { rows: 16, adapters: 8 },
        Step::Lora { checkpointed: false },
        Step::Lora { checkpointed: true },
        Step::LoraWithDropout,
        Step::Full { checkpointed: false },
        Step::Full { checkpointed: true },
    ];

    pub fn name(self) -> &'static str {
        match self {
            Step::Prefill => "prefill",
            Step::Decode { rows: 1, .. } => "decode",
            Step::Decode { adapters: 0, .. } => "decode, rows together",
            Step::Decode { adapters: 1, .. } => "decode, rows of one adapter",
            Step::Decode { .. } => "decode, rows of eight adapters",
            Step::Lora { checkpointed: false } => "LoRA training step",
            Step::Lora { checkpointed: true } => "LoRA training step, checkpointed",
            Step::LoraWithDropout => "LoRA training step, dropout 0.05",
            Step::Full { checkpointed: false } => "full training step",
            Step::Full { checkpointed: true } => "full training step, checkpointed",
        }
    }

    /// The name in full.
    pub fn title(self, model: &str, tokens: usize) -> String {
        title(model, self.name(), &self.shape(tokens), self.direction())
    }

    /// Whether the model's own parameters are trained.
    fn trains_whole(self) -> bool {
        matches!(self, Step::Full { .. })
    }

    fn shape(self, tokens: usize) -> String {
        match self {
            Step::Decode { rows: 1, .. } => format!("1 token after {PROMPT}"),
            Step::Decode { rows, .. } => format!("{rows} x 1 token after {PROMPT}"),
            _ => format!("1 x {tokens} tokens"),
        }
    }

    fn direction(self) -> Direction {
        if matches!(self, Step::Prefill | Step::Decode { .. }) { Direction::Forward } else { Direction::Both }
    }

    /// Times it.
    ///
    /// # Errors
    /// What the device met, and logits that are not finite.
    pub fn measure(
        self,
        model: &str,
        tuned: &Tuned,
        tokens: usize,
        budget: Duration,
        ceilings: &Ceilings,
    ) -> Result<Measurement> {
        let timing = self.take(tuned, tokens, Some(budget))?;
        let mut measured = Measurement::new(&timing.seconds, &timing.spans, ceilings);
        measured.name = self.name().to_string();
        measured.op = "step".to_string();
        measured.model = model.to_string();
        measured.shape = self.shape(tokens);
        measured.direction = self.direction();
        measured.tokens_per_second = Some(timing.tokens as f64 / measured.seconds.median);
        let kernel_seconds = timing.spans.iter().map(|span| span.seconds).sum::<f64>();
        measured.kernel_seconds = Some(kernel_seconds);
        measured.idle_share = Some((1.0 - kernel_seconds / measured.seconds.median).max(0.0));
        measured.peak_tensor_bytes = Some(timing.peak_tensor_bytes);
        Ok(measured)
    }

    /// How many dispatches it starts.
    ///
    /// # Errors
    /// What the device met.
    pub fn dispatches(self, tuned: &Tuned, tokens: usize) -> Result<usize> {
        Ok(self.take(tuned, tokens, None)?.spans.len())
    }

    /// Takes it for so long, or once.
    fn take(self, tuned: &Tuned, tokens: usize, budget: Option<Duration>) -> Result<Timing> {
        let decoder = &tuned.decoder;
        match self {
            Step::Prefill => prefill(decoder, tokens, budget),
            Step::Decode { rows, adapters } => decode(decoder, rows, adapters, tokens),
            Step::Lora { checkpointed } => training(&with_lora(decoder, 0.0)?, tokens, checkpointed, budget),
            Step::LoraWithDropout => training(&with_lora(decoder, 0.05)?, tokens, false, budget),
            Step::Full { checkpointed } => training(tuned, tokens, checkpointed, budget),
        }
    }
}

impl Subject {
    /// What it is called in results.
    pub fn name(&self) -> String {
        let name = self.directory.as_deref().and_then(|directory| directory.file_name());
        name.map_or("135m".to_string(), |name| name.to_string_lossy().into_owned())
    }

    /// The decoder on a device.
    ///
    /// # Errors
    /// What [`load_decoder`] says.
    pub fn load(&self, device: &Device) -> Result<Decoder> {
        if let Some(directory) = &self.directory {
            return load_decoder(directory, device);
        }
        let mut index = 0;
        Decoder::build(small()?, &mut |_, shape| {
            index += 1;
            let count = shape.iter().product();
            let values = match shape {
                [_] => vec![1.0; count],
                _ => normal(Philox::new(self.seed).stream(index), count).iter().map(|value| 0.02 * value).collect(),
            };
            Ok(device.tensor(&values, shape))
        })
    }
}

/// SmolLM2-135M's shape.
fn small() -> Result<Blueprint> {
    let config = serde_json::json!({
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
        "tie_word_embeddings": true,
        "bos_token_id": 0,
        "eos_token_id": 0,
    });
    Blueprint::from_json("SmolLM2-135M's shape".as_ref(), config)
}

fn ids(decoder: &Decoder, count: usize) -> Vec<u32> {
    let vocabulary = decoder.blueprint().vocab_size as u64;
    (0..count as u64).map(|i| (i * 7919 % vocabulary) as u32).collect()
}

/// So many rows of one prompt, by these models in turn.
fn continued(
    models: &[Tuned],
    rows: usize,
    prompt: &[u32],
    max_new_tokens: usize,
    listener: &mut dyn Listener,
) -> Result<Vec<Generated>> {
    let request = |row: usize| Request {
        model: row % models.len(),
        prompt: prompt.to_vec(),
        max_new_tokens,
        ends: Vec::new(),
        sampling: Sampling::default(),
    };
    generate(models, rows, &mut (0..rows).map(request), listener)
}

/// When the last row's tokens came.
struct Moments {
    last_row: usize,
    moments: Vec<Instant>,
}

impl Listener for Moments {
    fn token(&mut self, row: usize, _: u32) -> Result<bool> {
        if row == self.last_row {
            self.moments.push(Instant::now());
        }
        Ok(true)
    }
}

/// The passage through a prompt, up to its first new token.
fn prefill(decoder: &Decoder, tokens: usize, budget: Option<Duration>) -> Result<Timing> {
    let (device, prompt) = (decoder.device(), ids(decoder, tokens));
    let bare = [Tuned::bare(decoder.clone())];
    let once = || continued(&bare, 1, &prompt, 1, &mut ());
    device.reset_peak();
    let mut timed = || once().map(|generated| generated[0].prefill.as_secs_f64());
    let seconds = budget.map(|budget| repeat(budget, &mut timed)).transpose()?.unwrap_or_default();
    let peak_tensor_bytes = device.memory().peak;
    let (done, spans) = device.profile(once)?;
    done?;
    Ok(Timing { seconds, spans, tokens, peak_tensor_bytes })
}

/// One token of each row after another, behind a short prompt.
fn decode(decoder: &Decoder, rows: usize, adapters: usize, tokens: usize) -> Result<Timing> {
    /// Tokens until times are steady: the first two may compile.
    const WARM_UP: usize = 2;
    let (device, prompt) = (decoder.device(), ids(decoder, PROMPT));
    let lora = |seed: usize| {
        let config = LoraConfig { targets: Targets::AllLinear, ..LoraConfig::default() };
        Lora::begin(config, decoder.clone(), seed as u64)
    };
    let models = match adapters {
        0 => vec![Tuned::bare(decoder.clone())],
        _ => (0..adapters).map(lora).collect::<Result<_>>()?,
    };
    device.reset_peak();
    let mut last = Moments { last_row: rows - 1, moments: Vec::new() };
    continued(&models, rows, &prompt, WARM_UP + tokens.clamp(8, 64), &mut last)?;
    let seconds = last.moments[WARM_UP - 1..].windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    let peak_tensor_bytes = device.memory().peak;
    // What the third token starts is what three start beyond two.
    let spans_of = |new_tokens| -> Result<Vec<Span>> {
        let (done, spans) = device.profile(|| continued(&models, rows, &prompt, new_tokens, &mut ()))?;
        done.map(|_| spans)
    };
    let before = spans_of(2)?.len();
    let spans = spans_of(3)?.split_off(before);
    Ok(Timing { seconds, spans, tokens: rows, peak_tensor_bytes })
}

/// The model with new updates where PEFT puts them by default.
fn with_lora(decoder: &Decoder, dropout: f64) -> Result<Tuned> {
    let config = LoraConfig { alpha: 16.0, dropout, ..LoraConfig::default() };
    Ok(Lora::begin(config, decoder.clone(), 0)?.requiring_grad())
}

/// Forward, backward, clipping and AdamW on one row of tokens.
fn training(model: &Tuned, tokens: usize, checkpoint_blocks: bool, budget: Option<Duration>) -> Result<Timing> {
    let plan = Plan {
        steps: usize::MAX,
        accumulate: 1,
        learning_rate: LearningRate { peak: 1e-6, warmup_steps: 0, total_steps: usize::MAX, schedule: Schedule::Constant },
        weight_decay: 0.0,
        clip: 1.0,
        checkpoint_blocks,
        seed: 0,
        eval_every: 0,
        patience: 0,
        keep_last: false,
        save_every: 0,
        save_after: Duration::ZERO,
    };
    let recipe = Sft { training: row(&model.decoder, tokens), validation: None };
    let mut progress = Progress::new(model, &plan);
    let mut once = || -> Result<(f64, u64)> {
        let begun = Instant::now();
        let metrics = step(&mut [Turn::new(model, &recipe, &plan, &mut progress)])?.remove(0)?;
        Ok((begun.elapsed().as_secs_f64(), metrics.peak_tensor_bytes))
    };
    let runs = budget.map(|budget| repeat(budget, &mut once)).transpose()?.unwrap_or_default();
    let (done, spans) = model.decoder.device().profile(once)?;
    done?;
    let peak_tensor_bytes = runs.iter().map(|(_, peak)| *peak).max().unwrap_or(0);
    Ok(Timing { seconds: runs.into_iter().map(|(seconds, _)| seconds).collect(), spans, tokens, peak_tensor_bytes })
}

fn row(decoder: &Decoder, tokens: usize) -> Loader {
    let ids = ids(decoder, tokens);
    let examples = vec![Example { labels: ids.clone(), ids }];
    Loader::new(examples, Options { batch_size: 1, packing: None, shuffle: false, seed: 0, padding: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_random_model_has_the_shape_that_it_says() {
        let config = small().unwrap();
        let parameters = |config: &Blueprint| {
            let (h, i, kv) = (config.hidden_size, config.intermediate_size, config.num_key_value_heads * config.head_dim);
            config.vocab_size * h + config.num_hidden_layers * (2 * h * h + 2 * kv * h + 3 * i * h + 2 * h) + h
        };
        // As the model's own page counts them.
        assert_eq!(parameters(&config), 134_515_008);
    }
}
