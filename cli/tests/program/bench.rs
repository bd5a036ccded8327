//! `wgtune bench` on a few ops: what it prints, what it compares, and the page that it writes.

use serde_json::{Value, json};

use crate::folder::Folder;

/// Two ops, a forward and a backward pass each, as briefly as can be.
const FEW: &str = "bench --device cpu --seconds 0.001 --tokens 8 --shapes 135m --filter layer_norm,silu";

#[test]
fn the_figures_of_each_op_are_there_and_follow_from_each_other() {
    let folder = Folder::new();
    let report = folder.reports(&format!("{FEW} --json"));
    let ceiling = |name: &str| report["ceilings"][name].as_f64().unwrap_or_else(|| panic!("{name}: {report}"));
    assert!(
        ["copy_gigabytes_per_second", "fma_tflops", "matrix_tflops", "dispatch_seconds"].iter().all(|name| ceiling(name) > 0.0)
    );
    assert!(["host_seconds", "encode_seconds"].iter().all(|name| report["ceilings"][name].is_null()), "a CPU encodes nothing");
    assert_eq!((&report["device"]["kind"], &report["left_out"]), (&json!("cpu"), &json!([])));
    let results = report["results"].as_array().unwrap();
    let names: Vec<[&str; 3]> =
        results.iter().map(|one| ["name", "direction", "shape"].map(|key| one[key].as_str().unwrap())).collect();
    let expected = [
        ["layer_norm", "forward", "8 x 576"],
        ["layer_norm", "backward", "8 x 576"],
        ["silu", "forward", "8 x 1536"],
        ["silu", "backward", "8 x 1536"],
    ];
    assert_eq!(names, expected);
    for one in results {
        let figure = |pointer: &str| one.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {one}"));
        let [p10, median, p90] = ["/seconds/p10", "/seconds/median", "/seconds/p90"].map(figure);
        assert!(0.0 < p10 && p10 <= median && median <= p90 && median < 1.0, "{one}");
        // The same division in another order.
        let close = |got: f64, expected: f64| (got / expected - 1.0).abs() < 1e-9;
        assert!(close(1e12 * figure("/tflops"), figure("/flops") / median), "{one}");
        assert!(close(1e9 * figure("/gigabytes_per_second"), figure("/bytes") / median), "{one}");
        assert!(figure("/share") > 0.0 && ["memory", "arithmetic"].contains(&one["bound"].as_str().unwrap()), "{one}");
        // Sums of 576 numbers in f32, as the laws allow them.
        assert!((0.0..1e-5).contains(&figure("/error")), "{one}");
        assert!(figure("/dispatches") >= 1.0 && figure("/repetitions") >= 3.0, "{one}");
        assert_eq!(one["error_of"], "whole");
        assert!(figure("/error_elements") >= 8.0 * 576.0, "{one}");
    }
    for run in ["ceilings_before", "ceilings_after"] {
        let of = |which: &str| report[run][which]["fma_tflops"].as_f64().unwrap();
        assert!(of("slow") <= of("median") && of("median") <= of("fast"), "{report}");
    }
    let [before, after] = ["ceilings", "ceilings_after"].map(|run| report[run].get("median").unwrap_or(&report[run]));
    let drift = |name: &str| (after[name].as_f64().unwrap() / before[name].as_f64().unwrap() - 1.0).abs();
    let largest = ["copy_gigabytes_per_second", "fma_tflops", "matrix_tflops"].map(drift).into_iter().fold(0.0, f64::max);
    // The same division, of numbers that were printed and read.
    assert!((report["ceilings_drift"].as_f64().unwrap().abs() - largest).abs() < 1e-9, "{report}");
    assert_eq!(report["gpu"], json!({"clock_megahertz": null, "power_watts": null}));
    // x is read and y is written, 8 x 1536 numbers each.
    assert_eq!(results[2]["bytes"], 2 * 4 * 8 * 1536);
}

#[test]
fn steps_of_a_model_are_taken() {
    let folder = Folder::new();
    let steps = "bench --device cpu --seconds 0.001 --tokens 12 --model model --filter step --json";
    let report = folder.reports(steps);
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 10, "{report}");
    for one in results {
        let (rate, seconds) = (one["tokens_per_second"].as_f64().unwrap(), one["seconds"]["median"].as_f64().unwrap());
        let tokens = match one["name"].as_str() {
            Some("decode") => 1.0,
            Some(name) if name.starts_with("decode, rows") => 16.0,
            _ => 12.0,
        };
        assert!((rate * seconds / tokens - 1.0).abs() < 1e-9, "{one}");
        assert!(one["peak_tensor_bytes"].as_u64().unwrap() > 0 && one["dispatches"].as_u64().unwrap() > 10, "{one}");
        assert_eq!(one["model"], "model");
        let kernels = one["kernel_seconds"].as_f64().unwrap();
        let idle = one["idle_share"].as_f64().unwrap();
        assert!(kernels > 0.0 && (idle - (1.0 - kernels / seconds).max(0.0)).abs() < 1e-9, "{one}");
    }
    let of = |name: &str, key: &str| results.iter().find(|one| one["name"] == name).unwrap()[key].as_u64().unwrap();
    // Recomputing the blocks takes more kernels.
    assert!(of("full training step, checkpointed", "dispatches") > of("full training step", "dispatches"));
    assert!(of("full training step", "peak_tensor_bytes") > of("LoRA training step", "peak_tensor_bytes"));
    // What is dropped before each of four updates is so in the norm's kernel, again before the gradient, and in the product behind
    // that; it is never kept.
    let (lora, dropping) = ("LoRA training step", "LoRA training step, dropout 0.05");
    assert_eq!(of(dropping, "dispatches"), of(lora, "dispatches") + 4);
    assert_eq!(of(dropping, "peak_tensor_bytes"), of(lora, "peak_tensor_bytes"));
}

