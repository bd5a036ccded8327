//! Reverse-mode automatic differentiation.
//!
//! Every op hangs a `Node` on its output: which nodes its inputs have, and a rule that turns the gradient with respect to the
//! output into the gradients with respect to the inputs. [`Tensor::backward`] starts at a scalar and applies the rules in the
//! reverse order of recording, which is an order in which every node comes after all that use it. A rule calls ordinary ops, so
//! a gradient is more recorded commands; each rule is dropped once applied, and with it the tensors it kept.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::buffer::BufferRef;
use crate::dtype::DType;
use crate::ops;
use crate::tensor::{Node, Rule, Run, Tensor};

/// The gradients that a backward pass left, by the node of each leaf.
#[derive(Default)]
pub struct Gradients {
    by_node: HashMap<u64, Tensor>,
}

impl Gradients {
    /// The gradient with respect to a leaf; `None` if the loss does not depend on it.
    pub fn get(&self, leaf: &Tensor) -> Option<&Tensor> {
        self.by_node.get(&leaf.node()?.id)
    }

    /// Adds another pass's gradients to these, leaf by leaf, and those that lie together at once.
    pub fn accumulate(&mut self, other: Gradients) {
        let (both, new): (Vec<_>, Vec<_>) = other.by_node.into_iter().partition(|(leaf, _)| self.by_node.contains_key(leaf));
        self.by_node.extend(new);
        let (leaves, grads): (Vec<u64>, Vec<Tensor>) = both.into_iter().unzip();
        let before: Vec<Tensor> = leaves.iter().filter_map(|leaf| self.by_node.remove(leaf)).collect();
        let [before, grads] = [&before, &grads].map(|tensors| tensors.iter().collect::<Vec<_>>());
        for Run { members, joined: [before, new] } in Tensor::runs([&before, &grads], |_, _| true) {
            let sum = ops::add(&before, &new);
            let mut start = 0;
            for at in members {
                self.by_node.insert(leaves[at], sum.cut(start, grads[at].shape()));
                start += grads[at].elements();
            }
        }
    }
}

/// Where the gradients of leaves that lie in a larger buffer are gathered: in one that is laid out as theirs.
#[derive(Default)]
struct Gathered {
    larger: HashMap<u64, Tensor>,
    taken: HashSet<BufferRef>,
}

impl Gathered {
    /// Moves a leaf's gradient there, if the leaf lies so.
    fn take(&mut self, leaf: &Tensor, grad: Tensor) -> Tensor {
        // Of several leaves in one place the first has it.
        let Some(home) = leaf.home().filter(|home| self.taken.insert(*home)) else { return grad };
        let larger = self.larger.entry(home.id).or_insert_with(|| leaf.device().empty([home.whole], DType::F32));
        // One that two leaves share moves once; the other leaf gets a copy.
        let grad = if grad.home().is_some() { ops::copy(&grad) } else { grad.whole() };
        grad.move_into(larger, home.start);
        grad
    }
}

impl Tensor {
    /// The gradients of this scalar with respect to the leaves it was computed from. Frees the tape behind it.
    ///
    /// # Panics
    /// If it is no scalar, or nothing it was computed from requires a gradient.
    #[track_caller]
    pub fn backward(&self) -> Gradients {
        assert!(self.elements() == 1, "[backward] expected a scalar, got {:?}", self.shape());
        self.backward_from(&ops::full(self.device(), 1.0, self.shape()))
    }

    /// [`backward`](Self::backward) of `sum(self * grad)`: for an output of any shape whose gradient is known.
    #[track_caller]
    pub fn backward_from(&self, grad: &Tensor) -> Gradients {
        let mut gathered = Gathered::default();
        self.walk_back(grad, 0, |leaf, grad| gathered.take(leaf, grad))
    }

