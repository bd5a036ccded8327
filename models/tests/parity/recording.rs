//! A training step is recorded alike for every device: what differs between them is decided after ops have recorded it.

use wgtune_engine::optim::{AdamW, AdamWConfig, Parameter, Parameters};
use wgtune_engine::{Device, Tensor};
use wgtune_models::peft;
use wgtune_models::transformer::Forward;
use wgtune_models::transformer::load_decoder;

use crate::Check;
use crate::fixtures::{Expected, path};
use crate::forward::mean_loss;

/// On a device of its own, since others record there too.
pub fn checks(device: &str) -> Vec<Check> {
    let device = device.to_string();
    vec![Check::new("lora: a step is recorded as for the reference", move |_| {
        let (expected, got) = (recorded("reference")?, recorded(&device)?);
        let differs = expected.lines().zip(got.lines()).find(|(expected, got)| expected != got);
        assert_eq!(differs, None);
        assert_eq!(got.lines().count(), expected.lines().count());
        assert!(got.lines().count() > 100 && got.contains("matmul ") && got.contains("adamw "), "{got}");
        Ok(())
    })]
}

fn recorded(device: &str) -> Result<String, libtest_mimic::Failed> {
    let device = Device::open(device)?;
    let model = peft::open(&path("lora"), load_decoder(&path("llama"), &device)?)?.requiring_grad();
    let forward = Forward { checkpoint_blocks: true, ..model.forward() };
    let parameter = |(name, tensor): (String, &Tensor)| Parameter { name, tensor: tensor.clone(), weight_decay: 0.0, rate: 1.0 };
    let parameters = Parameters::gather(model.parameters().into_iter().map(parameter));
    let mut optimizer = AdamW::new(AdamWConfig::default(), &parameters);
    let gradients = mean_loss(&model, &forward, &Expected::of("lora")).backward();
    optimizer.step(&parameters, &parameters.gradients(&gradients)?, 1e-3, None);
    Ok(format!("{:?}", device.recorded()))
}
