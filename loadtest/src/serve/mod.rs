//! The server roles: backends of measured proxies, and misbehaving servers to test clients
//! with. `server` is the loop that all but the echo share; each role is a file.

mod faulty;
mod push;
mod server;
mod sink;
mod slow;

use crate::{Failure, proc};
use framegate::echo::Echo;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;

#[derive(clap::Subcommand)]
pub enum Serve {
    /// Echo every frame
    #[command(after_help = "Example: framegate-loadtest serve echo --listen 127.0.0.1:9000")]
    Echo(ListenArgs),
    /// Send stamped messages to every client
    #[command(after_help = "Example: framegate-loadtest serve push --rate 10 --size 1KiB --together")]
    Push(push::PushArgs),
    /// Read everything and never reply
    #[command(after_help = "Example: framegate-loadtest serve sink --verify")]
    Sink(sink::SinkArgs),
    /// Echo every message with a delay; read slowly
    #[command(after_help = "Example: framegate-loadtest serve slow --delay 10ms --jitter 5ms")]
    Slow(slow::SlowArgs),
    /// Echo messages, with faults on request
    #[command(after_help = faulty::HELP)]
    Faulty(faulty::FaultyArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub struct ListenArgs {
    /// Address to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
}

/// Serves until a signal.
pub fn run(role: Serve) -> Result<(), Failure> {
    proc::raise_descriptor_limit()?;
    match role {
        Serve::Echo(args) => {
            let echo = Echo::bind(args.listen).map_err(|e| format!("cannot listen on {}: {e}", args.listen))?;
            // For a parent that started this with port 0.
            println!("listening on {}", echo.local_addr()?);
            Ok(echo.run(&AtomicBool::new(false))?)
        }
        Serve::Push(args) => server::run(args.listen.listen, push::Push::new(&args)?),
        Serve::Sink(args) => server::run(args.listen.listen, sink::Sink::new(&args)),
        Serve::Slow(args) => server::run(args.listen.listen, slow::Slow::new(&args)),
        Serve::Faulty(args) => server::run(args.listen.listen, faulty::Faulty::new(&args)),
    }
}
