//! framegate-loadtest: a load generator for WebSocket servers, server roles, and measurements of
//! what a proxy costs.
//!
//! - [`run`]: generates load, from the command line to the measured outcome
//! - [`mod@percentile`]: the percentiles of a histogram
//! - [`report`]: tables, plots and files made from an outcome
//! - [`net`]: one connection: TCP, TLS, the opening handshake, frames
//! - [`serve`]: server roles to test clients and proxies with
//! - [`proxy`]: measures proxies side by side
#![forbid(unsafe_code)]

mod failure;
mod net;
mod percentile;
mod proc;
mod proxy;
mod report;
mod run;
mod serve;
mod table;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use failure::{Failure, Usage};
use net::tls;
use proxy::{compare, cost, memory, relay, syscalls, target};
use run::command::{self, ScenarioArgs, ShapeArgs};
use run::lifecycle;
use run::options::ShapeSpec;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// A scenario with every key.
const EXAMPLE_SCENARIO: &str = include_str!("scenario.toml");

#[derive(Parser)]
#[command(version, about = "A load generator for WebSocket servers and proxies", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Round trips: send messages and wait for their echo
    Echo(ShapeArgs),
    /// Messages pushed by the server: one-way latency
    Push(ShapeArgs),
    /// Short connections: connect, upgrade, one message, close
    Churn(ShapeArgs),
    /// Idle connections
    Idle(ShapeArgs),
    /// Reconnect storms: all connections are cut at once and reconnect
    Storm(ShapeArgs),
    /// Slow readers
    Slow(ShapeArgs),
    /// Several groups at once, from a scenario file
    Run(ScenarioArgs),
    /// The latency that proxies add: the same load directly and through each, in turn
    #[command(
        after_help = "Example: framegate-loadtest compare --direct ws://127.0.0.1:9000 --proxied ws://127.0.0.1:8080"
    )]
    Compare(compare::CompareArgs),
    /// What happens to sessions while a command runs: a reload, a stop, a deploy
    #[command(after_help = "Example: framegate-loadtest during 'kill -HUP 4242' ws://127.0.0.1:8080")]
    During(lifecycle::DuringArgs),
    /// Plot the logs of several runs in one chart
    #[command(after_help = "Example: framegate-loadtest plot before/run.hlog after/run.hlog --out plot.html")]
    Plot(report::PlotArgs),
    /// Print a scenario file with every key
    ExampleScenario,
    /// Run a test server until a signal stops it
    #[command(subcommand)]
    Serve(serve::Serve),
    /// Run the bare byte relay that proxies are compared with, until killed
    #[command(after_help = "Example: framegate-loadtest relay --listen 127.0.0.1:8080 --upstream 127.0.0.1:9000")]
    Relay(RelayArgs),
    /// Measure proxy CPU per echoed message, in interleaved rounds over all targets
    #[command(after_help = "Example: framegate-loadtest cost --target relay --target relay2 --target nginx --rounds 9")]
    Cost(cost::CostArgs),
    /// Measure a proxy's memory per idle session, as a slope
    #[command(after_help = "Example: framegate-loadtest memory --target framegate --connections 8000")]
    Memory(memory::IdleArgs),
    /// Count system calls per message and direction with strace
    #[command(after_help = "Example: framegate-loadtest syscalls --target framegate")]
    Syscalls(syscalls::SyscallsArgs),
    /// Become a command that ends when its parent does
    #[command(hide = true)]
    Guarded(target::child_guard::GuardedArgs),
}

#[derive(Args)]
struct RelayArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Address that every connection is relayed to
    #[arg(long, value_name = "ADDR")]
    upstream: SocketAddr,
    /// Splice the bytes through a pipe in the kernel
    #[arg(long)]
    splice: bool,
    /// Accept TLS with this certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "splice")]
    cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

