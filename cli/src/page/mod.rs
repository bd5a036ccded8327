//! Pages of HTML that need nothing else, neither scripts nor a network.

pub mod plot;
pub mod table;

use std::fmt::Write;

/// A page: its title, its heading, a line about it, and its body, which is HTML, as the line is.
pub fn document(title: &str, heading: &str, about: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{style}</style>\n<main>\n\
         <h1>{heading}</h1>\n<p class=\"about\">{about}</p>\n{body}</main>\n</html>\n",
        title = escape(title),
        heading = escape(heading),
        style = include_str!("style.css"),
    )
}

/// Adds a section; what it says of its content, and the content, are HTML.
pub fn section(page: &mut String, title: &str, about: &str, content: &str) {
    let _ = write!(page, "<section>\n<h2>{title}</h2>\n{about}{content}</section>\n");
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
