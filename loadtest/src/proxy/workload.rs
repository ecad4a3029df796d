//! The workloads of comparisons, by their names on the command line.

use crate::run::options::{GroupSpec, ShapeSpec};

pub struct Workload {
    pub title: String,
    /// Latencies shown are those of the first.
    pub groups: Vec<GroupSpec>,
    pub backing: Backing,
    /// Sessions are opened for each round and closed after it: a server that pushes does not stop
    /// in between.
    pub opens_anew: bool,
    /// The unit is a session, not a message.
    pub counts_sessions: bool,
    /// TLS sessions are resumed, if there is TLS.
    pub resumes: bool,
}

/// The server behind the proxies.
pub enum Backing {
    Echo,
    Push { size: usize, per_second: f64 },
}

/// Ping-pong (or `window` under way) of one size.
pub fn echo(payload: usize, window: usize, connections: usize) -> Workload {
    let group = closed(ShapeSpec::Echo, connections, window, payload);
    let title = match window {
        1 => format!("{payload} B ping-pong over {connections} sessions"),
        _ => format!("{payload} B, {window} in flight on each of {connections} sessions"),
    };
    let (groups, backing) = (vec![group], Backing::Echo);
    Workload { title, groups, backing, opens_anew: false, counts_sessions: false, resumes: true }
}

pub fn named(name: &str) -> Result<Workload, String> {
    let standing = |title: &str, groups| Workload {
        title: title.into(),
        groups,
        backing: Backing::Echo,
        opens_anew: false,
        counts_sessions: false,
        resumes: true,
    };
    Ok(match name {
        "64" => echo(64, 1, 200),
        "1k" => echo(1024, 1, 200),
        "64x32" => echo(64, 32, 200),
        "16k" => echo(16 << 10, 1, 100),
        "64k" => echo(64 << 10, 1, 50),
        "4m" => echo(4 << 20, 1, 4),
        "push" => Workload {
            backing: Backing::Push { size: 1024, per_second: 100.0 },
            opens_anew: true,
            ..standing(
                "push of 1 KiB to 500 clients, 100/s",
                vec![GroupSpec { shape: Some(ShapeSpec::Push), connections: Some(500), ..GroupSpec::default() }],
            )
        },
        "churn" | "resume" => Workload {
            counts_sessions: true,
            resumes: name == "resume",
            ..standing("connect, upgrade, echo 64 B, close, 50 at a time", vec![closed(ShapeSpec::Churn, 50, 50, 64)])
        },
        "latency" => standing("64 B, open loop, 5000/s (Poisson) over 200 sessions", vec![open("chatty", 200, 5000.0)]),
        "mixed" => standing(
            "500 chatty sessions, 2000 x 64 B/s (Poisson), beside one that echoes 1 MiB messages",
            vec![
                open("chatty", 500, 2000.0),
                GroupSpec { name: Some("bulk".into()), ..closed(ShapeSpec::Echo, 1, 1, 1 << 20) },
            ],
        ),
        "storm" => Workload {
            resumes: false,
            ..standing(
                "1000 chatty sessions, 4000 x 64 B/s (Poisson), beside 2000/s that connect, upgrade, echo, close",
                vec![
                    open("chatty", 1000, 4000.0),
                    GroupSpec {
                        name: Some("reconnects".into()),
                        shape: Some(ShapeSpec::Churn),
                        connections: Some(200),
                        rate: Some(2000.0),
                        arrival: Some("poisson".into()),
                        ..GroupSpec::default()
                    },
                ],
            )
        },
        other => {
            return Err(format!(
                "unknown workload {other:?}: expected 64, 1k, 64x32, 16k, 64k, 4m, push, churn, resume, latency, mixed \
                 or storm"
            ));
        }
    })
}

fn closed(shape: ShapeSpec, connections: usize, window: usize, payload: usize) -> GroupSpec {
    let (shape, connections, closed) = (Some(shape), Some(connections), Some(window));
    GroupSpec { shape, connections, closed, size: Some(payload.to_string()), ..GroupSpec::default() }
}

fn open(name: &str, connections: usize, rate: f64) -> GroupSpec {
    let (name, connections, rate) = (Some(name.into()), Some(connections), Some(rate));
    GroupSpec { name, connections, rate, arrival: Some("poisson".into()), ..GroupSpec::default() }
}
