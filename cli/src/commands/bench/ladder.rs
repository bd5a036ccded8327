//! The teaching ladder: the same product and the same attention by one shader after another, from the definition to those in
//! use.

use wgtune_engine::{DType, ops};

use super::results::DeviceUnderTest;
use super::workload::{Input, Rung, Workload};

/// A workload for each rung, and a smaller one to be checked against f64. None on a CPU, which runs no shaders.
pub fn workloads(device: &DeviceUnderTest) -> Vec<(Workload, Workload)> {
    let (side, length) = match device.kind.as_str() {
        "cpu" => return Vec::new(),
        "software" => (512, 128),
        _ => (4096, 4096),
    };
    let matmul = ops::matmul_rungs().into_iter().enumerate().map(|at| on_rung(at, side, 128, product));
    let attention = ops::attention_rungs().into_iter().enumerate().map(|at| on_rung(at, length, 64, attention));
    matmul.chain(attention).collect()
}

fn on_rung((number, rung): (usize, ops::Rung), size: usize, smaller: usize, of: fn(usize) -> Workload) -> (Workload, Workload) {
    let rung = Rung { number, shader: rung.name };
    (of(size).on(rung), of(smaller).on(rung))
}

fn product(side: usize) -> Workload {
    let inputs = [(); 2].map(|()| Input::given([side, side], DType::F32));
    Workload::new("ladder", "matmul", format!("{side} x {side} x {side}"), inputs, |x| vec![ops::ladder_matmul(&x[0], &x[1])])
        .independent("r., .c -> rc")
}

fn attention(length: usize) -> Workload {
    let inputs = [(); 3].map(|()| Input::given([1, length, 4, 64], DType::F32));
    let shape = format!("1 x {length} x 4 x 64 causal");
    Workload::new("ladder", "attention", shape, inputs, |x| vec![ops::ladder_attention(&x[0], &x[1], &x[2])])
        .independent("b.h., b.h., b.h. -> b.h.")
}
