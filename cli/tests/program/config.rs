//! Options from a file: the command line comes first, what no option takes is named with its line, and the `run.toml` of a run
//! repeats it.

use serde_json::json;

use crate::folder::{Folder, TINY, curve};

const OPTIONS: &str = "model = \"model\"\ndata = [\"rows.jsonl\"]\nsteps = 3\ndevice = \"cpu\"\n";

#[test]
fn options_of_a_file_are_as_if_they_were_typed_before_the_others() {
    let folder = Folder::new();
    folder.write("options.toml", format!("{OPTIONS}rank = 4\nalpha = 8\npacking = true\nrslora = false\nout = \"a\"\n"));
    folder.succeeds("sft --config options.toml");
    folder.succeeds("sft --model model --data rows.jsonl --steps 3 --device cpu --rank 4 --alpha 8 --packing --out b");
    assert_eq!(curve(&folder, "a"), curve(&folder, "b"));
    // What is typed comes first, and what conflicts with it is as if it were not there.
    folder.write("few.jsonl", "{\"input_ids\": [1, 2, 3]}\n");
    folder.succeeds("sft --config options.toml --rank 2 --epochs 2 --data few.jsonl --validation 0 --out c");
    assert_eq!((folder.json("c/adapter_config.json")["r"].clone(), folder.lines("c/metrics.jsonl").len()), (json!(2), 2));
    folder.succeeds("sft --quiet --config options.toml --adapter c --out d");
    assert_eq!(folder.json("d/adapter_config.json")["r"], 2);
    folder.write("shape.toml", "data = \"text.txt\"\nlayers = 1\nhidden-size = 32\nheads = 2\nsteps = 1\nvalidation = 0\n");
    folder.write("text.txt", "Once upon a time, there was a cat.");
    folder.succeeds("pretrain --config shape.toml --device cpu --out e");
    assert_eq!(folder.json("e/config.json")["num_hidden_layers"], 1);
}

#[test]
fn what_a_file_may_not_hold_is_named_with_its_line_and_what_was_expected() {
    let folder = Folder::new();
    for (line, expected) in [
        ("batch_size = 2", ["`batch_size` is no option of wgtune sft; expected `batch-size`", ""]),
        ("blocks = 2", ["`blocks` is no option of wgtune sft; expected one of `model`, `data`", ""]),
        ("config = \"other.toml\"", ["`config` is no option", ""]),
        ("help = true", ["`help` is no option", ""]),
        ("batch-size = \"2\"", ["`batch-size` is \"2\"; expected a number", ""]),
        ("batch-size = 0", ["`batch-size` is 0; expected a whole number from 1 to 65536", ""]),
        ("batch-size = 1.5", ["`batch-size` is 1.5; expected a whole number", ""]),
        ("batch-size = [2]", ["`batch-size` is [2]; expected a number", ""]),
        ("clip = -1", ["`clip` is -1; expected a number from 0", ""]),
        ("alpha = nan", ["`alpha` is nan; expected a number above 0", ""]),
        ("packing = 1", ["`packing` is 1; expected true or false", ""]),
        ("method = true", ["`method` is true; expected text in quotes", ""]),
        ("method = \"prompting\"", ["`method` is \"prompting\"; expected one of `lora`, `prompt`", ""]),
        ("columns = \"prompt\"", ["`columns` is \"prompt\"; `prompt`: expected OURS=THEIRS", ""]),
        ("template = \"\"", ["`template` is \"\"; a value is required", ""]),
        ("data = [3]", ["options.toml:5:1: broken TOML: duplicate key", ""]),
        ("epochs = 1", ["`epochs` cannot stand beside `steps`; expected one of the two", ""]),
        ("[lora]\nrank = 4", ["`lora` is no option", ""]),
        ("[run]\ncommand = 3", ["options.toml: `run` is {\"command\":3}; expected a run's own table", ""]),
        ("batch-size =", ["options.toml:5:", "broken TOML"]),
    ] {
        folder.write("options.toml", format!("{OPTIONS}{line}\n"));
        let named = if line.starts_with("[run]") { "options.toml" } else { "options.toml:5" };
        folder.fails("sft --config options.toml --out out", &[named, expected[0], expected[1]]);
    }
    folder.write("options.toml", "data = [\"rows.jsonl\", 3]\n");
    folder
        .fails("sft --config options.toml --out out", &["options.toml:1: `data`", "expected text in quotes, or a list of them"]);
    folder.fails("sft --config options.toml --steps 0 --out out", &["--steps", "a whole number from 1"]);
    folder.write("options.toml", "steps = 3\n");
    folder.fails("sft --config options.toml --out out", &["required", "--model", "--data"]);
    folder.fails("sft --config nowhere.toml --out out", &["nowhere.toml", "No such file"]);
    folder.fails("sft --config rows.jsonl --out out", &["rows.jsonl:1:", "broken TOML"]);
    folder.fails("sft --config model --out out", &["model: a folder; expected a file"]);
    assert!(folder.names("out").is_empty());
}

