//! The stages of a run, from the tables of its file: each is a command as it would be typed.

use std::path::{Path, PathBuf};

use clap::builder::Arg;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};
use wgtune_models::error::Error;
use wgtune_models::formats::files::read_text;

use super::stage::{Stage, Stand, parts};
use crate::config::{File, Options, conflict, lenient, line, long};
use crate::playing::CLASSIFIER;
use crate::runs::Failure;
use crate::tuning::Tuning;

/// The tables of a file, each named as its command is, in the order of the stages.
const TABLES: [&str; 5] = ["sft", JUDGE, "reward", "ppo", "grpo"];

/// The one by which another model says which of the policy's answers are better.
pub const JUDGE: &str = "judge";

/// The file of the rows that it makes in a round.
pub const JUDGED: &str = "judge.jsonl";

/// Those by which the policy learns from its own answers.
pub const POLICIES: [&str; 2] = ["ppo", "grpo"];

/// Options of a stage that are the run's to give.
const OF_THE_RUN: [&str; 8] = ["out", "resume", "overwrite", "jobs", "plan", "profile", "json", "task"];

/// What is asked of a run as a whole.
pub struct Asked<'a> {
    /// The file of its stages.
    pub file: &'a Path,
    pub out: &'a Path,
    pub rounds: usize,
    /// Rules that say how safe an answer is, as `--reward-rule` takes them.
    pub safety: Vec<String>,
}

/// The stages of a run, all options checked.
///
/// # Errors
/// A file without a stage that is needed; a key that is no option, or not a stage's, and a value that its option does not take, each
/// with its line; options that do not go together.
pub fn stages(asked: &Asked) -> Result<Vec<Stage>, Failure> {
    let text = read_text(asked.file)?;
    let table = DeTable::parse(&text).map_err(Error::toml(asked.file, &text))?.into_inner();
    let program = crate::program();
    let lenient = lenient(&program);
    let tables = Tables { asked, text: &text, table: &table, program: &program, lenient: &lenient };
    let policy = tables.check()?;
    let mut stages = Vec::new();
    let named = |key: &str| table.get(key).and_then(|value| value.get_ref().as_str()).map(PathBuf::from);
    let mut stand = Stand { model: named("model"), adapter: named("adapter") };
    if tables.has("sft") {
        let stage = tables.stage("sft", "sft".into(), &stand, &Extra::default())?;
        stand = stage.result(asked.out, stand);
        stages.push(stage);
    }
    let tuned = stand.clone();
    let mut extra = Extra::default();
    for round in 1..=asked.rounds {
        let name = |stage: &str| format!("round-{round}/{stage}");
        if tables.has(JUDGE) {
            let stage = tables.stage(JUDGE, name(JUDGED), &stand, &extra)?;
            extra.judged.push(asked.out.join(&stage.name));
            stages.push(stage);
        }
        // The same rows bring the same rewards.
        if tables.has("reward") && (round == 1 || tables.has(JUDGE)) {
            let stage = tables.stage("reward", name("reward"), &tuned, &extra)?;
            extra.reward = Some(asked.out.join(&stage.name));
            stages.push(stage);
        }
        let stage = tables.stage(policy, name(policy), &stand, &extra)?;
        stand = stage.result(asked.out, stand);
        stages.push(stage);
    }
    let of = |name: &str| stages.iter().find(|stage| stage.words[0] == name).and_then(|stage| parts(&stage.command).1);
    let (reward, policy_tuning) = (of("reward"), of(policy));
    let is_whole = |tuning: Option<&Tuning>| tuning.is_some_and(|tuning| tuning.method.adapter.is_none());
    if asked.rounds > 1 && is_whole(policy_tuning) && reward.is_some() && !is_whole(reward) {
        let place = tables.place("reward");
        return Err(format!(
            "{place}: an adapter of rewards on a model that [{policy}] trains whole in the first of {} rounds; expected `method = \
             \"full\"` in it, or one round",
            asked.rounds
        )
        .into());
    }
    Ok(stages)
}

/// What the stages before give to one.
#[derive(Default)]
struct Extra {
    /// Rows that a judge made.
    judged: Vec<PathBuf>,
    /// A reward model.
    reward: Option<PathBuf>,
}

struct Tables<'a> {
    asked: &'a Asked<'a>,
    text: &'a str,
    table: &'a DeTable<'a>,
    program: &'a clap::Command,
    /// It, without an argument that must be given.
    lenient: &'a clap::Command,
}

