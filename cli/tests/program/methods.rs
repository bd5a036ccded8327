//! Every way of tuning from training to use: what it trains helps, what it writes is read, and what is not its own is refused.

use serde_json::json;
use wgtune_models::formats::safetensors::Weights;

use crate::folder::Folder;

/// The adapters' methods, with what is chosen to make them small and quick.
const METHODS: [(&str, &str); 10] = [
    ("lora", "--method lora --rank 4"),
    ("dora", "--method lora --rank 4 --dora"),
    ("prompt", "--method prompt --virtual-tokens 4"),
    ("mlp", "--method p-tuning --virtual-tokens 4 --encoder-hidden-size 16"),
    ("lstm", "--method p-tuning --virtual-tokens 4 --encoder-hidden-size 8 --encoder lstm"),
    ("prefix", "--method prefix --virtual-tokens 4"),
    ("projection", "--method prefix --virtual-tokens 4 --prefix-projection --encoder-hidden-size 16"),
    ("pfeiffer", "--method adapters --reduction-factor 4"),
    ("houlsby", "--method adapters --bottleneck houlsby --reduction-factor 4"),
    ("ia3", "--method ia3"),
];

const SFT: &str = "sft --model model --data rows.jsonl --validation 0 --learning-rate 0.02 --schedule constant --device cpu";

/// The loss of a folder's run at its first and its last step.
fn losses(folder: &Folder, out: &str) -> [f64; 2] {
    let text = String::from_utf8(folder.read(&format!("{out}/metrics.jsonl"))).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    [&lines[0], &lines[lines.len() - 1]].map(|line| line["loss"].as_f64().unwrap())
}

#[test]
fn every_method_learns_is_saved_read_and_gone_on_with() {
    let folder = Folder::new();
    let base = folder.read("model/model.safetensors");
    for (name, options) in METHODS {
        let sft = format!("{SFT} {options} --batch-size 16 --no-shuffle");
        folder.succeeds(&format!("{sft} --steps 12 --out {name}"));
        let [first, last] = losses(&folder, name);
        assert!(last < first - 0.01, "{name}: {first} to {last}");

        // The same in two parts.
        folder.succeeds(&format!("{sft} --steps 5 --out parts"));
        folder.succeeds(&format!("{sft} --steps 12 --out parts --resume"));
        let file = |out: &str| folder.read(&format!("{out}/adapter_model.safetensors"));
        assert_eq!(file("parts"), file(name), "{name}");
        std::fs::remove_dir_all(folder.path("parts")).unwrap();

        // What was written is what the last step left.
        let eval = folder.succeeds(&format!("eval --model model --adapter {name} --data rows.jsonl --json --device cpu"));
        let eval: serde_json::Value = serde_json::from_str(&eval).unwrap();
        assert!(eval["loss"].as_f64().unwrap() < first, "{name}: {eval}, from {first}");
        folder.succeeds(&format!("generate --model model --adapter {name} --ids 1,2,3 --max-new-tokens 4 --device cpu"));
        folder.succeeds(&format!("{SFT} --adapter {name} --steps 1 --out further"));
        std::fs::remove_dir_all(folder.path("further")).unwrap();
    }
    assert_eq!(folder.read("model/model.safetensors"), base);
}

#[test]
fn a_merge_is_what_the_adapter_was_or_refused() {
    let folder = Folder::new();
    for (name, options) in METHODS {
        folder.succeeds(&format!("{SFT} {options} --steps 2 --out {name}"));
        let merge = format!("merge --model model --adapter {name} --out merged-{name} --json --device cpu");
        if ["lora", "dora", "ia3"].contains(&name) {
            let report: serde_json::Value = serde_json::from_str(&folder.succeeds(&merge)).unwrap();
            // Logits of up to 10, each a sum of 64 terms.
            assert!(report["largest_logit_difference"].as_f64().unwrap() < 1e-4, "{name}: {report}");
        } else {
            folder.fails(&merge, &["adds what no weight of the model can hold", "lora", "ia3"]);
            assert!(folder.names(&format!("merged-{name}")).is_empty());
        }
    }
}

