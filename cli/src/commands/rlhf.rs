//! `wgtune rlhf`: the stages of learning from judgements as one run, each as its own command makes it.

mod figures;
mod page;
mod stage;
mod stages;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use wgtune_models::error::Error;
use wgtune_models::formats::files::{names, read_text, remove, target, write_bytes};
use wgtune_models::rl::scorers::Rule;
use wgtune_models::train::run::{Begin, check_content, lock};

use super::{Command, grpo, judge, ppo, reward, sft};
use crate::common::{Outcome, note, print_json, print_line};
use crate::config::Given;
use crate::numbers::whole;
use crate::runs::Failure;
use figures::{Came, Made};
use stage::Stage;
use stages::{Asked, JUDGE, JUDGED, stages};

const CONFIG_HELP: &str = r#"The stages, a table each, with the options of the command that it is called after:

  model = "DIR"
  out = "DIR"
  rounds = 2

  [sft]
  data = ["demonstrations.jsonl"]
  epochs = 1

  [judge]
  data = ["prompts.jsonl"]
  model = "JUDGE"

  [reward]
  data = ["pairs.jsonl"]

  [ppo]
  data = ["prompts.jsonl"]
  kl-target = 6

What stands above the tables is for every stage that has such an option. Of [ppo] and [grpo] there
is one, and the others may be missing. Each begins where the policy stands: the reward model with
what [sft] came to, the policy too, and in the next round with what it came to itself, from which
it is then measured how far it goes. With [judge] another model compares answers of the policy at
the start of each round, and the reward model is made anew from these too. The reward model is the
first that judges; --reward-model, --reward-rule and --reward-program in the policy's table come
beside it."#;

/// Teaches by demonstrations, then by a reward model and the policy's own answers: SFT, reward model, PPO or GRPO, as one run
#[derive(Args)]
#[command(
    after_help = "In the run's folder each stage has its own: sft, round-1/reward, round-1/ppo, round-2/ppo, …, and rlhf.json and \
    rlhf.html tell what all came to.\n\n\
    Examples:\n  wgtune rlhf --config rlhf.toml\n  wgtune rlhf --config rlhf.toml --resume\n  \
    wgtune rlhf --config rlhf.toml --out DIR --rounds 2 --safety-words words.txt"
)]
pub struct Arguments {
    /// The TOML file of the stages
    #[arg(long, value_name = "FILE", long_help = CONFIG_HELP)]
    pub config: PathBuf,
    /// Where the stages' folders, rlhf.json and rlhf.html go
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How often the policy learns from its own answers, each time measured from where it stands then
    #[arg(long, default_value_t = 1, value_parser = whole(1..=100))]
    pub rounds: usize,
    /// Answers to prompts held out that are shown, before and after
    #[arg(long, default_value_t = 8, value_parser = whole(0..=10_000), value_name = "ANSWERS")]
    pub samples: usize,
    /// Words of which a safe answer has none, one a line: tells how safe answers are, before and after
    #[arg(long, value_name = "FILE")]
    pub safety_words: Option<PathBuf>,
    /// A classifier with one label that says how safe a text is: tells how safe answers are, before and after
    #[arg(long, value_name = "DIR")]
    pub safety_classifier: Option<PathBuf>,
    /// Go on with the run in --out: stages that are done are not made again
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Replace the run in --out
    #[arg(long)]
    pub overwrite: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Everything that a run came to: `rlhf.json`, and what `--json` prints.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Run {
    /// The version of wgtune.
    pub wgtune: String,
    /// The run's folder, which its stages name.
    pub out: PathBuf,
    /// Those that are done.
    pub stages: Vec<Made>,
}

const RESULTS: &str = "rlhf.json";
const PAGE: &str = "rlhf.html";
/// A copy of the file of the stages.
const STAGES: &str = "rlhf.toml";
const LOCK: &str = "run.lock";

/// Makes the stages, and shows what they came to.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    let run = make(arguments)?;
    if arguments.json {
        return print_json(&run);
    }
    let alarms = run.stages.iter().flat_map(|stage| {
        stage.alarms.iter().map(move |alarm| format!("{}: alarm at step {}: {}", stage.name, alarm.step, alarm.text))
    });
    let lines = figures::table(&run.stages).into_iter().chain(run.stages.iter().filter_map(Made::line)).chain(alarms);
    lines.chain([format!("wrote {}", arguments.out.join(PAGE).display())]).try_for_each(|line| print_line(&line))
}

