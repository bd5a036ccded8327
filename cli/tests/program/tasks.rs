//! Tables of tasks, and templates with virtual tokens.

use serde_json::{Value, json};

use crate::folder::{Folder, curve};

const SFT: &str = "sft --model model --validation 0 --learning-rate 0.02 --schedule constant --device cpu";
const GENERATE: &str = "generate --model model --max-new-tokens 6 --temperature 0 --device cpu";
const TEMPLATE: &str = "<|virtual:3|>The {animal}<|virtual:2|> sat";

/// A pretrained model, and rows of a field beside rows of the same texts.
fn folder() -> Folder {
    let folder = Folder::pretrained();
    let animals = ["cat", "dog", "bird", "sun"];
    let row = |animal: &str| json!({"animal": animal, "weight": 3, "completion": " in the park."});
    folder.write_rows("rows.jsonl", &animals.map(row));
    let row = |animal: &str| json!({"prompt": format!("The {animal}"), "completion": " in the park."});
    folder.write_rows("plain.jsonl", &animals.map(row));
    folder
}

/// The arguments of a line, with more behind them that may hold blanks.
fn with<'a>(line: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    line.split_whitespace().chain(more.iter().copied()).collect()
}

#[test]
fn tasks_of_a_table_are_trained_used_and_looked_after_apart() {
    let folder = folder();
    let sft = format!("{SFT} --data plain.jsonl --steps 3 --out table");
    folder.succeeds(&format!("{sft} --task parks --method prompt --virtual-tokens 4"));
    let first = folder.contents("table/parks");
    folder.succeeds(&format!("{sft} --task ranks --method lora --rank 4"));
    assert_eq!(folder.contents("table/parks"), first);
    let second = folder.contents("table/ranks");

    let tasks = folder.reports("tasks list table --json");
    let of = |key: &str| tasks.as_array().unwrap().iter().map(|task| task[key].clone()).collect::<Vec<Value>>();
    assert_eq!(of("name"), ["parks", "ranks"]);
    assert_eq!(of("method"), ["prompt", "lora"]);
    assert_eq!(of("size"), ["4 virtual tokens", "rank 4"]);
    // Vectors of the model's width, 32.
    assert_eq!(of("trained_parameters")[0], 4 * 32);
    assert!(folder.succeeds("tasks list table").contains("parks  prompt"));

    // Each alone, and both in one batch.
    let alone = |task: &str| folder.succeeds(&format!("{GENERATE} --adapter table --task {task} --prompt The"));
    assert_eq!(alone("parks"), folder.succeeds(&format!("{GENERATE} --adapter table/parks --prompt The")));
    let rows = ["parks", "ranks", "parks"].map(|task| json!({"prompt": "The", "task": task}));
    folder.write_rows("requests.jsonl", &rows);
    let answers = folder.succeeds(&format!("{GENERATE} --adapter table --requests requests.jsonl"));
    let texts: Vec<Value> = answers.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].clone()).collect();
    assert_eq!(texts.len(), 3);
    for (row, text) in rows.iter().zip(&texts) {
        assert_eq!(format!("{}\n", text.as_str().unwrap()), alone(row["task"].as_str().unwrap()));
    }
    folder.succeeds("eval --model model --data plain.jsonl --adapter table --task ranks --device cpu");
    folder.succeeds("merge --model model --adapter table --task ranks --out merged --device cpu");
    folder.succeeds(&format!("{SFT} --data plain.jsonl --steps 1 --adapter table/ranks --out table --task further"));
    folder.succeeds(&format!("{SFT} --data plain.jsonl --steps 5 --method lora --rank 4 --out table --task ranks --overwrite"));

    let before = folder.contents("table/ranks");
    assert_ne!(before, second);
    folder.succeeds("tasks rename table further on");
    folder.succeeds("tasks add table copied --adapter table/parks");
    assert_eq!(folder.read("table/copied/adapter_model.safetensors"), folder.read("table/parks/adapter_model.safetensors"));
    folder.fails("tasks remove table on", &["left as it is", "--yes"]);
    folder.succeeds("tasks remove table on --yes");
    folder.fails("tasks add table copied --adapter table/ranks", &["copied is there already", "--overwrite"]);
    folder.succeeds("tasks add table copied --adapter table/ranks --overwrite");
    assert_eq!(folder.read("table/copied/adapter_model.safetensors"), folder.read("table/ranks/adapter_model.safetensors"));
    assert_eq!(folder.names("table"), ["copied", "parks", "ranks"]);
    assert_eq!(folder.contents("table/parks"), first);
    assert_eq!(folder.contents("table/ranks"), before);
}