#[test]
fn an_adapter_of_another_base_is_refused_unless_forced() {
    let folder = Folder::new();
    folder.succeeds(&format!("{SFT} --method ia3 --steps 1 --out adapter"));
    let weights = Weights::open_file(&folder.path("adapter/adapter_model.safetensors")).unwrap();
    assert_eq!(weights.metadata()["base_weights"].len(), 32);
    let mut bytes = folder.read("model/model.safetensors");
    let place = bytes.len() - 2;
    bytes[place] ^= 1;
    folder.write("model/model.safetensors", bytes);
    for command in
        ["eval --model model --data rows.jsonl", "generate --model model --ids 1,2", "merge --model model --out merged"]
    {
        let command = format!("{command} --adapter adapter --device cpu");
        folder.fails(&command, &["adapter: made for a model of other weights than those in model", "--force"]);
        folder.succeeds(&format!("{command} --force"));
    }
}

#[test]
fn rows_of_a_file_wear_adapters_of_their_own() {
    let folder = Folder::pretrained();
    for (name, options) in METHODS {
        folder
            .succeeds(&format!("sft --model model --data text.txt --validation 0 --steps 2 --out {name} --device cpu {options}"));
    }
    let alone = |adapter: &str| {
        let adapter = if adapter.is_empty() { String::new() } else { format!("--adapter {adapter}") };
        folder.succeeds(&format!("generate --model model {adapter} --prompt The --max-new-tokens 6 --temperature 0 --device cpu"))
    };
    let rows: Vec<_> =
        METHODS.iter().map(|(name, _)| json!({"prompt": "The", "adapter": name})).chain([json!({"prompt": "The"})]).collect();
    folder.write_rows("requests.jsonl", &rows);
    let answers =
        folder.succeeds("generate --model model --requests requests.jsonl --max-new-tokens 6 --temperature 0 --device cpu");
    let names = METHODS.iter().map(|(name, _)| *name).chain([""]);
    assert_eq!(answers.lines().count(), rows.len());
    for (name, line) in names.zip(answers.lines()) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(format!("{}\n", line["text"].as_str().unwrap()), alone(name), "{name}");
    }
    folder.write_rows("requests.jsonl", &[json!({"prompt": "The", "adapter": "nowhere"})]);
    folder.fails("generate --model model --requests requests.jsonl --device cpu", &["requests.jsonl:1:", "nowhere"]);
    folder.write_rows("requests.jsonl", &[json!({"prompt": "The", "adapter": 3})]);
    folder.fails(
        "generate --model model --requests requests.jsonl --device cpu",
        &["requests.jsonl:1:", "`adapter` is 3", "the folder of an adapter"],
    );
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let folder = Folder::new();
    for (options, expected) in [
        ("--method prompt --virtual-tokens 0", "--virtual-tokens"),
        ("--method prompt --virtual-tokens 63 --max-length 64", "since 63 are taken before a text"),
        ("--method prefix --rank 4", "--rank goes with --method lora"),
        ("--method prefix --packing", "a prefix stands before one"),
        ("--method p-tuning --encoder gru", "mlp, lstm"),
        ("--method p-tuning --encoder lstm --encoder-hidden-size 0", "--encoder-hidden-size"),
        ("--method ia3 --targets nowhere", "target \"nowhere\" is in no layer of the model"),
        ("--targets (", "expected a regular expression"),
        ("--targets .*nowhere", "are in no layer of the model"),
        ("--rank-pattern nowhere=4", "target \"nowhere\" is in no layer"),
        ("--alpha-pattern q_proj=inf", "expected a name and a number above 0"),
        ("--rank-pattern q_proj=0", "expected a name and a number above 0"),
        ("--rank-pattern q_proj=4096", "expected at most its width"),
        ("--layers 7", "block 7: expected one below 2"),
        ("--exclude nowhere", "target \"nowhere\" is in no layer"),
    ] {
        folder.fails(&format!("{SFT} {options} --steps 1 --out out"), &[expected]);
        assert!(folder.names("out").is_empty(), "{options}");
    }
    folder.succeeds(&format!("{SFT} --method ia3 --steps 1 --out adapter"));
    folder.fails(&format!("{SFT} --method lora --adapter adapter --steps 1 --out out"), &["the adapter is one of ia3"]);
}
