//! Progress of long work: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::common;

/// Plain lines come no more often than this.
const EVERY: Duration = Duration::from_secs(5);

/// Counts up to a known number, on standard error.
pub struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Progress {
    /// Work of `total` parts, of which `done` are done.
    pub fn new(what: &'static str, total: usize, done: usize) -> Progress {
        let bar = (std::io::stderr().is_terminal() && !common::is_quiet()).then(|| {
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg} {eta}");
            let bar = ProgressBar::new(total as u64).with_style(style.expect("a constant template")).with_prefix(what);
            bar.set_position(done as u64);
            bar
        });
        Progress { what, total: total as u64, done: done as u64, bar, last_line: Instant::now() }
    }

    /// Says how it stands, where there is a bar to say it on.
    pub fn tell(&self, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(note.to_string());
        }
    }

    /// Says a line that stays.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| common::note(line)),
            None => common::note(line),
        }
    }

    /// One part is done; `note` says how it stands.
    pub fn advance(&mut self, note: &str) {
        self.done += 1;
        match &self.bar {
            Some(bar) => {
                bar.set_message(note.to_string());
                bar.set_position(self.done);
            }
            None if self.last_line.elapsed() >= EVERY || (self.done == self.total && !note.is_empty()) => {
                common::note(format!("{} {}/{} {note}", self.what, self.done, self.total).trim_end());
                self.last_line = Instant::now();
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
