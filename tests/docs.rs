//! README.md and the manual in `docs/` are checked against the sources: generated pages are up to
//! date (`UPDATE_DOCS=1 cargo test --test docs` rewrites them), tables agree with those of the
//! library, links resolve, configuration examples and commands are accepted, and the names they use
//! exist.

#[path = "common/markdown.rs"]
mod markdown;

use framegate::config;
use framegate::metrics::{
    self, Asked, ClientTable, Denied, Discovered, KeySet, Process, Shard, Shared, UpstreamHealth,
};
use framegate::policy::health::State;
use framegate::proto::end::CAUSES;
use markdown::{blocks, calls, pages};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn page(name: &str) -> PathBuf {
    root().join("docs/src").join(name)
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Compares a page with what it should be, or rewrites it with `UPDATE_DOCS=1`.
#[track_caller]
fn expect_page(name: &str, expected: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(page(name), expected).unwrap();
    }
    let is = read(&page(name));
    let differs = is.lines().zip(expected.lines()).position(|(is, expected)| is != expected);
    let line = differs.unwrap_or_else(|| is.lines().count().min(expected.lines().count()));
    assert!(
        is == expected,
        "docs/src/{name} is out of date in line {}: run UPDATE_DOCS=1 cargo test --test docs",
        line + 1
    );
}

// --- the configuration reference

const REFERENCE_HEAD: &str = "\
<!-- Generated from src/config/example.toml: UPDATE_DOCS=1 cargo test --test docs -->

# Configuration reference

`framegate example-config` prints the same text as a commented file. [Configuration](configuration.md)
has the structure and the common tasks.

Durations are written `\"250ms\"`, `\"30s\"`, `\"5m\"` or `\"1h 30m\"`, sizes `\"512B\"`, `\"64KiB\"`
or `\"1MiB\"`.
";

/// Keys that share a description, with their lines of the example.
#[derive(Default)]
struct Entry {
    text: Vec<String>,
    keys: Vec<String>,
    required: Vec<String>,
    defaults: Vec<String>,
    examples: Vec<String>,
}

impl Entry {
    fn add(&mut self, line: &str) {
        let (kind, line) = match (line.strip_prefix("# e.g. "), line.strip_prefix('#')) {
            (Some(line), _) => (&mut self.examples, line),
            (None, Some(line)) => (&mut self.defaults, line),
            (None, None) => (&mut self.required, line),
        };
        kind.push(line.to_owned());
        let key = line.split_once(" = ").unwrap_or_else(|| panic!("not a key: {line}")).0.to_owned();
        if !self.keys.contains(&key) {
            self.keys.push(key);
        }
    }

    fn write(&self, out: &mut String) {
        let code = |lines: &[String]| lines.iter().map(|line| format!("`{line}`")).collect::<Vec<_>>().join(", ");
        let keys = code(&self.keys);
        let text = prose(&self.text);
        let mut facts = Vec::new();
        if !self.required.is_empty() {
            facts.push(format!("Required. Example: {}.", code(&self.required)));
        }
        if !self.defaults.is_empty() {
            facts.push(format!("Default: {}.", code(&self.defaults)));
        }
        if facts.is_empty() {
            facts.push("No default.".to_owned());
        }
        if !self.examples.is_empty() {
            facts.push(format!("Example: {}.", code(&self.examples)));
        }
        writeln!(out, "\n### {keys}\n\n{text}\n\n{}", facts.join(" ")).unwrap();
    }
}

/// Comment lines as Markdown.
fn prose(lines: &[String]) -> String {
    lines.join("\n").replace('*', "\\*").replace('<', "&lt;")
}

fn reference(example: &str) -> String {
    let mut out = REFERENCE_HEAD.to_owned();
    let (mut comments, mut entry) = (Vec::new(), Entry::default());
    let body = &example[example.find("\n\n").unwrap()..];
    for line in body.lines().chain(["[end]"]) {
        let is_comment = line == "#" || line.starts_with("# ") && !line.starts_with("# e.g. ");
        if is_comment {
            comments.push(line.trim_start_matches('#').trim().to_owned());
            continue;
        }
        let starts_entry = line.is_empty() || line.starts_with('[') || !comments.is_empty();
        if starts_entry && !entry.keys.is_empty() {
            std::mem::take(&mut entry).write(&mut out);
        }
        if line.starts_with('[') && line != "[end]" {
            let text = prose(&std::mem::take(&mut comments));
            writeln!(out, "\n## `{line}`\n{}{text}", if text.is_empty() { "" } else { "\n" }).unwrap();
        } else if line.contains(" = ") {
            entry.text.append(&mut comments);
            entry.add(line);
        }
    }
    while out.contains("\n\n\n") {
        out = out.replace("\n\n\n", "\n\n");
    }
    out
}

