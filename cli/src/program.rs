//! A program that says how good answers are: a JSON line for each answer on its standard input, and one back on its standard output.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wgtune_models::error::{Error, Result};
use wgtune_models::rl::rollout::{Said, Scorer};
use wgtune_models::wording::shortened;

use crate::common::note;

/// Bytes of the longest line that is read as one.
const LONGEST_LINE: u64 = 1 << 16;

/// How often an interrupt is looked for.
const TICK: Duration = Duration::from_millis(50);

/// How long a line that nobody asked for is waited for.
const GRACE: Duration = Duration::from_millis(20);

/// The program, started when it is first asked.
pub struct Program {
    command: String,
    limit: Duration,
    interrupted: Arc<AtomicBool>,
    running: Option<Running>,
    /// Whether it was started again already.
    is_second: bool,
}

struct Running {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Program {
    /// A command line for the shell, and how long it may take for an answer, unless the run is interrupted.
    pub fn new(command: &str, limit: Duration, interrupted: Arc<AtomicBool>) -> Program {
        Program { command: command.into(), limit, interrupted, running: None, is_second: false }
    }

    fn start(&self) -> std::result::Result<Running, String> {
        let shell = if cfg!(windows) { ["cmd", "/C"] } else { ["sh", "-c"] };
        let mut command = Command::new(shell[0]);
        command.args([shell[1], &self.command]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own: what it starts ends with it, and Ctrl-C is for the run alone.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { unreachable!("both are piped") };
        // A program that says more than it is asked has to wait.
        let (sender, lines) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            loop {
                let mut line = Vec::new();
                match output.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                    Ok(1..) if sender.send(String::from_utf8_lossy(&line).trim_end().into()).is_ok() => {}
                    _ => break,
                }
            }
        });
        Ok(Running { child, input, lines })
    }

    fn ask(&mut self, questions: &str, count: usize) -> std::result::Result<Vec<f64>, String> {
        if self.running.is_none() {
            self.running = Some(self.start()?);
        }
        let Some(Running { child, input, lines }) = &mut self.running else { unreachable!("it was started") };
        let (limit, interrupted) = (self.limit, &*self.interrupted);
        // It may answer before it has heard all, and a full pipe must hold neither.
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || input.write_all(questions.as_bytes()).and_then(|()| input.flush()));
            let found = answers(lines, count, limit, interrupted);
            if found.is_err() {
                // Or the writer waits for one that does not listen.
                end(child);
            }
            let written = writer.join().unwrap_or(Ok(()));
            let found = found?;
            written.map(|()| found).map_err(|error| format!("does not listen: {error}"))
        })
    }

    /// Checks that it says no more than it was asked, for so long: another line would be taken for the next answer.
    fn check_silence(&self, grace: Duration) -> Result<()> {
        match self.running.as_ref().map(|running| running.lines.recv_timeout(grace)) {
            Some(Ok(line)) => {
                let (command, line) = (&self.command, shortened(&line, 60));
                let message = format!("`{command}` said {line:?} without being asked; expected a line for each answer");
                Err(Error::Data { message })
            }
            _ => Ok(()),
        }
    }

    fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            end(&mut running.child);
            let _ = running.child.wait();
        }
    }
}

/// Ends a program and all that it started.
fn end(child: &mut Child) {
    #[cfg(unix)]
    let _ = Command::new("sh").args(["-c", &format!("kill -KILL -{}", child.id())]).stderr(Stdio::null()).status();
    let _ = child.kill();
}

/// The scores in the next lines, by the ids that they have, or in the questions' order.
fn answers(
    lines: &Receiver<String>,
    count: usize,
    limit: Duration,
    interrupted: &AtomicBool,
) -> std::result::Result<Vec<f64>, String> {
    let mut scores: Vec<Option<f64>> = vec![None; count];
    for next in 0..count {
        let begun = Instant::now();
        let line = loop {
            match lines.recv_timeout(TICK.min(limit.saturating_sub(begun.elapsed()))) {
                Ok(line) => break line,
                Err(RecvTimeoutError::Disconnected) => return Err("ended".into()),
                Err(RecvTimeoutError::Timeout) if interrupted.load(Ordering::SeqCst) => return Err("was interrupted".into()),
                Err(RecvTimeoutError::Timeout) if begun.elapsed() < limit => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err("did not answer in time (does it flush what it writes?)".into());
                }
            }
        };
        let said = |expected: &str| format!("said {:?}; expected {expected}", shortened(&line, 60));
        let value: Value = serde_json::from_str(&line).unwrap_or_default();
        let score = value.as_f64().or(value["score"].as_f64()).filter(|score| score.is_finite());
        let score = score.ok_or_else(|| said("a number, or {\"score\": number}"))?;
        let place = if value["id"].is_null() { Some(next) } else { value["id"].as_u64().map(|id| id as usize) };
        match place.and_then(|place| scores.get_mut(place)) {
            Some(open @ None) => *open = Some(score),
            _ => return Err(said("each question's id once")),
        }
    }
    Ok(scores.into_iter().flatten().collect())
}

impl Scorer for Program {
    fn name(&self) -> &'static str {
        "rewards/program"
    }

    fn score(&mut self, said: &[Said]) -> Result<Vec<f64>> {
        let line = |(id, said): (usize, &Said)| {
            let line = json!({"id": id, "prompt": said.prompt.given, "completion": said.text, "expected": said.prompt.expected});
            format!("{line}\n")
        };
        let questions: String = said.iter().enumerate().map(line).collect();
        self.check_silence(Duration::ZERO)?;
        loop {
            let message = match self.ask(&questions, said.len()) {
                Ok(scores) => return self.check_silence(GRACE).map(|()| scores),
                Err(message) => message,
            };
            self.stop();
            if self.interrupted.load(Ordering::SeqCst) {
                return Err(Error::Interrupted);
            }
            if self.is_second {
                return Err(Error::Data { message: format!("`{}`, started twice, {message}", self.command) });
            }
            note(format!("`{}` {message}: it is started again", self.command));
            self.is_second = true;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop();
    }
}
