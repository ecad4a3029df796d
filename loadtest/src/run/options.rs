//! The options of the command line and of a scenario file, made into a plan: sizes, rates,
//! shapes. One place for both, so that a flag and a key of the same name mean the same.

use crate::run::plan::{Arrival, Group, MessagePlan, Reconnect, Reply, Shape, Sizes, Stall, Target, Traffic};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Payload of one message.
const SIZE_MAX: u64 = 64 << 20;
const CONNECTIONS_MAX: usize = 1_000_000;

/// A group of connections as typed; what is not given has the default of its shape.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct GroupSpec {
    #[arg(skip)]
    pub name: Option<String>,
    #[arg(skip)]
    pub shape: Option<ShapeSpec>,
    /// Another URL than that of the scenario.
    #[arg(skip)]
    pub url: Option<String>,
    /// Connections [default: 100]
    #[arg(short, long, value_name = "N")]
    pub connections: Option<usize>,
    /// Messages per second over all connections (churn: connections per second) [default: 1000,
    /// churn 100]
    #[arg(short, long, value_name = "N", conflicts_with = "closed")]
    pub rate: Option<f64>,
    /// Closed loop instead: messages in flight on each connection (churn: connections open at a
    /// time)
    #[arg(long, value_name = "K")]
    pub closed: Option<usize>,
    /// Arrival process: even, poisson, or burst=N [default: even]
    #[arg(long, value_name = "HOW", conflicts_with = "closed")]
    pub arrival: Option<String>,
    /// Payload: 64, 1KiB, a mix with weights 64*9,16KiB*1, or file:PATH with one message per line
    /// [default: 64]
    #[arg(short, long, value_name = "SIZE")]
    pub size: Option<String>,
    /// Text messages instead of binary ones
    #[arg(long)]
    pub text: bool,
    /// Frames that each message is cut into [default: 1]
    #[arg(long, value_name = "N")]
    pub fragments: Option<usize>,
    /// What a reply must be: exact (the same bytes) or any (one message for each) [default: exact]
    #[arg(long, value_name = "WHAT")]
    pub reply: Option<String>,
    /// Interval of pings on each connection
    #[arg(long, value_name = "TIME")]
    pub ping: Option<String>,
    /// push: number of connections that send what all receive, through a server that broadcasts
    #[arg(long, value_name = "N", hide = true)]
    pub publishers: Option<usize>,
    /// churn: messages of each connection [default: 1]
    #[arg(long, value_name = "N", hide = true)]
    pub messages: Option<u64>,
    /// storm: interval at which all connections are cut [default: 5s]
    #[arg(long, value_name = "TIME", hide = true)]
    pub cut_every: Option<String>,
    /// Reconnect within this time after a lost connection [storm: 0s]
    #[arg(long, value_name = "TIME", hide = true)]
    pub jitter: Option<String>,
    /// Delay after a failed connect, doubled each time [default: 100ms]
    #[arg(long, value_name = "TIME", hide = true)]
    pub backoff: Option<String>,
    /// slow: interval at which each reader stalls [default: 2s]
    #[arg(long, value_name = "TIME", hide = true)]
    pub stall_every: Option<String>,
    /// slow: duration of a stall [default: 1s]
    #[arg(long, value_name = "TIME", hide = true)]
    pub stall_for: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShapeSpec {
    Echo,
    Push,
    Churn,
    Idle,
    Storm,
    Slow,
}

impl From<ShapeSpec> for Shape {
    fn from(spec: ShapeSpec) -> Shape {
        match spec {
            ShapeSpec::Echo => Shape::Echo,
            ShapeSpec::Push => Shape::Push,
            ShapeSpec::Churn => Shape::Churn,
            ShapeSpec::Idle => Shape::Idle,
            ShapeSpec::Storm => Shape::Storm,
            ShapeSpec::Slow => Shape::Slow,
        }
    }
}

