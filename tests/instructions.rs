//! The check of `benches/instructions.py` can fail: its results for invented counts, without
//! measuring.

mod common;

use common::temp_path;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

const PLACE: &str = "# machine: x86_64, avx2\n# rustc: 1.95.0\n# libc: glibc 2.36\n# valgrind: 3.19.0\n";

/// A file in the format that the script writes and reads.
fn table(place: &str, rows: &[(&str, f64, f64)]) -> PathBuf {
    let rows: String = rows.iter().map(|(name, n, allocations)| format!("{name:<48} {n:.1} {allocations}\n")).collect();
    let path = temp_path("txt");
    std::fs::write(&path, format!("# A head.\n{place}\noperation instructions allocations\n{rows}")).unwrap();
    path
}

/// Exit status and output; `None` without Python, which fails in CI.
fn script(args: &[&str], change: impl FnOnce(&mut Command)) -> Option<(i32, String)> {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.py")).args(args);
    change(&mut command);
    let output = match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: python3 is missing");
            return None;
        }
        other => other.unwrap(),
    };
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.code().unwrap(), String::from_utf8(said).unwrap()))
}

/// Compares `counted` with a table of one operation, "worker, 64 B x 1", that costs 1000 and
/// allocates nothing.
#[track_caller]
fn check(place: &str, counted: &[(&str, f64, f64)], status: i32, says: &[&str]) {
    let (counted, table) = (table(place, counted), table(PLACE, &[("worker, 64 B x 1", 1000.0, 0.0)]));
    let args = ["--counted", counted.to_str().unwrap(), "--table", table.to_str().unwrap()];
    let result = script(&args, |_| {});
    for path in [&counted, &table] {
        std::fs::remove_file(path).unwrap();
    }
    let Some((got, said)) = result else { return };
    assert_eq!(got, status, "{said}");
    for text in says {
        assert!(said.contains(text), "no {text:?} in:\n{said}");
    }
    if says.is_empty() {
        assert_eq!(said.lines().count(), 1, "nothing but the closing line: {said}");
    }
}

const UPDATE: &str = "update the table: benches/instructions.py --update";

#[test]
fn higher_cost_fails_and_lower_cost_is_reported() {
    let one = |n, allocations| [("worker, 64 B x 1", n, allocations)];
    check(PLACE, &one(1000.0, 0.0), 0, &[]);
    check(PLACE, &one(1050.0, 0.0), 0, &[]);
    check(PLACE, &one(950.0, 0.0), 0, &[]);
    check(PLACE, &one(1050.1, 0.0), 1, &["DEARER", "1000.0 -> 1050.1", "1 dearer", UPDATE]);
    check(PLACE, &one(1000.0, 1.0), 1, &["DEARER", "1 allocations", UPDATE]);
    check(PLACE, &one(949.9, 0.0), 0, &["cheaper", "1000.0 -> 949.9", "1 cheaper", UPDATE]);
}

#[test]
fn operation_missing_on_one_side_fails() {
    check(PLACE, &[("worker, 64 B x 1", 1000.0, 0.0), ("worker, 64 B x 2", 9.0, 0.0)], 1, &["NEW", UPDATE]);
    check(PLACE, &[("worker, 64 B x 2", 1000.0, 0.0)], 1, &["NEW", "GONE", "2 not on both sides"]);
}

#[test]
fn tolerance_depends_on_toolchain_and_architecture() {
    let one = |n| [("worker, 64 B x 1", n, 0.0)];
    let newer = PLACE.replace("1.95.0", "1.99.0");
    check(&newer, &one(1200.0), 0, &["ELSEWHERE: rustc is 1.99.0, the table was made with 1.95.0", "20 % are allowed"]);
    check(&newer, &one(1200.1), 1, &["DEARER"]);
    check(&PLACE.replace("avx2", "no avx2"), &one(1200.0), 0, &["ELSEWHERE: machine is x86_64, no avx2"]);
    check(&PLACE.replace("x86_64", "aarch64"), &one(5000.0), 0, &["NOT COMPARED"]);
}

#[test]
fn unreadable_table_fails() {
    let counted = table(PLACE, &[("worker, 64 B x 1", 1000.0, 0.0)]);
    let broken = temp_path("txt");
    for text in [None, Some("operation instructions allocations\nworker, 64 B x 1 many 0\n")] {
        if let Some(text) = text {
            std::fs::write(&broken, text).unwrap();
        }
        let args = ["--counted", counted.to_str().unwrap(), "--table", broken.to_str().unwrap()];
        let Some((status, said)) = script(&args, |_| {}) else { return };
        assert_eq!(status, 2, "{said}");
    }
    for path in [&counted, &broken] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn missing_valgrind_fails_in_ci_and_is_reported_elsewhere() {
    for (ci, expected) in [(true, 2), (false, 0)] {
        let without = |command: &mut Command| {
            command.env("VALGRIND", "/nowhere/valgrind");
            if ci {
                command.env("CI", "true")
            } else {
                command.env_remove("CI")
            };
        };
        let Some((status, said)) = script(&[], without) else { return };
        assert_eq!(status, expected, "{said}");
        assert!(said.starts_with("NOT COUNTED: there is no valgrind"), "{said}");
    }
}

/// The committed table has this format, and no operation on a message allocates.
#[test]
fn table_has_the_plain_path() {
    let text = include_str!("../benches/instructions.txt");
    assert!(text.contains("benches/instructions.py --update"), "its head shows how to update it");
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("worker, ") && line.contains(" B ")).collect();
    assert!(rows.len() >= 8, "{rows:?}");
    assert!(rows.iter().all(|row| row.ends_with(" 0")), "{rows:?}");
}
