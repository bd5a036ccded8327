//! Every command from end to end, on a model that was pretrained a moment ago.

use serde_json::{Value, json};
use wgtune_models::formats::safetensors::Weights;

use crate::folder::{Folder, TINY};

const COMMANDS: [&str; 14] = [
    "bench",
    "devices",
    "pretrain",
    "sft",
    "compare",
    "generate",
    "tokenize",
    "eval",
    "merge",
    "convert",
    "tasks",
    "logits",
    "demo",
    "completions",
];

#[test]
fn every_command_shows_an_example() {
    let folder = Folder::new();
    for command in COMMANDS {
        let help = folder.succeeds(&format!("{command} --help"));
        assert!(help.contains("Example") && help.contains(&format!("  wgtune {command}")), "{help}");
    }
    let help = folder.succeeds("--help");
    assert!(COMMANDS.iter().all(|command| help.contains(&format!("  {command} "))), "{help}");
}

#[test]
fn devices_are_listed() {
    let folder = Folder::new();
    let report = folder.reports("devices --json");
    assert!(report["cpu_threads"].as_u64().unwrap() >= 1);
    assert!(report["adapters"].as_array().unwrap().iter().all(|adapter| adapter["name"].is_string()), "{report}");
    assert!(folder.succeeds("devices").starts_with("cpu "));
}

#[test]
fn pretraining_learns_a_repetitive_text() {
    let folder = Folder::pretrained();
    let lines = folder.lines("model/metrics.jsonl");
    let keys = [
        "step",
        "loss",
        "grad_norm",
        "learning_rate",
        "entropy",
        "mean_token_accuracy",
        "num_tokens",
        "epoch",
        "tokens_per_second",
        "peak_tensor_bytes",
    ];
    assert_eq!(lines.len(), 30);
    for (index, line) in lines.iter().enumerate() {
        // What the process holds, only some systems tell.
        let found = line.as_object().unwrap().keys().filter(|key| *key != "peak_process_bytes");
        assert_eq!(found.collect::<Vec<_>>(), keys);
        assert!(keys.iter().all(|key| line[key].as_f64().is_some_and(|value| value >= 0.0)), "{line}");
        assert_eq!(line["step"], index as u64 + 1);
    }
    let loss = |index: usize| lines[index]["loss"].as_f64().unwrap();
    // Before the first update every token of the vocabulary is about as likely.
    let vocabulary = folder.json("model/config.json")["vocab_size"].as_f64().unwrap();
    assert!((loss(0) - vocabulary.ln()).abs() < 0.3, "{}", loss(0));
    assert!(loss(29) < 0.5 * loss(0), "{} after {}", loss(29), loss(0));
    folder.check_whole("model");
}

#[test]
fn a_model_is_tuned_measured_asked_merged_and_compared() {
    let folder = Folder::pretrained();
    let row = |sentence: &str| json!({"prompt": sentence, "completion": " Yes."});
    folder
        .write_rows("rows.jsonl", &["The cat sat on the mat.", "The dog ran in the park.", "A bird sang in the tree."].map(row));
    let rows = "--model model --data rows.jsonl --device cpu";
    let before = folder.reports(&format!("eval {rows} --json"));
    let report = folder
        .reports(&format!("sft {rows} --out adapter --steps 60 --learning-rate 1e-2 --targets all-linear --validation 0 --json"));
    assert_eq!(report["steps"], 60);
    assert!(report["last_loss"].as_f64() < report["first_loss"].as_f64(), "{report}");
    assert!(report["trained_parameters"].as_u64() < report["all_parameters"].as_u64(), "{report}");
    let after = folder.reports(&format!("eval {rows} --adapter adapter --json"));
    assert_eq!(before["trained_tokens"], after["trained_tokens"]);
    let (loss, perplexity) = (after["loss"].as_f64().unwrap(), after["perplexity"].as_f64().unwrap());
    assert!(loss < 0.5 * before["loss"].as_f64().unwrap(), "{before} {after}");
    assert!((perplexity - loss.exp()).abs() < 1e-9 * perplexity);
    assert!(folder.succeeds(&format!("eval {rows} --adapter adapter")).contains("perplexity"));

    let asked = [
        "generate",
        "--model",
        "model",
        "--adapter",
        "adapter",
        "--prompt",
        "The dog ran in the park.",
        "--temperature",
        "0",
        "--device",
        "cpu",
    ];
    assert_eq!(folder.succeeds_with(&asked), " Yes.\n");

    let merged = folder.reports("merge --model model --adapter adapter --out merged --device cpu --json");
    // Sums in another order, over a few dozen terms of f32 near 1.
    assert!(merged["largest_logit_difference"].as_f64().unwrap() < 1e-3, "{merged}");
    assert_eq!(merged["merged_layers"], 14);
    let evaluated = folder.reports(&format!("eval {} --json", rows.replace("--model model", "--model merged")));
    assert!((evaluated["loss"].as_f64().unwrap() - loss).abs() < 1e-3, "{evaluated} {after}");
    folder.check_whole("merged");

    let said = folder.succeeds("merge --model model --adapter adapter --out again --device cpu");
    assert!(
        said.contains("merged 14 layers into again (f32)") && said.contains("largest difference of logits before and after: "),
        "{said}"
    );
}

