//! The search for the first result that is not finite.

/// The first result that was not finite.
#[derive(Clone, PartialEq, Debug)]
pub struct NonFinite {
    /// The kernel that wrote it.
    pub kernel: &'static str,
    /// Which element of its output.
    pub index: usize,
    /// NaN or an infinity.
    pub value: f32,
}

/// Looks at every result as it is written.
#[derive(Default)]
pub(crate) struct Watch {
    pub found: Option<NonFinite>,
}

impl Watch {
    pub fn look<'a>(&mut self, kernel: &'static str, results: impl Iterator<Item = f32> + 'a) {
        if self.found.is_none()
            && let Some((index, value)) = results.enumerate().find(|(_, value)| !value.is_finite())
        {
            self.found = Some(NonFinite { kernel, index, value });
        }
    }
}
