//! Which addresses may come: the lists of a listener or a route, and files with addresses that may
//! not, whose content changes while workers read it.

use super::networks::Networks;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The lists of a listener or a route.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `None`: all addresses that are not denied.
    pub allow: Option<AddressList>,
    /// Stronger than `allow`.
    pub deny: AddressList,
    /// As `deny`.
    pub deny_file: Option<Arc<DenyFile>>,
}

impl Access {
    /// Requests from `address` are refused.
    pub fn refuses(&self, address: IpAddr) -> bool {
        self.deny.contains(address)
            || self.deny_file.as_ref().is_some_and(|file| file.contains(address))
            || self.allow.as_ref().is_some_and(|allow| !allow.contains(address))
    }
}

/// A list in the configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AddressList {
    written: Vec<IpNet>,
    networks: Networks<()>,
}

impl AddressList {
    pub fn new(written: Vec<IpNet>) -> AddressList {
        AddressList { networks: written.iter().copied().collect(), written }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.networks.contains(address)
    }

    /// In the order of the configuration.
    pub fn written(&self) -> &[IpNet] {
        &self.written
    }
}

/// A file with addresses that are denied, shared by everything that names it. Its content is
/// replaced as a whole.
pub struct DenyFile {
    path: PathBuf,
    networks: ArcSwap<Networks<()>>,
}

impl DenyFile {
    pub fn new(path: PathBuf, networks: Networks<()>) -> DenyFile {
        DenyFile { path, networks: ArcSwap::from_pointee(networks) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.networks.load().contains(address)
    }

    /// How many networks are denied, without those within others.
    pub fn len(&self) -> usize {
        self.networks.load().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// New content, for all workers at once; whether it differs.
    pub fn replace(&self, networks: Networks<()>) -> bool {
        let differs = **self.networks.load() != networks;
        if differs {
            self.networks.store(Arc::new(networks));
        }
        differs
    }
}

/// Without its content, which may be long.
impl fmt::Debug for DenyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DenyFile").field("path", &self.path).field("networks", &self.len()).finish()
    }
}

/// The same file is configured; its content does not matter.
impl PartialEq for DenyFile {
    fn eq(&self, other: &DenyFile) -> bool {
        self.path == other.path
    }
}

impl Eq for DenyFile {}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(networks: &[&str]) -> AddressList {
        AddressList::new(networks.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn deny_is_stronger_than_allow_and_allow_refuses_all_others() {
        let file = |networks: &[&str]| {
            let networks: Networks<()> = networks.iter().map(|text| text.parse().unwrap()).collect();
            Some(Arc::new(DenyFile::new("denied".into(), networks)))
        };
        let nothing = Access::default();
        let deny = Access { deny: list(&["10.0.0.0/8"]), ..Access::default() };
        let allow = Access { allow: Some(list(&["10.0.0.0/8", "2001:db8::/32"])), ..Access::default() };
        let none = Access { allow: Some(list(&[])), ..Access::default() };
        let both = Access { allow: Some(list(&["10.0.0.0/8"])), deny: list(&["10.1.0.0/16"]), deny_file: None };
        let filed = Access { deny_file: file(&["10.1.0.0/16"]), ..Access::default() };
        let all = Access { deny_file: file(&["10.2.0.0/16"]), ..both };
        for (access, address, refused) in [
            (&nothing, "10.0.0.1", false),
            (&deny, "10.0.0.1", true),
            (&deny, "::ffff:10.0.0.1", true),
            (&deny, "11.0.0.1", false),
            (&deny, "::1", false),
            (&allow, "10.9.9.9", false),
            (&allow, "::ffff:10.9.9.9", false),
            (&allow, "2001:db8::1", false),
            (&allow, "11.0.0.1", true),
            (&allow, "2001:db9::1", true),
            (&none, "127.0.0.1", true),
            (&none, "::1", true),
            (&filed, "10.1.0.1", true),
            (&filed, "::ffff:10.1.0.1", true),
            (&filed, "10.2.0.1", false),
            (&all, "10.1.0.1", true),
            (&all, "10.2.0.1", true),
            (&all, "10.3.0.1", false),
            (&all, "11.0.0.1", true),
        ] {
            assert_eq!(access.refuses(address.parse().unwrap()), refused, "{address} {access:?}");
        }
    }

    #[test]
    fn content_of_a_file_is_replaced_for_all_who_hold_it() {
        let file = Arc::new(DenyFile::new("denied".into(), Networks::default()));
        let held = Access { deny_file: Some(Arc::clone(&file)), ..Access::default() };
        let address = "192.0.2.7".parse().unwrap();
        assert!(file.is_empty() && !held.refuses(address));
        let networks = || ["192.0.2.0/24".parse().unwrap()].into_iter().collect();
        assert!(file.replace(networks()) && !file.replace(networks()));
        assert!(file.len() == 1 && held.refuses(address));
        assert!(file.replace(Networks::default()) && !held.refuses(address));
    }
}
