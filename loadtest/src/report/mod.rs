//! What a run came to, told to people and programs. Reads an `Outcome`; opens no socket.
use crate::Failure;
use crate::measure::{Histograms, Interval, Metric, Outcome};
use std::process::ExitCode;

#[derive(Debug, Clone, Default, clap::Args)]
pub struct OutputArgs {}
#[derive(Debug, Clone)]
pub struct Threshold;
impl std::str::FromStr for Threshold {
    type Err = String;
    fn from_str(_: &str) -> Result<Threshold, String> {
        Ok(Threshold)
    }
}
pub struct IntervalLog;
impl IntervalLog {
    pub fn create(_o: &OutputArgs) -> Result<IntervalLog, Failure> {
        Ok(IntervalLog)
    }
    pub fn interval(&mut self, _i: &Interval, _g: &[(&str, Histograms)]) {}
    pub fn finish(self) -> Result<(), Failure> {
        Ok(())
    }
}
pub fn tell(outcome: &Outcome, _o: &OutputArgs) -> Result<ExitCode, Failure> {
    for g in &outcome.groups {
        println!("{:?}", g.asked);
        for (name, s) in [("measured", &g.measured), ("whole", &g.whole)] {
            println!("{name}: {:?}", s.counts);
            for m in Metric::ALL {
                if let Some(h) = s.histograms.get(m) {
                    println!(
                        "  {:<14} n={} p50={} p90={} p99={} p99.9={} max={}",
                        m.name(),
                        h.len(),
                        h.value_at_quantile(0.5),
                        h.value_at_quantile(0.9),
                        h.value_at_quantile(0.99),
                        h.value_at_quantile(0.999),
                        h.max()
                    );
                }
            }
        }
    }
    println!("threads {:?} mem {:?} ramp {:?}", outcome.threads, outcome.memory_per_connection, outcome.ramp);
    Ok(ExitCode::SUCCESS)
}
