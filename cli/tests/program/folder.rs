//! A folder to run the program in, and a look at what it left there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use wgtune_engine::random::Philox;
use wgtune_models::formats::safetensors::Weights;

/// The vocabulary of the model in a [`Folder`].
pub const VOCABULARY: u32 = 64;

/// A temporary folder with a tiny Llama without a tokenizer in `model`, and rows of token ids for it in `rows.jsonl`.
pub struct Folder(TempDir);

/// What a run of the program came to.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Folder {
    pub fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.copy_fixture("llama", "model");
        let random = Philox::new(7);
        let rows: Vec<Value> = (0..16)
            .map(|row| {
                let random = random.stream(row);
                let length = 6 + random.word(0) % 8;
                let ids: Vec<u32> = (0..length).map(|place| random.word(1 + u64::from(place)) % VOCABULARY).collect();
                let labels: Vec<i64> =
                    ids.iter().enumerate().map(|(place, id)| if place < 3 { -100 } else { i64::from(*id) }).collect();
                json!({"input_ids": ids, "labels": labels})
            })
            .collect();
        folder.write_rows("rows.jsonl", &rows);
        folder
    }

    /// One with a pretrained model in `model`, its tokenizer included, and the text it learnt in `text.txt`.
    pub fn pretrained() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        let sentences =
            ["The cat sat on the mat.", "The dog ran in the park.", "A bird sang in the tree.", "The sun rose over the hill."];
        let text: String = (0..48).map(|i| format!("{} {}\n<|endoftext|>\n", sentences[i % 4], sentences[(i / 4) % 4])).collect();
        folder.write("text.txt", &text);
        folder.succeeds(&format!("pretrain --data text.txt --out model {TINY} --steps 30 --learning-rate 1e-2 --device cpu"));
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn copy_fixture(&self, fixture: &str, name: &str) {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures");
        fs::create_dir_all(self.path(name)).unwrap();
        for entry in fs::read_dir(fixtures.join(fixture)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), self.path(name).join(entry.file_name())).unwrap();
        }
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub fn write_rows(&self, name: &str, rows: &[Value]) {
        self.write(name, rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// Sets keys of a JSON file.
    pub fn set(&self, name: &str, keys: Value) {
        let mut json = self.json(name);
        json.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        self.write(name, json.to_string());
    }

    /// The program with these arguments, ready to start in this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgtune"));
        // Nobody's own cache is touched.
        command.args(arguments).current_dir(self.0.path()).env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    /// Runs the program with arguments that hold no blanks.
    pub fn run(&self, arguments: &str) -> Run {
        self.run_with(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// Starts the program with arguments that hold no blanks, unheard.
    pub fn start(&self, arguments: &str) -> Child {
        let mut command = self.command(&arguments.split_whitespace().collect::<Vec<_>>());
        command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }

    pub fn run_with(&self, arguments: &[&str]) -> Run {
        Run::new(self.command(arguments).output().unwrap())
    }

    /// Runs what must succeed; its standard output.
    #[track_caller]
    pub fn succeeds(&self, arguments: &str) -> String {
        self.succeeds_with(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    #[track_caller]
    pub fn succeeds_with(&self, arguments: &[&str]) -> String {
        let run = self.run_with(arguments);
        assert_eq!(run.code, Some(0), "{arguments:?}: {}", run.stderr);
        run.stdout
    }

    /// Runs what must succeed and print JSON.
    #[track_caller]
    pub fn reports(&self, arguments: &str) -> Value {
        let text = self.succeeds(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments}: {error} in {text}"))
    }

    /// Runs what must fail, saying all of these, and without a panic.
    #[track_caller]
    pub fn fails(&self, arguments: &str, expected: &[&str]) {
        self.run(arguments).failed(expected);
    }

    /// The names in a subfolder, hidden ones too, in order; none if it is not there.
    pub fn names(&self, name: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(name)) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Every file of a subfolder and those below it, with its bytes.
    pub fn contents(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for entry in self.names(name) {
            let name = format!("{name}/{entry}");
            if self.path(&name).is_dir() {
                files.extend(self.contents(&name));
            } else {
                files.push((name.clone(), self.read(&name)));
            }
        }
        files
    }

    /// Panics if a file in this subfolder, or below it, is not whole.
    #[track_caller]
    pub fn check_whole(&self, name: &str) {
        for entry in self.names(name) {
            let (name, path) = (format!("{name}/{entry}"), self.path(name).join(&entry));
            if path.is_dir() {
                self.check_whole(&name);
                continue;
            }
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => drop(self.json(&name)),
                Some("jsonl") => drop(self.lines(&name)),
                Some("safetensors") => drop(Weights::open_file(&path).unwrap_or_else(|error| panic!("{name}: {error}"))),
                _ => {}
            }
        }
    }

    /// The rows of a JSON Lines file, each ended by a line break.
    #[track_caller]
    pub fn lines(&self, name: &str) -> Vec<Value> {
        let text = String::from_utf8(self.read(name)).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{name} ends in {:?}", text.lines().last());
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error} in {line}"))).collect()
    }
}

/// A model small enough to train in a moment.
pub const TINY: &str = "--vocab-size 300 --hidden-size 32 --intermediate-size 48 --layers 2 --heads 4 --key-value-heads 2 \
     --batch-size 8 --max-length 32 --validation 0 --packing";

/// The lines of `metrics.jsonl` without what the clock and the machine decide.
pub fn curve(folder: &Folder, out: &str) -> Vec<String> {
    let without_clock = |mut line: Value| {
        let keys = line.as_object_mut().unwrap();
        for key in ["tokens_per_second", "peak_tensor_bytes"] {
            keys.remove(key).unwrap();
        }
        assert_eq!(keys.remove("peak_process_bytes").is_some(), cfg!(target_os = "linux"));
        assert_eq!(keys.len(), 8 + usize::from(keys.contains_key("validation_loss")));
        line.to_string()
    };
    folder.lines(&format!("{out}/metrics.jsonl")).into_iter().map(without_clock).collect()
}

impl Run {
    pub fn new(output: Output) -> Run {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Panics unless it failed, saying all of these, and without a panic.
    #[track_caller]
    pub fn failed(&self, expected: &[&str]) {
        let said = &self.stderr;
        assert!(self.code.is_some_and(|code| code != 0), "exit code {:?}: {said}", self.code);
        assert!(!said.contains("panicked"), "{said}");
        for words in expected {
            assert!(said.contains(words), "expected {words:?} in: {said}");
        }
    }
}
