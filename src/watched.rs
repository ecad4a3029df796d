//! Files that are read again when they change. Changes are found by looking at a file at an
//! interval (its inode, size, and times) instead of inotify: that also sees a symbolic link being
//! switched anywhere in the path, which is how Kubernetes updates ConfigMaps, and changes on
//! network file systems, at one system call a look.

use crate::clock::unix_s;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Coarser than the clock of any file system.
const SETTLED_S: u64 = 2;

/// Two files with equal versions have the same content, if it is not written right now: the clocks
/// of file systems are coarse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    pub fn of(metadata: &Metadata) -> Version {
        Version {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// A later write would give it another time.
    pub fn is_settled(&self) -> bool {
        let now = i64::try_from(unix_s()).unwrap_or(i64::MAX);
        now.abs_diff(self.modified.0) > SETTLED_S && now.abs_diff(self.changed.0) > SETTLED_S
    }
}
