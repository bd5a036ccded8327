//! The ways to run a kernel on a GPU, and what choosing among them may depend on.

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

    /// Values for its `override` constants, on this device.
    pub(super) fn all_constants(&self, params: &P, traits: &Traits) -> Constants {
        let of_units = matches!(self.target, Target::Halves(Halves::Matrices16 | Halves::Matrices8));
        (self.constants)(params).into_iter().chain(of_units.then_some(("SUBGROUP", traits.unit_invocations.into()))).collect()
    }

    /// Whether it can run these parameters on this device at all.
    pub(super) fn runs(&self, params: &P, traits: &Traits) -> bool {
        let has_halves = match self.target {
            Target::Halves(halves) => traits.halves == Some(halves),
            Target::Any | Target::Software => true,
        };
        has_halves && (self.allowed)(params, traits)
    }

    /// Whether it is worth a try on this device.
    pub(super) fn is_candidate(&self, params: &P, traits: &Traits) -> bool {
        (traits.software || self.target != Target::Software) && self.runs(params, traits)
    }
}

/// What choosing among a kernel's shaders may depend on.
#[derive(Clone, Debug, Default)]
pub struct Traits {
    /// The adapter runs on the CPU: shared memory and barriers are slow there.
    pub software: bool,
    /// Smallest and largest subgroup size, where the adapter has subgroups.
    pub subgroups: Option<(u32, u32)>,
    /// The most bytes of a buffer that a kernel can be given at once.
    pub binding: Option<usize>,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Invocations a workgroup may have.
    pub workgroup_invocations: u32,
    /// What computes products of f16 operands, where the run allows them and there is something.
    pub halves: Option<Halves>,
    /// Invocations of a subgroup that matrix units have, where there are such units.
    pub unit_invocations: u32,
}

/// What computes products of f16 operands, summed in f32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Halves {
    /// Matrices of 16 x 16 that the invocations of a subgroup compute together.
    Matrices16,
    /// The same of 8 x 8.
    Matrices8,
    /// Ordinary arithmetic in the place of such matrices: slow, for tests.
    Emulated,
}

impl Traits {
    /// How many rows of so many bytes each a kernel can be given at once, if not all of them: as many as start where every device can
    /// bind. `None` too where rows are too long for that.
    pub fn rows_in_binding(&self, rows: u32, bytes: usize) -> Option<u32> {
        const ALIGNED: usize = 128;
        self.in_binding(rows as usize, bytes, ALIGNED).map(|rows| rows as u32)
    }

    /// How many things of so many bytes each a kernel can be given at once, if not all of `count`: a multiple of `aligned`.
    pub fn in_binding(&self, count: usize, bytes: usize, aligned: usize) -> Option<usize> {
        let most = self.binding? / bytes.max(1);
        (most < count && most >= aligned).then_some(most - most % aligned)
    }

    /// Whether an invocation's loops, nested ones taken together, may make so many iterations. llvmpipe ends them after 65,535,
    /// and says nothing.
    pub fn iterations_fit(&self, iterations: u64) -> bool {
        !self.software || iterations <= 65_535
    }

    /// Whether so many invocations, a power of two, are always whole subgroups (`team_subgroups.wgsl`).
    pub fn teams_of_subgroups(&self, lanes: u32) -> bool {
        self.subgroups.is_some_and(|(least, most)| least >= 4 && most <= lanes)
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

/// The shader that runs by rule: the last that is preferred here, or the first that can run.
pub(super) fn choose<P>(shaders: &[Shader<P>], params: &P, traits: &Traits) -> usize {
    let is_preferred = |shader: &Shader<P>| shader.is_candidate(params, traits) && (shader.preferred)(params, traits);
    let can_run = || shaders.iter().position(|shader| shader.runs(params, traits));
    shaders.iter().rposition(is_preferred).or_else(can_run).unwrap_or(0)
}

/// The workgroups of a one-dimensional grid over `items`, `per_workgroup` each. Past the 65,535 that every device allows in
/// one dimension it goes on in the second; the shader's `linear_workgroup` (common.wgsl) puts the two together.
pub fn grid(items: usize, per_workgroup: usize) -> [u32; 3] {
    const MOST: usize = 65_535;
    let workgroups = items.div_ceil(per_workgroup).max(1);
    let rows = workgroups.div_ceil(MOST);
    [workgroups.div_ceil(rows) as u32, rows as u32, 1]
}
