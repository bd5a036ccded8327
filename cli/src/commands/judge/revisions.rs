//! Better answers by principles: a critique of each answer, and a revision.

use serde_json::json;
use wgtune_engine::random::Philox;
use wgtune_models::rl::judge::{Reply, criticised, revised, said};

use super::answers::Item;
use super::report::Found;
use super::{Arguments, Asking, Judged};
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
    let tokens = arguments.drawing.max_new_tokens;
    let mut too_long = 0;
    let mut fitting = |asking: &Asking, questions: Vec<(usize, String)>| -> Result<Vec<(usize, String)>, Failure> {
        let mut kept = Vec::with_capacity(questions.len());
        for (at, question) in questions {
            if asking.judge.has_room(&question, tokens)? { kept.push((at, question)) } else { too_long += 1 }
        }
        Ok(kept)
    };
    let places = |questions: &[(usize, String)]| questions.iter().map(|(at, _)| *at).collect::<Vec<usize>>();
    let first = |(at, item): (usize, &Item)| (at, criticised(principle(at), &item.prompt, &item.answers[0]));
    let questions = fitting(&asking, items.iter().enumerate().map(first).collect())?;
    let asked = places(&questions);
    asking.replies(CRITIQUE, questions)?;
    let found = |asking: &Asking, kind: &str, at: usize| {
        let Reply { text, is_cut } = asking.kept.get(kind, at)?;
        said(&text).map(|text| (text.to_string(), is_cut))
    };
    let second = |at: usize| {
        let (critique, _) = found(&asking, CRITIQUE, at)?;
        let Item { prompt, answers, .. } = &items[at];
        Some((at, revised(principle(at), prompt, &answers[0], &critique)))
    };
    let questions: Vec<_> = asked.iter().filter_map(|at| second(*at)).collect();
    let mut unanswered = asked.len() - questions.len();
    let questions = fitting(&asking, questions)?;
    let asked = places(&questions);
    asking.replies(REVISION, questions)?;
    let (mut rows, mut unchanged, mut cut) = (Vec::new(), 0, 0);
    for at in asked {
        let item = &items[at];
        let answer = &item.answers[0];
        let Some(((critique, _), (reply, is_cut))) = found(&asking, CRITIQUE, at).zip(found(&asking, REVISION, at)) else {
            unanswered += 1;
            continue;
        };
        if reply == answer.trim() {
            unchanged += 1;
            continue;
        }
        cut += usize::from(is_cut);
        // It follows the prompt as the answer does.
        let blank = &answer[..answer.len() - answer.trim_start().len()];
        rows.push(json!({
            "prompt": item.prompt,
            "chosen": item.shown(&format!("{blank}{reply}")),
            "rejected": item.shown(answer),
            "principle": principle(at),
            "critique": critique,
        }));
    }
    Ok(Judged { rows, too_long, cut, found: Found::Revised { unchanged, unanswered } })
}
