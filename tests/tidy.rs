//! The style that runs: layers, budgets, banned words, read from the sources as text. Each rule has a bad snippet
//! below that it must find. An exception is a comment `// tidy: why` on the line, or above the function or file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
const PARAMETERS: usize = 5;
const NESTING: usize = 3;
const CRATES: usize = 60;

/// A layer, the modules it may use beside itself, and the crates. What is not here may use all.
const LAYERS: &[(&str, &[&str], &[&str])] = &[
    ("proto", &[], &["httparse", "sha1", "base64"]),
    ("policy", &["proto"], &[]),
    ("config", &["policy", "proto"], &["serde", "toml", "humantime", "parse_size", "ipnet", "log"]),
    ("metrics", &["proto"], &[]),
    ("log", &["proto", "policy", "config"], &["log", "env_logger", "humantime", "rtrb", "serde", "serde_json"]),
    ("tls", &["policy", "config"], &["rustls", "rustls_native_certs", "webpki", "aws_lc_rs", "base64", "humantime"]),
    ("worker", &["proto", "policy", "config", "metrics", "log", "tls"], &["slab"]),
];
/// Files of a layer that may use more crates.
const SHELL: &[(&str, &[&str])] = &[
    ("src/worker/sys.rs", &["mio", "socket2", "libc", "getrandom"]),
    ("src/worker/listener.rs", &["mio", "socket2", "libc"]),
];
const UNSAFE: &[&str] = &["src/os.rs", "src/worker/sys.rs"];
/// Of layers that own no socket, clock or thread.
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
/// `.expect(` with a text: others have methods of that name.
const BANNED: &[&str] = &[".unwrap()", ".expect(\"", "todo!", "unimplemented!", "dbg!"];
const PRINTING: &[&str] = &["println!", "eprintln!", "print!", "eprint!"];
const SPAWNING: &[&str] = &["thread::spawn", "thread::Builder", "thread::scope"];
const EMPTY_NAMES: &[&str] = &["Context", "Manager", "Helper", "Helpers", "Util", "Utils"];

#[derive(Debug, PartialEq, Eq)]
struct Violation {
    path: String,
    line: usize,
    rule: &'static str,
    what: String,
}

/// A file as text, as code (comments gone, literals empty), and which of its lines are tests.
struct Source {
    path: String,
    raw: Vec<String>,
    code: Vec<String>,
    test: Vec<bool>,
    crates: BTreeSet<String>,
}

impl Source {
    fn new(path: &str, text: &str, crates: &BTreeSet<String>) -> Source {
        let code: Vec<String> = code_of(text).lines().map(str::to_owned).collect();
        let test = test_lines(&code);
        let raw = text.lines().map(str::to_owned).collect();
        Source { path: path.to_owned(), raw, code, test, crates: crates.clone() }
    }

    /// The first part of the path below `src`, without `.rs`.
    fn layer(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or("");
        below.split('/').next().unwrap_or("").trim_end_matches(".rs")
    }