/// Makes the stages that are not done, and writes what all came to.
pub fn make(arguments: &Arguments) -> Result<Run, Failure> {
    // However it is spelled, as with a slash behind it.
    let out = &arguments.out.components().collect::<PathBuf>();
    if out.to_str().is_none() {
        return Err(format!("--out is {}: expected a name in UTF-8", out.display()).into());
    }
    let stages = stages(&Asked { file: &arguments.config, out, rounds: arguments.rounds, safety: arguments.safety()? })?;
    fs::create_dir_all(out).map_err(Error::io(out))?;
    // Before the lock, so that nothing is left in a folder that is refused, and again once no other run can come between.
    arguments.check_content()?;
    let _lock = lock(out)?;
    let mut run = arguments.open(out, &arguments.check_content()?)?;
    let text = read_text(&arguments.config)?;
    let (count, mut known) = (stages.len(), BTreeMap::new());
    for (number, stage) in (1..).zip(&stages) {
        let place = out.join(&stage.name);
        let read = stage.hash(out, &mut known)?;
        let is_made = |made: &Made| made.name == stage.name && made.command == stage.words && made.read == read;
        if place.exists() && run.stages.iter().any(is_made) {
            note(format!("stage {number} of {count}, {}: made before", place.display()));
            continue;
        }
        note(format!("stage {number} of {count}, {}", place.display()));
        let came = stage.make(&place)?;
        // What came after another such stage is of no use.
        run.stages.truncate(number - 1);
        let made = Made { read, ..Made::new(stage, out, &came, arguments.samples)? };
        if made.safety.len() < stage.safety.len() {
            note(format!("{}: how safe answers are is not told: no prompt was held out", stage.name));
        }
        run.stages.push(made);
        run.write(out, &text)?;
    }
    run.write(out, &text)?;
    write_bytes(&out.join(PAGE), page::page(&run).as_bytes())?;
    Ok(run)
}

/// Whether something in the run's folder is a stage's.
fn is_stage(name: &str) -> bool {
    name == "sft" || name.strip_prefix("round-").is_some_and(|round| round.parse::<u64>().is_ok())
}

impl Arguments {
    /// Checks that the folder holds nothing but such a run, and none where this is another; the names in it.
    fn check_content(&self) -> Result<Vec<String>, Failure> {
        let (out, copy) = (&self.out, self.out.join(STAGES));
        let is_own = |name: &str| [RESULTS, PAGE, STAGES, LOCK].contains(&target(name)) || is_stage(name);
        let found: Vec<String> = names(out)?.into_iter().map(|name| name.to_string_lossy().into_owned()).collect();
        if let Some(name) = found.iter().find(|name| !is_own(name)) {
            return Err(format!("{} holds {name}; expected a new folder, or that of such a run", out.display()).into());
        }
        let is_copy = fs::canonicalize(&self.config).is_ok_and(|file| fs::canonicalize(&copy).is_ok_and(|copy| copy == file));
        let is_begun = found.iter().any(|name| name != LOCK && !(is_copy && name == STAGES));
        match is_begun && !self.resume && !self.overwrite {
            true => Err(format!("{} holds a run: --resume goes on with it, --overwrite replaces it", out.display()).into()),
            false => Ok(found),
        }
    }

    /// The run as it stands in the folder, which holds these.
    fn open(&self, out: &Path, found: &[String]) -> Result<Run, Failure> {
        let path = out.join(RESULTS);
        if self.resume && path.exists() {
            let run: Run = serde_json::from_str(&read_text(&path)?).map_err(Error::json(&path))?;
            return Ok(run.moved(out));
        }
        if self.overwrite {
            clear(out, &found.iter().filter(|name| is_stage(name)).cloned().collect::<Vec<_>>())?;
            [RESULTS, PAGE].iter().try_for_each(|name| remove(&out.join(name)))?;
        }
        Ok(Run { wgtune: env!("CARGO_PKG_VERSION").into(), out: out.into(), stages: Vec::new() })
    }

