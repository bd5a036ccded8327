//! Small networks that write virtual tokens or a prefix while they are trained, and are dropped after it.

use wgtune_engine::random::Philox;
use wgtune_engine::{Device, Tensor, ops};

use super::settings::{Form, Setting};

/// How wide they are inside.
pub(super) const HIDDEN_SIZE: Setting = Setting {
    name: "encoder-hidden-size",
    help: "Width of the network that writes virtual tokens or a prefix",
    form: Form::Whole { range: 1..=65_536, default: 128 },
};

/// y = x W^T + b.
#[derive(Clone)]
pub(super) struct Layer {
    name: String,
    /// [outputs, inputs].
    weight: Tensor,
    /// [outputs].
    bias: Tensor,
}

impl Layer {
    /// One that begins as PyTorch's do: uniform within 1 / sqrt(inputs).
    pub fn new(name: &str, [outputs, inputs]: [usize; 2], random: Philox, device: &Device) -> Layer {
        let bound = 1.0 / (inputs as f32).sqrt();
        Layer {
            name: format!("prompt_encoder.{name}"),
            weight: uniform(&[outputs, inputs], bound, random.stream(0), device),
            bias: uniform(&[outputs], bound, random.stream(1), device),
        }
    }

    /// [.., inputs] to [.., outputs].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        ops::linear_with(x, &self.weight, &ops::Epilogue { bias: Some(&self.bias), ..Default::default() })
    }

    /// Names and tensors.
    pub fn parameters(&self) -> [(String, &Tensor); 2] {
        [("weight", &self.weight), ("bias", &self.bias)].map(|(part, tensor)| (format!("{}.{part}", self.name), tensor))
    }

    /// The same layer with what `map` makes of its tensors.
    pub fn mapped(&self, map: &dyn Fn(&Tensor) -> Tensor) -> Layer {
        Layer { name: self.name.clone(), weight: map(&self.weight), bias: map(&self.bias) }
    }
}

/// Numbers within `bound` of 0.
fn uniform(shape: &[usize], bound: f32, random: Philox, device: &Device) -> Tensor {
    let count = shape.iter().product::<usize>() as u64;
    let values: Vec<f32> = (0..count).map(|place| bound * (2.0 * random.uniform(place) - 1.0)).collect();
    device.tensor(&values, wgtune_engine::Shape::new(shape))
}

/// One direction of a layer of an LSTM (Hochreiter and Schmidhuber 1997), in PyTorch's order of gates: input, forget, cell, output.
#[derive(Clone)]
struct Direction {
    /// What its parameters' names end in, as in PyTorch.
    suffix: String,
    /// [4 h, inputs] and [4 h, h].
    weights: [Tensor; 2],
    /// [4 h] each.
    biases: [Tensor; 2],
    is_reversed: bool,
}

impl Direction {
    fn new(layer: usize, is_reversed: bool, [hidden, inputs]: [usize; 2], random: Philox, device: &Device) -> Direction {
        let bound = 1.0 / (hidden as f32).sqrt();
        let drawn = |stream: u64, shape: &[usize]| uniform(shape, bound, random.stream(stream), device);
        Direction {
            suffix: format!("l{layer}{}", if is_reversed { "_reverse" } else { "" }),
            weights: [drawn(0, &[4 * hidden, inputs]), drawn(1, &[4 * hidden, hidden])],
            biases: [drawn(2, &[4 * hidden]), drawn(3, &[4 * hidden])],
            is_reversed,
        }
    }

    /// [V, inputs] to [V, h], a step a row.
    fn forward(&self, x: &Tensor) -> Tensor {
        let [of_inputs, of_state] = &self.weights;
        let hidden = of_state.size(1);
        let bias = ops::add(&self.biases[0], &self.biases[1]);
        let gates = ops::linear_with(x, of_inputs, &ops::Epilogue { bias: Some(&bias), ..Default::default() });
        let zeros = x.device().zeros([1, hidden]);
        let (mut output, mut cell) = (zeros.clone(), zeros);
        let steps = x.size(0);
        let mut outputs = vec![output.clone(); steps];
        for step in 0..steps {
            let row = if self.is_reversed { steps - 1 - step } else { step };
            let gates = ops::add(&gates.slice(0, row..row + 1), &ops::linear(&output, of_state));
            let gate = |index: usize| gates.slice(1, index * hidden..(index + 1) * hidden);
            let kept = ops::mul(&ops::sigmoid(&gate(1)), &cell);
            cell = ops::add(&kept, &ops::mul(&ops::sigmoid(&gate(0)), &ops::tanh(&gate(2))));
            output = ops::mul(&ops::sigmoid(&gate(3)), &ops::tanh(&cell));
            outputs[row] = output.clone();
        }
        ops::cat(&outputs.iter().collect::<Vec<_>>(), 0)
    }
}

/// An LSTM of two layers, each of which reads both ways.
#[derive(Clone)]
pub(super) struct Lstm([[Direction; 2]; 2]);

impl Lstm {
    /// One for rows of `inputs` numbers, with `hidden` a direction.
    pub fn new([hidden, inputs]: [usize; 2], random: Philox, device: &Device) -> Lstm {
        Lstm([0, 1].map(|layer| {
            [false, true].map(|is_reversed| {
                let size = [hidden, if layer == 0 { inputs } else { 2 * hidden }];
                Direction::new(layer, is_reversed, size, random.stream(2 * layer as u64 + u64::from(is_reversed)), device)
            })
        }))
    }

    /// [V, inputs] to [V, 2 h].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let layer = |x: Tensor, [there, back]: &[Direction; 2]| ops::cat(&[&there.forward(&x), &back.forward(&x)], 1);
        self.0.iter().fold(x.clone(), layer)
    }

    /// Names and tensors.
    pub fn parameters(&self) -> Vec<(String, &Tensor)> {
        let of = |direction: &'_ Direction| {
            let named = |kind: &str| format!("prompt_encoder.lstm_head.{kind}_{}", direction.suffix);
            ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(named)
        };
        let tensors = |direction: &'_ Direction| of(direction);
        let all = self.0.iter().flatten();
        all.flat_map(|direction| tensors(direction).into_iter().zip(direction.weights.iter().chain(&direction.biases))).collect()
    }

    /// The same with what `map` makes of its tensors.
    pub fn mapped(&self, map: &dyn Fn(&Tensor) -> Tensor) -> Lstm {
        Lstm(self.0.each_ref().map(|layer| {
            layer.each_ref().map(|direction| Direction {
                weights: direction.weights.each_ref().map(map),
                biases: direction.biases.each_ref().map(map),
                ..direction.clone()
            })
        }))
    }
}