#[test]
fn configuration_reference_is_up_to_date() {
    expect_page("configuration-reference.md", &reference(config::EXAMPLE));
}

#[test]
fn reference_has_every_key_of_the_example() {
    let text = reference(
        "# head\n\n# A set.\n[[a]]\n# First.\nx = 1\n#w = 0\n# Two\n# lines *.\n#y = 2\n#z = 3\n# e.g. z = 4\n\n\
        [b]\n# e.g. q = 5\n",
    );
    assert!(text.ends_with(
        "\n## `[[a]]`\n\nA set.\n\n### `x`, `w`\n\nFirst.\n\nRequired. Example: `x = 1`. Default: `w = 0`.\n\n\
        ### `y`, `z`\n\nTwo\nlines \\*.\n\n\
         Default: `y = 2`, `z = 3`. Example: `z = 4`.\n\n## `[b]`\n\n### `q`\n\nNo default. Example: `q = 5`.\n"
    ));
}

// --- metrics

const BEGIN: &str = "<!-- BEGIN GENERATED: UPDATE_DOCS=1 cargo test --test docs -->\n";
const END: &str = "<!-- END GENERATED -->";

fn rendered_metrics() -> String {
    let endpoints = State::ALL.map(|state| (state.name(), 0)).to_vec();
    let checked =
        UpstreamHealth { endpoints, checks: Some([0; 3]), changes: Some([0; 2]), ..UpstreamHealth::default() };
    let discovered =
        Discovered { upstream: "app".into(), source: "dns", endpoints: 1, age_ms: 1, failures: 0, changes: 1 };
    let key_sets = vec![KeySet { auth: "users".into(), keys: 2, age_ms: Some(1), failures: 0 }];
    let denied = Denied { file: "denied.txt".into(), networks: 1, age_ms: 1, failures: 0 };
    let process = Process {
        key_sets,
        denied: vec![denied],
        discovered: vec![discovered],
        shared: Some(Shared::default()),
        asked: vec![Asked { auth: "sso".into(), ..Asked::default() }],
        client_tables: vec![ClientTable { of: "chat".into(), limit: "per_address", ..ClientTable::default() }],
        certificates: vec![("chain.pem".into(), 1)],
        upstreams: vec![UpstreamHealth { upstream: "app".into(), ..checked }],
        version: "0.1.0",
        ..Process::default()
    };
    metrics::render(&[Arc::new(Shard::default())], process)
}

/// Labels of a sample and their values, without the bounds of histograms.
fn labels(sample: &str) -> Vec<(&str, &str)> {
    let inside = sample.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(inside, _)| inside);
    let pairs = inside.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name, value.trim_matches('"'))).filter(|(name, _)| *name != "le").collect()
}

fn metrics_table(text: &str) -> String {
    let mut out = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for part in text.split("# HELP ").skip(1) {
        let mut lines = part.lines();
        let (name, help) = lines.next().unwrap().split_once(' ').unwrap();
        let kind = lines.next().unwrap().rsplit(' ').next().unwrap();
        let mut values: Vec<(&str, BTreeSet<&str>)> = Vec::new();
        for (label, value) in lines.flat_map(labels) {
            match values.iter_mut().find(|(known, _)| *known == label) {
                Some((_, values)) => drop(values.insert(value)),
                None => values.push((label, BTreeSet::from([value]))),
            }
        }
        let labels: Vec<_> = values.iter().map(|(label, values)| label_text(label, values)).collect();
        writeln!(out, "| `{name}` | {kind} | {} | {help} |", labels.join("; ")).unwrap();
    }
    out
}

/// The values are listed where they are a few fixed words.
fn label_text(label: &str, values: &BTreeSet<&str>) -> String {
    let is_word = |value: &&str| value.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
    if (2..=8).contains(&values.len()) && values.iter().all(is_word) {
        let words: Vec<_> = values.iter().copied().collect();
        return format!("`{label}`: {}", words.join(", "));
    }
    format!("`{label}`")
}

