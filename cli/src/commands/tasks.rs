//! `wgtune tasks`.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use wgtune_models::formats::files::{names, read_bytes, remove, rename, write_bytes, write_directory};
use wgtune_models::model::is_model_file;
use wgtune_models::peft::ADAPTER_FILES;
use wgtune_models::tasks::{Table, Task};
use wgtune_models::train::run::check_idle;

use crate::common::{Outcome, Overwrite, print_json, print_line, task_name};
use crate::config::Given;
use crate::tables::columns;

/// Looks after a table of tasks: a folder with an adapter of one model for each, whatever their methods
#[derive(Args)]
#[command(after_help = "Examples:\n  wgtune tasks list TABLE\n  \
    wgtune tasks add TABLE summaries --adapter DIR\n  \
    wgtune tasks remove TABLE summaries --yes\n  \
    wgtune tasks rename TABLE summaries abstracts\n\n\
    A task is trained by sft with --out TABLE --task NAME, and used with --adapter TABLE --task NAME")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Names, methods, sizes and bases of all tasks
    #[command(after_help = "Example:\n  wgtune tasks list TABLE --json")]
    List {
        /// The table
        table: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Copies an adapter into the table, which is made where there is none
    #[command(after_help = "Example:\n  wgtune tasks add TABLE summaries --adapter DIR")]
    Add {
        /// The table
        table: PathBuf,
        /// What the task is called there
        #[arg(value_parser = task_name)]
        name: String,
        /// The adapter's folder, in the layout of PEFT
        #[arg(long, value_name = "DIR")]
        adapter: PathBuf,
        #[command(flatten)]
        overwrite: Overwrite,
    },
    /// Removes a task from the table, with all that is in its folder
    #[command(after_help = "Example:\n  wgtune tasks remove TABLE summaries --yes")]
    Remove {
        /// The table
        table: PathBuf,
        /// The task
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Gives a task another name
    #[command(after_help = "Example:\n  wgtune tasks rename TABLE summaries abstracts")]
    Rename {
        /// The table
        table: PathBuf,
        /// The name that it has
        old: String,
        /// The name that it gets
        #[arg(value_parser = task_name)]
        new: String,
    },
}

/// Does what was asked for.
pub fn run(arguments: &Arguments, _: &Given) -> Outcome {
    match &arguments.action {
        Action::List { table, json } => list(table, *json),
        Action::Add { table, name, adapter, overwrite } => add(table, name, adapter, overwrite.overwrite),
        Action::Remove { table, name, yes } => removed(table, name, *yes),
        Action::Rename { table, old, new } => renamed(table, old, new),
    }
}

fn list(table: &Path, json: bool) -> Outcome {
    if !table.is_dir() {
        return Err(format!("there is no folder {}; expected a table of tasks", table.display()).into());
    }
    let table = Table::open(table)?;
    if table.names().is_empty() {
        table.check()?;
    }
    let tasks = table.tasks()?;
    if json {
        return print_json(&tasks);
    }
    let row = |task: &Task| {
        let Task { name, method, size, trained_parameters, base, .. } = task;
        [name.clone(), method.clone(), size.clone(), trained_parameters.to_string(), base.clone().unwrap_or_default()]
    };
    let lines = columns(&["task", "method", "size", "parameters", "base"], tasks.iter().map(row));
    lines.iter().skip(1).try_for_each(|line| print_line(line))
}

fn add(table: &Path, name: &str, adapter: &Path, overwrite: bool) -> Outcome {
    // It can be read, all of it.
    let task = Task::open(name, adapter)?;
    let opened = Table::open(table)?;
    let place = opened.place(name)?;
    if place.exists() && !overwrite {
        return Err(format!("{} is there already: choose another name, or --overwrite it", place.display()).into());
    }
    if place.canonicalize().ok().is_some_and(|place| adapter.canonicalize().is_ok_and(|adapter| adapter == place)) {
        return Err(format!("--adapter is {}, which is the task itself: expected another folder", adapter.display()).into());
    }
    check_idle(&place)?;
    write_directory(&place, |to| {
        let is_own = |name: &str| ADAPTER_FILES.contains(&name) || is_model_file(name);
        for name in names(adapter)?.iter().filter(|name| name.to_str().is_some_and(is_own)) {
            write_bytes(&to.join(name), &read_bytes(&adapter.join(name))?)?;
        }
        Ok(())
    })?;
    print_line(&format!("added {name}, {} of {} parameters, to {}", task.method, task.trained_parameters, table.display()))
}

fn removed(table: &Path, name: &str, yes: bool) -> Outcome {
    let place = Table::open(table)?.task(name)?;
    check_idle(&place)?;
    if !yes && !is_sure(&place)? {
        return Err(format!("{} is left as it is: --yes removes it", place.display()).into());
    }
    remove(&place)?;
    print_line(&format!("removed {name} from {}", table.display()))
}

/// Asks on a terminal; without one nobody is sure.
fn is_sure(place: &Path) -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    write!(io::stderr(), "remove {} with all that is in it? [y/N] ", place.display())?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(["y", "yes"].contains(&line.trim().to_lowercase().as_str()))
}

fn renamed(table: &Path, old: &str, new: &str) -> Outcome {
    let opened = Table::open(table)?;
    let (from, to) = (opened.task(old)?, opened.place(new)?);
    if to.exists() {
        return Err(format!("{} is there already: choose another name", to.display()).into());
    }
    check_idle(&from)?;
    rename(&from, &to)?;
    print_line(&format!("renamed {old} to {new} in {}", table.display()))
}
