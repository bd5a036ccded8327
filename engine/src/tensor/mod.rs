//! Tensors: a shape, a type, a buffer on a device and, where a gradient is wanted, a place on the tape.

mod indices;
mod node;
mod parts;

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::buffer::BufferRef;
use crate::device::{Device, HostBuffer, Reading};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{AnyKernel, Kernel, words};
use crate::recording::Payload;
use crate::shape::{Layout, Shape};
use indices::Bound;

pub(crate) use node::{Node, Rule};
pub(crate) use parts::Run;

/// An array of numbers on a device. Cheap to clone: clones share the buffer.
#[derive(Clone)]
pub struct Tensor {
    buffer: Arc<Buffer>,
    layout: Layout,
    node: Option<Arc<Node>>,
}

/// A handle on device memory; the last one frees it.
struct Buffer {
    reference: BufferRef,
    device: Device,
    /// Of its elements, if they are u32.
    bound: Bound,
    /// The buffer that it is a part of.
    whole: Option<Arc<Buffer>>,
    /// The part of another buffer that its elements were moved to.
    moved: OnceLock<Arc<Buffer>>,
}

impl Buffer {
    fn new(device: &Device, dtype: DType, elements: usize, bound: Bound) -> Arc<Buffer> {
        let reference = BufferRef::new(device.next_id(), dtype, elements);
        Arc::new(Buffer { reference, device: device.clone(), bound, whole: None, moved: OnceLock::new() })
    }

    /// Part of this, which stays as long as the part does.
    fn part(self: &Arc<Buffer>, start: usize, elements: usize) -> Arc<Buffer> {
        let whole = self.whole.as_ref().unwrap_or(self);
        let reference = BufferRef { start, elements, ..whole.reference };
        let (device, bound) = (self.device.clone(), self.bound);
        Arc::new(Buffer { reference, device, bound, whole: Some(whole.clone()), moved: OnceLock::new() })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.whole.is_none() && self.moved.get().is_none() {
            self.device.record_free(self.reference);
        }
    }
}

/// Makes tensors.
impl Device {
    /// A tensor of f32 with these elements in row-major order.
    ///
    /// # Panics
    /// If their number is not that of the shape.
    #[track_caller]
    pub fn tensor(&self, elements: &[f32], shape: impl Into<Shape>) -> Tensor {
        self.tensor_of_bytes(Arc::new(bytemuck::cast_slice::<f32, u8>(elements).to_vec()), DType::F32, shape)
    }

    /// A tensor of u32.
    #[track_caller]
    pub fn tensor_u32(&self, elements: &[u32], shape: impl Into<Shape>) -> Tensor {
        self.tensor_of_bytes(Arc::new(bytemuck::cast_slice::<u32, u8>(elements).to_vec()), DType::U32, shape)
    }

    /// A tensor whose elements are little-endian bytes, which may still lie in a mapped file.
    #[track_caller]
    pub fn tensor_of_bytes(&self, bytes: Payload, dtype: DType, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let got = (*bytes).as_ref().len();
        assert!(
            got == shape.elements() * dtype.size(),
            "[tensor] expected {} {dtype} for {shape:?}, got {got} bytes",
            shape.elements()
        );
        let bound = if dtype == DType::U32 { Bound::of((*bytes).as_ref()) } else { Bound::default() };
        let tensor = self.bounded(shape, dtype, bound);
        self.record_upload(tensor.reference(), bytes);
        tensor
    }

    /// A tensor of numbers that a kernel is about to write.
    pub(crate) fn empty(&self, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        assert!(dtype != DType::U32, "[empty] expected a floating-point type, got u32, of which a bound is to be known");
        self.bounded(shape, dtype, Bound::default())
    }

    /// A tensor of indices below a bound that a kernel is about to write.
    pub(crate) fn empty_indices(&self, shape: impl Into<Shape>, below: usize) -> Tensor {
        self.bounded(shape, DType::U32, Bound::below(below))
    }

    fn bounded(&self, shape: impl Into<Shape>, dtype: DType, bound: Bound) -> Tensor {
        let layout = Layout::contiguous(shape.into());
        Tensor { buffer: Buffer::new(self, dtype, layout.shape.elements(), bound), layout, node: None }
    }
}

impl Tensor {
    /// The sizes of its axes.
    pub fn shape(&self) -> Shape {
        self.layout.shape
    }

    /// The size of one axis.
    #[track_caller]
    pub fn size(&self, axis: usize) -> usize {
        self.layout.shape[axis]
    }

    /// The size of the last axis; 1 for a scalar.
    pub fn last_size(&self) -> usize {
        self.layout.shape.last().copied().unwrap_or(1)
    }

    /// How many axes it has.
    pub fn rank(&self) -> usize {
        self.layout.shape.len()
    }

    /// How many elements it has.
    pub fn elements(&self) -> usize {
        self.layout.shape.elements()
    }