#[test]
fn a_regression_is_found_and_what_cannot_be_compared_is_said() {
    let folder = Folder::new();
    let text = folder.succeeds(&format!("{FEW} --json"));
    folder.write("before.json", &text);
    let same = folder.succeeds("bench --from before.json --compare before.json");
    assert!(same.contains("1.000"), "{same}");

    let mut doctored: Value = serde_json::from_str(&text).unwrap();
    let faster = doctored["results"][1]["seconds"]["median"].as_f64().unwrap() / 10.0;
    doctored["results"][1]["seconds"]["median"] = json!(faster);
    doctored["results"][0]["shape"] = json!("9 x 576");
    folder.write("doctored.json", doctored.to_string());
    let run = folder.run("bench --from before.json --compare doctored.json");
    run.failed(&["1 of 3 measurements are slower than in doctored.json by more than 20 %"]);
    assert!(run.stdout.contains("slower") && run.stdout.contains("135m layer_norm backward [8 x 576]"), "{}", run.stdout);
    assert!(run.stdout.contains("not compared, only in the earlier run: 135m layer_norm forward [9 x 576]"), "{}", run.stdout);
    folder.succeeds("bench --from before.json --compare doctored.json --tolerance 20");

    doctored["device"]["name"] = json!("another device");
    folder.write("elsewhere.json", doctored.to_string());
    folder.fails(
        "bench --from before.json --compare elsewhere.json",
        &["elsewhere.json", "another device", "expected the same device"],
    );
}

#[test]
fn a_run_with_a_fault_fails_and_names_it() {
    let folder = Folder::new();
    let mut report = folder.reports(&format!("{FEW} --json"));
    assert_eq!(report["faults"], json!([]));
    report["faults"] = json!([{"name": "135m add forward [8 x 576]", "reason": "came to NaN where f64 does not"}]);
    report["ceilings_after"] = report["ceilings_before"].clone();
    report["ceilings_after"]["median"]["fma_tflops"] = json!(0.5 * report["ceilings"]["fma_tflops"].as_f64().unwrap());
    folder.write("faulty.json", report.to_string());
    let run = folder.run("bench --from faulty.json --report faulty.html");
    run.failed(&["135m add forward [8 x 576] came to NaN where f64 does not"]);
    let page = String::from_utf8(folder.read("faulty.html")).unwrap();
    for shown in [&run.stdout, &page] {
        assert!(shown.contains("came to NaN") && shown.contains("multiply-adds 50 % slower"), "{shown}");
        assert!(shown.contains("aches are not flushed"), "{shown}");
    }
}

#[test]
fn a_file_that_is_no_bench_is_named() {
    let folder = Folder::new();
    folder.write("broken.json", "{\"wgtune\": ");
    folder.fails("bench --compare broken.json", &["broken.json:1:", "broken JSON"]);
    folder.write("other.json", "{\"wgtune\": \"1\"}");
    folder.fails("bench --compare other.json", &["other.json", "expected what `wgtune bench --json` prints", "`device`"]);
    folder.fails("bench --compare missing.json", &["missing.json"]);
    folder.fails("bench --device cpu --filter nosuchop", &["nosuchop", "--list"]);
    folder.fails("bench --seconds 0", &["--seconds", "0.001 to 600"]);
}

#[test]
fn the_list_says_what_would_be_measured() {
    let folder = Folder::new();
    let all = folder.succeeds("bench --list --device cpu");
    for name in ["135m matmul NT logits forward [256 x 576 x 49152]", "common softmax backward [4096 x 1024]", "135m prefill"] {
        assert!(all.contains(name), "{name} in {all}");
    }
    let few = folder.succeeds("bench --list --device cpu --shapes 7b --filter decode --tokens 100");
    let expected = [
        "7b attention decode forward [1 over 100, 32/32 heads of 128]\n",
        "7b attention decode in pages forward [16 x 1 over 100, 32/32 heads of 128]\n",
    ];
    assert_eq!(few, expected.concat());
}

#[test]
fn the_page_names_the_device_and_escapes_what_it_shows() {
    let folder = Folder::new();
    let mut report = folder.reports(&format!("{FEW} --json --report page.html"));
    let page = String::from_utf8(folder.read("page.html")).unwrap();
    assert!(page.contains(report["device"]["name"].as_str().unwrap()), "{page}");
    assert!(page.contains("<svg") && page.contains("layer_norm") && page.ends_with("</html>\n"), "{page}");
    // Nothing is fetched, and nothing runs.
    assert!(["<script", "http:", "https:", "@import", "url("].iter().all(|word| !page.contains(word)), "{page}");

    report["device"]["name"] = json!("<b>\"R&D\"</b>");
    folder.write("named.json", report.to_string());
    folder.succeeds("bench --from named.json --report named.html");
    let page = String::from_utf8(folder.read("named.html")).unwrap();
    assert!(page.contains("&lt;b&gt;&quot;R&amp;D&quot;&lt;/b&gt;") && !page.contains("<b>\""), "{page}");
}
