//! The writer with rings, files and pipes that fail.

use super::super::record::EndRecord;
use super::*;
use crate::proto::Sides;
use crate::proto::end::{Cause, End, Party, Phase};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;

/// A record identified by its age.
fn record(age_ms: u64) -> Record {
    Record::End(EndRecord {
        info: None,
        peer: "127.0.0.1:1".parse().unwrap(),
        at_unix_ms: 0,
        end: End { party: Party::Proxy, phase: Phase::Request, cause: Cause::HeadTimeout },
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
fn lines_lost_to_a_full_ring_are_counted_and_reported() {
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
    assert!(text.len() > 4 * BATCH_BYTES);
    assert_eq!(ages(&text), (0..5_000).collect::<Vec<_>>());
}

/// A full pipe, blocking or not: a shell may pass on either.
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
fn an_unread_pipe_blocks_no_worker_and_its_losses_are_reported() {
    for nonblocking in [false, true] {
        let (pipe, reader) = full_pipe(nonblocking);
        let sink = Sink::new(Some(pipe), Format::Json);
        let (writer, control, mut rings) = assemble(1, 8, sink);
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
fn a_broken_pipe_does_not_end_the_writer() {
    let (reader, pipe) = io::pipe().unwrap();
    drop(reader);
    let sink = Sink::new(Some(File::from(OwnedFd::from(pipe))), Format::Json);
    let (writer, control, mut rings) = assemble(1, 8, sink);
    let thread = thread::spawn(move || writer.run());
    assert!(rings[0].push(record(1)));
    until("the error was not counted", || control.unwritten() == 1);
    assert!(control.errors() >= 1);
    // Once it can write again, it reports what is missing and continues.
    let dir = Dir::new("gone");
    let path = dir.file("access.log");
    control.set(&AccessLog::File(path.clone()), Format::Json).unwrap();
    until("the loss was not reported", || lost(&read(&path)) == 1);
    assert!(rings[0].push(record(2)));
    assert!(control.stop(PATIENCE));
    thread.join().unwrap();
    assert_eq!(ages(&read(&path)), [2]);
    assert_eq!((lost(&read(&path)), control.unwritten()), (1, 1));
}

#[test]
fn a_partial_line_is_ended_before_the_next_one() {
    let dir = Dir::new("partial");
    let path = dir.file("access.log");
    let (mut writer, control, mut rings) = open(1, 8, &AccessLog::File(path.clone()), Format::Json).unwrap();
    rings[0].push(record(1));
    rings[0].push(record(2));
    writer.fill();
    // As if the disk had been full after the first line and 5 bytes.
    let cut = writer.batch.bytes.iter().position(|b| *b == b'\n').unwrap() + 6;
    let head = writer.batch.bytes[..cut].to_vec();
    writer.sink.file.as_mut().unwrap().write_all(&head).unwrap();
    writer.sink.on_partial(&head);
    writer.on_failed(cut, &io::ErrorKind::StorageFull.into());
    assert_eq!((control.unwritten(), control.errors(), writer.sink.partial_line), (1, 1, true));
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
    assert_eq!((writer.sink.partial_line, writer.failing, writer.reported), (false, false, 1));
}

#[test]
fn a_full_disk_is_counted_once_per_batch_and_the_report_is_not_lost() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let sink = Sink::new(Some(full), Format::Text);
    let (mut writer, control, mut rings) = assemble(1, 8, sink);
    for round in 1..=3 {
        rings[0].push(record(round));
        writer.fill();
        assert!(!writer.write());
        assert_eq!((control.unwritten(), control.errors()), (round, round));
    }
    writer.fill();
    assert!(!writer.write());
    assert_eq!(control.unwritten(), 3, "the report of lost lines is not itself a lost line");
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
    control.set(&AccessLog::File(path.clone()), Format::Json).unwrap();
    rings[0].push(record(3));
    assert!(control.stop(PATIENCE));
    thread.join().unwrap();
    assert_eq!(ages(&read(&old)), [1, 2]);
    assert_eq!(ages(&read(&path)), [3]);
}

#[test]
fn off_records_nothing_and_a_bad_destination_changes_nothing() {
    let dir = Dir::new("off");
    let path = dir.file("access.log");
    let (writer, control, mut rings) = open(1, 2, &AccessLog::Off, Format::Json).unwrap();
    let thread = thread::spawn(move || writer.run());
    assert!(!rings[0].is_on());
    assert!((0..10).all(|age| rings[0].push(record(age))));
    assert_eq!(rings[0].lost(), 0);
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