#[test]
fn metrics_table_is_up_to_date() {
    let text = read(&page("metrics.md"));
    let (before, rest) = text.split_once(BEGIN).expect("the mark where the table begins");
    let (_, after) = rest.split_once(END).expect("the mark where the table ends");
    let expected = format!("{before}{BEGIN}\n{}\n{END}{after}", metrics_table(&rendered_metrics()));
    expect_page("metrics.md", &expected);
}

// --- causes

/// Cells of all table rows that begin with a name in backticks.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let body = text.lines().filter(|line| line.starts_with("| `"));
    body.map(cells).filter(|cells| cells.len() == 4).collect()
}

#[test]
fn every_cause_is_documented_as_it_is() {
    let or_dash = |number: u16| if number == 0 { "-".to_owned() } else { number.to_string() };
    let rows = rows(&read(&page("close-codes-and-causes.md")));
    for (n, info) in CAUSES.iter().enumerate() {
        let (status, code) = (or_dash(info.status), or_dash(info.code));
        let expected = format!("| `{}` | {status} | {code} | {} |", info.name, info.text);
        let row = rows.get(n).unwrap_or_else(|| panic!("missing row: {expected}"));
        let is_same = row[..3] == [format!("`{}`", info.name), status, code];
        assert!(is_same && row[3].ends_with('.'), "row {row:?} should begin as {expected}");
    }
    assert_eq!(rows.len(), CAUSES.len(), "more rows than causes");
}

// --- links and structure

/// A page as mdbook sees it: `{{#include FILE}}` and `{{#include FILE:ANCHOR}}` replaced.
fn expanded(path: &Path) -> String {
    let mut text = read(path);
    while let Some((before, rest)) = text.split_once("{{#include ") {
        let (target, after) = rest.split_once("}}").expect("an include that ends");
        let (file, anchor) = target.split_once(':').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
        let included = read(&path.parent().unwrap().join(file));
        let part = match anchor {
            None => included,
            Some(anchor) => {
                let marked =
                    || included.split_once(&format!("<!-- ANCHOR: {anchor} -->"))?.1.split_once("<!-- ANCHOR_END: ");
                marked().unwrap_or_else(|| panic!("{}: no anchor {anchor} in {file}", shown(path))).0.to_owned()
            }
        };
        text = format!("{before}{part}{after}");
    }
    text
}

/// Lines outside code blocks, without inline code.
fn prose_lines(text: &str) -> String {
    let mut fenced = false;
    let mut out = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            out.extend(line.split('`').step_by(2));
            out.push('\n');
        }
    }
    out
}

fn links(text: &str) -> Vec<String> {
    let prose = prose_lines(text);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).filter(|target| !target.contains("://")).collect()
}

/// The fragment of a heading, as mdbook and GitHub make it.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// What is wrong with a link from `path`; links of the manual may not leave it.
fn broken(path: &Path, target: &str) -> Option<String> {
    let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
    let file = if file.is_empty() { path.to_path_buf() } else { path.parent().unwrap().join(file) };
    let Ok(file) = file.canonicalize() else { return Some("does not exist".into()) };
    let manual = page("").canonicalize().unwrap();
    if path.starts_with(page("")) && !file.starts_with(&manual) {
        return Some("leaves the manual".into());
    }
    let has_heading =
        || expanded(&file).lines().any(|line| line.starts_with('#') && slug(line.trim_start_matches('#')) == fragment);
    (!fragment.is_empty() && !has_heading()).then(|| "has no such heading".into())
}

