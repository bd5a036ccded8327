//! The report: one HTML page that needs nothing else, neither scripts nor a network, and explains itself.

mod roofline;
mod tables;

use std::fmt::Write;

use wgtune_engine::device::MatmulPrecision;

use super::compare::Comparison;
use super::results::{Direction, Measurement, Results};
use super::table::{NO_FLUSH, ceilings, drift, gpu};
use crate::page::{document, escape, section};

/// The page.
pub fn page(results: &Results, comparison: Option<&Comparison>) -> String {
    let device = &results.device;
    let driver = if device.driver.is_empty() { String::new() } else { format!(", driver {}", escape(&device.driver)) };
    let about = format!(
        "{kind}{driver}; wgtune {version}, products of matrices {precision}",
        kind = escape(kind(&device.kind)),
        version = escape(&results.wgtune),
        precision = match device.matmul_precision {
            MatmulPrecision::Highest => "in f32",
            MatmulPrecision::High => "of f16, summed in f32",
        },
    );
    let mut page = INTRODUCTION.to_string();
    section(&mut page, "What this device can do", CEILINGS, &tiles(results));
    let (steps, ops): (Vec<&Measurement>, Vec<&Measurement>) = results.results.iter().partition(|one| one.op == "step");
    if !steps.is_empty() {
        section(&mut page, "What a user waits for", STEPS, &tables::steps(&steps));
    }
    if !ops.is_empty() {
        section(&mut page, "How near the ops come to it", ROOFLINE, &roofline::figure(&results.ceilings, &ops));
        section(&mut page, "Every op", OPS, &tables::ops(&ops));
    }
    if let Some(comparison) = comparison {
        let about =
            format!("<p>Median times, now over those in <code>{}</code>: above 1 is slower.</p>\n", escape(&comparison.file));
        section(&mut page, "Against an earlier run", &about, &tables::comparison(comparison));
    }
    if !results.faults.is_empty() {
        section(&mut page, "What failed", FAULTS, &tables::left_out(&results.faults));
    }
    if !results.left_out.is_empty() {
        section(&mut page, "What was left out", "", &tables::left_out(&results.left_out));
    }
    let clock = match device.clock.as_str() {
        "device" => "the device's own timestamps round each kernel",
        _ => "the host's clock round each kernel",
    };
    section(&mut page, "How it was measured", "", &METHOD.replace("{clock}", clock).replace("{caches}", &sentence(NO_FLUSH)));
    let name = &device.name;
    document(&format!("wgtune bench: {name}"), &format!("How fast wgtune is on {name}"), &about, &page)
}

const INTRODUCTION: &str = "<p>wgtune fine-tunes language models: it takes a model that can already write and trains it further on \
one's own examples. To do so it runs a few dozen kinds of small computations, called <em>ops</em>, many thousands of times: \
multiplying matrices, normalising rows, comparing words with each other. This page shows how long each op took on this device, and \
how much faster the device could possibly have been.</p>\n";

const CEILINGS: &str = "<p>Two things limit every op: how fast the device computes, and how fast it moves numbers to and from its \
memory. Both were measured first, by programs that do nothing else. They are the ceilings that everything below is held against: \
medians, each with the range without the slowest and the fastest tenth, and once more after all the rest.</p>\n";

const STEPS: &str = "<p>Whole steps, timed from the outside. A <em>token</em> is a word or a piece of one. <em>Prefill</em> reads a \
prompt; <em>decode</em> writes one token after another; a <em>training step</em> learns from one batch. LoRA trains a small addition \
to the model, full training the whole of it. <em>Checkpointed</em> steps keep less in memory and compute it again. <em>Idle</em> is \
the part of a step in which the device waited for the program.</p>\n";

const ROOFLINE: &str = "<p>Each point is an op. The further to the right, the more it computes with each byte that it fetches; the \
higher, the faster it ran. The line is the roof: no op can be above it, unless its numbers were still in a cache, which is faster \
than memory. A point that touches the roof could not be faster on this device. Hover over a point, or touch it, for its name.</p>\n";

