//! What the system knows of processes: CPU time, memory, affinity, limits.

use crate::Failure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;

/// What the scheduler has given a process and its children, all threads together, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// Time on a CPU, user and system. Exact once the process sleeps.
    pub ran: u64,
    /// Time that it was runnable and something else had its CPU.
    pub waited: u64,
}

pub fn cpu(pid: u32) -> Result<Cpu, Failure> {
    let mut sum = Cpu::default();
    for pid in family(pid)? {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = schedstat(&task?.path())?;
            sum.ran += task.ran;
            sum.waited += task.waited;
        }
    }
    Ok(sum)
}

/// The process, its children, and theirs: some proxies do all their work in a child.
fn family(pid: u32) -> Result<Vec<u32>, Failure> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&pid) = family.get(next) {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let children = fs::read_to_string(task?.path().join("children"))?;
            for child in children.split_whitespace() {
                family.push(child.parse()?);
            }
        }
        next += 1;
    }
    Ok(family)
}

fn schedstat(task: &std::path::Path) -> Result<Cpu, Failure> {
    let text = fs::read_to_string(task.join("schedstat"))?;
    let mut fields = text.split_whitespace().map(str::parse::<u64>);
    let (Some(ran), Some(waited)) = (fields.next(), fields.next()) else {
        return Err("the kernel keeps no scheduler statistics".into());
    };
    Ok(Cpu { ran: ran?, waited: waited? })
}

/// Of the calling thread.
pub fn own_cpu() -> Result<Cpu, Failure> {
    schedstat(std::path::Path::new("/proc/thread-self"))
}

/// Memory that the process and its children have written and share with no other process, in KiB.
pub fn private_dirty_kib(pid: u32) -> Result<u64, Failure> {
    family(pid)?.into_iter().map(|pid| dirty_kib(&pid.to_string())).sum()
}

/// The same of this process alone.
pub fn own_private_dirty_kib() -> Result<u64, Failure> {
    dirty_kib("self")
}

fn dirty_kib(process: &str) -> Result<u64, Failure> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    field(&text, "Private_Dirty:").ok_or_else(|| "smaps_rollup has no Private_Dirty".into())
}

/// Whether the process is traced.
pub fn is_traced(pid: u32) -> Result<bool, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(field(&text, "TracerPid:").is_some_and(|tracer| tracer != 0))
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Binds the calling thread to one CPU, and with it the children that it starts from then on.
pub fn pin(cpu: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|e| format!("cannot run on CPU {cpu}: {e}").into())
}

/// CPUs that this process may run on.
pub fn cpus() -> Result<Vec<usize>, Failure> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Raises the limit on open descriptors as far as it goes, for children too; returns it.
pub fn raise_descriptor_limit() -> Result<u64, Failure> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum.unwrap_or(u64::MAX))
}
