//! Progress of long work: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::common;

/// Plain lines come no more often than this.
const EVERY: Duration = Duration::from_secs(5);

/// Counts up to a known number, on standard error.
pub struct Progress {
    what: &'static str,
    total: u64,
    /// Parts that were done before.
    first: u64,
    done: u64,
    begun: Instant,
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
        let (total, done, now) = (total as u64, done as u64, Instant::now());
        Progress { what, total, first: done, done, begun: now, bar, last_line: now }
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
                let left = left(self.begun.elapsed(), self.done - self.first, self.total.saturating_sub(self.done));
                let words = [note, &left].into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(", ");
                common::note(format!("{} {}/{} {words}", self.what, self.done, self.total).trim_end());
                self.last_line = Instant::now();
            }
            None => {}
        }
    }
}

/// How long the parts that are missing take, where those that were made took so long.
fn left(elapsed: Duration, made: u64, missing: u64) -> String {
    let seconds = elapsed.as_secs_f64() / made.max(1) as f64 * missing as f64;
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    if missing == 0 { String::new() } else { format!("{:#} left", HumanDuration(duration)) }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_by_the_pace_so_far() {
        let left = |seconds, made, missing| left(Duration::from_secs(seconds), made, missing);
        assert_eq!(left(30, 10, 60), "3m left");
        assert_eq!(left(6, 3, 4), "8s left");
        assert_eq!(left(30, 10, 0), "");
        assert_eq!(left(5, 0, 3), "15s left");
    }
}
