//! Which answers are better: each pair in both orders.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wgtune_models::rl::judge::{Preference, compared, preference, worths};

use super::answers::Item;
use super::report::Found;
use super::{Arguments, Asking, Judged};
use crate::runs::Failure;

/// Tokens that a letter may take.
const LETTER: usize = 4;

/// Two answers of an item.
struct Pair {
    one: usize,
    other: usize,
    /// The number of its first question, where they are not alike; the second is the next.
    number: Option<usize>,
}

/// What was found of an item's pairs: by the two answers, how likely the first is the better one.
type Firsts = BTreeMap<(usize, usize), f64>;

/// Compares the answers of each item, all with all.
pub(super) fn compare(arguments: &Arguments, rubric: &str, items: Vec<Item>, mut asking: Asking) -> Result<Judged, Failure> {
    let (mut questions, mut next, mut too_long) = (Vec::new(), 0, 0);
    let mut judged: Vec<(&Item, Vec<Pair>)> = Vec::with_capacity(items.len());
    for item in &items {
        let (mut pairs, mut own) = (Vec::new(), Vec::new());
        let count = item.answers.len();
        for (one, other) in (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other))) {
            let [first, second] = [one, other].map(|answer| item.answers[answer].as_str());
            let is_asked = first.trim() != second.trim();
            if is_asked {
                own.push((next, compared(rubric, &item.prompt, [first, second])));
                own.push((next + 1, compared(rubric, &item.prompt, [second, first])));
            }
            pairs.push(Pair { one, other, number: is_asked.then_some(next) });
            // Numbered through all pairs, whether they are asked or not.
            next += 2;
        }
        let mut fits = true;
        for (_, question) in &own {
            fits = fits && asking.judge.has_room(question, LETTER)?;
        }
        match fits {
            true => {
                questions.extend(own);
                judged.push((item, pairs));
            }
            false => too_long += 1,
        }
    }
    asking.verdicts(questions)?;

    let said = |number: usize| asking.kept.get::<f64>("verdict", number);
    let is_tie = |first: f64| (first - 0.5).abs() <= arguments.tie;
    let (mut rows, mut agreed, mut swayed, mut alike) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let (mut pairs, mut ties, mut unreadable) = (0, 0, 0);
    for (item, own) in judged {
        let mut firsts = Firsts::new();
        for Pair { one, other, number } in own {
            pairs += 1;
            let found = match number {
                None => {
                    alike += 1;
                    Some(Preference { first: 0.5, is_swayed: false })
                }
                Some(number) => {
                    // In one order alone it would be the place that is judged.
                    let found = said(number).zip(said(number + 1)).map(|(one, other)| preference(one, other));
                    swayed.extend(found.map(|found| found.is_swayed));
                    found
                }
            };
            let Some(Preference { first, .. }) = found else {
                unreadable += 1;
                continue;
            };
            ties += usize::from(is_tie(first));
            if item.is_labelled && !is_tie(first) {
                agreed.push(first > 0.5);
            }
            firsts.extend([((one, other), first), ((other, one), 1.0 - first)]);
        }
        rows.extend(row(arguments, item, &firsts));
    }
    let share = |count: usize, of: usize| if of > 0 { count as f64 / of as f64 } else { 0.0 };
    let count = |all: &[bool]| all.iter().filter(|is_so| **is_so).count();
    let found = Found::Compared {
        pairs,
        alike,
        ties: share(ties, pairs),
        position_bias: share(count(&swayed), swayed.len()),
        unreadable,
        agreement: (!agreed.is_empty()).then(|| share(count(&agreed), agreed.len())),
    };
    Ok(Judged { rows, too_long, cut: 0, found })
}

/// What comes of an item; nothing of a tie.
fn row(arguments: &Arguments, item: &Item, firsts: &Firsts) -> Option<Value> {
    let pairs: Vec<_> =
        firsts.iter().filter(|((one, other), _)| one < other).map(|((one, other), first)| (*one, *other, *first)).collect();
    let worths = worths(item.answers.len(), &pairs);
    let mut order: Vec<usize> = (0..worths.len()).collect();
    order.sort_by(|one, other| worths[*other].total_cmp(&worths[*one]));
    let is_better = |one: usize, other: usize| firsts.get(&(one, other)).copied().filter(|first| *first > 0.5 + arguments.tie);
    if arguments.ranked {
        let mut kept: Vec<usize> = Vec::new();
        for at in order {
            if kept.iter().all(|better| is_better(*better, at).is_some()) {
                kept.push(at);
            }
        }
        let answers: Vec<&str> = kept.iter().map(|at| item.answers[*at].as_str()).collect();
        return (answers.len() > 1).then(|| json!({"prompt": item.prompt, "answers": answers}));
    }
    let (best, worst) = (*order.first()?, *order.last()?);
    let preference = is_better(best, worst)?;
    let [chosen, rejected] = [best, worst].map(|at| item.shown(&item.answers[at]));
    Some(json!({"prompt": item.prompt, "chosen": chosen, "rejected": rejected, "preference": preference}))
}
