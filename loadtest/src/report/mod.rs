//! The report of a run, for people and programs. Reads an `Outcome`; opens no socket, measures
//! nothing.
//!
//! Reading order: `text` (the terminal), `verdict` (whether the figures are reliable), `threshold`
//! (what fails a run), then the files: `json`, `csv`, `junit`, `hlog`, `plot`, `html`; `number`
//! writes figures for all of them.

mod csv;
mod hlog;
mod html;
mod json;
mod junit;
mod number;
mod plot;
mod text;
mod threshold;
mod verdict;

pub use plot::{PlotArgs, percentile_plot, run as plot};
pub use threshold::Threshold;

use crate::Failure;
use crate::run::measure::{Histograms, Interval, Metric, Outcome};
use hdrhistogram::Histogram;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;
use verdict::Level;

/// Where the report goes, and what fails the run.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct OutputArgs {
    /// Write all reports into this directory: report.txt, .json and .html, percentiles.csv and
    /// .svg, run.hlog, junit.xml
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the JSON alone; - for standard output
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    json: Option<PathBuf>,
    /// Write the JUnit file alone; - for standard output
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    junit: Option<PathBuf>,
    /// Fail (exit code 4) if this is true: 'p99>10ms', 'errors>0', 'rate<1000'; may be
    /// repeated
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Threshold>,
}

/// The measured intervals, written as they end.
pub struct IntervalLog {
    path: Option<PathBuf>,
    writer: Option<hlog::Writer>,
    failed: Option<std::io::Error>,
}

/// Exit codes beside 0, 1 (it could not be done) and 2 (what was typed is wrong).
const WRONG_CONTENT: u8 = 3;
const CROSSED: u8 = 4;

/// Writes the report in all requested forms.
pub fn tell(outcome: &Outcome, args: &OutputArgs) -> Result<ExitCode, Failure> {
    let findings = verdict::judge(outcome);
    let mut page = text::text(outcome, &findings);
    for threshold in &args.fail_if {
        let word = if threshold.is_true(outcome) { "FAILED " } else { "ok     " };
        page += &format!("{word}  not {threshold}: {}\n", threshold.seen(outcome));
    }
    let json = json::json(outcome, &args.fail_if, &findings)?;
    let junit = junit::junit(outcome, &args.fail_if, &findings)?;
    // A program that asked for standard output wants nothing else there.
    let is_stdout = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
    if !is_stdout(&args.json) && !is_stdout(&args.junit) {
        print!("{page}");
    }
    for (path, content) in [(&args.json, &json), (&args.junit, &junit)] {
        match path {
            Some(path) if path.as_os_str() == "-" => println!("{content}"),
            Some(path) => write(path, content)?,
            None => {}
        }
    }
    if let Some(folder) = &args.out {
        files(outcome, folder, [("report.txt", &page), ("report.json", &json), ("junit.xml", &junit)])?;
    }
    Ok(exit(outcome, &findings, &args.fail_if))
}

fn files(outcome: &Outcome, folder: &Path, texts: [(&str, &String); 3]) -> Result<(), Failure> {
    for (name, content) in texts {
        write(&folder.join(name), content)?;
    }
    write(&folder.join("percentiles.csv"), &csv::csv(outcome))?;
    let curves = curves(outcome);
    let borrowed: Vec<(String, &Histogram<u64>)> = curves.iter().map(|(name, curve)| (name.clone(), *curve)).collect();
    let mut plots = Vec::new();
    if !borrowed.is_empty() {
        let drawn = plot::percentile_plot(&borrowed, "latency by percentile")?;
        write(&folder.join("percentiles.svg"), &drawn)?;
        plots.push(drawn);
    }
    if outcome.intervals.iter().any(|interval| interval.max_us > 0) {
        plots.push(plot::timeline(&outcome.intervals)?);
    }
    let [(_, page), ..] = texts;
    write(&folder.join("report.html"), &html::page(&outcome.url, &plots, page))
}

