//! What a proxy costs and adds, beside others in the same run. All targets run all the time; rounds
//! go around them in turn, so that what disturbs the machine disturbs all of them, and ratios are
//! taken within a round. A second relay shows the noise: two equal targets differ by
//! that much; and so does `waited`, the share of the time in which something else had the proxy's
//! CPU.

use crate::Failure;
use crate::percentile;
use crate::proc::{Cpu, cpu};
use crate::proxy::rounds::{Bench, CIPHER, Load};
use crate::proxy::target::{Backend, Place, Scratch, Target, TargetArgs};
use crate::proxy::workload::{self, Backing, Workload};
use crate::report::percentile_plot;
use crate::run::measure::{Metric, empty};
use crate::table::{self, Cells};
use hdrhistogram::Histogram;
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Args)]
pub struct CostArgs {
    #[command(flatten)]
    targets: TargetArgs,
    /// What to measure, comma-separated: 64, 1k, 64x32, 16k, 64k, 4m, push, churn, latency,
    /// mixed
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "64,1k")]
    workload: Vec<String>,
    /// Instead: echo of messages of this size
    #[arg(long, value_name = "BYTES", conflicts_with = "workload")]
    payload: Option<usize>,
    /// Messages in flight on a session; 1 is ping-pong
    #[arg(long, value_name = "N", default_value_t = 1, requires = "payload")]
    window: usize,
    /// Sessions of each target
    #[arg(long, value_name = "N", default_value_t = 200, requires = "payload")]
    connections: usize,
    /// Measured rounds, after a warm-up round
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Time for one target in one round
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    round_ms: u64,
    /// Append the tables to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Draw the latencies of all targets over percentiles, as SVG; of the last workload, if there
    /// are several
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// A target with its sessions and its rounds.
struct Row {
    target: Target,
    _backend: Backend,
    /// Open all the time, unless the workload opens its sessions for each load.
    standing: Option<Bench>,
    rounds: Vec<Round>,
    /// Of all rounds together.
    latencies: Histogram<u64>,
}

