//! Opens and reads the files that routes serve: service threads, because a disk may take its time
//! and a network file system may take forever. A question is answered with a piece of the response
//! (`worker/files.rs`): its head and the first bytes, or the next ones. What the head says is
//! decided by `proto/files.rs`.
//!
//! Nothing outside of the root is opened: the kernel resolves the path beneath it (openat2(2) with
//! RESOLVE_BENEATH), symbolic links included; where it cannot (before Linux 5.6, or under a filter
//! of system calls), the names are walked one by one and no link is followed. Only what is opened
//! is looked at, so that nothing can be put in its place between two looks.

use crate::clock::unix_ms;
use crate::memory::PIECE_BYTES;
use crate::policy::files::Wanted;
use crate::proto::files::{Representation, Selection, write_text};
use crate::service::Questions;
use crate::text;
use crate::worker::files::{Ask, FileQuestion, Piece, Rest, Then};
use mime_guess::MimeGuess;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat, openat2};
use rustix::io::Errno;
use sha1::{Digest, Sha1};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// One may be held by a disk while others go on.
pub const THREADS: usize = 4;

/// Room for a head in front of the first bytes.
const HEAD_BYTES: usize = 512;
/// A path is resolved again so often when a rename has come in between.
const RETRIES_MAX: usize = 8;

/// The body of a thread. Runs until the last asker is dropped.
pub fn run(questions: &Questions<FileQuestion>) {
    while let Some(question) = questions.next() {
        let piece = match &question.ask {
            Ask::Open(wanted) => respond(wanted, unix_ms() / 1000),
            Ask::Read(rest) => read(rest.clone(), Vec::with_capacity(PIECE_BYTES)),
        };
        question.answer(piece);
    }
}

/// What is where a request leads.
enum Found {
    File {
        file: File,
        stat: Stat,
        media_type: String,
    },
    /// A directory with an index, and no slash behind its name.
    Directory,
}

/// The first piece of the response.
fn respond(wanted: &Wanted, now: u64) -> Piece {
    let mut out = Vec::with_capacity(HEAD_BYTES);
    let with = (wanted.conditions.head_only, now);
    let (file, stat, media_type) = match find(wanted) {
        Ok(Found::File { file, stat, media_type }) => (file, stat, media_type),
        Ok(Found::Directory) => {
            write_text(&mut out, 308, Some(("Location", &wanted.location)), with);
            return Piece { bytes: out, then: Then::End };
        }
        Err(errno) => {
            write_text(&mut out, status_of(errno), None, with);
            return Piece { bytes: out, then: Then::End };
        }
    };
    let etag = etag_of(&stat);
    let representation = Representation {
        len: u64::try_from(stat.st_size).unwrap_or_default(),
        modified: u64::try_from(stat.st_mtime).unwrap_or_default(),
        etag: &etag,
        media_type: &media_type,
    };
    let selection = wanted.conditions.select(&representation, now);
    selection.write(&mut out, &representation, with);
    let (from, len) = match selection {
        Selection::Whole => (0, representation.len),
        Selection::Part { from, len } => (from, len),
        Selection::NotModified | Selection::Failed | Selection::OutOfRange => (0, 0),
    };
    if wanted.conditions.head_only || len == 0 {
        return Piece { bytes: out, then: Then::End };
    }
    read(Rest { file: Arc::new(file), at: from, end: from + len }, out)
}

/// The next bytes, behind `out`.
fn read(Rest { file, at, end }: Rest, mut out: Vec<u8>) -> Piece {
    let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
    let head = out.len();
    out.resize(head + len, 0);
    let (mut read, mut fails) = (0, false);
    while read < len && !fails {
        match file.read_at(out.get_mut(head + read..).unwrap_or_default(), at + read as u64) {
            Ok(0) => fails = true,
            Ok(n) => read += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => fails = true,
        }
    }
    out.truncate(head + read);
    let at = at + read as u64;
    let then = match fails {
        true => Then::Cut,
        false if at == end => Then::End,
        false => Then::Read(Rest { file, at, end }),
    };
    Piece { bytes: out, then }
}

