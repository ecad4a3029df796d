//! Configuration errors: one sentence each, with file, line, column, key and what would be valid.
//! Converts the errors of the TOML reader into the same form.

use std::fmt;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// Why a configuration was refused. Displays one sentence per line, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    sentences: Vec<String>,
}

impl Error {
    /// At least one; each names its place.
    pub fn sentences(&self) -> &[String] {
        &self.sentences
    }

    pub(super) fn unreadable(name: &str, error: &std::io::Error) -> Error {
        Error { sentences: vec![format!("{name}: cannot be read: {error}")] }
    }

    pub(super) fn not_text(name: &str, bytes: &[u8], at: usize) -> Error {
        let text = String::from_utf8_lossy(bytes.get(..at).unwrap_or_default());
        let place = place(name, &text, at);
        Error { sentences: vec![format!("{place}: not valid UTF-8")] }
    }

    /// Errors in files that the configuration names, one sentence each.
    pub fn files(name: &str, problems: &[String]) -> Error {
        Error { sentences: problems.iter().map(|problem| format!("{name}: {problem}")).collect() }
    }

    /// An error in a flag, which is named instead of file and key.
    pub(super) fn flag(flag: &str, text: &str) -> Error {
        Error { sentences: vec![format!("{flag}: {text}")] }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences.join("\n"))
    }
}

impl std::error::Error for Error {}

/// Collects the errors of one text.
pub struct Problems<'a> {
    text: &'a str,
    name: &'a str,
    /// Offset in the text, and the sentence without its place.
    found: Vec<(usize, String)>,
}

impl<'a> Problems<'a> {
    pub fn new(text: &'a str, name: &'a str) -> Self {
        Problems { text, name, found: Vec::new() }
    }

    pub fn add(&mut self, at: Range<usize>, key: &str, text: &str) {
        self.found.push((at.start, format!("{key}: {text}")));
    }

    /// Adds an error of the TOML reader.
    pub fn add_toml(&mut self, error: &toml::de::Error) {
        // The span is missing only for errors of the whole document.
        let span = error.span().unwrap_or(0..0);
        self.found.push((span.start, toml_sentence(self.text, &span, error.message())));
    }

    /// The line number, for sentences that refer to another place in the file.
    pub fn line(&self, at: &Range<usize>) -> usize {
        line_and_column(self.text, at.start).0
    }

    pub fn into_error(mut self) -> Option<Error> {
        self.found.sort_by_key(|(at, _)| *at);
        let sentence = |(at, text): &(usize, String)| format!("{}: {text}", place(self.name, self.text, *at));
        let sentences: Vec<_> = self.found.iter().map(sentence).collect();
        (!sentences.is_empty()).then_some(Error { sentences })
    }
}

/// `; did you mean "a" or "b"?` with the `known` words (never empty) that are close to `typed`, or
/// all of them as `; expected "a", "b" or "c"`.
pub fn suggestion(typed: &str, known: &[&str]) -> String {
    let quoted = |names: &[&str], last: &str| match names {
        [] => String::new(),
        [one] => format!("\"{one}\""),
        [start @ .., end] => format!("\"{}\" {last} \"{end}\"", start.join("\", \"")),
    };
    let lower = typed.to_lowercase();
    let distances: Vec<_> = known.iter().map(|name| distance(&lower, name)).collect();
    let near = (typed.chars().count() / 3).max(2);
    let best = distances.iter().min().copied().unwrap_or(usize::MAX);
    if best > near {
        return format!("; expected {}", quoted(known, "or"));
    }
    let closest: Vec<_> = known.iter().zip(&distances).filter(|(_, d)| **d == best).map(|(name, _)| *name).collect();
    format!("; did you mean {}?", quoted(&closest, "or"))
}

/// Edit distance: letters inserted, removed or replaced, neighbours swapped.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

fn place(name: &str, text: &str, at: usize) -> String {
    let (line, column) = line_and_column(text, at);
    format!("{name}:{line}:{column}")
}

/// Both start at 1; columns count characters.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before.get(start..).unwrap_or_default().chars().count() + 1)
}

/// Sections that can occur more than once.
const SECTIONS: [&str; 3] = ["listener", "route", "upstream"];

fn toml_sentence(text: &str, span: &Range<usize>, message: &str) -> String {
    let here = text.get(span.clone()).unwrap_or_default();
    let Ok(document) = DeTable::parse(text) else {
        return match message {
            "duplicate key" => format!("{here}: duplicate key; remove one of them"),
            _ => without_quotes(text, span.start).unwrap_or_else(|| format!("invalid TOML: {message}")),
        };
    };
    let key = key_at(document.get_ref(), span).unwrap_or_default();
    let quoted: Vec<_> = message.split('`').skip(1).step_by(2).collect();
    if let (true, [unknown, known @ ..]) = (message.starts_with("unknown field"), quoted.as_slice()) {
        return format!("{key}: unknown key{}", suggestion(unknown, known));
    }
    let name = key.rsplit('.').next().unwrap_or_default();
    let wanted = match (message.rsplit("expected ").next().unwrap_or_default(), key.contains('.')) {
        ("a sequence", false) => format!("can occur more than once; use [[{key}]]"),
        ("a sequence", true) => format!("not a list; use {name} = [\"...\"]"),
        ("a table", false) if SECTIONS.contains(&key.as_str()) => {
            format!("not a table; use [[{key}]]")
        }
        ("a table", false) if here.starts_with("[[") => format!("can occur only once; use [{key}]"),
        ("a table", false) => format!("not a table; use [{key}]"),
        ("a table", true) => format!("not a table; use {name} = {{ ... }}"),
        _ => message.to_owned(),
    };
    format!("{key}: {wanted}")
}

/// The most common mistake: `level = info`, `idle = 5m`.
fn without_quotes(text: &str, at: usize) -> Option<String> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    let (key, value) = text.get(start..)?.lines().next()?.split_once('=')?;
    let (key_end, key, value) = (start + key.len(), key.trim(), value.trim());
    let bare = value.chars().all(|c| c.is_alphanumeric() || "./:*-_".contains(c));
    (at > key_end && bare && !value.is_empty()).then(|| format!("{key}: missing quotes; use {key} = \"{value}\""))
}

/// The full key whose name or value is at `span`.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    for (key, value) in table {
        let name = key.get_ref();
        if key.span() == *span || value.span() == *span {
            return Some(name.to_string());
        }
        if let Some(below) = key_in(value.get_ref(), span) {
            return Some(format!("{name}{}{below}", if below.is_empty() { "" } else { "." }));
        }
    }
    None
}

/// As [`key_at`]; empty for an element of a list.
fn key_in(value: &DeValue<'_>, span: &Range<usize>) -> Option<String> {
    match value {
        DeValue::Table(table) => key_at(table, span),
        DeValue::Array(list) => list.iter().find_map(|element| {
            (element.span() == *span).then(String::new).or_else(|| key_in(element.get_ref(), span))
        }),
        _ => None,
    }
}
