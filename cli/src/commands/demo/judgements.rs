//! `wgtune demo --rlhf`: the three stages of learning from judgements, by `wgtune rlhf`.

use std::path::Path;
use std::time::Instant;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};
use wgtune_models::demo::opinion::{MOST_PROMPTS, Pair, demonstrations, pairs, prompts};
use wgtune_models::demo::{Mood, mood};
use wgtune_models::formats::files::write_bytes;

use super::super::rlhf::{self, Run};
use super::Arguments;
use crate::common::{Outcome, Stopped, is_interrupt, print_json, print_line};

const DEMONSTRATIONS: usize = 960;
const PAIRS: usize = 400;
/// Of the prompts, those that nothing is learnt from.
const HELD_OUT: usize = 100;
/// How far the policy may go, in nats an answer.
const TARGET: f64 = 6.0;

#[derive(Serialize)]
struct Report {
    /// The loss of demonstrations held out, before the first stage and after.
    demonstrations_before: f64,
    demonstrations_after: f64,
    /// Of the pairs held out, the share that the reward model tells apart.
    reward_accuracy: f64,
    /// Of the answers to prompts held out, the share that is cheerful.
    cheerful_before: f64,
    cheerful_after: f64,
    /// How many of them differ.
    distinct_after: usize,
    /// How far the policy went, in nats an answer.
    kl: f64,
    seconds: f64,
}

/// Tells it, with what is kept in `out`; the base is there.
pub fn run(arguments: &Arguments, out: &Path, base: &Path) -> Outcome {
    let begun = Instant::now();
    let say = |text: &str| if arguments.json { Ok(()) } else { print_line(text) };
    if out.to_str().is_none() {
        return Err(format!("--out is {}: expected a name in UTF-8", out.display()).into());
    }
    let seed = arguments.compute.seed;
    let write = |name: &str, rows: Vec<Value>| -> Result<String, Box<dyn std::error::Error>> {
        let (path, lines) = (out.join(name), rows.iter().map(|row| format!("{row}\n")).collect::<String>());
        write_bytes(&path, lines.as_bytes())?;
        Ok(json!(path).to_string())
    };
    let shown = demonstrations(seed, DEMONSTRATIONS);
    let shown = write(
        "demonstrations.jsonl",
        shown.iter().map(|row| json!({"prompt": row.prompt, "completion": row.completion})).collect(),
    )?;
    let judged = pairs(seed, PAIRS);
    let judged = write(
        "pairs.jsonl",
        judged
            .iter()
            .map(|Pair { prompt, cheerful, gloomy }| json!({"prompt": prompt, "chosen": cheerful, "rejected": gloomy}))
            .collect(),
    )?;
    let asked = prompts(seed, MOST_PROMPTS);
    let asked = write("prompts.jsonl", asked.iter().map(|prompt| json!({"prompt": prompt})).collect())?;
    let file = out.join("rlhf.toml");
    write_bytes(&file, stages(arguments, base, [&shown, &judged, &asked]).as_bytes())?;

    say("A base model that ships with wgtune has read reviews, cheerful and gloomy ones alike. Three stages make it cheerful:")?;
    say("1. It is shown reviews, so that it goes on with one from a first sentence, and not with a story.")?;
    say("2. A reward model learns from pairs of reviews which is the cheerful one.")?;
    say("3. The first writes reviews of its own, and learns from what the second says of them, by PPO.\n")?;
    let run = rlhf::make(&rlhf::Arguments {
        config: file.clone(),
        out: out.join("rlhf"),
        rounds: 1,
        samples: HELD_OUT,
        safety_words: None,
        safety_classifier: None,
        resume: false,
        overwrite: false,
        json: false,
    });
    let run = run.map_err(|error| match is_interrupt(&*error) {
        true => Stopped("stopped".into()).into(),
        false => error,
    })?;
    let report = came_to(&run, begun);
    if arguments.json {
        return print_json(&report);
    }
    let spoken = run.stages.last().map_or(&[][..], |stage| &stage.samples);
    say("\nWhat it writes, before PPO and after, where nothing was learnt from the first sentence:\n")?;
    for spoken in &spoken[..spoken.len().min(4)] {
        say(&format!("   {}", spoken.prompt.as_str().unwrap_or_default()))?;
        say(&format!("   before: {}", spoken.before.trim()))?;
        say(&format!("   after:  {}\n", spoken.after.trim()))?;
    }
    say(&format!(
        "   The loss of reviews held out is {:.2} -> {:.2}, by those that were shown.",
        report.demonstrations_before, report.demonstrations_after
    ))?;
    say(&format!("   The reward model tells {:.0} % of the pairs held out apart.", 100.0 * report.reward_accuracy))?;
    say(&format!(
        "   Cheerful are {:.0} % -> {:.0} % of {HELD_OUT} reviews, {} of them different, {:.1} nats away from before (target {TARGET}).",
        100.0 * report.cheerful_before,
        100.0 * report.cheerful_after,
        report.distinct_after,
        report.kl
    ))?;
    say(&format!("   {:.1} s in all", report.seconds))?;
    match &arguments.out {
        Some(_) => say(&format!("   The stages are in {}, told by rlhf.html there", out.join("rlhf").display())),
        None => say("   Keep the stages and the page of their curves with --out DIR; make your own with `wgtune rlhf --help`"),
    }
}

