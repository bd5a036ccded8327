//! Tables: a narrow page shows each row as a card.

use std::fmt::Write;

use super::escape;

/// A cell's class and its content, which is HTML already.
pub struct Cell {
    class: &'static str,
    html: String,
}

impl Cell {
    /// HTML of a class.
    pub fn html(class: &'static str, html: String) -> Cell {
        Cell { class, html }
    }

    /// HTML as it is.
    pub fn plain(html: String) -> Cell {
        Cell::html("", html)
    }

    /// A number.
    pub fn figure(text: String) -> Cell {
        Cell::html("figure", escape(&text))
    }

    /// Nothing where that is so.
    pub fn unless(self, empty: bool) -> Cell {
        if empty { Cell { html: String::new(), ..self } } else { self }
    }
}

/// A table of rows below their head.
pub fn table(head: &[&str], rows: impl Iterator<Item = Vec<Cell>>) -> String {
    let mut html = "<table>\n<thead><tr>".to_string();
    head.iter().for_each(|name| html.push_str(&format!("<th>{name}</th>")));
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for (name, cell) in head.iter().zip(row) {
            let class = if cell.class.is_empty() { String::new() } else { format!(" class=\"{}\"", cell.class) };
            let _ = write!(html, "<td data-name=\"{name}\"{class}>{}</td>", cell.html);
        }
        html.push_str("</tr>\n");
    }
    html + "</tbody>\n</table>\n"
}
