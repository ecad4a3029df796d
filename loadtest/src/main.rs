//! framegate-loadtest: server roles, and measurements of what a proxy costs.
//!
//! Reading order: [`load`] (the client side), [`relay`] (what proxies are measured against), [`target`] (a
//! proxy under measurement), then one file a command: [`cost`], [`idle`], [`syscalls`].
#![forbid(unsafe_code)]

mod bench;
mod client;
mod compare;
mod conn;
mod cost;
mod crew;
mod dial;
mod during;
mod find;
mod frames;
mod generate;
mod idle;
mod limits;
mod live;
mod measure;
mod message;
mod opening;
mod pace;
mod plan;
mod proc;
mod relay;
mod replies;
mod report;
mod run;
mod serve;
mod spec;
mod stamp;
mod syscalls;
mod table;
mod target;
mod tls;
mod transport;
mod workload;

use clap::{Args, Parser, Subcommand};
use generate::{ScenarioArgs, ShapeArgs};
use spec::ShapeSpec;
use std::net::SocketAddr;
use std::process::ExitCode;

/// A scenario with every key.
const EXAMPLE_SCENARIO: &str = include_str!("scenario.toml");

/// What goes wrong here is told in one sentence and ends the process.
type Failure = Box<dyn std::error::Error>;

#[derive(Parser)]
#[command(version, about = "Server roles and measurements for WebSocket proxies", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Round trips: messages go out, and come back
    Echo(ShapeArgs),
    /// Messages that the server sends: their way to us
    Push(ShapeArgs),
    /// Users that come and go: connect, upgrade, a message, close
    Churn(ShapeArgs),
    /// Connections that are only held
    Idle(ShapeArgs),
    /// A herd: all connections are cut at once and come back
    Storm(ShapeArgs),
    /// Readers that stall
    Slow(ShapeArgs),
    /// Several groups at once, from a scenario file
    Run(ScenarioArgs),
    /// The same load directly and through proxies, in turn: what each adds
    #[command(
        after_help = "Example: framegate-loadtest compare --direct ws://127.0.0.1:9000 --proxied ws://127.0.0.1:8080 --pid 4242"
    )]
    Compare(compare::CompareArgs),
    /// What becomes of the sessions while a command runs: a reload, a stop, a deploy
    #[command(after_help = "Example: framegate-loadtest during 'kill -HUP 4242' ws://127.0.0.1:8080")]
    During(during::DuringArgs),
    /// Plot the logs of runs over each other
    #[command(after_help = "Example: framegate-loadtest plot before/run.hlog after/run.hlog --out plot.html")]
    Plot(report::PlotArgs),
    /// Print a scenario file with every key
    ExampleScenario,
    /// Run a server until a signal stops it
    #[command(subcommand)]
    Serve(serve::Serve),
    /// Run the bare byte relay that proxies are measured against, until killed
    #[command(after_help = "Example: framegate-loadtest relay --listen 127.0.0.1:8080 --upstream 127.0.0.1:9000")]
    Relay(RelayArgs),
    /// Measure proxy CPU per echoed message, in interleaved rounds over all targets
    #[command(after_help = "Example: framegate-loadtest cost --target relay --target relay2 --target nginx --rounds 9")]
    Cost(cost::CostArgs),
    /// Measure a proxy's own memory per idle session, as a slope
    #[command(after_help = "Example: framegate-loadtest memory --target framegate --connections 8000")]
    Memory(idle::IdleArgs),
    /// Count system calls per message and direction with strace
    #[command(after_help = "Example: framegate-loadtest syscalls --target framegate")]
    Syscalls(syscalls::SyscallsArgs),
    /// Become a command that ends with whoever started this
    #[command(hide = true)]
    Leashed(target::leash::LeashedArgs),
}

#[derive(Args)]
struct RelayArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Where every connection goes
    #[arg(long, value_name = "ADDR")]
    upstream: SocketAddr,
    /// Pass the bytes through a pipe in the kernel
    #[arg(long)]
    splice: bool,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("framegate-loadtest: {failure}");
            let is_usage = failure.is::<generate::Usage>();
            if is_usage { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    let done = match command {
        Command::Echo(args) => return generate::shape(ShapeSpec::Echo, &args),
        Command::Push(args) => return generate::shape(ShapeSpec::Push, &args),
        Command::Churn(args) => return generate::shape(ShapeSpec::Churn, &args),
        Command::Idle(args) => return generate::shape(ShapeSpec::Idle, &args),
        Command::Storm(args) => return generate::shape(ShapeSpec::Storm, &args),
        Command::Slow(args) => return generate::shape(ShapeSpec::Slow, &args),
        Command::Run(args) => return generate::scenario(&args),
        Command::Compare(args) => return compare::run(&args),
        Command::During(args) => return during::run(&args),
        Command::Plot(args) => report::plot(&args),
        Command::ExampleScenario => {
            print!("{EXAMPLE_SCENARIO}");
            Ok(())
        }
        Command::Serve(role) => serve::run(role),
        Command::Relay(args) => relay::run(args.listen, args.upstream, args.splice).map_err(Failure::from),
        Command::Cost(args) => cost::run(&args),
        Command::Memory(args) => idle::run(&args),
        Command::Syscalls(args) => syscalls::run(&args),
        Command::Leashed(args) => Err(target::leash::run(&args)),
    };
    done.map(|()| ExitCode::SUCCESS)
}
