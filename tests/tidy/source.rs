//! The rules for one source file: header, length, width, words, layers.

use super::functions;
use super::text::{Text, has_word, is_name, name_of};
use std::collections::BTreeSet;

const COMMENT_COLUMNS: usize = 100;
const CODE_COLUMNS: usize = 120;

/// A layer, the modules that it may use beside itself, and the crates. What is not listed may use
/// all.
const LAYERS: &[(&str, &[&str], &[&str])] = &[
    ("clock", &[], &[]),
    ("memory", &[], &[]),
    ("text", &[], &[]),
    ("watched", &["clock"], &[]),
    ("proto", &["text"], &["httparse", "sha1", "base64", "httpdate"]),
    ("service", &[], &[]),
    (
        "policy",
        &["proto", "text"],
        &[
            "arc_swap",
            "argon2",
            "aws_lc_rs",
            "base64",
            "bcrypt",
            "ipnet",
            "jsonwebtoken",
            "regex",
            "serde",
            "serde_json",
        ],
    ),
    ("config", &["policy", "proto", "memory"], &["base64", "serde", "toml", "humantime", "parse_size", "ipnet", "log"]),
    ("metrics", &["proto"], &[]),
    (
        "log",
        &["proto", "policy", "config", "clock"],
        &["log", "env_logger", "humantime", "rtrb", "serde", "serde_json"],
    ),
    (
        "tls",
        &["policy", "config", "memory", "text"],
        &["rustls", "rustls_native_certs", "webpki", "aws_lc_rs", "base64", "humantime"],
    ),
    (
        "health",
        &["proto", "policy", "config", "metrics", "tls", "memory"],
        &["mio", "socket2", "slab", "libc", "base64", "log"],
    ),
    ("worker", &["proto", "policy", "config", "metrics", "log", "tls", "memory", "text", "service"], &["slab"]),
];
/// Files of a layer that may use more crates.
const SHELL: &[(&str, &[&str])] = &[
    ("src/worker/sys.rs", &["mio", "socket2", "libc", "aws_lc_rs"]),
    ("src/worker/listener.rs", &["mio", "socket2", "libc"]),
];
const UNSAFE: &[&str] = &["src/os.rs", "src/worker/sys.rs"];
/// Layers without sockets, clocks and threads.
const PURE: &[&str] = &["proto", "policy"];
const PURE_BANNED: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "std::fs",
    "std::thread",
    "std::process",
];
/// Layers on the path of a message.
const LOCK_FREE: &[&str] = &["proto", "policy", "worker"];
const LOCKS: &[&str] = &["Mutex", "RwLock", "Condvar"];
/// `.expect(` with a text: other types have methods of that name.
const BANNED: &[&str] = &[".unwrap()", ".expect(\"", "todo!", "unimplemented!", "dbg!"];
const PRINTING: &[&str] = &["println!", "eprintln!", "print!", "eprint!"];
const SPAWNING: &[&str] = &["thread::spawn", "thread::Builder", "thread::scope"];
const EMPTY_NAMES: &[&str] = &["Context", "Manager", "Helper", "Helpers", "Util", "Utils"];
/// Words that make persons of connections, and verbs of speech for reports. Comments name the
/// actor.
const RIDDLES: &[&str] = &["whoever", "nobody", "somebody", "anybody", "is told", "is said"];

/// Reports a violation: the line from 0, the rule, what was found.
pub type Add<'a> = dyn FnMut(usize, &'static str, String) + 'a;

#[derive(Debug, PartialEq, Eq)]
pub struct Violation {
    pub path: String,
    pub line: usize,
    pub rule: &'static str,
    pub what: String,
}

/// Which rules a file is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// All of them.
    Product,
    /// Header, width, names, and wider budgets.
    Tests,
    /// Width and comments alone: benches and fuzz targets.
    Other,
}

impl Area {
    pub fn of(path: &str) -> Area {
        // `#[cfg(test)] mod tests;` makes a file of tests.
        let tests = path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/");
        match path.split('/').next() {
            _ if tests => Area::Tests,
            Some("src" | "loadtest") => Area::Product,
            _ => Area::Other,
        }
    }