fn relay(args: &RelayArgs) -> Result<(), Failure> {
    let files = args.cert.as_ref().zip(args.key.as_ref());
    let tls = files.map(|(cert, key)| tls::Acceptor::new(cert, key)).transpose()?;
    Ok(relay::run(args.listen, args.upstream, args.splice, tls)?)
}

fn main() -> ExitCode {
    let matches = command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("framegate-loadtest: {failure}");
            let is_usage = failure.is::<Usage>();
            if is_usage { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

const RARE: [&str; 16] = [
    "settle",
    "cooldown",
    "header",
    "subprotocol",
    "bearer",
    "origin",
    "host",
    "connect_timeout",
    "tls_version",
    "tls_cipher",
    "cert",
    "key",
    "sni",
    "no_resumption",
    "alpn",
    "insecure",
];

/// What only one shape knows is shown with that shape.
fn command() -> clap::Command {
    const OWN: [(&str, &[&str]); 4] = [
        ("push", &["publishers"]),
        ("churn", &["messages"]),
        ("storm", &["cut_every", "jitter", "backoff"]),
        ("slow", &["stall_every", "stall_for"]),
    ];
    const EXAMPLES: [(&str, &str); 6] = [
        ("echo", "echo ws://127.0.0.1:8080/ --connections 100 --rate 5000 --fail-if 'p99>10ms'"),
        ("push", "push ws://127.0.0.1:8080/news --connections 500"),
        ("churn", "churn wss://example.com/ --rate 200 --out result"),
        ("idle", "idle ws://127.0.0.1:8080/ --connections 8000 --ping 30s"),
        ("storm", "storm ws://127.0.0.1:8080/ --connections 1000 --jitter 2s"),
        ("slow", "slow ws://127.0.0.1:8080/ --connections 20 --stall-every 5s --stall-for 2s"),
    ];
    let shown = OWN.into_iter().fold(Cli::command(), |cli, (shape, own)| {
        let show = |command: clap::Command, arg: &&'static str| command.mut_arg(*arg, |arg| arg.hide(false));
        cli.mut_subcommand(shape, |command| own.iter().fold(command, show))
    });
    let shown = EXAMPLES.into_iter().fold(shown, |cli, (shape, example)| {
        cli.mut_subcommand(shape, |command| command.after_help(format!("Example: framegate-loadtest {example}")))
    });
    // The short help fits a screen; the long one has all.
    let rare = |command: clap::Command| {
        RARE.into_iter().fold(command, |command, arg| command.mut_arg(arg, |arg| arg.hide_short_help(true)))
    };
    let commands = EXAMPLES.map(|(shape, _)| shape).into_iter().chain(["run", "compare", "during"]);
    commands.fold(shown, |cli, name| cli.mut_subcommand(name, rare))
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    let done = match command {
        Command::Echo(args) => return command::shape(ShapeSpec::Echo, &args),
        Command::Push(args) => return command::shape(ShapeSpec::Push, &args),
        Command::Churn(args) => return command::shape(ShapeSpec::Churn, &args),
        Command::Idle(args) => return command::shape(ShapeSpec::Idle, &args),
        Command::Storm(args) => return command::shape(ShapeSpec::Storm, &args),
        Command::Slow(args) => return command::shape(ShapeSpec::Slow, &args),
        Command::Run(args) => return command::scenario(&args),
        Command::Compare(args) => return compare::run(&args),
        Command::During(args) => return lifecycle::run(&args),
        Command::Plot(args) => report::plot(&args),
        Command::ExampleScenario => {
            print!("{EXAMPLE_SCENARIO}");
            Ok(())
        }
        Command::Serve(role) => serve::run(role),
        Command::Relay(args) => relay(&args),
        Command::Cost(args) => cost::run(&args),
        Command::Memory(args) => memory::run(&args),
        Command::Syscalls(args) => syscalls::run(&args),
        Command::Guarded(args) => Err(target::child_guard::run(&args)),
    };
    done.map(|()| ExitCode::SUCCESS)
}
