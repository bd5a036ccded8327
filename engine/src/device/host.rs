//! What comes back from devices.

use crate::buffer::BufferRef;
use crate::dtype::DType;

/// Elements that came back from a device.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum HostBuffer {
    F32(Vec<f32>),
    F64(Vec<f64>),
    F16(Vec<half::f16>),
    BF16(Vec<half::bf16>),
    U32(Vec<u32>),
}

impl HostBuffer {
    /// As many zeros as a buffer has elements.
    pub fn zeros(like: &BufferRef) -> HostBuffer {
        match like.dtype {
            DType::F32 => HostBuffer::F32(vec![0.0; like.elements]),
            DType::F16 => HostBuffer::F16(vec![half::f16::ZERO; like.elements]),
            DType::BF16 => HostBuffer::BF16(vec![half::bf16::ZERO; like.elements]),
            DType::U32 => HostBuffer::U32(vec![0; like.elements]),
        }
    }
}
