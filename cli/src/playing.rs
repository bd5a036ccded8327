//! What commands share that learn from a policy's own answers.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use wgtune_engine::Device;
use wgtune_models::data::prompts::{Asked, Prompt, asked};
use wgtune_models::data::rows::{Content, Dataset, Format, Row};
use wgtune_models::data::split::split;
use wgtune_models::error::Error;
use wgtune_models::formats::chat_template::ChatTemplate;
use wgtune_models::model::Model;
use wgtune_models::peft::{self, CONFIG_FILE, Tuned};
use wgtune_models::rl::player::Player;
use wgtune_models::rl::rollout::{Rewards, Scorer};
use wgtune_models::rl::scorers::{RewardModel, Rule};
use wgtune_models::train::recipe::Recipe;
use wgtune_models::transformer::Decoder;
use wgtune_models::wording::counted;

use crate::common::{Force, Outcome, note, on_interrupt};
use crate::config::Given;
use crate::data::Coder;
use crate::drawing::Drawing;
use crate::learning::{Learning, Prepared, note_validation, trains_own};
use crate::numbers::{List, above_zero, number_list, whole};
use crate::program::Program;
use crate::report::Report;
use crate::runs;
use crate::tuning::Tuning;

/// What answers, what is asked, and what says how good the answers are.
#[derive(Args)]
pub struct Playing {
    #[command(flatten)]
    pub learning: Learning,
    #[command(flatten)]
    rewards: RewardArguments,
    /// Answers that are drawn before any is learnt from [default: four times those of an update]
    #[arg(long, value_parser = whole(1..=1_048_576), value_name = "ANSWERS")]
    rollouts: Option<usize>,
    #[command(flatten)]
    drawing: Drawing,
}

const RULES_HELP: &str = r#"Reward answers by a rule (can be given again):

  regex=EXPRESSION  1 where it is found in the answer
  length            the answer's tokens
  length=TOKENS     how far the answer's length is from this, in it, below 0
  json              1 where the answer is JSON
  exact             1 where the answer is the row's completion
  number            1 where the last number is that of the row's completion
  classifier=DIR    how likely a classifier with one label calls it so: the sigmoid of a reward model's score"#;

const PROGRAM_HELP: &str = r#"Reward answers by a program, a command line for the shell. It reads a JSON line for each answer,

  {"id": 0, "prompt": "2 and 2 is", "completion": " 4", "expected": " 4"}

and writes one back: a number, or {"score": number}, in the same order; or with the "id" of the
question, {"id": 0, "score": 1}, in any. One that ends, takes longer than
--reward-seconds for an answer or says anything else is started again, once. One that writes
through a buffer, as Python does, has to flush it after each line: print(score, flush=True)."#;

/// What says how good answers are.
#[derive(Args)]
struct RewardArguments {
    /// Reward answers by a reward model, or by the adapter of one on --model (can be given again)
    #[arg(long, value_name = "DIR")]
    reward_model: Vec<PathBuf>,
    /// Reward answers by a rule (can be given again): regex=EXPRESSION, length, json, exact, number, classifier=DIR
    #[arg(long, value_name = "RULE", long_help = RULES_HELP)]
    reward_rule: Vec<String>,
    /// Reward answers by a program that reads and writes JSON lines
    #[arg(long, value_name = "COMMAND", long_help = PROGRAM_HELP)]
    reward_program: Option<String>,
    /// How long the program may take for an answer [default: 30]
    #[arg(long, value_parser = above_zero, value_name = "SECONDS")]
    reward_seconds: Option<f64>,
    /// What each of these weighs, in this order: models, rules, program [default: 1 each]
    #[arg(long, value_name = "WEIGHT,…", value_parser = number_list)]
    reward_weights: Option<List>,
}

/// The forms that prompts are taken of first.
pub const PROMPTS: &[Format] = &[Format::Preference, Format::Ranked, Format::Prompt];

/// What a rule begins with that is a reward model.
pub const CLASSIFIER: &str = "classifier=";

