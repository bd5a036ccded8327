//! Every op of the list, over its own cases, on the CPU and on the first GPU adapter.
//!
//! `cargo bench -p wgtune-benches -- softmax` measures the cases whose name contains `softmax`.

use criterion::{Criterion, criterion_group, criterion_main};
use wgtune_engine::Device;
use wgtune_engine::device::adapters;
use wgtune_engine::ops::OPS;
use wgtune_engine::testing::Draw;

fn every_case(criterion: &mut Criterion) {
    let mut devices = vec![("cpu", Device::cpu())];
    if !adapters().is_empty() {
        devices.extend(Device::open("gpu").ok().map(|device| ("gpu", device)));
    }
    for (label, device) in &devices {
        for op in OPS {
            let mut group = criterion.benchmark_group(format!("{label}/{}", op.name));
            group.sample_size(10);
            for case in (op.cases)() {
                let inputs = case.tensors(device, Draw::Plain);
                // Outputs are held until they have been computed: what nobody waits for is dropped from the recording.
                group.bench_function(&case.name, |bencher| {
                    bencher.iter(|| {
                        let outputs = case.call(&inputs);
                        device.wait().expect("the device computes its own cases");
                        outputs
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, every_case);
criterion_main!(benches);