#[test]
fn what_is_no_task_is_refused() {
    let folder = folder();
    folder.succeeds(&format!("{SFT} --data plain.jsonl --steps 1 --method ia3 --out table --task a"));
    let table = folder.contents("table");
    for (command, expected) in [
        (format!("{GENERATE} --adapter table --prompt The"), vec!["table is a table of tasks", "--task picks one of `a`"]),
        (format!("{GENERATE} --adapter table --task b --prompt The"), vec!["table has no task `b`; expected one of `a`"]),
        (format!("{GENERATE} --adapter model --task b --prompt The"), vec!["model has no tasks"]),
        (format!("{GENERATE} --task a --prompt The"), vec!["--adapter"]),
        ("merge --model model --adapter table --out merged --device cpu".into(), vec!["--task picks one of `a`"]),
        (format!("{SFT} --data plain.jsonl --adapter table --out out"), vec!["--task picks one of `a`"]),
        (format!("{SFT} --data plain.jsonl --method ia3 --out table --task a"), vec!["is not empty", "--overwrite"]),
        (format!("{SFT} --data plain.jsonl --out model --task a"), vec!["model is no table of tasks: it holds "]),
        (format!("{SFT} --data plain.jsonl --out table --task .a"), vec!["does not begin with a dot"]),
        ("tasks add table a/b --adapter table/a".into(), vec!["letters, digits"]),
        ("tasks add table b --adapter model".into(), vec!["adapter_config.json"]),
        ("tasks add table a --adapter table/a --overwrite".into(), vec!["which is the task itself"]),
        ("tasks rename table b c".into(), vec!["no task `b`"]),
        ("tasks rename table a a".into(), vec!["a is there already"]),
        ("tasks remove table b --yes".into(), vec!["no task `b`; expected one of `a`"]),
        ("tasks list model".into(), vec!["model is no table of tasks: it holds"]),
        ("tasks list nowhere".into(), vec!["there is no folder nowhere"]),
    ] {
        folder.fails(&command, &expected);
    }
    for (row, options, expected) in [
        (json!({"prompt": "x", "task": "b"}), "--adapter table", "requests.jsonl:1: table has no task `b`"),
        (json!({"prompt": "x"}), "--adapter table", "requests.jsonl:1: no `task`; expected one of `a`"),
        (json!({"prompt": "x", "task": "a"}), "", "requests.jsonl:1: `task` of no table"),
        (json!({"prompt": "x", "task": 3}), "--adapter table --task a", "`task` is 3: expected the name of a task"),
        (json!({"prompt": "x", "task": "a", "adapter": "table/a"}), "--adapter table", "both `adapter` and `task`"),
        (json!({"prompt": "x", "fields": {}}), "", "both `prompt` and `fields`"),
        (json!({"fields": 3}), "", "`fields` is 3: expected an object"),
        (json!({"fields": {"a": "b"}}), "", "keeps no template"),
    ] {
        folder.write_rows("requests.jsonl", &[row]);
        folder.fails(&format!("{GENERATE} {options} --requests requests.jsonl"), &[expected]);
    }
    assert_eq!(folder.contents("table"), table);
}