/// One round of a target.
#[derive(Debug, Clone, Copy)]
struct Round {
    cpu_us: f64,
    per_second: f64,
    waited: f64,
    bulk_mb: f64,
    /// Microseconds.
    quantiles: [f64; QUANTILES.len()],
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

pub fn run(args: &CostArgs) -> Result<(), Failure> {
    let place = args.targets.place()?;
    let workloads = match args.payload {
        Some(payload) => vec![workload::echo(payload, args.window, args.connections)],
        None => args.workload.iter().map(|name| workload::named(name)).collect::<Result<_, _>>()?,
    };
    for workload in &workloads {
        measure(args, workload, place)?;
    }
    Ok(())
}

fn measure(args: &CostArgs, workload: &Workload, place: Place) -> Result<(), Failure> {
    let (scratch, mut rows) = (Scratch::new()?, Vec::new());
    for spec in args.targets.specs()? {
        // One for each, so that what one target leaves behind (ports above all) does not burden the
        // next.
        let backend = Backend::start(workload.backing.arguments())?;
        let target = Target::start(&spec, backend.addr, &scratch, place)?;
        let mut row = Row { target, _backend: backend, standing: None, rounds: Vec::new(), latencies: empty() };
        if !workload.opens_anew {
            row.standing = Some(row.open(workload)?);
        }
        rows.push(row);
    }
    for row in &mut rows {
        // The first round warms everything up.
        row.measure(args, workload)?;
        row.rounds.clear();
        row.latencies.reset();
    }
    for round in 0..usize::from(args.rounds) {
        // Each round begins with another one, so that none always follows the same.
        for turn in 0..rows.len() {
            let index = (round + turn) % rows.len();
            rows[index].measure(args, workload)?;
        }
    }
    let mut title = format!("{}, {} rounds of {} ms", workload.title, args.rounds, args.round_ms);
    if rows.iter().any(|row| row.target.tls) {
        title = format!("{title}, TLS 1.3, {CIPHER}");
    }
    table::print(&title, &costs(&rows, workload), args.markdown.as_deref())?;
    if let Some(path) = &args.plot {
        // A second relay says how far to trust a figure; as a curve it would only hide the first.
        let shown = rows.iter().filter(|row| row.target.name != "relay2");
        let curves: Vec<_> = shown.map(|row| (row.target.name.clone(), &row.latencies)).collect();
        std::fs::write(path, percentile_plot(&curves, &workload.title)?)
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    if rows.iter().any(|row| row.target.pid().is_none()) {
        table::print(&format!("{title}: added to the direct way"), &added(&rows), args.markdown.as_deref())?;
    }
    Ok(())
}

impl Row {
    fn open(&self, workload: &Workload) -> Result<Bench, Failure> {
        let named = |e: Failure| format!("{}: {e}", self.target.name);
        let mut bench =
            Bench::new(self.target.addr, &workload.groups, (self.target.tls, workload.resumes)).map_err(named)?;
        bench.open().map_err(named)?;
        Ok(bench)
    }

    fn measure(&mut self, args: &CostArgs, workload: &Workload) -> Result<(), Failure> {
        let mut bench = match self.standing.take() {
            Some(bench) => bench,
            None => self.open(workload)?,
        };
        let before = self.used()?;
        let load =
            bench.measure(Duration::from_millis(args.round_ms)).map_err(|e| format!("{}: {e}", self.target.name))?;
        let after = self.used()?;
        if workload.opens_anew {
            bench.close()?
        } else {
            self.standing = Some(bench)
        }
        if let Some(histogram) = shown(&load, workload) {
            self.latencies.add(histogram)?;
        }
        self.rounds.push(Round::of(&load, workload, (before, after)).ok_or("a round without a message")?);
        Ok(())
    }

    fn used(&self) -> Result<Cpu, Failure> {
        self.target.pid().map_or(Ok(Cpu::default()), cpu)
    }

    fn all(&self, of: impl Fn(&Round) -> f64) -> Vec<f64> {
        self.rounds.iter().map(of).collect()
    }

    /// Cells of CPU: the median, the ratio to `base` with its least and most, that to `best`, and
    /// what a core would do.
    fn shares(&self, base: Option<&Row>, best: Option<&Row>) -> Vec<String> {
        let Some(base) = base.filter(|_| self.target.pid().is_some()) else {
            return vec!["-".into(); if best.is_some() { 5 } else { 4 }];
        };
        let (cpu, ratios) = (median(&self.all(|round| round.cpu_us)), self.ratios(base));
        let (low, high) = table::range(&ratios);
        let to_best = best.map(|best| {
            let ratios = self.ratios(best);
            let (low, high) = table::range(&ratios);
            format!("{:.3} ({low:.2}..{high:.2})", median(&ratios))
        });
        let first = [format!("{cpu:.3}"), format!("{:.3}", median(&ratios)), format!("({low:.3}..{high:.3})")];
        first.into_iter().chain(to_best).chain([format!("{:.0}", 1e6 / cpu)]).collect()
    }

    /// CPU of this target relative to `base`, round by round.
    fn ratios(&self, base: &Row) -> Vec<f64> {
        self.rounds.iter().zip(&base.rounds).map(|(own, base)| own.cpu_us / base.cpu_us).collect()
    }
}

impl Round {
    fn of(load: &Load, workload: &Workload, (before, after): (Cpu, Cpu)) -> Option<Round> {
        let [measured, whole] = load.samples.first()?;
        let units = if workload.counts_sessions { whole.counts.opened } else { load.received() };
        let histogram = shown(load, workload)?;
        let came = if workload.counts_sessions { units } else { measured.counts.received };
        let bulk: u64 = load.samples.iter().skip(1).map(|[_, whole]| whole.counts.received_bytes).sum();
        Some(Round {
            cpu_us: (after.ran - before.ran) as f64 / 1e3 / units as f64,
            per_second: came as f64 / load.elapsed.as_secs_f64(),
            waited: (after.waited - before.waited) as f64 / load.elapsed.as_nanos() as f64 * 100.0,
            bulk_mb: bulk as f64 / 1e6 / load.elapsed.as_secs_f64(),
            quantiles: QUANTILES.map(|(_, quantile)| percentile::value(histogram, quantile) as f64),
        })
    }
}

/// The latencies of a workload: those of its first group.
fn shown<'a>(load: &'a Load, workload: &Workload) -> Option<&'a Histogram<u64>> {
    let [measured, whole] = load.samples.first()?;
    match workload.counts_sessions {
        true => whole.histograms.get(Metric::FirstMessage),
        false => measured.histograms.get(Metric::RoundTrip).or_else(|| measured.histograms.get(Metric::OneWay)),
    }
}

