//! Plots of lines and points, as SVG.

use std::fmt::Write;

use super::escape;

/// Size of the drawing, and its margins: left, right, top, bottom.
const SIZE: [f64; 2] = [760.0, 420.0];
const MARGINS: [f64; 4] = [84.0, 24.0, 52.0, 86.0];

/// Points of a curve: more are not seen.
const MOST_POINTS: usize = 100;

/// What lies along an axis.
pub struct Axis {
    pub name: &'static str,
    /// Whether powers of ten are as far from each other as they are.
    pub is_logarithmic: bool,
}

/// Something drawn: its name, its colour, and where it is.
pub struct Series {
    pub name: String,
    pub colour: String,
    pub points: Vec<(f64, f64)>,
}

/// The colour of one of so many series.
pub fn colour(at: usize, of: usize) -> String {
    format!("hsl({} 65% 50%)", 360 * at / of.max(1))
}

/// Means of neighbouring points, where there are more than are seen.
pub fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |window: &[(f64, f64)]| {
        let count = window.len() as f64;
        let (x, y) = window.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (x / count, y / count)
    };
    points.chunks(points.len().div_ceil(MOST_POINTS).max(1)).map(mean).collect()
}

/// A drawing of lines, or of points with their names, with a legend.
pub fn figure(title: &str, [x, y]: [&Axis; 2], all: &[Series], is_line: bool) -> String {
    let values = |of: fn(&(f64, f64)) -> f64| all.iter().flat_map(move |series| series.points.iter().map(of));
    let scales = [Scale::around(x, values(|point| point.0)), Scale::around(y, values(|point| point.1))];
    let [Some(across), Some(up)] = scales else {
        return "<p class=\"quiet\">There is nothing to draw: no rows were held out.</p>\n".into();
    };
    let names = [x.name, y.name];
    let at = |&(x, y): &(f64, f64)| {
        let [left, right, top, bottom] = MARGINS;
        [left + across.place(x) * (SIZE[0] - left - right), SIZE[1] - bottom - up.place(y) * (SIZE[1] - top - bottom)]
    };
    let mut svg =
        format!("<figure>\n<svg viewBox=\"0 0 {} {}\" role=\"img\">\n<title>{}</title>\n", SIZE[0], SIZE[1], escape(title));
    let ([left, bottom], [right, top]) = (at(&(across.ends[0], up.ends[0])), at(&(across.ends[1], up.ends[1])));
    for tick in &across.ticks {
        let [x, _] = at(&(*tick, up.ends[0]));
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{x:.1} {bottom:.1}V{top:.1}\"/>");
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", bottom + 34.0, label(*tick));
    }
    for tick in &up.ticks {
        let [_, y] = at(&(across.ends[0], *tick));
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>");
        let (x, label) = (left - 8.0, label(*tick));
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\" dominant-baseline=\"middle\">{label}</text>");
    }
    let middle = (left + right) / 2.0;
    let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", SIZE[1] - 14.0, x.name);
    let _ = writeln!(svg, "<text x=\"8\" y=\"26\">{}</text>", y.name);
    for series in all {
        let Series { name, colour, points } = series;
        let places: Vec<[f64; 2]> = points.iter().map(at).collect();
        if is_line {
            let path: Vec<String> = places.iter().map(|[x, y]| format!("{x:.1} {y:.1}")).collect();
            let (path, name) = (path.join("L"), escape(name));
            let _ = writeln!(svg, "<path class=\"line\" stroke=\"{colour}\" d=\"M{path}\"><title>{name}</title></path>");
            continue;
        }
        for ([x, y], (across, up)) in places.iter().zip(points) {
            let title = escape(&format!("{name}: {} {across}, {} {up:.4}", names[0], names[1]));
            let _ = writeln!(
                svg,
                "<circle class=\"point\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"7\" stroke=\"{colour}\" fill=\"{colour}\"><title>{title}</title></circle>"
            );
        }
    }
    svg.push_str("</svg>\n<ul class=\"legend\">\n");
    for Series { name, colour, .. } in all.iter().filter(|series| !series.points.is_empty()) {
        let _ = writeln!(svg, "<li><i style=\"background:{colour};border-color:{colour}\"></i>{}</li>", escape(name));
    }
    svg + "</ul>\n</figure>\n"
}

/// A tick's number.
fn label(tick: f64) -> String {
    match tick {
        _ if tick >= 1e9 => format!("{} G", tick / 1e9),
        _ if tick >= 1e6 => format!("{} M", tick / 1e6),
        _ if tick >= 1e3 => format!("{} k", tick / 1e3),
        // What steps of a tenth add up to has many digits.
        _ => format!("{}", (1e6 * tick).round() / 1e6),
    }
}

/// An axis with its numbers.
struct Scale {
    is_logarithmic: bool,
    ends: [f64; 2],
    ticks: Vec<f64>,
}

impl Scale {
    /// Around values; `None` where there are none.
    fn around(axis: &Axis, values: impl Iterator<Item = f64>) -> Option<Scale> {
        let sound = values.filter(|value| value.is_finite() && (*value > 0.0 || !axis.is_logarithmic));
        let (least, most) =
            sound.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)));
        if least > most {
            return None;
        }
        let is_logarithmic = axis.is_logarithmic;
        if is_logarithmic {
            let (low, high) = (least.log10().floor() as i32, most.log10().ceil() as i32);
            let ticks: Vec<f64> = (low..=high.max(low + 1)).map(|power| 10f64.powi(power)).collect();
            return Some(Scale { is_logarithmic, ends: [ticks[0], ticks[ticks.len() - 1]], ticks });
        }
        let step = step((most - least).max(1e-3 * most.abs()).max(1e-6) / 5.0);
        let (low, high) = ((least / step).floor() as i64, (most / step).ceil() as i64);
        let ticks: Vec<f64> = (low..=high.max(low + 1)).map(|number| number as f64 * step).collect();
        Some(Scale { is_logarithmic, ends: [ticks[0], ticks[ticks.len() - 1]], ticks })
    }

    /// How far along a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let of = |value: f64| if self.is_logarithmic { value.log10() } else { value };
        (of(value) - of(self.ends[0])) / (of(self.ends[1]) - of(self.ends[0]))
    }
}

/// The least of 1, 2, 5, 10, 20, 50, … that is no less.
fn step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|times| times * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values_between_round_numbers() {
        assert_eq!([0.011, 0.3, 3.0, 7.0, 20.0].map(step), [0.02, 0.5, 5.0, 10.0, 20.0]);
        let axis = |is_logarithmic| Axis { name: "", is_logarithmic };
        let scale = Scale::around(&axis(false), [1.02, 3.9].into_iter()).unwrap();
        assert_eq!((scale.ends, scale.place(2.5)), ([1.0, 4.0], 0.5));
        let scale = Scale::around(&axis(true), [70.0, 100_000.0].into_iter()).unwrap();
        assert_eq!(scale.ends, [10.0, 100_000.0]);
        assert!((scale.place(1000.0) - 0.5).abs() < 1e-12);
        // One value alone has a place too.
        assert!((0.0..=1.0).contains(&Scale::around(&axis(false), [2.0].into_iter()).unwrap().place(2.0)));
        assert!(Scale::around(&axis(false), std::iter::empty()).is_none());
    }
}
