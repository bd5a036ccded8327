//! `wgtune judge`: preferences from a judge who is no human.

mod answers;
mod kept;
mod report;
mod revisions;
mod verdicts;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use wgtune_models::data::rows::Dataset;
use wgtune_models::error::Error;
use wgtune_models::formats::files::{check_writable, read_text, write_bytes};
use wgtune_models::model::Model;
use wgtune_models::rl::judge::{Judge, JudgeModel, RUBRIC};

use crate::common::{
    Compute, Force, Outcome, Overwrite, Stopped, Template, fingerprint, note, on_interrupt, print_json, print_line,
};
use crate::config::Given;
use crate::data::Source;
use crate::drawing::Drawing;
use crate::endpoint::{EndpointArguments, Usage};
use crate::numbers::{below_half, whole};
use crate::playing::PROMPTS;
use crate::progress::Progress;
use crate::runs::Failure;
use crate::watch::unless;
use answers::Item;
use kept::Kept;
use report::{Found, Report};

/// Makes preferences by a judge who is a model: which of several answers is better, or what a better one is
#[derive(Args)]
#[command(
    after_help = "Rows are {\"prompt\": …}, a text or messages, which --policy answers --answers times; or have answers already, as those of \
    wgtune dpo: then it is told how often the judge agrees. Each pair is shown in both orders, and the mean counts. What comes of a prompt \
    is a row that wgtune reward and wgtune dpo learn from. What was answered and judged stays beside --out, in a file that ends in \
    .asked.\n\n\
    Examples:\n  wgtune judge --model JUDGE --policy DIR --data prompts.jsonl --answers 4 --out pairs.jsonl\n  \
    wgtune judge --judge-url http://localhost:8080/v1 --judge-name NAME --data pairs.jsonl --out judged.jsonl\n  \
    wgtune judge --model DIR --data prompts.jsonl --constitution principles.txt --out revised.jsonl"
)]
pub struct Arguments {
    /// Take options from this TOML file too, under their long names; those of the command line come first
    #[arg(long = "config", value_name = "FILE")]
    _config: Option<PathBuf>,
    /// The model that judges, a Hugging Face directory
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// A PEFT adapter of the judge
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    endpoint: EndpointArguments,
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    template: Template,
    /// The model that answers prompts [default: --model]
    #[arg(long, value_name = "DIR")]
    policy: Option<PathBuf>,
    /// A PEFT adapter of the model that answers
    #[arg(long, value_name = "DIR")]
    policy_adapter: Option<PathBuf>,
    /// Answers to each prompt
    #[arg(long, default_value_t = 2, value_parser = whole(2..=16), value_name = "ANSWERS")]
    answers: usize,
    #[command(flatten)]
    drawing: Drawing,
    /// A text that says what makes an answer better, in the place of: helpful, true, clear, harmless
    #[arg(long, value_name = "FILE")]
    rubric: Option<PathBuf>,
    /// How far from even chances the better answer's must be; nearer is a tie, and left out
    #[arg(long, default_value_t = 0.05, value_parser = below_half, value_name = "MARGIN")]
    tie: f64,
    /// Write all answers in their order, the best first, instead of the best and the worst
    #[arg(long)]
    ranked: bool,
    /// Have the judge criticise one answer to each prompt by a principle of this file, one a line, and write a better one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rubric", "ranked", "answers", "tie"])]
    constitution: Option<PathBuf>,
    /// Write the rows to this file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    overwrite: Overwrite,
    /// Go on with what an earlier command began, or make the rows anew by another --tie: what was answered is not asked again
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Questions that the judge reads together
    #[arg(long, default_value_t = 8, value_parser = whole(1..=65_536), conflicts_with = "judge_url")]
    batch_size: usize,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: Compute,
}

/// Options that the policy's answers depend on, beside what hashes stand for.
const OF_ANSWERS: [&str; 6] = ["answers", "seed", "max-new-tokens", "temperature", "top-k", "top-p"];

/// Those that critiques and revisions depend on.
const OF_REVISIONS: [&str; 2] = ["seed", "max-new-tokens"];

/// Rows, as they are written, and what is told of them.
struct Judged {
    rows: Vec<Value>,
    too_long: usize,
    cut: usize,
    found: Found,
}

/// Judges all rows, and writes what comes of them.
pub fn run(arguments: &Arguments, given: &Given) -> Outcome {
    let report = judge(arguments, given)?;
    if arguments.json { print_json(&report) } else { report.lines().iter().try_for_each(|line| print_line(line)) }
}

