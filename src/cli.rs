//! Flags as typed -> options as meant. Prints nothing and starts nothing: what help, version and wrong usage come to
//! is handed back with its exit code, and `main.rs` writes it.

use crate::config::{self, Error, Flags, Snapshot, TlsFlags};
use crate::control::secure::{self, Secure};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Exit code of bad usage or configuration; 1 is a failure at run time.
pub const BAD_USAGE: u8 = 2;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Demo { listen: SocketAddr, admin: SocketAddr, tls: Option<SocketAddr> },
    Run(Source),
    Check { path: PathBuf },
    ExampleConfig,
}

/// Where `run` takes its configuration from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    Flags(Flags),
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
        TypedCommand::Demo { listen, admin, tls, tls_listen } => {
            Ok(Command::Demo { listen, admin, tls: tls.then_some(tls_listen) })
        }
        TypedCommand::Run(typed) => source(typed).map(Command::Run),
        TypedCommand::Check { config } => Ok(Command::Check { path: config }),
        TypedCommand::ExampleConfig => Ok(Command::ExampleConfig),
    }
}

impl Source {
    /// For errors that are not at one place of a file.
    pub fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Flags(_) => "run".to_owned(),
        }
    }

    /// Reads and validates. A file is read again at each call; flags give the same every time.
    pub fn load(&self) -> Result<Snapshot, Error> {
        match self {
            Source::File(path) => config::load(path),
            Source::Flags(flags) => config::from_flags(flags),
        }
    }
}

/// What `check` prints for a good file.
pub fn check(path: &Path, nofile: u64, cpus: usize) -> Result<String, Error> {
    let snapshot = config::load(path)?;
    let secure = Secure::load(&snapshot).map_err(|problems| Error::files(&path.display().to_string(), &problems))?;
    let mut text = format!("{} is good.\n\n{}", path.display(), snapshot.describe(nofile, cpus));
    text += &secure.describe();
    for warning in secure.warnings().into_iter().chain(secure::unverified(&snapshot)) {
        text += &format!("warning    {warning}\n");
    }
    Ok(text)
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
        /// Serve TLS as well, with a certificate made at the start
        #[arg(long)]
        tls: bool,
        /// Where TLS clients come in
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443", requires = "tls")]
        tls_listen: SocketAddr,
    },
    /// Proxy to real backends
    #[command(
        override_usage = "framegate run -c <FILE>\n       framegate run [--listen <ADDR>] [--tls-listen <ADDR> --cert ... --key ...] --upstream <URL>",
        after_help = "Examples:  framegate run -c framegate.toml
           framegate run --listen 0.0.0.0:8080 --upstream ws://10.0.0.1:9000
           framegate run --tls-listen 0.0.0.0:443 --cert c.pem --key k.pem --upstream ws://app:9000

SIGTERM or SIGINT: close sessions gently and exit; a second one exits now.
SIGHUP: read the file again; a bad file changes nothing."
    )]
    Run(TypedRun),
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

#[derive(Debug, Default, Args)]
struct TypedRun {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Without a file: where clients come in
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Without a file: where clients with TLS come in
    #[arg(long, value_name = "ADDR")]
    tls_listen: Option<String>,
    /// Its certificate chain, in PEM
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The key of that certificate, in PEM
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Without a file: where everything goes
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
}

fn source(typed: TypedRun) -> Result<Source, Answer> {
    let wrong = |text: &str| Err(Answer::Wrong(format!("run: {text}")));
    let TypedRun { config, listen, tls_listen, cert, key, upstream } = typed;
    let tls = match (tls_listen, cert, key) {
        (None, None, None) => None,
        (Some(listen), Some(cert), Some(key)) => Some(TlsFlags { listen, cert, key }),
        _ => return wrong("--tls-listen, --cert and --key belong together"),
    };
    match (config, listen.is_some() || tls.is_some(), upstream) {
        (Some(path), false, None) => Ok(Source::File(path)),
        (None, true, Some(upstream)) => Ok(Source::Flags(Flags { listen, tls, upstream })),
        (Some(_), _, _) => wrong("-c excludes --listen, --tls-listen and --upstream; write these into the file"),
        (None, true, None) => wrong("--listen and --tls-listen need --upstream URL beside them"),
        (None, false, Some(_)) => wrong("--upstream needs --listen ADDR or --tls-listen ADDR beside it"),
        (None, false, None) => wrong("needs -c FILE, or --listen ADDR with --upstream URL"),
    }
}

/// The TLS provider and the optional parts that were built in.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\ntls: rustls 0.23, aws-lc-rs\nfeatures: none");

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
        assert_eq!(typed("framegate demo"), Ok(Command::Demo { listen, admin, tls: None }));
        let (listen, admin) = (addr("[::1]:0"), addr("127.0.0.1:0"));
        assert_eq!(
            typed("framegate demo --listen [::1]:0 --admin 127.0.0.1:0"),
            Ok(Command::Demo { listen, admin, tls: None })
        );
        let file = Source::File("a.toml".into());
        assert_eq!(typed("framegate run -c a.toml"), Ok(Command::Run(file.clone())));
        assert_eq!(typed("framegate run --config a.toml"), Ok(Command::Run(file)));
        let flags = Flags { listen: Some("0:80".into()), tls: None, upstream: "ws://x".into() };
        assert_eq!(
            typed("framegate run --listen 0:80 --upstream ws://x"),
            Ok(Command::Run(Source::Flags(flags.clone())))
        );
        let tls = TlsFlags { listen: "0:443".into(), cert: "c".into(), key: "k".into() };
        let both = Flags { tls: Some(tls), ..flags };
        let line = "framegate run --listen 0:80 --tls-listen 0:443 --cert c --key k --upstream ws://x";
        assert_eq!(typed(line), Ok(Command::Run(Source::Flags(both))));
        let (listen, tls) = (addr("127.0.0.1:8080"), Some(addr("127.0.0.1:8443")));
        let admin = addr("127.0.0.1:9901");
        assert_eq!(typed("framegate demo --tls"), Ok(Command::Demo { listen, admin, tls }));
        assert_eq!(typed("framegate check -c a.toml"), Ok(Command::Check { path: "a.toml".into() }));
        assert_eq!(typed("framegate example-config"), Ok(Command::ExampleConfig));
    }

    #[test]
    fn wrong_usage_is_one_sentence() {
        for (line, why) in [
            ("framegate", "no command; see framegate --help"),
            ("framegate run", "run: needs -c FILE, or --listen ADDR with --upstream URL"),
            ("framegate run --listen 0:80", "run: --listen and --tls-listen need --upstream URL beside them"),
            ("framegate run --upstream ws://x", "run: --upstream needs --listen ADDR or --tls-listen ADDR beside it"),
            (
                "framegate run --tls-listen 0:80 --upstream ws://x",
                "run: --tls-listen, --cert and --key belong together",
            ),
            (
                "framegate run -c x --listen 0:80",
                "run: -c excludes --listen, --tls-listen and --upstream; write these into the file",
            ),
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
        let expected =
            format!("framegate {}\ntls: rustls 0.23, aws-lc-rs\nfeatures: none\n", env!("CARGO_PKG_VERSION"));
        for flag in ["-V", "--version"] {
            assert_eq!(typed(&format!("framegate {flag}")), Err(Answer::Told(expected.clone())));
        }
    }
}
