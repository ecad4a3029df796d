//! A file with a list of endpoints, in TOML or JSON, read again when it has changed: `watched` has
//! how that is found.

use super::{ANSWER_BYTES_MAX, Answer, Found, Source};
use crate::config::discovery::FileList;
use crate::watched::Version;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

pub struct File {
    list: FileList,
    /// `wss://` is allowed.
    tls: bool,
    /// The version that was read last.
    seen: Option<Version>,
}

impl File {
    pub fn new(list: FileList, tls: bool) -> File {
        File { list, tls, seen: None }
    }
}

impl Source for File {
    fn next(&mut self) -> Result<Answer, String> {
        let again = Duration::from_millis(self.list.interval_ms);
        let path = self.list.path.as_path();
        let unreadable = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
        let metadata = fs::metadata(path).map_err(unreadable)?;
        // Opening a pipe would wait for its writer.
        if !metadata.is_file() {
            return Err(format!("{} is not a file", path.display()));
        }
        if self.seen == Some(Version::of(&metadata)) {
            return Ok(Answer { found: None, again });
        }
        let file = fs::File::open(path).map_err(unreadable)?;
        let version = Version::of(&file.metadata().map_err(unreadable)?);
        let mut text = String::new();
        file.take(ANSWER_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > ANSWER_BYTES_MAX {
            return Err(format!("{} is larger than {ANSWER_BYTES_MAX} bytes", path.display()));
        }
        let found = parse(path, &text, self.tls).map_err(|e| format!("{}: {e}", path.display()))?;
        self.seen = version.is_settled().then_some(version);
        Ok(Answer { found: Some(found), again })
    }
}

/// A file: `endpoints = [...]`, each a URL or a table.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    endpoints: Vec<Entry>,
}

/// A URL, or a table. The derived code for either would lose the place and the reason of an error.
#[derive(Debug)]
struct Entry(Table);

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    url: String,
    #[serde(default = "one")]
    weight: u16,
    #[serde(default)]
    priority: u16,
}

fn one() -> u16 {
    1
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a URL or a table with url")
    }

    fn visit_str<E>(self, url: &str) -> Result<Entry, E> {
        Ok(Entry(Table { url: url.to_owned(), weight: 1, priority: 0 }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
        Table::deserialize(MapAccessDeserializer::new(map)).map(Entry)
    }
}

/// JSON if the name ends in `.json`: a list, or an object as in TOML. Else TOML.
fn parse(path: &Path, text: &str, tls: bool) -> Result<Vec<Found>, String> {
    let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let entries = match (json, text.trim_start().starts_with('[')) {
        (true, true) => serde_json::from_str::<Vec<Entry>>(text).map_err(|e| e.to_string())?,
        (true, false) => serde_json::from_str::<Listed>(text).map_err(|e| e.to_string())?.endpoints,
        (false, _) => toml::from_str::<Listed>(text).map_err(|e| sentence(text, &e))?.endpoints,
    };
    let found = |Entry(Table { url, weight, priority })| match url.starts_with("wss:") && !tls {
        false => Ok(Found { url, weight: weight.into(), priority: priority.into() }),
        true => Err(format!("\"{}\" needs tls = true in discover", url.escape_debug())),
    };
    entries.into_iter().map(found).collect()
}

/// The error of the TOML reader on one line.
fn sentence(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
    format!("line {line}: {}", error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str, text: &str) -> Result<Vec<(String, u32, u32)>, String> {
        let found = parse(Path::new(name), text, false)?;
        Ok(found.into_iter().map(|one| (one.url, one.weight, one.priority)).collect())
    }

    #[test]
    fn both_formats_have_urls_and_tables() {
        let expected = [("ws://a:1", 1, 0), ("ws://b:1/x", 5, 2), ("ws://c:1", 0, 0)];
        let expected = expected.map(|(url, weight, priority)| (url.to_owned(), weight, priority)).to_vec();
        let toml = r#"
            endpoints = [
              "ws://a:1",
              { url = "ws://b:1/x", weight = 5, priority = 2 },
              { url = "ws://c:1", weight = 0 },
            ]"#;
        assert_eq!(parsed("a.toml", toml), Ok(expected.clone()));
        let list = r#"["ws://a:1", {"url": "ws://b:1/x", "weight": 5, "priority": 2},
                       {"url": "ws://c:1", "weight": 0}]"#;
        assert_eq!(parsed("a.json", list), Ok(expected.clone()));
        assert_eq!(parsed("a.JSON", &format!("{{\"endpoints\": {list}}}")), Ok(expected));
        assert_eq!(parsed("a.toml", "endpoints = []"), Ok(Vec::new()));
    }

    #[test]
    fn a_file_cut_anywhere_is_invalid() {
        let toml = "endpoints = [\n  \"ws://a:1\",\n  { url = \"ws://b:1\", weight = 12 },\n]";
        let json = "{\"endpoints\": [\"ws://a:1\", {\"url\": \"ws://b:1\", \"weight\": 12}]}";
        for (name, text) in [("a.toml", toml), ("a.json", json)] {
            assert_eq!(parsed(name, text).unwrap().len(), 2);
            for cut in 0..text.len() {
                assert!(parsed(name, &text[..cut]).is_err(), "{}", &text[..cut]);
            }
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (text, why) in [
            ("endpoints = [\n\n 3]", "line 3: invalid type: integer `3`, expected a URL or a table with url"),
            ("endpoint = []", "endpoints"),
            ("endpoints = [{ url = \"ws://a:1\", wieght = 1 }]", "line 1: unknown field `wieght`"),
            ("endpoints = [{ url = \"ws://a:1\", weight = 70000 }]", "line 1"),
            ("endpoints = [\"wss://a:1\"]", "needs tls = true"),
        ] {
            let error = parsed("a.toml", text).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        }
        let secure = parse(Path::new("a.toml"), "endpoints = [\"wss://a:1\"]", true).unwrap();
        assert_eq!(secure[0].url, "wss://a:1");
    }
}