/// What sets one such command apart.
pub struct Play {
    /// Its learning rate unless given, in that of supervised tuning by the same method.
    pub rate: f64,
    /// Answers to each prompt.
    pub each: usize,
    /// How often a phase's answers are gone through.
    pub epochs: usize,
}

/// What a recipe is made of.
pub struct Stage<'a> {
    pub player: Player,
    /// What the policy is not to leave.
    pub reference: Tuned,
    pub base: &'a Model,
    /// The bare model, of which nothing is trained by another.
    pub own: &'a dyn Fn() -> wgtune_models::Result<Decoder>,
    pub tuning: &'a Tuning,
    pub checkpoint_blocks: bool,
    pub seed: u64,
}

impl Playing {
    /// Trains and writes the result.
    pub fn run<R: Recipe>(
        &self,
        given: &Given,
        kind: &Play,
        make: impl FnOnce(Stage) -> Result<R, runs::Failure>,
    ) -> Result<Report, runs::Failure> {
        let Learning { source, conversations, tuning, training, compute, .. } = &self.learning;
        self.learning.check_folders(&self.rewards.reward_model.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        self.check_options(kind)?;
        let at_once = self.prompts_of_a_phase(kind)?;
        let base = Model::open(&self.learning.model)?;
        let max_length = training.length.of(base.blueprint())?;
        let device = compute.open()?;
        let weights = base.hash_weights()?;
        let bare = base.load(&device)?.decoder;
        let model = tuning.begin(&base, bare.clone(), compute.seed)?;
        // What is trained of the model itself moves, and whatever else reads it needs its own.
        let trains_own = trains_own(&model);
        let own = || if trains_own { Ok(base.load(&device)?.decoder) } else { Ok(bare.clone()) };
        let still = own()?;
        let dataset = source.read_wanting(model.template.as_deref(), PROMPTS)?;
        let coder = Coder::open(&base, Some(&model), &dataset, conversations, max_length)?;
        let encoder = coder.encoder();
        let room = max_length.saturating_sub(self.drawing.max_new_tokens);
        let prompts = |rows: &[Row]| -> wgtune_models::Result<Vec<Prompt>> {
            let all = rows.iter().map(|row| encoder.prompt(&dataset, row)).collect::<wgtune_models::Result<Vec<_>>>()?;
            Ok(all.into_iter().filter(|prompt| model.positions(&prompt.ids) <= room).collect())
        };
        let (rows, held_rows) = split(dataset.rows.clone(), training.held_out(), compute.seed)?;
        let (prompts, held_out, asked) = (prompts(&rows)?, prompts(&held_rows)?, rows.len());
        note_validation(held_rows.len(), held_out.len());
        if prompts.len() < asked {
            note(format!(
                "{} left out: no room for {} behind them",
                counted(asked - prompts.len(), "prompt"),
                self.drawing.max_new_tokens
            ));
        }
        if prompts.is_empty() {
            return Err(self.no_room(max_length).into());
        }
        let (rewards, of_rewards) = self.rewards.open(&base, &still, &device, self, &[&prompts, &held_out])?;
        let tokenizer = base.tokenizer()?;
        let hashes = [
            Some(("model", base.fingerprint(&weights))),
            tuning.hash()?,
            Some(("data", dataset.fingerprint())),
            (!of_rewards.is_empty()).then(|| ("rewards", wgtune_models::hash::xxh3(of_rewards))),
        ];
        let player = Player {
            prompts,
            held_out,
            at_once,
            shuffles: !training.no_shuffle,
            each: kind.each,
            epochs: kind.epochs,
            batch_size: training.batch_size,
            accumulate: training.accumulate,
            sampler: self.drawing.sampler(base.ends(Some(&tokenizer))),
            rewards: RefCell::new(rewards),
            padding: coder.padding(),
            opening: model.opening(),
            vocabulary: base.blueprint().vocab_size,
            seed: compute.seed,
            phase: None,
            seconds: None,
            tokenizer,
        };
        let reference = match &tuning.adapter {
            Some(_) => tuning.begin(&base, still, compute.seed)?.detach(),
            None => Tuned::bare(still),
        };
        let recipe = make(Stage {
            player,
            reference,
            base: &base,
            own: &own,
            tuning,
            checkpoint_blocks: training.checkpoint_blocks,
            seed: compute.seed,
        })?;
        let prepared =
            Prepared { base: &base, weights: &weights, max_length, model, recipe, rate: kind.rate, hashes: hashes.into() };
        self.learning.train(given, prepared)
    }

    /// Checks that options go together.
    pub fn check_options(&self, kind: &Play) -> Outcome {
        if self.learning.conversations.last_turn_only {
            return Err(
                "--last-turn-only is of answers that are given, and here the model answers: expected no such option".into()
            );
        }
        self.prompts_of_a_phase(kind)?;
        self.rewards.check()?;
        // One that a stage before makes is not there yet.
        if self.learning.model.exists() {
            let longest = self.learning.training.length.of(Model::open(&self.learning.model)?.blueprint())?;
            if self.drawing.max_new_tokens >= longest {
                return Err(self.no_room(longest).into());
            }
        }
        self.learning.check_options()
    }

    /// Checks that rows have prompts, and what rules compare answers with.
    pub fn check_rows(&self, dataset: &Dataset) -> wgtune_models::Result<()> {
        let rules: Vec<Rule> = self.rewards.reward_rule.iter().filter_map(|text| Rule::parse(text).ok()).collect();
        for row in &dataset.rows {
            let content = if let Content::Ranked { answers, .. } = &row.content { &answers[0] } else { &row.content };
            let Some(Asked { prompt: given, answer }) = asked(content) else { continue };
            let prompt = Prompt { ids: Vec::new(), given, expected: Some(answer).filter(|answer| !answer.is_empty()) };
            for rule in &rules {
                rule.check(&prompt).map_err(|message| dataset.error_at(row, format!("a rule {message}")))?;
            }
        }
        Ok(())
    }

    fn no_room(&self, longest: usize) -> String {
        let new = self.drawing.max_new_tokens;
        format!("no prompt leaves room for {new} new tokens within {longest}: expected shorter ones, or another --max-new-tokens")
    }

    /// Prompts of a phase, whose answers must come to whole updates.
    fn prompts_of_a_phase(&self, kind: &Play) -> Result<usize, String> {
        let of_an_update = self.learning.training.batch_size * self.learning.training.accumulate;
        let rollouts = self.rollouts.unwrap_or(4 * of_an_update);
        if !rollouts.is_multiple_of(of_an_update) {
            return Err(format!(
                "--rollouts is {rollouts}: expected a multiple of the answers of an update, --batch-size times --accumulate, {of_an_update}"
            ));
        }
        if !rollouts.is_multiple_of(kind.each) {
            return Err(format!("--rollouts is {rollouts}: expected a multiple of --answers, {}", kind.each));
        }
        Ok(rollouts / kind.each)
    }
}

impl RewardArguments {
    /// How many say how good an answer is.
    fn count(&self) -> usize {
        self.reward_model.len() + self.reward_rule.len() + usize::from(self.reward_program.is_some())
    }

