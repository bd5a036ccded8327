//! Kernels that go through rows, in teams of invocations that share one: `team.wgsl`.

use crate::kernel::{Constants, Shader, Traits, grid};

/// Parameters of such a kernel.
pub(super) trait Rows {
    /// Rows, and the elements of one.
    fn size(&self) -> [u32; 2];
    /// Values for constants that its shaders have beside those of teams.
    fn own_constants(&self) -> Constants {
        Vec::new()
    }
}

/// The shaders of a kernel that is written once, for elements and for vectors of four: a row an invocation, a row a team (where
/// barriers are cheap and a row feeds one), both again by vectors, where rows are whole ones, and a row a team of subgroups.
pub(super) const fn shaders<P: Rows>(scalars: &'static str, vectors: &'static str, subgroups: &'static str) -> [Shader<P>; 5] {
    [
        alone(scalars).allowed(|p, traits| traits.loop_fits(width(p))),
        shared(scalars).preferred(|p, traits| traits.shares_row(width(p))),
        alone(vectors).allowed(|p, traits| width(p).is_multiple_of(4) && traits.loop_fits(width(p) / 4)),
        shared(vectors).allowed(|p, _| width(p).is_multiple_of(4)).preferred(|p, traits| traits.shares_row(width(p) / 4)),
        shared(subgroups)
            .allowed(|p, traits| width(p).is_multiple_of(4) && has_subgroups(p, traits))
            .preferred(|p, traits| !traits.software && traits.shares_row(width(p) / 4)),
    ]
}

fn width<P: Rows>(p: &P) -> u32 {
    p.size()[1]
}

const fn alone<P: Rows>(source: &'static str) -> Shader<P> {
    Shader::new(source, |p: &P| grid(p.size()[0] as usize, ALONE as usize)).with(|p| team(p, 1, ALONE))
}

/// A row a team.
pub(super) const fn shared<P: Rows>(source: &'static str) -> Shader<P> {
    Shader::new(source, |p: &P| grid(p.size()[0] as usize, (TEAMS / lanes(p)) as usize)).with(constants)
}

/// All its constants, of which two say how large its teams are.
pub(super) fn constants<P: Rows>(p: &P) -> Constants {
    team(p, lanes(p), TEAMS / lanes(p))
}

/// Whether its teams are whole subgroups.
pub(super) fn has_subgroups<P: Rows>(p: &P, traits: &Traits) -> bool {
    traits.teams_of_subgroups(lanes(p))
}

/// Rows of a workgroup whose invocations each have one.
const ALONE: u32 = 64;
/// Invocations of a workgroup of teams.
const TEAMS: u32 = 256;

/// Invocations that share a row: one for every four vectors, within what a subgroup and a workgroup have.
fn lanes<P: Rows>(p: &P) -> u32 {
    (p.size()[1] / 16).next_power_of_two().clamp(32, TEAMS)
}

fn team<P: Rows>(p: &P, lanes: u32, rows: u32) -> Constants {
    p.own_constants().into_iter().chain([("LANES", lanes.into()), ("ROWS", rows.into())]).collect()
}
