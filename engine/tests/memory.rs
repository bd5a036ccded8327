//! Memory over many steps.

use wgtune_engine::optim::{AdamW, AdamWConfig};
use wgtune_engine::{Device, ops};

#[test]
fn a_thousand_training_steps_reserve_no_more_memory_than_ten() {
    let device = Device::cpu();
    let weight = device.tensor(&vec![0.01; 64 * 32], [64, 32]).requiring_grad();
    let mut optimiser = AdamW::new(AdamWConfig::default(), &[(&weight, 0.0)]);
    let mut reserved = 0;
    for step in 0..1000 {
        // Two lengths take turns, as batches of different rows do.
        let rows = 16 + step % 2 * 8;
        let x = device.tensor(&vec![step as f32 * 1e-3; rows * 32], [rows, 32]);
        let loss = ops::mean(&ops::square(&ops::linear(&x, &weight)));
        let gradients = loss.backward();
        optimiser.step(&[&weight], &[gradients.get(&weight).unwrap()], 1e-3, None);
        assert!(loss.item().unwrap().is_finite());
        if step == 10 {
            reserved = device.memory().reserved;
        }
    }
    let after = device.memory().reserved;
    assert!(after <= reserved, "reserved {after} bytes after 1,000 steps, {reserved} after 10");
}
