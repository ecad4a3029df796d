//! The files with denied addresses: looks at them several times a second, and replaces their
//! content in all workers when they change. A file that cannot be used leaves its old content in
//! force.

use crate::config::{Snapshot, parse_deny_file, read_text};
use crate::metrics::Denied;
use crate::policy::access::DenyFile;
use crate::proto::Millis;
use crate::watched::Version;
use std::fs;
use std::sync::Arc;

const LOOK_MS: Millis = 250;
/// A file that changes from one look to the next is being written. It is read when it stays the
/// same, and after this time anyway.
const WRITING_MS: Millis = 500;

/// All files of the running snapshot.
#[derive(Debug, Default)]
pub(super) struct DenyFiles {
    files: Vec<Watched>,
    look_at: Millis,
}

#[derive(Debug)]
struct Watched {
    file: Arc<DenyFile>,
    /// What was read last, if it has settled.
    seen: Option<Version>,
    /// A version that was not read, and when the first of these was found.
    written: Option<(Version, Millis)>,
    /// Why it cannot be used.
    error: Option<String>,
    failures: u64,
    /// When its content was last known to be in force.
    current_at: Millis,
}

impl DenyFiles {
    /// The files of a new snapshot, which has just read them. Counts of files that stay go on.
    pub fn replace(&mut self, snapshot: &Snapshot, now: Millis) {
        let before = std::mem::take(&mut self.files);
        let known = |file: &DenyFile| before.iter().find(|known| *known.file == *file);
        let watched = |file: &Arc<DenyFile>| Watched {
            file: Arc::clone(file),
            seen: None,
            written: None,
            error: None,
            failures: known(file).map_or(0, |known| known.failures),
            current_at: now,
        };
        self.files = snapshot.deny_files().into_iter().map(watched).collect();
    }

    /// When [`DenyFiles::on_tick`] is due; `None` without files.
    pub fn deadline(&self) -> Option<Millis> {
        (!self.files.is_empty()).then_some(self.look_at)
    }

    pub fn on_tick(&mut self, now: Millis) {
        if self.look_at <= now {
            self.look_at = now + LOOK_MS;
            self.files.iter_mut().for_each(|file| file.look(now));
        }
    }

    pub fn status(&self, now: Millis) -> Vec<Denied> {
        let denied = |watched: &Watched| Denied {
            file: watched.file.path().display().to_string(),
            networks: watched.file.len() as u64,
            age_ms: now.saturating_sub(watched.current_at),
            failures: watched.failures,
        };
        self.files.iter().map(denied).collect()
    }
}

impl Watched {
    fn look(&mut self, now: Millis) {
        let version = match fs::metadata(self.file.path()) {
            Ok(metadata) => Version::of(&metadata),
            Err(error) => {
                self.written = None;
                return self.fail(format!("{} cannot be read: {error}", self.file.path().display()));
            }
        };
        if self.seen == Some(version) {
            if self.error.is_none() {
                self.current_at = now;
            }
            return;
        }
        let (last, since) = self.written.unwrap_or((version, now));
        let is_whole = last == version && since < now;
        if !is_whole && now < since + WRITING_MS {
            self.written = Some((version, since));
            return;
        }
        self.written = None;
        self.seen = version.is_settled().then_some(version);
        match self.read(is_whole) {
            Ok(()) => (self.error, self.current_at) = (None, now),
            Err(error) => self.fail(error),
        }
    }

    /// `is_whole`: it is not being written right now.
    fn read(&self, is_whole: bool) -> Result<(), String> {
        let path = self.file.path();
        let text = read_text(path)?;
        // The rest of "10.1.0.0/1" may be a digit.
        if !is_whole && !text.is_empty() && !text.ends_with('\n') {
            return Err(format!("{} is being written: its last line is not complete", path.display()));
        }
        let networks = parse_deny_file(path, &text)?;
        if self.file.replace(networks) {
            ::log::info!("{} denies {} networks now", path.display(), self.file.len());
        }
        Ok(())
    }

    /// Logged once, however often it is found.
    fn fail(&mut self, error: String) {
        self.failures += 1;
        if self.error.as_ref() != Some(&error) {
            ::log::error!("deny_file: {error}; the old list stays in force");
            self.error = Some(error);
        }
    }
}

#[cfg(test)]
mod tests;
