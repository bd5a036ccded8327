//! Sentences with slots: `"{Hero} found {a animal} {in place}."`.

/// What stands for each slot's name in one text, so that every sentence of it speaks of the same.
#[derive(Default)]
pub(super) struct Slots(Vec<(&'static str, String)>);

impl Slots {
    /// Binds `name`, which must not be bound yet.
    pub(super) fn bind(&mut self, name: &'static str, value: impl Into<String>) {
        debug_assert!(self.0.iter().all(|(bound, _)| *bound != name));
        self.0.push((name, value.into()));
    }

    /// `template` with each `{name}` replaced. `{Name}` starts with a capital letter; `{a name}` puts
    /// the article before it, "a" or "an".
    #[track_caller]
    pub(super) fn fill(&self, template: &str) -> String {
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let (slot, after) = after.split_once('}').unwrap_or_else(|| panic!("[fill] expected `}}` in {template:?}"));
            text += before;
            text += &self.value(slot);
            rest = after;
        }
        text + rest
    }

    #[track_caller]
    fn value(&self, slot: &str) -> String {
        let lower = slot.to_lowercase();
        let (article, name) = match lower.strip_prefix("a ") {
            Some(name) => (true, name),
            None => (false, lower.as_str()),
        };
        let (_, value) = self
            .0
            .iter()
            .find(|(bound, _)| *bound == name)
            .unwrap_or_else(|| panic!("[fill] expected a bound slot, got {{{slot}}}"));
        let value = if article { with_article(value) } else { value.clone() };
        if slot.starts_with(char::is_uppercase) { capitalised(&value) } else { value }
    }
}

/// "box" as "a box", "owl" as "an owl".
pub(super) fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// The text with its first letter in upper case.
pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_take_capitals_and_articles() {
        let mut slots = Slots::default();
        slots.bind("animal", "owl");
        slots.bind("in place", "in the barn");
        assert_eq!(
            slots.fill("{A animal} sat {in place}. The {animal} saw {a animal}."),
            "An owl sat in the barn. The owl saw an owl."
        );
    }
}
