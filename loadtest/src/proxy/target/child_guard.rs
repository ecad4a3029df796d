//! Children that do not outlive this process, however it ends. The program starts itself once more
//! as `guarded`, which sets its parent-death signal and CPU affinity and then executes the
//! command: process id and signal survive the exec, and nothing
//! unsafe runs between fork and exec.

use crate::{Failure, proc};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

#[derive(clap::Args)]
pub struct GuardedArgs {
    /// Whose end is ours
    #[arg(long, value_name = "PID")]
    parent: i32,
    /// CPU to run on [default: as inherited]
    #[arg(long, value_name = "CPU")]
    cpu: Option<usize>,
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

/// A running child process, killed when dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that runs `program` on `cpu` and ends with the calling thread; its arguments are still
/// to be added.
pub fn guarded(program: &Path, cpu: Option<usize>) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["guarded", "--parent", &getpid().as_raw_pid().to_string()]);
    if let Some(cpu) = cpu {
        command.args(["--cpu", &cpu.to_string()]);
    }
    command.arg("--").arg(program);
    Ok(command)
}

/// Becomes the command. Returns only what went wrong.
pub fn run(args: &GuardedArgs) -> Failure {
    become_of(args).err().unwrap_or_else(|| "a command that was started is still here".into())
}

fn become_of(args: &GuardedArgs) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before the kernel knew of the wish.
    if getppid().map(Pid::as_raw_pid) != Some(args.parent) {
        return Err("whoever started this is gone".into());
    }
    if let Some(cpu) = args.cpu {
        proc::pin(cpu)?;
    }
    let (program, rest) = args.command.split_first().ok_or("there is no command")?;
    let failure = Command::new(program).args(rest).exec();
    Err(format!("cannot run {}: {failure}", Path::new(program).display()).into())
}
