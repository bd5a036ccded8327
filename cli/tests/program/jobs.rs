//! Jobs side by side: each as it is alone, and what cannot stand side by side is refused.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wgtune_models::formats::safetensors::Weights;

use crate::folder::{Folder, Run};

/// Four adapters of other methods, rows, lengths and plans.
const JOBS: [(&str, &str); 4] = [
    (
        "lora",
        "data = ['rows.jsonl']\nrank = 4\nsteps = 9\nbatch-size = 3\naccumulate = 2\neval-every = 4\nvalidation = 2\nkeep-last = true\n\
         learning-rate = 0.01",
    ),
    ("prompt", "data = ['other.jsonl']\nmethod = 'prompt'\nvirtual-tokens = 3\nsteps = 7\nlearning-rate = 0.1\nseed = 5"),
    ("prefix", "data = ['rows.jsonl']\nmethod = 'prefix'\nvirtual-tokens = 4\nsteps = 12\nbatch-size = 1"),
    ("ia3", "data = ['other.jsonl']\nmethod = 'ia3'\nsteps = 12\nlearning-rate = 0.02\nwarmup = 3\nmax-length = 24"),
];

const SHARED: &str = "model = 'model'\ndevice = 'cpu'\nvalidation = 0\nschedule = 'constant'\n";

/// A folder with other rows too, and the jobs in a file.
fn folder() -> Folder {
    let folder = Folder::new();
    let other = |length: u32| json!({"input_ids": (0..length).map(|at| (at * at + length) % 60).collect::<Vec<_>>()});
    folder.write_rows("other.jsonl", &(4..40).map(other).collect::<Vec<_>>());
    folder.write("jobs.toml", jobs(&JOBS));
    folder
}

fn jobs(jobs: &[(&str, &str)]) -> String {
    let job = |(out, options): &(&str, &str)| format!("\n[[job]]\nout = '{out}'\n{options}\n");
    [SHARED.to_string()].into_iter().chain(jobs.iter().map(job)).collect()
}

/// A job's options as a file of its own.
fn alone(folder: &Folder, out: &str, options: &str) {
    // What a job says stands in the place of what is said for all.
    let own = |line: &&str| !options.lines().any(|option| option.split(' ').next() == line.split(' ').next());
    let shared: String = SHARED.lines().filter(own).map(|line| format!("{line}\n")).collect();
    folder.write("alone.toml", format!("{shared}{options}"));
    folder.succeeds(&format!("sft --config alone.toml --out alone/{out}"));
}

/// Figures that lie as close as sums in another order do.
#[track_caller]
fn close(one: f64, other: f64, what: &str) {
    assert!((one - other).abs() <= 1e-4 * one.abs().max(1.0), "{what}: {one} and {other}");
}

#[test]
fn each_of_four_jobs_comes_to_what_it_comes_to_alone() {
    let folder = folder();
    let base = folder.read("model/model.safetensors");
    let reports: Value = serde_json::from_str(&folder.succeeds("sft --jobs jobs.toml --json")).unwrap();
    assert_eq!(folder.read("model/model.safetensors"), base);
    for (index, (out, options)) in JOBS.iter().enumerate() {
        alone(&folder, out, options);
        assert_eq!(reports[index]["out"], *out);
        assert_eq!(folder.read(&format!("{out}/run.toml")), folder.read(&format!("alone/{out}/run.toml")), "{out}");
        let lines = |out: &str| folder.lines(&format!("{out}/metrics.jsonl"));
        let (together, by_itself) = (lines(out), lines(&format!("alone/{out}")));
        assert_eq!(together.len(), by_itself.len(), "{out}");
        for (together, by_itself) in together.iter().zip(&by_itself) {
            let figure = |line: &Value, name: &str| line[name].as_f64();
            for name in ["step", "loss", "grad_norm", "learning_rate", "mean_token_accuracy", "num_tokens", "epoch"] {
                close(figure(together, name).unwrap(), figure(by_itself, name).unwrap(), &format!("{out} {name}"));
            }
            assert_eq!(together.get("validation_loss").is_some(), by_itself.get("validation_loss").is_some(), "{out}");
        }
        let weights = |out: &str| Weights::open_file(&folder.path(&format!("{out}/adapter_model.safetensors"))).unwrap();
        let (together, by_itself) = (weights(out), weights(&format!("alone/{out}")));
        assert_eq!(together.names().collect::<Vec<_>>(), by_itself.names().collect::<Vec<_>>());
        for name in together.names() {
            let values = |weights: &Weights| {
                let bytes = weights.get(name).unwrap().bytes.chunks_exact(4);
                bytes.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect::<Vec<f32>>()
            };
            for (one, other) in values(&together).into_iter().zip(values(&by_itself)) {
                // AdamW's first updates are of the learning rate's size whatever the gradient's: a gradient of rounding alone may
                // have either sign.
                assert!((one - other).abs() <= 2e-3, "{out} {name}: {one} and {other}");
            }
        }
    }
}

