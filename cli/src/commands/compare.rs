//! `wgtune compare`: ways of tuning side by side, each as a run of `sft` of its own.

mod figures;
mod page;

mod ways;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{ArgMatches, Args, FromArgMatches};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wgtune_models::data::rows::{Dataset, Row};
use wgtune_models::error::Error;
use wgtune_models::formats::files::{read_text, write_bytes};
use wgtune_models::model::Model;
use wgtune_models::peft::Tuned;
use wgtune_models::train::choices::{accuracy, choices, questions};
use wgtune_models::train::record::Record;

use super::{Command, sft};
use crate::common::{Outcome, Stopped, note, on_interrupt, print_json, print_line};
use crate::config::Given;
use crate::data::{Coder, parted};
use crate::numbers::{above_zero, whole};
use crate::progress::Progress;
use crate::watch::unless;
use figures::{Run, Summary};
use ways::Way;

/// Trains a model in several ways on the same rows, batches and steps, and shows what each came to and what it cost
#[derive(Args)]
#[command(after_help = "Examples:\n  wgtune compare --model DIR --data rows.jsonl --out DIR --steps 200\n  \
    wgtune compare --methods lora,dora,ia3,full --model DIR --data rows.jsonl --out DIR --steps 200 --seeds 3 --rank 16\n  \
    wgtune compare --model DIR --data rows.jsonl --probe other.jsonl --learning-rate lora=1e-3,full=1e-5 --out DIR")]
