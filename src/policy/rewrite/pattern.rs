//! Regular expressions for paths: the groups of a match, and every match replaced. Their time is
//! linear in the length of the path. A build without the feature `regex` compiles none.

/// Bytes of a compiled pattern.
#[cfg(feature = "regex")]
const PATTERN_BYTES: usize = 1 << 20;

/// A compiled regular expression. Paths are ASCII: so are its classes, and what `(?i)` knows.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

#[cfg(feature = "regex")]
type Regex = regex::bytes::Regex;
#[cfg(not(feature = "regex"))]
type Regex = std::convert::Infallible;

/// The groups of a match by their number; 0 is the whole match.
pub type Groups<'m> = &'m dyn Fn(usize) -> Option<&'m str>;

impl Pattern {
    /// The error is the rest of a sentence.
    pub fn new(source: &str) -> Result<Pattern, String> {
        Ok(Pattern { source: source.to_owned(), regex: compile(source)? })
    }

    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The name of each group, if it has one; the first is the whole match.
    pub fn groups(&self) -> Vec<Option<String>> {
        groups(&self.regex)
    }

    /// `path` with every match replaced, or `None` if there is no match.
    pub fn replace_all(&self, path: &str, replacement: impl Fn(Groups<'_>) -> String) -> Option<String> {
        replace_all(&self.regex, path, replacement)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

#[cfg(feature = "regex")]
fn compile(source: &str) -> Result<Regex, String> {
    let mut builder = regex::bytes::RegexBuilder::new(source);
    let compiled = builder.unicode(false).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build();
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "is too large when compiled; shorten it".to_owned(),
        error => {
            // Its last line is the reason, after a drawing of the place.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default();
            format!("is not a regular expression: {}", reason.trim_start_matches("error: "))
        }
    })
}

#[cfg(feature = "regex")]
fn groups(regex: &Regex) -> Vec<Option<String>> {
    regex.capture_names().map(|name| name.map(str::to_owned)).collect()
}

#[cfg(feature = "regex")]
fn replace_all(regex: &Regex, path: &str, replacement: impl Fn(Groups<'_>) -> String) -> Option<String> {
    let replace = |matched: &regex::bytes::Captures<'_>| {
        // Of ASCII text every part is text.
        let group = |index| str::from_utf8(matched.get(index)?.as_bytes()).ok();
        replacement(&group).into_bytes()
    };
    match regex.replace_all(path.as_bytes(), replace) {
        std::borrow::Cow::Owned(replaced) => String::from_utf8(replaced).ok(),
        std::borrow::Cow::Borrowed(_) => None,
    }
}

#[cfg(not(feature = "regex"))]
fn compile(_: &str) -> Result<Regex, String> {
    Err("cannot be compiled: this build has no regular expressions (feature \"regex\")".to_owned())
}

#[cfg(not(feature = "regex"))]
fn groups(regex: &Regex) -> Vec<Option<String>> {
    match *regex {}
}

#[cfg(not(feature = "regex"))]
fn replace_all(regex: &Regex, _: &str, _: impl Fn(Groups<'_>) -> String) -> Option<String> {
    match *regex {}
}
