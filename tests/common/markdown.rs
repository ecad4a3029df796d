//! Markdown as the tests of the documentation read it: code blocks, and the commands in them.
//! Shared by `tests/docs.rs` and `loadtest/tests/docs.rs`, so it depends on neither package.

use std::path::{Path, PathBuf};

/// A fenced code block.
pub struct Block {
    /// The first word after the fence.
    pub language: String,
    /// Line of the opening fence, from 1.
    pub line: usize,
    pub text: String,
}

pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (n, line) in page.lines().enumerate() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            if let Some(block) = &mut open {
                block.text.push_str(line);
                block.text.push('\n');
            }
            continue;
        };
        match open.take() {
            Some(block) => blocks.push(block),
            None => open = Some(Block { language: info.trim().to_owned(), line: n + 1, text: String::new() }),
        }
    }
    assert!(open.is_none(), "a code block is not closed");
    blocks
}

/// README.md and the pages of the manual.
pub fn pages(root: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(root.join("docs/src")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = listed.filter(|path| path.extension().is_some_and(|ext| ext == "md")).collect();
    pages.push(root.join("README.md"));
    pages.sort();
    pages
}

/// A command in a shell block.
pub struct Call {
    /// Line of the block.
    pub line: usize,
    /// The program's name and its arguments.
    pub words: Vec<String>,
}

/// The calls of `program` in the shell blocks of a page. `cargo run` counts: with `-p
/// framegate-loadtest` as the load generator, otherwise as framegate.
pub fn calls(page: &str, program: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    for block in blocks(page).iter().filter(|block| block.language == "sh") {
        let text = block.text.replace("\\\n", " ");
        let called = text.lines().filter_map(|line| call(words(line), program));
        calls.extend(called.map(|words| Call { line: block.line, words }));
    }
    calls
}

fn call(words: Vec<String>, program: &str) -> Option<Vec<String>> {
    let is_cargo_run = words.first().is_some_and(|first| first == "cargo") && words.get(1).is_some_and(|w| w == "run");
    if !is_cargo_run {
        return words.first().is_some_and(|first| first == program).then_some(words);
    }
    let dashes = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (cargo, arguments) = words.split_at(dashes);
    let package = cargo.iter().skip_while(|word| *word != "-p").nth(1).map_or("framegate", String::as_str);
    let named = || std::iter::once(program.to_owned()).chain(arguments.iter().skip(1).cloned()).collect();
    (package == program).then(named)
}

/// Splits like a shell, as far as the manual needs it: quotes, and comments after a space.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
