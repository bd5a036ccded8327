//! A judge behind an address that speaks as OpenAI's chat completions do: llama.cpp, vLLM, Ollama and many services.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use ureq::Agent;
use wgtune_models::error::{Error, Result};
use wgtune_models::rl::judge::{Heard, Judge, Reply, said, verdict};
use wgtune_models::wording::{counted, shortened};

use crate::common::note;
use crate::numbers::{above_zero, whole};

/// Variables of the environment that may hold the key, the first first. No option does: others would see it.
const KEYS: [&str; 2] = ["WGTUNE_JUDGE_KEY", "OPENAI_API_KEY"];

/// The longest pause that a judge may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How often an interrupt is looked for.
const TICK: Duration = Duration::from_millis(50);

/// Which judge is asked, and how often.
#[derive(Args)]
pub struct EndpointArguments {
    /// Ask a judge behind this address, which speaks as OpenAI's chat completions do; its key is that of WGTUNE_JUDGE_KEY in the
    /// environment, or, for OpenAI's own and for localhost, of OPENAI_API_KEY
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "adapter"])]
    pub judge_url: Option<String>,
    /// What that judge is called there
    #[arg(long, conflicts_with = "model", value_name = "NAME")]
    judge_name: Option<String>,
    /// How often a request is made again that failed for the time being
    #[arg(long, conflicts_with = "model", default_value_t = 3, value_parser = whole(0..=100), value_name = "TIMES")]
    judge_retries: usize,
    /// Requests at most, those that are made again included; --resume goes on with as many
    #[arg(long, conflicts_with = "model", default_value_t = 1000, value_parser = whole(1..=1_000_000_000), value_name = "REQUESTS")]
    judge_budget: usize,
    /// How long a request may take
    #[arg(long, conflicts_with = "model", default_value_t = 60.0, value_parser = above_zero, value_name = "SECONDS")]
    judge_seconds: f64,
    /// Requests that wait for their answers together
    #[arg(long, conflicts_with = "model", default_value_t = 4, value_parser = whole(1..=256), value_name = "REQUESTS")]
    judge_together: usize,
}

/// The judge.
pub struct Endpoint {
    agent: Agent,
    address: String,
    name: String,
    key: Option<String>,
    retries: usize,
    together: usize,
    /// Tokens of its longest reply in words.
    max_new_tokens: usize,
    budget: usize,
    interrupted: Arc<AtomicBool>,
    requests: AtomicUsize,
    /// Questions that it replied to.
    replies: AtomicUsize,
    /// Questions that it refused.
    refusals: AtomicUsize,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
}

/// What it was asked in this run.
#[derive(Serialize)]
pub struct Usage {
    pub requests: usize,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

/// Why a request brought no reply.
enum Failure {
    /// It may bring one later, perhaps after so long.
    Later(String, Option<Duration>),
    /// None of this question's requests will.
    Refused(String),
    /// None of any will.
    Never(String),
}

impl EndpointArguments {
    /// The judge, if it is one behind an address.
    ///
    /// # Errors
    /// An address that is none, or a judge without a name.
    pub fn open(&self, max_new_tokens: usize, interrupted: Arc<AtomicBool>) -> Result<Option<Endpoint>> {
        let Some(url) = &self.judge_url else { return Ok(None) };
        let Some(name) = &self.judge_name else {
            return Err(Error::Data { message: "--judge-url is of several judges: expected --judge-name too".into() });
        };
        if !["http://", "https://"].iter().any(|begins| url.starts_with(begins)) {
            let message = format!("--judge-url is {url:?}; expected an address that begins with http:// or https://");
            return Err(Error::Data { message });
        }
        let host = url.split('/').nth(2).unwrap_or_default();
        if host.contains('@') {
            let message = format!("--judge-url has a name or a password in it; expected them in {} alone", KEYS[0]);
            return Err(Error::Data { message });
        }
        // The key of one service is no other's business.
        let host = host.split(':').next().unwrap_or_default();
        let is_openais = ["api.openai.com", "localhost", "127.0.0.1"].contains(&host);
        let keys = KEYS.iter().filter(|key| is_openais || **key == KEYS[0]);
        let key = keys.filter_map(|key| std::env::var(key).ok()).map(|key| key.trim().to_string()).find(|key| !key.is_empty());
        if key.as_ref().is_some_and(|key| !key.chars().all(|letter| letter.is_ascii_graphic())) {
            let message = format!("the key in {} or {} has blanks or other signs in it; expected none", KEYS[0], KEYS[1]);
            return Err(Error::Data { message });
        }
        let limit = Duration::from_secs_f64(self.judge_seconds.min(1e6));
        let config = Agent::config_builder().timeout_global(Some(limit)).http_status_as_error(false).build();
        Ok(Some(Endpoint {
            agent: config.into(),
            address: format!("{}/chat/completions", url.trim_end_matches('/')),
            name: name.clone(),
            key,
            retries: self.judge_retries,
            together: self.judge_together,
            max_new_tokens,
            budget: self.judge_budget,
            interrupted,
            requests: AtomicUsize::new(0),
            replies: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            prompt_tokens: AtomicU64::new(0),
            completion_tokens: AtomicU64::new(0),
        }))
    }
}

impl Endpoint {
    /// What it is called, with its address.
    pub fn identity(&self) -> String {
        format!("{} at {}", self.name, self.address)
    }

