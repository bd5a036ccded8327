//! Tables as text for a terminal.

/// A table below an empty line: as wide as it must be, all to the left.
pub fn columns<R: AsRef<[String]>>(head: &[&str], rows: impl Iterator<Item = R>) -> Vec<String> {
    let head = head.iter().map(|name| name.to_string()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows.map(|row| row.as_ref().to_vec())).collect();
    let widths: Vec<usize> =
        (0..rows[0].len()).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_string()
    };
    std::iter::once(String::new()).chain(rows.iter().map(line)).collect()
}