    /// Lines of code that are no tests, with their numbers from 0.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.code.iter().enumerate().zip(&self.test);
        numbered.filter(|((_, line), test)| !**test && !line.trim().is_empty()).map(|((n, line), _)| (n, line.as_str()))
    }

    /// There is a reason at the line, or in the comments and attributes right above it.
    fn excused(&self, line: usize) -> bool {
        let above = self.raw[..line].iter().rev().map(|line| line.trim());
        let above = above.take_while(|line| line.starts_with("//") || line.starts_with("#["));
        above
            .chain(self.raw.get(line).map(String::as_str))
            .any(|line| line.split_once("// tidy: ").is_some_and(|(_, why)| why.trim().len() >= 10))
    }

    fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut add = |line: usize, rule, what: String| {
            found.push(Violation { path: self.path.clone(), line: line + 1, rule, what });
        };
        self.check_file(&mut add);
        self.check_words(&mut add);
        self.check_layers(&mut add);
        for function in functions(self) {
            function.check(&mut add);
        }
        found.retain(|violation| violation.rule == "header" || !self.excused(violation.line - 1));
        found
    }

    fn check_file(&self, add: &mut dyn FnMut(usize, &'static str, String)) {
        if !self.raw.first().is_some_and(|line| line.starts_with("//!")) {
            add(0, "header", "does not begin with //!".to_owned());
        }
        let lines = self.lines().count();
        let first = self.lines().next().map_or(0, |(n, _)| n);
        if lines > FILE_LINES {
            add(first, "file", format!("{lines} lines of code"));
        }
        for (n, line) in self.raw.iter().enumerate() {
            for place in machine_paths() {
                if line.contains(&place) {
                    add(n, "path", line.trim().to_owned());
                }
            }
        }
    }

    fn check_words(&self, add: &mut dyn FnMut(usize, &'static str, String)) {
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
            if PURE.contains(&layer) || layer == "worker" {
                ban(PRINTING, "print");
            }
            if in_src && self.path != "src/server.rs" {
                ban(SPAWNING, "thread");
            }
            if !UNSAFE.contains(&self.path.as_str()) {
                ban(&["unsafe", "allow(unsafe_code)"], "unsafe");
            }
            for keyword in ["struct ", "enum ", "trait ", "type ", "union "] {
                let name = line.split_once(keyword).map_or("", |(_, rest)| rest);
                let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if EMPTY_NAMES.iter().any(|empty| name.ends_with(empty)) {
                    add(n, "name", name);
                }
            }
        }
    }

    fn check_layers(&self, add: &mut dyn FnMut(usize, &'static str, String)) {
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
    let ident = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
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

/// `name::` at the start of a path. The module `log` is reached by `crate::`, so it is told from the crate.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = line[..at].trim_end_matches("::");
        let rooted = before.len() < at;
        let last = before.chars().next_back();
        let in_path = last.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '>');
        // `log::` alone may be either where the module is in scope; `::log::` is the crate.
        !in_path && (name != "log" || rooted)
    })
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let open = |c: Option<char>, edge: Option<char>| !(edge.is_some_and(part) && c.is_some_and(part));
        open(before, word.chars().next()) && open(after, word.chars().next_back())
    })
}

/// Where files of one machine lie. Put together here, so that this file has none.
fn machine_paths() -> Vec<String> {
    ["home", "root", "work", "tmp", "Users"].iter().map(|folder| format!("/{folder}/")).collect()
}

// --- the text of code

/// Comments and the insides of literals become spaces; lines stay.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = literal_end(&chars, i);
        match end {
            Some((end, keep)) => {
                out.extend(chars[i..i + keep].iter());
                out.extend(chars[i + keep..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
                i = end;
            }
            None => {
                out.push(chars[i]);
                i += 1;
            }
        }
    }
    out
}

