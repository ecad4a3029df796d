//! The text of `check` about who may come: origins and addresses.

use super::size;
use crate::config::Snapshot;
use crate::memory::DENY_FILE_MEMORY;
use crate::policy::access::Access;
use crate::policy::origin::Origins;
use crate::policy::route::Route;
use std::fmt::{self, Display, Write};

/// Elements of a list that are shown.
const SHOWN: usize = 8;

/// For a route to an upstream: its list, or what holds without one.
pub fn write_origins(out: &mut String, origins: &Origins) -> fmt::Result {
    match origins {
        Origins::Own => write!(out, ", with a Cookie only from its own origin"),
        Origins::Any => write!(out, ", from any origin"),
        Origins::Listed(list) => write!(out, ", from origins {}", some(list.written())),
    }
}

/// The lists of a route.
pub fn write_lists(out: &mut String, route: &Route) -> fmt::Result {
    if !route.proxies() && route.origins.is_listed() {
        write_origins(out, &route.origins)?;
    }
    out.write_str(&addresses_text(route.access.as_deref()))
}

pub fn addresses_text(access: Option<&Access>) -> String {
    let Some(access) = access else { return String::new() };
    let mut text = String::new();
    if let Some(allow) = &access.allow {
        text += &format!(", allows {}", some(allow.written()));
    }
    if !access.deny.written().is_empty() {
        text += &format!(", denies {}", some(access.deny.written()));
    }
    if let Some(file) = &access.deny_file {
        text += &format!(", denies the {} networks in {}", file.len(), file.path().display());
    }
    text
}

/// What files with denied addresses may take.
pub fn memory(snapshot: &Snapshot) -> Option<(usize, String)> {
    let files = snapshot.deny_files().len();
    let what = format!("{files} deny_file, {} each while it is read, with a million networks", size(DENY_FILE_MEMORY));
    (files > 0).then(|| (files.saturating_mul(DENY_FILE_MEMORY), what))
}

/// The first of a list.
fn some<T: Display>(list: &[T]) -> String {
    let shown: Vec<_> = list.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = list.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}
