//! A judge behind an address that speaks as OpenAI's chat completions do: llama.cpp, vLLM, Ollama and many services.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use ureq::Agent;
use wgtune_models::error::{Error, Result};
use wgtune_models::rl::judge::{Heard, Judge, verdict};
use wgtune_models::wording::{counted, shortened};

use crate::common::note;
use crate::numbers::{above_zero, whole};

/// Variables of the environment that may hold the key, the first first. No option does: others would see it.
const KEYS: [&str; 2] = ["WGTUNE_JUDGE_KEY", "OPENAI_API_KEY"];

/// The longest pause before a request is made again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Which judge is asked, and how often.
#[derive(Args)]
pub struct EndpointArguments {
    /// Ask a judge behind this address, which speaks as OpenAI's chat completions do; its key is that of WGTUNE_JUDGE_KEY or
    /// OPENAI_API_KEY in the environment
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "adapter"])]
    pub judge_url: Option<String>,
    /// What that judge is called there
    #[arg(long, value_name = "NAME")]
    judge_name: Option<String>,
    /// How often a request is made again that failed for the time being
    #[arg(long, default_value_t = 3, value_parser = whole(0..=100), value_name = "TIMES")]
    judge_retries: usize,
    /// Requests at most, those that are made again included; --resume goes on with as many
    #[arg(long, default_value_t = 1000, value_parser = whole(1..=1_000_000_000), value_name = "REQUESTS")]
    judge_budget: usize,
    /// How long a request may take
    #[arg(long, default_value_t = 60.0, value_parser = above_zero, value_name = "SECONDS")]
    judge_seconds: f64,
    /// Requests that wait for their answers together
    #[arg(long, default_value_t = 4, value_parser = whole(1..=256), value_name = "REQUESTS")]
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
    requests: AtomicUsize,
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
    Never(String),
}

impl EndpointArguments {
    /// The judge, if it is one behind an address.
    ///
    /// # Errors
    /// An address that is none, or a judge without a name.
    pub fn open(&self, max_new_tokens: usize) -> Result<Option<Endpoint>> {
        let Some(url) = &self.judge_url else { return Ok(None) };
        let Some(name) = &self.judge_name else {
            return Err(Error::Data { message: "--judge-url is of several judges: expected --judge-name too".into() });
        };
        if !["http://", "https://"].iter().any(|begins| url.starts_with(begins)) {
            let message = format!("--judge-url is {url:?}; expected an address that begins with http:// or https://");
            return Err(Error::Data { message });
        }
        let limit = Duration::from_secs_f64(self.judge_seconds.min(1e6));
        let config = Agent::config_builder().timeout_global(Some(limit)).http_status_as_error(false).build();
        Ok(Some(Endpoint {
            agent: config.into(),
            address: format!("{}/chat/completions", url.trim_end_matches('/')),
            name: name.clone(),
            key: KEYS.iter().find_map(|key| std::env::var(key).ok()).filter(|key| !key.is_empty()),
            retries: self.judge_retries,
            together: self.judge_together,
            max_new_tokens,
            budget: self.judge_budget,
            requests: AtomicUsize::new(0),
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

    /// Asks all questions, several at once. What was answered is heard, also where another failed.
    fn ask_all(&self, questions: &[(usize, String)], tokens: usize, heard: &mut Heard<String>) -> Result<()> {
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
            let mut failure = None;
            for (number, reply) in replies {
                if let Err(error) = reply.and_then(|reply| heard(number, reply)) {
                    stopped.store(true, Ordering::SeqCst);
                    failure.get_or_insert(error);
                }
            }
            failure.map_or(Ok(()), Err)
        })
    }

    /// The reply to a question, after some tries.
    fn ask(&self, question: &str, tokens: usize, stopped: &AtomicBool) -> Result<String> {
        let fail = |message: String| Err(Error::Data { message: format!("{}: {message}", self.address) });
        for attempt in 0.. {
            if self.requests.fetch_add(1, Ordering::SeqCst) >= self.budget {
                self.requests.fetch_sub(1, Ordering::SeqCst);
                let budget = counted(self.budget, "request");
                return fail(format!("{budget} were made, as --judge-budget allows: --resume goes on with as many"));
            }
            match self.request(question, tokens) {
                Ok(reply) => return Ok(reply),
                Err(Failure::Never(message)) => return fail(message),
                Err(Failure::Later(message, _)) if attempt == self.retries => {
                    return fail(format!("{message}, after {}", counted(attempt + 1, "request")));
                }
                Err(Failure::Later(message, pause)) => {
                    let pause = pause.unwrap_or(Duration::from_millis(500 << attempt.min(7))).min(LONGEST_PAUSE);
                    note(format!("{}: {message}; again in {:.1} s", self.address, pause.as_secs_f64()));
                    let mut waited = Duration::ZERO;
                    while waited < pause && !stopped.load(Ordering::SeqCst) {
                        let step = Duration::from_millis(50).min(pause - waited);
                        thread::sleep(step);
                        waited += step;
                    }
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    fn request(&self, question: &str, tokens: usize) -> std::result::Result<String, Failure> {
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
                _ => Failure::Never(message),
            });
        }
        for (key, sum) in [("prompt_tokens", &self.prompt_tokens), ("completion_tokens", &self.completion_tokens)] {
            sum.fetch_add(found["usage"][key].as_u64().unwrap_or(0), Ordering::Relaxed);
        }
        match found["choices"][0]["message"]["content"].as_str() {
            Some(reply) => Ok(reply.to_string()),
            None => {
                let found = shortened(text.trim(), 200);
                Err(Failure::Never(format!("said {found:?}; expected choices with a message, as OpenAI's chat completions have")))
            }
        }
    }
}

/// Tokens that a letter, or the thoughts before one, may take.
const VERDICT_TOKENS: usize = 512;

impl Judge for Endpoint {
    fn has_room(&self, _: &str) -> Result<bool> {
        Ok(true)
    }

    fn compare(&mut self, questions: &[(usize, String)], heard: &mut Heard<Option<f64>>) -> Result<()> {
        self.ask_all(questions, VERDICT_TOKENS, &mut |number, reply| heard(number, verdict(&reply)))
    }

    fn reply(&mut self, questions: &[(usize, String)], heard: &mut Heard<String>) -> Result<()> {
        self.ask_all(questions, self.max_new_tokens, heard)
    }
}
