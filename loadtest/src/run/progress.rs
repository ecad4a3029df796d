//! The progress of a run on standard error: a live line on a terminal, else a plain line now and
//! then. Also writes the intervals to the histogram log, if there is one.

use crate::Failure;
use crate::report::OutputArgs;
use crate::run::measure::{Histograms, Interval};
use crate::run::phases::{Observer, Phase, Progress};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two lines without a terminal.
const PLAIN: Duration = Duration::from_secs(5);

pub struct Live {
    bar: Option<ProgressBar>,
    printed_at: Instant,
    log: crate::report::IntervalLog,
}

impl Live {
    pub fn new(output: &OutputArgs) -> Result<Live, Failure> {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1000);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Ok(Live { bar, printed_at: Instant::now(), log: crate::report::IntervalLog::create(output)? })
    }

    /// Clears the line, and ends the log.
    pub fn finish(self) -> Result<(), Failure> {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        self.log.finish()
    }
}

impl Observer for Live {
    fn interval(&mut self, interval: &Interval, groups: &[(&str, Histograms)]) {
        self.log.interval(interval, groups);
    }

    fn tick(&mut self, progress: &Progress) {
        match &self.bar {
            Some(bar) => {
                let share = progress.elapsed.as_secs_f64() / progress.measure.as_secs_f64();
                bar.set_position((share * 1000.0) as u64);
                bar.set_message(line(progress));
            }
            None if self.printed_at.elapsed() >= PLAIN => {
                self.printed_at = Instant::now();
                eprintln!("{}", line(progress));
            }
            None => {}
        }
    }
}

fn line(progress: &Progress) -> String {
    let Progress { phase, connections, wanted, elapsed, measure, last, errors } = progress;
    let errors = if *errors > 0 { format!(", {errors} errors") } else { String::new() };
    match phase {
        Phase::Ramp => format!("opening {wanted} connections{errors}"),
        Phase::Settle => format!("{connections} connections open, settling{errors}"),
        Phase::Measure => {
            let rate = last.received as f64 / last.len.as_secs_f64().max(1e-9);
            let (p50, p99) = (last.p50_us as f64 / 1e3, last.p99_us as f64 / 1e3);
            let time = format!("{:.0} of {:.0} s", elapsed.as_secs_f64(), measure.as_secs_f64());
            format!("{time}, {connections} connections, {rate:.0} messages/s, p50 {p50:.2} ms, p99 {p99:.2} ms{errors}")
        }
        Phase::Cooldown => format!("waiting for the last replies{errors}"),
    }
}
