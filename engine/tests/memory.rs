//! Memory over many steps.

use wgtune_engine::optim::{AdamW, AdamWConfig, Parameter, Parameters};
use wgtune_engine::random::Philox;
use wgtune_engine::{Device, Tensor, device, ops, process};

fn gathered(tensors: &[Tensor]) -> Parameters {
    let parameter = |tensor: &Tensor| Parameter { name: "weight".into(), tensor: tensor.clone(), weight_decay: 0.0, rate: 1.0 };
    Parameters::gather(tensors.iter().map(parameter))
}

#[test]
fn a_thousand_training_steps_reserve_no_more_memory_than_ten() {
    let device = Device::cpu();
    let weight = device.tensor(&vec![0.01; 64 * 32], [64, 32]).requiring_grad();
    let parameters = gathered(std::slice::from_ref(&weight));
    let mut optimiser = AdamW::new(AdamWConfig::default(), &parameters);
    let mut reserved = 0;
    for step in 0..1000 {
        // Two lengths take turns, as batches of different rows do.
        let rows = 16 + step % 2 * 8;
        let x = device.tensor(&vec![step as f32 * 1e-3; rows * 32], [rows, 32]);
        let loss = ops::mean(&ops::square(&ops::linear(&x, &weight)));
        let gradients = parameters.gradients(&loss.backward()).unwrap();
        optimiser.step(&parameters, &gradients, 1e-3, None);
        assert!(loss.item().unwrap().is_finite());
        if step == 10 {
            reserved = device.memory().reserved;
        }
    }
    let after = device.memory().reserved;
    assert!(after <= reserved, "reserved {after} bytes after 1,000 steps, {reserved} after 10");
}

/// Training steps over rows of lengths drawn at random.
fn train_on_mixed_lengths(device: &Device, steps: usize, mut after: impl FnMut(usize)) {
    const WIDTH: usize = 256;
    let random = Philox::new(1);
    let weights: Vec<_> = (0..6).map(|_| device.tensor(&vec![0.01; WIDTH * WIDTH], [WIDTH, WIDTH]).requiring_grad()).collect();
    let parameters = gathered(&weights);
    let mut optimiser = AdamW::new(AdamWConfig::default(), &parameters);
    for step in 0..steps {
        let rows = 100 + random.below(step as u64, 1900);
        let mut x = device.tensor(&vec![0.5; rows * WIDTH], [rows, WIDTH]);
        for weight in &weights {
            // Narrow, wide, and read again for the gradient.
            x = ops::tanh(&ops::linear(&x, weight));
            x = ops::cat(&[&x, &x], 1).slice(1, 0..WIDTH).whole();
        }
        let loss = ops::mean(&ops::square(&x));
        let gradients = parameters.gradients(&loss.backward()).unwrap();
        optimiser.step(&parameters, &gradients, 1e-3, None);
        assert!(loss.item().unwrap().is_finite());
        after(step);
    }
}

#[test]
fn rows_of_mixed_lengths_hold_little_more_than_the_longest_needs() {
    let gpu = (!device::adapters().is_empty()).then_some("gpu");
    for (name, steps) in [("cpu", 200)].into_iter().chain(gpu.map(|name| (name, 25))) {
        let device = Device::open(name).unwrap();
        let before = process::memory();
        let mut most = 0;
        train_on_mixed_lengths(&device, steps, |_| most = most.max(device.memory().reserved));
        let live = device.memory().peak_live;
        // A fifth, and what is not worth giving back.
        let bound = live + live / 4 + (16 << 20);
        assert!(most <= bound, "{name}: {most} bytes reserved, {live} needed");
        if let (true, Some(before), Some(after)) = (device.is_cpu(), before, process::memory()) {
            let grown = after.resident.saturating_sub(before.resident);
            // Beside the device's: the rows on their way to it, and what the allocator keeps of them.
            assert!(grown <= bound + (64 << 20), "{grown} bytes resident, {live} needed");
        }
    }
}
