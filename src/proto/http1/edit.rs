//! Changes to the fields of a head that is passed on, resolved to plain names and values. Who wants
//! which change is the business of policy; that no value can begin a line of its own is ours.

use super::scan::{is_text, is_token};

/// Fields to drop from a head that is written anew, and fields to add to it. Empty is the usual
/// case, and owns no memory.
///
/// A field that is added stands whatever the peer sends: it cannot be taken away by naming it in
/// Connection, and a removal concerns the peer's fields alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldEdits {
    removed: Vec<String>,
    added: Vec<(String, Vec<u8>)>,
    /// Added where the peer sends no field with that name.
    missing: Vec<(String, Vec<u8>)>,
}

impl FieldEdits {
    /// No change.
    pub const fn new() -> FieldEdits {
        FieldEdits { removed: Vec::new(), added: Vec::new(), missing: Vec::new() }
    }

    /// Drops all fields of the peer called `name`, in any case.
    pub fn remove(&mut self, name: &str) {
        self.removed.push(name.to_owned());
    }

    /// Adds a field behind those of the peer. Each control byte of `value` but HTAB becomes a
    /// space, and white space around it is removed: "a recipient of CR, LF, or NUL within a field
    /// value MUST either reject the message or replace each of those characters with SP" (RFC 9110
    /// section 5.5). A `name` that is no token adds nothing.
    pub fn add(&mut self, name: &str, value: Vec<u8>) {
        self.added.extend(line(name, value));
    }

    /// The same, unless the peer sends a field called `name`.
    pub fn add_unless_sent(&mut self, name: &str, value: Vec<u8>) {
        self.missing.extend(line(name, value));
    }

    /// Replaces all fields of the peer called `name` by one.
    pub fn set(&mut self, name: &str, value: Vec<u8>) {
        self.remove(name);
        self.add(name, value);
    }

    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty() && self.missing.is_empty()
    }

    /// The fields to add where the peer sends none with that name.
    pub fn missing(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.missing.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Whether fields of the peer called `name` are dropped.
    #[inline]
    pub fn removes(&self, name: &str) -> bool {
        self.removed.iter().any(|removed| removed.eq_ignore_ascii_case(name))
    }

    /// The names of the peer's fields that are dropped.
    pub fn removed(&self) -> impl Iterator<Item = &str> {
        self.removed.iter().map(String::as_str)
    }

    /// The fields that are added, in their order.
    pub fn added(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.added.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }
}

/// A field line, safe to write; see [`FieldEdits::add`].
fn line(name: &str, mut value: Vec<u8>) -> Option<(String, Vec<u8>)> {
    if !is_token(name.as_bytes()) {
        return None;
    }
    for byte in &mut value {
        if !is_text(&[*byte]) {
            *byte = b' ';
        }
    }
    let trimmed = value.trim_ascii();
    if trimmed.len() < value.len() {
        value = trimmed.to_vec();
    }
    Some((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(edits: &FieldEdits) -> String {
        let mut out = Vec::new();
        super::super::push_added(&mut out, edits);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn control_bytes_become_spaces() {
        for (value, want) in [
            (&b"plain"[..], "plain"),
            (b"", ""),
            (b" \ta b\t ", "a b"),
            (b"a\tb", "a\tb"),
            (b"a\r\nX-Evil: 1", "a  X-Evil: 1"),
            (b"\r\n\r\nGET / HTTP/1.1", "GET / HTTP/1.1"),
            (b"a\0b\x7fc\x1bd\x0be", "a b c d e"),
            (b"a\r", "a"),
            ("h\u{e9}".as_bytes(), "h\u{e9}"),
        ] {
            let mut edits = FieldEdits::default();
            edits.add("X-A", value.to_vec());
            assert_eq!(written(&edits), format!("X-A: {want}\r\n"), "{value:?}");
        }
    }

    #[test]
    fn names_are_tokens_and_compare_in_any_case() {
        let mut edits = FieldEdits::default();
        assert!(edits.is_empty());
        for name in ["", "a b", "a:", "a\r\n", "\u{e9}"] {
            edits.add(name, b"v".to_vec());
            assert!(edits.is_empty(), "{name:?}");
        }
        edits.set("X-One", b"1".to_vec());
        edits.add("x-one", b"2".to_vec());
        edits.remove("Cookie");
        assert_eq!(written(&edits), "X-One: 1\r\nx-one: 2\r\n");
        for (name, removed) in [("x-ONE", true), ("COOKIE", true), ("X-On", false), ("", false)] {
            assert_eq!(edits.removes(name), removed, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_value_begins_a_line(value in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut edits = FieldEdits::default();
            edits.set("X-A", value);
            let mut out = Vec::new();
            super::super::push_added(&mut out, &edits);
            let line = out.strip_prefix(b"X-A: ").unwrap().strip_suffix(b"\r\n").unwrap();
            prop_assert!(line.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\t'));
        }
    }
}