/// The stages, as a file of `wgtune rlhf`.
fn stages(arguments: &Arguments, base: &Path, [shown, judged, asked]: [&str; 3]) -> String {
    let compute = &arguments.compute;
    let precision = compute.matmul_precision.to_possible_value().expect("every precision has a name");
    format!(
        "model = {}\ndevice = {}\nseed = {}\nmatmul-precision = \"{}\"\nno-tune = {}\nrank = 8\nschedule = \"constant\"\n\n\
         [sft]\ndata = [{shown}]\nsteps = 60\nbatch-size = 16\nlearning-rate = 2e-3\nvalidation = 50\n\n\
         [reward]\ndata = [{judged}]\nsteps = 40\nbatch-size = 8\nlearning-rate = 2e-3\nvalidation = 50\n\n\
         [ppo]\ndata = [{asked}]\nsteps = 72\nbatch-size = 32\nrollouts = 128\nphase-epochs = 2\nlearning-rate = 1e-3\n\
         max-new-tokens = 40\nkl-coef = 0.05\nkl-target = {TARGET:?}\nlambda = 0.98\ncritic-rate = 2\nvalidation = {HELD_OUT}\n",
        json!(base),
        json!(compute.device),
        compute.seed,
        precision.get_name(),
        compute.no_tune,
    )
}

fn came_to(run: &Run, begun: Instant) -> Report {
    let figure = |stage: usize, pointer: &str| {
        run.stages.get(stage).and_then(|made| made.report.pointer(pointer)).and_then(Value::as_f64).unwrap_or_default()
    };
    let policy = run.stages.last();
    let spoken = policy.map_or(&[][..], |made| &made.samples);
    let cheerful =
        |texts: &[&str]| texts.iter().filter(|text| mood(text) == Some(Mood::Good)).count() as f64 / texts.len().max(1) as f64;
    let [before, mut after]: [Vec<&str>; 2] =
        [spoken.iter().map(|spoken| &*spoken.before).collect(), spoken.iter().map(|spoken| &*spoken.after).collect()];
    let (cheerful_before, cheerful_after) = (cheerful(&before), cheerful(&after));
    after.sort_unstable();
    after.dedup();
    let kl = policy.and_then(|made| made.curves.get("objective/kl")).and_then(|curve| curve.last());
    Report {
        demonstrations_before: figure(0, "/validation_before/loss"),
        demonstrations_after: figure(0, "/validation_after/loss"),
        reward_accuracy: figure(1, "/validation_after/accuracy"),
        cheerful_before,
        cheerful_after,
        distinct_after: after.len(),
        kl: kl.map_or(0.0, |(_, kl)| *kl),
        seconds: begun.elapsed().as_secs_f64(),
    }
}
