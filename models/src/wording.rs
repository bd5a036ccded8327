//! Words that messages share.

/// A number and its noun, whose plural ends in s: `1 row`, `2 rows`.
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A text cut after so many characters, where it would fill the screen.
pub fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

/// What there is to say, where that may be all of what was read: a library's error, a list of names.
pub fn sentence(what: impl std::fmt::Display) -> String {
    shortened(&what.to_string(), 1000)
}

/// Names in quotes, the first of them where they are many.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    const MOST: usize = 30;
    let mut quoted: Vec<String> = names.into_iter().map(|name| format!("`{}`", shortened(name, 60))).collect();
    if quoted.len() > MOST {
        let more = quoted.len() - MOST;
        quoted.truncate(MOST);
        quoted.push(format!("and {more} more"));
    }
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_and_sentences_are_cut_and_long_lists_counted() {
        assert_eq!(shortened("für dich", 2), "fü…");
        assert_eq!(shortened("fü", 2), "fü");
        assert_eq!(listed(&["a".to_string(), "b".to_string()]), "`a`, `b`");
        assert_eq!(sentence("x".repeat(50_000)).chars().count(), 1001);
        let many: Vec<String> = (0..1000).map(|name| name.to_string()).collect();
        assert!(listed(&many).ends_with("`29`, and 970 more"));
    }
}
