//! Direct against proxied: the same load on each URL in turn, round after round, so that what
//! disturbs the machine disturbs all of them. What a proxy adds is the difference within a round.

use crate::failure::Usage;
use crate::net::opening::OpeningArgs;
use crate::percentile;
use crate::run::command::HowArgs;
use crate::run::measure::{Metric, Outcome};
use crate::run::options::{GroupSpec, ShapeSpec};
use crate::run::phases::{self, Observer};
use crate::run::plan::Plan;
use crate::{Failure, proc};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Clone, clap::Args)]
pub struct CompareArgs {
    /// URL of the server itself
    #[arg(long, value_name = "URL")]
    direct: String,
    /// URL through a proxy; may be repeated
    #[arg(long, value_name = "URL", required = true)]
    proxied: Vec<String>,
    /// PID of each proxy, in the same order, for its CPU per message and memory per
    /// connection
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Rounds over all URLs
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    #[command(flatten)]
    group: GroupSpec,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    opening: OpeningArgs,
}

/// One URL and the outcome of its rounds.
struct Row {
    url: String,
    plan: Plan,
    pid: Option<u32>,
    rounds: Vec<Round>,
}

/// Microseconds, and the cost where a process is known.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    quantiles: [f64; QUANTILES.len()],
    per_second: f64,
    cpu_us: Option<f64>,
    memory_bytes: Option<f64>,
}

const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

pub fn run(args: &CompareArgs) -> Result<ExitCode, Failure> {
    if args.pid.len() > args.proxied.len() {
        return Err(Usage("more --pid than --proxied: each belongs to one of them".into()).into());
    }
    let urls = std::iter::once(&args.direct).chain(&args.proxied);
    let mut rows = Vec::new();
    for (index, url) in urls.enumerate() {
        let plan = args.plan(url)?;
        let pid = index.checked_sub(1).and_then(|index| args.pid.get(index).copied());
        if let Some(pid) = pid {
            proc::cpu(pid).map_err(|e| Usage(format!("process {pid} cannot be measured: {e}")))?;
        }
        rows.push(Row { url: url.clone(), plan, pid, rounds: Vec::new() });
    }
    phases::prepare(&rows[0].plan)?;
    for round in 0..usize::from(args.rounds) {
        for turn in 0..rows.len() {
            // Each round begins with another one, so that none always follows the same.
            let index = (round + turn) % rows.len();
            let row = &mut rows[index];
            eprintln!("round {} of {}: {}", round + 1, args.rounds, row.url);
            row.measure()?;
        }
    }
    print!("{}", table(&rows));
    Ok(ExitCode::SUCCESS)
}

impl CompareArgs {
    fn plan(&self, url: &str) -> Result<Plan, Usage> {
        let how = HowArgs { duration: self.how.duration.or(Some(Duration::from_secs(3))), ..self.how.clone() };
        let shape = crate::run::command::ShapeArgs {
            url: url.to_owned(),
            group: self.group.clone(),
            how,
            opening: self.opening.clone(),
            output: crate::report::OutputArgs::default(),
            find: None,
        };
        shape.plan(ShapeSpec::Echo)
    }
}

/// Reads what the process has used, at the ends of the measured window.
#[derive(Default)]
struct Meter {
    pid: Option<u32>,
    connections: usize,
    idle_kib: u64,
    open_kib: u64,
    before: u64,
    after: u64,
}

impl Observer for Meter {
    fn traffic_begins(&mut self, connections: usize) {
        self.connections = connections;
        self.open_kib = self.pid.and_then(|pid| proc::private_dirty_kib(pid).ok()).unwrap_or_default();
    }

    fn measure_begins(&mut self) {
        self.before = self.ran();
    }

    fn traffic_ended(&mut self) {
        self.after = self.ran();
    }
}

impl Meter {
    fn ran(&self) -> u64 {
        self.pid.and_then(|pid| proc::cpu(pid).ok()).unwrap_or_default().ran
    }
}

