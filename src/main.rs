//! argv -> config -> exit code. `demo` and `run` come with the server.

use framegate::cli::{self, Answer, BAD_USAGE, Command};
use framegate::config;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Command::Check { path }) => match cli::check(&path, nofile(), cpus()) {
            Ok(text) => say(&text),
            Err(error) => refuse(error.sentences(), BAD_USAGE),
        },
        Ok(Command::ExampleConfig) => say(config::EXAMPLE),
        Ok(Command::Run(source)) => match source.load() {
            Ok(_) => refuse(&["run is not there yet".to_owned()], 1),
            Err(error) => refuse(error.sentences(), BAD_USAGE),
        },
        Ok(Command::Demo { .. }) => refuse(&["demo is not there yet".to_owned()], 1),
        Err(Answer::Told(text)) => say(&text),
        Err(Answer::Wrong(sentence)) => refuse(&[sentence], BAD_USAGE),
    }
}

/// To standard output; a reader that left early (`| head`) is no failure.
fn say(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    }
}

fn refuse(sentences: &[String], code: u8) -> ExitCode {
    let mut err = std::io::stderr().lock();
    for sentence in sentences {
        // Nowhere to tell it, if standard error is gone.
        let _ = writeln!(err, "framegate: {sentence}");
    }
    ExitCode::from(code)
}

/// The hard limit, to which `run` raises RLIMIT_NOFILE.
fn nofile() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(1));
    hard.and_then(|hard| if hard == "unlimited" { Some(u64::MAX) } else { hard.parse().ok() }).unwrap_or(1024)
}

/// Those that the process may run on: affinity and cgroup quota are respected.
fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
