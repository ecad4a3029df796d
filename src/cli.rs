//! Flags as typed -> options as meant. Prints nothing and starts nothing: what help, version and wrong usage come to
//! is handed back with its exit code, and `main.rs` writes it.

use crate::config::{self, Error, Snapshot};
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Exit code of bad usage or configuration; 1 is a failure at run time.
pub const BAD_USAGE: u8 = 2;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Demo { listen: SocketAddr, admin: SocketAddr },
    Run(Source),
    Check { path: PathBuf },
    ExampleConfig,
}

/// Where `run` takes its configuration from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    Flags { listen: String, upstream: String },
}

/// A command line that ends with being answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Help or version, for standard output; exit code 0.
    Told(String),
    /// One sentence for standard error; exit code [`BAD_USAGE`].
    Wrong(String),
}

/// Reads a command line, the program's name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Answer> {
    let typed = Typed::try_parse_from(args).map_err(|e| answer(&e))?;
    match typed.command {
        TypedCommand::Demo { listen, admin } => Ok(Command::Demo { listen, admin }),
        TypedCommand::Run { config, listen, upstream } => source(config, listen, upstream).map(Command::Run),
        TypedCommand::Check { config } => Ok(Command::Check { path: config }),
        TypedCommand::ExampleConfig => Ok(Command::ExampleConfig),
    }
}

impl Source {
    /// Reads and validates. A file is read again at each call; flags give the same every time.
    pub fn load(&self) -> Result<Snapshot, Error> {
        match self {
            Source::File(path) => config::load(path),
            Source::Flags { listen, upstream } => config::from_flags(listen, upstream),
        }
    }
}

/// What `check` prints for a good file.
pub fn check(path: &Path, nofile: u64, cpus: usize) -> Result<String, Error> {
    let snapshot = config::load(path)?;
    Ok(format!("{} is good.\n\n{}", path.display(), snapshot.describe(nofile, cpus)))
}

#[derive(Debug, Parser)]
#[command(
    name = "framegate",
    version = VERSION,
    about = "A WebSocket reverse proxy for edge hosts: reads every frame header, copies no payload.",
    after_help = "Try it:  framegate demo\nThen:    framegate example-config > framegate.toml\n         framegate run -c framegate.toml",
    disable_help_subcommand = true
)]
struct Typed {
    #[command(subcommand)]
    command: TypedCommand,
}

#[derive(Debug, Subcommand)]
enum TypedCommand {
    /// Start a proxy in front of a built-in echo backend, and say what to try
    #[command(after_help = "Example:  framegate demo --listen 127.0.0.1:8081")]
    Demo {
        /// Where clients come in
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Metrics, health, and a page to try
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
        admin: SocketAddr,
    },
    /// Proxy to real backends
    #[command(
        override_usage = "framegate run -c <FILE>\n       framegate run --listen <ADDR> --upstream <URL>",
        after_help = "Examples:  framegate run -c framegate.toml
           framegate run --listen 0.0.0.0:8080 --upstream ws://10.0.0.1:9000

SIGTERM or SIGINT: close sessions gently and exit; a second one exits now.
SIGHUP: read the file again; a bad file changes nothing."
    )]
    Run {
        /// Configuration file
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Without a file: where clients come in
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
        /// Without a file: where everything goes
        #[arg(long, value_name = "URL")]
        upstream: Option<String>,
    },
    /// Validate a configuration and say what it means: listeners, routes, limits, memory
    #[command(after_help = "Example:  framegate check -c framegate.toml\n\nExit code 0 if the file is good, 2 if not.")]
    Check {
        /// Configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print a commented configuration with every key and its default
    #[command(after_help = "Example:  framegate example-config > framegate.toml")]
    ExampleConfig,
}