    /// Checks that options go together, and what rules say.
    fn check(&self) -> Result<(), String> {
        for text in self.reward_rule.iter().filter(|text| !text.starts_with(CLASSIFIER)) {
            Rule::parse(text).map_err(|expected| format!("--reward-rule {text:?}: {expected}, classifier=DIR"))?;
        }
        if self.count() == 0 {
            return Err("nothing says how good an answer is: expected --reward-model, --reward-rule or --reward-program".into());
        }
        if let Some(List(weights)) = self.reward_weights.as_ref().filter(|list| list.0.len() != self.count()) {
            let (found, count) = (counted(weights.len(), "number"), self.count());
            return Err(format!("--reward-weights has {found}: expected {count}, one for each reward"));
        }
        if self.reward_seconds.is_some() && self.reward_program.is_none() {
            return Err("--reward-seconds is of a program: expected --reward-program too".into());
        }
        Ok(())
    }

    /// What is asked, and hashes of it.
    fn open(
        &self,
        base: &Model,
        bare: &Decoder,
        device: &Device,
        playing: &Playing,
        prompts: &[&Vec<Prompt>],
    ) -> Result<(Rewards, Vec<String>), runs::Failure> {
        let longest = prompts.iter().flat_map(|prompts| prompts.iter()).map(|prompt| prompt.ids.len()).max().unwrap_or(0);
        let opening = Opening {
            base,
            bare,
            device,
            template: playing.learning.conversations.template.open(base)?,
            force: &playing.learning.tuning.force,
            batch_size: playing.learning.training.batch_size,
            tokens: longest + playing.drawing.max_new_tokens,
        };
        let mut hashes = Vec::new();
        let mut scorers: Vec<Box<dyn Scorer>> = Vec::new();
        for folder in &self.reward_model {
            scorers.push(Box::new(opening.model(folder, false, &mut hashes)?));
        }
        for text in &self.reward_rule {
            match text.strip_prefix(CLASSIFIER) {
                Some(folder) => {
                    scorers.push(Box::new(opening.model(Path::new(folder), true, &mut hashes)?));
                }
                None => {
                    let rule = Rule::parse(text)?;
                    let check = |prompt: &Prompt| rule.check(prompt).map_err(|message| format!("--reward-rule {text} {message}"));
                    prompts.iter().flat_map(|prompts| prompts.iter()).try_for_each(check)?;
                    scorers.push(Box::new(rule));
                }
            }
        }
        if let Some(command) = &self.reward_program {
            let limit = Duration::from_secs_f64(self.reward_seconds.unwrap_or(30.0).min(1e6));
            scorers.push(Box::new(Program::new(command, limit, on_interrupt("this step")?)));
        }
        let weights = self.reward_weights.as_ref().map_or_else(|| vec![1.0; scorers.len()], |list| list.0.clone());
        Ok((Rewards(weights.into_iter().zip(scorers).collect()), hashes))
    }
}

/// What opens reward models.
struct Opening<'a> {
    base: &'a Model,
    bare: &'a Decoder,
    device: &'a Device,
    template: ChatTemplate,
    force: &'a Force,
    batch_size: usize,
    /// Of the longest text that they are asked about.
    tokens: usize,
}

