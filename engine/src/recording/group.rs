//! Dispatches of one kernel that run as one.

use super::Command;
use crate::buffer::BufferRef;
use crate::kernel::{Access, AnyKernel, Constants, Traits};

/// Dispatches of one kernel, by one of its shaders, that a GPU runs as one.
#[derive(Clone)]
pub struct Group {
    /// Which kernel.
    pub kernel: &'static AnyKernel,
    /// Which of its shaders.
    pub shader: usize,
    /// What runs side by side. The members of a lane run one behind the other, each element by the same invocation, and each may add what
    /// the one before it wrote.
    pub lanes: Vec<Vec<Member>>,
    /// How it uses each of its buffers.
    pub access: Vec<Access>,
}

/// A dispatch of a group.
#[derive(Clone)]
pub struct Member {
    /// Its parameters' bytes (in words, to be aligned).
    pub params: Vec<u32>,
    /// Which of the group's buffers it is given, in the order of its bindings.
    pub buffers: Vec<usize>,
}

impl Group {
    /// The most members: each has a text of its own in the shader.
    pub const MOST: usize = 8;

    /// One without members.
    pub fn new(kernel: &'static AnyKernel, shader: usize) -> Group {
        Group { kernel, shader, lanes: Vec::new(), access: Vec::new() }
    }

    /// Adds a member with these of its own buffers, behind a lane or as one beside them all. `all` are the group's: those that a shader
    /// declares alike are there once. False, and nothing is added, if they would be more than `most`.
    pub fn add(&mut self, lane: Option<usize>, params: &[u32], own: &[BufferRef], all: &mut Vec<BufferRef>, most: usize) -> bool {
        let known = |binding: usize| {
            // What the lane wrote is declared as it was there.
            let is_alike = |at: &usize| self.access[*at] != Access::Read || self.binding(*at) == Some(binding);
            let is_read = self.kernel.access[binding] == Access::Read;
            (0..all.len()).filter(|&at| is_read && all[at] == own[binding]).find(is_alike)
        };
        let mut buffers: Vec<Option<usize>> = (0..own.len()).map(known).collect();
        if all.len() + buffers.iter().filter(|buffer| buffer.is_none()).count() > most {
            return false;
        }
        for (binding, buffer) in buffers.iter_mut().enumerate().filter(|(_, buffer)| buffer.is_none()) {
            *buffer = Some(all.len());
            all.push(own[binding]);
            self.access.push(self.kernel.access[binding]);
        }
        let member = Member { params: params.to_vec(), buffers: buffers.into_iter().flatten().collect() };
        match lane {
            Some(lane) => self.lanes[lane].push(member),
            None => self.lanes.push(vec![member]),
        }
        true
    }

    /// Which binding of the kernel's one of the group's buffers is, of the first member that is given it.
    fn binding(&self, at: usize) -> Option<usize> {
        self.members().find_map(|member| member.buffers.iter().position(|&buffer| buffer == at))
    }

    /// All members, lane by lane.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.lanes.iter().flatten()
    }

    /// The members as dispatches of their own.
    pub fn dispatches<'a>(&'a self, buffers: &'a [BufferRef]) -> impl Iterator<Item = Command> + 'a {
        self.members().map(|member| Command::Dispatch {
            kernel: self.kernel,
            params: member.params.clone(),
            buffers: member.buffers.iter().map(|&at| buffers[at]).collect(),
        })
    }

    /// The stem of the shader's WGSL file.
    pub fn source(&self) -> &'static str {
        (self.kernel.source)(self.shader)
    }

    /// Values for the shader's constants, of one member.
    pub fn constants(&self, member: &Member, traits: &Traits) -> Constants {
        (self.kernel.constants)(bytemuck::cast_slice(&member.params), self.shader, traits)
    }

    /// The workgroups that one member has on its own.
    pub fn workgroups(&self, member: &Member) -> [u32; 3] {
        (self.kernel.workgroups)(bytemuck::cast_slice(&member.params), self.shader)
    }
}
