//! Runs that are cut off and resumed, beside one that was not.

use std::ops::Range;
use std::time::Instant;

use wgtune_engine::random::Philox;

use crate::folder::{Folder, curve};

/// Kills a run, and what resumes it, that many times at random moments, between these shares of the time that a whole run takes. One
/// that comes to its end first counts as none, and another run begins.
pub fn survives_kills(folder: &Folder, command: &str, weights: &str, kills: u64, between: Range<f32>) {
    let begun = Instant::now();
    folder.succeeds(&format!("{command} --out whole"));
    let duration = begun.elapsed();
    let (random, mut killed, mut run) = (Philox::new(5), 0, 0);
    for attempt in 0.. {
        let out = format!("run{run}");
        let resumed = format!("{command} --out {out} --resume");
        let mut child = folder.start(&resumed);
        let share = between.start + (between.end - between.start) * random.uniform(attempt);
        std::thread::sleep(duration.mul_f32(share));
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        folder.check_whole(&out);
        killed += u64::from(!ended);
        if ended || killed == kills {
            folder.succeeds(&resumed);
            check_same(folder, &out, weights);
            run += 1;
        }
        if killed == kills {
            break;
        }
    }
}

/// Panics unless curve, checkpoint and weights are those of the run in `whole`.
#[track_caller]
pub fn check_same(folder: &Folder, out: &str, weights: &str) {
    assert_eq!(curve(folder, out), curve(folder, "whole"), "{out}");
    let name = |out: &str| format!("{out}/{weights}");
    assert!(folder.read(&name(out)) == folder.read(&name("whole")), "{out}: other weights");
    let checkpoint = |out: &str| {
        let files = folder.contents(&format!("{out}/checkpoint")).into_iter();
        files.map(|(name, bytes)| (name.trim_start_matches(out).to_string(), bytes)).collect::<Vec<_>>()
    };
    assert!(checkpoint(out) == checkpoint("whole"), "{out}: another checkpoint");
    assert!(folder.names(out).iter().all(|name| !name.starts_with('.')), "{:?}", folder.names(out));
}