pub struct Arguments {
    /// Ways of tuning, separated by commas [default: all]
    #[arg(long, value_name = "METHODS", value_delimiter = ',', value_parser = PossibleValuesParser::new(ways::names()))]
    methods: Vec<String>,
    /// Runs of each method, with --seed and those that follow it: what is told is their mean and deviation
    #[arg(long, default_value_t = 1, value_parser = whole(1..=100))]
    seeds: usize,
    /// Learning rates in the place of the methods' own
    #[arg(long, value_name = "METHOD=RATE,…", value_delimiter = ',', value_parser = learning_rate)]
    learning_rate: Vec<(String, f64)>,
    /// Where each run's folder, compare.json and compare.html go; a comparison that was stopped goes on there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Make every run anew, in the place of those that are there
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    _shared: Shared,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Options of `sft` that all runs have in common; a method's own go to the methods that have them.
struct Shared;

/// Options of `sft` that are each run's own, or make no sense in a comparison.
const OF_A_RUN: [&str; 16] = [
    "out",
    "resume",
    "overwrite",
    "config",
    "jobs",
    "plan",
    "profile",
    "json",
    "learning-rate",
    "method",
    "adapter",
    "task",
    "force",
    // Only some methods have virtual tokens to be placed.
    "prompt-template",
    // What dora and head are.
    "dora",
    "train-only",
];

impl Args for Shared {
    fn augment_args(command: clap::Command) -> clap::Command {
        let sft = sft::Arguments::augment_args(clap::Command::new("sft"));
        let is_shared = |name: &str| !OF_A_RUN.contains(&name);
        let shared = sft.get_arguments().filter(|argument| argument.get_long().is_some_and(is_shared)).cloned();
        shared.fold(command, clap::Command::arg)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Shared::augment_args(command)
    }
}

impl FromArgMatches for Shared {
    fn from_arg_matches(_: &ArgMatches) -> Result<Shared, clap::Error> {
        Ok(Shared)
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}

fn learning_rate(text: &str) -> Result<(String, f64), String> {
    let (method, rate) = text.split_once('=').ok_or("expected METHOD=RATE, as in lora=1e-3")?;
    if !ways::names().contains(&method.trim()) {
        return Err(format!("{} is no method: expected one of {}", method.trim(), ways::names().join(", ")));
    }
    Ok((method.trim().into(), above_zero(rate.trim())?))
}

/// Everything that a comparison came to: `compare.json`, and what `--json` prints.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Comparison {
    /// The version of wgtune.
    wgtune: String,
    model: PathBuf,
    device: String,
    /// What is to be known of some methods.
    #[serde(default)]
    remarks: Vec<String>,
    /// A row a method.
    #[serde(default)]
    methods: Vec<Summary>,
    runs: Vec<Run>,
}

const RESULTS: &str = "compare.json";
const PAGE: &str = "compare.html";

/// Trains, and shows what it came to.
pub fn run(arguments: &Arguments, given: &Given) -> Outcome {
    let ways = arguments.ways(given)?;
    arguments.check_out()?;
    let path = arguments.out.join(RESULTS);
    let earlier = match path.exists() && !arguments.overwrite {
        true => serde_json::from_str::<Comparison>(&read_text(&path)?).map_err(Error::json(&path))?.runs,
        false => Vec::new(),
    };
    let first = Planned::new(arguments, given, &ways[0], arguments.seed(given, 0)?)?;
    let subject = Subject::open(&first.parsed)?;
    let mut comparison =
        Comparison { wgtune: env!("CARGO_PKG_VERSION").into(), model: first.parsed.model.clone(), ..Comparison::default() };
    let count = ways.len() * arguments.seeds;
    let mut before = BTreeMap::new();
    comparison.remarks = ways.iter().filter_map(|way| way.remark(&subject.base)).collect();
    for (number, way) in ways.iter().enumerate() {
        for repetition in 0..arguments.seeds {
            let planned = Planned::new(arguments, given, way, arguments.seed(given, repetition)?)?;
            let at = number * arguments.seeds + repetition + 1;
            let name = planned.parsed.out.display().to_string();
            let run = match earlier.iter().find(|run| planned.is(run, &subject)) {
                Some(run) => {
                    note(format!("run {at} of {count}, {name}: made before"));
                    run.clone()
                }
                None => {
                    note(format!("run {at} of {count}, {name}"));
                    planned.make(&subject, &mut before).map_err(|error| stopped(error, &name))?
                }
            };
            comparison.device = run.report["device"].as_str().unwrap_or_default().into();
            comparison.runs.push(run);
            comparison.methods = figures::summaries(&comparison.runs);
            comparison.write(&arguments.out, &earlier)?;
        }
    }
    write_bytes(&arguments.out.join(PAGE), page::page(&comparison).as_bytes())?;
    note(format!("wrote {}", arguments.out.join(PAGE).display()));
    if arguments.json {
        print_json(&comparison)
    } else {
        let remarks = comparison.remarks.iter().cloned();
        figures::lines(&comparison.methods).into_iter().chain(remarks).try_for_each(|line| print_line(&line))
    }
}

/// How an interrupted comparison ends.
fn stopped(error: Box<dyn std::error::Error>, run: &str) -> Box<dyn std::error::Error> {
    let interrupted = error.is::<Stopped>() || matches!(error.downcast_ref(), Some(Error::Interrupted));
    match interrupted {
        true => Stopped(format!("stopped in {run}: the same command goes on there, and makes no run again")).into(),
        false => error,
    }
}

impl Comparison {
    /// Writes what is known so far, with those of the earlier runs that it has not come to, or does not ask for.
    fn write(&self, out: &Path, earlier: &[Run]) -> Outcome {
        let is_left = |run: &&Run| !self.runs.iter().any(|made| made.out == run.out);
        let runs = self.runs.iter().chain(earlier.iter().filter(is_left)).cloned().collect();
        let all = Comparison { runs, ..self.clone() };
        fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
        Ok(write_bytes(&out.join(RESULTS), serde_json::to_string_pretty(&all)?.as_bytes())?)
    }
}

impl Arguments {
    /// The ways to compare, each once.
    fn ways(&self, given: &Given) -> Result<Vec<Way>, Box<dyn std::error::Error>> {
        let chosen: Vec<&str> = self.methods.iter().map(String::as_str).collect();
        let names = if chosen.is_empty() { ways::names() } else { chosen };
        let mut all: Vec<Way> = Vec::new();
        for name in names {
            if !all.iter().any(|way| way.name == name) {
                all.push(ways::way(name));
            }
        }
        let chosen = || all.iter().map(|way| way.name).collect::<Vec<_>>().join(", ");
        if let Some((name, _)) = self.learning_rate.iter().find(|(name, _)| !all.iter().any(|way| way.name == name)) {
            return Err(format!("--learning-rate is for {name} too, which is not compared: expected one of {}", chosen()).into());
        }
        let is_given = |name: &str| given.options.get(name).is_some_and(|value| !value.is_null() && value != false);
        match ways::settings().find(|name| is_given(name) && !all.iter().any(|way| way.has(name))) {
            Some(stray) => Err(format!("--{stray} is of none of the methods that are compared, {}", chosen()).into()),
            None => Ok(all),
        }
    }