impl Tables<'_> {
    fn of(&self, name: &str) -> Option<&DeTable<'_>> {
        self.table.get(name).and_then(|value| value.get_ref().as_table())
    }

    fn has(&self, name: &str) -> bool {
        self.of(name).is_some()
    }

    /// The file and the line of a key.
    fn line(&self, key: &Spanned<DeString>) -> String {
        format!("{}:{}", self.asked.file.display(), line(self.text, key.span().start))
    }

    /// The file, the line and the name of a stage's table.
    fn place(&self, name: &str) -> String {
        let key = self.table.keys().find(|key| &**key.get_ref() == name);
        key.map_or(String::new(), |key| format!("{}: [{name}]", self.line(key)))
    }

    /// Checks the tables and their keys; the policy's stage.
    fn check(&self) -> Result<&'static str, Failure> {
        let command = |name: &str| self.program.find_subcommand(name).expect("a stage is a command");
        let takes = |name: &str, key: &str| command(name).get_arguments().any(|argument| long(argument) == key);
        let [policy] = POLICIES.into_iter().filter(|name| self.has(name)).collect::<Vec<_>>()[..] else {
            return Err(format!("{}: expected one of {}", self.asked.file.display(), one_of(&POLICIES)).into());
        };
        if self.has(JUDGE) && !self.has("reward") {
            return Err(format!("{} without a reward model to learn from it; expected [reward] too", self.place(JUDGE)).into());
        }
        for (key, value) in self.table {
            let (name, line) = (&**key.get_ref(), self.line(key));
            match value.get_ref() {
                DeValue::Table(own) if TABLES.contains(&name) => self.check_keys(name, own)?,
                _ if TABLES.contains(&name) => {
                    return Err(format!("{line}: `{name}` is a stage; expected a table [{name}]").into());
                }
                DeValue::Table(_) => {
                    return Err(format!("{line}: [{name}] is no stage; expected one of {}", one_of(&TABLES)).into());
                }
                _ if takes("rlhf", name) => {}
                _ if OF_THE_RUN.contains(&name) => return Err(format!("{line}: `{name}` is of no run of several stages").into()),
                _ if !TABLES.iter().any(|stage| self.has(stage) && takes(stage, name)) => {
                    return Err(format!("{line}: `{name}` is no option of wgtune rlhf, or of a stage of this file").into());
                }
                _ => {}
            }
        }
        Ok(policy)
    }

    fn check_keys(&self, stage: &str, own: &DeTable) -> Result<(), Failure> {
        for key in own.keys() {
            let (name, line) = (&**key.get_ref(), self.line(key));
            // What a policy begins with is what came before, and all stand on one model.
            let is_chained = match name {
                "model" => stage != "reward" && stage != JUDGE,
                "adapter" => POLICIES.contains(&stage),
                "policy" | "policy-adapter" => true,
                _ => false,
            };
            if is_chained {
                return Err(format!("{line}: `{name}` is one for all stages; expected it above the tables").into());
            }
            if OF_THE_RUN.contains(&name) {
                return Err(format!("{line}: `{name}` is the whole run's; expected none in [{stage}]").into());
            }
        }
        Ok(())
    }

    /// A stage that begins where the policy stands.
    fn stage(&self, name: &'static str, folder: String, stand: &Stand, extra: &Extra) -> Result<Stage, Failure> {
        let command = self.program.find_subcommand(name).expect("a stage is a command");
        let own = self.options(command, self.of(name).expect("it is there"), &[], &[])?;
        let argument = |name: &str| command.get_arguments().find(|argument| long(argument) == name).expect("an option");
        let is_own = |name: &str| own.arguments.iter().any(|argument| long(argument) == name);
        let names = if name == JUDGE { ["policy", "policy-adapter"] } else { ["model", "adapter"] };
        let stands = names.into_iter().zip([&stand.model, &stand.adapter]);
        // Another model has nothing of the policy's, and an adapter of the stage's own stands in the place of one.
        let is_chained = |option: &str| option.starts_with("policy") || !(is_own("model") || is_own(option));
        let chained: Vec<(&str, &Path)> = stands
            .filter_map(|(option, folder)| Some((option, folder.as_deref()?)))
            .filter(|(option, _)| is_chained(option))
            .collect();
        if let Some(option) = chained
            .iter()
            .find(|(option, _)| *option == "adapter")
            .and_then(|(option, _)| own.arguments.iter().find(|own| conflict(command, own, argument(option))))
        {
            let (place, option) = (self.place(name), long(option));
            return Err(format!(
                "{place}: `{option}` is of a new adapter, and this stage goes on from one; expected it where that is made"
            )
            .into());
        }
        let over: Vec<&Arg> = own.arguments.iter().copied().chain(chained.iter().map(|(name, _)| argument(name))).collect();
        // The adapter above the tables is the policy's.
        let is_foreign = |key: &&str| !is_taken(command, key) || (*key == "adapter" && (name == JUDGE || is_own("model")));
        let foreign: Vec<&str> = self.table.keys().map(|key| &**key.get_ref()).filter(is_foreign).collect();
        let shared = self.options(command, self.table, &foreign, &over)?;
        let mut words = [vec![name.to_string()], shared.words, own.words].concat();
        words.extend(chained.iter().map(|(name, folder)| format!("--{name}={}", folder.display())));
        words.push(format!("--out={}", self.asked.out.join(&folder).display()));
        if name == "reward" {
            words.extend(extra.judged.iter().map(|file| format!("--data={}", file.display())));
        }
        let mut safety = Vec::new();
        if POLICIES.contains(&name) {
            safety = self.reward(&mut words, extra.reward.as_deref())?;
        }
        let typed = ["wgtune".to_string()].into_iter().chain(words.clone()).map(Into::into).collect();
        let place = self.place(name);
        let (parsed, given) = crate::parsed(self.program, typed, None).map_err(|error| format!("{place}: {}", reason(&error)))?;
        let stage = Stage { name: folder, words, command: parsed.command, given, safety };
        stage.check(is_own("model"), self.asked.out, &extra.judged).map_err(|error| format!("{place}: {error}"))?;
        Ok(stage)
    }

    /// Gives a policy's stage the reward model, first of all that judge, and what is only told: how safe the answers are. Their figures.
    fn reward(&self, words: &mut Vec<String>, reward: Option<&Path>) -> Result<Vec<String>, Failure> {
        let at = words.iter().position(|word| word.starts_with("--reward-model=")).unwrap_or(words.len());
        words.splice(at..at, reward.map(|folder| format!("--reward-model={}", folder.display())));
        let count = |words: &[String], begins: &str| words.iter().filter(|word| word.starts_with(begins)).count();
        let mut figures = Vec::new();
        for rule in &self.asked.safety {
            let (kind, alike) = match rule.starts_with(CLASSIFIER) {
                true => ("rewards/model", count(words, "--reward-model=") + count(words, "--reward-rule=classifier=")),
                false => ("rewards/regex", count(words, "--reward-rule=regex=")),
            };
            figures.push(if alike == 0 { kind.to_string() } else { format!("{kind}_{}", alike + 1) });
            words.push(format!("--reward-rule={rule}"));
        }
        if figures.is_empty() {
            return Ok(figures);
        }
        let programs = count(words, "--reward-program=");
        let scorers = count(words, "--reward-model=") + count(words, "--reward-rule=") + programs;
        let given = words.iter().position(|word| word.starts_with("--reward-weights=")).map(|at| words.remove(at));
        let mut weights: Vec<String> = match given {
            Some(given) => given.trim_start_matches("--reward-weights=").split(',').map(String::from).collect(),
            None => vec!["1".into(); scorers - figures.len()],
        };
        if weights.len() != scorers - figures.len() {
            let (place, found, expected) = (self.place(&words[0]), weights.len(), scorers - figures.len());
            return Err(format!("{place}: `reward-weights` has {found}; expected {expected}, one for each reward").into());
        }
        let at = weights.len().saturating_sub(programs);
        weights.splice(at..at, figures.iter().map(|_| "0".to_string()));
        words.push(format!("--reward-weights={}", weights.join(",")));
        Ok(figures)
    }

    /// The options of a table, as this command takes them.
    fn options<'a>(
        &self,
        command: &'a clap::Command,
        table: &DeTable,
        without: &[&str],
        over: &[&Arg],
    ) -> Result<Options<'a>, Failure> {
        let nothing = self.lenient.clone().try_get_matches_from(["wgtune", command.get_name()])?;
        let given = nothing.subcommand_matches(command.get_name()).expect("it was parsed");
        let file = File { path: self.asked.file, text: self.text, lenient: self.lenient, command, given };
        file.options(table, without, over)
    }
}

/// What is wrong, without how the command would be typed.
fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.split("\n\nUsage").next().unwrap_or_default();
    text.trim_start_matches("error: ").trim_end().into()
}

/// Whether a key is an option of a command that a file may give.
fn is_taken(command: &clap::Command, key: &str) -> bool {
    !OF_THE_RUN.contains(&key) && command.get_arguments().any(|argument| long(argument) == key)
}

fn one_of(names: &[&str]) -> String {
    names.iter().map(|name| format!("[{name}]")).collect::<Vec<_>>().join(" or ")
}
