//! Better answers by principles: a critique of each answer, and a revision.

use serde_json::json;
use wgtune_engine::random::Philox;
use wgtune_models::rl::judge::{criticised, revised};

use super::answers::Item;
use super::{Arguments, Asking, Found, Judged};
use crate::runs::Failure;

const CRITIQUE: &str = "critique";
const REVISION: &str = "revision";

/// Revises the first answer of each item by a principle that is drawn for it.
pub(super) fn revise(
    arguments: &Arguments,
    principles: &[String],
    items: Vec<Item>,
    mut asking: Asking,
) -> Result<Judged, Failure> {
    let random = Philox::new(arguments.compute.seed).stream(0x7072696e);
    let principle = |at: usize| &principles[random.stream(at as u64).word(0) as usize % principles.len()];
    let mut too_long = 0;
    let mut questions = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let question = criticised(principle(at), &item.prompt, &item.answers[0]);
        // The second question is longer by the critique.
        let longest = revised(principle(at), &item.prompt, &item.answers[0], &"word ".repeat(arguments.drawing.max_new_tokens));
        if asking.judge.has_room(&longest)? { questions.push((at, question)) } else { too_long += 1 }
    }
    let asked: Vec<usize> = questions.iter().map(|(at, _)| *at).collect();
    asking.replies(CRITIQUE, questions)?;
    let critique = |asking: &Asking, at: usize| asking.kept.get::<String>(CRITIQUE, at).unwrap_or_default();
    let again = asked.iter().map(|&at| {
        let Item { prompt, answers, .. } = &items[at];
        (at, revised(principle(at), prompt, &answers[0], &critique(&asking, at)))
    });
    let again: Vec<_> = again.collect();
    asking.replies(REVISION, again)?;
    let (mut rows, mut unchanged) = (Vec::new(), 0);
    for at in asked {
        let (item, reply) = (&items[at], asking.kept.get::<String>(REVISION, at).unwrap_or_default());
        let answer = &item.answers[0];
        if reply.trim().is_empty() || reply.trim() == answer.trim() {
            unchanged += 1;
            continue;
        }
        // It follows the prompt as the answer does.
        let blank = &answer[..answer.len() - answer.trim_start().len()];
        rows.push(json!({
            "prompt": item.prompt,
            "chosen": item.shown(&format!("{blank}{}", reply.trim())),
            "rejected": item.shown(answer),
            "principle": principle(at),
            "critique": critique(&asking, at),
        }));
    }
    Ok(Judged { rows, too_long, found: Found::Revised { unchanged } })
}
