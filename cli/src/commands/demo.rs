//! `wgtune demo`.

mod judgements;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};
use wgtune_models::data::batch::{Loader, Options};
use wgtune_models::data::encode::Encoder;
use wgtune_models::data::rows::{Columns, Dataset};
use wgtune_models::demo::base::write_base;
use wgtune_models::demo::{Row, task};
use wgtune_models::error::Error;
use wgtune_models::formats::files::write_bytes;
use wgtune_models::formats::tokenizer::{TextStream, Tokenizer};
use wgtune_models::generate::{Listener, Request, Sampling, generate};
use wgtune_models::model::Model;
use wgtune_models::peft::{Settings, Start, Tuned, method};
use wgtune_models::train::event::Event;
use wgtune_models::train::metrics::Metrics;
use wgtune_models::train::record::{May, Record};
use wgtune_models::train::run::{Begin, RunDirectory, check_content};
use wgtune_models::train::schedule::{LearningRate, Schedule};
use wgtune_models::train::sft::Sft;
use wgtune_models::train::trainer::{Plan, Trainer};

use crate::common::{Compute, Outcome, Stopped, bytes, on_interrupt, print_json, print_line};
use crate::config::Given;
use crate::report::Summary;
use crate::watch::unless;

const ROWS: usize = 1600;
const HELD_OUT: usize = 50;
const BATCH_SIZE: usize = 8;

/// A way in which the task is learnt, and what is chosen of it.
struct Way {
    method: &'static str,
    title: &'static str,
    steps: usize,
    learning_rate: f64,
    chosen: &'static [(&'static str, f64)],
}

const WAYS: [Way; 2] = [
    Way { method: "lora", title: "LoRA", steps: 700, learning_rate: 4e-3, chosen: &[("rank", 16.0), ("alpha", 32.0)] },
    Way { method: "prompt", title: "Prompt tuning", steps: 400, learning_rate: 5e-2, chosen: &[("virtual-tokens", 20.0)] },
];

/// Tells the whole story in under a minute: a tiny model that ships with the program learns a task it could not do
#[derive(Args)]
#[command(
    after_help = "Examples:\n  wgtune demo --rlhf\n  wgtune demo --out demo\n  wgtune generate --model demo/base --adapter demo/lora --prompt 'Review: The soup was awful.\nMood:'"
)]
pub struct Arguments {
    /// Tell another, in under two: by demonstrations, a reward model and PPO it learns to be cheerful
    #[arg(long)]
    rlhf: bool,
    /// Keep the model, the rows, the adapters and the metrics in this folder: a new one, or an empty one
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: Compute,
}

#[derive(Serialize)]
struct Report {
    device: String,
    parameters: usize,
    before: Scores,
    methods: Vec<Learnt>,
    seconds: f64,
}

/// What became of one way of tuning.
#[derive(Serialize)]
struct Learnt {
    method: &'static str,
    trained_parameters: usize,
    first_loss: Option<f64>,
    last_loss: Option<f64>,
    after: Scores,
    training_tokens_per_second: f64,
    peak_tensor_bytes: u64,
}

/// Shares of the held-out rows.
#[derive(Clone, Copy, Serialize)]
struct Scores {
    mood: f64,
    reason: f64,
}

impl Way {
    /// What is chosen of a setting.
    fn chosen(&self, name: &str) -> Option<Value> {
        let (_, value) = self.chosen.iter().find(|(chosen, _)| *chosen == name)?;
        Some(if value.fract() == 0.0 { (*value as usize).into() } else { (*value).into() })
    }
}

