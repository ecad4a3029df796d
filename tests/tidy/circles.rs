//! Circular imports between the files of one crate.
//!
//! A file depends on another if a path in its code leads to an item of the other: in a `use`, or in
//! a body by `crate::`, `super::`, `self::`, the name of a child module, or a name that a `use`
//! imports. A path is followed through modules and `use`s to the file that defines the item, so the
//! re-export by which it is imported makes no difference. These do not count:
//!
//! - `mod x;`: the module tree is a table of contents.
//! - Items that a child imports from a module above it. The child is part of that module: the
//!   parent may define what its children share (an error type, a trait) and call them. The opposite
//!   direction counts: a parent whose code uses a child depends on all that the child depends on.
//! - `pub use` in any form. Files that import through it depend on the file that defines the item.
//! - `use a::module;`: only the items taken from the module count.
//! - Code under `#[cfg(test)]`.
//!
//! Method calls are not seen; the type that has the method is, where it is named.

use super::source::Source;
use super::text::{is_name, name_of};
use std::collections::{BTreeMap, BTreeSet};

type Path = Vec<String>;

/// A group of files that depend on each other, and the dependencies inside it.
#[derive(Debug)]
pub struct Circle {
    pub files: Vec<String>,
    pub edges: Vec<String>,
}

/// One file as a module.
struct Module {
    file: String,
    path: Path,
    children: BTreeSet<String>,
    /// Names that a `use` imports, with their paths.
    names: BTreeMap<String, Path>,
    /// Paths that the code uses.
    used: BTreeSet<Path>,
}

/// The files of the crate whose sources are below `folder`.
pub fn circles(folder: &str, sources: &[Source]) -> Vec<Circle> {
    let modules: Vec<Module> = sources.iter().filter_map(|source| Module::new(folder, source)).collect();
    let by_path: BTreeMap<&[String], usize> =
        modules.iter().enumerate().map(|(n, module)| (module.path.as_slice(), n)).collect();
    let tree = Tree { modules: &modules, by_path };
    let edges: Vec<BTreeMap<usize, &Path>> = (0..modules.len()).map(|from| tree.edges(from)).collect();
    let reached: Vec<BTreeSet<usize>> = (0..modules.len()).map(|from| reach(from, &edges)).collect();
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for from in 0..modules.len() {
        let group: Vec<usize> = reached[from].iter().copied().filter(|to| reached[*to].contains(&from)).collect();
        if group.len() > 1 && group.iter().all(|file| seen.insert(*file)) {
            found.push(tree.circle(&group, &edges));
        }
    }
    found
}

/// All that can be reached from a file, by at least one step.
fn reach(from: usize, edges: &[BTreeMap<usize, &Path>]) -> BTreeSet<usize> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        next.extend(edges[file].keys().copied().filter(|to| reached.insert(*to)));
    }
    reached
}

struct Tree<'a> {
    modules: &'a [Module],
    by_path: BTreeMap<&'a [String], usize>,
}

impl Tree<'_> {
    /// The files that one depends on, each with a path that leads there.
    fn edges(&self, from: usize) -> BTreeMap<usize, &Path> {
        let mut edges = BTreeMap::new();
        for path in &self.modules[from].used {
            match self.resolve(from, path, 0) {
                Some(to) if !self.modules[from].path.starts_with(&self.modules[to].path) => {
                    edges.entry(to).or_insert(path);
                }
                _ => {}
            }
        }
        edges
    }

    /// The file that defines what a path in `module` names; `None` for a module itself and for
    /// other crates.
    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Option<usize> {
        let (first, rest) = path.split_first()?;
        let own = &self.modules[module];
        if depth > 16 {
            return None;
        }
        let at = match first.as_str() {
            "crate" => *self.by_path.get(&[][..])?,
            "self" => module,
            "super" => *self.by_path.get(own.path.split_last()?.1)?,
            name if own.children.contains(name) || own.names.contains_key(name) => {
                return self.walk(module, path, depth);
            }
            _ => return None,
        };
        if rest.first().is_some_and(|name| name == "super") {
            return self.resolve(at, rest, depth + 1);
        }
        self.walk(at, rest, depth)
    }

    /// Follows a path down from a module.
    fn walk(&self, mut at: usize, mut path: &[String], depth: usize) -> Option<usize> {
        while let Some((name, rest)) = path.split_first() {
            let module = &self.modules[at];
            let below = [module.path.as_slice(), std::slice::from_ref(name)].concat();
            if let Some(child) = self.by_path.get(below.as_slice()) {
                (at, path) = (*child, rest);
                continue;
            }
            // `use a::b` of that file, or an item of its own.
            let Some(target) = module.names.get(name) else { return Some(at) };
            let path = [target.as_slice(), rest].concat();
            return self.resolve(at, &path, depth + 1);
        }
        None
    }

    fn circle(&self, group: &[usize], edges: &[BTreeMap<usize, &Path>]) -> Circle {
        let name = |file: usize| self.modules[file].file.as_str();
        let inside = |from: usize| {
            let edges = edges[from].iter().filter(|(to, _)| group.contains(to));
            edges.map(move |(to, path)| format!("{} -> {} ({})", name(from), name(*to), path.join("::")))
        };
        Circle {
            files: group.iter().map(|file| name(*file).to_owned()).collect(),
            edges: group.iter().flat_map(|file| inside(*file)).collect(),
        }
    }
}