    fn seed(&self, given: &Given, repetition: usize) -> Result<u64, String> {
        let seed = given.options.get("seed").and_then(Value::as_u64).unwrap_or_default();
        seed.checked_add(repetition as u64).ok_or(format!("--seed {seed} and {repetition} more: expected smaller ones"))
    }

    /// Checks that the folder holds nothing but a comparison.
    fn check_out(&self) -> Outcome {
        if !self.out.exists() {
            return Ok(());
        }
        let is_own = |name: &str| {
            let way = name.rsplit_once('-').filter(|(_, seed)| seed.parse::<u64>().is_ok()).map_or(name, |(way, _)| way);
            [RESULTS, PAGE].contains(&name) || ways::names().contains(&way)
        };
        let failed = |error| format!("{}: {error}", self.out.display());
        for entry in fs::read_dir(&self.out).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if !is_own(&name) {
                return Err(format!("{} holds {name}: expected a new folder, or that of a comparison", self.out.display()).into());
            }
        }
        Ok(())
    }
}

/// What all runs are of, known by its content.
struct Subject {
    base: Model,
    dataset: Dataset,
    /// Hashes of the model and the data, as a run's record has them.
    hashes: Map<String, Value>,
    /// What rows choose from, where they do.
    choices: Option<Vec<String>>,
}

impl Subject {
    fn open(parsed: &sft::Arguments) -> Result<Subject, Box<dyn std::error::Error>> {
        let base = Model::open(&parsed.model)?;
        let dataset = parsed.source.read(None)?;
        let hashes = [("model", base.fingerprint(&base.hash_weights()?)), ("data", dataset.fingerprint())];
        let hashes = hashes.into_iter().map(|(name, hash)| (name.to_string(), hash.into())).collect();
        let choices = choices(&dataset.rows);
        Ok(Subject { base, dataset, hashes, choices })
    }
}

/// A run as it would be typed.
struct Planned<'a> {
    way: &'a Way,
    seed: u64,
    words: Vec<String>,
    parsed: Box<sft::Arguments>,
    given: Given,
}