#[test]
fn a_profiled_run_says_where_its_time_goes() {
    let folder = Folder::new();
    let run =
        folder.run("sft --model model --data rows.jsonl --out tuned --steps 5 --validation 0 --device cpu --profile trace.json");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(
        run.stderr.contains("kernel") && run.stderr.contains("matmul") && run.stderr.contains("trace.json"),
        "{}",
        run.stderr
    );
    let trace = folder.json("trace.json");
    let events = trace["traceEvents"].as_array().unwrap();
    let timed: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
    for kernel in ["matmul", "attention", "adamw"] {
        assert!(timed.iter().any(|event| event["name"] == kernel), "{kernel}");
    }
    let starts: Vec<f64> = timed.iter().map(|event| event["ts"].as_f64().unwrap()).collect();
    assert!(starts.is_sorted() && timed.iter().all(|event| event["dur"].as_f64().unwrap() >= 0.0));
    let short =
        folder.run("sft --model model --data rows.jsonl --out short --steps 1 --validation 0 --device cpu --profile none.json");
    assert!(short.code == Some(0) && short.stderr.contains("nothing to profile"), "{}", short.stderr);
}

#[test]
fn generation_is_repeatable_and_stops_where_it_is_told() {
    let folder = Folder::pretrained();
    let generate = |more: &[&str]| {
        let arguments =
            [&["generate", "--model", "model", "--prompt", "The cat", "--max-new-tokens", "12", "--device", "cpu"], more]
                .concat();
        folder.succeeds_with(&arguments)
    };
    let report = |more: &[&str]| serde_json::from_str::<Value>(&generate(&[more, &["--json"]].concat())).unwrap();
    let greedy = report(&["--temperature", "0"]);
    assert_eq!(greedy["text"], report(&["--temperature", "0", "--seed", "9"])["text"]);
    assert_eq!(format!("{}\n", greedy["text"].as_str().unwrap()), generate(&["--temperature", "0"]));
    assert!(greedy["text"].as_str().unwrap().starts_with(" sat on"), "{greedy}");
    assert_eq!(greedy["finish_reason"], "length");
    assert_eq!(greedy["ids"].as_array().unwrap().len(), 12);
    assert!(greedy["tokens_per_second"].as_f64().unwrap() > 0.0);

    let sampled = |seed: &str| {
        report(&["--temperature", "2", "--top-k", "50", "--top-p", "0.99", "--repetition-penalty", "1.1", "--seed", seed])
    };
    assert_eq!(sampled("1")["ids"], sampled("1")["ids"]);
    assert_ne!(sampled("1")["ids"], sampled("2")["ids"]);

    let stopped = report(&["--temperature", "0", "--stop", "never", "--stop", "t on"]);
    assert_eq!((&stopped["text"], &stopped["finish_reason"]), (&json!(" sa"), &json!("stop")));
    assert_eq!(generate(&["--temperature", "0", "--stop", "t on"]), " sa\n");
}

#[test]
fn ids_need_no_tokenizer() {
    let folder = Folder::new();
    let report = folder.reports("generate --model model --ids 1,2,3 --max-new-tokens 5 --temperature 0 --device cpu --json");
    let ids = report["ids"].as_array().unwrap();
    assert!(!ids.is_empty() && ids.iter().all(|id| id.as_u64().unwrap() < 64), "{report}");
    let text = folder.succeeds("generate --model model --ids 1,2,3 --max-new-tokens 5 --temperature 0 --device cpu");
    assert_eq!(text.split_whitespace().map(|id| json!(id.parse::<u32>().unwrap())).collect::<Vec<_>>(), *ids);
}

#[test]
fn a_chat_answers_each_line() {
    let folder = Folder::pretrained();
    folder.write("questions.txt", "The cat\n\nThe dog\n");
    let mut command = folder.command(&["generate", "--model", "model", "--chat", "--max-new-tokens", "4", "--device", "cpu"]);
    let questions = std::fs::File::open(folder.path("questions.txt")).unwrap();
    let run = crate::folder::Run::new(command.stdin(questions).output().unwrap());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.lines().count() >= 2, "{}", run.stdout);
}

