//! A file that changes, is being written, is wrong, and is gone, with a clock of the test's own.

use super::*;
use crate::config;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file of its own, removed at the end.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str, text: &str) -> Temp {
        let temp = Temp(std::env::temp_dir().join(format!("framegate-deny-{name}-{}", std::process::id())));
        fs::write(&temp.0, text).unwrap();
        temp
    }

    /// Writes it in place; two versions differ in size or time.
    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.0);
    }
}

fn snapshot(path: &Path) -> Snapshot {
    let file = format!("deny_file = {path:?}\n");
    let route = "upstream = \"ws://10.0.0.1:9000\"\n";
    let text = format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n{file}[[route]]\n{route}{file}");
    config::parse(&text, "test").unwrap()
}

fn denies(snapshot: &Snapshot, address: &str) -> bool {
    let files = snapshot.deny_files();
    assert_eq!(files.len(), 1, "what names the same file shares it");
    files[0].contains(address.parse().unwrap())
}

#[test]
fn a_changed_file_is_in_force_within_a_second() {
    let file = Temp::new("changed", "192.0.2.1\n");
    let snapshot = snapshot(&file.0);
    let mut files = DenyFiles::default();
    files.replace(&snapshot, 1_000);
    assert_eq!(files.deadline(), Some(0));
    files.on_tick(1_000);
    assert_eq!(files.deadline(), Some(1_250));
    assert!(denies(&snapshot, "192.0.2.1"));
    file.write("192.0.2.22\n192.0.2.0/31\n");
    files.on_tick(1_250);
    files.on_tick(1_260);
    assert!(!denies(&snapshot, "192.0.2.22"), "it may be being written");
    files.on_tick(1_500);
    assert!(denies(&snapshot, "192.0.2.22"));
    let status = files.status(1_600);
    assert_eq!((status[0].networks, status[0].age_ms, status[0].failures), (2, 100, 0));
}

#[test]
fn a_file_that_is_written_all_the_time_is_read_by_its_whole_lines() {
    let file = Temp::new("written", "192.0.2.1\n");
    let snapshot = snapshot(&file.0);
    let mut files = DenyFiles::default();
    files.replace(&snapshot, 0);
    // One more line before each look.
    let mut text = String::new();
    let mut until = |now: Millis, line: &str, files: &mut DenyFiles| {
        text += line;
        file.write(&text);
        files.on_tick(now);
    };
    until(250, "10.0.0.0/8\n", &mut files);
    until(500, "11.0.0.0/8\n", &mut files);
    assert!(!denies(&snapshot, "10.0.0.1"));
    until(750, "12.0.0.0/1", &mut files);
    assert!(!denies(&snapshot, "10.0.0.1") && !denies(&snapshot, "100.0.0.1"), "half a line is not half of all");
    assert_eq!(files.status(750)[0].failures, 1);
    until(1_000, "6\n", &mut files);
    until(1_250, "13.0.0.0/8\n", &mut files);
    until(1_500, "14.0.0.0/8\n", &mut files);
    assert!(denies(&snapshot, "12.0.9.9") && denies(&snapshot, "14.0.0.1") && !denies(&snapshot, "100.0.0.1"));
    // Who writes no line feed at the end gets it read once it stays the same.
    until(1_750, "15.0.0.0/8", &mut files);
    files.on_tick(2_000);
    assert!(denies(&snapshot, "15.0.0.1"));
}

#[test]
fn a_file_that_cannot_be_used_leaves_the_old_list_in_force() {
    let file = Temp::new("wrong", "192.0.2.1\n");
    let snapshot = snapshot(&file.0);
    let mut files = DenyFiles::default();
    files.replace(&snapshot, 0);
    file.write("192.0.2.2\nnonsense\n");
    (0..=4).for_each(|look| files.on_tick(look * 250));
    assert!(denies(&snapshot, "192.0.2.1") && !denies(&snapshot, "192.0.2.2"));
    let error = files.files[0].error.clone().unwrap();
    assert!(error.contains(":2: \"nonsense\" is not a network"), "{error}");
    let wrong = files.status(1_000)[0].clone();
    assert!(wrong.failures >= 1 && wrong.age_ms == 1_000, "{wrong:?}");
    fs::remove_file(&file.0).unwrap();
    files.on_tick(2_000);
    assert!(denies(&snapshot, "192.0.2.1"));
    assert!(files.files[0].error.as_ref().is_some_and(|error| error.contains("cannot be read")));
    let gone = files.status(2_000)[0].clone();
    assert_eq!((gone.failures, gone.age_ms), (wrong.failures + 1, 2_000));
    file.write("192.0.2.2\n");
    files.on_tick(2_250);
    files.on_tick(2_500);
    assert!(denies(&snapshot, "192.0.2.2") && !denies(&snapshot, "192.0.2.1"));
    let back = files.status(2_500)[0].clone();
    assert_eq!((back.failures, back.age_ms, files.files[0].error.as_ref()), (gone.failures, 0, None));
    // A reload goes on counting.
    files.replace(&snapshot, 2_600);
    assert_eq!(files.status(2_600)[0].failures, gone.failures);
}

#[test]
fn a_file_that_has_settled_is_not_read_again() {
    let file = Temp::new("settled", "192.0.2.1\n");
    let snapshot = snapshot(&file.0);
    let mut files = DenyFiles::default();
    files.replace(&snapshot, 0);
    let old = SystemTime::now() - Duration::from_secs(60);
    File::options().append(true).open(&file.0).unwrap().set_modified(old).unwrap();
    files.on_tick(0);
    files.on_tick(250);
    let watched = &mut files.files[0];
    // The change of its time has not settled yet: look as if it had.
    watched.seen = Some(Version::of(&fs::metadata(&file.0).unwrap()));
    watched.file.replace(Default::default());
    files.on_tick(500);
    files.on_tick(750);
    assert!(!denies(&snapshot, "192.0.2.1"), "nothing was read");
    assert_eq!(files.status(750)[0].age_ms, 0);
    // One that could not be used is not in force, however long it stays the same.
    files.files[0].error = Some("line 1".to_owned());
    files.on_tick(1_000);
    assert_eq!(files.status(1_000)[0].age_ms, 250);
}
