//! The parameters of a model as one value, and their gradients and state laid out alike.

use crate::dtype::DType;
use crate::ops;
use crate::tape::Gradients;
use crate::tensor::{Run, Tensor};

/// What an optimiser updates.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// What it is called.
    pub name: String,
    /// f32, in memory of its own.
    pub tensor: Tensor,
    /// The share of it that is taken away at each step, times the learning rate; 0 is none.
    pub weight_decay: f64,
    /// What the learning rate is multiplied by.
    pub rate: f64,
}

impl Parameter {
    /// What parameters of one flat have in common.
    fn settings(&self) -> [f64; 2] {
        [self.weight_decay, self.rate]
    }
}

/// Parameters, and the flats that they lie in: a flat is one tensor, of parameters of one weight decay and rate that lie behind each
/// other.
#[derive(Clone, Debug)]
pub struct Parameters {
    all: Vec<Parameter>,
    flats: Vec<Flat>,
}

#[derive(Clone, Debug)]
struct Flat {
    /// Places in the list of parameters, in the order in which they lie.
    members: Vec<usize>,
    tensor: Tensor,
    weight_decay: f64,
    rate: f64,
}

/// Something that each parameter has as many numbers of as it has itself (gradients, an optimiser's state), a tensor for each flat.
#[derive(Clone, Debug)]
pub struct Flats(pub(super) Vec<Tensor>);

impl Flats {
    /// The tensors: what is done to each element alike is done to these.
    pub fn tensors(&self) -> &[Tensor] {
        &self.0
    }

    /// The Euclidean length of all of them taken together, a scalar: [`ops::gradient_norm`].
    pub fn norm(&self) -> Tensor {
        ops::gradient_norm(&self.0.iter().collect::<Vec<_>>())
    }
}

impl Parameters {
    /// Moves the parameters' elements into a few larger buffers, those of one weight decay and rate together. Every handle on one of these
    /// tensors sees them there from then on.
    pub fn gather(parameters: impl IntoIterator<Item = Parameter>) -> Parameters {
        let all: Vec<Parameter> = parameters.into_iter().collect();
        move_together(&all);
        let tensors: Vec<&Tensor> = all.iter().map(|parameter| &parameter.tensor).collect();
        let settings = |at: usize| all[at].settings();
        let runs = Tensor::runs([&tensors], |before, at| settings(before) == settings(at));
        let flat = |Run { members, joined: [tensor] }| {
            let [weight_decay, rate] = settings(members[0]);
            Flat { members, tensor, weight_decay, rate }
        };
        let flats = runs.into_iter().map(flat).collect();
        Parameters { all, flats }
    }

    /// All of them, in the order that they were given in.
    pub fn all(&self) -> &[Parameter] {
        &self.all
    }

    /// Their gradients.
    ///
    /// # Errors
    /// The name of the first that has none.
    pub fn gradients(&self, gradients: &Gradients) -> Result<Flats, String> {
        let of = |parameter: &Parameter| gradients.get(&parameter.tensor).ok_or_else(|| parameter.name.clone());
        let all: Vec<&Tensor> = self.all.iter().map(of).collect::<Result<_, _>>()?;
        Ok(self.joined(&all))
    }

    /// Tensors of the parameters' shapes, one each, as flats. Where they lie as the parameters do, nothing is copied.
    #[track_caller]
    pub fn joined(&self, tensors: &[&Tensor]) -> Flats {
        let fit = tensors.iter().zip(&self.all).all(|(tensor, parameter)| tensor.shape() == parameter.tensor.shape());
        assert!(fit && tensors.len() == self.all.len(), "[joined] expected tensors of the parameters' shapes, got {tensors:?}");
        let join = |flat: &Flat| {
            let members: Vec<&Tensor> = flat.members.iter().map(|&at| tensors[at]).collect();
            match &Tensor::runs([&members], |_, _| true)[..] {
                // Parts of one buffer, in another order, are no run of this order.
                [Run { members, joined: [joined] }] if members.is_sorted() => joined.reshape(flat.tensor.shape()),
                _ => {
                    let rows: Vec<Tensor> = members.iter().map(|tensor| tensor.detach().reshape([tensor.elements()])).collect();
                    ops::cat(&rows.iter().collect::<Vec<_>>(), 0).reshape(flat.tensor.shape())
                }
            }
        };
        Flats(self.flats.iter().map(join).collect())
    }

    /// A parameter's own share of flats, for each, of its shape.
    #[track_caller]
    pub fn pieces(&self, flats: &Flats) -> Vec<Tensor> {
        self.check([flats]);
        let mut pieces: Vec<Option<Tensor>> = vec![None; self.all.len()];
        for (flat, tensor) in self.flats.iter().zip(&flats.0) {
            let mut start = 0;
            for &at in &flat.members {
                let shape = self.all[at].tensor.shape();
                pieces[at] = Some(if flat.members.len() == 1 { tensor.clone() } else { tensor.cut(start, shape) });
                start += shape.elements();
            }
        }
        pieces.into_iter().map(|piece| piece.expect("each lies in a flat")).collect()
    }

    /// Zeros, a number for each of theirs.
    pub fn zeros(&self) -> Flats {
        Flats(self.flats.iter().map(|flat| flat.tensor.device().zeros(flat.tensor.shape())).collect())
    }

    /// The flats, their weight decays and their rates.
    pub(super) fn flats(&self) -> impl Iterator<Item = (&Tensor, f64, f64)> {
        self.flats.iter().map(|flat| (&flat.tensor, flat.weight_decay, flat.rate))
    }

    #[track_caller]
    pub(super) fn check<const N: usize>(&self, flats: [&Flats; N]) {
        let fits = |given: &Flats| {
            given.0.len() == self.flats.len()
                && given.0.iter().zip(&self.flats).all(|(given, own)| given.shape() == own.tensor.shape())
        };
        assert!(flats.into_iter().all(fits), "[step] expected flats of these parameters, got {flats:?}");
    }
}

/// Moves parameters into a few larger buffers, those with equal weight decays and rates together.
fn move_together(parameters: &[Parameter]) {
    // A backward pass takes a whole buffer for gradients as soon as it has one of them, so a buffer is a share of all.
    const SHARE: usize = 8;
    const LEAST: usize = 4 << 20;
    let tensor = |at: usize| &parameters[at].tensor;
    let mut order: Vec<usize> = (0..parameters.len()).filter(|&at| tensor(at).can_move()).collect();
    let settings = |at: usize| parameters[at].settings();
    order.sort_by(|&a, &b| {
        let mut pairs = settings(a).into_iter().zip(settings(b)).map(|(a, b)| a.total_cmp(&b));
        pairs.find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    });
    let all: usize = order.iter().map(|&at| tensor(at).elements()).sum();
    let most = (all / SHARE).max(LEAST);
    let mut rest = &order[..];
    while let Some(&first) = rest.first() {
        let most = most.min(tensor(first).device().largest_tensor() / size_of::<f32>());
        let mut elements = 0;
        let fits = |at: &&usize| {
            elements += tensor(**at).elements();
            elements <= most
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (together, behind) = rest.split_at(count);
        rest = behind;
        // One alone stays where it is.
        if let [first, _, ..] = together {
            let elements = together.iter().map(|&at| tensor(at).elements()).sum();
            let larger = tensor(*first).device().empty([elements], DType::F32);
            let mut start = 0;
            for &at in together {
                tensor(at).move_into(&larger, start);
                start += tensor(at).elements();
            }
        }
    }
}