/// If a comment or literal begins at `i`: where it ends, and how many of its characters stay.
fn literal_end(chars: &[char], i: usize) -> Option<(usize, usize)> {
    let at = |n: usize| chars.get(i + n).copied().unwrap_or('\0');
    let find =
        |from: usize, stop: &dyn Fn(usize) -> bool| (from..chars.len()).find(|n| stop(*n)).unwrap_or(chars.len());
    let in_name = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
    match (at(0), at(1)) {
        ('/', '/') => Some((find(i, &|n| chars[n] == '\n'), 0)),
        ('/', '*') => Some((block_comment_end(chars, i), 0)),
        ('"', _) => Some((string_end(chars, i + 1), 1)),
        ('r', '"' | '#') if !in_name || chars[i - 1] == 'b' => {
            let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
            if chars.get(i + 1 + hashes) != Some(&'"') {
                return None;
            }
            let closes = |n: usize| chars[n] == '"' && (1..=hashes).all(|h| chars.get(n + h) == Some(&'#'));
            Some(((find(i + 2 + hashes, &closes) + 1 + hashes).min(chars.len()), 0))
        }
        // A character, not a lifetime.
        ('\'', '\\') => Some(((find(i + 3, &|n| chars[n] == '\'') + 1).min(chars.len()), 1)),
        ('\'', _) if at(2) == '\'' => Some((i + 3, 1)),
        _ => None,
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

/// Lines of items under `#[cfg(test)]`.
fn test_lines(code: &[String]) -> Vec<bool> {
    let mut test = vec![false; code.len()];
    let mut n = 0;
    while n < code.len() {
        if code[n].trim().starts_with("#[cfg(test)]") {
            let end = item_end(code, n);
            test[n..=end].iter_mut().for_each(|line| *line = true);
            n = end;
        }
        n += 1;
    }
    test
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

// --- functions

struct Function {
    line: usize,
    name: String,
    parameters: usize,
    lines: usize,
    nesting: usize,
}

impl Function {
    fn check(&self, add: &mut dyn FnMut(usize, &'static str, String)) {
        let budgets = [
            (self.lines, FUNCTION_LINES, "function", "lines"),
            (self.parameters, PARAMETERS, "parameters", "parameters"),
            (self.nesting, NESTING, "nesting", "levels"),
        ];
        for (has, most, rule, unit) in budgets {
            if has > most {
                add(self.line, rule, format!("{} has {has} {unit}", self.name));
            }
        }
    }
}

fn functions(source: &Source) -> Vec<Function> {
    let mut found = Vec::new();
    for (n, line) in source.lines() {
        let Some(at) = line
            .match_indices("fn ")
            .map(|(at, _)| at)
            .find(|at| line[..*at].chars().next_back().is_none_or(|c| c == ' ' || c == '('))
        else {
            continue;
        };
        let name: String = line[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue;
        }
        let rest = [&line[at..], "\n", &source.code[n + 1..].join("\n")].concat();
        if let Some((parameters, body)) = parts(&rest) {
            let lines = rest[..body.1].lines().filter(|line| !line.trim().is_empty()).count();
            found.push(Function { line: n, name, parameters, lines, nesting: nesting(&rest[body.0..body.1]) });
        }
    }
    found
}

/// How many parameters beside `self`, and where the body begins and ends; `None` without a body.
fn parts(text: &str) -> Option<(usize, (usize, usize))> {
    let open = parameters_start(text)?;
    let (mut depth, mut angle, mut parameters, mut start) = (0, 0, 0, open + 1);
    let mut close = None;
    let counts = |part: &str| {
        let part = part.trim();
        let of_self = part.trim_start_matches(['&', ' ']).trim_start_matches("mut ");
        !part.is_empty() && of_self != "self" && !of_self.starts_with("self:") && !part.ends_with(" self")
    };
    let mut previous = ' ';
    for (i, c) in text.char_indices().skip_while(|(i, _)| *i < open) {
        match c {
            '(' | '[' | '{' => depth += 1,
            '<' => angle += 1,
            '>' if previous != '-' && previous != '=' => angle -= 1,
            ',' if depth == 1 && angle == 0 => {
                parameters += usize::from(counts(&text[start..i]));
                start = i + 1;
            }
            ')' | ']' | '}' => {
                depth -= 1;
                if depth == 0 {
                    parameters += usize::from(counts(&text[start..i]));
                    close = Some(i);
                    break;
                }
            }
            _ => {}
        }
        previous = c;
    }
    let close = close?;
    let body = text[close..].find(['{', ';']).map(|at| close + at).filter(|at| text[*at..].starts_with('{'))?;
    let mut depth = 0;
    for (i, c) in text[body..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return Some((parameters, (body, body + i + 1)));
        }
    }
    None
}

/// The parenthesis behind the name and its generics.
fn parameters_start(text: &str) -> Option<usize> {
    let (mut angle, mut previous) = (0, ' ');
    for (i, c) in text.char_indices() {
        match c {
            '<' => angle += 1,
            '>' if previous != '-' => angle -= 1,
            '(' if angle == 0 => return Some(i),
            '{' | ';' => return None,
            _ => {}
        }
        previous = c;
    }
    None
}

/// The deepest stack of `if`, `match`, `for`, `while`, `loop` in a body.
fn nesting(body: &str) -> usize {
    let inner = &body[1..body.len() - 1];
    let (mut stack, mut deepest, mut since) = (Vec::new(), 0, String::new());
    for (i, c) in inner.char_indices() {
        match c {
            '{' => {
                stack.push(is_control(&since));
                deepest = deepest.max(stack.iter().filter(|control| **control).count());
                since.clear();
            }
            '}' => {
                let control = stack.pop().unwrap_or(false);
                since.clear();
                let rest = inner[i + 1..].trim_start();
                // It was a pattern: `if let Some(Key { slot }) = key {`.
                if control && (rest.starts_with(')') || rest.starts_with("= ") || rest.starts_with(',')) {
                    since.push_str(" if ");
                }
            }
            ';' => since.clear(),
            c => since.push(c),
        }
    }
    deepest
}

fn is_control(statement: &str) -> bool {
    // `let ... else` leaves; it nests nothing.
    if has_word(statement, "let") && statement.trim_end().ends_with("else") {
        return false;
    }
    let keyword = ["if", "else", "match", "for", "while", "loop"].iter().any(|word| has_word(statement, word));
    keyword && !statement.trim_end().ends_with("=>")
}

// --- the whole house

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

fn below(folder: &str) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// Dependencies as they are written in paths.
fn dependencies() -> BTreeSet<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let names = section.lines().filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")));
    names.collect()
}

/// `#[cfg(test)] mod name;` makes a file of tests.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[test]
fn the_house_is_in_order() {
    let crates = dependencies();
    assert!(crates.contains("mio") && crates.contains("serde_json") && !crates.contains("tungstenite"));
    let files: Vec<_> = ["src", "loadtest/src"].into_iter().flat_map(below).collect();
    assert!(files.len() > 40, "only {} files were found", files.len());
    let tidy = files.iter().filter(|(path, _)| !is_test_file(path));
    let found: Vec<_> = tidy.flat_map(|(path, text)| Source::new(path, text, &crates).violations()).collect();
    let lines: Vec<_> = found.iter().map(|v| format!("{}:{}: {}: {}", v.path, v.line, v.rule, v.what)).collect();
    assert!(lines.is_empty(), "{} violations:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let mut files: Vec<_> = ["src", "loadtest/src", "tests", "benches"].into_iter().flat_map(below).collect();
    for name in
        ["Cargo.toml", "loadtest/Cargo.toml", "README.md", "ARCHITECTURE.md", "PERF.md", "src/config/example.toml"]
    {
        files.extend(std::fs::read_to_string(root().join(name)).map(|text| (name.to_owned(), text)));
    }
    for (path, text) in files {
        for (n, line) in text.lines().enumerate() {
            let found = machine_paths().into_iter().find(|place| line.contains(place.as_str()));
            assert_eq!(found, None, "{path}:{}: {line}", n + 1);
        }
    }
}

#[test]
fn the_default_build_is_small() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let args = ["tree", "-e", "normal", "--prefix", "none", "--locked", "--offline", "-p", "framegate"];
    let output = std::process::Command::new(cargo).args(args).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let crates: BTreeSet<_> = text.lines().filter(|line| !line.is_empty()).map(name).collect();
    assert!(crates.len() > 10 && crates.len() < CRATES, "{} crates: {crates:#?}", crates.len());
}

// --- the walker itself

fn rules(path: &str, text: &str) -> Vec<&'static str> {
    let crates = ["mio", "log", "slab", "httparse", "serde", "socket2"].map(str::to_owned).into();
    Source::new(path, text, &crates).violations().into_iter().map(|violation| violation.rule).collect()
}

fn body(text: &str) -> String {
    format!("//! Header.\nfn f() {{\n{text}\n}}\n")
}

#[test]
fn every_rule_finds_what_breaks_it() {
    let long = |n| body(&"    a();\n".repeat(n));
    let many = |n| format!("//! H.\n{}", "const A: u8 = 1;\n".repeat(n));
    let nested = body("if a { for b in c { match d { _ => { while e { f(); } } } } }");
    let use_ = |text: &str| format!("//! H.\nuse {text};\n");
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("src/a.rs", "fn f() {}\n".into(), &["header"]),
        ("src/a.rs", long(70), &["function"]),
        ("src/a.rs", many(501), &["file"]),
        ("src/a.rs", nested.clone(), &["nesting"]),
        ("src/a.rs", body("if let Some(K { s }) = a { if b { if c { if d { x } } } }"), &["nesting"]),
        ("src/a.rs", "//! H.\nfn f(a: A<B, C>, b: (D, E), c: F, d: G, e: H, g: I) {}\n".into(), &["parameters"]),
        ("src/a.rs", "//! H.\nfn f<T: Fn(A) -> B>(\n    &mut self,\n    a: A,\n    b: B,\n    c: C,\n    d: D,\n    e: E,\n    f: F,\n) {\n}\n".into(), &["parameters"]),
        ("src/a.rs", body("x.unwrap();"), &["word"]),
        ("src/a.rs", body("x.expect(\"y\");"), &["word"]),
        ("src/a.rs", body("todo!()"), &["word"]),
        ("src/a.rs", body("unimplemented!()"), &["word"]),
        ("loadtest/src/a.rs", body("dbg!(x);"), &["word"]),
        ("src/proto/a.rs", body("std::time::Instant::now();"), &["pure"]),
        ("src/policy/a.rs", body("SystemTime::now();"), &["pure"]),
        ("src/worker/a.rs", body("println!();"), &["print"]),
        ("src/proto/a.rs", body("eprintln!();"), &["print"]),
        ("src/control.rs", body("std::thread::spawn(f);"), &["thread"]),
        ("src/control.rs", body("thread::Builder::new();"), &["thread"]),
        ("src/control.rs", body("unsafe { x() }"), &["unsafe"]),
        ("src/a.rs", "//! H.\n#[allow(unsafe_code)]\nfn f() {}\n".into(), &["unsafe"]),
        ("loadtest/src/a.rs", body("unsafe { x() }"), &["unsafe"]),
        ("src/a.rs", "//! H.\npub struct PairManager;\n".into(), &["name"]),
        ("src/a.rs", "//! H.\npub(crate) enum Context<T> {}\n".into(), &["name"]),
        ("src/proto/a.rs", use_("crate::policy::route"), &["layer"]),
        ("src/proto.rs", use_("crate::worker"), &["layer"]),
        ("src/policy/a.rs", use_("crate::{proto::x, config::{y, z}}"), &["layer"]),
        ("src/config/a.rs", use_("crate::{\n    proto,\n    worker,\n}"), &["layer"]),
        ("src/metrics.rs", body("crate::worker::pair::x();"), &["layer"]),
        ("src/log/a.rs", use_("crate::server::Failure"), &["layer"]),
        ("src/worker/pump.rs", use_("crate::control::Control"), &["layer"]),
        ("src/worker/pump.rs", use_("mio::Poll"), &["layer"]),
        ("src/worker/pump.rs", use_("socket2::SockRef"), &["layer"]),
        ("src/worker/pump.rs", body("::log::warn!(x);"), &["layer"]),
        ("src/proto/a.rs", use_("serde::Serialize"), &["layer"]),
        ("src/a.rs", format!("//! See {}x.\n", machine_paths()[0]), &["path"]),
    ];
    for (path, text, expected) in cases {
        assert_eq!(rules(path, &text), expected, "{path}: {text}");
    }
}