/// Tells it.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    let begun = Instant::now();
    let say = |text: &str| if arguments.json { Ok(()) } else { print_line(text) };
    let temporary = tempfile::tempdir()?;
    let out = arguments.out.as_deref().unwrap_or(temporary.path());
    let (base, data) = (out.join("base"), out.join("rows.jsonl"));
    check_content(out, Begin::New)?;
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    write_base(&base)?;
    if arguments.rlhf {
        return judgements::run(arguments, out, &base);
    }
    let seed = arguments.compute.seed;
    write_bytes(&data, rows(&task::rows(seed, ROWS)).as_bytes())?;

    let device = arguments.compute.open()?;
    let base = Model::open(&base)?;
    let tokenizer = base.tokenizer()?;
    let bare = base.load(&device)?;

    say(&format!("1. A base model, on {}", device.name()))?;
    say("   It ships with wgtune: a Llama of 0.87 million parameters that has read short stories, questions and reviews.\n")?;
    let opening = "Mia could not sleep, because";
    say(&indent(&format!("{opening}{}", continued(std::slice::from_ref(&bare), &tokenizer, &[opening], 48, "\n")?[0][0])))?;

    let held_out = task::held_out(seed, HELD_OUT);
    let reviews: Vec<&str> = held_out.iter().map(|row| row.prompt.as_str()).collect();
    let answers = |models: &[Tuned]| continued(models, &tokenizer, &reviews, 24, ".\n");
    let answers_before = answers(std::slice::from_ref(&bare))?;
    let before = scores(&held_out, &answers_before[0]);
    say("2. A task it cannot do: name the mood of a review, and why\n")?;
    say(&indent(&format!("{}{}", held_out[0].prompt, answers_before[0][0])))?;
    say(&format!(
        "   Of {HELD_OUT} reviews it never saw: mood right in {:.0} %, reason in {:.0} %.\n",
        100.0 * before.mood,
        100.0 * before.reason
    ))?;

    let (mut models, mut learnt) = (vec![bare], Vec::new());
    for (number, way) in (3..).zip(&WAYS) {
        let method = method(way.method).expect("it is in the list");
        let settings = Settings::new(method, |name| way.chosen(name));
        let encode = |text: &str| tokenizer.encode(text, false);
        let start = Start { decoder: models[0].decoder.clone(), base: &base.name()?, seed, encode: &encode };
        let model = (method.begin)(&settings, start)?.requiring_grad();
        let (trained, all) = model.sizes();
        let share = 100.0 * trained as f64 / all as f64;
        say(&format!(
            "{number}. {}: {trained} trained parameters beside {all} in all ({share:.1} %), {} steps on {ROWS} rows\n",
            way.title, way.steps
        ))?;
        let folder = out.join(way.method);
        let summary = Summary::new(&learn(arguments, way, &model, &base, &data, &folder)?);
        model.write(Some(&base.hash_weights()?), &folder)?;
        say("")?;
        models.push(model.detach());
        learnt.push((way.method, trained, summary));
    }

    let answers = answers(&models)?;
    say(&format!("{}. The same reviews, all in one batch\n", 3 + WAYS.len()))?;
    for i in 0..3 {
        say(&indent(&held_out[i].prompt))?;
        for (title, answers) in ["Before"].into_iter().chain(WAYS.iter().map(|way| way.title)).zip(&answers) {
            say(&format!("   {title}:{}", answers[i].trim_end()))?;
        }
        say("")?;
    }
    let methods = learnt.into_iter().zip(&answers[1..]).map(|((method, trained_parameters, summary), answers)| Learnt {
        method,
        trained_parameters,
        first_loss: summary.first_loss,
        last_loss: summary.last_loss,
        after: scores(&held_out, answers),
        training_tokens_per_second: summary.tokens_per_second,
        peak_tensor_bytes: summary.peak_tensor_bytes,
    });
    let report = Report {
        device: device.name().to_string(),
        parameters: models[0].sizes().1,
        before,
        methods: methods.collect(),
        seconds: begun.elapsed().as_secs_f64(),
    };
    if arguments.json {
        return print_json(&report);
    }
    for (learnt, way) in report.methods.iter().zip(&WAYS) {
        print_line(&format!(
            "   {}: mood right {:.0} % -> {:.0} %, reason {:.0} % -> {:.0} %; {:.0} tokens/s in training, {} of tensors at most",
            way.title,
            100.0 * before.mood,
            100.0 * learnt.after.mood,
            100.0 * before.reason,
            100.0 * learnt.after.reason,
            learnt.training_tokens_per_second,
            bytes(learnt.peak_tensor_bytes)
        ))?;
    }
    print_line(&format!("   {:.1} s in all", report.seconds))?;
    match &arguments.out {
        Some(out) => print_line(&format!("   Model, rows, adapters and metrics are in {}", out.display())),
        None => print_line("   Keep model and adapters with --out DIR; tune your own with `wgtune sft --help`"),
    }
}