#[test]
#[cfg(unix)]
fn stopped_jobs_go_on_to_the_same_bits() {
    let folder = folder();
    let long: Vec<(&str, String)> = JOBS.iter().map(|(out, options)| (*out, long(options))).collect();
    let long: Vec<(&str, &str)> = long.iter().map(|(out, options)| (*out, options.as_str())).collect();
    folder.write("jobs.toml", jobs(&long));
    folder.succeeds("sft --jobs jobs.toml");
    let adapter = |out: &str| folder.read(&format!("{out}/adapter_model.safetensors"));
    let whole: Vec<Vec<u8>> = JOBS.iter().map(|(out, _)| adapter(out)).collect();
    JOBS.iter().for_each(|(out, _)| std::fs::remove_dir_all(folder.path(out)).unwrap());

    let child = folder.command(&["sft", "--jobs", "jobs.toml"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    // Past the shortest job's end, which is written then.
    while std::fs::read_to_string(folder.path("ia3/metrics.jsonl")).map_or(0, |text| text.lines().count()) < 40 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no such step was made");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let run = Run::new(child.wait_with_output().unwrap());
    run.failed(&["finishing this step; again to quit", "ia3: stopped after step", "of 400", "--resume goes on"]);
    assert_eq!(run.code, Some(130));
    assert!(adapter("prompt") == whole[1] && !folder.path("ia3/adapter_model.safetensors").exists());

    folder.succeeds("sft --jobs jobs.toml --resume");
    for ((out, _), whole) in JOBS.iter().zip(&whole) {
        assert!(adapter(out) == *whole, "{out}");
    }
}

/// Some thirty times as many steps for all but one, which ends early.
fn long(options: &str) -> String {
    options.replace("steps = 9", "steps = 300").replace("steps = 12", "steps = 400").replace("eval-every = 4", "eval-every = 150")
}

#[test]
fn a_job_that_fails_does_not_end_the_others() {
    let folder = folder();
    let options = "data = ['rows.jsonl']\nsteps = 6\nlearning-rate = 1e38";
    folder.write("jobs.toml", jobs(&[JOBS[1], ("wild", options), JOBS[3]]));
    folder.fails("sft --jobs jobs.toml", &["1 of 3 jobs failed: wild: ", "not finite"]);
    for out in ["prompt", "ia3"] {
        assert!(folder.path(&format!("{out}/adapter_model.safetensors")).exists(), "{out}");
    }
    assert!(!folder.path("wild/adapter_model.safetensors").exists());
}

#[test]
fn jobs_that_cannot_stand_side_by_side_are_refused() {
    let folder = folder();
    let rows = "data = ['rows.jsonl']\nsteps = 1";
    let with = |more: &str| format!("{rows}\n{more}");
    for (text, expected) in [
        ("model = 'model'\n".to_string(), "jobs.toml: no jobs; expected a table [[job]] for each"),
        ("job = 3\n".into(), "jobs.toml:1: no jobs"),
        (jobs(&[("a", rows), ("a", rows)]), "two jobs write a and a: expected an --out for each, none within another's"),
        (jobs(&[("a", rows), ("./a", rows)]), "two jobs write a and ./a"),
        (jobs(&[("a/checkpoint", rows), ("a", rows)]), "two jobs write a/checkpoint and a"),
        (jobs(&[("a", &with("quiet = true"))]), "jobs.toml:10: `quiet` is one for all jobs"),
        (jobs(&[("a", rows)]).replace("[[job]]", "[[jobs]]"), "jobs.toml:6: no jobs; expected a table [[job]] for each"),
        (jobs(&[("a", &with("ranc = 3"))]), "jobs.toml:10: `ranc` is no option of wgtune sft"),
        (jobs(&[("a", rows), ("b", &with("model = 'model'"))]), "jobs.toml:15: `model` is one for all jobs"),
        (jobs(&[("a", &with("resume = true"))]), "jobs.toml:10: `resume` is one for all jobs"),
        (jobs(&[("a", &with("rank = 'four'"))]), "jobs.toml:10: `rank` is 'four'; expected a number"),
        (jobs(&[("a", rows), ("b", "steps = 1")]), "jobs.toml:11: job 2: the following required arguments"),
        (jobs(&[("a", rows), ("b", &with("method = 'ia3'\nrank = 4"))]), "jobs.toml:11: job 2: --rank goes with --method lora"),
        (
            jobs(&[("a", rows), ("b", &with("method = 'full'"))]),
            "is trained whole, and jobs share it: expected what leaves the model as it is, and no --method full",
        ),
        (
            jobs(&[("a", &with("packing = true")), ("b", &with("method = 'prefix'"))]),
            "a puts several texts into a row, and the prefix of b stands before one",
        ),
        (
            jobs(&[("a", rows), ("b", &with("data = ['nowhere.jsonl']"))]).replacen(
                "data = ['rows.jsonl']\nsteps = 1\ndata",
                "data",
                1,
            ),
            "nowhere.jsonl",
        ),
    ] {
        folder.write("jobs.toml", text);
        folder.fails("sft --jobs jobs.toml", &[expected]);
        assert!(folder.names("a").is_empty() && folder.names("b").is_empty(), "{expected}");
    }
    // What a run left is there until another may really begin.
    folder.succeeds("sft --model model --data rows.jsonl --steps 1 --device cpu --out a");
    let before = folder.contents("a");
    folder.write("jobs.toml", jobs(&[("a", rows), ("./a", rows)]));
    folder.fails("sft --jobs jobs.toml --overwrite", &["two jobs write"]);
    assert_eq!(folder.contents("a"), before);
    folder.copy_fixture("llama_rope_dynamic", "dynamic");
    folder.write("jobs.toml", jobs(&[("b", rows), ("c", rows)]).replace("'model'", "'dynamic'"));
    folder.fails("sft --jobs jobs.toml", &["the model's rope goes by the longest row of a pass", "--max-length"]);
    folder.fails("sft --jobs nowhere.toml", &["nowhere.toml"]);
    folder.fails("sft --jobs jobs.toml --config jobs.toml", &["--jobs", "cannot be used with"]);
    folder.fails("sft --jobs jobs.toml --profile trace.json", &["--jobs", "cannot be used with"]);
}
