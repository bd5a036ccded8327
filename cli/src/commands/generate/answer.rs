//! A row's tokens made text as they come, up to a stop text.

use wgtune_models::Result;
use wgtune_models::formats::tokenizer::TextStream;
use wgtune_models::generate::{FinishReason, Listener};

use super::show;

/// The text of one row; of ids where there is no tokenizer, nothing.
pub struct Answer<'a> {
    text: StoppedText<'a>,
    decoding: Option<TextStream<'a>>,
}

impl<'a> Answer<'a> {
    /// An empty one, that ends before one of `stops`, and with `stream` is shown as it comes.
    pub fn new(stops: &'a [String], decoding: Option<TextStream<'a>>, stream: bool) -> Answer<'a> {
        Answer { text: StoppedText { stops, text: String::new(), shown: 0, stream }, decoding }
    }

    /// Adds a token; `false` once a stop text appeared.
    pub fn push(&mut self, token: u32) -> Result<bool> {
        match &mut self.decoding {
            Some(decoding) => Ok(self.text.push(&decoding.push(token)?)),
            None => {
                if self.text.stream {
                    show(&format!("{token} "));
                }
                Ok(true)
            }
        }
    }

    /// The whole of it. What was cut off at a length is all that there is; where it stopped, what may have begun a letter is not.
    pub fn finish(&mut self, reason: FinishReason) -> Result<String> {
        if let Some(decoding) = self.decoding.take()
            && reason == FinishReason::Length
        {
            self.text.push(&decoding.finish()?);
        }
        self.text.finish();
        Ok(std::mem::take(&mut self.text.text))
    }
}

/// Of one row alone.
impl Listener for Answer<'_> {
    fn token(&mut self, _: usize, token: u32) -> Result<bool> {
        self.push(token)
    }
}

/// Text as it comes, held back where it may be the beginning of a stop text.
struct StoppedText<'a> {
    stops: &'a [String],
    text: String,
    shown: usize,
    stream: bool,
}

impl StoppedText<'_> {
    /// Adds text; `false` once a stop text appeared, which is cut off.
    fn push(&mut self, more: &str) -> bool {
        self.text.push_str(more);
        let found = self.stops.iter().filter_map(|stop| self.text.find(stop.as_str())).min();
        if let Some(at) = found {
            self.text.truncate(at);
        }
        let sure = if found.is_some() { self.text.len() } else { self.text.len() - self.possible_stop() };
        self.show_to(sure);
        found.is_none()
    }

    /// Bytes at the end that a stop text may begin with.
    fn possible_stop(&self) -> usize {
        let begins = |stop: &str| {
            let ends = stop.char_indices().map(|(at, _)| at).filter(|&at| at > 0 && self.text.ends_with(&stop[..at]));
            ends.max().unwrap_or(0)
        };
        self.stops.iter().map(|stop| begins(stop)).max().unwrap_or(0)
    }

    fn show_to(&mut self, end: usize) {
        if self.stream && end > self.shown {
            show(&self.text[self.shown..end]);
            self.shown = end;
        }
    }

    fn finish(&mut self) {
        self.show_to(self.text.len());
        if self.stream {
            show("\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_text_is_found_across_pieces_and_cut_off() {
        let stops = ["\n\n".to_string(), "END".to_string()];
        let mut text = StoppedText { stops: &stops, text: String::new(), shown: 0, stream: false };
        assert!(text.push("one E"));
        assert_eq!(text.possible_stop(), 1);
        assert!(text.push("N"));
        assert!(!text.push("D two"));
        assert_eq!(text.text, "one ");
    }
}
