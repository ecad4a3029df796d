//! Rust source split into code and comments. Not a parser: it knows literals, comments and braces,
//! nothing more.

/// A file by lines. `code` has spaces in place of comments and of the insides of literals,
/// `comments` has spaces in place of everything else.
pub struct Text {
    pub raw: Vec<String>,
    pub code: Vec<String>,
    pub comments: Vec<String>,
}

impl Text {
    pub fn new(text: &str) -> Text {
        let chars: Vec<char> = text.chars().collect();
        let (mut code, mut comments) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
        let blank = |c: &char| if *c == '\n' { '\n' } else { ' ' };
        let mut i = 0;
        while i < chars.len() {
            let span = span(&chars, i);
            let part = &chars[i..span.end];
            code.extend(part[..span.keep].iter());
            code.extend(part[span.keep..].iter().map(blank));
            comments.extend(part.iter().map(|c| if span.comment { *c } else { blank(c) }));
            i = span.end;
        }
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        Text { raw: lines(text), code: lines(&code), comments: lines(&comments) }
    }

    /// Whether a line has a comment and no code.
    pub fn is_comment(&self, line: usize) -> bool {
        self.code[line].trim().is_empty() && !self.comments[line].trim().is_empty()
    }

    /// Marks the lines of items under `#[cfg(test)]`.
    pub fn test_lines(&self) -> Vec<bool> {
        let mut test = vec![false; self.code.len()];
        let mut n = 0;
        while n < self.code.len() {
            if self.code[n].trim().starts_with("#[cfg(test)]") {
                let end = item_end(&self.code, n);
                test[n..=end].iter_mut().for_each(|line| *line = true);
                n = end;
            }
            n += 1;
        }
        test
    }
}

/// A comment, a literal, or one character of code: where it ends, and how many of its characters
/// stay in the code.
struct Span {
    end: usize,
    keep: usize,
    comment: bool,
}

fn span(chars: &[char], i: usize) -> Span {
    let at = |n: usize| chars.get(i + n).copied().unwrap_or('\0');
    let find =
        |from: usize, stop: &dyn Fn(usize) -> bool| (from..chars.len()).find(|n| stop(*n)).unwrap_or(chars.len());
    let comment = |end| Span { end, keep: 0, comment: true };
    let literal = |end: usize, keep| Span { end: end.min(chars.len()), keep, comment: false };
    let in_name = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
    match (at(0), at(1)) {
        ('/', '/') => comment(find(i, &|n| chars[n] == '\n')),
        ('/', '*') => comment(block_comment_end(chars, i)),
        ('"', _) => literal(string_end(chars, i + 1), 1),
        ('r', '"' | '#') if !in_name || chars[i - 1] == 'b' => {
            let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
            if chars.get(i + 1 + hashes) != Some(&'"') {
                return literal(i + 1, 1);
            }
            let closes = |n: usize| chars[n] == '"' && (1..=hashes).all(|h| chars.get(n + h) == Some(&'#'));
            literal(find(i + 2 + hashes, &closes) + 1 + hashes, 0)
        }
        // A character, not a lifetime.
        ('\'', '\\') => literal(find(i + 3, &|n| chars[n] == '\'') + 1, 1),
        ('\'', _) if at(2) == '\'' => literal(i + 3, 1),
        _ => literal(i + 1, 1),
    }
}

fn string_end(chars: &[char], mut i: usize) -> usize {
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

fn block_comment_end(chars: &[char], mut i: usize) -> usize {
    let mut depth = 0;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') if depth == 1 => return i + 2,
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
    }
    chars.len()
}

/// The line on which the item that begins at `start` ends: at its closing brace, or its semicolon.
fn item_end(code: &[String], start: usize) -> usize {
    let mut depth = 0;
    for (n, line) in code.iter().enumerate().skip(start) {
        for c in line.chars() {
            match c {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        return n;
                    }
                }
                ';' if depth == 0 => return n,
                _ => {}
            }
        }
    }
    code.len() - 1
}

pub fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The name at the start of `text`; empty if there is none.
pub fn name_of(text: &str) -> &str {
    &text[..text.find(|c| !is_name(c)).unwrap_or(text.len())]
}

/// Whether `word` occurs in `line` on its own, not as a part of a longer name.
pub fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let open = |c: Option<char>, edge: Option<char>| !(edge.is_some_and(is_name) && c.is_some_and(is_name));
        open(before, word.chars().next()) && open(after, word.chars().next_back())
    })
}
