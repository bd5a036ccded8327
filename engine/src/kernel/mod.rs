//! What a kernel is: the same computation as a WGSL shader and as a Rust twin, under one name.

mod io;
mod lowering;

use std::fmt;
use std::ops::Range;

use crate::buffer::BufferRef;
use crate::real::Real;
pub use io::{Data, DataMut, Io};
pub use lowering::{Lowered, Lowering};

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

/// Values for a shader's `override` constants, by name.
pub type Constants = Vec<(&'static str, f64)>;

/// One way to run a kernel on a GPU, and where it is of use.
pub struct Shader<P> {
    /// The WGSL file's stem. Its entry point is `main`, its parameters are `@group(1) @binding(0) var<uniform>`.
    pub source: &'static str,
    /// How many workgroups to start.
    pub workgroups: fn(&P) -> [u32; 3],
    /// Values for its `override` constants.
    pub constants: fn(&P) -> Constants,
    /// What it is written for.
    pub target: Target,
    /// Whether it can run these parameters on such a device at all.
    pub allowed: fn(&P, &Traits) -> bool,
    /// Whether it then is better than those listed before it.
    pub preferred: fn(&P, &Traits) -> bool,
}

/// The devices that a shader is written for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// All.
    Any,
    /// Adapters that run on the CPU. Others can run it, and do where it is forced.
    Software,
    /// Those that compute products of f16 operands so. No other can run it.
    Halves(Halves),
}

impl<P> Shader<P> {
    /// A shader without constants that any device can run, and that is better than those listed before it.
    pub const fn new(source: &'static str, workgroups: fn(&P) -> [u32; 3]) -> Shader<P> {
        Shader {
            source,
            workgroups,
            constants: |_| Vec::new(),
            target: Target::Any,
            allowed: |_, _| true,
            preferred: |_, _| true,
        }
    }

    /// The same with constants.
    pub const fn with(self, constants: fn(&P) -> Constants) -> Shader<P> {
        Shader { constants, ..self }
    }

    /// The same, written for some devices.
    pub const fn written_for(self, target: Target) -> Shader<P> {
        Shader { target, ..self }
    }

    /// The same, where that is so.
    pub const fn allowed(self, allowed: fn(&P, &Traits) -> bool) -> Shader<P> {
        Shader { allowed, ..self }
    }

    /// The same, better than those before it only where that is so.
    pub const fn preferred(self, preferred: fn(&P, &Traits) -> bool) -> Shader<P> {
        Shader { preferred, ..self }
    }

    /// Whether it can run these parameters on this device at all.
    fn runs(&self, params: &P, traits: &Traits) -> bool {
        let has_halves = match self.target {
            Target::Halves(halves) => traits.halves == Some(halves),
            Target::Any | Target::Software => true,
        };
        has_halves && (self.allowed)(params, traits)
    }

    /// Whether it is worth a try on this device.
    fn is_candidate(&self, params: &P, traits: &Traits) -> bool {
        (traits.software || self.target != Target::Software) && self.runs(params, traits)
    }
}

/// What a kernel says of itself if each element of its one output comes from the same element of its inputs, all f32: it can be
/// fused with others (`passes::fuse`).
pub struct Pointwise<P> {
    /// How many elements the output has; `None` if the inputs lie in another way.
    pub elements: fn(&P) -> Option<usize>,
    /// Bit k is set where input k is one number for all elements.
    pub numbers: fn(&P) -> u32,
    /// Which of its functions it computes.
    pub function: fn(&P) -> u32,
    /// That function of four elements in WGSL: `$0`, `$1` … stand for the inputs (`vec4<f32>`), `#` for its words
    /// (`vec4<u32>`), `i` is the index of the four.
    pub expression: fn(u32) -> String,
    /// The WGSL file that the expression needs.
    pub import: Option<&'static str>,
    /// Parameters of the expression.
    pub words: fn(&P) -> [u32; 4],
    /// The parameters with which the twin computes some of the elements; the first is a multiple of four.
    pub part: fn(&P, Range<usize>) -> P,
}

