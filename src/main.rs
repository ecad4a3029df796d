//! argv -> config -> server -> exit code.

use framegate::cli::{self, Answer, BAD_USAGE, Command};
use framegate::server::{self, Failure};
use framegate::{config, os};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Command::Check { path }) => match cli::check(&path, os::raise_nofile().unwrap_or(1024), os::cpus()) {
            Ok(text) => say(&text),
            Err(error) => refuse(error.sentences(), BAD_USAGE),
        },
        Ok(Command::ExampleConfig) => say(config::EXAMPLE),
        Ok(Command::Run(source)) => match source.load() {
            Ok(snapshot) => exit(server::run(snapshot, source)),
            Err(error) => refuse(error.sentences(), BAD_USAGE),
        },
        Ok(Command::Demo { listen, admin }) => exit(server::demo(listen, admin)),
        Err(Answer::Told(text)) => say(&text),
        Err(Answer::Wrong(sentence)) => refuse(&[sentence], BAD_USAGE),
    }
}

fn exit(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(sentence)) => refuse(&[sentence], 1),
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
