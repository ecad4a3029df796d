//! The writing end of the access log: one thread takes the records of all rings, formats them into one buffer and
//! writes it at once. It alone waits for a slow disk or a full pipe; meanwhile the rings lose lines, which it says
//! as soon as it can write again. No error of the destination ends it.

use super::format;
use super::record::Record;
use super::ring::Ring;
use crate::config::{AccessLog, Format};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime};

/// How long the writer sleeps when there is nothing to write, and before it tries a destination again.
const IDLE: Duration = Duration::from_millis(50);
/// So many of these in a row with nothing to write, and it sleeps until the next record.
const QUIET_ROUNDS: u32 = 20;
/// Formatted bytes after which they are written, whatever waits still.
const BATCH: usize = 64 * 1024;

/// Opens the access log for `workers` workers, each with a ring of `capacity` records. The rings are in the order
/// of the workers; [`Writer::run`] belongs on a thread of its own.
///
/// # Errors
/// The file cannot be opened or standard output is closed.
pub fn open(
    workers: usize,
    capacity: usize,
    to: &AccessLog,
    format: Format,
) -> io::Result<(Writer, Control, Vec<Ring>)> {
    let file = open_file(to)?;
    Ok(assemble(workers, capacity, Output { file, format }, to.clone()))
}

/// A ring that no thread writes: whoever holds the other end takes the records as they are, as the simulation does.
pub fn tap(capacity: usize) -> (Ring, rtrb::Consumer<Record>) {
    let output = Output { file: None, format: Format::Text };
    let (mut writer, _control, mut rings) = assemble(1, capacity, output, AccessLog::Off);
    writer.shared.on.store(true, Ordering::Relaxed);
    match (rings.pop(), writer.readers.pop()) {
        (Some(ring), Some(reader)) => (ring, reader.records),
        // One worker has one ring.
        _ => unreachable!("a ring for one worker"),
    }
}

fn assemble(workers: usize, capacity: usize, output: Output, to: AccessLog) -> (Writer, Control, Vec<Ring>) {
    let shared = Arc::new(Shared {
        on: AtomicBool::new(output.file.is_some()),
        stop: AtomicBool::new(false),
        asleep: AtomicBool::new(false),
        errors: AtomicU64::new(0),
        unwritten: AtomicU64::new(0),
        thread: OnceLock::new(),
        current: Mutex::new((to, output.format)),
        next: Mutex::new(None),
        finished: (Mutex::new(false), Condvar::new()),
    });
    let mut rings = Vec::with_capacity(workers);
    let mut readers = Vec::with_capacity(workers);
    for _ in 0..workers {
        let (ring, records, lost) = Ring::new(capacity.max(1), shared.clone());
        rings.push(ring);
        readers.push(Reader { records, lost });
    }
    let control = Control { shared: shared.clone() };
    let writer = Writer {
        shared,
        readers,
        turn: 0,
        output,
        batch: Batch::default(),
        said: 0,
        torn: false,
        quiet: 0,
        failing: false,
    };
    (writer, control, rings)
}

/// The thread's side. [`Writer::run`] is all of it.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    readers: Vec<Reader>,
    /// The reader that is first in the next batch.
    turn: usize,
    output: Output,
    batch: Batch,
    /// Lost lines that a line in the log speaks of.
    said: u64,
    /// The last write that failed left a piece of a line.
    torn: bool,
    /// Rounds in a row with nothing to write.
    quiet: u32,
    /// The last write failed, and that was said.
    failing: bool,
}

impl Writer {
    /// Writes until [`Control::stop`], and then all that is in the rings.
    pub fn run(mut self) {
        let _ = self.shared.thread.set(thread::current());
        loop {
            let stopping = self.shared.stop.load(Ordering::Acquire);
            self.take_output();
            self.fill();
            let written = self.batch.bytes.is_empty() || self.write();
            let drained = self.batch.records == 0;
            if stopping && drained {
                break;
            }
            self.quiet = if drained && written { self.quiet.saturating_add(1) } else { 0 };
            if !stopping && (drained || !written) {
                self.rest();
            }
        }
        let (finished, changed) = &self.shared.finished;
        *lock(finished) = true;
        changed.notify_all();
    }

