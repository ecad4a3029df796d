//! Process setup: descriptor limit, processors, signals. With `worker/sys.rs` the only unsafe code.

use std::io;
use std::os::unix::net::UnixStream;

/// Raises RLIMIT_NOFILE to its hard limit and returns it.
#[allow(unsafe_code)]
pub fn raise_nofile() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is initialised.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// The processors of the affinity mask, in order.
#[allow(unsafe_code)]
pub fn affinity() -> io::Result<Vec<usize>> {
    // SAFETY: all zero bits are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid and its size is passed.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: CPU_ISSET reads within the set for numbers below CPU_SETSIZE.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// The number of threads that can run in parallel: the lesser of affinity mask and cgroup quota.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Pins the calling thread to one processor.
#[allow(unsafe_code)]
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: all zero bits are an empty set, and `cpu` is within it.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
    };
    // SAFETY: `set` is valid and its size is passed; 0 is the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Ports that the kernel chooses from for connections of one local address to one remote one.
pub fn local_ports() -> usize {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = text.split_whitespace().filter_map(|bound| bound.parse::<usize>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(first), Some(last)) if last >= first => last - first + 1,
        // The kernel's default.
        _ => 28_232,
    }
}

/// Streams that receive one byte per signal.
pub struct Signals {
    /// SIGTERM and SIGINT.
    pub stop: UnixStream,
    /// SIGHUP.
    pub reload: UnixStream,
}

/// Installs the signal handlers.
pub fn signals() -> io::Result<Signals> {
    let (stop, stop_in) = stream()?;
    let (reload, reload_in) = stream()?;
    signal_hook::low_level::pipe::register(libc::SIGTERM, stop_in.try_clone()?)?;
    signal_hook::low_level::pipe::register(libc::SIGINT, stop_in)?;
    signal_hook::low_level::pipe::register(libc::SIGHUP, reload_in)?;
    Ok(Signals { stop, reload })
}

fn stream() -> io::Result<(UnixStream, UnixStream)> {
    let (out, into) = UnixStream::pair()?;
    out.set_nonblocking(true)?;
    into.set_nonblocking(true)?;
    Ok((out, into))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_has_one_processor() {
        let all = affinity().unwrap();
        assert!(cpus() <= all.len() && !all.is_empty());
        let last = *all.last().unwrap();
        std::thread::spawn(move || {
            pin(last).unwrap();
            assert_eq!(affinity().unwrap(), [last]);
        })
        .join()
        .unwrap();
        assert!(pin(usize::MAX).is_err());
    }

    #[test]
    fn the_descriptor_limit_is_raised_to_the_hard_limit() {
        let raised = raise_nofile().unwrap();
        assert_eq!(raised, raise_nofile().unwrap());
        assert!(raised > 0);
    }
}
