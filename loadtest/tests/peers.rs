//! Targets known by name, as `loadtest/peers/run` starts them: each whose program is there echoes,
//! byte for byte, with the configuration that it is given.

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_framegate-loadtest");

fn run(args: &str) -> Output {
    Command::new(PROGRAM).args(args.split(' ')).output().unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn peers_that_are_there_echo_with_each_of_their_configurations() {
    for name in ["relay", "framegate", "nginx", "haproxy", "envoy", "caddy", "sozu"] {
        let mut known = 0;
        for variant in ["", "-bulk", "-log", "-splice", "-tls"] {
            let target = format!("{name}{variant}");
            let output =
                run(&format!("cost --target {target} --rounds 1 --round-ms 50 --payload 65536 --connections 4"));
            let printed = printed(&output);
            // Not every peer has every variant.
            let has_row = printed.lines().any(|line| line.starts_with(&format!("{target} ")));
            let is_none = printed.contains("unknown target");
            assert!(is_none || is_missing(&printed) || (output.status.success() && has_row), "{target}: {printed}");
            known += u32::from(!is_none);
        }
        assert!(known > 0, "{name}");
    }
}

/// A peer that is not there is left out with a message; CI has them all.
fn is_missing(printed: &str) -> bool {
    let missing = printed.contains("is not installed");
    assert!(!missing || std::env::var_os("CI").is_none(), "{printed}");
    if missing {
        eprintln!("skipped: {printed}");
    }
    missing
}

#[test]
fn children_end_with_who_started_them_even_if_that_is_killed() {
    let args = "cost --target relay --rounds 1000 --round-ms 1000".split(' ');
    let mut parent = Command::new(PROGRAM).args(args).stdout(Stdio::null()).spawn().unwrap();
    // Backend and relay.
    let children = until(|| Some(children(parent.id())).filter(|children| children.len() == 2));
    let commands = || children.iter().map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default());
    until(|| {
        commands().all(|line| !line.is_empty() && !line.windows(8).any(|word| word == b"guarded\0")).then_some(())
    });
    parent.kill().unwrap();
    parent.wait().unwrap();
    // They may not have been reaped yet: a dead process has no command line.
    until(|| commands().all(|line| line.is_empty()).then_some(()));
}

#[test]
fn configurations_can_come_from_a_folder() {
    let output = run("cost --target haproxy --configs /nowhere-at-all --rounds 1");
    let printed = printed(&output);
    assert!(is_missing(&printed) || printed.contains("cannot read /nowhere-at-all/haproxy.cfg"), "{printed}");
    assert_eq!(output.status.code(), Some(1));
}

fn children(pid: u32) -> Vec<u32> {
    let mut text = String::new();
    let file = std::fs::File::open(format!("/proc/{pid}/task/{pid}/children"));
    file.unwrap().read_to_string(&mut text).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Asks again until there is an answer, at most 10 s.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "it did not come");
        std::thread::yield_now();
    }
}
