//! Writes the demo's language as plain text, documents separated by a line `<|endoftext|>`:
//!
//! `cargo run -p wgtune-models --example demo_corpus -- --documents 20000 --out FILE`

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use wgtune_models::demo::language::pretraining_documents;

const USAGE: &str = "usage: demo_corpus [--seed N] [--documents N] --out FILE";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let (mut seed, mut documents, mut out) = (0, 20_000, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{option} expects a value\n{USAGE}"))?;
        match option.as_str() {
            "--seed" => seed = number(&option, &value)?,
            "--documents" => documents = number(&option, &value)? as usize,
            "--out" => out = Some(value),
            _ => return Err(format!("unknown option {option}\n{USAGE}")),
        }
    }
    let out = out.ok_or_else(|| format!("--out is missing\n{USAGE}"))?;
    let text = pretraining_documents(seed, documents).join("\n<|endoftext|>\n") + "\n";
    write_whole(Path::new(&out), &text).map_err(|error| format!("{out}: {error}"))?;
    eprintln!("{documents} documents, {} bytes: {out}", text.len());
    Ok(())
}

fn number(option: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{option} expects a whole number, got {value:?}\n{USAGE}"))
}

/// The file appears complete or not at all.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}
