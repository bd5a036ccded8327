//! Shaders of groups, written when one is first met.

use wgtune_shaders::{Missing, PARAMS_STRIDE};

use crate::kernel::{Access, Traits, grid};
use crate::recording::{Group, Member};

/// Everything that the text of a group's shader depends on, and its constants.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    source: &'static str,
    /// The values of each member's constants.
    constants: Vec<Vec<u64>>,
    /// Which of the group's buffers each member of a lane is given.
    lanes: Vec<Vec<Vec<usize>>>,
    written: Vec<bool>,
}

impl Shape {
    pub fn of(group: &Group, traits: &Traits) -> Shape {
        let values = |member: &Member| group.constants(member, traits).into_iter().map(|(_, value)| value.to_bits()).collect();
        let buffers = |lane: &Vec<Member>| lane.iter().map(|member| member.buffers.clone()).collect();
        Shape {
            source: group.source(),
            constants: group.members().map(values).collect(),
            lanes: group.lanes.iter().map(buffers).collect(),
            written: group.access.iter().map(|access| *access != Access::Read).collect(),
        }
    }

    /// The WGSL text.
    ///
    /// # Errors
    /// If there is no such shader.
    pub fn text(&self) -> Result<String, Missing> {
        wgtune_shaders::grouped(self.source, &self.lanes, &self.written)
    }
}

/// Values for the constants of a group's shader: those of its members.
pub(super) fn constants(group: &Group, traits: &Traits) -> Vec<(String, f64)> {
    let numbered = |(number, member)| {
        group.constants(member, traits).into_iter().map(move |(name, value)| (format!("{name}_{number}"), value))
    };
    group.members().enumerate().flat_map(numbered).collect()
}

/// How many workgroups to start.
pub(super) fn workgroups(group: &Group) -> [u32; 3] {
    grid(group.lanes.iter().map(|lane| group.workgroups(&lane[0]).iter().product::<u32>() as usize).sum(), 1)
}

/// The uniform block: each lane's grid and where it ends, then the parameters of the members.
pub(super) fn params(group: &Group, bytes: &mut Vec<u8>) {
    let begun = bytes.len();
    let mut end = 0;
    for lane in &group.lanes {
        let size = group.workgroups(&lane[0]);
        end += size.iter().product::<u32>();
        bytes.extend_from_slice(bytemuck::cast_slice(&[size[0], size[1], size[2], end]));
    }
    for (number, member) in group.members().enumerate() {
        bytes.resize(begun + offset(number) as usize, 0);
        bytes.extend_from_slice(bytemuck::cast_slice(&member.params));
    }
    bytes.resize(begun + 4 * params_words(group), 0);
}

/// Where the parameters of a member lie in that block.
pub(super) fn offset(number: usize) -> u32 {
    ((number + 1) * PARAMS_STRIDE) as u32
}

/// Words of that block.
pub(super) fn params_words(group: &Group) -> usize {
    offset(group.members().count()) as usize / 4
}
