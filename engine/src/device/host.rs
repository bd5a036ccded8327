//! What comes back from devices.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::gpu;
use crate::buffer::BufferRef;
use crate::dtype::DType;
use crate::error::Result;

/// Elements that came back from a device.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum HostBuffer {
    F32(Vec<f32>),
    F64(Vec<f64>),
    F16(Vec<half::f16>),
    BF16(Vec<half::bf16>),
    U32(Vec<u32>),
}

/// Elements on their way from a device, as they were when it was told to bring them: a future, which nobody needs to hold for the
/// device to go on.
pub(crate) enum Reading {
    /// They are here, or will never be.
    Here(Option<Result<HostBuffer>>),
    /// A GPU brings them.
    Coming(DType, Box<gpu::Mapping>),
}

impl Reading {
    pub fn here(outcome: Result<HostBuffer>) -> Reading {
        Reading::Here(Some(outcome))
    }

    /// Waits for them.
    pub fn wait(self) -> Result<HostBuffer> {
        match self {
            Reading::Here(outcome) => outcome.expect("nobody took it yet"),
            Reading::Coming(dtype, mapping) => mapping.wait(|bytes| HostBuffer::of(dtype, bytes)),
        }
    }
}

impl Future for Reading {
    type Output = Result<HostBuffer>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Reading::Here(outcome) => Poll::Ready(outcome.take().expect("a future that is ready is not polled again")),
            Reading::Coming(dtype, mapping) => mapping.poll(context, |bytes| HostBuffer::of(*dtype, bytes)),
        }
    }
}

impl HostBuffer {
    /// Elements from their bytes, little-endian.
    pub fn of(dtype: DType, bytes: &[u8]) -> HostBuffer {
        match dtype {
            DType::F32 => HostBuffer::F32(bytemuck::pod_collect_to_vec(bytes)),
            DType::F16 => HostBuffer::F16(bytemuck::pod_collect_to_vec(bytes)),
            DType::BF16 => HostBuffer::BF16(bytemuck::pod_collect_to_vec(bytes)),
            DType::U32 => HostBuffer::U32(bytemuck::pod_collect_to_vec(bytes)),
        }
    }

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