#[test]
fn links_resolve() {
    let mut files = pages(root());
    files.extend(["ARCHITECTURE.md", "CHANGELOG.md", "PERF.md"].map(|name| root().join(name)));
    let mut found = Vec::new();
    for file in files {
        for target in links(&expanded(&file)) {
            found.extend(broken(&file, &target).map(|why| format!("{}: {target} {why}", shown(&file))));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_broken_link_is_found() {
    let text = "[a](metrics.md) `[b](no.md)` ![c](no.svg)\n```\n[d](no)\n```\n\
        [e](metrics.md#none) [f](../book.toml) [g](https://x)";
    let targets = links(text);
    assert_eq!(targets, ["metrics.md", "no.svg", "metrics.md#none", "../book.toml"]);
    let found: Vec<_> = targets.iter().map(|target| broken(&page("tls.md"), target)).collect();
    let why = |text: &str| Some(text.to_owned());
    assert_eq!(found, [None, why("does not exist"), why("has no such heading"), why("leaves the manual")]);
    assert_eq!(broken(&page("tls.md"), "metrics.md#what-to-watch"), None);
}

#[test]
fn summary_lists_every_page_once() {
    let mut listed = links(&read(&page("SUMMARY.md")));
    listed.sort();
    let names = pages(root()).into_iter().filter(|path| path.starts_with(page("")));
    let names = names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    let names: Vec<_> = names.filter(|name| name != "SUMMARY.md").collect();
    assert_eq!(listed, names);
}

// --- examples and names

/// A part of a file becomes a whole one: a listener, a route and the upstreams it names are added
/// where missing.
fn completed(part: &str) -> String {
    // Files that must be there.
    let denied = std::env::temp_dir().join("framegate-docs-denied.txt");
    std::fs::write(&denied, "# none\n").unwrap();
    let password = std::env::temp_dir().join("framegate-docs-redis.password");
    std::fs::write(&password, "secret\n").unwrap();
    let file = part.replace("/etc/framegate/denied.txt", &denied.display().to_string());
    let mut file = file.replace("/etc/framegate/redis.password", &password.display().to_string());
    file = file.replace("\"/srv/site\"", &format!("\"{}\"", std::env::temp_dir().display()));
    if !file.contains("[[route]]") {
        file += "\n[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n";
    }
    if !file.contains("[[listener]]") {
        file += "\n[[listener]]\nlisten = \"0.0.0.0:8080\"\n";
    }
    file
}

#[test]
fn configuration_examples_are_valid() {
    let mut count = 0;
    for path in pages(root()) {
        for block in blocks(&read(&path)).iter().filter(|block| block.language == "toml") {
            let name = format!("{}, example in line {}", shown(&path), block.line);
            if let Err(error) = config::parse(&completed(&block.text), &name) {
                panic!("{error}\n---\n{}", block.text);
            }
            count += 1;
        }
    }
    assert!(count >= 15, "only {count} examples found");
    assert!(config::parse(&completed("[limits]\nmax_mesage = \"1KiB\"\n"), "x").is_err());
}

#[test]
fn commands_are_accepted() {
    let mut count = 0;
    for path in pages(root()) {
        for call in calls(&read(&path), "framegate") {
            let parsed = framegate::cli::parse(call.words.iter().map(Into::into));
            assert!(parsed.is_ok(), "{}:{}: {:?}", shown(&path), call.line, parsed.err());
            count += 1;
        }
    }
    assert!(count >= 8, "only {count} commands found");
    let wrong = calls("```sh\ncargo run --release -- run -c x --nope\n```\n", "framegate");
    assert!(framegate::cli::parse(wrong[0].words.iter().map(Into::into)).is_err());
}

/// Keys of the example by section.
fn example_keys() -> BTreeMap<String, BTreeSet<String>> {
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in config::EXAMPLE.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.trim_start_matches("# e.g. ").trim_start_matches('#').split_once(" = ") {
            keys.entry(section.clone()).or_default().insert(key.to_owned());
        }
    }
    keys
}

/// Inline code of a page.
fn spans(text: &str) -> Vec<&str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn keys_and_metrics_that_pages_name_exist() {
    let (keys, metrics) = (example_keys(), rendered_metrics());
    let is_metric = |name: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        metrics.contains(&format!("# HELP {base} "))
    };
    for path in pages(root()) {
        let text = read(&path);
        for span in spans(&text) {
            let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            for name in span.split(word).filter(|name| name.starts_with("framegate_")) {
                assert!(is_metric(name), "{}: no metric {name}", shown(&path));
            }
            let Some((section, key)) = span.split_once('.') else { continue };
            if let (Some(known), false) = (keys.get(section), key.contains(word)) {
                assert!(known.contains(key), "{}: no key {span}", shown(&path));
            }
        }
    }
}

#[test]
fn every_log_key_is_documented() {
    let operation = read(&page("operation.md"));
    let sources = std::fs::read_dir(root().join("src/log")).unwrap().map(|entry| entry.unwrap().path());
    let sources = sources.filter(|path| path.is_file()).map(|path| read(&path));
    let sources: String = sources.collect();
    let calls = sources.split("put(\"").skip(1).filter_map(|rest| rest.split_once('"'));
    let keys: BTreeSet<&str> = calls.map(|(key, _)| key).collect();
    assert!(keys.contains("ended_by") && keys.len() >= 10, "{keys:?}");
    for key in keys {
        assert!(spans(&operation).contains(&key), "docs/src/operation.md: no log key {key}");
    }
}
