//! argv -> config -> server -> exit code.

use framegate::certs::Certificates;
use framegate::cli::{self, BAD_USAGE, Command, Early};
use framegate::config::{self, Error, Snapshot, Source};
use framegate::explain::{self, Explanation, Unexplained};
use framegate::server::{self, Failure};
use framegate::{demo, os};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Command::Check { path }) => match cli::check(&path, os::raise_nofile().unwrap_or(1024), os::cpus()) {
            Ok(text) => print(&text),
            Err(error) => refuse(error.sentences(), BAD_USAGE),
        },
        Ok(Command::Explain(sample)) => match explain::explain(&sample) {
            Ok(Explanation { text, found: true }) => print(&text),
            Ok(Explanation { text, found: false }) => {
                print(&text);
                ExitCode::FAILURE
            }
            Err(Unexplained::Config(error)) => refuse(error.sentences(), BAD_USAGE),
            Err(Unexplained::Sample(sentence)) => refuse(&[format!("explain: {sentence}")], BAD_USAGE),
        },
        Ok(Command::ExampleConfig) => print(config::EXAMPLE),
        Ok(Command::Run(source)) => match load(&source) {
            Ok((snapshot, certificates)) => exit(server::run(snapshot, certificates, source)),
            Err(error) => refuse(error.sentences(), BAD_USAGE),
        },
        Ok(Command::Demo { listen, admin, tls }) => exit(demo::run(listen, admin, tls)),
        Err(Early::Help(text)) => print(&text),
        Err(Early::Usage(sentence)) => refuse(&[sentence], BAD_USAGE),
    }
}

fn load(source: &Source) -> Result<(Snapshot, Certificates), Error> {
    let snapshot = source.load()?;
    let certificates = Certificates::load(&snapshot).map_err(|errors| Error::files(&source.name(), &errors))?;
    Ok((snapshot, certificates))
}

fn exit(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(sentence)) => refuse(&[sentence], 1),
    }
}

/// Writes to standard output. A reader that closes the pipe early (`| head`) is not an error.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    }
}

fn refuse(sentences: &[String], code: u8) -> ExitCode {
    let mut err = std::io::stderr().lock();
    for sentence in sentences {
        // Ignored: without standard error there is nowhere to report it.
        let _ = writeln!(err, "framegate: {sentence}");
    }
    ExitCode::from(code)
}
