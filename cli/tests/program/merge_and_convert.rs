//! Sums of adapters, what takes one away again, and LoRAs made of other ways of tuning.

use serde_json::{Value, json};
use wgtune_models::formats::safetensors::Weights;

use crate::folder::Folder;

/// Adapters by name, trained far enough to matter.
const ADAPTERS: [(&str, &str); 5] = [
    ("one", "--method lora --rank 4 --targets q_proj,down_proj"),
    ("other", "--method lora --rank 2 --alpha 3 --targets q_proj,v_proj,embed_tokens --seed 1"),
    ("dora", "--method lora --rank 4 --dora --targets k_proj,v_proj"),
    ("ia3", "--method ia3 --targets k_proj,v_proj"),
    ("prompt", "--method prompt --virtual-tokens 2"),
];

/// A folder with a model and these adapters of it.
fn folder(names: &[&str]) -> Folder {
    let folder = Folder::new();
    for (name, options) in ADAPTERS.iter().filter(|(name, _)| names.contains(name)) {
        let sft = "sft --model model --data rows.jsonl --validation 0 --learning-rate 0.02 --steps 6 --device cpu";
        folder.succeeds(&format!("{sft} {options} --out {name}"));
    }
    folder
}

fn number(report: &Value, key: &str) -> f64 {
    report[key].as_f64().unwrap_or_else(|| panic!("{key} in {report}"))
}

/// The logits of a prompt.
fn logits(folder: &Folder, model: &str) -> Vec<f32> {
    folder.succeeds(&format!("logits {model} --ids 3,1,4,1,5,9,2,6 --out l.safetensors --overwrite --device cpu"));
    Weights::open_file(&folder.path("l.safetensors")).unwrap().get("logits").unwrap().to_f32()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Logits of up to 10 in f32, each a sum of 64 terms, by weights that were summed in two orders.
const ROUNDING: f32 = 1e-4;

#[test]
fn loras_of_other_ranks_and_layers_join_to_what_their_merged_sum_gives() {
    let folder = folder(&["one", "other"]);
    let adapters = "--model model --adapter one=0.7 --adapter other=-0.4";
    let merged = folder.reports(&format!("merge {adapters} --out merged --device cpu --json"));
    // Two blocks with queries, values and the inside of their networks, and the embedding.
    assert_eq!(merged["merged_layers"], 7, "{merged}");
    assert!(number(&merged, "largest_logit_difference") < f64::from(ROUNDING), "{merged}");
    let joined = folder.reports(&format!("convert {adapters} --to lora --out joined --device cpu --json"));
    assert_eq!((&joined["layers"], &joined["least_rank"], &joined["most_rank"]), (&json!(7), &json!(2), &json!(6)), "{joined}");
    assert!(number(&joined, "relative_error") < 1e-6 && number(&joined, "largest_logit_difference") < f64::from(ROUNDING));
    let config = folder.json("joined/adapter_config.json");
    assert_eq!(config["target_modules"], json!(["down_proj", "embed_tokens", "q_proj", "v_proj"]));
    assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(6), &json!(6.0)));
    assert_eq!(config["rank_pattern"], json!({"down_proj": 4, "embed_tokens": 2, "v_proj": 2}));

    let [sum, joined] = ["--model merged", "--model model --adapter joined"].map(|model| logits(&folder, model));
    assert!(difference(&sum, &joined) < ROUNDING);
    // They are of both adapters: neither alone, nor its weight, gives the same.
    for other in ["--model model", "--model model --adapter one", "--model model --adapter other"] {
        assert!(difference(&sum, &logits(&folder, other)) > 100.0 * ROUNDING, "{other}");
    }
}

#[test]
fn what_cancels_is_the_base() {
    let folder = folder(&["one"]);
    let report = folder.reports("merge --model model --adapter one=2 --adapter one=-2 --out merged --device cpu --json");
    assert_eq!(report["merged_layers"], 4);
    assert!(difference(&logits(&folder, "--model merged"), &logits(&folder, "--model model")) < ROUNDING);
}

