//! Several stages as one run: each begins where the one before came to, a run that is cut off comes to the same, and a file that says
//! what no stage takes is refused before any work.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wgtune_engine::random::Philox;

use crate::folder::Folder;

/// Two rounds of PPO after demonstrations and a reward model, on a model of four sentences.
const FILE: &str = r#"model = "model"
device = "cpu"
rank = 4
validation = 4
save-every = 1
no-tensorboard = true

[sft]
data = ["demonstrations.jsonl"]
steps = 8
learning-rate = 0.01

[reward]
data = ["pairs.jsonl"]
steps = 12
learning-rate = 0.01

[ppo]
data = ["prompts.jsonl"]
steps = 8
learning-rate = 0.01
max-new-tokens = 6
batch-size = 8
rollouts = 16
phase-epochs = 2
kl-target = 6
"#;

fn folder() -> Folder {
    let folder = Folder::pretrained();
    let begins = ["The cat sat on the", "The dog ran in the", "A bird sang in the", "The sun rose over the"];
    let ends = [" mat.", " park.", " tree.", " hill."];
    let rows = |row: &dyn Fn(usize) -> Value| (0..16).map(row).collect::<Vec<_>>();
    folder.write_rows(
        "demonstrations.jsonl",
        &rows(&|at| json!({"prompt": begins[at % 4], "completion": ends[(at + at / 4) % 4]})),
    );
    folder.write_rows("pairs.jsonl", &rows(&|at| json!({"prompt": begins[at % 4], "chosen": ends[3], "rejected": ends[at % 3]})));
    folder.write_rows("prompts.jsonl", &rows(&|at| json!({"prompt": begins[at % 4]})));
    folder.write("words.txt", "park\n\nTree\n");
    folder.write("rlhf.toml", FILE);
    folder
}

/// What a run came to, without what the clock and the machine decide, and without its own place.
fn came_to(folder: &Folder, out: &str) -> String {
    let mut run = folder.json(&format!("{out}/rlhf.json"));
    for stage in run["stages"].as_array_mut().unwrap() {
        for key in ["tokens_per_second", "peak_tensor_bytes", "peak_process_bytes", "first_loss", "last_loss", "alarms"] {
            stage["report"].as_object_mut().unwrap().remove(key);
        }
    }
    run.to_string().replace(&format!("{out}/"), "").replace(&format!("\"out\":\"{out}\""), "")
}

const WEIGHTS: [&str; 4] = ["sft", "round-1/reward", "round-1/ppo", "round-2/ppo"];

fn weights(folder: &Folder, out: &str) -> Vec<Vec<u8>> {
    WEIGHTS.iter().map(|stage| folder.read(&format!("{out}/{stage}/adapter_model.safetensors"))).collect()
}

