//! The writing end of the access log: one thread takes the records of all rings, formats them into
//! a batch and writes it. Only this thread waits for a slow disk or a full pipe. Meanwhile the
//! rings lose lines, which it reports in the log once it can write again. No error of the
//! destination ends it.

use super::control::Control;
use super::format;
use super::record::Record;
use super::ring::Ring;
use super::shared::{Shared, lock};
use super::sink::Sink;
use crate::clock::unix_ms;
use crate::config::{AccessLog, Format};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::thread;
use std::time::Duration;

/// Pause of the writer when there is nothing to write, and before it writes again after an error.
const PAUSE: Duration = Duration::from_millis(50);
/// After this many pauses in a row with nothing to write, the writer sleeps until the next record.
const IDLE_ROUNDS: u32 = 20;
/// Formatted bytes after which a batch is written.
const BATCH_BYTES: usize = 64 * 1024;

/// Opens the access log for `workers` workers, each with a ring of `capacity` records. The rings
/// are in the order of the workers. [`Writer::run`] needs a thread of its own.
///
/// # Errors
/// The file cannot be opened or standard output is closed.
pub fn open(
    workers: usize,
    capacity: usize,
    to: &AccessLog,
    format: Format,
) -> io::Result<(Writer, Control, Vec<Ring>)> {
    Ok(assemble(workers, capacity, Sink::open(to, format)?))
}

/// A ring without a writer, whose records the caller takes from the other end, as the simulation
/// does.
pub fn tap(capacity: usize) -> (Ring, rtrb::Consumer<Record>) {
    let (ring, records, _) = Ring::new(capacity.max(1), Arc::new(Shared::new(true)));
    (ring, records)
}

fn assemble(workers: usize, capacity: usize, sink: Sink) -> (Writer, Control, Vec<Ring>) {
    let shared = Arc::new(Shared::new(sink.is_on()));
    let mut rings = Vec::with_capacity(workers);
    let mut readers = Vec::with_capacity(workers);
    for _ in 0..workers {
        let (ring, records, lost) = Ring::new(capacity.max(1), shared.clone());
        rings.push(ring);
        readers.push(Reader { records, lost });
    }
    let control = Control { shared: shared.clone() };
    let (batch, first) = (Batch::default(), 0);
    let writer = Writer { shared, readers, first, sink, batch, reported: 0, idle_rounds: 0, failing: false };
    (writer, control, rings)
}

/// The thread's side. [`Writer::run`] is all of it.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    readers: Vec<Reader>,
    /// The reader that comes first in the next batch.
    first: usize,
    sink: Sink,
    batch: Batch,
    /// Lost lines that the log has reported.
    reported: u64,
    /// Rounds in a row with nothing to write.
    idle_rounds: u32,
    /// The last write failed, which was logged.
    failing: bool,
}

/// The reading end of a ring.
#[derive(Debug)]
struct Reader {
    records: rtrb::Consumer<Record>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    records: usize,
    /// Its last line reports lost lines, up to this number in all.
    reports: Option<u64>,
}

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        (self.records, self.reports) = (0, None);
    }
}

impl Writer {
    /// Writes until [`Control::stop`], and then what the rings still hold.
    pub fn run(mut self) {
        // Ignored: set only here, and a writer runs once.
        let _ = self.shared.thread.set(thread::current());
        loop {
            let stopping = self.shared.stop.load(Ordering::Acquire);
            self.take_sink();
            self.fill();
            let written = self.batch.bytes.is_empty() || self.write();
            let drained = self.batch.records == 0;
            if stopping && drained {
                break;
            }
            self.idle_rounds = if drained && written { self.idle_rounds.saturating_add(1) } else { 0 };
            if !stopping && (drained || !written) {
                self.wait();
            }
        }
        let (finished, changed) = &self.shared.finished;
        *lock(finished) = true;
        changed.notify_all();
    }

    /// Waits for records. Sleeps until the next record after a while without any: an idle process
    /// must not wake up for its log.
    fn wait(&mut self) {
        if self.idle_rounds < IDLE_ROUNDS {
            return thread::park_timeout(PAUSE);
        }
        self.shared.asleep.store(true, Ordering::SeqCst);
        // A worker that pushed before it could see `asleep` has left its record in the ring; all
        // others wake us.
        fence(Ordering::SeqCst);
        if self.readers.iter().all(|reader| reader.records.is_empty()) {
            thread::park();
        }
        self.shared.asleep.store(false, Ordering::SeqCst);
        self.idle_rounds = 0;
    }

    fn take_sink(&mut self) {
        if let Some(sink) = lock(&self.shared.next).take() {
            self.sink = sink;
            self.failing = false;
        }
    }

    /// Formats records of the rings, up to the size of a batch. The rings take turns to come first.
    fn fill(&mut self) {
        self.batch.clear();
        if !self.sink.is_on() && self.shared.is_on() {
            // Just switched on: these records are for the sink that the next round takes.
            return;
        }
        // Read before the records are taken: the line about lost lines follows those that were in
        // the ring then.
        let lost = self.lost();
        let format = self.sink.format;
        self.first = self.first.wrapping_add(1);
        let workers = self.readers.len().max(1);
        let (late, early) = self.readers.split_at_mut(self.first % workers);
        for reader in early.iter_mut().chain(late) {
            while self.batch.bytes.len() < BATCH_BYTES {
                let Ok(record) = reader.records.pop() else { break };
                format::write(&record, format, &mut self.batch.bytes);
                self.batch.records += 1;
            }
        }
        if lost > self.reported && self.sink.is_on() {
            format::write_lost(lost - self.reported, unix_ms(), format, &mut self.batch.bytes);
            self.batch.reports = Some(lost);
        }
    }

    /// Writes the batch. `false` if that failed; the rest of the batch is then lost.
    fn write(&mut self) -> bool {
        match self.sink.write(&self.batch.bytes) {
            Ok(()) => self.on_written(),
            Err((written, error)) => self.on_failed(written, &error),
        }
        !self.failing
    }

    fn on_written(&mut self) {
        self.reported = self.batch.reports.unwrap_or(self.reported);
        if self.failing {
            ::log::warn!("the access log can be written again");
        }
        self.failing = false;
    }

    fn on_failed(&mut self, written: usize, error: &io::Error) {
        let rest = self.batch.bytes.get(written..).unwrap_or_default();
        let lines = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
        // The trailing report of lost lines is not itself counted as lost; it is repeated next
        // time.
        let lines = lines.saturating_sub(u64::from(self.batch.reports.is_some()));
        self.shared.unwritten.fetch_add(lines, Ordering::Relaxed);
        self.shared.errors.fetch_add(1, Ordering::Relaxed);
        if !self.failing {
            ::log::error!("cannot write the access log, its lines are lost: {error}");
        }
        self.failing = true;
    }

    fn lost(&self) -> u64 {
        let in_rings: u64 = self.readers.iter().map(|reader| reader.lost.load(Ordering::Relaxed)).sum();
        in_rings + self.shared.unwritten.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
