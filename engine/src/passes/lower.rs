//! Lowers what ops recorded, which is the same for every device, to what a GPU with these traits best runs.

use crate::buffer::BufferRef;
use crate::kernel::{Kept, Lowered, Lowering, Traits};
use crate::recording::{Command, Recording};

/// The recording with every dispatch that has something in its place ([`Kernel::lower`](crate::kernel::Kernel::lower)) replaced.
/// `new_id` names the buffers between, and `kept` is what was found in earlier recordings.
pub fn lower(recording: Recording, traits: &Traits, kept: &mut Kept, mut new_id: impl FnMut() -> u64) -> Recording {
    let mut out = Vec::with_capacity(recording.commands.len());
    for command in recording.commands {
        let mut lowering = Lowering::new(traits, &mut new_id, kept);
        if let Command::Dispatch { kernel, params, buffers } = &command {
            (kernel.lower)(bytemuck::cast_slice(params), buffers, &mut lowering);
        }
        let Lowering { dispatches, temporaries, .. } = lowering;
        let forgotten: Vec<BufferRef> = kept.forget(changed(&command)).collect();
        if dispatches.is_empty() {
            out.push(command);
        }
        let dispatch = |Lowered { kernel, params, buffers }| Command::Dispatch { kernel, params, buffers };
        out.extend(dispatches.into_iter().map(dispatch));
        out.extend(temporaries.into_iter().chain(forgotten).map(|buffer| Command::Free { buffer }));
    }
    Recording { commands: out }
}

/// What a command writes or ends.
fn changed(command: &Command) -> impl Iterator<Item = u64> {
    let ended = if let Command::Free { buffer } = command { Some(*buffer) } else { None };
    command.writes().chain(ended).map(|buffer| buffer.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Halves;
    use crate::{Device, Tensor, ops};

    /// The names of what is dispatched for a product of these sizes whose gradient is taken.
    fn names(traits: &Traits, [m, k, n]: [usize; 3]) -> Vec<&'static str> {
        let device = Device::cpu();
        let [a, b] = [[m, k], [k, n]].map(|shape| device.empty(shape, crate::DType::F32));
        let y = ops::matmul(&a.requiring_grad(), &b.requiring_grad());
        let held = y.backward_from(&device.empty([m, n], crate::DType::F32));
        let mut id = 1 << 63;
        let new_id = || {
            id += 1;
            id
        };
        let lowered = lower(device.recorded(), traits, &mut Kept::default(), new_id);
        drop((held, y));
        lowered.commands.iter().filter(|command| matches!(command, Command::Dispatch { .. })).map(Command::name).collect()
    }

    #[test]
    fn a_product_is_cut_where_a_gpu_would_be_idle_and_its_gradient_weighed_where_it_is_rounded() {
        let real = Traits { workgroup_memory: 32 << 10, ..Traits::default() };
        assert_eq!(names(&real, [4096, 4096, 4096]), ["matmul"; 3]);
        assert_eq!(names(&real, [64, 4096, 64]), ["matmul", "matmul_parts", "matmul", "matmul"]);
        assert_eq!(names(&Traits { software: true, ..real.clone() }, [64, 4096, 64]), ["matmul"; 3]);
        let halves = Traits { halves: Some(Halves::Matrices16), ..real };
        // Each operand once, for both products that it is one of.
        let of_operands = ["full", "peak", "full", "peak", "matmul", "full", "peak", "matmul", "matmul"];
        assert_eq!(names(&halves, [4096, 4096, 4096]), of_operands);
    }

    #[test]
    fn what_was_found_of_an_operand_serves_until_that_is_written_or_ends() {
        let device = Device::cpu();
        let [a, b] = [[64, 64], [64, 64]].map(|shape| device.tensor(&[1.0; 64 * 64], shape));
        let traits = Traits { halves: Some(Halves::Emulated), ..Traits::default() };
        let (mut kept, mut id) = (Kept::default(), 1 << 63);
        let mut dispatches = |weight: &Tensor| {
            let y = ops::matmul(&a, weight);
            let lowered = lower(device.recorded(), &traits, &mut kept, || {
                id += 1;
                id
            });
            device.flush().unwrap();
            drop(y);
            (lowered.dispatches(), lowered.commands.iter().filter(|command| matches!(command, Command::Free { .. })).count())
        };
        assert_eq!(dispatches(&b), (5, 0));
        assert_eq!(dispatches(&b).0, 1);
        b.replace(&[0; 4 * 64 * 64]);
        // What was found of b ends, and the last product.
        assert_eq!(dispatches(&b), (3, 2));
        let c = ops::neg(&b);
        assert_eq!(dispatches(&c).0, 4);
        drop((b, c));
        assert_eq!(dispatches(&a).1, 5);
    }

    #[test]
    fn the_gradients_of_few_keys_are_summed_over_parts_of_many_queries() {
        let device = Device::cpu();
        let [q, k] = [[1, 256, 4, 8], [1, 64, 1, 8]].map(|shape| device.empty(shape, crate::DType::F32));
        let y = ops::attention(&q, &k.requiring_grad(), &k, &ops::Mask::default());
        let held = y.backward_from(&q);
        let mut id = 1 << 63;
        let lowered = lower(device.recorded(), &Traits::default(), &mut Kept::default(), || {
            id += 1;
            id
        });
        let names = lowered.commands.iter().filter(|command| command.is_dispatched()).map(Command::name);
        let expected = ["attention", "attention_statistics", "attention_key_value_grad", "matmul_parts", "matmul_parts"];
        assert_eq!(names.collect::<Vec<_>>(), expected);
        drop((held, y));
    }

    #[test]
    fn few_queries_over_many_keys_are_joined_from_parts() {
        let device = Device::cpu();
        let [q, k] = [[1, 1, 2, 8], [1, 4096, 2, 8]].map(|shape| device.empty(shape, crate::DType::F32));
        let y: Tensor = ops::attention(&q, &k, &k, &ops::Mask::default());
        let recorded = device.recorded();
        let lowered = lower(recorded.clone(), &Traits::default(), &mut Kept::default(), || 1 << 63);
        assert_eq!(recorded.dispatches(), 1);
        assert_eq!(lowered.dispatches(), 2);
        drop(y);
    }
}
