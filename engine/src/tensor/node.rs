//! A tensor's place on the tape: what it was computed from, and how a gradient goes back there.

use std::sync::{Arc, Mutex};

use super::Tensor;
use crate::device::Device;
use crate::shape::Shape;

pub(crate) type Rule = Box<dyn FnOnce(&Tensor) -> Vec<Option<Tensor>> + Send>;

/// A place on the tape.
pub(crate) struct Node {
    /// Grows in the order of recording.
    pub id: u64,
    /// `None` for a leaf, and for a node whose rule has been applied.
    pub history: Mutex<Option<History>>,
    /// The tensor that a leaf stands for.
    pub leaf: Option<Tensor>,
}

/// What came before a node.
pub(crate) struct History {
    pub op: &'static str,
    pub shape: Shape,
    pub inputs: Vec<Option<Arc<Node>>>,
    pub rule: Rule,
}

impl Node {
    pub fn leaf(tensor: &Tensor) -> Arc<Node> {
        Arc::new(Node { id: tensor.device().next_id(), history: Mutex::new(None), leaf: Some(tensor.detach()) })
    }

    pub fn new(device: &Device, op: &'static str, shape: Shape, inputs: Vec<Option<Arc<Node>>>, rule: Rule) -> Arc<Node> {
        Arc::new(Node { id: device.next_id(), history: Mutex::new(Some(History { op, shape, inputs, rule })), leaf: None })
    }

    pub fn take_history(&self) -> Option<History> {
        self.history.lock().expect("no rule panics while it is taken").take()
    }
}

impl Drop for Node {
    /// Takes the nodes behind it down one by one, where nobody else holds them: each inside the drop of the one before would be
    /// as many calls deep as the tape is long.
    fn drop(&mut self) {
        let inputs = |node: &mut Node| {
            let history = node.history.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            history.map_or(Vec::new(), |history| history.inputs)
        };
        let mut behind = inputs(self);
        while let Some(node) = behind.pop() {
            if let Some(mut last) = node.and_then(Arc::into_inner) {
                behind.extend(inputs(&mut last));
            }
        }
    }
}

impl History {
    /// The gradients of the inputs that are on the tape, for one of the output.
    pub fn apply(self, grad: &Tensor) -> Vec<(Arc<Node>, Tensor)> {
        assert!(grad.shape() == self.shape, "[{}] expected a gradient of {:?}, got {:?}", self.op, self.shape, grad.shape());
        let grads = (self.rule)(grad);
        assert!(grads.len() == self.inputs.len(), "[{}] expected a gradient an input, got {}", self.op, grads.len());
        let pairs = self.inputs.into_iter().zip(grads);
        pairs
            .filter_map(|(input, grad)| {
                let input = input?;
                let grad = grad.unwrap_or_else(|| panic!("[{}] expected a gradient for every input that requires one", self.op));
                assert!(!grad.requires_grad(), "[{}] expected a rule that captures detached tensors", self.op);
                Some((input, grad))
            })
            .collect()
    }
}
