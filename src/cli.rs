//! The command line. Prints nothing and starts nothing: help, version and usage errors are returned
//! as [`Early`], which `main.rs` prints.

use crate::certs::{self, Certificates};
use crate::config::{self, Error, Flags, Source, TlsFlags};
use crate::explain::Sample;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Exit code for usage and configuration errors; 1 is for run-time failures.
pub const BAD_USAGE: u8 = 2;

/// The command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Demo { listen: SocketAddr, admin: SocketAddr, tls: Option<SocketAddr> },
    Run(Source),
    Check { path: PathBuf },
    Explain(Sample),
    ExampleConfig,
}

/// A command line that only prints something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Early {
    /// Help or version, for standard output; exit code 0.
    Help(String),
    /// One sentence for standard error; exit code [`BAD_USAGE`].
    Usage(String),
}

/// Parses a command line that begins with the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Early> {
    let typed = Typed::try_parse_from(args).map_err(|e| early(&e))?;
    match typed.command {
        TypedCommand::Demo { listen, admin, tls, tls_listen } => {
            Ok(Command::Demo { listen, admin, tls: tls.then_some(tls_listen) })
        }
        TypedCommand::Run(typed) => source(typed).map(Command::Run),
        TypedCommand::Check { config } => Ok(Command::Check { path: config }),
        TypedCommand::Explain(typed) => Ok(Command::Explain(typed.sample())),
        TypedCommand::ExampleConfig => Ok(Command::ExampleConfig),
    }
}

/// The output of `check` for a valid file.
pub fn check(path: &Path, nofile: u64, cpus: usize) -> Result<String, Error> {
    let snapshot = config::load(path)?;
    let certificates =
        Certificates::load(&snapshot).map_err(|errors| Error::files(&path.display().to_string(), &errors))?;
    let mut text = format!("{} is valid.\n\n{}", path.display(), snapshot.describe(nofile, cpus));
    text += &certificates.describe();
    for warning in certificates.warnings().into_iter().chain(certs::unverified(&snapshot)) {
        text += &format!("warning    {warning}\n");
    }
    Ok(text)
}

#[derive(Debug, Parser)]
#[command(
    name = "framegate",
    version = VERSION.as_str(),
    about = "A WebSocket reverse proxy that validates every frame header and copies no payload.",
    after_help = "Try it:  framegate demo
Then:    framegate example-config > framegate.toml
         framegate run -c framegate.toml",
    disable_help_subcommand = true
)]
struct Typed {
    #[command(subcommand)]
    command: TypedCommand,
}

#[derive(Debug, Subcommand)]
enum TypedCommand {
    /// Run a proxy in front of a built-in echo backend
    #[command(after_help = "Example:  framegate demo --listen 127.0.0.1:8081")]
    Demo {
        /// Listen address
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Listen address for metrics and the demo page
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
        admin: SocketAddr,
        /// Also serve TLS, with a self-signed certificate
        #[arg(long)]
        tls: bool,
        /// Listen address for TLS
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443", requires = "tls")]
        tls_listen: SocketAddr,
    },
    /// Run the proxy
    #[command(
        override_usage = "framegate run -c <FILE>
       framegate run [--listen <ADDR>] [--tls-listen <ADDR> --cert ... --key ...] --upstream <URL>",
        after_help = "Examples:  framegate run -c framegate.toml
           framegate run --listen 0.0.0.0:8080 --upstream ws://10.0.0.1:9000
           framegate run --tls-listen 0.0.0.0:443 --cert c.pem --key k.pem --upstream ws://app:9000

SIGTERM or SIGINT: drain sessions, then exit; a second one exits at once.
SIGHUP: reload the file; an invalid file changes nothing."
    )]
    Run(TypedRun),
    /// Validate a configuration and show its listeners, routes, limits and memory use
    #[command(
        after_help = "Example:  framegate check -c framegate.toml\n\nExit code 0 if the file is valid, 2 if not."
    )]
    Check {
        /// Configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show which route a request gets and why, and what its upstream would receive
    #[command(after_help = "Example:  framegate explain -c framegate.toml --host a.example.com --path /chat?v=2 \\
              --header 'X-Beta: 1' --client 10.0.0.7

Exit code 0 if a route matches, 1 if none does, 2 for bad usage or configuration.")]
    Explain(TypedExplain),
    /// Print a commented configuration with all keys and defaults
    #[command(after_help = "Example:  framegate example-config > framegate.toml")]
    ExampleConfig,
}

#[derive(Debug, Default, Args)]
struct TypedRun {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen address (without a configuration file)
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Listen address for TLS (without a configuration file)
    #[arg(long, value_name = "ADDR")]
    tls_listen: Option<String>,
    /// Certificate chain for --tls-listen, in PEM
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Upstream URL for all requests (without a configuration file)
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
}

#[derive(Debug, Args)]
struct TypedExplain {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Host of the request
    #[arg(long, value_name = "HOST")]
    host: String,
    /// Path, with its query
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,
    /// Method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// A header, "Name: value"; repeatable
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// An offered subprotocol; repeatable
    #[arg(long = "subprotocol", value_name = "NAME")]
    subprotocols: Vec<String>,
    /// Address of the client
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    client: IpAddr,
    /// The client comes over TLS
    #[arg(long)]
    tls: bool,
    /// Subject of the client's certificate
    #[arg(long, value_name = "TEXT")]
    cert_subject: Option<String>,
    /// SHA-256 of the client's certificate, in hexadecimal
    #[arg(long, value_name = "HEX")]
    cert_sha256: Option<String>,
}

