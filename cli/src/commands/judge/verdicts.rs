//! Which answers are better: each pair in both orders.

use serde_json::{Value, json};
use wgtune_models::rl::judge::{Preference, compared, preference, worths};

use super::answers::Item;
use super::{Arguments, Asking, Found, Judged};
use crate::runs::Failure;

/// Two answers of an item, and what was found.
struct Pair {
    one: usize,
    other: usize,
    found: Preference,
}

/// Compares the answers of each item, all with all.
pub(super) fn compare(arguments: &Arguments, rubric: &str, items: Vec<Item>, mut asking: Asking) -> Result<Judged, Failure> {
    let pairs = |item: &Item| -> Vec<(usize, usize)> {
        let count = item.answers.len();
        (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other))).collect()
    };
    // Two questions a pair, numbered through all items, whether they are asked or not.
    let (mut questions, mut first, mut too_long) = (Vec::new(), 0, Vec::new());
    let mut numbers = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let mut own = Vec::new();
        for (pair, (one, other)) in pairs(item).into_iter().enumerate() {
            let [one, other] = [one, other].map(|answer| item.answers[answer].as_str());
            if one.trim() != other.trim() {
                let number = first + 2 * pair;
                own.push((number, compared(rubric, &item.prompt, [one, other])));
                own.push((number + 1, compared(rubric, &item.prompt, [other, one])));
            }
        }
        numbers.push(first);
        first += 2 * pairs(item).len();
        let mut fits = true;
        for (_, question) in &own {
            fits = fits && asking.judge.has_room(question)?;
        }
        if fits { questions.extend(own) } else { too_long.push(at) }
    }
    let asked: Vec<usize> = questions.iter().map(|(number, _)| *number).collect();
    asking.verdicts(questions)?;
    let replies = || asked.iter().map(|number| asking.kept.get::<Option<f64>>("verdict", *number).flatten());
    let unreadable = replies().filter(Option::is_none).count();

    let said = |number: usize| asking.kept.get::<Option<f64>>("verdict", number).flatten().unwrap_or(0.5);
    let is_tie = |found: &Preference| (found.first - 0.5).abs() <= arguments.tie;
    let (mut rows, mut all, mut agreed) = (Vec::new(), Vec::new(), Vec::new());
    for (at, item) in items.iter().enumerate().filter(|(at, _)| !too_long.contains(at)) {
        let found: Vec<Pair> = pairs(item)
            .into_iter()
            .enumerate()
            .map(|(pair, (one, other))| {
                let number = numbers[at] + 2 * pair;
                Pair { one, other, found: preference(said(number), said(number + 1)) }
            })
            .collect();
        if item.is_labelled {
            agreed.extend(found.iter().filter(|pair| !is_tie(&pair.found)).map(|pair| pair.found.first > 0.5));
        }
        rows.extend(row(arguments, item, &found));
        all.extend(found.into_iter().map(|pair| pair.found));
    }
    let share = |count: usize, of: usize| if of > 0 { count as f64 / of as f64 } else { 0.0 };
    let found = Found::Compared {
        pairs: all.len(),
        ties: share(all.iter().filter(|found| is_tie(found)).count(), all.len()),
        position_bias: share(all.iter().filter(|found| found.is_swayed).count(), all.len()),
        unreadable,
        agreement: (!agreed.is_empty()).then(|| share(agreed.iter().filter(|same| **same).count(), agreed.len())),
    };
    Ok(Judged { rows, too_long: too_long.len(), found })
}

/// What comes of an item; nothing of a tie.
fn row(arguments: &Arguments, item: &Item, found: &[Pair]) -> Option<Value> {
    let pairs: Vec<_> = found.iter().map(|pair| (pair.one, pair.other, pair.found.first)).collect();
    let worths = worths(item.answers.len(), &pairs);
    let mut order: Vec<usize> = (0..worths.len()).collect();
    order.sort_by(|one, other| worths[*other].total_cmp(&worths[*one]));
    // How likely the first of two is the better one.
    let first = |one: usize, other: usize| {
        let same = found.iter().find(|pair| (pair.one, pair.other) == (one, other)).map(|pair| pair.found.first);
        same.or_else(|| found.iter().find(|pair| (pair.other, pair.one) == (one, other)).map(|pair| 1.0 - pair.found.first))
    };
    let is_better = |one: usize, other: usize| first(one, other).filter(|first| *first > 0.5 + arguments.tie);
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