#[test]
fn each_stage_begins_where_the_one_before_came_to() {
    let folder = folder();
    let command = "rlhf --config rlhf.toml --out run --safety-words words.txt";
    let printed: Value = serde_json::from_str(&folder.succeeds(&format!("{command} --samples 2 --json"))).unwrap();
    assert_eq!(printed, folder.json("run/rlhf.json"));
    let stages = printed["stages"].as_array().unwrap();
    assert_eq!(
        stages.iter().map(|stage| stage["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["sft", "round-1/reward", "round-1/ppo"]
    );
    let option = |at: usize, option: &str| {
        let words = stages[at]["command"].as_array().unwrap().iter().filter_map(Value::as_str);
        words.filter_map(|word| word.strip_prefix(option)).map(String::from).collect::<Vec<_>>()
    };
    assert_eq!([1, 2].map(|at| option(at, "--adapter=")), [["run/sft"], ["run/sft"]]);
    assert_eq!(option(2, "--reward-model="), ["run/round-1/reward"]);
    assert_eq!(option(2, "--reward-weights="), ["1,0"]);

    // The policy begins as the demonstrations left it: its own answers are the same, and so is what they are worth.
    let lines = folder.lines("run/round-1/ppo/samples.jsonl");
    assert_eq!(lines.len(), 8, "four held out, before and after");
    let spoken = &stages[2]["samples"];
    assert_eq!((spoken.as_array().unwrap().len(), &spoken[0]["before"]), (2, &lines[0]["text"]));
    let safe = |step: u64| {
        let texts: Vec<&str> =
            lines.iter().filter(|line| line["step"] == step).map(|line| line["text"].as_str().unwrap()).collect();
        let has =
            |text: &&&str| text.split(|letter: char| !letter.is_alphanumeric()).any(|word| ["park", "tree"].contains(&word));
        1.0 - texts.iter().filter(has).count() as f64 / texts.len() as f64
    };
    assert_eq!(stages[2]["safety"], json!([{"before": safe(0), "after": safe(8)}]));
    // The safety is told, and earns nothing.
    let reward = |when: &str, name: &str| stages[2]["report"][format!("validation_{when}")][name].as_f64().unwrap();
    assert_eq!(reward("before", "reward"), reward("before", "rewards/model"));
    assert_eq!(stages[2]["curves"]["objective/kl"][0], json!([1.0, 0.0]));
    assert!(stages[2]["curves"]["objective/kl"].as_array().unwrap()[7][1].as_f64().unwrap() > 0.01);
    let page = String::from_utf8(folder.read("run/rlhf.html")).unwrap();
    assert!(
        ["Before and after", "Distance from the start", "safe answers", "round-1/ppo"].iter().all(|text| page.contains(text))
    );

    // Another round goes on where this one came to, and makes nothing again.
    folder.fails(command, &["run holds a run", "--resume", "--overwrite"]);
    let (before, weights) = (folder.contents("run/round-1"), folder.read("run/round-1/ppo/adapter_model.safetensors"));
    let again = folder.run(&format!("{command} --samples 2 --rounds 2 --resume"));
    assert_eq!((again.code, again.stderr.matches("made before").count()), (Some(0), 3), "{}", again.stderr);
    assert!(folder.contents("run/round-1") == before);
    let last = folder.json("run/rlhf.json")["stages"][3].clone();
    let words = last["command"].to_string();
    assert!(words.contains("--model=model") && words.contains("--adapter=run/round-1/ppo"), "{words}");
    // What was held out of one round is of every.
    let prompts = |round: usize| {
        let lines = folder.lines(&format!("run/round-{round}/ppo/samples.jsonl"));
        lines.iter().map(|line| line["prompt"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(prompts(1), prompts(2));
    assert_eq!(last["curves"]["objective/kl"][0], json!([1.0, 0.0]));

    // However the folder is spelled, and only what is there is not made again.
    std::fs::remove_dir_all(folder.path("run/round-2/ppo")).unwrap();
    let again = folder.run(&format!("{command} --samples 2 --rounds 2 --resume").replace("--out run", "--out run/"));
    assert_eq!((again.code, again.stderr.matches("made before").count()), (Some(0), 3), "{}", again.stderr);
    assert_eq!(folder.json("run/rlhf.json")["stages"][3]["report"]["validation_after"], last["report"]["validation_after"]);
    // A run that is refused leaves the file of its stages.
    folder.write("rlhf.toml", FILE.replace("steps = 12", "steps = 13"));
    folder.fails(&format!("{command} --rounds 2 --resume"), &["`steps`"]);
    assert!(folder.read("run/rlhf.toml") == FILE.as_bytes());
    folder.write("rlhf.toml", FILE);

    // Rows that changed are not those that a stage was made of.
    let pairs = folder.read("pairs.jsonl");
    folder.write("pairs.jsonl", pairs.split_inclusive(|byte| *byte == b'\n').take(12).collect::<Vec<_>>().concat());
    folder.fails(&format!("{command} --rounds 2 --resume"), &["run/round-1/reward", "`data`"]);
    folder.write("pairs.jsonl", pairs);

    folder.write("run/notes.txt", "mine");
    folder.fails(&format!("{command} --overwrite"), &["run holds notes.txt"]);
    std::fs::remove_file(folder.path("run/notes.txt")).unwrap();
    folder.write("run/round-1/ppo/notes.txt", "mine");
    folder.fails(&format!("{command} --overwrite"), &["notes.txt"]);
    std::fs::remove_file(folder.path("run/round-1/ppo/notes.txt")).unwrap();
    folder.succeeds(&format!("{command} --overwrite"));
    assert!(!folder.path("run/round-2").exists());
    assert!(folder.read("run/round-1/ppo/adapter_model.safetensors") == weights);
}

#[test]
fn killed_in_any_stage_it_comes_to_the_same() {
    let folder = folder();
    let command = "rlhf --config rlhf.toml --rounds 2 --safety-words words.txt";
    let begun = Instant::now();
    folder.succeeds(&format!("{command} --out whole"));
    let duration = begun.elapsed();
    let random = Philox::new(3);
    for attempt in 0.. {
        let mut child = folder.start(&format!("{command} --out killed --resume"));
        // A little way each time, so that every stage is met.
        std::thread::sleep(Duration::from_millis(60) + duration.mul_f32(0.3 * random.uniform(attempt)));
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(status) = ended {
            assert!(status.success());
            break;
        }
    }
    let [killed, whole] = ["killed", "whole"].map(|out| came_to(&folder, out));
    let differs = || killed.bytes().zip(whole.bytes()).position(|(one, other)| one != other).unwrap_or_default();
    assert!(killed == whole, "{} …\n{} …", &killed[differs()..][..80], &whole[differs()..][..80]);
    assert!(weights(&folder, "killed") == weights(&folder, "whole"));
}

#[test]
fn a_judge_gives_every_rounds_reward_model_more_rows() {
    let folder = folder();
    folder.set("model/config.json", json!({"max_position_embeddings": 1024}));
    folder.write("rubric.txt", "Shorter.\n");
    let (begin, rest) = FILE.split_once("[reward]").unwrap();
    let judge = "[judge]\ndata = [\"prompts.jsonl\"]\nrubric = \"rubric.txt\"\ntie = 0\nmax-new-tokens = 4\n\n[reward]";
    folder.write("rlhf.toml", format!("{begin}{judge}{rest}"));
    let command = "rlhf --config rlhf.toml --rounds 2";
    folder.succeeds(&format!("{command} --out whole"));
    let stages = folder.json("whole/rlhf.json")["stages"].clone();
    let words = |name: &str| {
        let stage = stages.as_array().unwrap().iter().find(|stage| stage["name"] == name);
        stage.unwrap_or_else(|| panic!("{name}: {stages}"))["command"].to_string()
    };
    assert!(words("round-1/judge.jsonl").contains("--policy-adapter=whole/sft"));
    assert!(words("round-2/judge.jsonl").contains("--policy-adapter=whole/round-1/ppo"));
    let [first, second] = ["round-1/reward", "round-2/reward"].map(words);
    assert!(first.contains("--data=pairs.jsonl") && first.contains("--data=whole/round-1/judge.jsonl"), "{first}");
    assert!(second.contains("--data=whole/round-1/judge.jsonl") && second.contains("--data=whole/round-2/judge.jsonl"));
    assert!(words("round-2/ppo").contains("--reward-model=whole/round-2/reward"));
    assert!(!folder.lines("whole/round-1/judge.jsonl").is_empty());
    // Cut off between stages or within one, it comes to the same.
    for pause in [150, 400, 650] {
        let mut child = folder.start(&format!("{command} --out killed --resume"));
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    folder.succeeds(&format!("{command} --out killed --resume"));
    for name in ["round-1/judge.jsonl", "round-2/judge.jsonl", "round-2/ppo/adapter_model.safetensors"] {
        assert!(folder.read(&format!("killed/{name}")) == folder.read(&format!("whole/{name}")), "{name}");
    }
    folder.succeeds(&format!("{command} --out killed --overwrite"));
}

#[test]
fn whole_models_go_from_stage_to_stage_too() {
    let folder = folder();
    folder.write(
        "full.toml",
        "model = \"model\"\ndevice = \"cpu\"\nmethod = \"full\"\nrounds = 2\nout = \"run\"\nno-tensorboard = true\nsteps = 4\n\
         learning-rate = 1e-3\nvalidation = 0\n\n[sft]\ndata = [\"demonstrations.jsonl\"]\n\n[grpo]\ndata = [\"prompts.jsonl\"]\n\
         answers = 4\nreward-rule = [\"length=3\"]\nmax-new-tokens = 6\nbatch-size = 8\n",
    );
    folder.succeeds("rlhf --config full.toml");
    let stages = folder.json("run/rlhf.json")["stages"].clone();
    let words = |at: usize| stages[at]["command"].to_string();
    assert!(words(1).contains("--model=run/sft") && words(2).contains("--model=run/round-1/grpo"), "{stages}");
    // An adapter on a model that a stage made stays on that.
    let file = String::from_utf8(folder.read("full.toml"))
        .unwrap()
        .replace("method = \"full\"\n", "")
        .replace("[sft]", "[sft]\nmethod = \"full\"");
    folder.write("mixed.toml", file.replace("out = \"run\"", "out = \"mixed\""));
    folder.succeeds("rlhf --config mixed.toml");
    let last = folder.json("mixed/rlhf.json")["stages"][2]["command"].to_string();
    assert!(last.contains("--model=mixed/sft") && last.contains("--adapter=mixed/round-1/grpo"), "{last}");
    assert!(folder.read("run/round-2/grpo/model.safetensors") != folder.read("run/round-1/grpo/model.safetensors"));
}

#[test]
fn what_no_stage_takes_is_refused_before_any_work() {
    let folder = folder();
    let ppo = "[ppo]\ndata = [\"prompts.jsonl\"]\n";
    for (file, expected) in [
        ("model = \"model\"\n".to_string(), &["f.toml", "expected one of [ppo] or [grpo]"][..]),
        (format!("model = \"model\"\n{ppo}[grpo]\ndata = [\"prompts.jsonl\"]\n"), &["expected one of [ppo] or [grpo]"]),
        (format!("model = \"model\"\n{ppo}[tpo]\nx = 1\n"), &["f.toml:4: [tpo] is no stage"]),
        (format!("model = \"model\"\nsft = 1\n{ppo}"), &["f.toml:2: `sft` is a stage"]),
        (format!("model = \"model\"\nkl_target = 1\n{ppo}"), &["f.toml:2: `kl_target` is no option"]),
        (format!("model = \"model\"\n{ppo}steps = \"many\"\n"), &["f.toml:4: `steps` is \"many\"; expected a number"]),
        (format!("model = \"model\"\n{ppo}stepz = 1\n"), &["f.toml:4: `stepz` is no option of wgtune ppo"]),
        (format!("model = \"model\"\n{ppo}out = \"x\"\n"), &["f.toml:4: `out` is the whole run's"]),
        (format!("model = \"model\"\n{ppo}model = \"x\"\n"), &["f.toml:4: `model` is one for all stages"]),
        (ppo.to_string(), &["f.toml:1: [ppo]: ", "--model"]),
        (format!("model = \"model\"\n{ppo}[judge]\ndata = [\"prompts.jsonl\"]\n"), &["f.toml:4: [judge] without a reward model"]),
        (
            format!("model = \"model\"\n{ppo}rank = 4\n[sft]\ndata = [\"demonstrations.jsonl\"]\n"),
            &["f.toml:2: [ppo]: `rank` is of a new adapter"],
        ),
        (format!("model = \"model\"\n{ppo}reward-model = [\"none\"]\n"), &["f.toml:2: [ppo]: ", "none"]),
        (format!("model = \"model\"\n{ppo}rollouts = 5\n"), &["f.toml:2: [ppo]: --rollouts is 5"]),
        (format!("model = \"model\"\n{}", ppo.replace("prompts", "none")), &["f.toml:2: [ppo]: ", "none.jsonl"]),
        (
            format!("model = \"model\"\nrounds = 2\n{ppo}method = \"full\"\n[reward]\ndata = [\"pairs.jsonl\"]\n"),
            &["f.toml:6: [reward]: an adapter of rewards", "[ppo] trains whole"],
        ),
        (
            format!("model = \"model\"\n{ppo}[reward]\nmodel = \"other\"\ndata = [\"pairs.jsonl\"]\n"),
            &["f.toml:4: [reward]: an adapter on a model of its own"],
        ),
        (format!("model = \"model\"\nrounds = 0\n{ppo}"), &["f.toml:2: `rounds` is 0"]),
        (format!("model = \"model\"\n{ppo}"), &["f.toml:2: [ppo]: nothing says how good an answer is"]),
        (format!("model = \"model\"\n{ppo}reward-rule = [\"lengthy\"]\n"), &["f.toml:2: [ppo]: --reward-rule \"lengthy\""]),
        (
            format!("model = \"model\"\n{ppo}reward-rule = [\"exact\"]\n"),
            &["f.toml:2: [ppo]: ", "prompts.jsonl:1: a rule compares with a completion"],
        ),
        (
            format!("model = \"model\"\n{ppo}reward-rule = [\"length\"]\nreward-weights = \"1,2\"\n"),
            &["f.toml:2: [ppo]: --reward-weights has 2 numbers"],
        ),
        (
            format!("model = \"model\"\n{ppo}reward-rule = [\"length\"]\nmax-new-tokens = 2000\n"),
            &["f.toml:2: [ppo]: no prompt leaves room for 2000 new tokens"],
        ),
        (
            format!("model = \"model\"\n{ppo}[reward]\ndata = [\"demonstrations.jsonl\"]\n"),
            &["f.toml:4: [reward]: demonstrations.jsonl:1: a row without a preference"],
        ),
    ] {
        folder.write("f.toml", &file);
        folder.fails("rlhf --config f.toml --out new", expected);
        assert!(!folder.path("new").exists(), "{file}");
    }
    folder.write("f.toml", format!("model = \"model\"\n{ppo}"));
    folder.fails("rlhf --config f.toml --out new --device cpu", &["--device"]);
    folder.fails("rlhf --config f.toml", &["--out"]);
    folder.fails("rlhf --out new", &["--config"]);
    folder.write("f.toml", format!("model = \"model\"\nvalidation = 0\n{ppo}"));
    folder.fails("rlhf --config f.toml --out new --safety-words words.txt", &["f.toml:3: [ppo]: ", "`validation` above 0"]);
    folder.write("empty.txt", "\n");
    folder.fails("rlhf --config f.toml --out new --safety-words empty.txt", &["empty.txt has no words"]);
}