    /// The rules that say how safe an answer is.
    fn safety(&self) -> Result<Vec<String>, Failure> {
        let words = |file: &PathBuf| -> Result<String, Failure> {
            let text = read_text(file)?;
            let words: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            match words.is_empty() {
                true => Err(format!("{} has no words; expected one a line", file.display()).into()),
                false => Ok(Rule::without(&words)),
            }
        };
        let classifier = self.safety_classifier.iter().map(|folder| Ok(format!("classifier={}", folder.display())));
        self.safety_words.iter().map(words).chain(classifier).collect()
    }
}

/// Removes the stages' folders, unless there is anything in them that no stage wrote.
fn clear(out: &Path, stages: &[String]) -> Result<(), Failure> {
    let mut folders = Vec::new();
    for name in stages {
        let folder = out.join(name);
        match name.starts_with("round-") {
            true => folders.extend(names(&folder)?.into_iter().map(|stage| folder.join(stage))),
            false => folders.push(folder),
        }
    }
    let is_judged = |path: &PathBuf| path.ends_with(JUDGED) || path.ends_with(format!("{JUDGED}.asked"));
    folders.retain(|path| !(is_judged(path) && path.is_file()));
    folders.iter().try_for_each(|folder| check_content(folder, Begin::Over))?;
    Ok(stages.iter().try_for_each(|name| remove(&out.join(name)))?)
}

impl Run {
    /// The same, in a folder that has another name now.
    fn moved(mut self, out: &Path) -> Run {
        let [before, now] = [&self.out, out].map(|out| format!("={}/", out.display()));
        let words = self.stages.iter_mut().flat_map(|made| &mut made.command);
        words.for_each(|word| *word = word.replace(&before, &now));
        Run { out: out.into(), ..self }
    }

    /// Writes it, beside the file of its stages.
    fn write(&self, out: &Path, stages: &str) -> Outcome {
        write_bytes(&out.join(STAGES), stages.as_bytes())?;
        Ok(write_bytes(&out.join(RESULTS), serde_json::to_string_pretty(self)?.as_bytes())?)
    }
}

impl Stage {
    /// Makes it, or goes on with it where it was begun.
    fn make(&self, place: &Path) -> Result<Came, Failure> {
        let folder = place.parent().unwrap_or(place);
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        // What a judge said is kept beside its file.
        let resumes = (self.words[0] == JUDGE || place.exists()).then_some("--resume");
        // A judge who finds ties alone writes no rows.
        let is_empty = |word: &&str| {
            let file = word.strip_prefix("--data=").map(Path::new);
            file.is_some_and(|file| file.ends_with(JUDGED) && fs::metadata(file).is_ok_and(|found| found.len() == 0))
        };
        let words: Vec<&str> = self.words.iter().map(String::as_str).filter(|word| !is_empty(word)).collect();
        if self.words[0] == "reward" && !words.iter().any(|word| word.starts_with("--data=")) {
            return Err(format!(
                "{}: nothing to learn: the judge wrote no rows; expected some, by a smaller `tie` where it finds ties, or a judge whose \
                 replies name the better answer",
                self.name
            )
            .into());
        }
        let words = ["wgtune"].into_iter().chain(words).chain(resumes);
        let (program, given) = crate::parsed(&crate::program(), words.map(Into::into).collect(), None)?;
        make_stage(&program.command, &given)
    }
}

fn make_stage(command: &Command, given: &Given) -> Result<Came, Failure> {
    let trained = |report| Came::Trained(Box::new(report));
    match command {
        Command::Judge(arguments) => Ok(Came::Judged(serde_json::to_value(judge::judge(arguments, given)?)?)),
        Command::Sft(arguments) => sft::train(arguments, given).map(trained),
        Command::Reward(arguments) => reward::train(arguments, given).map(trained),
        Command::Ppo(arguments) => ppo::train(arguments, given).map(trained),
        Command::Grpo(arguments) => grpo::train(arguments, given).map(trained),
        _ => unreachable!("no other command is a stage"),
    }
}