impl GroupSpec {
    /// The validated group, or an error in one sentence.
    pub fn build(&self, target: Arc<Target>) -> Result<Group, String> {
        let shape: Shape = self.shape.unwrap_or(ShapeSpec::Echo).into();
        self.check(shape)?;
        // A churn in a closed loop has as many places as it may have outstanding.
        let places = self.closed.filter(|_| shape == Shape::Churn);
        let connections = self.connections.or(places).unwrap_or(100);
        if connections == 0 || connections > CONNECTIONS_MAX {
            return Err(format!("connections = {connections}: expected a number from 1 to {CONNECTIONS_MAX}"));
        }
        let sizes = sizes(self.size.as_deref().unwrap_or("64"))?;
        let fragments = self.fragments.unwrap_or(1);
        if !(1..=1024).contains(&fragments) {
            return Err(format!("fragments = {fragments}: expected a number from 1 to 1024"));
        }
        let reply = match self.reply.as_deref() {
            None | Some("exact") => Reply::Exact,
            Some("any") => Reply::Any,
            Some(other) => return Err(format!("reply = {other:?}: write \"exact\" or \"any\"")),
        };
        let time = |key: &str, text: &Option<String>| text.as_deref().map(|text| duration(key, text)).transpose();
        let within =
            |key: &str, text: &Option<String>, default: Duration| Ok::<_, String>(time(key, text)?.unwrap_or(default));
        let stall = Stall {
            every: within("stall-every", &self.stall_every, Duration::from_secs(2))?,
            pause: within("stall-for", &self.stall_for, Duration::from_secs(1))?,
        };
        let reconnect = Reconnect {
            jitter: within("jitter", &self.jitter, Duration::ZERO)?,
            backoff: within("backoff", &self.backoff, Duration::from_millis(100))?,
        };
        let reconnects = shape == Shape::Storm || self.jitter.is_some() || self.backoff.is_some();
        let cut_every = within("cut-every", &self.cut_every, Duration::from_secs(5))?;
        if self.messages == Some(0) || self.publishers == Some(0) {
            return Err("the number of messages or publishers must not be 0".into());
        }
        Ok(Group {
            name: self.name.clone().unwrap_or_else(|| shape.name().to_owned()),
            shape,
            connections,
            target,
            traffic: self.traffic(shape)?,
            message: MessagePlan { sizes, text: self.text, fragments },
            reply,
            ping: time("ping", &self.ping)?,
            stall: (shape == Shape::Slow).then_some(stall),
            reconnect: reconnects.then_some(reconnect),
            cut_every: (shape == Shape::Storm).then_some(cut_every),
            publishers: self.publishers,
            sends_on_open: shape == Shape::Storm,
            messages_per_connection: (shape == Shape::Churn).then(|| self.messages.unwrap_or(1)),
        })
    }

    /// Every key must apply to this shape: an ignored one would be a wrong measurement.
    fn check(&self, shape: Shape) -> Result<(), String> {
        let cases: [(&str, bool, &[Shape]); 6] = [
            ("publishers", self.publishers.is_some(), &[Shape::Push]),
            ("messages", self.messages.is_some(), &[Shape::Churn]),
            ("cut-every", self.cut_every.is_some(), &[Shape::Storm]),
            ("stall-every", self.stall_every.is_some(), &[Shape::Slow]),
            ("stall-for", self.stall_for.is_some(), &[Shape::Slow]),
            ("closed", self.closed.is_some(), &[Shape::Echo, Shape::Churn, Shape::Slow, Shape::Storm]),
        ];
        for (key, is_said, shapes) in cases {
            if is_said && !shapes.contains(&shape) {
                let names: Vec<&str> = shapes.iter().map(|shape| shape.name()).collect();
                return Err(format!("{key} is for {}, not for {}", names.join(", "), shape.name()));
            }
        }
        if shape == Shape::Push && self.rate.is_some() && self.publishers.is_none() {
            return Err("the rate of a push is set by the server, unless --publishers is given".into());
        }
        Ok(())
    }

    fn traffic(&self, shape: Shape) -> Result<Traffic, String> {
        if let Some(window) = self.closed {
            if window == 0 || window > 100_000 {
                return Err(format!("closed = {window}: expected a number from 1 to 100000"));
            }
            return Ok(Traffic::Closed { window });
        }
        let silent = match shape {
            Shape::Idle | Shape::Storm => self.rate.is_none(),
            Shape::Push => self.publishers.is_none(),
            _ => false,
        };
        if silent {
            return Ok(Traffic::Silent);
        }
        let per_second = self.rate.unwrap_or(if shape == Shape::Churn { 100.0 } else { 1000.0 });
        if !(per_second > 0.0 && per_second <= 1e8) {
            return Err(format!("rate = {per_second}: expected a number above 0, at most 100000000"));
        }
        let arrival = match self.arrival.as_deref() {
            None | Some("even") => Arrival::Even,
            Some("poisson") => Arrival::Poisson,
            Some(other) => match other.strip_prefix("burst=").map(str::parse::<u32>) {
                Some(Ok(n)) if n > 0 => Arrival::Burst(n),
                _ => return Err(format!("arrival = {other:?}: write \"even\", \"poisson\" or \"burst=N\"")),
            },
        };
        Ok(Traffic::Rate { per_second, arrival })
    }
}

