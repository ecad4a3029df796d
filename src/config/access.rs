//! Who may come: `allow`, `deny` and `deny_file` of a `[[listener]]` or a `[[route]]`, `origins` of
//! a `[[route]]`; and the format of a file with addresses that are denied.

use super::Snapshot;
use super::build::Builder;
use super::file::{Typed, TypedList};
use super::value::{self, Parsed, quoted, text};
use crate::memory::{DENY_FILE_BYTES, DENY_FILE_NETWORKS};
use crate::policy::access::{Access, AddressList, DenyFile};
use crate::policy::networks::Networks;
use crate::policy::origin::{OriginList, Origins};
use ipnet::IpNet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use toml::Value;

/// Elements of a list in the configuration.
const ADDRESSES_MAX: usize = 10_000;
const ORIGINS_MAX: usize = 1_000;

/// The lists of a section as written.
pub struct Lists<'a> {
    pub allow: &'a TypedList,
    pub deny: &'a TypedList,
    pub deny_file: &'a Typed,
}

impl Builder<'_, '_> {
    /// `None` if the section has no list.
    pub fn access(&mut self, section: &str, typed: &Lists<'_>) -> Option<Arc<Access>> {
        let allow = self.addresses(&format!("{section}.allow"), typed.allow);
        let deny = self.addresses(&format!("{section}.deny"), typed.deny);
        let deny_file = self.deny_file(&format!("{section}.deny_file"), typed.deny_file);
        if let (Some(allow), Some([])) = (typed.allow, allow.as_deref()) {
            let why = "an empty list refuses all addresses; add some, or remove the key";
            // One sentence is enough where each element is wrong.
            if allow.get_ref().is_empty() {
                self.problems.add(allow.span(), &format!("{section}.allow"), why);
            }
        }
        let access = Access {
            allow: allow.map(AddressList::new),
            deny: deny.map(AddressList::new).unwrap_or_default(),
            deny_file,
        };
        (access != Access::default()).then(|| Arc::new(access))
    }

    fn addresses(&mut self, key: &str, typed: &TypedList) -> Option<Vec<IpNet>> {
        if let Some(over) = typed.as_ref().and_then(|list| list.get_ref().get(ADDRESSES_MAX)) {
            let why = format!("more than {ADDRESSES_MAX} addresses; move them to a deny_file, or merge some");
            self.problems.add(over.span(), key, &why);
        }
        typed.is_some().then(|| self.list(key, typed, value::network))
    }

    /// A file is read once, and shared by all that name it.
    fn deny_file(&mut self, key: &str, typed: &Typed) -> Option<Arc<DenyFile>> {
        let written = typed.as_ref()?.get_ref().as_str();
        if let Some(known) = self.deny_files.iter().find(|file| Some(file.path()) == written.map(Path::new)) {
            return Some(Arc::clone(known));
        }
        let file = Arc::new(self.read(key, typed, |v| {
            let path = Path::new(text(v)?);
            Ok(DenyFile::new(path.to_owned(), read_deny_file(path)?))
        })?);
        self.deny_files.push(Arc::clone(&file));
        Some(file)
    }

    pub fn origins(&mut self, typed: &TypedList) -> Origins {
        let Some(list) = typed else { return Origins::Own };
        let (key, elements) = ("route.origins", list.get_ref());
        let any = elements.iter().find(|element| element.get_ref().as_str() == Some("*"));
        if let (Some(over), None) = (elements.get(ORIGINS_MAX), any) {
            let why = format!("more than {ORIGINS_MAX} origins; use wildcards");
            self.problems.add(over.span(), key, &why);
        }
        match (any, elements.as_slice()) {
            (Some(_), [_]) => return Origins::Any,
            (Some(any), _) => {
                let why = "\"*\" admits all origins; remove the others, or \"*\"";
                self.problems.add(any.span(), key, why);
            }
            (None, []) => {
                let why = "an empty list refuses all requests; expected for example [\"https://example.com\"], or \
                           [\"*\"] for all origins";
                self.problems.add(list.span(), key, why);
            }
            (None, _) => {
                let mut origins = OriginList::default();
                for element in elements {
                    if let Err(why) = add_origin(&mut origins, element.get_ref()) {
                        self.problems.add(element.span(), key, &why);
                    }
                }
                return Origins::Listed(origins);
            }
        }
        Origins::Own
    }
}

fn add_origin(origins: &mut OriginList, value: &Value) -> Parsed<()> {
    let written = text(value)?;
    origins.add(written).map_err(|why| format!("{} is not valid: {why}", quoted(written)))
}