#[test]
fn other_methods_become_loras_as_near_as_the_rank_allows() {
    let folder = folder(&["one", "dora", "ia3"]);
    folder.succeeds(
        "sft --model model --data rows.jsonl --validation 0 --learning-rate 0.01 --steps 4 --method full --out full --device cpu",
    );
    for (name, source) in [("dora", "--adapter dora"), ("ia3", "--adapter ia3"), ("full", "--tuned full")] {
        let convert = |rank: usize| {
            let out = format!("{name}-{rank}");
            folder.reports(&format!("convert --model model {source} --to lora --rank {rank} --out {out} --device cpu --json"))
        };
        // Of keys and values, the narrowest layers, all that there is.
        let [whole, least] = [16, 1].map(convert);
        assert!(number(&least, "relative_error") > 0.05, "{name}: {least}");
        assert!(number(&least, "worst_relative_error") >= number(&least, "relative_error"), "{name}: {least}");
        assert!(number(&whole, "relative_error") < number(&least, "relative_error"), "{name}: {whole}");
        folder.fails(
            &format!("convert --model model {source} --to lora --out refused --device cpu"),
            &["no product of thin matrices", "--rank"],
        );
        if name == "full" {
            let left_out = whole["left_out"].as_array().unwrap();
            assert!(left_out.contains(&json!("model.norm.weight")) && left_out.contains(&json!("lm_head.weight")), "{whole}");
        } else {
            assert_eq!(whole["left_out"], json!([]), "{whole}");
            // Sums of 32 terms in f32.
            assert!(number(&whole, "relative_error") < 1e-5, "{whole}");
            let [before, after] = [name.to_string(), format!("{name}-16")]
                .map(|adapter| logits(&folder, &format!("--model model --adapter {adapter}")));
            assert!(difference(&before, &after) < ROUNDING, "{name}");
            assert!(difference(&before, &logits(&folder, "--model model")) > 10.0 * ROUNDING, "{name}");
        }
    }
    // A LoRA at its own rank is what it was; at a lower one it is not.
    let report = folder.reports("convert --model model --adapter one --to lora --rank 16 --out same --device cpu --json");
    assert!(report["most_rank"] == 4 && number(&report, "relative_error") < 1e-6, "{report}");
    let report = folder.reports("convert --model model --adapter one --to lora --rank 2 --out less --device cpu --json");
    assert!(report["most_rank"] == 2 && number(&report, "relative_error") > 1e-3, "{report}");
}

#[test]
fn what_was_merged_is_taken_away_again() {
    let folder = folder(&["one", "dora", "ia3"]);
    let base = logits(&folder, "--model model");
    for name in ["one", "ia3"] {
        folder.succeeds(&format!("merge --model model --adapter {name} --out merged-{name} --device cpu"));
        assert!(difference(&base, &logits(&folder, &format!("--model merged-{name}"))) > 10.0 * ROUNDING, "{name}");
        let unmerge = format!("merge --unmerge --model merged-{name} --adapter {name} --out un-{name} --device cpu --json");
        let report = folder.reports(&unmerge);
        assert!(number(&report, "largest_logit_difference") < f64::from(ROUNDING), "{report}");
        assert!(report["is_base"].is_boolean(), "{report}");
        assert!(difference(&base, &logits(&folder, &format!("--model un-{name}"))) < ROUNDING, "{name}");
    }
    folder.succeeds("merge --model model --adapter dora --out merged-dora --device cpu");
    folder.fails(
        "merge --unmerge --model merged-dora --adapter dora --out refused --device cpu",
        &["DoRA gave the rows of model.layers.0.", "cannot be known"],
    );
    for adapters in ["--adapter one=0.5", "--adapter one --adapter ia3"] {
        folder.fails(
            &format!("merge --unmerge --model merged-one {adapters} --out refused --device cpu"),
            &["--unmerge takes one --adapter, of weight 1"],
        );
    }
    assert!(folder.names("refused").is_empty());
}

