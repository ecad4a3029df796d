//! System calls of a proxy per message and direction, as strace counts them over a known number of
//! messages. An echoed message is two: one in each direction. Being traced slows a proxy down, so
//! that more is ready at each wait than in life: the shares of wait and of what comes with it are
//! too small, those of recv and send are true.

use crate::Failure;
use crate::proc::is_traced;
use crate::proxy::rounds::Bench;
use crate::proxy::target::{Backend, Scratch, Target, TargetArgs};
use crate::run::options::GroupSpec;
use crate::table::{self, Cells};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const ATTACH_DEADLINE: Duration = Duration::from_secs(5);
/// The rows of calls that move a message, whichever a proxy uses.
const GROUPS: [(&str, &[&str]); 6] = [
    ("recv", &["recvfrom", "recvmsg", "read", "readv"]),
    ("send", &["sendto", "sendmsg", "write", "writev"]),
    ("splice", &["splice"]),
    ("wait", &["epoll_wait", "epoll_pwait", "epoll_pwait2"]),
    ("epoll_ctl", &["epoll_ctl"]),
    ("memory", &["brk", "mmap", "munmap", "mremap", "madvise"]),
];

#[derive(clap::Args)]
pub struct SyscallsArgs {
    #[command(flatten)]
    targets: TargetArgs,
    /// Duration of the count
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = crate::run::options::time)]
    duration: Duration,
    /// Number of sessions
    #[arg(long, value_name = "N", default_value_t = 200)]
    connections: usize,
    /// Payload of the messages
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    payload: usize,
    /// Messages in flight on a session; 1 is ping-pong
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// Append the table to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

pub fn run(args: &SyscallsArgs) -> Result<(), Failure> {
    let place = args.targets.place()?;
    let (scratch, backend) = (Scratch::new()?, Backend::start(vec!["serve".into(), "echo".into()])?);
    let mut rows = Vec::new();
    for spec in args.targets.specs()? {
        let target = Target::start(&spec, backend.addr, &scratch, place)?;
        let (counts, echoed) = count(args, &target, &scratch).map_err(|e| format!("{}: {e}", spec.name))?;
        rows.push(row(spec.name, &counts, echoed * 2));
    }
    let heads = std::iter::once("target").chain(GROUPS.iter().map(|(group, _)| *group)).chain(["every call"]);
    let heads = heads.map(String::from).collect();
    let title = format!("Calls per message and direction, {} B over {} sessions", args.payload, args.connections);
    table::print(&title, &Cells { heads, rows }, args.markdown.as_deref())
}

/// Calls by name, and messages echoed. Opening the sessions and their first messages are not
/// counted.
fn count(args: &SyscallsArgs, target: &Target, scratch: &Scratch) -> Result<(Vec<(String, u64)>, u64), Failure> {
    let (connections, closed) = (Some(args.connections), Some(usize::from(args.window)));
    let size = Some(args.payload.to_string());
    let mut bench = Bench::new(
        target.addr,
        &[GroupSpec { connections, closed, size, ..GroupSpec::default() }],
        (target.tls, true),
    )?;
    bench.open()?;
    bench.measure(args.duration / 10)?;
    let report = scratch.subfolder(&target.name)?.join("strace");
    let tracer = attach(target.pid().ok_or("a proxy is needed: the direct way has no process")?, &report)?;
    let load = bench.measure(args.duration);
    detach(tracer)?;
    Ok((parse(&fs::read_to_string(report)?), load?.received()))
}

fn attach(pid: u32, report: &Path) -> Result<Child, Failure> {
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-p", &pid.to_string(), "-o"]).arg(report);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut tracer = command.spawn().map_err(|e| format!("strace cannot be started ({e}): is it installed?"))?;
    let deadline = Instant::now() + ATTACH_DEADLINE;
    while !is_traced(pid)? {
        if tracer.try_wait()?.is_some() || Instant::now() > deadline {
            let _ = tracer.kill();
            let _ = tracer.wait();
            return Err("strace cannot attach: may this user trace?".into());
        }
        sleep(Duration::from_millis(10));
    }
    Ok(tracer)
}

/// An interrupt makes strace let go and write its report.
fn detach(mut tracer: Child) -> Result<(), Failure> {
    let pid = Pid::from_raw(tracer.id().try_into()?).ok_or("strace has no process id")?;
    kill_process(pid, Signal::INT)?;
    tracer.wait()?;
    Ok(())
}

/// Columns of `strace -c`: % time, seconds, usecs/call, calls, errors (or nothing), name.
fn parse(report: &str) -> Vec<(String, u64)> {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words.last().filter(|name| **name != "total")?;
        Some(((*name).to_owned(), words.get(3)?.parse().ok()?))
    };
    report.lines().filter_map(row).collect()
}

/// Calls a message, group by group, then one by one.
fn row(name: String, counts: &[(String, u64)], messages: u64) -> Vec<String> {
    let share = |calls: u64| format!("{:.4}", calls as f64 / messages as f64);
    let sum = |names: &[&str]| counts.iter().filter(|(name, _)| names.contains(&name.as_str())).map(|(_, n)| n).sum();
    let groups = GROUPS.iter().map(|(_, names)| share(sum(names)));
    let each: Vec<String> = counts.iter().map(|(call, calls)| format!("{call} {}", share(*calls))).collect();
    std::iter::once(name).chain(groups).chain([each.join(", ")]).collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_report_is_read_with_and_without_errors() {
        let report = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            \x20 52.00    0.100000           2     40000           sendto\n\
            \x20 40.00    0.090000           2     40123       123 recvfrom\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.190000           2     80123       123 total\n";
        assert_eq!(parse(report), [("sendto".to_owned(), 40000), ("recvfrom".to_owned(), 40123)]);
    }
}