/// What a kernel says of itself if it goes through its buffers, all f32, row by row: pointwise work on its result can be done as
/// the rows come (`passes::fuse`).
pub struct Rowwise<P> {
    /// Rows, and elements of one in the result; whole vectors of four.
    pub size: fn(&P) -> [usize; 2],
    /// The binding of the result.
    pub result: usize,
    /// Elements of a row in each of the buffers; 0 where all rows share the whole.
    pub strides: fn(&P) -> Vec<usize>,
    /// The WGSL file that goes through rows by vectors and calls `store(i, value)` with every four elements of the result.
    pub source: &'static str,
    /// The parameters with which the twin computes so many of the rows.
    pub part: fn(&P, usize) -> P,
}

/// What a kernel says of itself if it can do more to its one result before it writes it (`passes::finish`).
pub struct Epilogue<P> {
    /// The binding of the result.
    pub result: usize,
    /// That of what is added to it.
    pub residual: usize,
    /// Has something added to the result. False if it cannot, as where that is done already.
    pub add: fn(&mut P) -> bool,
    /// Has places of the result dropped, as a [`Finish::Dropout`] says. False if it cannot.
    pub drop: fn(&mut P, [u32; 4]) -> bool,
}

/// What the kernel before can do in the place of one that only finishes its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// The sum of its two inputs.
    Sum,
    /// Its input with places dropped: the words of their key, of how many are, and of what the others are multiplied by.
    Dropout([u32; 4]),
}

/// What choosing among a kernel's shaders may depend on.
#[derive(Clone, Debug, Default)]
pub struct Traits {
    /// The adapter runs on the CPU: shared memory and barriers are slow there.
    pub software: bool,
    /// Smallest and largest subgroup size, where the adapter has subgroups.
    pub subgroups: Option<(u32, u32)>,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Invocations a workgroup may have.
    pub workgroup_invocations: u32,
    /// What computes products of f16 operands, where the run allows them and there is something.
    pub halves: Option<Halves>,
}

/// What computes products of f16 operands, summed in f32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Halves {
    /// Matrices of 16 x 16 that the 32 invocations of a subgroup compute together.
    Matrices16,
    /// The same of 8 x 8.
    Matrices8,
    /// Ordinary arithmetic in the place of such matrices: slow, for tests.
    Emulated,
}

impl Traits {
    /// Whether an invocation's loops, nested ones taken together, may make so many iterations. llvmpipe ends them after 65,535,
    /// and says nothing.
    pub fn iterations_fit(&self, iterations: u64) -> bool {
        !self.software || iterations <= 65_535
    }

    /// Whether one invocation can go through so many elements a few times over.
    pub fn loop_fits(&self, elements: u32) -> bool {
        self.iterations_fit(4 * u64::from(elements))
    }

