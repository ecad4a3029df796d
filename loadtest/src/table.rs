//! Tables of figures: aligned for the eye, and as Markdown for a file.

use crate::Failure;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

pub struct Cells {
    pub heads: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Prints a table, and appends it to a file if there is one.
pub fn print(title: &str, cells: &Cells, markdown: Option<&Path>) -> Result<(), Failure> {
    println!("\n{title}\n{}", aligned(cells));
    if let Some(path) = markdown {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "\n{title}:\n\n{}", marked(cells))?;
    }
    Ok(())
}

/// Least and most; both 0 of nothing.
pub fn range(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().reduce(f64::min).unwrap_or_default();
    let high = values.iter().copied().reduce(f64::max).unwrap_or_default();
    (low, high)
}

fn aligned(cells: &Cells) -> String {
    let width = |column: usize| {
        let rows = cells.rows.iter().filter_map(|row| row.get(column));
        rows.chain(cells.heads.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..cells.heads.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    std::iter::once(&cells.heads).chain(&cells.rows).map(line).collect::<Vec<_>>().join("\n")
}

fn marked(cells: &Cells) -> String {
    let line = |row: &Vec<String>| format!("| {} |", row.join(" | "));
    let rule = format!("|{}", "---|".repeat(cells.heads.len()));
    let rows = cells.rows.iter().map(line);
    [line(&cells.heads), rule].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let row = |cells: [&str; 2]| cells.map(String::from).to_vec();
        let cells = Cells { heads: row(["target", "us"]), rows: vec![row(["a", "1.5"]), row(["relay", "10"])] };
        assert_eq!(aligned(&cells), "target   us\na       1.5\nrelay    10");
        assert_eq!(marked(&cells), "| target | us |\n|---|---|\n| a | 1.5 |\n| relay | 10 |");
        assert_eq!(range(&[2.0, -1.0]), (-1.0, 2.0));
    }
}