#[test]
fn what_is_in_order_is_left_alone() {
    let good = [
        ("src/worker/sys.rs", body("unsafe { libc() } mio::Poll::new(); socket2::x();")),
        ("src/worker/pump.rs", body("slab::Slab::new(); crate::log::Facts; crate::proto::x;")),
        ("src/worker/pump.rs", "//! H.\nuse crate::log::{Facts, record::field};\n".to_owned()),
        ("src/server.rs", body("std::thread::Builder::new();")),
        ("src/a.rs", body("x.unwrap_or_default(); y.expect_err(z); \".unwrap()\"; r#\"todo!\"#; '\"'; // dbg!(x)")),
        ("src/a.rs", body("loop { if a { match b { c => { let Some(d) = e else { return }; } } } }")),
        ("src/a.rs", body("/* unsafe /* todo!() */ */ let _: &'static str = \"\\\"unsafe\";")),
        ("src/a.rs", "//! H.\n#[cfg(test)]\nmod tests {\n    fn f() { x.unwrap(); }\n}\n".to_owned()),
        ("src/a.rs", "//! H.\n#[cfg(test)]\nuse crate::x;\nfn f() {}\n".to_owned()),
        ("src/a.rs", body(&"    a();\n".repeat(68))),
        (
            "src/a.rs",
            body("if a { for b in c { match d { K { e } if f => { g(); } _ => {} } } } else if b { c } else { d }"),
        ),
        ("src/a.rs", "//! H.\nfn f(&self, a: A<B, C>, b: (D, E), c: fn(F, G) -> H, d: I, e: J) -> K {}\n".to_owned()),
        ("src/a.rs", body("// tidy: the table of causes has no shorter form\n    x.unwrap();")),
        ("src/a.rs", "//! H.\npub struct ContextFree;\n".to_owned()),
    ];
    for (path, text) in good {
        assert_eq!(rules(path, &text), Vec::<&str>::new(), "{path}: {text}");
    }
    // A reason is needed, not a word.
    assert_eq!(rules("src/a.rs", &body("// tidy: ok\n    x.unwrap();")), ["word"]);
    // Code behind the tests is code.
    let behind = "//! H.\n#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nfn g() { x.unwrap(); }\n";
    assert_eq!(rules("src/a.rs", behind), ["word"]);
}
