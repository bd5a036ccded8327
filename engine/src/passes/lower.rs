//! Lowers what ops recorded, which is the same for every device, to what a GPU with these traits best runs.

use crate::buffer::BufferRef;
use crate::kernel::{Kept, Lowered, Lowering, Traits};
use crate::recording::{Command, Recording};

/// The recording with every dispatch that has something in its place ([`Kernel::lower`](crate::kernel::Kernel::lower)) replaced.
/// `new_id` names the buffers between.
pub fn lower(recording: Recording, traits: &Traits, mut new_id: impl FnMut() -> u64) -> Recording {
    let mut out = Vec::with_capacity(recording.commands.len());
    let mut kept = Kept::default();
    for command in recording.commands {
        out.extend(kept.forget(changed(&command)).into_iter().map(free));
        let Command::Dispatch { kernel, params, buffers } = &command else {
            out.push(command);
            continue;
        };
        let mut lowering = Lowering::new(traits, &mut new_id, &mut kept);
        (kernel.lower)(bytemuck::cast_slice(params), buffers, &mut lowering);
        let Lowering { dispatches, temporaries, .. } = lowering;
        if dispatches.is_empty() {
            out.push(command);
            continue;
        }
        let dispatch = |Lowered { kernel, params, buffers }| Command::Dispatch { kernel, params, buffers };
        out.extend(dispatches.into_iter().map(dispatch));
        out.extend(temporaries.into_iter().chain(kept.forget(changed(&command))).map(free));
    }
    out.extend(kept.forget_all().map(free));
    Recording { commands: out }
}

/// What a command writes or ends.
fn changed(command: &Command) -> impl Iterator<Item = u64> {
    let ended = if let Command::Free { buffer } = command { Some(*buffer) } else { None };
    command.writes().chain(ended).map(|buffer| buffer.id)
}

fn free(buffer: BufferRef) -> Command {
    Command::Free { buffer }
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
        let lowered = lower(device.recorded(), traits, new_id);
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
        // Once for both products that it is an operand of.
        assert_eq!(names(&halves, [4096, 4096, 4096]), ["matmul", "full", "peak", "matmul", "matmul"]);
    }

    #[test]
    fn few_queries_over_many_keys_are_joined_from_parts() {
        let device = Device::cpu();
        let [q, k] = [[1, 1, 2, 8], [1, 4096, 2, 8]].map(|shape| device.empty(shape, crate::DType::F32));
        let y: Tensor = ops::attention(&q, &k, &k, &ops::Mask::default());
        let recorded = device.recorded();
        let lowered = lower(recorded.clone(), &Traits::default(), || 1 << 63);
        assert_eq!(recorded.dispatches(), 1);
        assert_eq!(lowered.dispatches(), 2);
        drop(y);
    }
}