/// The status of a response without a file.
fn status_of(errno: Errno) -> u16 {
    match errno {
        Errno::ACCESS | Errno::PERM => 403,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => 503,
        Errno::IO | Errno::STALE | Errno::TIMEDOUT | Errno::OVERFLOW => 500,
        // ENOENT, ENOTDIR, ENAMETOOLONG; ELOOP, EXDEV: a link that leads nowhere or out of the
        // root; ENXIO: a socket.
        _ => 404,
    }
}

fn find(wanted: &Wanted) -> Result<Found, Errno> {
    let root = open(&*wanted.files.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let index = wanted.files.index.as_bytes();
    if wanted.is_directory {
        return file(root.as_fd(), &below(&wanted.path, index));
    }
    let opened = open_beneath(root.as_fd(), &wanted.path)?;
    let stat = fstat(&opened)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(found(opened, stat, &wanted.path)),
        FileType::Directory => file(root.as_fd(), &below(&wanted.path, index)).map(|_| Found::Directory),
        _ => Err(Errno::NOENT),
    }
}

/// A regular file, and nothing else.
fn file(root: BorrowedFd<'_>, path: &[u8]) -> Result<Found, Errno> {
    let opened = open_beneath(root, path)?;
    let stat = fstat(&opened)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::NOENT);
    }
    Ok(found(opened, stat, path))
}

fn found(opened: OwnedFd, stat: Stat, path: &[u8]) -> Found {
    Found::File { file: opened.into(), stat, media_type: media_type(path) }
}

fn below(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        [] => name.to_vec(),
        directory => [directory, b"/", name].concat(),
    }
}

/// Neither waits for the other end of a FIFO, nor becomes the terminal of the process.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

fn open_beneath(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RETRIES_MAX {
        match openat2(root, path, FLAGS, Mode::empty(), resolve) {
            // "a rename [...] race" made it impossible to tell that a `..` in a link stays below.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::PERM) => return walk(root, path),
            opened => return opened,
        }
    }
    Err(Errno::NOENT)
}

/// The same name by name, without following any link.
fn walk(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut names = path.split(|byte| *byte == b'/').peekable();
    let mut at = root.try_clone_to_owned().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    while let Some(name) = names.next() {
        // Policy lets none of these through; here, too, nothing may depend on one place alone.
        if matches!(name, b"" | b"." | b"..") {
            return Err(Errno::NOENT);
        }
        let is_last = names.peek().is_none();
        let flags = if is_last { FLAGS | OFlags::NOFOLLOW } else { directory };
        at = openat(&at, name, flags, Mode::empty())?;
        if is_last {
            return Ok(at);
        }
    }
    Err(Errno::NOENT)
}

/// A strong entity-tag: another one for every change of content or name that the file system shows.
/// Hashed, since the number of an inode is of no concern to others.
fn etag_of(stat: &Stat) -> String {
    let mut hash = Sha1::new();
    hash.update(stat.st_dev.to_le_bytes());
    hash.update(stat.st_ino.to_le_bytes());
    hash.update(stat.st_size.to_le_bytes());
    for (seconds, nanoseconds) in [(stat.st_mtime, stat.st_mtime_nsec), (stat.st_ctime, stat.st_ctime_nsec)] {
        hash.update(seconds.to_le_bytes());
        hash.update(nanoseconds.to_le_bytes());
    }
    let digest: [u8; 20] = hash.finalize().into();
    format!("\"{}\"", text::hex(digest.first_chunk::<12>().unwrap_or(&[0; 12])))
}

/// By the name. Text is taken to be UTF-8.
fn media_type(path: &[u8]) -> String {
    let name = String::from_utf8_lossy(path);
    let media_type = MimeGuess::from_path(&*name).first_raw().unwrap_or("application/octet-stream");
    if media_type.starts_with("text/") { format!("{media_type}; charset=utf-8") } else { media_type.to_owned() }
}

#[cfg(test)]
mod tests;