/// A row for each target. Ratios are taken within a round, to the first process and to the best of
/// the peers.
fn costs(rows: &[Row], workload: &Workload) -> Cells {
    let unit = if workload.counts_sessions { "session" } else { "message" };
    let mut heads = vec!["target".into(), format!("CPU us/{unit}"), "ratio".into(), "(min..max)".into()];
    let best = best_peer(rows);
    heads.extend(best.map(|best| format!("vs. {}", best.target.name)));
    heads.extend([format!("{unit}s/s per core"), format!("{unit}s/s")]);
    heads.extend(QUANTILES.iter().map(|(name, _)| format!("{name} us")));
    heads.push("waited".into());
    if rows.first().is_some_and(|row| row.all(|round| round.bulk_mb).iter().any(|mb| *mb > 0.0)) {
        heads.push("bulk MB/s".into());
    }
    let base = rows.iter().find(|row| row.target.pid().is_some());
    let line = |row: &Row| {
        let mut cells = vec![row.target.name.clone()];
        cells.extend(row.shares(base, best));
        cells.push(format!("{:.0}", median(&row.all(|round| round.per_second))));
        for at in 0..QUANTILES.len() {
            cells.push(format!("{:.0}", median(&row.all(|round| round.quantiles[at]))));
        }
        cells.push(format!("{:.1}%", median(&row.all(|round| round.waited))));
        if heads.len() > cells.len() {
            cells.push(format!("{:.0}", median(&row.all(|round| round.bulk_mb))));
        }
        cells
    };
    Cells { rows: rows.iter().map(line).collect(), heads }
}

/// The peer with the lowest CPU cost.
fn best_peer(rows: &[Row]) -> Option<&Row> {
    let cpu = |row: &Row| median(&row.all(|round| round.cpu_us));
    rows.iter().filter(|row| row.target.is_peer).min_by(|a, b| cpu(a).total_cmp(&cpu(b)))
}

/// What each adds to the direct connection, within a round.
fn added(rows: &[Row]) -> Cells {
    let heads = std::iter::once("target".to_owned()).chain(QUANTILES.iter().map(|(name, _)| format!("{name} us")));
    let direct = rows.iter().find(|row| row.target.pid().is_none());
    let line = |row: &Row| {
        let mut cells = vec![row.target.name.clone()];
        for at in 0..QUANTILES.len() {
            let pairs = row.rounds.iter().zip(direct.map_or(&[][..], |direct| &direct.rounds));
            let added: Vec<f64> = pairs.map(|(own, direct)| own.quantiles[at] - direct.quantiles[at]).collect();
            let (low, high) = table::range(&added);
            cells.push(format!("{:.0} ({low:.0}..{high:.0})", median(&added)));
        }
        cells
    };
    Cells { heads: heads.collect(), rows: rows.iter().filter(|row| row.target.pid().is_some()).map(line).collect() }
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// The arguments of the backend of a workload.
impl Backing {
    fn arguments(&self) -> Vec<String> {
        let words: Vec<&str> = match self {
            Backing::Echo => vec!["serve", "echo"],
            Backing::Push { .. } => vec!["serve", "push", "--together"],
        };
        let mut arguments: Vec<String> = words.into_iter().map(String::from).collect();
        if let Backing::Push { size, per_second } = self {
            arguments.extend(["--size".into(), size.to_string(), "--rate".into(), per_second.to_string()]);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