impl<'a> Planned<'a> {
    fn new(arguments: &Arguments, given: &Given, way: &'a Way, seed: u64) -> Result<Planned<'a>, Box<dyn std::error::Error>> {
        let model = given.options.get("model").and_then(Value::as_str).unwrap_or_default();
        let own = way.words(Path::new(model))?;
        let name = if arguments.seeds == 1 { way.name.to_string() } else { format!("{}-{seed}", way.name) };
        let out = arguments.out.join(name);
        let taken = |option: &str| option != "seed" && (way.has(option) || !ways::settings().any(|setting| setting == option));
        let is_shared = |option: &str| !OF_A_RUN.contains(&option) && !["methods", "seeds"].contains(&option) && taken(option);
        let mut words: Vec<String> = own;
        words.extend([format!("--out={}", out.display()), format!("--seed={seed}")]);
        let rate = arguments.learning_rate.iter().find(|(method, _)| method == way.name).map(|(_, rate)| *rate);
        let rate = rate.or(way.learning_rate());
        words.extend(rate.map(|rate| format!("--learning-rate={rate}")));
        words.extend(
            given.options.iter().filter(|(option, _)| is_shared(option)).flat_map(|(option, value)| typed(option, value)),
        );
        let begins = match (arguments.overwrite, out.exists()) {
            (true, _) => Some("--overwrite".to_string()),
            (_, true) => Some("--resume".to_string()),
            _ => None,
        };
        let all: Vec<OsString> =
            ["wgtune", "sft"].into_iter().map(String::from).chain(words.clone()).chain(begins).map(OsString::from).collect();
        let (program, given) = crate::parsed(&crate::program(), all, None)?;
        let Command::Sft(parsed) = program.command else { unreachable!("it is sft") };
        Ok(Planned { way, seed, words, parsed, given })
    }

    /// Whether that run is this one, and is still there.
    fn is(&self, run: &Run, subject: &Subject) -> bool {
        let same_hashes = |record: Record| subject.hashes.iter().all(|(name, hash)| record.hashes.get(name) == Some(hash));
        run.options == self.words && Record::open(&self.parsed.out.join("run.toml")).is_ok_and(same_hashes)
    }

    /// Makes it, or goes on with it. `before` are the shares of right choices of the bare model, by seed.
    fn make(&self, subject: &Subject, before: &mut BTreeMap<u64, f64>) -> Result<Run, Box<dyn std::error::Error>> {
        let report = sft::train(&self.parsed, &self.given)?;
        let mut run = Run::new(self.way.name, self.seed, &self.parsed.out, self.words.clone(), &report)?;
        let Some(choices) = &subject.choices else { return Ok(run) };
        let training = &self.parsed.training;
        let is_mixed = self.parsed.source.weights()?.is_some();
        let parts = parted(&subject.dataset, is_mixed, training.held_out(), self.seed)?;
        let held: Vec<Row> = parts.into_iter().flat_map(|(_, held)| held).collect();
        if held.is_empty() {
            return Ok(run);
        }
        let device = self.parsed.compute.open()?;
        let before = match before.get(&self.seed) {
            Some(share) => *share,
            None => {
                let share = self.choose(subject, &subject.base.load(&device)?, &held, choices)?;
                *before.entry(self.seed).or_insert(share)
            }
        };
        let out = &self.parsed.out;
        let tuned = match self.way.is_adapter() {
            true => subject.base.load_adapted(&device, Some(out))?,
            false => Model::open(out)?.load(&device)?,
        };
        run.choose(before, self.choose(subject, &tuned, &held, choices)?);
        Ok(run)
    }

    fn choose(
        &self,
        subject: &Subject,
        tuned: &Tuned,
        held: &[Row],
        choices: &[String],
    ) -> Result<f64, Box<dyn std::error::Error>> {
        let Subject { base, dataset, .. } = subject;
        let training = &self.parsed.training;
        let max_length = training.length.of(base.blueprint())?;
        let coder = Coder::open(base, Some(tuned), dataset, &self.parsed.conversations, max_length)?;
        let questions = questions(&coder.encoder(), dataset, held, choices)?;
        let interrupted = on_interrupt("this step")?;
        let mut bar = Progress::new("choosing", (questions.len() * choices.len()).div_ceil(training.batch_size), 0);
        Ok(accuracy(tuned, &questions, training.batch_size, &mut |_, _| {
            bar.advance("");
            unless(&interrupted)
        })?)
    }
}

/// An option as it would be typed.
fn typed(option: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Null | Value::Bool(false) => Vec::new(),
        Value::Bool(true) => vec![format!("--{option}")],
        Value::String(text) => vec![format!("--{option}={text}")],
        Value::Array(all) => all.iter().flat_map(|value| typed(option, value)).collect(),
        number => vec![format!("--{option}={number}")],
    }
}