    /// Walks the part of the tape that was recorded after `begin`. `done` gets every leaf whose gradient is complete, and returns
    /// the gradient.
    #[track_caller]
    fn walk_back(&self, grad: &Tensor, begin: u64, mut done: impl FnMut(&Tensor, Tensor) -> Tensor) -> Gradients {
        let Some(root) = self.node() else { panic!("[backward] expected a tensor that requires a gradient, got {self:?}") };
        assert!(grad.shape() == self.shape(), "[backward] expected a gradient of {:?}, got {:?}", self.shape(), grad.shape());
        let mut gradients = Gradients::default();
        let mut uses = Uses::of(root, begin);
        let mut waiting = BTreeMap::new();
        let mut arrived = vec![(root.clone(), grad.detach())];
        loop {
            for (node, grad) in arrived {
                let sum = match waiting.remove(&node.id) {
                    Some((_, before)) => ops::add(&before, &grad),
                    None => grad,
                };
                if uses.was_last(&node) {
                    let grad = match &node.leaf {
                        Some(leaf) => done(leaf, sum),
                        None => sum,
                    };
                    gradients.by_node.insert(node.id, grad);
                } else {
                    waiting.insert(node.id, (node, sum));
                }
            }
            let Some((_, (node, grad))) = waiting.pop_last() else { return gradients };
            let Some(history) = node.take_history() else { panic!("[backward] expected a tape that was not yet walked") };
            arrived = grad.device().apply(history.op, node.id, || history.apply(&grad));
        }
    }
}

/// `block(x)`, keeping nothing of what happens inside: the backward pass computes it again (Chen et al. 2016,
/// arXiv:1604.06174). The block must give the same result when called again. What it uses beside x, leaves and results of other
/// ops alike, gets its gradient as always.
pub fn checkpoint(x: &Tensor, block: impl Fn(&Tensor) -> Tensor + Send + 'static) -> Tensor {
    let begin = x.device().next_id();
    let first = block(x);
    let Some(root) = first.node().filter(|root| root.id > begin) else { return first };
    // The outer tape sees one node, whose inputs are all that was there before the block. Dropping `first`'s own node here frees
    // what the block kept.
    let ends = Uses::of(root, begin).ends.into_values().map(|(end, _)| end);
    let inputs: Vec<Arc<Node>> = ends.filter(|end| end.id < begin).collect();
    let (x, output, wanted) = (x.clone(), first.detach(), inputs.iter().map(|input| input.id).collect::<Vec<_>>());
    let rule: Rule = Box::new(move |grad| {
        let begin = grad.device().next_id();
        let mut gradients = block(&x).walk_back(grad, begin, |_, grad| grad);
        wanted.iter().map(|input| gradients.by_node.remove(input)).collect()
    });
    let node = Node::new(output.device(), "checkpoint", output.shape(), inputs.into_iter().map(Some).collect(), rule);
    output.on_node(node)
}

/// The nodes at which a walk ends, in the order in which they were made, and how many gradients each is still to get: leaves, and
/// what was there before the walked part of the tape began.
struct Uses {
    ends: BTreeMap<u64, (Arc<Node>, usize)>,
}

impl Uses {
    fn of(root: &Arc<Node>, begin: u64) -> Uses {
        let mut uses = Uses { ends: BTreeMap::new() };
        let (mut seen, mut stack) = (HashSet::new(), Vec::new());
        let mut arrive = |node: &Arc<Node>, stack: &mut Vec<Arc<Node>>| {
            if node.leaf.is_some() || node.id < begin {
                uses.ends.entry(node.id).or_insert_with(|| (node.clone(), 0)).1 += 1;
            } else if seen.insert(node.id) {
                stack.push(node.clone());
            }
        };
        arrive(root, &mut stack);
        while let Some(node) = stack.pop() {
            if let Some(history) = &*node.history.lock().expect("no rule panics while it is taken") {
                history.inputs.iter().flatten().for_each(|input| arrive(input, &mut stack));
            }
        }
        uses
    }