    /// How it lies in its buffer.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The type of its elements.
    pub fn dtype(&self) -> DType {
        self.reference().dtype
    }

    /// Where it lives.
    pub fn device(&self) -> &Device {
        &self.buffer.device
    }

    /// Whether a gradient will flow into it.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }

    /// The same elements as a leaf of the tape: `backward` will have a gradient for it.
    pub fn requiring_grad(&self) -> Tensor {
        assert!(self.dtype() == DType::F32, "[requiring_grad] expected f32, got {}", self.dtype());
        Tensor { node: Some(Node::leaf(self)), ..self.detach() }
    }

    /// The same elements, off the tape: no gradient flows through.
    pub fn detach(&self) -> Tensor {
        Tensor { node: None, ..self.clone() }
    }

    /// A tensor that a kernel is about to write, of another type, lying as this one does.
    pub(crate) fn like_in(&self, dtype: DType) -> Tensor {
        Tensor { layout: self.layout, ..self.device().empty([self.buffer_elements()], dtype) }
    }

    /// A tensor of its shape that a kernel is about to fill with its elements.
    pub(crate) fn empty_like(&self) -> Tensor {
        self.device().bounded(self.shape(), self.dtype(), self.buffer.bound)
    }

    /// How many elements its buffer holds: more than its own, where it is a view of a part.
    pub(crate) fn buffer_elements(&self) -> usize {
        self.reference().elements
    }

    /// Its elements in row-major order, read back to the host (f16 and bf16 widened).
    ///
    /// # Errors
    /// Whatever the device met since the last read.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        self.reading().wait().map(floats)
    }

    /// What [`to_vec`](Self::to_vec) gives, as a future: the elements as they are now, whatever is recorded before they are here.
    ///
    /// # Errors
    /// Whatever the device met since the last read.
    pub fn read(&self) -> impl Future<Output = Result<Vec<f32>>> + Send + use<> {
        let reading = self.reading();
        async { reading.await.map(floats) }
    }

    /// [`to_vec`](Self::to_vec) with all digits of the reference device.
    pub fn to_vec_f64(&self) -> Result<Vec<f64>> {
        Ok(match self.reading().wait()? {
            HostBuffer::F64(values) => values,
            other => floats(other).into_iter().map(f64::from).collect(),
        })
    }

    /// The elements of a u32 tensor.
    pub fn to_vec_u32(&self) -> Result<Vec<u32>> {
        match self.reading().wait()? {
            HostBuffer::U32(values) => Ok(values),
            _ => panic!("[to_vec_u32] expected u32, got {}", self.dtype()),
        }
    }

    /// Puts other numbers (little-endian, as stored) into its buffer, in place: how a checkpoint is read.
    #[track_caller]
    pub fn replace(&self, bytes: &[u8]) {
        assert!(self.dtype() != DType::U32, "[replace] expected a floating-point tensor, got u32, whose bound would change");
        assert!(self.layout == Layout::contiguous(self.shape()), "[replace] expected a tensor that fills its buffer, got a view");
        self.device().record_replacement(self.reference(), Arc::new(bytes.to_vec()));
    }

    /// Its elements as stored, little-endian, for a file. On the reference device f32 is rounded from f64.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(match self.reading().wait()? {
            HostBuffer::F32(values) => bytemuck::cast_slice(&values).to_vec(),
            HostBuffer::F64(values) => values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect(),
            HostBuffer::F16(values) => bytemuck::cast_slice(&values).to_vec(),
            HostBuffer::BF16(values) => bytemuck::cast_slice(&values).to_vec(),
            HostBuffer::U32(values) => bytemuck::cast_slice(&values).to_vec(),
        })
    }

    /// The one element of a tensor that has one.
    #[track_caller]
    pub fn item(&self) -> Result<f32> {
        assert!(self.elements() == 1, "[item] expected one element, got {:?}", self.shape());
        Ok(self.to_vec()?[0])
    }

    fn reading(&self) -> Reading {
        let whole = self.detach().whole();
        whole.device().download(whole.reference())
    }

    /// Whether it fills its buffer in row-major order.
    pub fn is_whole(&self) -> bool {
        self.layout == Layout::contiguous(self.shape()) && self.elements() == self.buffer_elements()
    }

    /// The same elements laid out otherwise, by `op`; `back` turns a gradient of the view into one of this.
    pub(crate) fn viewed(
        &self,
        op: &'static str,
        layout: Layout,
        back: impl FnOnce(&Tensor) -> Tensor + Send + 'static,
    ) -> Tensor {
        let view = Tensor { layout, ..self.detach() };
        view.with_rule(op, [self], |grad, _| [Some(back(grad))])
    }

    /// Puts this output on the tape, if one of the inputs it was computed from is there. `rule` gets the gradient with respect
    /// to the output, of its shape, and which inputs want one; it returns the gradients with respect to those, of their
    /// shapes. What it captures must be detached: it would keep the whole tape alive otherwise.
    pub fn with_rule<const N: usize>(
        self,
        op: &'static str,
        inputs: [&Tensor; N],
        rule: impl FnOnce(&Tensor, [bool; N]) -> [Option<Tensor>; N] + Send + 'static,
    ) -> Tensor {
        let wanted = inputs.map(Tensor::requires_grad);
        if !wanted.contains(&true) {
            return self;
        }
        let nodes = inputs.iter().map(|input| input.node.clone()).collect();
        let node = Node::new(self.device(), op, self.shape(), nodes, Box::new(move |grad| rule(grad, wanted).into()));
        Tensor { node: Some(node), ..self }
    }

    /// Where its elements are now.
    fn place(&self) -> &Arc<Buffer> {
        self.buffer.moved.get().unwrap_or(&self.buffer)
    }

    fn reference(&self) -> BufferRef {
        self.place().reference
    }

    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    pub(crate) fn on_node(self, node: Arc<Node>) -> Tensor {
        Tensor { node: Some(node), ..self }
    }
}

