//! What the project depends on: how much, why, and under which licences.
//!
//! Known vulnerabilities are not looked up: the RustSec database is a git repository, and no
//! package with its content was found on crates.io, PyPI or npm. A test that works offline cannot
//! read it.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// Licences that ask for no more than their text and the name of the author in what is shipped.
const LICENCES: &[&str] =
    &["MIT", "MIT-0", "Apache-2.0", "BSD-3-Clause", "ISC", "Zlib", "0BSD", "BSL-1.0", "Unicode-3.0"];

/// The tables of a manifest that name crates.
const TABLES: &[&str] = &["[dependencies]", "[dev-dependencies]", "[build-dependencies]"];

fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(args).current_dir(super::root()).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The crates that `cargo build -p framegate` compiles, with these flags, framegate itself
/// included.
pub fn built(flags: &[&str]) -> BTreeSet<String> {
    let args = ["tree", "-e", "normal", "--prefix", "none", "--locked", "--offline", "-p", "framegate"];
    let text = cargo(&[&args[..], flags].concat());
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    text.lines().filter(|line| !line.is_empty()).map(name).collect()
}

/// Names of direct dependencies as they are written in paths.
pub fn dependencies(manifest: &str) -> BTreeSet<String> {
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    section.lines().filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_"))).collect()
}

/// Direct dependencies without a reason: a comment behind the line, or right above it.
pub fn without_reason(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut inside, mut above) = (false, false);
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = TABLES.contains(&line);
        }
        if let Some((name, value)) = line.split_once(" = ").filter(|_| inside && !line.starts_with('#')) {
            let behind = value.rsplit_once(" # ").is_some_and(|(_, why)| !why.contains('"'));
            if !above && !behind {
                found.push(name.to_owned());
            }
        }
        above = line.starts_with('#');
    }
    found
}

/// Crates of the whole tree, tests and load generator included, with their licence expressions.
pub fn licences() -> Vec<(String, String)> {
    let target = cargo_target();
    let args = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &target];
    let metadata: Value = serde_json::from_str(&cargo(&args)).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let used: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let used = packages.filter(|package| package["id"].as_str().is_some_and(|id| used.contains(id)));
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    used.map(|package| (text(&package["name"]), text(&package["license"]))).collect()
}

/// The platform that this test runs on: crates for others need not be on the disk.
fn cargo_target() -> String {
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// Whether an SPDX expression can be satisfied with the licences of the list. AND binds tighter
/// than OR; `/` is the old way to write OR.
pub fn is_satisfied(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest) == Some(true) && rest.is_empty()
}

/// `None` where a licence is missing, as in all below.
fn any_of(words: &mut &[&str]) -> Option<bool> {
    let mut satisfied = all_of(words)?;
    while let Some((&"OR", rest)) = words.split_first() {
        *words = rest;
        satisfied |= all_of(words)?;
    }
    Some(satisfied)
}

fn all_of(words: &mut &[&str]) -> Option<bool> {
    let mut satisfied = one(words)?;
    while let Some((&"AND", rest)) = words.split_first() {
        *words = rest;
        satisfied &= one(words)?;
    }
    Some(satisfied)
}

/// A licence, with an exception or without, or a parenthesis. An exception only allows more.
fn one(words: &mut &[&str]) -> Option<bool> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    if *first == "(" {
        let satisfied = any_of(words)?;
        let (closing, rest) = words.split_first()?;
        *words = rest;
        return (*closing == ")").then_some(satisfied);
    }
    if let [word, _, rest @ ..] = *words
        && *word == "WITH"
    {
        *words = rest;
    }
    Some(LICENCES.contains(first))
}
