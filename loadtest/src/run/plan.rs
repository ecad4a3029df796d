//! A run: the target, the groups of connections, what they do and for how long. Made from
//! flags or from a scenario file, checked once; nothing behind it can be wrong any more. Opens
//! nothing.

use crate::run::measure::Requested;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Plan {
    /// As typed, for the report.
    pub url: String,
    pub groups: Vec<Group>,
    pub windows: Windows,
    pub threads: usize,
    /// Processors of the threads, in turn; empty to leave it to the system.
    pub pins: Vec<usize>,
    /// Local addresses of the connections, in turn; empty to leave it to the system.
    pub sources: Vec<IpAddr>,
    /// What is random (Poisson, jitter, choice of sizes) follows from this.
    pub seed: u64,
}

/// The parts of a run, in their order. Opening the connections comes first and takes at least
/// `ramp`.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    pub ramp: Duration,
    /// Traffic that is not measured.
    pub settle: Duration,
    pub measure: Duration,
    /// Longest wait for replies after the last message.
    pub cooldown: Duration,
}

/// Connections that do the same.
#[derive(Debug, Clone)]
pub struct Group {
    pub name: String,
    pub shape: Shape,
    pub connections: usize,
    pub target: Arc<Target>,
    pub traffic: Traffic,
    pub message: MessagePlan,
    /// What a reply must be.
    pub reply: Reply,
    /// Our pings: one each this often.
    pub ping: Option<Duration>,
    /// Slow readers.
    pub stall: Option<Stall>,
    /// What to do when a connection ends unexpectedly.
    pub reconnect: Option<Reconnect>,
    /// storm: interval at which all connections are cut.
    pub cut_every: Option<Duration>,
    /// push: number of connections that send what all receive, through a server that broadcasts.
    pub publishers: Option<usize>,
    /// Each connection sends a message as soon as it is open.
    pub sends_on_open: bool,
    /// churn: a connection closes after this many messages, and another takes its place.
    pub messages_per_connection: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Echo,
    Push,
    Churn,
    Idle,
    Storm,
    Slow,
}

/// When messages leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Traffic {
    /// None of ours.
    Silent,
    /// Open loop: messages per second over all connections of the group (churn: connections per
    /// second).
    Rate { per_second: f64, arrival: Arrival },
    /// Closed loop: messages in flight on each connection.
    Closed { window: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    Even,
    Poisson,
    /// So many at once, then a pause.
    Burst(u32),
}

#[derive(Debug, Clone, PartialEq)]
pub struct MessagePlan {
    pub sizes: Sizes,
    pub text: bool,
    /// Frames a message is cut into; 1 for none but whole ones.
    pub fragments: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Sizes {
    /// Payload bytes and weight.
    Mix(Vec<(usize, f64)>),
    /// The messages of a file, one a line, in turn. They carry no stamp.
    Lines(Arc<Vec<Vec<u8>>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The same bytes come back.
    Exact,
    /// One message for each, whatever is in it.
    Any,
}

/// A reader that reads nothing for `pause` each `every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    pub every: Duration,
    pub pause: Duration,
}

/// After a lost connection: a random moment within `jitter`; after a failed try the pause doubles
/// from `backoff`, up to thirty times as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    pub jitter: Duration,
    pub backoff: Duration,
}

/// Where connections go and what their opening handshake says.
#[derive(Debug, Clone)]
pub struct Target {
    /// All addresses of the name; connections use them in turn.
    pub addrs: Vec<SocketAddr>,
    /// The whole request head but for the value of Sec-WebSocket-Key, in two halves around it.
    pub head: [Vec<u8>; 2],
    pub subprotocols: Vec<String>,
    /// For wss.
    pub tls: Option<crate::net::tls::Client>,
    pub connect_timeout: Duration,
}

impl Group {
    /// What the report says of it.
    pub fn requested(&self) -> Requested {
        let (rate, window) = match self.traffic {
            Traffic::Silent => (None, None),
            Traffic::Rate { per_second, .. } => (Some(per_second), None),
            Traffic::Closed { window } => (None, Some(window)),
        };
        let (name, shape, size) = (self.name.clone(), self.shape.name(), self.message.sizes.to_string());
        Requested { name, shape, connections: self.connections, rate, window, size }
    }
}

impl Shape {
    pub fn name(self) -> &'static str {
        match self {
            Shape::Echo => "echo",
            Shape::Push => "push",
            Shape::Churn => "churn",
            Shape::Idle => "idle",
            Shape::Storm => "storm",
            Shape::Slow => "slow",
        }
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sizes::Mix(mix) => match mix.as_slice() {
                [(size, _)] => write!(f, "{size} B"),
                several => {
                    let parts: Vec<String> =
                        several.iter().map(|(size, weight)| format!("{size} B*{weight}")).collect();
                    write!(f, "{}", parts.join(", "))
                }
            },
            Sizes::Lines(lines) => write!(f, "{} lines of a file", lines.len()),
        }
    }
}