    /// Waits for more to write. After a while without any it sleeps until the next record: an idle process must not
    /// wake for its log.
    fn rest(&mut self) {
        if self.quiet < QUIET_ROUNDS {
            return thread::park_timeout(IDLE);
        }
        self.shared.asleep.store(true, Ordering::SeqCst);
        // Whoever pushed before it could see us asleep has left its record here; all others wake us.
        fence(Ordering::SeqCst);
        if self.readers.iter().all(|reader| reader.records.is_empty()) {
            thread::park();
        }
        self.shared.asleep.store(false, Ordering::SeqCst);
        self.quiet = 0;
    }

    fn take_output(&mut self) {
        if let Some(output) = lock(&self.shared.next).take() {
            self.output = output;
            (self.torn, self.failing) = (false, false);
        }
    }

    /// Formats what is in the rings, up to a batch, each ring first in its turn.
    fn fill(&mut self) {
        self.batch.clear();
        if self.output.file.is_none() && self.shared.is_on() {
            // Just switched on: these records are for the output of the next turn.
            return;
        }
        // Read before the records are taken: the line about a loss stands after what was in the ring then.
        let lost = self.lost();
        let format = self.output.format;
        self.turn = self.turn.wrapping_add(1);
        let workers = self.readers.len().max(1);
        let (late, early) = self.readers.split_at_mut(self.turn % workers);
        for reader in early.iter_mut().chain(late) {
            while self.batch.bytes.len() < BATCH {
                let Ok(record) = reader.records.pop() else { break };
                format::write(&record, format, &mut self.batch.bytes);
                self.batch.records += 1;
            }
        }
        if lost > self.said && self.output.file.is_some() {
            format::write_lost(lost - self.said, unix_ms(), format, &mut self.batch.bytes);
            self.batch.says = Some(lost);
        }
    }

    /// Writes the batch; `false` if that failed and the rest of it is lost.
    fn write(&mut self) -> bool {
        let Some(file) = &mut self.output.file else { return true };
        let mut sent = 0;
        let glue: &[u8] = if self.torn { b"\n" } else { b"" };
        let result = write_all(file, glue, &mut 0).and_then(|()| {
            self.torn = false;
            write_all(file, &self.batch.bytes, &mut sent)
        });
        match result {
            Ok(()) => self.on_written(),
            Err(error) => self.on_failed(sent, &error),
        }
        !self.failing
    }

    fn on_written(&mut self) {
        self.said = self.batch.says.unwrap_or(self.said);
        if self.failing {
            ::log::warn!("the access log is being written again");
        }
        self.failing = false;
    }

    fn on_failed(&mut self, sent: usize, error: &io::Error) {
        let (written, rest) = self.batch.bytes.split_at_checked(sent).unwrap_or_default();
        let lines = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.torn = written.last().map_or(self.torn, |byte| *byte != b'\n');
        // The line about lost lines, last in the batch, is none that was lost: it is said again.
        let lines = lines.saturating_sub(u64::from(self.batch.says.is_some()));
        self.shared.unwritten.fetch_add(lines, Ordering::Relaxed);
        self.shared.errors.fetch_add(1, Ordering::Relaxed);
        if !self.failing {
            ::log::error!("the access log cannot be written ({error}); its lines are lost until it can");
        }
        self.failing = true;
    }

    fn lost(&self) -> u64 {
        let in_rings: u64 = self.readers.iter().map(|reader| reader.lost.load(Ordering::Relaxed)).sum();
        in_rings + self.shared.unwritten.load(Ordering::Relaxed)
    }
}

/// The handle of who changes and stops the access log. Its calls wait for no writing.
#[derive(Debug, Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

impl Control {
    /// Opens the file anew under its name, after something else has renamed it. Does nothing without a file.
    ///
    /// # Errors
    /// The file cannot be opened: the writer goes on with the old one.
    pub fn reopen(&self) -> io::Result<()> {
        let (to, format) = lock(&self.shared.current).clone();
        match to {
            AccessLog::File(_) => self.set(&to, format),
            AccessLog::Off | AccessLog::Stdout => Ok(()),
        }
    }