impl Module {
    /// `None` for a file that belongs to another crate: the program beside a library.
    fn new(folder: &str, source: &Source) -> Option<Module> {
        let below = source.path.strip_prefix(folder)?.strip_prefix('/')?.strip_suffix(".rs")?;
        let mut path: Path = below.split('/').map(str::to_owned).collect();
        if path.last().is_some_and(|last| last == "mod") || below == "lib" || (below == "main" && folder != "src") {
            path.pop();
        }
        let lines: Vec<&str> = source.lines().map(|(_, line)| line).collect();
        let code = lines.join("\n");
        let tokens = tokens(&code);
        let (file, children) = (source.path.clone(), children(&tokens));
        let mut module = Module { file, path, children, names: BTreeMap::new(), used: BTreeSet::new() };
        module.read(&tokens);
        (below != "main" || folder != "src").then_some(module)
    }

    fn read(&mut self, tokens: &[&str]) {
        let mut i = 0;
        while i < tokens.len() {
            if tokens[i] == "use" && tokens.get(i + 1).is_some_and(|token| *token == "{" || is_ident(token)) {
                let mut paths = Vec::new();
                let end = tree(tokens, i + 1, &[], &mut paths);
                let reexport = i > 0 && (tokens[i - 1] == "pub" || tokens[i - 1] == ")");
                self.import(paths, reexport);
                i = end;
            } else {
                i += self.follow(&tokens[i..], i > 0 && tokens[i - 1] == "::");
            }
        }
    }

    fn import(&mut self, paths: Vec<(Path, String)>, reexport: bool) {
        for (path, name) in paths {
            if !reexport {
                self.used.insert(path.clone());
            }
            self.names.insert(name, path);
        }
    }

    /// A path in a body; how many tokens it takes.
    fn follow(&mut self, tokens: &[&str], inside: bool) -> usize {
        let mut path: Path = Vec::new();
        let mut n = 0;
        while tokens.get(n).is_some_and(|token| is_ident(token)) {
            path.push(tokens[n].to_owned());
            n += 1;
            if tokens.get(n) != Some(&"::") {
                break;
            }
            n += 1;
        }
        if path.len() > 1 && !inside {
            self.used.insert(path);
        }
        n.max(1)
    }
}

/// Modules in files of their own.
fn children(tokens: &[&str]) -> BTreeSet<String> {
    let declared = tokens.windows(3).filter(|window| window[0] == "mod" && window[2] == ";");
    declared.map(|window| window[1].to_owned()).collect()
}

/// Reads a tree of `use` from `i` on: its paths, each with the name that it has here. Gives the
/// place behind it.
fn tree(tokens: &[&str], mut i: usize, prefix: &[String], paths: &mut Vec<(Path, String)>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(i) {
        match *token {
            "::" => i += 1,
            "{" => {
                i += 1;
                while tokens.get(i).is_some_and(|token| *token != "}") {
                    i = tree(tokens, i, &path, paths);
                    i += usize::from(tokens.get(i) == Some(&","));
                }
                return i + 1;
            }
            "as" => {
                paths.push((path, tokens.get(i + 1).map_or("_", |name| name).to_owned()));
                return i + 2;
            }
            // `a::{self}` is `a`.
            "self" if !path.is_empty() => i += 1,
            name if is_ident(name) || name == "*" => {
                path.push(name.to_owned());
                i += 1;
            }
            _ => break,
        }
    }
    let name = path.last().cloned().unwrap_or_default();
    paths.push((path, name));
    i
}

fn is_ident(token: &str) -> bool {
    token.starts_with(|c: char| is_name(c) && !c.is_numeric())
}

/// Names, `::`, and single characters.
fn tokens(code: &str) -> Vec<&str> {
    let (mut tokens, mut rest) = (Vec::new(), code.trim_start());
    while let Some(first) = rest.chars().next() {
        let len = match name_of(rest).len() {
            0 if rest.starts_with("::") => 2,
            0 => first.len_utf8(),
            n => n,
        };
        let (token, after) = rest.split_at(len);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}
