//! `--jobs`: several runs of `sft` from a TOML file, each as if its options were typed.

use std::path::PathBuf;

use clap::Args;
use toml::de::{DeTable, DeValue};

use crate::config::{File, long};

const JOBS_HELP: &str = r#"Train several adapters on one model side by side, each on its own data, in one pass over
the rows of all. A TOML file has a table for each; what stands above them is for all:

  model = "DIR"
  steps = 200

  [[job]]
  data = ["weather.jsonl"]
  out = "weather"

  [[job]]
  data = ["trains.jsonl"]
  out = "trains"
  method = "prompt"

Each comes to what it comes to alone (to rounding; dropout draws otherwise), and writes
a folder as it does alone. None may train the model's own weights, as --method full,
--modules-to-save and --bias do. Options of the command line are for all, and come first."#;

/// The name of a job's table.
const JOB: &str = "job";

/// Options that are one for all jobs: the model that they share, and what the command says.
const OF_ALL: [&str; 9] = ["model", "device", "matmul-precision", "no-tune", "resume", "overwrite", "plan", "json", "quiet"];

/// Which jobs there are.
#[derive(Args)]
pub struct Jobs {
    /// Train several adapters side by side, which this TOML file describes
    #[arg(long, value_name = "FILE", long_help = JOBS_HELP, conflicts_with_all = ["config", "profile"])]
    pub jobs: Option<PathBuf>,
}

/// A job's options as they would be typed.
pub struct Typed {
    pub words: Vec<String>,
    /// Where it stands.
    pub place: String,
}

/// Those of every job of a file.
///
/// # Errors
/// A file without a job; a key that is no option or not a job's, and a value that its option does not take, each with its line.
pub fn of_file(file: &File) -> Result<Vec<Typed>, Box<dyn std::error::Error>> {
    let table = file.table()?;
    let path = file.path.display();
    let jobs: Option<Vec<(usize, &DeTable)>> = table.get(JOB).and_then(|jobs| match jobs.get_ref() {
        DeValue::Array(jobs) => jobs.iter().map(|job| Some((job.span().start, job.get_ref().as_table()?))).collect(),
        _ => None,
    });
    let jobs = jobs.filter(|jobs| !jobs.is_empty());
    let jobs = jobs.ok_or_else(|| {
        let near = table.keys().find(|key| key.get_ref().starts_with(JOB));
        let line = near.map_or(String::new(), |key| format!(":{}", file.line(key.span().start)));
        format!("{path}{line}: no jobs; expected a table [[{JOB}]] for each")
    })?;
    let typed = |(number, (start, job)): (usize, (usize, &DeTable))| {
        let own = file.options(job, &[], &[])?;
        if let Some(shared) = own.arguments.iter().map(|argument| long(argument)).find(|name| OF_ALL.contains(name)) {
            let at = job.keys().find(|key| *key.get_ref() == shared).map_or(start, |key| key.span().start);
            let line = file.line(at);
            return Err(format!("{path}:{line}: `{shared}` is one for all jobs; expected it above the first [[{JOB}]]").into());
        }
        let shared = file.options(&table, &[JOB], &own.arguments)?;
        let place = format!("{path}:{}: job {}", file.line(start), number + 1);
        Ok(Typed { words: [shared.words, own.words].concat(), place })
    };
    jobs.into_iter().enumerate().map(typed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_here_is_an_option_of_sft() {
        let program = crate::program();
        let options: Vec<&str> = program.find_subcommand("sft").unwrap().get_arguments().map(long).collect();
        assert!(OF_ALL.iter().all(|name| options.contains(name)), "{options:?}");
    }
}