#[test]
fn logits_are_printed_and_written() {
    let folder = Folder::new();
    let report = folder.reports("logits --model model --ids 1,2,3 --out logits.safetensors --device cpu");
    let top = report["top"].as_array().unwrap();
    assert_eq!((top.len(), &report["ids"]), (10, &json!([1, 2, 3])));
    assert!(top.windows(2).all(|pair| pair[0]["logit"].as_f64() >= pair[1]["logit"].as_f64()), "{report}");

    let weights = Weights::open_file(&folder.path("logits.safetensors")).unwrap();
    let logits = weights.get("logits").unwrap();
    assert_eq!(logits.shape, [3, 64]);
    let last = &logits.to_f32()[2 * 64..];
    let total: f64 = last.iter().map(|&logit| f64::from(logit).exp()).sum();
    for candidate in top {
        let logit = last[candidate["id"].as_u64().unwrap() as usize];
        assert_eq!(candidate["logit"].as_f64().unwrap() as f32, logit);
        let probability = candidate["probability"].as_f64().unwrap();
        assert!((probability - f64::from(logit).exp() / total).abs() < 1e-12, "{candidate}");
    }
}

#[test]
fn what_a_model_sees_is_shown() {
    let folder = Folder::pretrained();
    let tokenize = |source: [&str; 2]| {
        let text = folder.succeeds_with(&["tokenize", "--model", "model", source[0], source[1], "--json"]);
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let report = tokenize(["--text", "The cat"]);
    assert_eq!(report["ids"].as_array().unwrap().len(), report["pieces"].as_array().unwrap().len());
    let logits = folder.succeeds_with(&["logits", "--model", "model", "--prompt", "The cat", "--device", "cpu"]);
    assert_eq!(serde_json::from_str::<Value>(&logits).unwrap()["ids"], report["ids"]);

    folder.write("chat.json", json!({"messages": [{"role": "user", "content": "The cat"}]}).to_string());
    let conversation = tokenize(["--messages", "chat.json"]);
    assert_eq!(conversation["text"], "<|im_start|>user\nThe cat<|im_end|>\n");
    assert_eq!(conversation["pieces"][0], "<|im_start|>");
    let lines = folder.succeeds_with(&["tokenize", "--model", "model", "--text", "The cat"]);
    assert!(lines.ends_with(&format!("{} tokens\n", report["ids"].as_array().unwrap().len())), "{lines}");
}

#[test]
fn a_template_of_ones_own_is_used_and_goes_with_what_was_trained() {
    let folder = Folder::pretrained();
    folder.write("own.jinja", "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}");
    folder.write("chat.json", r#"[{"role": "user", "content": "The cat"}]"#);
    let shown = folder.reports("tokenize --model model --messages chat.json --template own.jinja --json");
    assert_eq!(shown["text"], "[user] The cat<|endoftext|>");
    let messages = json!([{"role": "user", "content": "The cat"}, {"role": "assistant", "content": "sat."}]);
    folder.write_rows("chats.jsonl", &[json!({"messages": messages})]);
    let sft = "sft --model model --data chats.jsonl --out tuned --steps 1 --validation 0 --device cpu";
    folder.succeeds(&format!("{sft} --template own.jinja"));
    assert_eq!(folder.read("tuned/chat_template.jinja"), folder.read("own.jinja"));
    folder.fails(&format!("{sft} --overwrite --template nowhere.jinja"), &["nowhere.jinja", "No such file"]);
    folder.fails("generate --model model --prompt x --system y --device cpu", &["--system", "cannot be used with", "--prompt"]);
}

#[test]
fn things_can_be_turned_off() {
    let folder = Folder::new();
    let train =
        "sft --model model --data rows.jsonl --steps 6 --learning-rate 1e-2 --method full --device cpu --schedule constant";
    folder.succeeds(&format!("{train} --out off --clip 0 --warmup 0 --weight-decay 0 --validation 0"));
    folder.succeeds(&format!(
        "{train} --out on --clip 0.1 --warmup 3 --weight-decay 0.5 --validation 4 --checkpoint-blocks --no-shuffle"
    ));
    let rates = |out: &str| -> Vec<f64> {
        folder.lines(&format!("{out}/metrics.jsonl")).iter().map(|line| line["learning_rate"].as_f64().unwrap()).collect()
    };
    assert_eq!(rates("off"), [1e-2; 6]);
    assert_eq!(rates("on")[0], 0.0);
    assert_eq!(rates("on")[3..], [1e-2; 3]);
}

#[test]
fn progress_goes_to_standard_error_and_nobody_needs_to_listen() {
    let folder = Folder::new();
    let run = folder.run("sft --model model --data rows.jsonl --out out --steps 3 --validation 2 --device cpu");
    for said in [
        "rows.jsonl: 16 rows of input_ids + labels",
        "14 rows, 14 examples of",
        "training 7040 of 25120 parameters (28.03 %) on CPU",
        "validation before: loss ",
        "training 3/3 loss ",
        "validation after: loss ",
    ] {
        assert!(run.stderr.contains(said), "expected {said:?} in: {}", run.stderr);
    }
    assert!(run.stdout.starts_with("wrote out after 3 steps on "), "{}", run.stdout);

    let arguments = ["sft", "--model", "model", "--data", "rows.jsonl", "--out", "unheard", "--steps", "3", "--device", "cpu"];
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = folder.command(&arguments).stderr(writer.try_clone().unwrap()).stdout(writer).status().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn a_quiet_program_says_only_its_results_and_errors() {
    let folder = Folder::new();
    let run = folder.run("sft --model model --data rows.jsonl --out out --steps 2 --device cpu --quiet");
    assert!(run.code == Some(0) && run.stderr.is_empty() && run.stdout.starts_with("wrote out"), "{}", run.stderr);
    folder.run("--quiet eval --model model --data nowhere.jsonl --device cpu").failed(&["nowhere.jsonl"]);
}

#[test]
fn drivers_say_nothing_of_a_desktop_that_is_not_there() {
    let folder = Folder::new();
    for arguments in [&["devices"][..], &["logits", "--model", "model", "--ids", "1", "--quiet"]] {
        let run = crate::folder::Run::new(folder.command(arguments).env_remove("XDG_RUNTIME_DIR").output().unwrap());
        assert!(run.code == Some(0) && run.stderr.is_empty(), "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn shells_get_completions() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = folder.succeeds(&format!("completions {shell}"));
        assert!(["sft", "merge", "max-new-tokens"].iter().all(|word| script.contains(word)), "{shell}: {script}");
    }
}

#[test]
fn a_half_precision_model_keeps_its_type() {
    let folder = Folder::pretrained();
    folder.succeeds(&format!("pretrain --data text.txt --out half {TINY} --steps 2 --dtype bf16 --device cpu"));
    folder.write_rows("rows.jsonl", &[json!({"prompt": "The cat", "completion": " sat."})]);
    folder.succeeds("sft --model half --data rows.jsonl --out tuned --method full --steps 1 --device cpu");
    let weights = Weights::open_file(&folder.path("tuned/model.safetensors")).unwrap();
    assert_eq!(weights.get("model.norm.weight").unwrap().dtype.to_string(), "bf16");
    assert!(folder.path("tuned/tokenizer.json").exists());
    folder.succeeds("generate --model tuned --prompt The --max-new-tokens 3 --device cpu");
}

#[test]
fn an_adapter_can_be_trained_further() {
    let folder = Folder::new();
    let train = "sft --model model --data rows.jsonl --steps 4 --learning-rate 1e-2 --validation 0 --device cpu --json";
    folder.succeeds(&format!("{train} --out first --rank 4 --rslora --init gaussian"));
    let further = folder.reports(&format!("{train} --out second --adapter first"));
    let fresh = folder.reports(&format!("{train} --out third"));
    assert!(further["first_loss"].as_f64() < fresh["first_loss"].as_f64(), "{further} {fresh}");
    let config = folder.json("second/adapter_config.json");
    assert_eq!((&config["r"], &config["use_rslora"]), (&json!(4), &json!(true)));
}

#[test]
fn the_demo_learns_its_task() {
    let folder = Folder::new();
    let report = folder.reports("demo --json --device cpu --out demo");
    let figure = |pointer: &str| report.pointer(pointer).unwrap().as_f64().unwrap();
    for (way, share) in [("/methods/0", 0.2), ("/methods/1", 0.02)] {
        let of = |name: &str| figure(&format!("{way}/{name}"));
        assert!(of("last_loss") < of("first_loss"), "{report}");
        assert!(of("after/mood") > figure("/before/mood"), "{report}");
        assert!(of("trained_parameters") < share * figure("/parameters"), "{report}");
    }
    folder.check_whole("demo");
}

#[test]
fn the_demo_learns_to_be_cheerful() {
    let folder = Folder::new();
    let report = folder.reports("demo --rlhf --json --device cpu --out demo");
    let figure = |name: &str| report[name].as_f64().unwrap();
    // Three seeds came from a loss of 0.88 to 0.95 to at most 0.57, and from 51 to 60 % to at least 99 %, between 3.4 and 4.3 nats away.
    assert!(figure("demonstrations_after") < 0.75 * figure("demonstrations_before"), "{report}");
    assert!(figure("cheerful_before") < 0.7 && figure("cheerful_after") > 0.85, "{report}");
    assert!(figure("kl") > 0.0 && figure("kl") < 6.0, "{report}");
    assert!(figure("reward_accuracy") > 0.9 && figure("distinct_after") > 60.0, "{report}");
    folder.check_whole("demo/rlhf/round-1/ppo");
    // Its file is one of rlhf's.
    folder.succeeds("rlhf --config demo/rlhf.toml --out demo/rlhf --resume");
}