/// Judges all rows, and writes what comes of them.
pub fn judge(arguments: &Arguments, given: &Given) -> Result<Report, Failure> {
    check_writable(&arguments.out)?;
    arguments.check_options()?;
    let interrupted = on_interrupt("what was asked")?;
    let endpoint = arguments.endpoint.open(arguments.drawing.max_new_tokens, interrupted.clone())?;
    let identity = endpoint.as_ref().map(|endpoint| endpoint.identity());
    let dataset = arguments.source.read_wanting(None, PROMPTS)?;
    let items = answers::items(&dataset)?;
    if arguments.policy.is_some() && items.iter().all(|item| !item.answers.is_empty()) {
        note("every row has answers: --policy is not asked");
    }
    let criteria = arguments.criteria()?;
    let of = arguments.identity(given, &dataset, &items, &criteria, identity)?;
    let mut kept = Kept::open(&arguments.out, &of, arguments.resume, arguments.overwrite.overwrite)?;
    let rows = items.len();
    let made = || -> Result<(Judged, Option<Usage>), Failure> {
        let (items, left) = arguments.answered(&dataset, items, &criteria, &mut kept, &interrupted)?;
        let (mut endpoint, mut model) = (endpoint, None);
        let judge: &mut dyn Judge = match &mut endpoint {
            Some(endpoint) => endpoint,
            None => model.insert(arguments.open_judge()?),
        };
        let asking = Asking { judge, kept: &mut kept, interrupted: &interrupted };
        let mut judged = match &criteria {
            Criteria::Rubric(rubric) => verdicts::compare(arguments, rubric, items, asking)?,
            Criteria::Principles(principles) => revisions::revise(arguments, principles, items, asking)?,
        };
        judged.too_long += left.too_long;
        judged.cut += left.cut;
        Ok((judged, endpoint.map(|endpoint| endpoint.usage())))
    };
    let (judged, usage) = made().map_err(|failure| {
        let place = arguments.out.display();
        match failure.downcast_ref() {
            Some(Error::Interrupted) => {
                Stopped(format!("stopped: what was found is kept beside {place}; the same command with --resume goes on")).into()
            }
            _ => {
                note(format!("what was found is kept beside {place}; the same command with --resume goes on"));
                failure
            }
        }
    })?;
    let Judged { rows: written, too_long, cut, found } = judged;
    let lines: String = written.iter().map(|row| format!("{row}\n")).collect();
    write_bytes(&arguments.out, lines.as_bytes())?;
    Ok(Report { out: arguments.out.clone(), rows, written: written.len(), too_long, cut, found, usage })
}

/// By what is judged.
enum Criteria {
    /// What makes an answer better.
    Rubric(String),
    /// What answers are to keep to, each for itself.
    Principles(Vec<String>),
}

impl Arguments {
    /// Checks that options go together.
    pub fn check_options(&self) -> Outcome {
        let Arguments { model, endpoint, policy, policy_adapter, .. } = self;
        if model.is_none() && endpoint.judge_url.is_none() {
            return Err("nobody judges: expected --model, or --judge-url".into());
        }
        if policy_adapter.is_some() && policy.is_none() && model.is_none() {
            return Err("--policy-adapter is of a model that answers: expected --policy".into());
        }
        let read = self.source.files()?.into_iter().chain(self.rubric.clone()).chain(self.constitution.clone());
        let place = std::fs::canonicalize(&self.out);
        let is_out = |file: &PathBuf| place.as_ref().is_ok_and(|out| std::fs::canonicalize(file).is_ok_and(|file| file == *out));
        if let Some(file) = read.chain(self.template.template.clone()).find(is_out) {
            return Err(format!("{} is read, and --out would replace it: expected another name", file.display()).into());
        }
        if self.source.weights()?.is_some() {
            return Err("--data has weights, which are for training: expected names of files alone".into());
        }
        Ok(())
    }

    fn criteria(&self) -> Result<Criteria, Failure> {
        let Some(file) = &self.constitution else {
            let rubric = self.rubric.as_ref().map_or(Ok(RUBRIC.to_string()), |file| read_text(file))?;
            return match (rubric.trim().is_empty(), &self.rubric) {
                (true, Some(file)) => Err(format!("{} is empty; expected what makes an answer better", file.display()).into()),
                _ => Ok(Criteria::Rubric(rubric)),
            };
        };
        let text = read_text(file)?;
        let is_principle = |line: &&str| !line.is_empty() && !line.starts_with('#');
        let principles: Vec<String> = text.lines().map(str::trim).filter(is_principle).map(String::from).collect();
        match principles.is_empty() {
            true => Err(format!("{} has no principles; expected one a line", file.display()).into()),
            false => Ok(Criteria::Principles(principles)),
        }
    }

