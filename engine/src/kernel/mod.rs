//! What a kernel is: the same computation as a WGSL shader and as a Rust twin, under one name.

mod capabilities;
mod io;
mod lowering;
mod shader;

use std::fmt;

use crate::buffer::BufferRef;
use crate::real::Real;
pub use capabilities::{
    AnyElementwise, AnyEpilogue, AnyPointwise, AnyRowwise, Elementwise, Epilogue, Finish, Indices, Pointwise, Rowwise,
};
pub use io::{Data, DataMut, Io};
pub use lowering::{Kept, Lowered, Lowering};
use shader::choose;
pub use shader::{Constants, Halves, Shader, Target, Traits, grid};

/// How a kernel uses one of its buffers. Their order is the order of the shader's bindings in group 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Only read.
    Read,
    /// Every element of the tensor is written, whatever was there.
    Write,
    /// Updated in place.
    Update,
}

/// The work one dispatch does, counted from its parameters.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Cost {
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes that must pass through device memory: each input read once, each output written once.
    pub bytes: u64,
}

/// A computation with a shader and a twin. Implemented by one empty type a kernel, in the file of the op that records it.
pub trait Kernel: 'static {
    /// The uniform block: scalars, and arrays in groups of four (WGSL aligns a uniform array's elements to 16 bytes).
    type Params: bytemuck::Pod + fmt::Debug;
    /// Its name in recordings, profiles and errors.
    const NAME: &'static str;
    /// Its buffers.
    const ACCESS: &'static [Access];
    /// Its shaders: one, or variants. By rule the last that is preferred runs, the first that can if none is.
    const SHADERS: &'static [Shader<Self::Params>];
    /// Sizes and layouts by which variants may differ in speed: what is measured once is taken for all parameters that agree in
    /// them. Never values, such as random keys or positions: they change from step to step.
    fn bucket(_: &Self::Params) -> impl IntoIterator<Item = u32> {
        []
    }
    /// The indices by which it finds its way in other buffers, if it is given some.
    fn indices(_: &Self::Params) -> Option<Indices> {
        None
    }
    /// How it computes one element, if that is all it does.
    const POINTWISE: Option<&'static Pointwise<Self::Params>> = None;
    /// How it is run over some of its elements, if it can be.
    const ELEMENTWISE: Option<&'static Elementwise<Self::Params>> = match Self::POINTWISE {
        Some(pointwise) => Some(&pointwise.elementwise),
        None => None,
    };
    /// How it writes its rows, if pointwise work can follow there.
    const ROWWISE: Option<&'static Rowwise<Self::Params>> = None;
    /// What dispatches must agree in that run as one by the same shader (`passes::group`): all that its workgroups' size and memory
    /// depend on but for the device. `None` if none may.
    fn grouped_by(_: &Self::Params) -> Option<u32> {
        Some(0)
    }
    /// What it can do to its result, if anything.
    const EPILOGUE: Option<&'static Epilogue<Self::Params>> = None;
    /// What the kernel before could do in its place.
    fn finish(_: &Self::Params) -> Option<Finish> {
        None
    }
    /// Whether it does nothing but copy its input, in the order of memory.
    fn copies(_: &Self::Params) -> bool {
        false
    }
    /// Records what a GPU runs in its place, given its buffers (`passes::lower`): nothing where that is itself.
    fn lower(_: &Self::Params, _buffers: &[BufferRef], _: &mut Lowering) {}
    /// The work it does.
    fn cost(params: &Self::Params) -> Cost;
    /// The CPU twin.
    fn run<R: Real>(params: &Self::Params, io: &mut Io<R>);
}

