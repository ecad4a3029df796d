//! argv -> config -> server -> exit code.

use framegate::cli::{self, Answer, BAD_USAGE, Command, Source};
use framegate::config::{self, Error, Snapshot};
use framegate::control::secure::Secure;
use framegate::server::{self, Failure};
use framegate::{demo, os};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Command::Check { path }) => match cli::check(&path, os::raise_nofile().unwrap_or(1024), os::cpus()) {
            Ok(text) => say(&text),
            Err(error) => refuse(error.sentences(), BAD_USAGE),
        },
        Ok(Command::ExampleConfig) => say(config::EXAMPLE),
        Ok(Command::Run(source)) => match load(&source) {
            Ok((snapshot, secure)) => exit(server::run(snapshot, secure, source)),
            Err(error) => refuse(error.sentences(), BAD_USAGE),
        },
        Ok(Command::Demo { listen, admin, tls }) => exit(demo::run(listen, admin, tls)),
        Err(Answer::Told(text)) => say(&text),
        Err(Answer::Wrong(sentence)) => refuse(&[sentence], BAD_USAGE),
    }
}

fn load(source: &Source) -> Result<(Snapshot, Secure), Error> {
    let snapshot = source.load()?;
    let secure = Secure::load(&snapshot).map_err(|problems| Error::files(&source.name(), &problems))?;
    Ok((snapshot, secure))
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
