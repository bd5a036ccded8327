//! Kernels that go through rows, in teams of invocations that share one: `team.wgsl`.

use crate::kernel::{Constants, Shader, Traits, grid};

/// Parameters of such a kernel.
pub(super) trait Rows {
    /// Rows, and the elements of one.
    fn size(&self) -> [u32; 2];
}

/// The shaders of a kernel that is written once, for elements and for vectors of four: a row an invocation, a row a team, and
/// both again by vectors.
pub(super) const fn shaders<P: Rows>(scalars: &'static str, vectors: &'static str) -> [Shader<P>; 4] {
    [alone(scalars), shared(scalars), alone(vectors), shared(vectors)]
}

/// Which of [`shaders`] suits: vectors where rows are whole ones, teams where barriers are cheap and a row feeds one.
pub(super) fn choose<P: Rows>(p: &P, traits: &Traits) -> usize {
    let [_, width] = p.size();
    match width % 4 {
        0 => 2 + usize::from(traits.shares_row(width / 4)),
        _ => usize::from(traits.shares_row(width)),
    }
}

/// Whether one of [`shaders`] can run these rows.
pub(super) fn allows<P: Rows>(p: &P, shader: usize, traits: &Traits) -> bool {
    let [_, width] = p.size();
    let (by_vectors, is_shared) = (shader >= 2, shader % 2 == 1);
    let steps = if by_vectors { width / 4 } else { width };
    (!by_vectors || width.is_multiple_of(4)) && (is_shared || traits.loop_fits(steps))
}

const fn alone<P: Rows>(source: &'static str) -> Shader<P> {
    Shader { source, constants: |_| team(1, ALONE), workgroups: |p| grid(p.size()[0] as usize, ALONE as usize) }
}

const fn shared<P: Rows>(source: &'static str) -> Shader<P> {
    Shader {
        source,
        constants: |p| team(lanes(p), TEAMS / lanes(p)),
        workgroups: |p| grid(p.size()[0] as usize, (TEAMS / lanes(p)) as usize),
    }
}

/// Rows of a workgroup whose invocations each have one.
const ALONE: u32 = 64;
/// Invocations of a workgroup of teams.
const TEAMS: u32 = 256;

/// Invocations that share a row: one for every four vectors, within what a subgroup and a workgroup have.
fn lanes<P: Rows>(p: &P) -> u32 {
    (p.size()[1] / 16).next_power_of_two().clamp(32, TEAMS)
}

fn team(lanes: u32, rows: u32) -> Constants {
    vec![("LANES", lanes.into()), ("ROWS", rows.into())]
}
