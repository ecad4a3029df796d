//! The style that runs: layers, budgets, widths, words, circles of imports, read from the sources
//! as text. `cases.rs` has a bad snippet for each rule, which it must find. An exception is a
//! comment `// tidy: why` on the line, or above the function or file.

mod cases;
mod circles;
mod functions;
mod manifest;
mod markdown;
mod source;
mod text;

use source::{Area, Source};
use std::path::{Path, PathBuf};

/// The most crates of the default build, framegate itself included.
const CRATES: usize = 150;
/// The same without features: a relay with TLS stays under 60.
const CRATES_WITHOUT_FEATURES: usize = 59;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn walk(folder: &Path, ending: &str, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["target", "node_modules"].contains(&name.as_str()) {
            walk(&path, ending, into);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            into.push(path);
        }
    }
}

/// Files below a folder with their text, by their paths in the project.
fn below(folder: &str, ending: &str) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    walk(&root().join(folder), ending, &mut paths);
    paths.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn sources() -> Vec<Source> {
    let crates = manifest::dependencies(&read("Cargo.toml"));
    assert!(crates.contains("mio") && crates.contains("serde_json") && !crates.contains("tungstenite"));
    let files = ["src", "loadtest", "tests", "benches", "fuzz"].into_iter().flat_map(|folder| below(folder, "rs"));
    let sources: Vec<_> = files.map(|(path, text)| Source::new(&path, &text, &crates)).collect();
    assert!(sources.len() > 100, "only {} files were found", sources.len());
    sources
}

#[track_caller]
fn assert_none(what: &str, lines: &[String]) {
    assert!(lines.is_empty(), "{} {what}:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn sources_follow_the_rules() {
    let found: Vec<_> = sources().iter().flat_map(Source::violations).collect();
    let lines: Vec<_> = found.iter().map(|v| format!("{}:{}: {}: {}", v.path, v.line, v.rule, v.what)).collect();
    assert_none("violations", &lines);
}

#[test]
fn files_import_each_other_without_circles() {
    let mut sources = sources();
    sources.retain(|source| source.area == Area::Product);
    let found = ["src", "loadtest/src"].into_iter().flat_map(|folder| circles::circles(folder, &sources));
    let text = |circle: circles::Circle| format!("{}\n    {}", circle.files.join(", "), circle.edges.join("\n    "));
    assert_none("circles", &found.map(text).collect::<Vec<_>>());
}

#[test]
fn prose_fits_the_width() {
    let mut files: Vec<_> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|n| (n.to_owned(), read(n))).into();
    if root().join("docs/src").is_dir() {
        files.extend(below("docs/src", "md"));
    }
    let long = files.iter().flat_map(|(name, text)| {
        markdown::long_lines(text).into_iter().map(move |(n, columns)| format!("{name}:{n}: {columns} columns"))
    });
    assert_none("long lines", &long.collect::<Vec<_>>());
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let mut files: Vec<_> =
        ["src", "loadtest", "tests", "benches", "fuzz"].into_iter().flat_map(|folder| below(folder, "rs")).collect();
    for name in ["Cargo.toml", "loadtest/Cargo.toml", "README.md", "ARCHITECTURE.md", "PERF.md", "CHANGELOG.md"] {
        files.push((name.to_owned(), read(name)));
    }
    files.extend(below("src", "toml"));
    files.extend(["toml", "conf", "cfg", "yaml"].into_iter().flat_map(|ending| below("examples", ending)));
    for (path, text) in files {
        for (n, line) in text.lines().enumerate() {
            let found = source::machine_paths().into_iter().find(|place| line.contains(place.as_str()));
            assert_eq!(found, None, "{path}:{}: {line}", n + 1);
        }
    }
}

#[test]
fn builds_stay_within_their_crate_budgets() {
    for (flags, most) in [(&[][..], CRATES), (&["--no-default-features"][..], CRATES_WITHOUT_FEATURES)] {
        let crates = manifest::built(flags);
        let fits = (11..=most).contains(&crates.len());
        assert!(fits, "{} crates with {flags:?}, at most {most}: {crates:#?}", crates.len());
    }
}

#[test]
fn each_dependency_has_its_reason() {
    for name in ["Cargo.toml", "loadtest/Cargo.toml", "fuzz/Cargo.toml"] {
        assert_none(&format!("dependencies without a comment in {name}"), &manifest::without_reason(&read(name)));
    }
}

#[test]
fn licences_are_permissive() {
    let licences = manifest::licences();
    assert!(licences.len() > 100, "only {} crates", licences.len());
    let bad = licences.iter().filter(|(_, licence)| !manifest::is_satisfied(licence));
    assert_none("licences to look at", &bad.map(|(name, licence)| format!("{name}: {licence}")).collect::<Vec<_>>());
}
