//! The run as one HTML page that needs nothing else.

use wgtune_models::rl::judge::spoken as prompt_text;

use super::Run;
use super::figures::{CURVES, HEAD, Made, Spoken};
use crate::page::plot::{Axis, Series, colour, figure, thinned};
use crate::page::table::{Cell, table};
use crate::page::{document, escape, section};

/// The page.
pub fn page(run: &Run) -> String {
    let stages = &run.stages;
    let mut body = INTRODUCTION.to_string();
    let row = |made: &Made| made.row().into_iter().map(Cell::figure).collect();
    let safety: String = stages.iter().filter_map(Made::line).map(|line| format!("<p>{}.</p>\n", escape(&line))).collect();
    section(&mut body, "What each stage came to", TABLE, &(table(&HEAD, stages.iter().map(row)) + &safety));
    let alarm = |made: &Made| -> String {
        let of = |alarm: &crate::report::Alarm| {
            format!("<li>{}, step {}: {}</li>\n", escape(&made.name), alarm.step, escape(&alarm.text))
        };
        made.alarms.iter().map(of).collect()
    };
    let alarms: String = stages.iter().map(alarm).collect();
    if !alarms.is_empty() {
        section(&mut body, "Alarms", "<p>What went wrong on the way.</p>\n", &format!("<ul>\n{alarms}</ul>\n"));
    }
    let spoken: Vec<(&Made, &Spoken)> =
        stages.iter().flat_map(|made| made.samples.iter().map(move |spoken| (made, spoken))).collect();
    if !spoken.is_empty() {
        let rows = spoken.into_iter().map(|(made, spoken)| {
            let said = |text: &str, reward: Option<f64>| {
                let reward = reward.map_or(String::new(), |reward| format!("<small>{reward:.3}</small>"));
                Cell::plain(escape(text.trim()) + &reward)
            };
            vec![
                Cell::plain(escape(&made.name)),
                Cell::plain(escape(&prompt_text(&spoken.prompt))),
                said(&spoken.before, spoken.reward_before),
                said(&spoken.after, spoken.reward_after),
            ]
        });
        section(&mut body, "Before and after", SAMPLES, &table(&["stage", "prompt", "before", "after"], rows));
    }
    for curve in &CURVES {
        let mut drawn: Vec<Series> = stages
            .iter()
            .filter_map(|made| {
                let points = thinned(curve.points(made)?);
                Some(Series { name: made.name.clone(), colour: String::new(), points })
            })
            .collect();
        let count = drawn.len();
        drawn.iter_mut().enumerate().for_each(|(at, series)| series.colour = colour(at, count));
        if !drawn.is_empty() {
            let [x, y] = ["updates", curve.axis].map(|name| Axis { name, is_logarithmic: false });
            let about = format!("<p>{}</p>\n", curve.about);
            section(&mut body, curve.title, &about, &figure(curve.title, [&x, &y], &drawn, true));
        }
    }
    let command = |made: &Made| format!("<p><code>wgtune {}</code></p>\n", escape(&made.command.join(" ")));
    section(&mut body, "How it was made", "", &stages.iter().map(command).collect::<String>());
    let device = stages.last().and_then(|made| made.report["device"].as_str()).unwrap_or_default();
    let about = format!("On {}; wgtune {}", escape(device), escape(&run.wgtune));
    document("wgtune rlhf", "Learning from judgements", &about, &body)
}

const INTRODUCTION: &str = "<p>A model learns in stages, from demonstrations and from judgements; each begins where the one before came \
to.</p>\n";

const TABLE: &str = "<p>What stands under <em>held out</em> is of rows that nothing was learnt from, before and after the stage: the \
loss of demonstrations, the share of pairs that the reward model tells apart, the mean reward of the policy's answers. <em>KL</em> is how \
far the policy went from where it stood when the stage began, in nats an answer.</p>\n";

const SAMPLES: &str = "<p>What the policy said to prompts that were held out, and the reward of it.</p>\n";