impl Row {
    fn measure(&mut self) -> Result<(), Failure> {
        let idle_kib = self.pid.map(proc::private_dirty_kib).transpose()?.unwrap_or_default();
        let mut meter = Meter { pid: self.pid, idle_kib, ..Meter::default() };
        let outcome = phases::run(&self.plan, Duration::from_secs(1), &mut meter)?;
        if phases::stop_flag().load(std::sync::atomic::Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        if let Some(detail) = trouble(&outcome) {
            return Err(format!("{}: {detail}", self.url).into());
        }
        let sample = outcome.measured_total();
        let histogram =
            sample.histograms.get(Metric::RoundTrip).ok_or_else(|| format!("{}: no reply came", self.url))?;
        let received = sample.counts.received as f64;
        let kib = meter.open_kib.saturating_sub(meter.idle_kib) as f64;
        self.rounds.push(Round {
            quantiles: QUANTILES.map(|(_, quantile)| percentile::value(histogram, quantile) as f64),
            per_second: received / outcome.measured.as_secs_f64(),
            cpu_us: self.pid.map(|_| meter.after.saturating_sub(meter.before) as f64 / 1e3 / received),
            memory_bytes: self.pid.map(|_| kib * 1024.0 / meter.connections.max(1) as f64),
        });
        Ok(())
    }

    fn all(&self, of: impl Fn(&Round) -> Option<f64>) -> Vec<f64> {
        self.rounds.iter().filter_map(of).collect()
    }
}

/// A comparison of runs of which one went wrong would compare nothing.
fn trouble(outcome: &Outcome) -> Option<String> {
    let counts = outcome.whole_total().counts;
    let (fault, count, example) = counts.seen().next()?;
    Some(format!("{count} errors ({}): {example}", fault.name()))
}

fn table(rows: &[Row]) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let mut line = |cells: Vec<String>| {
        let padded: Vec<String> = cells.iter().skip(1).map(|cell| format!("{cell:>30}")).collect();
        let first = cells.first().map_or("", String::as_str);
        // Writing to a string cannot fail.
        let _written = writeln!(out, "{first:<12}{}", padded.concat());
    };
    let Some((direct, proxied)) = rows.split_first() else { return out };
    for (index, row) in rows.iter().enumerate() {
        line(vec![if index == 0 { "direct".into() } else { format!("proxied {index}") }, row.url.clone()]);
    }
    line(vec![String::new()]);
    let heads = (0..rows.len()).map(|index| if index == 0 { "direct".into() } else { format!("proxied {index}") });
    line(std::iter::once("median".to_owned()).chain(heads).collect());
    for (at, (name, _)) in QUANTILES.iter().enumerate() {
        let cells = rows.iter().map(|row| spread(&row.all(|round| Some(round.quantiles[at])), "us"));
        line(std::iter::once((*name).to_owned()).chain(cells).collect());
        let added = proxied.iter().map(|row| {
            let pairs = row.rounds.iter().zip(&direct.rounds);
            let added: Vec<f64> = pairs.map(|(own, direct)| own.quantiles[at] - direct.quantiles[at]).collect();
            spread(&added, "us")
        });
        line([format!("{name} added"), "-".into()].into_iter().chain(added).collect());
    }
    let rates = rows.iter().map(|row| spread(&row.all(|round| Some(round.per_second)), "/s"));
    line(std::iter::once("messages".to_owned()).chain(rates).collect());
    if rows.iter().any(|row| row.pid.is_some()) {
        let cpu = rows.iter().map(|row| spread(&row.all(|round| round.cpu_us), "us"));
        line(std::iter::once("CPU/message".to_owned()).chain(cpu).collect());
        let memory = rows.iter().map(|row| spread(&row.all(|round| round.memory_bytes), "B"));
        line(std::iter::once("memory/conn".to_owned()).chain(memory).collect());
    }
    out
}

/// Median and, in brackets, the least and the most.
fn spread(values: &[f64], unit: &str) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.as_slice() {
        [] => "-".into(),
        [low, .., high] => format!("{:.1} {unit} ({low:.1}..{high:.1})", crate::proxy::cost::median(&sorted)),
        [one] => format!("{one:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_names_median_least_and_most() {
        assert_eq!(spread(&[3.0, 1.0, 2.0], "us"), "2.0 us (1.0..3.0)");
        assert_eq!(spread(&[5.0], "us"), "5.0 us");
        assert_eq!(spread(&[], "us"), "-");
    }
}
