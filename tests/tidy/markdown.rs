//! Markdown: the width of prose.

const COLUMNS: usize = 120;

/// Lines that are too long, from 1, with their width. Tables, code blocks, lines with a link and
/// those with a long code span are left alone: breaking them would break what they say.
pub fn long_lines(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut code = false;
    for (n, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let fence = trimmed.starts_with("```") || trimmed.starts_with("~~~");
        code ^= fence;
        let span = line.split('`').skip(1).step_by(2).any(|span| span.chars().count() > COLUMNS / 2);
        let free = code || fence || span || trimmed.starts_with('|');
        let free = free || line.contains("](") || line.contains("://");
        let columns = line.chars().count();
        if !free && columns > COLUMNS {
            found.push((n + 1, columns));
        }
    }
    found
}
