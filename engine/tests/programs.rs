//! Random programs come to the same fused and unfused, with guards and without, and on the device that computes in f64.

#[path = "common/programs.rs"]
mod programs;

use programs::{compare, run};
use wgtune_engine::Device;
use wgtune_engine::device::Config;

#[test]
fn random_programs_come_to_the_same_however_they_are_run() {
    for seed in 0..300 {
        let expected = run(&Device::reference(), seed).unwrap();
        let unfused = Config { no_fusion: true, guards: true, ..Config::default() };
        for config in [Config::default(), unfused, Config { guards: true, ..Config::default() }] {
            let device = Device::open_with("cpu", &config).unwrap();
            compare(seed, &expected, &run(&device, seed).unwrap());
            device.flush().unwrap();
            assert_eq!(device.memory().in_use, 0, "program {seed}");
        }
    }
}
