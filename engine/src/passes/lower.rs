//! Lowers what ops recorded, which is the same for every device, to what a GPU with these traits best runs.

use crate::buffer::BufferRef;
use crate::kernel::{Elementwise, Kept, Lowered, Lowering, Traits};
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
        let Lowering { steps, temporaries, .. } = lowering;
        let forgotten = kept.forget(changed(&command));
        if steps.is_empty() {
            match in_parts(&command, traits) {
                Some(parts) => out.extend(parts),
                None => out.push(command),
            }
        }
        out.extend(steps.into_iter().map(|step| match step {
            Lowered::Dispatch(kernel, params, buffers) => Command::Dispatch { kernel, params, buffers },
            Lowered::Free(buffer) => Command::Free { buffer },
        }));
        out.extend(temporaries.into_iter().chain(forgotten).map(|buffer| Command::Free { buffer }));
    }
    out.extend(kept.forget_passing().map(|buffer| Command::Free { buffer }));
    Recording { commands: out }
}

/// What goes through its buffers element by element, of which there are more than a kernel can be given at once, as dispatches over
/// some of them each.
fn in_parts(command: &Command, traits: &Traits) -> Option<Vec<Command>> {
    let Command::Dispatch { kernel, params, buffers } = command else { return None };
    let elementwise = kernel.elementwise.as_ref()?;
    let elements = (elementwise.elements)(bytemuck::cast_slice(params))?;
    let is_cut = |buffer: &&BufferRef| buffer.elements == elements;
    let bytes = buffers.iter().filter(is_cut).map(|buffer| buffer.dtype.size()).max()?;
    let at_once = traits.in_binding(elements, bytes, Elementwise::PART)?;
    let part = |first: usize| {
        let range = first..elements.min(first + at_once);
        let of = |buffer: &BufferRef| if is_cut(&buffer) { buffer.part(first, range.len()) } else { *buffer };
        let buffers = buffers.iter().map(of).collect();
        Command::Dispatch { kernel, params: (elementwise.part)(bytemuck::cast_slice(params), range.clone()), buffers }
    };
    Some((0..elements).step_by(at_once).map(part).collect())
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
    fn a_product_is_cut_where_a_gpu_would_be_idle_and_its_operands_are_halved_where_it_takes_f16() {
        let real = Traits { workgroup_memory: 32 << 10, ..Traits::default() };
        assert_eq!(names(&real, [4096, 4096, 4096]), ["matmul"; 3]);
        assert_eq!(names(&real, [64, 4096, 64]), ["matmul", "matmul_parts", "matmul", "matmul"]);
        assert_eq!(names(&Traits { software: true, ..real.clone() }, [64, 4096, 64]), ["matmul"; 3]);
        let halves = Traits { halves: Some(Halves::Matrices16), ..real };
        // Each operand once, for both products that it is one of.
        let of_operands = ["peaks", "halves", "peaks", "halves", "matmul", "peaks", "halves", "matmul", "matmul"];
        assert_eq!(names(&halves, [4096, 4096, 4096]), of_operands);
    }

    #[test]
    fn what_is_past_a_binding_is_run_in_parts_where_each_element_is_on_its_own() {
        let device = Device::cpu();
        let [x, other] = [1.0, 2.0].map(|value| device.tensor(&[value; 40_000], [200, 200]));
        let number = device.tensor(&[3.0], [1]);
        let held = [ops::add(&x, &other), ops::mul(&x, &number), ops::add(&x, &other.transpose())];
        let traits = Traits { binding: Some(100_000), ..Traits::default() };
        let lowered = lower(device.recorded(), &traits, &mut Kept::default(), || unreachable!("nothing is kept"));
        let of = |command: &Command| command.accesses().map(|(_, buffer)| [buffer.start, buffer.elements]).collect::<Vec<_>>();
        let dispatched: Vec<_> = lowered.commands.iter().filter(|command| command.is_dispatched()).map(of).collect();
        // 25,000 of f32 can be bound, in whole parts 16,384.
        let parts = [[0, 16_384], [16_384, 16_384], [32_768, 7_232]];
        assert_eq!(dispatched[..3], parts.map(|part| vec![part; 3]));
        assert_eq!(dispatched[3..6], parts.map(|part| vec![part, [0, 1], part]));
        assert_eq!(dispatched[6..], [vec![[0, 40_000]; 3]]);
        drop(held);
    }

    /// The names of what is lowered of what was recorded on this device, and how many buffers end.
    fn lowered(device: &Device, kept: &mut Kept, id: &mut u64) -> (Vec<&'static str>, usize) {
        let traits = Traits { halves: Some(Halves::Emulated), ..Traits::default() };
        let new_id = || {
            *id += 1;
            *id
        };
        let commands = lower(device.recorded(), &traits, kept, new_id).commands;
        device.flush().unwrap();
        let ended = commands.iter().filter(|command| matches!(command, Command::Free { .. })).count();
        (commands.iter().filter(|command| command.is_dispatched()).map(Command::name).collect(), ended)
    }

    #[test]
    fn what_was_found_of_an_operand_serves_until_that_is_written_or_ends() {
        let device = Device::cpu();
        let [a, b] = [[64, 64], [64, 64]].map(|shape| device.tensor(&[1.0; 64 * 64], shape));
        let (mut kept, mut id) = (Kept::default(), 1 << 63);
        let mut product = |weight: &Tensor| {
            let y = ops::matmul(&a, weight);
            let lowered = lowered(&device, &mut kept, &mut id);
            drop(y);
            lowered
        };
        // Halves, and what they were multiplied by, end with the recording, and the last product.
        assert_eq!(product(&b), (vec!["peaks", "halves", "peaks", "halves", "matmul"], 4));
        assert_eq!(product(&b), (vec!["halves", "halves", "matmul"], 5));
        b.replace(&[0; 4 * 64 * 64]);
        // The peaks of b end too.
        assert_eq!(product(&b), (vec!["halves", "peaks", "halves", "matmul"], 6));
        let c = ops::neg(&b);
        assert_eq!(product(&c), (vec!["unary", "halves", "peaks", "halves", "matmul"], 5));
        drop((b, c));
        assert_eq!(product(&a).1, 7);
    }

    #[test]
    fn the_halves_of_the_last_operands_are_kept() {
        let device = Device::cpu();
        let weights = [1.0, 2.0, 3.0, 4.0].map(|value| device.tensor(&[value; 64 * 64], [64, 64]));
        let x = device.tensor(&[1.0; 64 * 64], [64, 64]);
        let (mut kept, mut id) = (Kept::default(), 1 << 63);
        // Those of x, which each has asked for, and of the last three.
        let ys = [0, 1, 2, 3, 1, 3, 0].map(|at| ops::matmul(&x, &weights[at]));
        let (names, _) = lowered(&device, &mut kept, &mut id);
        assert_eq!(names.iter().filter(|name| **name == "halves").count(), 1 + 4 + 1);
        assert_eq!(names.iter().filter(|name| **name == "peaks").count(), 1 + 4);
        drop(ys);
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
