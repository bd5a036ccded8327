//! What is told of what a judge said.

use std::path::PathBuf;

use serde::Serialize;
use wgtune_models::wording::counted;

use crate::endpoint::Usage;

/// What it came to.
#[derive(Serialize)]
pub struct Report {
    pub out: PathBuf,
    /// Rows of the data.
    pub rows: usize,
    /// Rows that came of them.
    pub written: usize,
    /// Left out: they leave no room for an answer or a reply.
    pub too_long: usize,
    /// Answers, and revisions of them, that were cut at the length.
    pub cut: usize,
    #[serde(flatten)]
    pub found: Found,
    /// Of a judge behind an address, in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What is told of what the judge said.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Found {
    Compared {
        pairs: usize,
        /// Pairs that are the same but for blanks: nobody is asked, and they are ties.
        alike: usize,
        /// The share of the pairs in which no answer is better.
        ties: f64,
        /// Of the pairs that were judged, the share in which another answer is better in the other order.
        position_bias: f64,
        /// Pairs without a verdict, since some question brought no reply, or none that names an answer: they say nothing else.
        unreadable: usize,
        /// Of the pairs that came with their order and are no ties, the share in which the judge has the same.
        #[serde(skip_serializing_if = "Option::is_none")]
        agreement: Option<f64>,
    },
    Revised {
        /// Revisions that are the answer itself.
        unchanged: usize,
        /// Answers of which no critique or no revision came.
        unanswered: usize,
    },
}

impl Report {
    /// For a reader.
    pub fn lines(&self) -> Vec<String> {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let mut lines = vec![format!("wrote {} of {} to {}", self.written, counted(self.rows, "row"), self.out.display())];
        if self.too_long > 0 {
            lines.push(format!("{} left out: too long to be answered or judged", counted(self.too_long, "row")));
        }
        if self.cut > 0 {
            let cut = counted(self.cut, "answer");
            lines.push(format!("{cut} cut at --max-new-tokens: who learns from them learns to stop there"));
        }
        match &self.found {
            Found::Compared { pairs, ties, position_bias, unreadable, agreement, .. } => {
                let [ties, bias] = [*ties, *position_bias].map(percent);
                lines.push(format!(
                    "{}: {ties} ties; {bias} with another better answer in the other order",
                    counted(*pairs, "pair")
                ));
                lines.extend(
                    agreement.map(|share| format!("agrees with the rows in {} of the pairs that are no ties", percent(share))),
                );
                if *unreadable > 0 {
                    let pairs = counted(*unreadable, "pair");
                    lines.push(format!("{pairs} left out: no reply came, or none that names an answer; --resume asks again"));
                }
            }
            Found::Revised { unchanged, unanswered } => {
                for (count, why) in [(*unchanged, "revised to itself"), (*unanswered, "no reply came; --resume asks again")] {
                    lines.extend((count > 0).then(|| format!("{} left out: {why}", counted(count, "answer"))));
                }
            }
        }
        lines.extend(self.usage.as_ref().map(|usage| {
            let Usage { requests, prompt_tokens, completion_tokens } = usage;
            format!("{}, {prompt_tokens} tokens read and {completion_tokens} written", counted(*requests, "request"))
        }));
        lines
    }
}