    /// Whether the gradient that a node has just got is all that it gets here.
    fn was_last(&mut self, node: &Node) -> bool {
        let Some((_, left)) = self.ends.get_mut(&node.id) else { return false };
        *left -= 1;
        *left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn a_tensor_used_twice_gets_both_gradients() {
        let device = Device::reference();
        let x = device.tensor(&[3.0], [1]).requiring_grad();
        let y = ops::add(&ops::mul(&x, &x), &x);
        assert_eq!(y.backward().get(&x).unwrap().to_vec().unwrap(), [7.0]);
    }

    #[test]
    fn a_checkpointed_block_has_the_same_gradients_and_keeps_only_its_input() {
        let device = Device::cpu();
        let x = device.tensor(&[0.3; 1000], [1000]).requiring_grad();
        let weight = device.tensor(&[0.7; 1000], [1000]).requiring_grad();
        let block = {
            let weight = weight.clone();
            move |x: &Tensor| (0..10).fold(x.clone(), |y, _| ops::tanh(&ops::mul(&y, &weight)))
        };
        let gradients = |output: Tensor| {
            device.reset_peak();
            let loss = ops::sum(&output);
            device.flush().unwrap();
            let held = device.memory().in_use;
            let gradients = loss.backward();
            let values = [&x, &weight].map(|leaf| gradients.get(leaf).unwrap().to_vec().unwrap());
            (values, held)
        };
        let (plain, plain_held) = gradients(block(&x));
        let (again, again_held) = gradients(checkpoint(&x, block));
        assert_eq!(plain, again);
        assert!(again_held < plain_held / 4, "held {again_held} bytes, without checkpointing {plain_held}");
    }

    #[test]
    fn what_two_checkpointed_blocks_use_of_the_tape_gets_the_gradients_of_both() {
        let device = Device::reference();
        let leaf = |value: f32| device.tensor(&[value; 3], [3]).requiring_grad();
        let (x, source) = (leaf(0.3), leaf(0.8));
        let gradients = |recompute: bool| {
            let encoded = ops::tanh(&source);
            let block = |encoded: &Tensor| {
                let encoded = encoded.clone();
                move |y: &Tensor| ops::mul(&ops::exp(&encoded), &ops::tanh(&ops::mul(y, &encoded)))
            };
            let apply = |y: &Tensor| if recompute { checkpoint(y, block(&encoded)) } else { block(&encoded)(y) };
            // The second time the block's own input is what it captures.
            let gradients = ops::sum(&ops::add(&apply(&apply(&x)), &apply(&encoded))).backward();
            [&x, &source].map(|leaf| gradients.get(leaf).unwrap().to_vec_f64().unwrap())
        };
        assert_eq!(gradients(true), gradients(false));
    }

    #[test]
    fn a_long_tape_that_is_never_walked_is_dropped_on_a_small_stack() {
        let mut x = Device::cpu().tensor(&[1.0], [1]).requiring_grad();
        for _ in 0..1_000_000 {
            x = x.reshape([1]);
        }
        let dropping = std::thread::Builder::new().stack_size(256 * 1024).spawn(move || drop(x));
        dropping.unwrap().join().unwrap();
    }

    /// The gradient of `of(w)` after w was updated in place.
    fn gradient_after_an_update(of: impl Fn(&Tensor) -> Tensor) -> Vec<f32> {
        let device = Device::cpu();
        let w = device.tensor(&[3.0; 4], [1, 4]).requiring_grad();
        let y = ops::sum(&of(&w));
        let pages = ops::Pages { table: device.tensor_u32(&[0], [1, 1]), lengths: device.tensor_u32(&[1], [1]) };
        ops::write_pages(&w.detach().reshape([1, 1, 4]), &device.tensor(&[5.0; 4], [1, 1, 4]), &pages);
        y.backward().get(&w).unwrap().to_vec().unwrap()
    }

    #[test]
    #[should_panic(expected = "[mul] expected what its gradient needs as it was, and [write_pages] has written into it since")]
    fn what_a_gradient_needs_is_not_written_before() {
        gradient_after_an_update(|w| ops::mul(w, w));
    }

    #[test]
    #[should_panic(expected = "[checkpoint] expected what its gradient needs as it was, and [write_pages]")]
    fn what_a_block_computes_again_is_not_written_before() {
        gradient_after_an_update(|w| {
            let inside = w.clone();
            checkpoint(w, move |w| ops::mul(w, &inside))
        });
    }

    #[test]
    fn what_no_gradient_needs_may_be_written_before() {
        assert_eq!(gradient_after_an_update(|w| ops::add(w, w)), [2.0; 4]);
    }

    #[test]
    #[should_panic(expected = "[backward] expected a tape that was not yet walked")]
    fn a_tape_is_walked_once() {
        let x = Device::cpu().tensor(&[1.0], [1]).requiring_grad();
        let y = ops::exp(&x);
        y.backward();
        y.backward();
    }
}
