//! Where the access log is written to: a file or standard output, without a buffer of its own.

use crate::config::{AccessLog, Format};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

/// Pause before writing again to a full non-blocking destination.
const RETRY: Duration = Duration::from_millis(50);

/// An open destination and the format of its lines.
#[derive(Debug)]
pub(super) struct Sink {
    /// `None`: off.
    pub file: Option<File>,
    pub format: Format,
    /// The last failed write left part of a line.
    pub partial_line: bool,
}

impl Sink {
    pub fn open(to: &AccessLog, format: Format) -> io::Result<Sink> {
        let file = match to {
            AccessLog::Off => None,
            // As a plain file: a buffer would keep half a line after an error.
            AccessLog::Stdout => Some(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            AccessLog::File(path) => {
                let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
                Some(OpenOptions::new().append(true).create(true).open(path).map_err(named)?)
            }
        };
        Ok(Sink::new(file, format))
    }

    pub fn new(file: Option<File>, format: Format) -> Sink {
        Sink { file, format, partial_line: false }
    }

    pub fn is_on(&self) -> bool {
        self.file.is_some()
    }

    /// Writes complete lines, after the end of a partial one.
    ///
    /// # Errors
    /// The number of bytes written, and why the rest was not.
    pub fn write(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut sent = 0;
        if self.partial_line {
            write_all(file, b"\n", &mut 0).map_err(|error| (0, error))?;
            self.partial_line = false;
        }
        write_all(file, lines, &mut sent).map_err(|error| {
            self.on_partial(lines.get(..sent).unwrap_or_default());
            (sent, error)
        })
    }

    /// A write failed after `written`.
    pub fn on_partial(&mut self, written: &[u8]) {
        self.partial_line = written.last().map_or(self.partial_line, |byte| *byte != b'\n');
    }
}

/// Writes all of `bytes` and counts them in `sent`. Waits while the destination is non-blocking and
/// full.
fn write_all(file: &mut File, bytes: &[u8], sent: &mut usize) -> io::Result<()> {
    while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => *sent += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Standard output may be a terminal or pipe that another process has made non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