impl Opening<'_> {
    /// The one in a folder, or the adapter of one on the policy's own base.
    fn model(&self, folder: &Path, is_probability: bool, hashes: &mut Vec<String>) -> wgtune_models::Result<RewardModel> {
        let Opening { base, bare, device, batch_size, .. } = *self;
        let theirs = base.tokenizer()?;
        let opened = if folder.join(CONFIG_FILE).exists() {
            if !peft::scores(folder) {
                let message = format!("{} is an adapter that gives no scores: expected one of a reward model", folder.display());
                return Err(Error::Data { message });
            }
            self.force.check(base, Some(folder))?;
            hashes.push(peft::fingerprint(folder)?);
            let zero = device.zeros([1, base.blueprint().hidden_size]);
            let model = peft::open(folder, bare.scoring(zero))?;
            RewardModel { model, tokenizer: theirs, template: self.template.clone(), is_same: true, batch_size, is_probability }
        } else {
            let own = Model::open_any(folder)?;
            hashes.push(own.hash_weights()?);
            let tokenizer = own.tokenizer()?;
            let ids: Vec<u32> = (0..tokenizer.vocab_size().max(theirs.vocab_size()) as u32).collect();
            let is_same = tokenizer.vocab_size() == theirs.vocab_size() && tokenizer.pieces(&ids) == theirs.pieces(&ids);
            let (model, template) = (own.load_scorer(device, None)?, own.template(None)?);
            RewardModel { model, tokenizer, template, is_same, batch_size, is_probability }
        };
        // Another tokenizer makes others of the same text, but not many.
        let tokens = self.tokens + opened.model.positions(&[]);
        opened
            .model
            .decoder
            .blueprint()
            .check_length(&format!("the longest prompt with its answer, for {},", folder.display()), tokens)?;
        Ok(opened)
    }
}