    /// Whether a workgroup should share a row of so many elements: where barriers are cheap and there is work for it.
    pub fn shares_row(&self, elements: u32) -> bool {
        !self.loop_fits(elements) || !self.software && elements > 64
    }
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
    /// How it computes one element, if that is all it does.
    const POINTWISE: Option<&'static Pointwise<Self::Params>> = None;
    /// How it writes its rows, if pointwise work can follow there.
    const ROWWISE: Option<&'static Rowwise<Self::Params>> = None;
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
    /// See [`Shader::constants`], of one of the sources.
    pub constants: fn(&[u8], usize) -> Constants,
    /// See [`Shader::workgroups`], of one of the sources.
    pub workgroups: fn(&[u8], usize) -> [u32; 3],
    /// See [`Kernel::POINTWISE`].
    pub pointwise: Option<AnyPointwise>,
    /// See [`Kernel::ROWWISE`].
    pub rowwise: Option<AnyRowwise>,
    /// See [`Kernel::EPILOGUE`].
    pub epilogue: Option<AnyEpilogue>,
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
                constants: |params, shader| (K::SHADERS[shader].constants)(bytemuck::from_bytes(params)),
                workgroups: |params, shader| (K::SHADERS[shader].workgroups)(bytemuck::from_bytes(params)),
                pointwise: match K::POINTWISE {
                    Some(_) => Some(AnyPointwise::of::<K>()),
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

/// The shader that runs by rule: the last that is preferred here, or the first that can run.
fn choose<P>(shaders: &[Shader<P>], params: &P, traits: &Traits) -> usize {
    let is_preferred = |shader: &Shader<P>| shader.is_candidate(params, traits) && (shader.preferred)(params, traits);
    let can_run = || shaders.iter().position(|shader| shader.runs(params, traits));
    shaders.iter().rposition(is_preferred).or_else(can_run).unwrap_or(0)
}

/// A [`Pointwise`] without its type.
pub struct AnyPointwise {
    /// See [`Pointwise::elements`].
    pub elements: fn(&[u8]) -> Option<usize>,
    /// See [`Pointwise::numbers`].
    pub numbers: fn(&[u8]) -> u32,
    /// See [`Pointwise::function`].
    pub function: fn(&[u8]) -> u32,
    /// See [`Pointwise::expression`].
    pub expression: fn(u32) -> String,
    /// See [`Pointwise::import`].
    pub import: Option<&'static str>,
    /// See [`Pointwise::words`].
    pub words: fn(&[u8]) -> [u32; 4],
    /// See [`Pointwise::part`].
    pub part: fn(&[u8], Range<usize>) -> Vec<u32>,
}

impl AnyPointwise {
    const fn of<K: Kernel>() -> AnyPointwise {
        const fn pointwise<K: Kernel>() -> &'static Pointwise<K::Params> {
            K::POINTWISE.expect("asked for only where there is one")
        }
        AnyPointwise {
            elements: |params| (pointwise::<K>().elements)(bytemuck::from_bytes(params)),
            numbers: |params| (pointwise::<K>().numbers)(bytemuck::from_bytes(params)),
            function: |params| (pointwise::<K>().function)(bytemuck::from_bytes(params)),
            expression: pointwise::<K>().expression,
            import: pointwise::<K>().import,
            words: |params| (pointwise::<K>().words)(bytemuck::from_bytes(params)),
            part: |params, range| words(&(pointwise::<K>().part)(bytemuck::from_bytes(params), range)),
        }
    }
}

/// A [`Rowwise`] without its type.
pub struct AnyRowwise {
    /// See [`Rowwise::size`].
    pub size: fn(&[u8]) -> [usize; 2],
    /// See [`Rowwise::result`].
    pub result: usize,
    /// See [`Rowwise::strides`].
    pub strides: fn(&[u8]) -> Vec<usize>,
    /// See [`Rowwise::source`].
    pub source: &'static str,
    /// See [`Rowwise::part`].
    pub part: fn(&[u8], usize) -> Vec<u32>,
}

impl AnyRowwise {
    const fn of<K: Kernel>() -> AnyRowwise {
        const fn rowwise<K: Kernel>() -> &'static Rowwise<K::Params> {
            K::ROWWISE.expect("asked for only where there is one")
        }
        AnyRowwise {
            size: |params| (rowwise::<K>().size)(bytemuck::from_bytes(params)),
            result: rowwise::<K>().result,
            strides: |params| (rowwise::<K>().strides)(bytemuck::from_bytes(params)),
            source: rowwise::<K>().source,
            part: |params, rows| words(&(rowwise::<K>().part)(bytemuck::from_bytes(params), rows)),
        }
    }
}

/// An [`Epilogue`] without its type.
pub struct AnyEpilogue {
    /// See [`Epilogue::result`].
    pub result: usize,
    /// See [`Epilogue::residual`].
    pub residual: usize,
    /// See [`Epilogue::add`].
    pub add: fn(&mut [u8]) -> bool,
    /// See [`Epilogue::drop`].
    pub drop: fn(&mut [u8], [u32; 4]) -> bool,
}

impl AnyEpilogue {
    const fn of<K: Kernel>() -> AnyEpilogue {
        const fn epilogue<K: Kernel>() -> &'static Epilogue<K::Params> {
            K::EPILOGUE.expect("asked for only where there is one")
        }
        AnyEpilogue {
            result: epilogue::<K>().result,
            residual: epilogue::<K>().residual,
            add: |params| (epilogue::<K>().add)(bytemuck::from_bytes_mut(params)),
            drop: |params, drops| (epilogue::<K>().drop)(bytemuck::from_bytes_mut(params), drops),
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

/// The workgroups of a one-dimensional grid over `items`, `per_workgroup` each. Past the 65,535 that every device allows in
/// one dimension it goes on in the second; the shader's `linear_workgroup` (common.wgsl) puts the two together.
pub fn grid(items: usize, per_workgroup: usize) -> [u32; 3] {
    const MOST: usize = 65_535;
    let workgroups = items.div_ceil(per_workgroup).max(1);
    let rows = workgroups.div_ceil(MOST);
    [workgroups.div_ceil(rows) as u32, rows as u32, 1]
}
