//! The tables: one row a measurement, which a narrow page shows as a card.

use std::fmt::Write;

use super::in_words;
use crate::commands::bench::check::Checked;
use crate::commands::bench::compare::Comparison;
use crate::commands::bench::results::{LeftOut, Measurement};
use crate::common::bytes;
use crate::page::escape;
use crate::page::table::{Cell, table};
use crate::units::{byte_rate, digits, duration, error, flops_rate, percent};

/// A table for each model's shapes.
pub fn ops(measured: &[&Measurement]) -> String {
    let mut models: Vec<&str> = measured.iter().map(|one| one.model.as_str()).collect();
    models.dedup();
    let mut html = String::new();
    for (index, model) in models.into_iter().enumerate() {
        let rows = measured.iter().filter(|one| one.model == model).map(|one| {
            let checked = match (one.error_of, one.error_elements, &one.error_shape) {
                (_, _, Some(shape)) => format!("<small>at {}</small>", escape(shape)),
                (Some(Checked::Sample), Some(elements), _) => format!("<small>of {elements} elements</small>"),
                _ => String::new(),
            };
            vec![
                Cell::plain(format!("{}<small>{}, {}</small>", escape(&one.name), in_words(one.direction), escape(&one.shape))),
                times(one),
                Cell::figure(flops_rate(one.tflops)).unless(one.flops == 0),
                Cell::figure(byte_rate(one.gigabytes_per_second)),
                Cell::plain(one.bound.to_string()),
                share(one),
                Cell::plain(one.error.map_or(String::new(), |value| format!("{}{checked}", error(value)))),
            ]
        });
        let open = if index == 0 { " open" } else { "" };
        let _ = write!(html, "<details{open}>\n<summary>{}</summary>\n", escape(&called(model)));
        html.push_str(&table(&["Op", "Time", "Arithmetic", "Memory", "Limited by", "Share", "Error"], rows));
        html.push_str("</details>\n");
    }
    html
}

/// Whole steps.
pub fn steps(measured: &[&Measurement]) -> String {
    let rows = measured.iter().map(|one| {
        let rate = one.tokens_per_second.map_or(String::new(), digits);
        vec![
            Cell::plain(format!("{}<small>{}, {}</small>", escape(&one.name), escape(&one.model), escape(&one.shape))),
            times(one),
            Cell::figure(one.kernel_seconds.map_or(String::new(), duration)),
            Cell::figure(one.idle_share.map_or(String::new(), percent)),
            Cell::figure(rate),
            Cell::figure(one.peak_tensor_bytes.map_or(String::new(), bytes)),
            Cell::figure(one.dispatches.to_string()),
            share(one),
        ]
    });
    table(
        &["Step", "Time", "In kernels", "Idle", "Tokens a second", "Peak memory", "Kernels started", "Share of the ceilings"],
        rows,
    )
}

/// Then and now.
pub fn comparison(comparison: &Comparison) -> String {
    let mut sorted: Vec<_> = comparison.ratios.iter().collect();
    sorted.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
    let rows = sorted.into_iter().map(|one| {
        let ratio = Cell::html(if one.slower { "figure slower" } else { "figure" }, format!("{:.2}", one.ratio));
        vec![Cell::plain(escape(&one.name)), Cell::figure(duration(one.before)), Cell::figure(duration(one.now)), ratio]
    });
    table(&["What", "Then", "Now", "Now over then"], rows) + &left_out(&comparison.left_out)
}

/// What is missing, and why.
pub fn left_out(list: &[LeftOut]) -> String {
    let mut html = String::new();
    if !list.is_empty() {
        html.push_str("<ul>\n");
        for one in list {
            let _ = writeln!(html, "<li>{}: {}</li>", escape(&one.name), escape(&one.reason));
        }
        html.push_str("</ul>\n");
    }
    html
}

fn times(one: &Measurement) -> Cell {
    let spread = format!("{} to {}", duration(one.seconds.p10), duration(one.seconds.p90));
    Cell::html("figure", format!("{}<small>{}</small>", duration(one.seconds.median), spread))
}

fn share(one: &Measurement) -> Cell {
    let part = (100.0 * one.share).clamp(0.0, 100.0);
    Cell::html("figure", format!("<span class=\"share\" style=\"--part:{part:.0}%\">{}</span>", percent(one.share)))
}

/// Whose shapes they are, in words.
fn called(model: &str) -> String {
    match model {
        "common" => "Shapes that other libraries' benches use".to_string(),
        "135m" => "A model of 135 million parameters (SmolLM2)".to_string(),
        "1b" => "A model of 1 billion parameters (Llama 3.2)".to_string(),
        "7b" => "A model of 7 billion parameters (Llama 2)".to_string(),
        other => other.to_string(),
    }
}
