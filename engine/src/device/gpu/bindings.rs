//! Bind groups, kept from one recording to the next: a training step binds the same slots over and over.

use rustc_hash::{FxHashMap, FxHashSet};

use super::driver::Driver;
use super::memory::Span;
use super::pipelines::Ready;
use crate::passes::Change;

/// Past this many the groups are made anew: shapes that never come back would pile up.
const MOST: usize = 1 << 14;

#[derive(Default)]
pub(super) struct Bindings {
    groups: FxHashMap<Vec<u64>, wgpu::BindGroup>,
    key: Vec<u64>,
}

impl Bindings {
    /// The group that binds these spans, in order, to a kernel.
    pub fn group(&mut self, driver: &Driver, kernel: &Ready<'_>, spans: &[Span<'_>]) -> &wgpu::BindGroup {
        self.key.clear();
        self.key.push(kernel.signature);
        self.key.extend(spans.iter().flat_map(|span| [span.slot as u64, span.offset, span.bytes]));
        if !self.groups.contains_key(&self.key) {
            if self.groups.len() >= MOST {
                self.groups.clear();
            }
            let entries: Vec<_> = spans
                .iter()
                .enumerate()
                .map(|(binding, span)| wgpu::BindGroupEntry { binding: binding as u32, resource: span.binding() })
                .collect();
            let descriptor = wgpu::BindGroupDescriptor { label: None, layout: kernel.layout, entries: &entries };
            let group = driver.device.create_bind_group(&descriptor);
            self.groups.insert(self.key.clone(), group);
        }
        &self.groups[&self.key]
    }

    /// Drops the groups that hold one of the slots that go.
    pub fn forget(&mut self, changes: &[Change]) {
        let dropped = |change: &Change| match change {
            Change::Drop { slot } => Some(*slot as u64),
            Change::Make { .. } => None,
        };
        let dropped: FxHashSet<u64> = changes.iter().filter_map(dropped).collect();
        if !dropped.is_empty() {
            self.groups.retain(|key, _| key[1..].iter().step_by(3).all(|slot| !dropped.contains(slot)));
        }
    }
}