/// `30s`, `1m 30s`, `250ms`; `0s` too.
pub fn duration(key: &str, text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("{key} = {text:?}: expected a duration such as \"30s\" or \"250ms\""))
}

/// As clap wants it: without the flag's name, which it adds.
pub fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a duration such as 30s or 250ms".to_owned())
}

fn sizes(text: &str) -> Result<Sizes, String> {
    if let Some(path) = text.strip_prefix("file:") {
        let bytes = std::fs::read(path).map_err(|e| format!("cannot read the messages in {path}: {e}"))?;
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec);
        let lines: Vec<Vec<u8>> = lines.collect();
        if lines.is_empty() {
            return Err(format!("{path} has no messages: expected one per line"));
        }
        return Ok(Sizes::Lines(Arc::new(lines)));
    }
    let part = |part: &str| {
        let (size, weight) = part.trim().split_once('*').map_or((part.trim(), "1"), |(size, weight)| (size, weight));
        let size = parse_size::Config::new().with_binary().parse_size(size).ok().filter(|size| *size <= SIZE_MAX);
        let weight = weight.parse::<f64>().ok().filter(|weight| weight.is_finite() && *weight > 0.0);
        match (size, weight) {
            (Some(size), Some(weight)) => Ok((size as usize, weight)),
            _ => Err(format!("size = {text:?}: expected 64, 1KiB, 64*9,16KiB*1 or file:PATH; at most 64MiB each")),
        }
    };
    Ok(Sizes::Mix(text.split(',').map(part).collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(spec: &GroupSpec) -> Result<Group, String> {
        let target = Target {
            addrs: vec![],
            head: [vec![], vec![]],
            subprotocols: vec![],
            tls: None,
            connect_timeout: Duration::from_secs(1),
        };
        spec.build(Arc::new(target))
    }

    #[test]
    fn sizes_are_read_as_they_are_written() {
        assert_eq!(sizes("64"), Ok(Sizes::Mix(vec![(64, 1.0)])));
        assert_eq!(sizes("1KiB"), Ok(Sizes::Mix(vec![(1024, 1.0)])));
        assert_eq!(sizes("64*9, 4MiB*0.5"), Ok(Sizes::Mix(vec![(64, 9.0), (4 << 20, 0.5)])));
        for bad in ["", "x", "64*", "64*0", "64*-1", "1GiB", "-1", "64,,1", "file:/nowhere"] {
            assert!(sizes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_does_not_fit_its_shape_is_refused() {
        let echo = GroupSpec { cut_every: Some("1s".into()), ..GroupSpec::default() };
        assert!(build(&echo).unwrap_err().contains("is for storm"));
        let push = GroupSpec { shape: Some(ShapeSpec::Push), rate: Some(1.0), ..GroupSpec::default() };
        assert!(build(&push).unwrap_err().contains("publishers"));
        for (arrival, good) in [("even", true), ("burst=10", true), ("burst=0", false), ("sometimes", false)] {
            let spec = GroupSpec { arrival: Some(arrival.into()), ..GroupSpec::default() };
            assert_eq!(build(&spec).is_ok(), good, "{arrival}");
        }
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(build(&GroupSpec { rate: Some(rate), ..GroupSpec::default() }).is_err());
        }
        assert!(build(&GroupSpec { connections: Some(0), ..GroupSpec::default() }).is_err());
    }

    #[test]
    fn shapes_have_their_defaults() {
        let of = |shape| build(&GroupSpec { shape: Some(shape), ..GroupSpec::default() }).unwrap();
        assert_eq!(of(ShapeSpec::Echo).traffic, Traffic::Rate { per_second: 1000.0, arrival: Arrival::Even });
        assert_eq!(of(ShapeSpec::Idle).traffic, Traffic::Silent);
        assert_eq!(of(ShapeSpec::Push).traffic, Traffic::Silent);
        assert_eq!(of(ShapeSpec::Churn).messages_per_connection, Some(1));
        let storm = of(ShapeSpec::Storm);
        assert!(storm.sends_on_open && storm.cut_every.is_some() && storm.reconnect.is_some());
        assert!(of(ShapeSpec::Slow).stall.is_some());
    }
}