    /// What it was asked so far.
    pub fn usage(&self) -> Usage {
        Usage {
            requests: self.requests.load(Ordering::Relaxed),
            prompt_tokens: self.prompt_tokens.load(Ordering::Relaxed),
            completion_tokens: self.completion_tokens.load(Ordering::Relaxed),
        }
    }

    /// Asks all questions, several at once. What was answered is heard, also where another failed; a question that it refuses is not.
    fn ask_all(&self, questions: &[(usize, String)], tokens: usize, heard: &mut Heard<Reply>) -> Result<()> {
        let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (sender, replies) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..self.together.min(questions.len()) {
                let (sender, next, stopped) = (sender.clone(), &next, &stopped);
                scope.spawn(move || {
                    while !stopped.load(Ordering::SeqCst) {
                        let Some((number, question)) = questions.get(next.fetch_add(1, Ordering::SeqCst)) else { break };
                        let reply = self.ask(question, tokens, stopped);
                        if reply.is_err() {
                            stopped.store(true, Ordering::SeqCst);
                        }
                        if sender.send((*number, reply)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            let mut failure: Option<Error> = None;
            loop {
                let (number, reply) = match replies.recv_timeout(TICK) {
                    Ok(found) => found,
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {
                        stopped.fetch_or(self.interrupted.load(Ordering::SeqCst), Ordering::SeqCst);
                        continue;
                    }
                };
                if let Err(error) = reply.and_then(|reply| reply.map_or(Ok(()), |reply| heard(number, reply))) {
                    stopped.store(true, Ordering::SeqCst);
                    // Others are only told to stop.
                    if matches!(failure, None | Some(Error::Interrupted)) {
                        failure = Some(error);
                    }
                }
            }
            match failure {
                None if self.interrupted.load(Ordering::SeqCst) => Err(Error::Interrupted),
                failure => failure.map_or(Ok(()), Err),
            }
        })
    }

    /// The reply to a question, after some tries; `None` where this question is refused.
    fn ask(&self, question: &str, tokens: usize, stopped: &AtomicBool) -> Result<Option<Reply>> {
        let fail = |message: String| Err(Error::Data { message: format!("{}: {message}", self.address) });
        for attempt in 0.. {
            if stopped.load(Ordering::SeqCst) {
                return Err(Error::Interrupted);
            }
            if self.requests.fetch_add(1, Ordering::SeqCst) >= self.budget {
                self.requests.fetch_sub(1, Ordering::SeqCst);
                let budget = counted(self.budget, "request");
                return fail(format!("--judge-budget allows no more than {budget}: --resume goes on with as many"));
            }
            match self.request(question, tokens) {
                Ok(reply) => {
                    self.replies.fetch_add(1, Ordering::SeqCst);
                    return Ok(Some(reply));
                }
                Err(Failure::Never(message)) => return fail(message),
                Err(Failure::Refused(message)) => {
                    // One question may be too long, or not to be spoken of; that all are is no matter of questions.
                    if self.refusals.fetch_add(1, Ordering::SeqCst) + 1 >= REFUSALS && self.replies.load(Ordering::SeqCst) == 0 {
                        return fail(format!("{message}, to each of the first {}", counted(REFUSALS, "question")));
                    }
                    note(format!("{}: {message}: no reply to this question", self.address));
                    return Ok(None);
                }
                Err(Failure::Later(message, _)) if attempt == self.retries => {
                    return fail(format!("{message}, after {}", counted(attempt + 1, "request")));
                }
                Err(Failure::Later(message, pause)) => {
                    let pause = pause.unwrap_or(Duration::from_millis(500 << attempt.min(6))).min(LONGEST_PAUSE);
                    note(format!("{}: {message}; again in {:.1} s", self.address, pause.as_secs_f64()));
                    let mut waited = Duration::ZERO;
                    while waited < pause && !stopped.load(Ordering::SeqCst) {
                        let step = TICK.min(pause - waited);
                        thread::sleep(step);
                        waited += step;
                    }
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    fn request(&self, question: &str, tokens: usize) -> std::result::Result<Reply, Failure> {
        let body = json!({
            "model": self.name,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": tokens,
        });
        let mut request = self.agent.post(&self.address).header("Content-Type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let mut response = request.send(body.to_string()).map_err(|error| Failure::Later(error.to_string(), None))?;
        let status = response.status().as_u16();
        let pause = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        let text = response.body_mut().read_to_string().map_err(|error| Failure::Later(error.to_string(), None))?;
        let found: Value = serde_json::from_str(&text).unwrap_or_default();
        if status != 200 {
            let reason = found["error"]["message"].as_str().or(found["error"].as_str()).unwrap_or(&text);
            let message = format!("status {status}, {:?}", shortened(reason.trim(), 200));
            return Err(match status {
                408 | 409 | 425 | 429 | 500.. => Failure::Later(message, pause.map(Duration::from_secs)),
                // What is too long, or what it is not to speak of.
                400 | 413 | 422 => Failure::Refused(message),
                _ => Failure::Never(message),
            });
        }
        for (key, sum) in [("prompt_tokens", &self.prompt_tokens), ("completion_tokens", &self.completion_tokens)] {
            sum.fetch_add(found["usage"][key].as_u64().unwrap_or(0), Ordering::Relaxed);
        }
        let choice = &found["choices"][0];
        match choice["message"]["content"].as_str() {
            Some(text) => Ok(Reply { text: text.into(), is_cut: choice["finish_reason"] == "length" }),
            None if choice["message"].is_object() => Err(Failure::Refused("a message without text".into())),
            None => {
                let found = shortened(text.trim(), 200);
                Err(Failure::Never(format!("said {found:?}; expected choices with a message, as OpenAI's chat completions have")))
            }
        }
    }
}

/// Refused questions after which a judge that never replied is asked no more.
const REFUSALS: usize = 4;

/// Tokens that a letter and the thoughts before one may take at the least.
const VERDICT_TOKENS: usize = 512;

impl Judge for Endpoint {
    fn has_room(&self, _: &str, _: usize) -> Result<bool> {
        Ok(true)
    }

    fn compare(&mut self, questions: &[(usize, String)], heard: &mut Heard<f64>) -> Result<()> {
        let tokens = self.max_new_tokens.max(VERDICT_TOKENS);
        self.ask_all(questions, tokens, &mut |number, reply| {
            if reply.is_cut {
                note(format!("a verdict was cut at {tokens} tokens: --max-new-tokens allows more"));
                return Ok(());
            }
            verdict(&reply.text).map_or(Ok(()), |first| heard(number, first))
        })
    }

    fn reply(&mut self, questions: &[(usize, String)], heard: &mut Heard<Reply>) -> Result<()> {
        // One that says nothing is asked again where the command is resumed.
        self.ask_all(questions, self.max_new_tokens, &mut |number, reply| {
            if said(&reply.text).is_some() { heard(number, reply) } else { Ok(()) }
        })
    }
}
