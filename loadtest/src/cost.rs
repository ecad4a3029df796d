//! Proxy CPU per echoed message. All targets run all the time, each with its sessions open; rounds go around
//! them in turn, so that what disturbs the machine disturbs all of them, and ratios are taken within a round. A
//! second relay says how much the rest is worth: two equal things differ by that much; and so does `waited`, the
//! share of the time in which something else had the proxy's CPU.

use crate::Failure;
use crate::load::{Limit, Load};
use crate::proc::cpu;
use crate::target::{Backend, Scratch, Target, TargetArgs};
use hdrhistogram::Histogram;
use std::time::Duration;

#[derive(clap::Args)]
pub struct CostArgs {
    #[command(flatten)]
    targets: TargetArgs,
    /// Sessions of each target
    #[arg(long, value_name = "N", default_value_t = 200)]
    connections: usize,
    /// Payload sizes in bytes, one table each, with commas between
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values_t = [64, 1024])]
    payload: Vec<usize>,
    /// Messages under way on a session; 1 is ping-pong
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// Rounds that count, after one that does not
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of a round of one target
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    round_ms: u64,
}

/// A target with its sessions and what the rounds said of it.
struct Row {
    target: Target,
    load: Load,
    cpu_us: Vec<f64>,
    per_second: Vec<f64>,
    waited: Vec<f64>,
    round_trips: Histogram<u64>,
}

pub fn run(args: &CostArgs) -> Result<(), Failure> {
    let place = args.targets.place()?;
    let (scratch, backend) = (Scratch::new()?, Backend::start()?);
    let mut rows = Vec::new();
    for spec in args.targets.specs()? {
        let target = Target::start(&spec, backend.addr, &scratch, place)?;
        let mut load = Load::new(target.addr, 1)?;
        load.open(args.connections).map_err(|e| format!("{}: {e}", spec.name))?;
        rows.push(Row {
            target,
            load,
            cpu_us: vec![],
            per_second: vec![],
            waited: vec![],
            round_trips: Histogram::new(3)?,
        });
    }
    for payload in &args.payload {
        for row in &mut rows {
            row.load.set_payload(*payload);
            row.round(args)?;
            (row.cpu_us, row.per_second, row.waited) = (vec![], vec![], vec![]);
            row.round_trips.reset();
        }
        for round in 0..usize::from(args.rounds) {
            // Another one begins each time: nobody always comes after the same.
            for turn in 0..rows.len() {
                let index = (round + turn) % rows.len();
                rows[index].round(args)?;
            }
        }
        print(args, *payload, &rows);
    }
    Ok(())
}

impl Row {
    fn round(&mut self, args: &CostArgs) -> Result<(), Failure> {
        let told = |e: Failure| format!("{}: {e}", self.target.name);
        let before = cpu(self.target.pid()).map_err(told)?;
        let limit = Limit::After(Duration::from_millis(args.round_ms));
        let outcome = self.load.run(limit, usize::from(args.window)).map_err(told)?;
        let after = cpu(self.target.pid()).map_err(told)?;
        self.waited.push((after.waited - before.waited) as f64 / outcome.elapsed.as_nanos() as f64 * 100.0);
        self.cpu_us.push((after.ran - before.ran) as f64 / 1e3 / outcome.messages as f64);
        self.per_second.push(outcome.messages as f64 / outcome.elapsed.as_secs_f64());
        self.round_trips.add(&outcome.round_trips)?;
        Ok(())
    }

    /// Of each round, how many times the CPU of `base` this target took.
    fn ratios(&self, base: &Row) -> Vec<f64> {
        self.cpu_us.iter().zip(&base.cpu_us).map(|(own, base)| own / base).collect()
    }
}

fn print(args: &CostArgs, payload: usize, rows: &[Row]) {
    let Some(base) = rows.first() else { return };
    let CostArgs { connections, window, rounds, round_ms, .. } = args;
    println!("\npayload {payload} B, {connections} sessions, window {window}, {rounds} rounds of {round_ms} ms");
    let head = ["CPU us/msg", "ratio", "(min..max)", "msg/s", "p50 us", "p99 us", "waited"];
    let [cpu, ratio, range, per_second, p50, p99, waited] = head;
    println!("{:<12}{cpu:>11}{ratio:>9}{range:>16}{per_second:>10}{p50:>9}{p99:>9}{waited:>8}", "target");
    for row in rows {
        let ratios = row.ratios(base);
        let (low, high) = ratios.iter().fold((f64::MAX, 0f64), |(low, high), r| (low.min(*r), high.max(*r)));
        let trip = |quantile| row.round_trips.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "{:<12}{:>11.3}{:>9.3}{:>16}{:>10.0}{:>9.0}{:>9.0}{:>7.1}%",
            row.target.name,
            median(&row.cpu_us),
            median(&ratios),
            format!("({low:.3}..{high:.3})"),
            median(&row.per_second),
            trip(0.5),
            trip(0.99),
            median(&row.waited),
        );
    }
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
