//! The buffers that a twin is given.

use half::{bf16, f16};

use crate::dtype::DType;
use crate::real::Real;

/// The elements of one buffer, as a twin reads them.
#[derive(Clone, Copy)]
pub enum Data<'a, R> {
    /// A tensor of f32 (of f64 on the reference device).
    Real(&'a [R]),
    /// Half precision.
    F16(&'a [f16]),
    /// bfloat16.
    BF16(&'a [bf16]),
    /// Integers.
    U32(&'a [u32]),
}

/// The elements of one buffer, as a twin writes them.
pub enum DataMut<'a, R> {
    /// A tensor of f32 (of f64 on the reference device).
    Real(&'a mut [R]),
    /// Half precision.
    F16(&'a mut [f16]),
    /// bfloat16.
    BF16(&'a mut [bf16]),
    /// Integers.
    U32(&'a mut [u32]),
}

enum Slot<'a, R> {
    Input(Data<'a, R>),
    Output(DataMut<'a, R>),
    Taken,
}

/// A twin's buffers, by binding.
pub struct Io<'a, R> {
    kernel: &'static str,
    slots: Vec<Slot<'a, R>>,
}

impl<'a, R: Real> Io<'a, R> {
    pub(crate) fn new(kernel: &'static str) -> Self {
        Io { kernel, slots: Vec::with_capacity(8) }
    }

    /// The next binding is this input.
    pub(crate) fn push(&mut self, input: &'a [R]) {
        self.slots.push(Slot::Input(Data::Real(input)));
    }

    /// The next binding is this output.
    pub(crate) fn push_mut(&mut self, output: &'a mut [R]) {
        self.slots.push(Slot::Output(DataMut::Real(output)));
    }

    pub(crate) fn input(&mut self, dtype: DType, bytes: &'a [u8]) {
        self.slots.push(Slot::Input(match dtype {
            DType::F32 => Data::Real(bytemuck::cast_slice(bytes)),
            DType::F16 => Data::F16(bytemuck::cast_slice(bytes)),
            DType::BF16 => Data::BF16(bytemuck::cast_slice(bytes)),
            DType::U32 => Data::U32(bytemuck::cast_slice(bytes)),
        }));
    }

    pub(crate) fn output(&mut self, dtype: DType, bytes: &'a mut [u8]) {
        self.slots.push(Slot::Output(match dtype {
            DType::F32 => DataMut::Real(bytemuck::cast_slice_mut(bytes)),
            DType::F16 => DataMut::F16(bytemuck::cast_slice_mut(bytes)),
            DType::BF16 => DataMut::BF16(bytemuck::cast_slice_mut(bytes)),
            DType::U32 => DataMut::U32(bytemuck::cast_slice_mut(bytes)),
        }));
    }

    /// The input at a binding, whatever its type.
    pub fn data(&self, binding: usize) -> Data<'a, R> {
        match self.slots[binding] {
            Slot::Input(data) => data,
            _ => panic!("[{}] expected binding {binding} to be an input", self.kernel),
        }
    }

    /// The f32 input at a binding.
    pub fn real(&self, binding: usize) -> &'a [R] {
        match self.data(binding) {
            Data::Real(data) => data,
            _ => panic!("[{}] expected binding {binding} to hold f32", self.kernel),
        }
    }

    /// The u32 input at a binding.
    pub fn u32(&self, binding: usize) -> &'a [u32] {
        match self.data(binding) {
            Data::U32(data) => data,
            _ => panic!("[{}] expected binding {binding} to hold u32", self.kernel),
        }
    }

    /// The output at a binding, whatever its type; each can be had once.
    pub fn data_mut(&mut self, binding: usize) -> DataMut<'a, R> {
        match std::mem::replace(&mut self.slots[binding], Slot::Taken) {
            Slot::Output(data) => data,
            _ => panic!("[{}] expected binding {binding} to be an output that is still there", self.kernel),
        }
    }

    /// The f32 output at a binding; each can be had once.
    pub fn real_mut(&mut self, binding: usize) -> &'a mut [R] {
        match self.data_mut(binding) {
            DataMut::Real(data) => data,
            _ => panic!("[{}] expected binding {binding} to hold f32", self.kernel),
        }
    }

    /// The u32 output at a binding; each can be had once.
    pub fn u32_mut(&mut self, binding: usize) -> &'a mut [u32] {
        match self.data_mut(binding) {
            DataMut::U32(data) => data,
            _ => panic!("[{}] expected binding {binding} to hold u32", self.kernel),
        }
    }
}
