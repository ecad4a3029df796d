//! Regular expressions that a whole value must match. Without the feature `regex` none can be made.

use std::cmp::Ordering;

/// The compiled size of one regular expression, and of the cache of its automaton.
#[cfg(feature = "regex")]
const REGEX_BYTES: usize = 256 << 10;

#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

#[cfg(feature = "regex")]
type Regex = regex::bytes::Regex;
#[cfg(not(feature = "regex"))]
type Regex = std::convert::Infallible;

impl Pattern {
    /// Its search is linear in the length of the value. Classes such as `\w`, and `(?i)`, know
    /// ASCII only. The error is the rest of a sentence.
    pub fn new(source: &str) -> Result<Pattern, String> {
        compile(source).map(|regex| Pattern { source: source.to_owned(), regex })
    }

    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn matches(&self, value: &[u8]) -> bool {
        is_match(&self.regex, value)
    }
}

#[cfg(feature = "regex")]
fn compile(source: &str) -> Result<Regex, String> {
    let compile = |source: &str| {
        let mut builder = regex::bytes::RegexBuilder::new(source);
        builder.unicode(false).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build()
    };
    // Alone first: `a)|(b` is no expression, although it would be one in the group.
    let compiled = compile(source).and_then(|_| compile(&format!(r"\A(?:{source})\z")));
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            format!("is too large a regular expression: it compiles to more than {REGEX_BYTES} bytes")
        }
        error => {
            // The other lines show the expression, with a mark under the place.
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default();
            format!("is not a regular expression: {}", why.strip_prefix("error: ").unwrap_or(why))
        }
    })
}

#[cfg(feature = "regex")]
fn is_match(regex: &Regex, value: &[u8]) -> bool {
    regex.is_match(value)
}

#[cfg(not(feature = "regex"))]
fn compile(_source: &str) -> Result<Regex, String> {
    Err("cannot be compiled: this build has no regular expressions (feature \"regex\")".to_owned())
}

#[cfg(not(feature = "regex"))]
fn is_match(regex: &Regex, _value: &[u8]) -> bool {
    match *regex {}
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Pattern) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Pattern) -> Ordering {
        self.source.cmp(&other.source)
    }
}
