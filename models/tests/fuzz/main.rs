//! Whatever bytes a file holds, reading it ends in time, in a value or in an error that says something: never in a panic.
//!
//! A target reads one format. Its inputs are the seeds in `corpus/<target>/`, mutated ([`mutate`]); one that once failed is
//! kept there as a seed. `WGTUNE_FUZZ_EXECUTIONS=1000000` runs longer than the few seconds that each takes by default, and
//! `WGTUNE_FUZZ_SEED` elsewhere.

mod jinja;
mod mutate;
mod targets;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use wgtune_models::formats::sandbox::Allocator;

use mutate::{Corpus, Mutation};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// The longest that any one input may take: the deadlines of template and tokenizer, and a busy machine.
const LONGEST: Duration = Duration::from_secs(60);

/// Runs a target: `read` is given each input, and says with what error it ended.
fn fuzz(target: &str, executions: u32, read: impl Fn(&[u8]) -> Result<(), String>) {
    let corpus = Corpus::open(target);
    corpus.seeds.iter().for_each(|seed| check(read(seed)).unwrap());

    let executions = variable("WGTUNE_FUZZ_EXECUTIONS").unwrap_or(executions);
    let seed = variable("WGTUNE_FUZZ_SEED").unwrap_or(0u64);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { cases: executions, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let input = (0..corpus.seeds.len(), vec(any::<Mutation>(), 1..5));

    let watch = Watch::new(target);
    let started = Instant::now();
    let counts = RefCell::new(BTreeMap::<String, u32>::new());
    let outcome = TestRunner::new_with_rng(config, random).run(&input, |(seed, mutations)| {
        let input = corpus.input(seed, &mutations);
        watch.begin(&input);
        let outcome = read(&input);
        watch.end();
        let kind = kind(&outcome);
        *counts.borrow_mut().entry(kind).or_default() += 1;
        check(outcome).map_err(|message| TestCaseError::fail(format!("{message}: {}", input.escape_ascii())))
    });
    println!("{target}: {executions} executions in {:.1?}: {:?}", started.elapsed(), counts.borrow());
    if let Err(failure) = outcome {
        panic!("{target}: {failure}");
    }
}

fn check(outcome: Result<(), String>) -> Result<(), String> {
    match outcome {
        Err(message) if message.trim().is_empty() => Err("an error without words".into()),
        Err(message) if message.len() > 20_000 => Err(format!("an error of {} bytes", message.len())),
        _ => Ok(()),
    }
}

/// What a run's summary counts: good inputs, errors, and by name what sandboxes held back.
fn kind(outcome: &Result<(), String>) -> String {
    const HELD_BACK: [&str; 6] = ["fails: ", "takes more than ", "takes longer than ", "makes more than ", "writes ", "ends the"];
    match outcome {
        Ok(()) => "good".into(),
        Err(message) => match HELD_BACK.iter().find_map(|words| message.find(words)) {
            Some(place) => message[place..].chars().take_while(|c| !c.is_ascii_digit() && *c != '"').take(50).collect(),
            None => "error".into(),
        },
    }
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Ends the process, saying with which input, where one takes longer than [`LONGEST`].
struct Watch(mpsc::Sender<Option<Vec<u8>>>);

impl Watch {
    fn new(target: &str) -> Watch {
        let (sender, inputs) = mpsc::channel::<Option<Vec<u8>>>();
        let target = target.to_string();
        std::thread::spawn(move || {
            let mut current = None;
            loop {
                match inputs.recv_timeout(LONGEST) {
                    Ok(input) => current = input,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        if let Some(input) = &current {
                            eprintln!("{target}: longer than {LONGEST:?}: {}", input.escape_ascii());
                            std::process::abort();
                        }
                    }
                }
            }
        });
        Watch(sender)
    }

    fn begin(&self, input: &[u8]) {
        let _ = self.0.send(Some(input.to_vec()));
    }

    fn end(&self) {
        let _ = self.0.send(None);
    }
}

fn corpus_folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus"))
}
