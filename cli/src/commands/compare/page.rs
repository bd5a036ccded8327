//! The comparison as one HTML page that needs nothing else.

use super::Comparison;
use super::figures::{LOSS, Run, TRAINED, known};
use crate::page::plot::{self, Axis, Series, figure};
use crate::page::table::{Cell, table};
use crate::page::{document, escape, section};

/// The page.
pub fn page(comparison: &Comparison) -> String {
    let Comparison { methods, runs, model, device, wgtune, remarks } = comparison;
    let mut body = INTRODUCTION.to_string();
    let known = known(methods);
    let head: Vec<&str> = ["Method"].into_iter().chain(known.iter().map(|(_, name, _)| *name)).collect();
    let rows = methods.iter().map(|method| {
        let figures = known.iter().map(|figure| {
            let [mean, deviation] = method.shown(figure).map(|text| escape(&text));
            let deviation = if deviation.is_empty() { deviation } else { format!("<small>{deviation}</small>") };
            Cell::html("figure", mean + &deviation)
        });
        [Cell::plain(escape(&method.method))].into_iter().chain(figures).collect()
    });
    let remarks: String = remarks.iter().map(|remark| format!("<p class=\"quiet\">{}</p>\n", escape(remark))).collect();
    section(&mut body, "What each came to", TABLE, &(table(&head, rows) + &remarks));

    let colour = |at: usize| plot::colour(at, methods.len());
    let curve = |(at, method): (usize, &super::Summary)| {
        let own: Vec<&Run> = runs.iter().filter(|run| run.method == method.method).collect();
        Series { name: method.method.clone(), colour: colour(at), points: mean_curve(&own) }
    };
    let curves: Vec<Series> = methods.iter().enumerate().map(curve).collect();
    let [steps, loss] =
        [("updates", false), ("training loss", false)].map(|(name, is_logarithmic)| Axis { name, is_logarithmic });
    section(&mut body, "How the loss fell", CURVES, &figure("Loss of each method", [&steps, &loss], &curves, true));

    let point = |(at, method): (usize, &super::Summary)| {
        let place = method.figures.get(TRAINED).zip(method.figures.get(LOSS));
        let points = place.map(|(trained, loss)| (trained.mean, loss.mean)).into_iter().collect();
        Series { name: method.method.clone(), colour: colour(at), points }
    };
    let points: Vec<Series> = methods.iter().enumerate().map(point).collect();
    let trained = Axis { name: "trained parameters", is_logarithmic: true };
    let loss = Axis { name: "validation loss", is_logarithmic: false };
    section(&mut body, "What parameters bring", PARAMETERS, &figure("Loss by parameters", [&trained, &loss], &points, false));

    let name = model.file_name().unwrap_or(model.as_os_str()).to_string_lossy().into_owned();
    let about = format!("On {}; wgtune {}", escape(device), escape(wgtune));
    document(&format!("wgtune compare: {name}"), &format!("Ways of tuning {name}"), &about, &body)
}

const INTRODUCTION: &str = "<p>The same model was trained on the same rows in several ways: with the same batches, the same number of \
updates and the same rows held out, each at a learning rate of its own. Some ways train all that the model is, others a small part, or \
a little that is added to it.</p>\n";

const TABLE: &str = "<p>The <em>loss</em> is the mean over the rows held out, in nats a token: the lower, the better they are predicted; \
before and after training. <em>Tokens right</em> were the most likely ones. <em>Choices right</em> are the rows whose completion was \
the most likely of all completions in the data. <em>Probe's loss</em> is how much worse other rows are predicted than before: what was \
forgotten. Where there were several runs, means are given, and their standard deviations below.</p>\n";

const CURVES: &str = "<p>The loss on the batches that were learnt from, before each update; of several runs and of neighbouring updates \
the mean.</p>\n";

const PARAMETERS: &str = "<p>Each point is a method: to the right those that train more, at the bottom those that came to more. Hover over \
a point, or touch it, for its name.</p>\n";

/// The mean of the runs' losses, step by step as far as all have one, thinned.
fn mean_curve(runs: &[&Run]) -> Vec<(f64, f64)> {
    let steps = runs.iter().map(|run| run.losses.len()).min().unwrap_or(0);
    let mean = |step: usize| {
        let sum: f64 = runs.iter().map(|run| run.losses[step].1).sum();
        (runs[0].losses[step].0, sum / runs.len() as f64)
    };
    plot::thinned(&(0..steps).map(mean).collect::<Vec<_>>())
}