    fn file_lines(self) -> usize {
        if self == Area::Tests { 600 } else { 500 }
    }
}

pub struct Source {
    pub path: String,
    pub area: Area,
    pub text: Text,
    /// The lines under `#[cfg(test)]`.
    test: Vec<bool>,
    crates: BTreeSet<String>,
}

impl Source {
    pub fn new(path: &str, text: &str, crates: &BTreeSet<String>) -> Source {
        let text = Text::new(text);
        let test = text.test_lines();
        Source { path: path.to_owned(), area: Area::of(path), text, test, crates: crates.clone() }
    }

    /// The first part of the path below `src`, without `.rs`.
    fn layer(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or("");
        below.split('/').next().unwrap_or("").trim_end_matches(".rs")
    }

    /// Lines of code that are no tests, with their numbers from 0.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.code.iter().enumerate().zip(&self.test);
        numbered.filter(|((_, line), test)| !**test && !line.trim().is_empty()).map(|((n, line), _)| (n, line.as_str()))
    }

    /// Whether there is a reason at the line, or in the comments and attributes right above it.
    fn excused(&self, line: usize) -> bool {
        let above = self.text.raw[..line].iter().rev().map(|line| line.trim());
        let above = above.take_while(|line| line.starts_with("//") || line.starts_with("#["));
        above
            .chain(self.text.raw.get(line).map(String::as_str))
            .any(|line| line.split_once("// tidy: ").is_some_and(|(_, why)| why.trim().len() >= 10))
    }

    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut add = |line: usize, rule, what: String| {
            found.push(Violation { path: self.path.clone(), line: line + 1, rule, what });
        };
        self.check_file(&mut add);
        self.check_width(&mut add);
        self.check_comments(&mut add);
        self.check_names(&mut add);
        functions::check(self, &mut add);
        functions::check_test_names(self, &mut add);
        if self.area == Area::Product {
            self.check_words(&mut add);
            self.check_layers(&mut add);
        }
        found.retain(|violation| violation.rule == "header" || !self.excused(violation.line - 1));
        found
    }

    fn check_file(&self, add: &mut Add<'_>) {
        // The parent of `tests.rs` has the header for both.
        let headed = self.area != Area::Other && !self.path.ends_with("/tests.rs");
        if headed && !self.text.raw.first().is_some_and(|line| line.starts_with("//!")) {
            add(0, "header", "does not begin with //!".to_owned());
        }
        let lines = self.lines().count();
        let first = self.lines().next().map_or(0, |(n, _)| n);
        if lines > self.area.file_lines() {
            add(first, "file", format!("{lines} lines of code"));
        }
        for (n, line) in self.text.raw.iter().enumerate() {
            for place in machine_paths() {
                if line.contains(&place) {
                    add(n, "path", line.trim().to_owned());
                }
            }
        }
    }

    /// Comments are read as prose: they are narrower than code. A URL cannot be broken, and neither
    /// can a line inside a literal.
    fn check_width(&self, add: &mut Add<'_>) {
        for (n, line) in self.text.raw.iter().enumerate() {
            let columns = line.chars().count();
            let (most, rule) = match self.text.is_comment(n) {
                true if line.contains("://") && line.split_whitespace().count() == 2 => continue,
                true => (COMMENT_COLUMNS, "comment width"),
                false if is_inside_literal(&self.text.code[n]) => continue,
                false => (CODE_COLUMNS, "code width"),
            };
            if columns > most {
                add(n, rule, format!("{columns} columns"));
            }
        }
    }

    fn check_comments(&self, add: &mut Add<'_>) {
        for (n, line) in self.text.comments.iter().enumerate() {
            let line = line.to_lowercase();
            for word in RIDDLES.iter().filter(|word| has_word(&line, word)) {
                add(n, "riddle", (*word).to_owned());
            }
        }
    }

    fn check_names(&self, add: &mut Add<'_>) {
        for (n, line) in self.lines() {
            for keyword in ["struct ", "enum ", "trait ", "type ", "union "] {
                let name = name_of(line.split_once(keyword).map_or("", |(_, rest)| rest));
                if EMPTY_NAMES.iter().any(|empty| name.ends_with(empty)) {
                    add(n, "name", name.to_owned());
                }
            }
        }
    }

    fn check_words(&self, add: &mut Add<'_>) {
        let in_src = self.path.starts_with("src/");
        let layer = self.layer();
        for (n, line) in self.lines() {
            let mut ban = |words: &[&str], rule| {
                words.iter().filter(|word| has_word(line, word)).for_each(|_| add(n, rule, line.trim().to_owned()));
            };
            ban(BANNED, "word");
            if PURE.contains(&layer) {
                ban(PURE_BANNED, "pure");
            }
            if LOCK_FREE.contains(&layer) {
                ban(LOCKS, "lock");
                ban(PRINTING, "print");
            }
            if in_src && self.path != "src/server.rs" {
                ban(SPAWNING, "thread");
            }
            if !UNSAFE.contains(&self.path.as_str()) {
                ban(&["unsafe", "allow(unsafe_code)"], "unsafe");
            }
        }
    }

    fn check_layers(&self, add: &mut Add<'_>) {
        let layer = self.layer();
        let Some((_, modules, crates)) = LAYERS.iter().find(|(name, ..)| *name == layer) else { return };
        let more = SHELL.iter().find(|(path, _)| *path == self.path).map_or(&[][..], |(_, more)| more);
        for (n, name) in self.used_modules() {
            if name != layer && !modules.contains(&name.as_str()) {
                add(n, "layer", format!("{layer} uses crate::{name}"));
            }
        }
        for (n, line) in self.lines() {
            for name in &self.crates {
                let allowed = crates.contains(&name.as_str()) || more.contains(&name.as_str());
                if !allowed && names_crate(line, name) {
                    add(n, "layer", format!("{layer} uses the crate {name}"));
                }
            }
        }
    }

    /// What follows `crate::`, groups taken apart.
    fn used_modules(&self) -> Vec<(usize, String)> {
        let mut used = Vec::new();
        // A group may go over several lines.
        let lines: Vec<_> = self.lines().collect();
        for (at, (n, line)) in lines.iter().enumerate() {
            for (start, _) in line.match_indices("crate::") {
                let rest: String = lines[at..].iter().map(|(_, line)| *line).collect::<Vec<_>>().join(" ");
                let rest = &rest[start + "crate::".len()..];
                used.extend(first_names(rest).into_iter().map(|name| (*n, name)));
            }
        }
        used
    }
}

/// `a::b` is `a`; `{a::{x, y}, b}` is `a` and `b`.
fn first_names(rest: &str) -> Vec<String> {
    let ident = |text: &str| name_of(text.trim()).to_owned();
    let Some(group) = rest.strip_prefix('{') else { return vec![ident(rest)] };
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(ident(&group[start..i]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(ident(&group[start..i]));
                start = i + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// `name::` at the start of a path. The module `log` is reached by `crate::`, so it must be
/// distinguished from the crate.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = line[..at].trim_end_matches("::");
        let rooted = before.len() < at;
        let last = before.chars().next_back();
        let in_path = last.is_some_and(|c| is_name(c) || c == '>');
        // `log::` alone may be either where the module is in scope; `::log::` is the crate.
        !in_path && (name != "log" || rooted)
    })
}

/// Whether a line of code has nothing but the inside of a literal, or its end.
fn is_inside_literal(code: &str) -> bool {
    code.chars().all(|c| matches!(c, ' ' | ',' | ';' | ')'))
}

/// Where the files of one machine are. Put together here, so that this file has none of them.
pub fn machine_paths() -> Vec<String> {
    ["home", "root", "work", "tmp", "Users"].iter().map(|folder| format!("/{folder}/")).collect()
}
