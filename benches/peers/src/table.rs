//! Medians and ratios, as a table or as JSON.

use std::error::Error;

use serde::Serialize;
use serde_json::json;

use crate::work::Work;

/// One engine at one work.
#[derive(Serialize)]
pub struct Figure {
    engine: String,
    /// The median over the rounds.
    seconds: f64,
    fastest: f64,
    slowest: f64,
    /// The largest difference from wgtune's CPU backend, relative to the largest result.
    relative_gap: f64,
}

impl Figure {
    /// Of the seconds that each round took.
    pub fn new(engine: &str, mut seconds: Vec<f64>, relative_gap: f64) -> Figure {
        seconds.sort_by(f64::total_cmp);
        let middle = seconds.len() / 2;
        let median = if seconds.len() % 2 == 1 { seconds[middle] } else { (seconds[middle - 1] + seconds[middle]) / 2.0 };
        Figure { engine: engine.into(), seconds: median, fastest: seconds[0], slowest: seconds[seconds.len() - 1], relative_gap }
    }

    /// wgtune on the same device, which it is compared with.
    fn ours(&self) -> String {
        let (_, device) = self.engine.split_once(' ').unwrap_or_default();
        format!("wgtune {device}")
    }
}

/// All figures of a run.
pub struct Table {
    rounds: u32,
    rows: Vec<(Work, Vec<Figure>)>,
}

impl Table {
    pub fn new(rounds: u32) -> Table {
        Table { rounds, rows: Vec::new() }
    }

    pub fn add(&mut self, work: Work, figures: Vec<Figure>) {
        self.rows.push((work, figures));
    }

    pub fn print(&self, as_json: bool) -> Result<(), Box<dyn Error>> {
        if as_json {
            println!("{}", serde_json::to_string_pretty(&self.json())?);
            return Ok(());
        }
        println!("Medians of {} rounds, all taking turns; `slower` is the time over wgtune's on the same device.", self.rounds);
        for (work, figures) in &self.rows {
            println!("\n{}", work.name());
            println!(
                "  {:<12} {:>10} {:>10} {:>10} {:>9} {:>8} {:>9}",
                "", "ms", "fastest", "slowest", "GFLOP/s", "slower", "gap"
            );
            for figure in figures {
                let optional = |value: Option<String>| value.unwrap_or_default();
                let rate = optional(work.flops().map(|flops| format!("{:.0}", flops / figure.seconds / 1e9)));
                let ratio = optional(ratio(figure, figures).map(|ratio| format!("{ratio:.2}x")));
                let gap = format!("{:.0e}", figure.relative_gap);
                let [median, fastest, slowest] =
                    [figure.seconds, figure.fastest, figure.slowest].map(|s| format!("{:.3}", s * 1e3));
                println!("  {:<12} {median:>10} {fastest:>10} {slowest:>10} {rate:>9} {ratio:>8} {gap:>9}", figure.engine);
            }
        }
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let rows = self.rows.iter().map(|(work, figures)| {
            let ratios = figures.iter().filter_map(|figure| Some((figure.engine.clone(), json!(ratio(figure, figures)?))));
            json!({
                "work": work.name(),
                "flops": work.flops(),
                "figures": figures,
                "time over wgtune's": serde_json::Value::Object(ratios.collect()),
            })
        });
        json!({ "rounds": self.rounds, "works": rows.collect::<Vec<_>>() })
    }
}

/// The time of a peer over that of wgtune on the same device.
fn ratio(figure: &Figure, all: &[Figure]) -> Option<f64> {
    let ours = all.iter().find(|other| other.engine == figure.ours() && other.engine != figure.engine)?;
    Some(figure.seconds / ours.seconds)
}