#[test]
fn a_template_places_virtual_tokens_in_training_and_in_use() {
    let folder = folder();
    for method in ["prompt", "p-tuning"] {
        let sft = format!("{SFT} --data rows.jsonl --steps 12 --no-shuffle --method {method} --out table --task {method}");
        folder.succeeds_with(&with(&sft, &["--prompt-template", TEMPLATE]));
        let losses: Vec<f64> =
            folder.lines(&format!("table/{method}/metrics.jsonl")).iter().map(|line| line["loss"].as_f64().unwrap()).collect();
        assert!(losses[11] < losses[0] - 0.05, "{method}: {losses:?}");
        assert_eq!(folder.json(&format!("table/{method}/adapter_config.json"))["num_virtual_tokens"], 5);
    }
    assert_eq!(folder.reports("tasks list table --json")[1]["prompt_template"], TEMPLATE);

    // Fields, the text of the only field, and rows of both.
    let generate = format!("{GENERATE} --adapter table --task prompt");
    let filled = folder.succeeds_with(&with(&generate, &["--fields", r#"{"animal": "cat"}"#]));
    assert_eq!(folder.succeeds(&format!("{generate} --prompt cat")), filled);
    folder.write_rows(
        "requests.jsonl",
        &[json!({"fields": {"animal": "cat"}, "task": "prompt"}), json!({"fields": {"animal": "dog"}, "task": "p-tuning"})],
    );
    let answers = folder.succeeds(&format!("{GENERATE} --adapter table --requests requests.jsonl"));
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(format!("{}\n", answers[0]["text"].as_str().unwrap()), filled);
    assert_eq!(answers[1]["fields"]["animal"], "dog");

    // An evaluation is what the next step of training meets.
    let eval = folder.reports("eval --model model --adapter table --task prompt --data rows.jsonl --device cpu --json");
    let further = format!("{SFT} --data rows.jsonl --steps 1 --no-shuffle --adapter table/prompt --out further");
    folder.succeeds(&further);
    let loss = folder.lines("further/metrics.jsonl")[0]["loss"].as_f64().unwrap();
    // The same sum, in other batches of f32.
    assert!((eval["loss"].as_f64().unwrap() - loss).abs() < 1e-4, "{eval} and {loss}");
    let again = format!("{GENERATE} --adapter further --prompt cat");
    folder.succeeds(&again);

    // Methods without virtual tokens in a text keep templates too.
    folder.succeeds_with(&with(
        &format!("{SFT} --data rows.jsonl --steps 1 --method lora --out lora"),
        &["--prompt-template", "{animal} {{{weight}}}"],
    ));
    folder.succeeds_with(&with(&format!("{GENERATE} --adapter lora"), &["--fields", r#"{"animal": "cat", "weight": 2}"#]));
    folder.fails(&format!("{GENERATE} --adapter lora --prompt cat"), &["keeps the template", "fields: `animal`, `weight`"]);
    let card = String::from_utf8(folder.read("lora/README.md")).unwrap();
    assert!(card.contains(r#"--adapter . --fields '{"animal":"…","weight":"…"}'"#), "{card}");

    // A row is shown as it is trained on.
    let tokenize = with("tokenize --model model --data rows.jsonl --json", &["--prompt-template", TEMPLATE]);
    let shown: Value = serde_json::from_str(&folder.succeeds_with(&tokenize)).unwrap();
    let pieces = shown["examples"][0]["pieces"].as_array().unwrap();
    assert_eq!(pieces.iter().filter(|piece| **piece == "<|virtual|>").count(), 5, "{shown}");
}

#[test]
fn a_template_that_begins_with_its_virtual_tokens_is_plain_prompt_tuning() {
    let folder = folder();
    folder.write_rows("fields.jsonl", &["The cat", "The dog"].map(|text| json!({"text": text, "completion": " in the park."})));
    folder.write_rows("plain.jsonl", &["The cat", "The dog"].map(|text| json!({"prompt": text, "completion": " in the park."})));
    let sft = format!("{SFT} --method prompt --steps 4");
    folder.succeeds(&format!("{sft} --data fields.jsonl --out template --prompt-template <|virtual:4|>{{text}}"));
    folder.succeeds(&format!("{sft} --data plain.jsonl --out plain --virtual-tokens 4"));
    assert_eq!(curve(&folder, "template"), curve(&folder, "plain"));
    let generate = |adapter: &str| folder.succeeds(&format!("{GENERATE} --adapter {adapter} --prompt The"));
    assert_eq!(generate("template"), generate("plain"));
}

#[test]
fn what_a_template_cannot_be_or_fill_is_refused() {
    let folder = folder();
    for (options, template, expected) in [
        ("--method prompt", "", "an empty template"),
        ("--method prompt", "{animal", "a brace that is not closed"),
        ("--method prompt", "<|virtual:0|>{animal}", "where N is from 1 to 65536"),
        ("--method prompt", "{animal}", "a template without virtual tokens; expected at least one <|virtual:N|>"),
        ("--method lora", "<|virtual:2|>{animal}", "a template of 2 virtual tokens, and lora has none in a text"),
        ("--method prefix", "<|virtual:2|>{animal}", "and prefix has none in a text"),
        ("--method prompt --virtual-tokens 3", "<|virtual:2|>{animal}", "--virtual-tokens is 3, and the template has 2"),
        ("--method prompt", "<|virtual:2|>{plant}", "rows.jsonl:1: no `plant`, and the template has the fields `plant`"),
        ("--method prompt --columns completion=answer", "<|virtual:2|>{animal}", "no row has a column `answer`"),
    ] {
        let sft = format!("{SFT} --data rows.jsonl --steps 1 --out out {options}");
        folder.run_with(&with(&sft, &["--prompt-template", template])).failed(&[expected]);
        assert!(folder.names("out").is_empty(), "{template}");
    }
    folder.write_rows("bad.jsonl", &[json!({"animal": "cat", "completion": "."}), json!({"animal": null, "completion": "."})]);
    let sft = format!("{SFT} --steps 1 --method prompt --prompt-template <|virtual:2|>{{animal}} --out");
    folder.fails(&format!("{sft} out --data bad.jsonl"), &["bad.jsonl:2: `animal` is null; expected a text or a number"]);
    folder.fails(&format!("{sft} out --data text.txt"), &["text.txt: plain text; expected rows with `animal`, `completion`"]);
    folder.write("rows.csv", "animal,answer\ncat, in the park.\n");
    folder.succeeds(&format!("{sft} table --data rows.csv --columns completion=answer --virtual-tokens 2"));
    folder.fails(&format!("{GENERATE} --adapter table --fields {{}}"), &["no `animal`", "found: none"]);
    folder.fails(&format!("{GENERATE} --adapter table --fields []"), &["expected a JSON object"]);
    folder.fails(&format!("{GENERATE} --adapter table --chat"), &["a conversation, and the adapter keeps the template"]);
    folder.fails(&format!("{GENERATE} --prompt x --fields {{}}"), &["cannot be used with"]);
    folder.fails("eval --model model --adapter table --data plain.jsonl --device cpu", &["plain.jsonl:1: no `animal`"]);
    let vocabulary = folder.json("model/config.json")["vocab_size"].as_u64().unwrap();
    folder.fails(&format!("{GENERATE} --adapter table --ids 1,{vocabulary}"), &["all virtual tokens in their order"]);
}