/// What came back, as f32 where it is floating-point.
fn floats(elements: HostBuffer) -> Vec<f32> {
    match elements {
        HostBuffer::F32(values) => values,
        HostBuffer::F64(values) => values.into_iter().map(|value| value as f32).collect(),
        HostBuffer::F16(values) => values.into_iter().map(|value| value.to_f32()).collect(),
        HostBuffer::BF16(values) => values.into_iter().map(|value| value.to_f32()).collect(),
        HostBuffer::U32(_) => panic!("[to_vec] expected a floating-point tensor, got u32"),
    }
}

/// Records a dispatch of kernel `K` on these tensors, in the order of its bindings. Kernels see whole buffers: where a view's
/// strides or offset matter, they are among the parameters. Where an index may be out of range nothing runs: the next flush or read
/// is an error, and so is whatever reads what would have been written.
#[track_caller]
pub fn dispatch<K: Kernel>(params: K::Params, tensors: &[&Tensor]) {
    let device = tensors[0].device();
    assert!(
        tensors.iter().all(|tensor| tensor.device().same_as(device)),
        "[{}] expected tensors of one device, got {:?}",
        K::NAME,
        tensors.iter().map(|tensor| tensor.device()).collect::<Vec<_>>()
    );
    let buffers: Vec<BufferRef> = tensors.iter().map(|tensor| tensor.reference()).collect();
    let out_of_range = K::indices(&params).and_then(|indices| tensors[indices.binding].out_of_range(K::NAME, &indices));
    match out_of_range {
        None => device.record_dispatch(AnyKernel::of::<K>(), words(&params), buffers),
        Some(error) => device.record_refused(AnyKernel::of::<K>(), &buffers, error),
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?} on {:?}", self.dtype(), self.shape(), self.device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;
    use crate::testing::device_names;

    #[test]
    fn views_of_narrow_tensors_are_read_in_the_order_of_the_view() {
        for device in device_names().map(|name| Device::open(name).unwrap()) {
            let wide = device.tensor(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [2, 3]);
            for dtype in [DType::F16, DType::BF16] {
                let narrow = ops::cast(&wide, dtype);
                let view = narrow.transpose();
                assert_eq!(view.to_vec().unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0], "{view:?}");
                assert_eq!(view.slice(0, 1..3).to_vec().unwrap(), [1.0, 4.0, 2.0, 5.0], "{view:?}");
                assert_eq!(view.to_bytes().unwrap(), ops::cast(&wide.transpose(), dtype).to_bytes().unwrap(), "{view:?}");
                assert_eq!(view.to_bytes().unwrap().len(), 12, "{view:?}");
            }
        }
    }

    #[test]
    fn a_read_is_a_future_of_what_was_there_when_it_began() {
        for device in device_names().map(|name| Device::open(name).unwrap()) {
            let x = device.tensor(&[1.0, 2.0, 3.0], [3]);
            let (before, empty) = (x.read(), device.zeros([0]).read());
            x.replace(bytemuck::cast_slice(&[4.0f32, 5.0, 6.0]));
            let after = x.read();
            drop(x);
            assert_eq!(pollster::block_on(after).unwrap(), [4.0, 5.0, 6.0], "{device:?}");
            assert_eq!(pollster::block_on(before).unwrap(), [1.0, 2.0, 3.0], "{device:?}");
            assert_eq!(pollster::block_on(empty).unwrap(), [0.0; 0], "{device:?}");
        }
    }

    #[test]
    fn a_tensor_larger_than_the_device_takes_is_an_error_that_names_its_size() {
        for device in device_names().map(|name| Device::open(name).unwrap()) {
            let absurd = device.zeros([1 << 40, 1 << 40]);
            let message = absurd.slice(0, 0..1).slice(1, 0..1).item().unwrap_err().to_string();
            assert!(message.contains("bytes") && message.contains("limit"), "{message}");
        }
    }
}