/// A [`Kernel`] without its type, as a recording holds it.
pub struct AnyKernel {
    /// See [`Kernel::NAME`].
    pub name: &'static str,
    /// See [`Kernel::ACCESS`].
    pub access: &'static [Access],
    /// Bytes of its parameters.
    pub params_size: usize,
    /// How many shaders it has.
    pub shaders: usize,
    /// The stem of one of its shaders.
    pub source: fn(usize) -> &'static str,
    /// What one of them is written for.
    pub target: fn(usize) -> Target,
    /// The one that runs by rule.
    pub choose: fn(&[u8], &Traits) -> usize,
    /// Whether one of them can run these parameters on this device at all.
    pub allows: fn(&[u8], usize, &Traits) -> bool,
    /// Whether one of them is worth a try there.
    pub is_candidate: fn(&[u8], usize, &Traits) -> bool,
    /// Adds the words of [`Kernel::bucket`].
    pub bucket: fn(&[u8], &mut Vec<u32>),
    /// See [`Shader::constants`], of one of the sources, and what all have that are written for matrix units.
    pub constants: fn(&[u8], usize, &Traits) -> Constants,
    /// See [`Shader::workgroups`], of one of the sources.
    pub workgroups: fn(&[u8], usize) -> [u32; 3],
    /// See [`Kernel::POINTWISE`].
    pub pointwise: Option<AnyPointwise>,
    /// See [`Kernel::ELEMENTWISE`].
    pub elementwise: Option<AnyElementwise>,
    /// See [`Kernel::ROWWISE`].
    pub rowwise: Option<AnyRowwise>,
    /// See [`Kernel::EPILOGUE`].
    pub epilogue: Option<AnyEpilogue>,
    /// See [`Kernel::grouped_by`].
    pub grouped_by: fn(&[u8]) -> Option<u32>,
    /// See [`Kernel::finish`].
    pub finish: fn(&[u8]) -> Option<Finish>,
    /// See [`Kernel::copies`].
    pub copies: fn(&[u8]) -> bool,
    /// See [`Kernel::lower`].
    pub lower: fn(&[u8], &[BufferRef], &mut Lowering),
    /// See [`Kernel::cost`].
    pub cost: fn(&[u8]) -> Cost,
    /// The parameters, to print.
    pub describe: fn(&[u8]) -> String,
    /// The twin in f32.
    pub run_f32: fn(&[u8], &mut Io<f32>),
    /// The twin in f64.
    pub run_f64: fn(&[u8], &mut Io<f64>),
}

impl AnyKernel {
    /// The kernel of type `K`.
    pub const fn of<K: Kernel>() -> &'static AnyKernel {
        const {
            &AnyKernel {
                name: K::NAME,
                access: K::ACCESS,
                params_size: size_of::<K::Params>(),
                shaders: K::SHADERS.len(),
                source: |shader| K::SHADERS[shader].source,
                target: |shader| K::SHADERS[shader].target,
                choose: |params, traits| choose(K::SHADERS, bytemuck::from_bytes(params), traits),
                allows: |params, shader, traits| K::SHADERS[shader].runs(bytemuck::from_bytes(params), traits),
                is_candidate: |params, shader, traits| K::SHADERS[shader].is_candidate(bytemuck::from_bytes(params), traits),
                bucket: |params, words| words.extend(K::bucket(bytemuck::from_bytes(params))),
                constants: |params, shader, traits| K::SHADERS[shader].all_constants(bytemuck::from_bytes(params), traits),
                workgroups: |params, shader| (K::SHADERS[shader].workgroups)(bytemuck::from_bytes(params)),
                pointwise: match K::POINTWISE {
                    Some(_) => Some(AnyPointwise::of::<K>()),
                    None => None,
                },
                elementwise: match K::ELEMENTWISE {
                    Some(_) => Some(AnyElementwise::of::<K>()),
                    None => None,
                },
                rowwise: match K::ROWWISE {
                    Some(_) => Some(AnyRowwise::of::<K>()),
                    None => None,
                },
                epilogue: match K::EPILOGUE {
                    Some(_) => Some(AnyEpilogue::of::<K>()),
                    None => None,
                },
                grouped_by: |params| K::grouped_by(bytemuck::from_bytes(params)),
                finish: |params| K::finish(bytemuck::from_bytes(params)),
                copies: |params| K::copies(bytemuck::from_bytes(params)),
                lower: |params, buffers, into| K::lower(bytemuck::from_bytes(params), buffers, into),
                cost: |params| K::cost(bytemuck::from_bytes(params)),
                describe: |params| format!("{:?}", bytemuck::from_bytes::<K::Params>(params)),
                run_f32: |params, io| K::run(bytemuck::from_bytes(params), io),
                run_f64: |params, io| K::run(bytemuck::from_bytes(params), io),
            }
        }
    }
}

/// Parameters as words, to be aligned.
pub(crate) fn words<P: bytemuck::Pod>(params: &P) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(bytemuck::bytes_of(params))
}

impl fmt::Debug for AnyKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