impl TypedExplain {
    fn sample(self) -> Sample {
        Sample {
            config: self.config,
            method: self.method,
            host: self.host,
            path: self.path,
            headers: self.headers,
            subprotocols: self.subprotocols,
            client: self.client,
            tls: self.tls,
            cert_subject: self.cert_subject,
            cert_sha256: self.cert_sha256.map(|hex| hex.replace(':', "").to_ascii_lowercase()),
        }
    }
}

fn source(typed: TypedRun) -> Result<Source, Early> {
    let usage = |text: &str| Err(Early::Usage(format!("run: {text}")));
    let TypedRun { config, listen, tls_listen, cert, key, upstream } = typed;
    let tls = match (tls_listen, cert, key) {
        (None, None, None) => None,
        (Some(listen), Some(cert), Some(key)) => Some(TlsFlags { listen, cert, key }),
        _ => return usage("--tls-listen, --cert and --key are required together"),
    };
    match (config, listen.is_some() || tls.is_some(), upstream) {
        (Some(path), false, None) => Ok(Source::File(path)),
        (None, true, Some(upstream)) => Ok(Source::Flags(Flags { listen, tls, upstream })),
        (Some(_), _, _) => {
            usage("-c cannot be combined with --listen, --tls-listen or --upstream; set them in the file")
        }
        (None, true, None) => usage("--listen and --tls-listen require --upstream URL"),
        (None, false, Some(_)) => usage("--upstream requires --listen ADDR or --tls-listen ADDR"),
        (None, false, None) => usage("requires -c FILE, or --listen ADDR with --upstream URL"),
    }
}

/// With the TLS provider and the optional features of this build.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let features = [
        ("basic", cfg!(feature = "basic")),
        ("discovery", cfg!(feature = "discovery")),
        ("files", cfg!(feature = "files")),
        ("jwt", cfg!(feature = "jwt")),
        ("redis", cfg!(feature = "redis")),
        ("regex", cfg!(feature = "regex")),
    ];
    let features: Vec<_> = features.iter().filter(|(_, built)| *built).map(|(name, _)| *name).collect();
    let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
    format!("{}\ntls: rustls 0.23, aws-lc-rs\nfeatures: {features}", env!("CARGO_PKG_VERSION"))
});

/// The part of clap's message before the first empty line, on one line.
fn early(error: &clap::Error) -> Early {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Early::Help(text),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return Early::Usage("missing command; see framegate --help".to_owned());
        }
        _ => {}
    }
    let lines: Vec<_> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let sentence = lines.join(" ");
    Early::Usage(format!("{}; see framegate --help", sentence.strip_prefix("error: ").unwrap_or(&sentence)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Command, Early> {
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
    fn usage_errors_are_one_sentence() {
        for (line, why) in [
            ("framegate", "missing command; see framegate --help"),
            ("framegate run", "run: requires -c FILE, or --listen ADDR with --upstream URL"),
            ("framegate run --listen 0:80", "run: --listen and --tls-listen require --upstream URL"),
            ("framegate run --upstream ws://x", "run: --upstream requires --listen ADDR or --tls-listen ADDR"),
            (
                "framegate run --tls-listen 0:80 --upstream ws://x",
                "run: --tls-listen, --cert and --key are required together",
            ),
            (
                "framegate run -c x --listen 0:80",
                "run: -c cannot be combined with --listen, --tls-listen or --upstream; set them in the file",
            ),
            ("framegate run -c x --bogus", "unexpected argument '--bogus' found; see framegate --help"),
            ("framegate fly", "unrecognized subcommand 'fly'; see framegate --help"),
        ] {
            assert_eq!(typed(line), Err(Early::Usage(why.into())), "{line}");
        }
        for line in ["framegate check", "framegate demo --listen 8080", "framegate run -c", "framegate run -c a -c b"] {
            let Err(Early::Usage(sentence)) = typed(line) else { panic!("{line} is accepted") };
            assert!(!sentence.contains('\n') && sentence.ends_with("see framegate --help"), "{sentence}");
        }
    }

    #[test]
    fn help_fits_a_screen_and_has_an_example() {
        for command in ["", " demo", " run", " check", " explain", " example-config"] {
            for flag in ["-h", "--help"] {
                let Err(Early::Help(help)) = typed(&format!("framegate{command} {flag}")) else { panic!("{command}") };
                assert!(help.lines().count() <= 24, "{help}");
                assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
                let example = help.lines().any(|line| line.contains(":  framegate"));
                assert!(example, "{help}");
            }
        }
    }

    #[test]
    fn both_version_flags_show_the_features() {
        let version = env!("CARGO_PKG_VERSION");
        let features = "basic, discovery, files, jwt, redis, regex";
        let expected = format!("framegate {version}\ntls: rustls 0.23, aws-lc-rs\nfeatures: {features}\n");
        for flag in ["-V", "--version"] {
            assert_eq!(typed(&format!("framegate {flag}")), Err(Early::Help(expected.clone())));
        }
    }
}
