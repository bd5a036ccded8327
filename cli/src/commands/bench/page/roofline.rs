//! The roofline plot: speed over arithmetic intensity, both logarithmic (Williams et al. 2009, doi:10.1145/1498765.1498785).

use std::fmt::Write;

use super::{FAMILIES, family, in_words};
use crate::commands::bench::results::{Ceilings, Direction, Measurement};
use crate::page::escape;
use crate::units::{byte_rate, digits, duration, flops_rate, percent};

/// Size of the drawing, and its margins: left, right, top, bottom.
const SIZE: [f64; 2] = [760.0, 480.0];
const MARGINS: [f64; 4] = [84.0, 48.0, 52.0, 86.0];

/// The drawing and its legend.
pub fn figure(ceilings: &Ceilings, measured: &[&Measurement]) -> String {
    let points: Vec<&Measurement> = measured.iter().copied().filter(|one| one.flops > 0 && one.bytes > 0).collect();
    if points.is_empty() {
        return "<p class=\"quiet\">None of these ops computes anything: they only move numbers.</p>\n".to_string();
    }
    let axes = Axes::around(ceilings, &points);
    let mut svg = format!("<figure>\n<svg viewBox=\"0 0 {} {}\" role=\"img\">\n<title>Roofline</title>\n", SIZE[0], SIZE[1]);
    axes.draw_grid(&mut svg);
    for point in &points {
        axes.draw_point(&mut svg, point);
    }
    axes.draw_roofs(&mut svg, ceilings);
    svg.push_str("</svg>\n");
    legend(&mut svg, &points);
    svg + "</figure>\n"
}

/// Powers of ten at the ends of both axes: operations a byte, and operations a second.
struct Axes {
    x: [i32; 2],
    y: [i32; 2],
}

fn intensity(one: &Measurement) -> f64 {
    one.flops as f64 / one.bytes as f64
}

fn speed(one: &Measurement) -> f64 {
    1e12 * one.tflops
}

