//! One call of an op at one shape, with what it is given.

use wgtune_engine::random::Philox;
use wgtune_engine::{DType, Device, Shape, Tensor, ops};

use super::results::{Direction, title};

type Call = Box<dyn Fn(&[Tensor]) -> Vec<Tensor>>;

/// For each axis of a tensor, which of its indices there are.
pub type Indices = Vec<Vec<usize>>;

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
    /// See [`Workload::independent`].
    axes: Axes,
}

/// A letter for each axis of each input, and of each output.
#[derive(Default)]
struct Axes {
    inputs: Vec<Vec<char>>,
    outputs: Vec<Vec<char>>,
}

/// An axis of which no part can be computed alone.
pub const TOGETHER: char = '.';

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
    /// Normal of this deviation, and differentiated where the direction asks for gradients.
    Learnt(f32),
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
        Input { shape: shape.into(), values: Values::Learnt(1.0) }
    }

    /// f32, a layer's weight [outputs, inputs] that makes standard normal numbers of such; takes a gradient.
    pub fn weight([outputs, inputs]: [usize; 2]) -> Input {
        Input { shape: [outputs, inputs].into(), values: Values::Learnt((inputs as f32).sqrt().recip()) }
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

    /// All of it, or the part of it at these indices.
    fn tensor(&self, device: &Device, random: Philox, differentiated: bool, part: Option<&Indices>) -> Tensor {
        let places: Vec<u64> = match part {
            Some(indices) => places(&self.shape, indices),
            None => (0..self.shape.elements() as u64).collect(),
        };
        let shape = part.map_or(self.shape, |indices| Shape::new(&indices.iter().map(Vec::len).collect::<Vec<_>>()));
        let normal = || normal_at(random, &places);
        match self.values {
            Values::Learnt(deviation) => {
                let values: Vec<f32> = normal().iter().map(|value| deviation * value).collect();
                let tensor = device.tensor(&values, shape);
                if differentiated { tensor.requiring_grad() } else { tensor }
            }
            Values::Given(dtype) => ops::cast(&device.tensor(&normal(), shape), dtype),
            Values::Positive => device.tensor(&normal().iter().map(|value| value.abs()).collect::<Vec<_>>(), shape),
            Values::Zeros => device.tensor(&vec![0.0; places.len()], shape),
            Values::Below(bound) => {
                let values: Vec<u32> = places.iter().map(|&place| random.word(place) % bound).collect();
                device.tensor_u32(&values, shape)
            }
            Values::Counting => device.tensor_u32(&places.iter().map(|&place| place as u32).collect::<Vec<_>>(), shape),
        }
    }
}

/// Where in a tensor of this shape the elements at these indices of its axes lie, in order.
pub fn places(shape: &[usize], indices: &Indices) -> Vec<u64> {
    shape.iter().zip(indices).fold(vec![0], |places, (&size, indices)| {
        places.iter().flat_map(|place| indices.iter().map(move |&index| place * size as u64 + index as u64)).collect()
    })
}

/// Standard normal numbers, the first of so many.
pub fn normal(random: Philox, count: usize) -> Vec<f32> {
    normal_at(random, &(0..count as u64).collect::<Vec<_>>())
}

/// Standard normal numbers at these places. A block of them is repeated: time and rounding depend on no more.
pub fn normal_at(random: Philox, places: &[u64]) -> Vec<f32> {
    const BLOCK: u64 = 65_521;
    if places.len() < BLOCK as usize {
        return places.iter().map(|place| random.normal(place % BLOCK)).collect();
    }
    let block: Vec<f32> = (0..BLOCK).map(|place| random.normal(place)).collect();
    places.iter().map(|place| block[(place % BLOCK) as usize]).collect()
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
            axes: Axes::default(),
        }
    }

    /// The same, of which parts can be computed alone: letters for the axes of inputs, then of outputs, as in `r., c. -> rc`. What an
    /// output holds at an index of a letter depends on nothing but what inputs with this letter hold there. Where inputs differ in a
    /// letter's size, the longer ones have several elements for each of the shorter. `.` is an axis that goes whole.
    pub fn independent(self, axes: &'static str) -> Workload {
        let letters = |list: &str| list.split(',').map(|one| one.trim().chars().collect()).collect();
        let (inputs, outputs) = axes.split_once("->").unwrap_or((axes, ""));
        Workload { axes: Axes { inputs: letters(inputs), outputs: letters(outputs) }, ..self }
    }

    /// The shapes of the inputs, and the letters of their axes: none for a workload that is only computed whole.
    pub fn inputs(&self) -> impl Iterator<Item = (&[usize], &[char])> {
        self.inputs.iter().enumerate().map(|(at, input)| (&input.shape[..], letters(&self.axes.inputs, at)))
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
        self.tensors_at(device, seed, &vec![None; self.inputs.len()])
    }

    /// Its inputs on a device, of each all of it or the part at these indices.
    pub fn tensors_at(&self, device: &Device, seed: u64, parts: &[Option<Indices>]) -> Vec<Tensor> {
        let differentiated = self.direction != Direction::Forward;
        let random = Philox::new(seed);
        let inputs = self.inputs.iter().zip(parts).enumerate();
        inputs.map(|(at, (input, part))| input.tensor(device, random.stream(at as u64), differentiated, part.as_ref())).collect()
    }

    /// Calls the op.
    pub fn call(&self, inputs: &[Tensor]) -> Vec<Tensor> {
        (self.call)(inputs)
    }

    /// Calls the op, and where its direction asks for it takes the gradients of its first output's inputs.
    pub fn run(&self, inputs: &[Tensor], gradient: impl Fn(&Tensor) -> Tensor) -> Outcome {
        let outputs = self.call(inputs);
        match self.direction {
            Direction::Forward => Outcome { outputs, gradients: Vec::new() },
            _ => {
                let gradient = gradient(&outputs[0]);
                Outcome::backward(inputs, outputs, &gradient)
            }
        }
    }
}

/// What a run of a workload came to.
pub struct Outcome {
    pub outputs: Vec<Tensor>,
    /// Of inputs, by their numbers.
    gradients: Vec<(usize, Tensor)>,
}

impl Outcome {
    /// These outputs, and the gradients of inputs for one of the first output.
    pub fn backward(inputs: &[Tensor], outputs: Vec<Tensor>, gradient: &Tensor) -> Outcome {
        let gradients = outputs[0].backward_from(gradient);
        let gradients = inputs.iter().enumerate().filter_map(|(at, input)| Some((at, gradients.get(input)?.clone()))).collect();
        Outcome { outputs, gradients }
    }

    /// All results, each with the letters of its axes.
    pub fn results<'a>(&'a self, workload: &'a Workload) -> Vec<(&'a Tensor, &'a [char])> {
        let outputs = self.outputs.iter().enumerate().map(|(at, output)| (output, letters(&workload.axes.outputs, at)));
        outputs.chain(self.gradients.iter().map(|(at, gradient)| (gradient, letters(&workload.axes.inputs, *at)))).collect()
    }
}

fn letters(of: &[Vec<char>], at: usize) -> &[char] {
    of.get(at).map_or(&[], |letters| letters)
}

/// A gradient for an output, of the run whose inputs are of this seed.
pub fn gradient_like(output: &Tensor, seed: u64) -> Tensor {
    output.device().tensor(&normal(gradient_numbers(seed), output.elements()), output.shape())
}

/// The numbers of that gradient, by their places.
pub fn gradient_numbers(seed: u64) -> Philox {
    Philox::new(seed).stream(u64::MAX)
}