    /// Writes to another place or in another format from the next batch on. Opens a file anew even if it is the same.
    ///
    /// # Errors
    /// The destination cannot be opened: nothing has changed.
    pub fn set(&self, to: &AccessLog, format: Format) -> io::Result<()> {
        let file = open_file(to)?;
        let on = file.is_some();
        let mut current = lock(&self.shared.current);
        *lock(&self.shared.next) = Some(Output { file, format });
        *current = (to.clone(), format);
        // After `next`: who sees that it is on finds where to.
        self.shared.on.store(on, Ordering::Release);
        self.shared.wake();
        Ok(())
    }

    /// Has the writer write what is in the rings and end. `false` if it has not within `patience`: the destination
    /// blocks, and the process should end without it. Workers no longer push when this is called.
    pub fn stop(&self, patience: Duration) -> bool {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        let (finished, changed) = &self.shared.finished;
        let waited = changed.wait_timeout_while(lock(finished), patience, |finished| !*finished);
        let (finished, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *finished
    }

    /// Writes that failed.
    pub fn errors(&self) -> u64 {
        self.shared.errors.load(Ordering::Relaxed)
    }

    /// Lines lost to failed writes. Those lost to full rings are counted by [`Ring::lost`] and by the workers.
    pub fn unwritten(&self) -> u64 {
        self.shared.unwritten.load(Ordering::Relaxed)
    }
}

/// What the workers' rings, the writer and its controls have in common.
#[derive(Debug)]
pub(super) struct Shared {
    on: AtomicBool,
    stop: AtomicBool,
    /// The writer sleeps until it is woken.
    asleep: AtomicBool,
    errors: AtomicU64,
    unwritten: AtomicU64,
    /// The writer's, once it runs.
    thread: OnceLock<Thread>,
    /// What was asked for last.
    current: Mutex<(AccessLog, Format)>,
    /// Opened, for the writer to take.
    next: Mutex<Option<Output>>,
    finished: (Mutex<bool>, Condvar),
}

impl Shared {
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// A record was pushed: wakes the writer if it sleeps.
    #[inline]
    pub(super) fn pushed(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

#[derive(Debug)]
struct Reader {
    records: rtrb::Consumer<Record>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Output {
    /// `None`: off.
    file: Option<File>,
    format: Format,
}

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    records: usize,
    /// The number of lost lines that its last line brings [`Writer::said`] to.
    says: Option<u64>,
}

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        (self.records, self.says) = (0, None);
    }
}

/// Standard output as a plain file: no buffer that would keep half a line after an error.
fn open_file(to: &AccessLog) -> io::Result<Option<File>> {
    match to {
        AccessLog::Off => Ok(None),
        AccessLog::Stdout => Ok(Some(File::from(io::stdout().as_fd().try_clone_to_owned()?))),
        AccessLog::File(path) => {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            OpenOptions::new().append(true).create(true).open(path).map(Some).map_err(named)
        }
    }
}

/// Writes all of `bytes`, counting in `sent`. Waits where the destination is non-blocking and full.
fn write_all(file: &mut File, bytes: &[u8], sent: &mut usize) -> io::Result<()> {
    while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => *sent += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Standard output may be a terminal or pipe that somebody else has made non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(IDLE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::record::EndRecord;
    use super::*;
    use crate::proto::Sides;
    use crate::proto::end::{Cause, End, Party, Phase};
    use std::os::fd::OwnedFd;
    use std::path::PathBuf;
    use std::time::Instant;

    /// A record that can be told from others by its age.
    fn record(age_ms: u64) -> Record {
        Record::End(EndRecord {
            facts: None,
            peer: "127.0.0.1:1".parse().unwrap(),
            at_unix_ms: 0,
            ended: End { party: Party::Proxy, phase: Phase::Request, cause: Cause::HeadTimeout },
            endpoint: None,
            status: 408,
            close_codes: Sides::default(),
            age_ms,
            frames: Sides::default(),
            bytes: Sides::default(),
        })
    }

    fn ages(text: &str) -> Vec<u64> {
        let age = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["age"].as_f64().map(|age| (age * 1000.0).round() as u64)
        };
        text.lines().filter_map(age).collect()
    }

    fn lost(text: &str) -> u64 {
        let lost = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["lost"].as_u64();
        text.lines().filter_map(lost).sum()
    }

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    }

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("framegate-log-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn read(path: &PathBuf) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_full_ring_loses_counts_and_says_so() {
        let dir = Dir::new("full");
        let path = dir.file("access.log");
        let (writer, control, mut rings) = open(2, 4, &AccessLog::File(path.clone()), Format::Json).unwrap();
        let pushed: Vec<bool> = (0..7).map(|age| rings[0].push(record(age))).collect();
        assert_eq!(pushed, [true, true, true, true, false, false, false]);
        assert_eq!((rings[0].lost(), rings[1].lost()), (3, 0));
        assert!(rings[1].push(record(100)));
        let thread = thread::spawn(move || writer.run());
        assert!(control.stop(PATIENCE));
        thread.join().unwrap();
        let text = read(&path);
        let mut seen = ages(&text);
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 100]);
        assert_eq!(lost(&text), 3);
        assert!(text.lines().last().unwrap().contains("\"lost\":3"));
        assert_eq!(control.unwritten(), 0);
    }

    #[test]
    fn order_is_kept_over_many_batches_and_stop_flushes_all() {
        let dir = Dir::new("order");
        let path = dir.file("access.log");
        let (writer, control, mut rings) = open(1, 10_000, &AccessLog::File(path.clone()), Format::Json).unwrap();
        let thread = thread::spawn(move || writer.run());
        for age in 0..5_000 {
            assert!(rings[0].push(record(age)));
        }
        assert!(control.stop(PATIENCE));
        thread.join().unwrap();
        let text = read(&path);
        assert!(text.len() > 4 * BATCH);
        assert_eq!(ages(&text), (0..5_000).collect::<Vec<_>>());
    }

    /// A pipe that takes nothing more: full of line feeds. Blocking or not, as a shell may hand it down.
    fn full_pipe(nonblocking: bool) -> (File, File) {
        let (mut pipe, reader) = mio::unix::pipe::new().unwrap();
        for piece in [&[b'\n'; 1024][..], b"\n"] {
            while pipe.write(piece).is_ok() {}
        }
        pipe.set_nonblocking(nonblocking).unwrap();
        reader.set_nonblocking(false).unwrap();
        (File::from(OwnedFd::from(pipe)), File::from(OwnedFd::from(reader)))
    }

    #[test]
    fn a_pipe_that_nobody_reads_blocks_no_worker_and_its_losses_are_said() {
        for nonblocking in [false, true] {
            let (pipe, reader) = full_pipe(nonblocking);
            let output = Output { file: Some(pipe), format: Format::Json };
            let (writer, control, mut rings) = assemble(1, 8, output, AccessLog::Stdout);
            let thread = thread::spawn(move || writer.run());
            let mut pushed = 0;
            until("the ring never overflowed", || {
                pushed += u64::from(rings[0].push(record(pushed)));
                rings[0].lost() >= 1_000
            });
            assert!(!control.stop(Duration::from_millis(1)), "it cannot have written");
            let reading = thread::spawn(move || io::read_to_string(reader).unwrap());
            assert!(control.stop(PATIENCE));
            thread.join().unwrap();
            let text = reading.join().unwrap();
            let text = text.trim_start();
            assert_eq!(lost(text), rings[0].lost());
            assert_eq!(ages(text), (0..pushed).collect::<Vec<_>>());
            assert_eq!(control.errors(), 0);
        }
    }

    #[test]
    fn a_reader_that_is_gone_ends_nothing() {
        let (reader, pipe) = io::pipe().unwrap();
        drop(reader);
        let output = Output { file: Some(File::from(OwnedFd::from(pipe))), format: Format::Json };
        let (writer, control, mut rings) = assemble(1, 8, output, AccessLog::Stdout);
        let thread = thread::spawn(move || writer.run());
        assert!(rings[0].push(record(1)));
        until("the error was not counted", || control.unwritten() == 1);
        assert!(control.errors() >= 1);
        // Once there is a place to write to, it says what is missing and goes on.
        let dir = Dir::new("gone");
        let path = dir.file("access.log");
        control.set(&AccessLog::File(path.clone()), Format::Json).unwrap();
        until("the loss was not said", || lost(&read(&path)) == 1);
        assert!(rings[0].push(record(2)));
        assert!(control.stop(PATIENCE));
        thread.join().unwrap();
        assert_eq!(ages(&read(&path)), [2]);
        assert_eq!((lost(&read(&path)), control.unwritten()), (1, 1));
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next_one() {
        let dir = Dir::new("torn");
        let path = dir.file("access.log");
        let (mut writer, control, mut rings) = open(1, 8, &AccessLog::File(path.clone()), Format::Json).unwrap();
        rings[0].push(record(1));
        rings[0].push(record(2));
        writer.fill();
        // As if the disk had been full after the first line and 5 bytes.
        let cut = writer.batch.bytes.iter().position(|b| *b == b'\n').unwrap() + 6;
        let head = writer.batch.bytes[..cut].to_vec();
        writer.output.file.as_mut().unwrap().write_all(&head).unwrap();
        writer.on_failed(cut, &io::ErrorKind::StorageFull.into());
        assert_eq!((control.unwritten(), control.errors(), writer.torn), (1, 1, true));
        rings[0].push(record(3));
        writer.fill();
        assert!(writer.write());
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(ages(lines[0]), [1]);
        assert_eq!(lines[1].len(), 5);
        assert_eq!(ages(lines[2]), [3]);
        assert_eq!(lost(lines[3]), 1);
        assert_eq!((writer.torn, writer.failing, writer.said), (false, false, 1));
    }

    #[test]
    fn a_full_disk_is_counted_once_a_batch_and_the_loss_not_twice() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Output { file: Some(full), format: Format::Text };
        let (mut writer, control, mut rings) = assemble(1, 8, output, AccessLog::Stdout);
        for round in 1..=3 {
            rings[0].push(record(round));
            writer.fill();
            assert!(!writer.write());
            assert_eq!((control.unwritten(), control.errors()), (round, round));
        }
        writer.fill();
        assert!(!writer.write());
        assert_eq!(control.unwritten(), 3, "a line about lost lines is no lost line");
    }

    #[test]
    fn an_idle_writer_sleeps_and_the_next_record_wakes_it() {
        let dir = Dir::new("sleep");
        let path = dir.file("access.log");
        let (writer, control, mut rings) = open(1, 64, &AccessLog::File(path.clone()), Format::Json).unwrap();
        let shared = control.shared.clone();
        let thread = thread::spawn(move || writer.run());
        for age in 1..4 {
            until("it sleeps", || shared.asleep.load(Ordering::SeqCst));
            rings[0].push(record(age));
            until("the line", || ages(&read(&path)).last() == Some(&age));
        }
        until("it sleeps", || shared.asleep.load(Ordering::SeqCst));
        assert!(control.stop(PATIENCE));
        thread.join().unwrap();
    }

    #[test]
    fn reopening_after_a_rename_writes_to_the_new_file() {
        let dir = Dir::new("rotate");
        let (path, old) = (dir.file("access.log"), dir.file("access.log.1"));
        let (writer, control, mut rings) = open(1, 64, &AccessLog::File(path.clone()), Format::Json).unwrap();
        let thread = thread::spawn(move || writer.run());
        rings[0].push(record(1));
        until("the first line", || ages(&read(&path)) == [1]);
        std::fs::rename(&path, &old).unwrap();
        rings[0].push(record(2));
        until("the line before the reopening", || ages(&read(&old)) == [1, 2]);
        control.reopen().unwrap();
        rings[0].push(record(3));
        assert!(control.stop(PATIENCE));
        thread.join().unwrap();
        assert_eq!(ages(&read(&old)), [1, 2]);
        assert_eq!(ages(&read(&path)), [3]);
    }

    #[test]
    fn off_takes_nothing_and_a_bad_destination_changes_nothing() {
        let dir = Dir::new("off");
        let path = dir.file("access.log");
        let (writer, control, mut rings) = open(1, 2, &AccessLog::Off, Format::Json).unwrap();
        let thread = thread::spawn(move || writer.run());
        assert!(!rings[0].is_on());
        assert!((0..10).all(|age| rings[0].push(record(age))));
        assert_eq!(rings[0].lost(), 0);
        assert!(control.reopen().is_ok());
        assert!(control.set(&AccessLog::File(dir.file("no/such/place")), Format::Json).is_err());
        assert!(!rings[0].is_on());
        control.set(&AccessLog::File(path.clone()), Format::Json).unwrap();
        assert!(rings[0].is_on());
        rings[0].push(record(5));
        control.set(&AccessLog::File(path.clone()), Format::Json).unwrap();
        assert!(control.stop(PATIENCE));
        thread.join().unwrap();
        assert_eq!(ages(&read(&path)), [5]);
    }
}
