//! These figures beside earlier ones of the same device.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use wgtune_models::Result;
use wgtune_models::error::Error;

use super::results::{LeftOut, Measurement, Results};

/// How two runs differ.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The earlier run's file.
    pub file: String,
    /// A measurement may be slower by this share.
    pub tolerance: f64,
    pub ratios: Vec<Ratio>,
    /// What only one of the two runs has.
    pub left_out: Vec<LeftOut>,
}

/// One measurement in both runs.
#[derive(Debug, Serialize)]
pub struct Ratio {
    pub name: String,
    /// Median seconds.
    pub before: f64,
    pub now: f64,
    /// `now / before`: above 1 is slower.
    pub ratio: f64,
    pub slower: bool,
}

impl Comparison {
    /// Compares by median times what has the same name, shape and direction.
    ///
    /// # Errors
    /// Runs on different devices.
    pub fn new(file: &Path, before: &Results, now: &Results, tolerance: f64) -> Result<Comparison> {
        let (was, is) = (&before.device, &now.device);
        if was.name != is.name {
            let message = format!("{}: measured on {}; expected the same device, {}", file.display(), was.name, is.name);
            return Err(Error::Data { message });
        }
        if was.matmul_precision != is.matmul_precision {
            let [was, is] = [was, is].map(|device| format!("{:?}", device.matmul_precision).to_lowercase());
            let message = format!("{}: measured with --matmul-precision {was}; expected the same, {is}", file.display());
            return Err(Error::Data { message });
        }
        let mut left_out = Vec::new();
        if was.driver != is.driver {
            let reason = format!("{} then, {} now: ratios are of both changes together", was.driver, is.driver);
            left_out.push(LeftOut { name: "the driver is another".into(), reason });
        }
        let mut earlier: BTreeMap<String, &Measurement> = before.results.iter().map(|one| (one.title(), one)).collect();
        let mut ratios = Vec::new();
        for measured in &now.results {
            let name = measured.title();
            match earlier.remove(&name) {
                Some(before) => {
                    let [before, now] = [before, measured].map(|measured| measured.seconds.median);
                    let ratio = now / before;
                    ratios.push(Ratio { name, before, now, ratio, slower: ratio > 1.0 + tolerance });
                }
                None => left_out.push(LeftOut { name, reason: "not in the earlier run".into() }),
            }
        }
        left_out.extend(earlier.into_keys().map(|name| LeftOut { name, reason: "only in the earlier run".into() }));
        Ok(Comparison { file: file.display().to_string(), tolerance, ratios, left_out })
    }

    /// An error where something is slower than the tolerance allows, or nothing could be compared.
    pub fn verdict(&self) -> Result<()> {
        let slower = self.ratios.iter().filter(|ratio| ratio.slower).count();
        let (all, file, percent) = (self.ratios.len(), &self.file, 100.0 * self.tolerance);
        let message = match (all, slower) {
            (0, _) => format!("{file}: no measurement of the same name, shape and direction: nothing to compare"),
            (_, 0) => return Ok(()),
            _ => format!("{slower} of {all} measurements are slower than in {file} by more than {percent:.0} %"),
        };
        Err(Error::Data { message })
    }
}