/// The curves to plot: message latencies, corrected and uncorrected; without them the time to open.
fn curves(outcome: &Outcome) -> Vec<(String, &Histogram<u64>)> {
    let several = outcome.groups.len() > 1;
    let of = |wanted: &'static [Metric]| {
        outcome.groups.iter().flat_map(move |group| {
            let named = move |(metric, curve): (Metric, _)| match several {
                true => (format!("{}: {}", group.requested.name, metric.name()), curve),
                false => (metric.name().to_owned(), curve),
            };
            text::rows(group).filter(|(metric, _)| wanted.contains(metric)).map(named)
        })
    };
    let messages: Vec<_> = of(&[Metric::RoundTrip, Metric::Uncorrected, Metric::OneWay]).collect();
    match messages.is_empty() {
        true => of(&[Metric::Connect, Metric::Handshake, Metric::Ping]).collect(),
        false => messages,
    }
}

fn write(path: &Path, content: &str) -> Result<(), Failure> {
    std::fs::write(path, content).map_err(|e| format!("cannot write {}: {e}", path.display()).into())
}

fn exit(outcome: &Outcome, findings: &[verdict::Finding], fail_if: &[Threshold]) -> ExitCode {
    let counts = outcome.whole_total().counts;
    if counts.seen().any(|(fault, ..)| fault.is_of_content()) {
        return ExitCode::from(WRONG_CONTENT);
    }
    if fail_if.iter().any(|threshold| threshold.is_true(outcome)) {
        return ExitCode::from(CROSSED);
    }
    match findings.iter().any(|finding| finding.level == Level::Failed) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

impl IntervalLog {
    /// With a folder to write to; an error now is better than one after the run.
    pub fn create(args: &OutputArgs) -> Result<IntervalLog, Failure> {
        let Some(folder) = &args.out else { return Ok(IntervalLog { path: None, writer: None, failed: None }) };
        std::fs::create_dir_all(folder).map_err(|e| format!("cannot make the folder {}: {e}", folder.display()))?;
        let path = folder.join("run.hlog");
        let writer = hlog::Writer::create(&path, SystemTime::now());
        let writer = writer.map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        Ok(IntervalLog { path: Some(path), writer: Some(writer), failed: None })
    }

    pub fn interval(&mut self, interval: &Interval, groups: &[(&str, Histograms)]) {
        let Some(writer) = &mut self.writer else { return };
        for (name, histograms) in groups {
            for metric in Metric::ALL {
                let Some(histogram) = histograms.get(metric) else { continue };
                let tag = if groups.len() > 1 { format!("{name}/{}", metric.name()) } else { metric.name().to_owned() };
                if let Err(error) = writer.interval(&tag, (interval.at, interval.len), histogram) {
                    self.failed.get_or_insert(error);
                }
            }
        }
    }

    pub fn finish(self) -> Result<(), Failure> {
        let (Some(path), Some(writer)) = (self.path, self.writer) else { return Ok(()) };
        let done = self.failed.map_or_else(|| writer.finish(), Err);
        done.map_err(|e| format!("cannot write {}: {e}", path.display()).into())
    }
}

#[cfg(test)]
mod tests {
    use crate::run::measure::{GroupOutcome, Interval, Metric, Outcome, Requested, ThreadUse};
    use std::time::Duration;

    /// A clean run: 2000 round trips, evenly between 1 us and 2 ms, in 2 s.
    pub fn outcome() -> Outcome {
        let requested = Requested {
            name: "echo".into(),
            shape: "echo",
            connections: 10,
            rate: Some(1000.0),
            window: None,
            size: "64 B".into(),
        };
        let mut group = GroupOutcome { requested, ..GroupOutcome::default() };
        for us in 1..=2000 {
            group.measured.histograms.record(Metric::RoundTrip, Duration::from_micros(us));
        }
        let counts = &mut group.measured.counts;
        (counts.sent, counts.received, counts.received_bytes) = (2000, 2000, 128_000);
        group.whole.counts.opened = 10;
        let used = ThreadUse {
            wall: Duration::from_secs(2),
            ran: Duration::from_millis(200),
            waited: Duration::from_millis(10),
        };
        let interval = |n| Interval {
            at: Duration::from_secs(n),
            len: Duration::from_secs(1),
            max_us: 2000,
            ..Interval::default()
        };
        Outcome {
            url: "ws://127.0.0.1:1/".into(),
            measured: Duration::from_secs(2),
            groups: vec![group],
            threads: vec![used],
            intervals: vec![interval(0), interval(1)],
            ..Outcome::default()
        }
    }
}