#[test]
fn an_adapter_that_adds_nothing_is_taken_away_to_the_bit() {
    let folder = Folder::new();
    let sft = "sft --model model --data rows.jsonl --validation 0 --learning-rate 1e-3 --steps 1 --device cpu";
    folder.succeeds(&format!("{sft} --method lora --rank 2 --out one"));
    let name = "one/adapter_model.safetensors";
    let mut bytes = folder.read(name);
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].fill(0);
    folder.write(name, bytes);
    folder.succeeds("merge --model model --adapter one --out merged --device cpu");
    let report = folder.reports("merge --unmerge --model merged --adapter one --out base --device cpu --json");
    assert_eq!((&report["is_base"], number(&report, "largest_logit_difference")), (&json!(true), 0.0), "{report}");
    folder
        .fails("convert --model model --adapter one --to lora --out refused --device cpu", &["no layer differs from the base's"]);
    assert!(folder.names("refused").is_empty());
}

#[test]
fn what_was_multiplied_by_zero_is_not_found_again() {
    let folder = folder(&["ia3"]);
    folder.succeeds("merge --model model --adapter ia3 --out merged --device cpu");
    let name = "ia3/adapter_model.safetensors";
    let mut bytes = folder.read(name);
    let place = bytes.len() - 4;
    bytes[place..].fill(0);
    folder.write(name, bytes);
    folder.fails(
        "merge --unmerge --model merged --adapter ia3 --out refused --device cpu",
        &["model.layers.1.self_attn.v_proj was multiplied by 0 at"],
    );
    assert!(folder.names("refused").is_empty());
}

#[test]
fn what_cannot_be_merged_or_converted_is_refused_and_nothing_is_written() {
    let folder = folder(&["one", "dora", "prompt"]);
    folder.copy_fixture("qwen2", "stranger");
    folder.copy_fixture("llama", "changed");
    let mut bytes = folder.read("changed/model.safetensors");
    let place = bytes.len() - 2;
    bytes[place] ^= 1;
    folder.write("changed/model.safetensors", bytes);
    for (options, expected) in [
        ("--model model --adapter one=nan", vec!["expected a folder, `=` and a finite weight"]),
        ("--model model --adapter one=", vec!["expected a finite weight behind `one=`"]),
        ("--model model --adapter =", vec!["adapter_config.json"]),
        ("--model model --adapter one --adapter nowhere=2", vec!["nowhere/adapter_config.json"]),
        ("--model model --adapter one --adapter prompt", vec!["an adapter of prompt adds what no weight", "`ia3`"]),
        ("--model changed --adapter one", vec!["made for a model of other weights", "--force"]),
    ] {
        for command in ["merge", "convert --to lora"] {
            folder.fails(&format!("{command} {options} --out refused --device cpu"), &expected);
        }
    }
    for (options, expected) in [
        ("--adapter one --rank 0", vec!["--rank", "expected a whole number from 1"]),
        ("--adapter one --rank 1000", vec!["a rank of 1000 for model.layers.0.", "expected at most its width"]),
        ("--adapter dora --rank 1000", vec!["a rank of 1000 for model.layers.0.", "expected at most its width"]),
        ("--adapter one --tuned model", vec!["cannot be used with"]),
        ("--tuned stranger --rank 2", vec!["expected models of the same parameters"]),
        ("--tuned changed --rank 2 --adapter one", vec!["cannot be used with"]),
        ("--rank 2", vec!["--adapter", "--tuned"]),
    ] {
        folder.fails(&format!("convert --model model --to lora {options} --out refused --device cpu"), &expected);
    }
    folder.fails("convert --model model --to dora --adapter one --out refused --device cpu", &["lora"]);
    assert!(folder.names("refused").is_empty());
    for out in ["model", "one"] {
        for command in ["merge", "convert --to lora"] {
            let before = folder.contents(out);
            folder.fails(
                &format!("{command} --model model --adapter one --out {out} --overwrite --device cpu"),
                &["which is read"],
            );
            assert_eq!(folder.contents(out), before);
        }
    }
    folder.succeeds("convert --model changed --adapter one --force --to lora --out forced --device cpu");
    folder.succeeds("convert --model model --adapter one --to lora --out forced --overwrite --device cpu");
}