    /// What all that is asked depends on.
    fn identity(
        &self,
        given: &Given,
        dataset: &Dataset,
        items: &[Item],
        criteria: &Criteria,
        endpoint: Option<String>,
    ) -> Result<Map<String, Value>, Failure> {
        let option = |name: &&str| (name.to_string(), given.options.get(*name).cloned().unwrap_or_default());
        let is_answered = items.iter().all(|item| !item.answers.is_empty());
        let names: &[&str] = match criteria {
            _ if !is_answered => &OF_ANSWERS,
            Criteria::Principles(_) => &OF_REVISIONS,
            Criteria::Rubric(_) => &[],
        };
        let mut of: Map<String, Value> = names.iter().map(option).collect();
        of.insert("data".into(), dataset.fingerprint().into());
        match criteria {
            Criteria::Rubric(rubric) => of.insert("rubric".into(), json!(rubric)),
            Criteria::Principles(principles) => of.insert("constitution".into(), json!(principles)),
        };
        let judge = match (endpoint, &self.model) {
            (None, Some(model)) => hash(model, self.adapter.as_deref())?,
            (endpoint, _) => endpoint.unwrap_or_default(),
        };
        of.insert("judge".into(), judge.into());
        if !is_answered {
            let (policy, adapter) = self.policy()?;
            of.insert("policy".into(), hash(policy, adapter)?.into());
            let template = self.template.template.as_ref().map(|file| read_text(file)).transpose()?;
            of.insert("template".into(), template.into());
        }
        Ok(of)
    }

    /// Which model answers, with which adapter.
    fn policy(&self) -> Result<(&Path, Option<&Path>), Failure> {
        match (&self.policy, &self.model) {
            (Some(policy), _) => Ok((policy, self.policy_adapter.as_deref())),
            (None, Some(model)) => Ok((model, self.policy_adapter.as_deref().or(self.adapter.as_deref()))),
            (None, None) => Err("nobody answers the prompts that have no answers: expected --policy".into()),
        }
    }

    fn open_judge(&self) -> Result<JudgeModel, Failure> {
        let base = Model::open(self.model.as_ref().expect("somebody judges"))?;
        self.force.check(&base, self.adapter.as_deref())?;
        let template = base.template(None)?;
        Ok(JudgeModel {
            model: base.load_adapted(&self.compute.open()?, self.adapter.as_deref())?.detach(),
            tokenizer: base.tokenizer()?,
            template: (!template.is_default()).then_some(template),
            max_new_tokens: self.drawing.max_new_tokens,
            batch_size: self.batch_size,
        })
    }
}

/// A hash of a model and its adapter.
fn hash(model: &Path, adapter: Option<&Path>) -> wgtune_models::Result<String> {
    Ok([Some(model), adapter].into_iter().flatten().map(fingerprint).collect::<Result<Vec<_>, _>>()?.join(" "))
}

/// Asks a judge what it was not asked before.
struct Asking<'a> {
    judge: &'a mut dyn Judge,
    kept: &'a mut Kept,
    interrupted: &'a AtomicBool,
}

impl Asking<'_> {
    /// Which of two answers is better.
    fn verdicts(&mut self, questions: Vec<(usize, String)>) -> Result<(), Error> {
        let Asking { judge, kept, interrupted } = self;
        ask("judging", "verdict", questions, kept, interrupted, &mut |questions, heard| judge.compare(questions, heard))
    }

    /// What it replies.
    fn replies(&mut self, kind: &'static str, questions: Vec<(usize, String)>) -> Result<(), Error> {
        let Asking { judge, kept, interrupted } = self;
        ask(kind, kind, questions, kept, interrupted, &mut |questions, heard| judge.reply(questions, heard))
    }
}

/// How a judge is asked many questions, and heard.
type Ask<'a, T> = dyn FnMut(&[(usize, String)], &mut dyn FnMut(usize, T) -> Result<(), Error>) -> Result<(), Error> + 'a;

/// Asks those of the questions whose answers are not kept, and keeps them.
fn ask<T: Serialize + DeserializeOwned>(
    what: &'static str,
    kind: &str,
    questions: Vec<(usize, String)>,
    kept: &mut Kept,
    interrupted: &AtomicBool,
    asked: &mut Ask<T>,
) -> Result<(), Error> {
    let count = questions.len();
    let missing: Vec<_> = questions.into_iter().filter(|(number, _)| kept.get::<T>(kind, *number).is_none()).collect();
    let mut bar = Progress::new(what, count, count - missing.len());
    asked(&missing, &mut |number, found| {
        kept.add(kind, number, found)?;
        bar.advance("");
        if unless(interrupted).is_break() { Err(Error::Interrupted) } else { Ok(()) }
    })
}
