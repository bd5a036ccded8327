//! One call of an op at one shape, with what it is given.

use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Device, Shape, Tensor, ops};

use super::results::{Direction, title};

type Call = Box<dyn Fn(&[Tensor]) -> Vec<Tensor>>;

/// A call to be timed.
pub struct Workload {
    /// Whose shapes these are.
    pub model: &'static str,
    /// The entry of the engine's list of ops that it belongs to.
    pub op: &'static str,
    pub name: String,
    pub shape: String,
    pub direction: Direction,
    /// Which rung of the ladder it is to run.
    pub rung: Option<Rung>,
    inputs: Vec<Input>,
    call: Call,
}

/// One of several shaders of the same kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rung {
    pub number: usize,
    /// The stem of its WGSL file.
    pub shader: &'static str,
}

/// A tensor that an op is given.
pub struct Input {
    shape: Shape,
    values: Values,
}

#[derive(Clone, Copy)]
enum Values {
    /// Normal, and differentiated where the direction asks for gradients.
    Learnt,
    /// Normal, never differentiated, stored in a type.
    Given(DType),
    Positive,
    Zeros,
    Below(u32),
    Counting,
}

impl Input {
    /// f32, standard normal; takes a gradient.
    pub fn learnt(shape: impl Into<Shape>) -> Input {
        Input { shape: shape.into(), values: Values::Learnt }
    }

    /// f32, f16 or bf16, standard normal; takes none.
    pub fn given(shape: impl Into<Shape>, dtype: DType) -> Input {
        Input { shape: shape.into(), values: Values::Given(dtype) }
    }

    /// f32 from 0.
    pub fn positive(shape: impl Into<Shape>) -> Input {
        Input { shape: shape.into(), values: Values::Positive }
    }

    /// f32 zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Input {
        Input { shape: shape.into(), values: Values::Zeros }
    }

    /// u32 below a bound.
    pub fn below(shape: impl Into<Shape>, bound: usize) -> Input {
        Input { shape: shape.into(), values: Values::Below(bound as u32) }
    }

    /// u32 0, 1, 2, ...
    pub fn counting(shape: impl Into<Shape>) -> Input {
        Input { shape: shape.into(), values: Values::Counting }
    }

    fn tensor(&self, device: &Device, random: Philox, differentiated: bool) -> Tensor {
        let count = self.shape.elements();
        match self.values {
            Values::Learnt if differentiated => device.tensor(&normal(random, count), self.shape).requiring_grad(),
            Values::Learnt => device.tensor(&normal(random, count), self.shape),
            Values::Given(dtype) => ops::cast(&device.tensor(&normal(random, count), self.shape), dtype),
            Values::Positive => {
                let values: Vec<f32> = normal(random, count).iter().map(|value| value.abs()).collect();
                device.tensor(&values, self.shape)
            }
            Values::Zeros => device.tensor(&vec![0.0; count], self.shape),
            Values::Below(bound) => {
                let values: Vec<u32> = (0..count as u64).map(|i| random.word(i) % bound).collect();
                device.tensor_u32(&values, self.shape)
            }
            Values::Counting => device.tensor_u32(&(0..count as u32).collect::<Vec<_>>(), self.shape),
        }
    }
}

/// Standard normal numbers. A block of them is repeated: time and rounding depend on no more.
pub fn normal(random: Philox, count: usize) -> Vec<f32> {
    let block: Vec<f32> = (0..count.min(65_521) as u64).map(|i| random.normal(i)).collect();
    block.iter().copied().cycle().take(count).collect()
}

impl Workload {
    /// A forward call.
    pub fn new<const N: usize>(
        op: &'static str,
        name: impl Into<String>,
        shape: impl Into<String>,
        inputs: [Input; N],
        call: impl Fn(&[Tensor]) -> Vec<Tensor> + 'static,
    ) -> Workload {
        Workload {
            model: "",
            op,
            name: name.into(),
            shape: shape.into(),
            direction: Direction::Forward,
            rung: None,
            inputs: inputs.into(),
            call: Box::new(call),
        }
    }

    /// The same in another direction.
    pub fn to(self, direction: Direction) -> Workload {
        Workload { direction, ..self }
    }

    /// The same by one rung of the ladder, whose name it takes.
    pub fn on(self, rung: Rung) -> Workload {
        Workload { model: "ladder", name: rung.shader.trim_start_matches("ladder/").into(), rung: Some(rung), ..self }
    }

    /// The same under a model's name.
    pub fn of_model(self, model: &'static str) -> Workload {
        Workload { model, ..self }
    }

    /// The name in full.
    pub fn title(&self) -> String {
        title(self.model, &self.name, &self.shape, self.direction)
    }

    /// Its inputs on a device.
    pub fn tensors(&self, device: &Device, seed: u64) -> Vec<Tensor> {
        let differentiated = self.direction != Direction::Forward;
        let random = Philox::new(seed);
        let inputs = self.inputs.iter().enumerate();
        inputs.map(|(at, input)| input.tensor(device, random.stream(at as u64), differentiated)).collect()
    }

    /// Calls the op.
    pub fn call(&self, inputs: &[Tensor]) -> Vec<Tensor> {
        (self.call)(inputs)
    }
}