/// The training itself: what `wgtune sft` does with these rows.
fn learn(
    arguments: &Arguments,
    way: &Way,
    model: &Tuned,
    base: &Model,
    data: &Path,
    out: &Path,
) -> Result<Vec<Metrics>, Box<dyn std::error::Error>> {
    let seed = arguments.compute.seed;
    let dataset = Dataset::open(&[data], &Columns::default())?;
    let (tokenizer, template) = (base.tokenizer()?, base.template(None)?);
    let encoder = Encoder {
        tokenizer: Some(&tokenizer),
        template: &template,
        vocab_size: model.decoder.blueprint().vocab_size,
        max_length: 128,
        opening: &model.opening(),
        prefix: model.method.prefix_length(),
        split_text: false,
        last_turn_only: false,
    };
    let (examples, _) = encoder.encode(&dataset, &dataset.rows)?;
    let padding = tokenizer.pad_id().unwrap_or(0);
    let options = Options { batch_size: BATCH_SIZE, packing: None, shuffle: true, seed, padding };
    let recipe = Sft { training: Loader::new(examples, options), validation: None };
    let plan = Plan {
        steps: way.steps,
        accumulate: 1,
        learning_rate: LearningRate {
            peak: way.learning_rate,
            warmup_steps: 10,
            total_steps: way.steps,
            schedule: Schedule::Cosine,
        },
        weight_decay: 0.0,
        clip: 1.0,
        checkpoint_blocks: false,
        seed,
        eval_every: 0,
        patience: 0,
        keep_last: false,
        save_every: 0,
        save_after: Duration::ZERO,
    };
    let record = Record::new("demo", [("seed".into(), seed.into())].into_iter().collect(), Map::new());
    let run = RunDirectory::open(out, Begin::New, record, &May::default())?;
    let interrupted = on_interrupt("this step")?;
    let mut all = Vec::with_capacity(way.steps);
    let mut listen = |event: Event| {
        if let Event::Step(metrics) = event {
            if !arguments.json && (metrics.step == 1 || metrics.step.is_multiple_of(100)) {
                let bar = "#".repeat((metrics.loss * 12.0).round() as usize);
                let _ = print_line(&format!("   step {:>4}  loss {:.3}  {bar}", metrics.step, metrics.loss));
            }
            all.push(metrics.clone());
        }
        unless(&interrupted)
    };
    match Trainer::new(model.clone(), recipe, plan, run).train(&mut listen) {
        Err(Error::Interrupted) => Err(Stopped("stopped".into()).into()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(all),
    }
}

fn rows(rows: &[Row]) -> String {
    rows.iter().map(|row| format!("{}\n", json!({"prompt": row.prompt, "completion": row.completion}))).collect()
}

/// What each of the models says after each of the prompts, up to one of `ends` and at most so many tokens.
fn continued(
    models: &[Tuned],
    tokenizer: &Tokenizer,
    prompts: &[&str],
    max_new_tokens: usize,
    ends: &str,
) -> wgtune_models::Result<Vec<Vec<String>>> {
    struct Texts<'a>(&'a str, Vec<(TextStream<'a>, String)>);
    impl Listener for Texts<'_> {
        fn token(&mut self, row: usize, token: u32) -> wgtune_models::Result<bool> {
            let (stream, text) = &mut self.1[row];
            text.push_str(&stream.push(token)?);
            Ok(!text.contains(|letter| self.0.contains(letter)))
        }
    }
    let request = |(model, prompt): (usize, &&str)| {
        let ends = tokenizer.eos_ids().to_vec();
        Ok(Request { model, prompt: tokenizer.encode(prompt, true)?, max_new_tokens, ends, sampling: Sampling::default() })
    };
    let all = (0..models.len()).flat_map(|model| prompts.iter().map(move |prompt| (model, prompt)));
    let requests = all.map(request).collect::<wgtune_models::Result<Vec<_>>>()?;
    let mut texts = Texts(ends, requests.iter().map(|_| (tokenizer.stream(true), String::new())).collect());
    generate(models, 16, &mut requests.into_iter(), &mut texts)?;
    let texts: Vec<String> = texts.1.into_iter().map(|(_, text)| text).collect();
    Ok(texts.chunks(prompts.len()).map(<[String]>::to_vec).collect())
}

fn scores(rows: &[Row], answers: &[String]) -> Scores {
    let share = |right: fn(task::Score) -> bool| {
        let right = rows.iter().zip(answers).filter(|(row, answer)| right(task::score(row, answer))).count();
        right as f64 / rows.len() as f64
    };
    Scores { mood: share(|score| score.mood), reason: share(|score| score.reason) }
}

fn indent(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("      {line}\n")).collect()
}