#[test]
fn a_run_is_repeated_by_the_file_that_it_wrote() {
    let folder = Folder::new();
    let lora = "--learning-rate 0.00012345678901234567 --steps 6 --warmup 0.4 --dropout 0.2 --seed 18446744073709551615";
    let full = "--method full --epochs 2 --schedule cosine --packing --accumulate 2 --validation 3";
    for (out, options) in [("lora", lora), ("full", full)] {
        folder.succeeds(&format!("sft --model model --data rows.jsonl --device cpu --out {out} {options}"));
        let repeat = format!("sft --config {out}/run.toml --out {out}-again");
        folder.succeeds(&repeat);
        assert_eq!(curve(&folder, out), curve(&folder, &format!("{out}-again")));
        let record = |out: &str| String::from_utf8(folder.read(&format!("{out}/run.toml"))).unwrap();
        assert_eq!(record(out), record(&format!("{out}-again")));
        folder.succeeds(&format!("{repeat} --resume"));
    }
    folder.succeeds("sft --config lora/run.toml --adapter lora --out further");
    folder.succeeds("sft --config further/run.toml --out further-again");
    assert_eq!(curve(&folder, "further"), curve(&folder, "further-again"));

    folder.write("text.txt", "Once upon a time, there was a cat.\n<|endoftext|>\n".repeat(40));
    folder.succeeds(&format!("pretrain --data text.txt --out new {TINY} --steps 3 --device cpu"));
    folder.succeeds("pretrain --config new/run.toml --out new-again");
    assert_eq!(curve(&folder, "new"), curve(&folder, "new-again"));
    folder.fails("sft --config new/run.toml --out out", &["new/run.toml: `run.command` is \"pretrain\"; expected \"sft\""]);
}

#[test]
fn a_repetition_with_another_model_or_other_data_names_it_and_says_what_to_leave_out() {
    let folder = Folder::new();
    folder.succeeds("sft --model model --data rows.jsonl --steps 2 --device cpu --out began");
    folder.copy_fixture("llama_tied", "other");
    folder.write_rows("others.jsonl", &[json!({"input_ids": [1, 2, 3]}), json!({"input_ids": [3, 2, 1]})]);
    let repeat = "sft --config began/run.toml --out out";
    for (option, name) in [("--model other", "model"), ("--data others.jsonl", "data")] {
        let expected = [
            format!("began/run.toml: other {name} than its run had: `hashes.{name}` is \""),
            "expected the same, or a file without the table `hashes`".into(),
        ];
        folder.fails(&format!("{repeat} {option}"), &expected.each_ref().map(String::as_str));
    }
    assert!(folder.names("out").is_empty());
    // Another seed holds out other rows of the same data.
    folder.succeeds(&format!("{repeat} --seed 1"));
    let text = String::from_utf8(folder.read("began/run.toml")).unwrap();
    folder.write("options.toml", text.split("[hashes]").next().unwrap());
    folder.succeeds("sft --config options.toml --data others.jsonl --validation 0 --out free");
}