/// Reads a file with addresses that are denied: one address or network a line, `#` begins a
/// comment.
///
/// # Errors
/// One sentence with file, line, and the text that is wrong.
fn read_deny_file(path: &Path) -> Result<Networks<()>, String> {
    parse_deny_file(path, &read_text(path)?)
}

/// The text of such a file.
///
/// # Errors
/// One sentence: it cannot be read, is not a regular file, is too large, or is not text.
pub fn read_text(path: &Path) -> Result<String, String> {
    let name = quoted(&path.display().to_string());
    let unreadable = |error: std::io::Error| format!("{name} cannot be read: {error}");
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("{name} is not a regular file"));
    }
    let (mut text, most) = (String::new(), DENY_FILE_BYTES as u64);
    File::open(path).and_then(|file| file.take(most + 1).read_to_string(&mut text)).map_err(unreadable)?;
    match text.len() > DENY_FILE_BYTES {
        true => Err(format!("{name} is larger than {}", value::size_text(most))),
        false => Ok(text),
    }
}

/// The networks in the text of such a file.
///
/// # Errors
/// One sentence with file, line, and the text that is wrong.
pub fn parse_deny_file(path: &Path, text: &str) -> Result<Networks<()>, String> {
    let at = |line: usize| format!("{}:{}", path.display(), line + 1);
    let mut networks = Vec::new();
    for (line, written) in text.lines().enumerate() {
        let written = written.split('#').next().unwrap_or_default().trim();
        if written.is_empty() {
            continue;
        }
        if networks.len() == DENY_FILE_NETWORKS {
            return Err(format!("{}: more than {DENY_FILE_NETWORKS} networks; merge some", at(line)));
        }
        networks.push(value::network_text(written).map_err(|why| format!("{}: {why}", at(line)))?);
    }
    Ok(networks.into_iter().collect())
}

impl Snapshot {
    /// The files with denied addresses, each once.
    pub fn deny_files(&self) -> Vec<&Arc<DenyFile>> {
        let listeners = self.listeners.iter().map(|listener| &listener.access);
        let routes = self.routes.entries().iter().map(|entry| &entry.route.access);
        let files = listeners.chain(routes).filter_map(|access| access.as_ref()?.deny_file.as_ref());
        let mut all: Vec<&Arc<DenyFile>> = Vec::new();
        for file in files {
            if !all.iter().any(|known| Arc::ptr_eq(known, file)) {
                all.push(file);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_addresses_networks_and_comments() {
        let text =
            "# blocked today\n192.0.2.7\n\n 10.0.0.0/8 # a comment\n\t2001:db8::/32\r\n::ffff:198.51.100.0/120\n";
        let networks = parse_deny_file(Path::new("denied"), text).unwrap();
        assert_eq!(networks.len(), 4);
        for (address, denied) in [
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("10.1.2.3", true),
            ("2001:db8::1", true),
            ("198.51.100.9", true),
            ("::1", false),
        ] {
            assert_eq!(networks.contains(address.parse().unwrap()), denied, "{address}");
        }
        for nothing in ["", "\n", "# only\n#comments", "   "] {
            assert!(parse_deny_file(Path::new("denied"), nothing).unwrap().is_empty(), "{nothing:?}");
        }
    }

    #[test]
    fn what_is_no_network_is_named_with_its_line() {
        for (text, place, shown) in [
            ("10.0.0.0/33", "denied:1", "\"10.0.0.0/33\""),
            ("10.0.0.1\n\nexample.com # why\n", "denied:3", "\"example.com\""),
            ("10.0.0.1 10.0.0.2", "denied:1", "\"10.0.0.1 10.0.0.2\""),
            ("10.0.0.1,", "denied:1", "\"10.0.0.1,\""),
            ("10.0.0.0-10.0.0.9", "denied:1", "\"10.0.0.0-10.0.0.9\""),
            ("1.2.3.4\n10.0.0\x1b[0m", "denied:2", "\"10.0.0\\u{1b}[0m\""),
            ("fe80::1%eth0", "denied:1", "\"fe80::1%eth0\""),
            ("010.0.0.1", "denied:1", "\"010.0.0.1\""),
        ] {
            let error = parse_deny_file(Path::new("denied"), text).unwrap_err();
            assert!(error.starts_with(&format!("{place}: {shown} is not a network; expected")), "{error}");
        }
    }
}