const OPS: &str = "<p>The <em>share</em> is the part of the ceiling that an op reached: 100 % is the fastest possible, more means \
that a cache helped. The <em>error</em> is the largest difference from the same computed with twice the digits, relative to the \
largest result; 1e-7 is as exact as 32-bit numbers are.</p>\n";

const FAULTS: &str = "<p>These came to nothing, or to something else than they should: their times are not shown.</p>\n";

const METHOD: &str = "<dl>\n\
<dt>Times</dt><dd>Ops: the sum over the op's kernels by {clock}, after warming up, with the same inputs each time but the last. Steps: \
the host's clock round the whole step. A time is the median of all repetitions; below it, what a tenth was faster and a \
tenth slower than.</dd>\n\
<dt>Operations and bytes</dt><dd>Counted from the shapes: a multiply-add is two operations; bytes are each kernel's inputs once and its \
outputs once, which is the least that must move. FLOP/s are floating-point operations a second; G is 10<sup>9</sup>, T is \
10<sup>12</sup>.</dd>\n\
<dt>Share</dt><dd>The time that the kernels would need at the ceilings, each at the one that is lower for it, over the time that \
they took (Williams, Waterman and Patterson 2009, “Roofline”).</dd>\n\
<dt>Error</dt><dd>The results of the last of the timed runs, gradients included, beside the same computed in 64-bit arithmetic on \
the CPU; that run has inputs which no other had, so that a device that writes nothing is found out. Where that would take too long, of \
a sample of the results; where no part can be computed alone, of a smaller shape, which is then named.</dd>\n\
<dt>Caches</dt><dd>{caches}.</dd>\n\
<dt>Idle</dt><dd>1 less the sum of a step&rsquo;s kernels over the step; kernels are timed in a run of their own.</dd>\n</dl>\n";

fn sentence(text: &str) -> String {
    text[..1].to_uppercase() + &text[1..]
}

fn kind(kind: &str) -> &str {
    match kind {
        "cpu" => "the CPU",
        "software" => "a GPU driver that computes on the CPU",
        "discrete" => "a graphics card",
        "integrated" => "a GPU that shares the CPU's memory",
        "virtual" => "a GPU in a virtual machine",
        other => other,
    }
}

fn tiles(results: &Results) -> String {
    let mut tiles = "<div class=\"tiles\">\n".to_string();
    for [name, figure, spread] in ceilings(results).into_iter().chain(gpu(results)) {
        let spread = escape(&spread).replace("; ", "<br>");
        let _ = writeln!(tiles, "<div><b>{}</b><span>{}</span><small>{spread}</small></div>", escape(&figure), escape(&name));
    }
    tiles.push_str("</div>\n");
    if let Some(drift) = drift(results) {
        let _ = writeln!(tiles, "<p class=\"slower\">{}.</p>", escape(&sentence(&drift)));
    }
    tiles
}

/// The families that ops are shown in: a CSS colour, what it is called, and which ops belong to it.
const FAMILIES: [(&str, &str, &[&str]); 6] = [
    ("matrix", "matrix products", &["matmul", "ladder"]),
    ("attention", "attention", &["attention"]),
    ("rows", "along rows: norms, softmax, sums", &["norm", "softmax", "log_softmax", "reduce", "clip", "rms_norm_rope"]),
    ("loss", "losses", &["cross_entropy", "linear_cross_entropy", "log_probs"]),
    ("pointwise", "number by number", &["unary", "binary", "swiglu", "rope", "dropout", "scale", "where", "adamw", "sgd"]),
    ("memory", "moving numbers, and all else", &[]),
];

/// The colour of an op's family.
fn family(op: &str) -> &'static str {
    FAMILIES.iter().find(|(_, _, ops)| ops.contains(&op)).unwrap_or(&FAMILIES[FAMILIES.len() - 1]).0
}

fn in_words(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "forward",
        Direction::Backward => "backward",
        Direction::Both => "forward and backward",
    }
}