impl Axes {
    fn around(ceilings: &Ceilings, points: &[&Measurement]) -> Axes {
        let ridge = 1e12 * ceilings.fma_tflops / (1e9 * ceilings.copy_gigabytes_per_second);
        let top = 1e12 * ceilings.fma_tflops.max(ceilings.matrix_tflops.unwrap_or(0.0));
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let (least, most) = values.fold((f64::INFINITY, 0.0f64), |(least, most), value| (least.min(value), most.max(value)));
            [least.max(1e-30).log10().floor() as i32, most.max(1e-30).log10().ceil() as i32]
        };
        Axes {
            x: range(&mut points.iter().map(|one| intensity(one)).chain([ridge])),
            y: range(&mut points.iter().map(|one| speed(one)).chain([1.3 * top])),
        }
    }

    /// Where in the drawing a pair of values lies.
    fn at(&self, intensity: f64, speed: f64) -> [f64; 2] {
        let [left, right, top, bottom] = MARGINS;
        let along = |value: f64, [low, high]: [i32; 2]| (value.log10() - f64::from(low)) / f64::from((high - low).max(1));
        [
            left + along(intensity, self.x) * (SIZE[0] - left - right),
            SIZE[1] - bottom - along(speed, self.y) * (SIZE[1] - top - bottom),
        ]
    }

    fn draw_grid(&self, svg: &mut String) {
        let [x, y] = [self.x, self.y].map(|ends| ends.map(|power| 10f64.powi(power)));
        for power in self.x[0]..=self.x[1] {
            let ([at, low], [_, high]) = (self.at(10f64.powi(power), y[0]), self.at(10f64.powi(power), y[1]));
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {low:.1}V{high:.1}\"/>");
            let label = if power < 0 { format!("1/{}", 10f64.powi(-power)) } else { format!("{}", 10f64.powi(power)) };
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>", low + 34.0);
        }
        for power in self.y[0]..=self.y[1] {
            let ([low, at], [high, _]) = (self.at(x[0], 10f64.powi(power)), self.at(x[1], 10f64.powi(power)));
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{low:.1} {at:.1}H{high:.1}\"/>");
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" dominant-baseline=\"middle\">{}</text>",
                low - 8.0,
                at,
                of_ten(power)
            );
        }
        let middle = (MARGINS[0] + SIZE[0] - MARGINS[1]) / 2.0;
        let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">operations a byte</text>", SIZE[1] - 14.0);
        let _ = writeln!(svg, "<text x=\"8\" y=\"26\">operations a second (FLOP/s)</text>");
    }

    fn draw_roofs(&self, svg: &mut String, ceilings: &Ceilings) {
        let bandwidth = 1e9 * ceilings.copy_gigabytes_per_second;
        let [least, most] = self.x.map(|power| 10f64.powi(power));
        let lowest = 10f64.powi(self.y[0]);
        let mut draw = |flops: f64, class: &str, name: &str, [shift, baseline]: [&str; 2]| {
            // The slope begins where it enters the drawing.
            let start = least.max(lowest / bandwidth);
            let [[x0, y0], [x1, y1], [x2, _]] =
                [self.at(start, start * bandwidth), self.at(flops / bandwidth, flops), self.at(most, flops)];
            let _ = writeln!(svg, "<path class=\"roof {class}\" d=\"M{x0:.1} {y0:.1}L{x1:.1} {y1:.1}H{x2:.1}\"/>");
            let label = format!("{name}, {}", flops_rate(flops / 1e12));
            let _ = writeln!(
                svg,
                "<text class=\"name\" x=\"{:.1}\" y=\"{y1:.1}\" dy=\"{shift}\" dominant-baseline=\"{baseline}\" \
                 text-anchor=\"end\">{label}</text>",
                x2 - 4.0
            );
            [[x0, y0], [x1, y1]]
        };
        let arithmetic = 1e12 * ceilings.fma_tflops;
        let matrices = ceilings.matrix_tflops.map(|rate| 1e12 * rate).filter(|rate| *rate > 1.02 * arithmetic);
        let (above, below) = (["-8", "auto"], ["8", "hanging"]);
        if let Some(rate) = matrices {
            draw(rate, "second", "matrices", above);
        }
        let place = if matrices.is_some() { below } else { above };
        let [[x0, y0], [x1, y1]] = draw(arithmetic, "", "multiply-adds", place);
        let angle = (y1 - y0).atan2(x1 - x0).to_degrees();
        let [x, y] = [(x0 + x1) / 2.0, (y0 + y1) / 2.0 - 8.0];
        let _ = writeln!(
            svg,
            "<text class=\"name\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" transform=\"rotate({angle:.1} {x:.1} {y:.1})\">\
             memory, {}</text>",
            byte_rate(ceilings.copy_gigabytes_per_second)
        );
    }

    fn draw_point(&self, svg: &mut String, one: &Measurement) {
        let [x, y] = self.at(intensity(one), speed(one));
        let (class, colour) = (if one.direction == Direction::Forward { "point" } else { "point back" }, family(&one.op));
        let fill = if one.direction == Direction::Forward { format!(" fill=\"var(--{colour})\"") } else { String::new() };
        let _ = writeln!(
            svg,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\" stroke=\"var(--{colour})\"{fill}><title>{}</title></circle>",
            escape(&format!(
                "{} {}, {}, {}: {}, {}, {} operations a byte, {} of the ceiling",
                one.model,
                one.name,
                in_words(one.direction),
                one.shape,
                duration(one.seconds.median),
                flops_rate(one.tflops),
                digits(intensity(one)),
                percent(one.share)
            ))
        );
    }
}

/// A power of ten with its prefix.
fn of_ten(power: i32) -> String {
    match power {
        12.. => format!("{} T", 10f64.powi(power - 12)),
        9.. => format!("{} G", 10f64.powi(power - 9)),
        6.. => format!("{} M", 10f64.powi(power - 6)),
        3.. => format!("{} k", 10f64.powi(power - 3)),
        _ => format!("{}", 10f64.powi(power)),
    }
}

fn legend(html: &mut String, points: &[&Measurement]) {
    html.push_str("<ul class=\"legend\">\n");
    for (colour, name, _) in FAMILIES {
        if points.iter().any(|one| family(&one.op) == colour) {
            let style = format!("background:var(--{colour});border-color:var(--{colour})");
            let _ = writeln!(html, "<li><i style=\"{style}\"></i>{name}</li>");
        }
    }
    if points.iter().any(|one| one.direction != Direction::Forward) {
        html.push_str("<li><i></i>hollow: backward, where gradients are computed</li>\n");
    }
    html.push_str("</ul>\n");
}