fn source(config: Option<PathBuf>, listen: Option<String>, upstream: Option<String>) -> Result<Source, Answer> {
    let wrong = |text: &str| Err(Answer::Wrong(format!("run: {text}")));
    match (config, listen, upstream) {
        (Some(path), None, None) => Ok(Source::File(path)),
        (None, Some(listen), Some(upstream)) => Ok(Source::Flags { listen, upstream }),
        (Some(_), _, _) => wrong("-c excludes --listen and --upstream; write these into the file"),
        (None, Some(_), None) => wrong("--listen needs --upstream URL beside it"),
        (None, None, Some(_)) => wrong("--upstream needs --listen ADDR beside it"),
        (None, None, None) => wrong("needs -c FILE, or --listen ADDR with --upstream URL"),
    }
}

/// The TLS provider and the optional parts that were built in.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\ntls: none yet\nfeatures: none");

/// clap writes its errors over several lines; what counts is before the first empty one.
fn answer(error: &clap::Error) -> Answer {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Answer::Told(text),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return Answer::Wrong("no command; see framegate --help".to_owned());
        }
        _ => {}
    }
    let lines: Vec<_> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let sentence = lines.join(" ");
    Answer::Wrong(format!("{}; see framegate --help", sentence.strip_prefix("error: ").unwrap_or(&sentence)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Command, Answer> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn commands() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (listen, admin) = (addr("127.0.0.1:8080"), addr("127.0.0.1:9901"));
        assert_eq!(typed("framegate demo"), Ok(Command::Demo { listen, admin }));
        let (listen, admin) = (addr("[::1]:0"), addr("127.0.0.1:0"));
        assert_eq!(typed("framegate demo --listen [::1]:0 --admin 127.0.0.1:0"), Ok(Command::Demo { listen, admin }));
        let file = Source::File("a.toml".into());
        assert_eq!(typed("framegate run -c a.toml"), Ok(Command::Run(file.clone())));
        assert_eq!(typed("framegate run --config a.toml"), Ok(Command::Run(file)));
        let flags = Source::Flags { listen: "0:80".into(), upstream: "ws://x".into() };
        assert_eq!(typed("framegate run --listen 0:80 --upstream ws://x"), Ok(Command::Run(flags)));
        assert_eq!(typed("framegate check -c a.toml"), Ok(Command::Check { path: "a.toml".into() }));
        assert_eq!(typed("framegate example-config"), Ok(Command::ExampleConfig));
    }

    #[test]
    fn wrong_usage_is_one_sentence() {
        for (line, why) in [
            ("framegate", "no command; see framegate --help"),
            ("framegate run", "run: needs -c FILE, or --listen ADDR with --upstream URL"),
            ("framegate run --listen 0:80", "run: --listen needs --upstream URL beside it"),
            ("framegate run --upstream ws://x", "run: --upstream needs --listen ADDR beside it"),
            ("framegate run -c x --listen 0:80", "run: -c excludes --listen and --upstream; write these into the file"),
            ("framegate run -c x --bogus", "unexpected argument '--bogus' found; see framegate --help"),
            ("framegate fly", "unrecognized subcommand 'fly'; see framegate --help"),
        ] {
            assert_eq!(typed(line), Err(Answer::Wrong(why.into())), "{line}");
        }
        for line in ["framegate check", "framegate demo --listen 8080", "framegate run -c", "framegate run -c a -c b"] {
            let Err(Answer::Wrong(sentence)) = typed(line) else { panic!("{line} is accepted") };
            assert!(!sentence.contains('\n') && sentence.ends_with("see framegate --help"), "{sentence}");
        }
    }

    #[test]
    fn help_fits_a_screen_and_has_an_example() {
        for command in ["", " demo", " run", " check", " example-config"] {
            for flag in ["-h", "--help"] {
                let Err(Answer::Told(help)) = typed(&format!("framegate{command} {flag}")) else { panic!("{command}") };
                assert!(help.lines().count() <= 24, "{help}");
                assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
                let example = help.lines().any(|line| line.contains(":  framegate"));
                assert!(example, "{help}");
            }
        }
    }

    #[test]
    fn both_version_flags_say_all() {
        let expected = format!("framegate {}\ntls: none yet\nfeatures: none\n", env!("CARGO_PKG_VERSION"));
        for flag in ["-V", "--version"] {
            assert_eq!(typed(&format!("framegate {flag}")), Err(Answer::Told(expected.clone())));
        }
    }
}
