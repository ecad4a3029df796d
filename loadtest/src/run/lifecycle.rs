//! A lifecycle test: runs load and, beside it, a command (a reload, a stop, a deploy), and
//! reports what became of the sessions: how many were lost, with which close codes, over how long a
//! time, how soon they were back.

use crate::Failure;
use crate::failure::Usage;
use crate::net::opening::OpeningArgs;
use crate::percentile;
use crate::report::{self, OutputArgs};
use crate::run::command::HowArgs;
use crate::run::measure::{Histograms, Interval, Metric, Outcome};
use crate::run::options::{self, GroupSpec, ShapeSpec};
use crate::run::phases::{self, Observer, Phase, Progress};
use crate::run::plan::{Plan, Reconnect};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// Resolution of the closes over time.
const GRAIN: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, clap::Args)]
pub struct DuringArgs {
    /// Shell command to run meanwhile: 'kill -HUP PID', './deploy.sh'
    #[arg(value_name = "COMMAND")]
    command: String,
    /// Server to measure: ws://HOST, ws://HOST:PORT/PATH or wss://...
    #[arg(value_name = "URL")]
    url: String,
    /// When to run it, from the start of the measured time [default: a quarter of it]
    #[arg(long, value_name = "TIME", value_parser = options::time)]
    at: Option<Duration>,
    #[command(flatten)]
    group: GroupSpec,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    opening: OpeningArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &DuringArgs) -> Result<ExitCode, Failure> {
    let plan = args.plan()?;
    phases::prepare(&plan)?;
    let at = args.at.unwrap_or(plan.windows.measure / 4);
    if at >= plan.windows.measure {
        return Err(Usage(format!("--at {at:?} lies behind the measured {:?}", plan.windows.measure)).into());
    }
    let mut observer = Lifecycle { command: args.command.clone(), at, child: None, failure: None, series: Vec::new() };
    let outcome = phases::run(&plan, GRAIN, &mut observer)?;
    let exit = observer.exit()?;
    print!("{}", story(&args.command, &exit, at, &observer.series, &outcome));
    report::tell(&outcome, &args.output)
}

impl DuringArgs {
    fn plan(&self) -> Result<Plan, Usage> {
        let shape = crate::run::command::ShapeArgs {
            url: self.url.clone(),
            group: self.group.clone(),
            how: self.how.clone(),
            opening: self.opening.clone(),
            output: self.output.clone(),
            find: None,
        };
        let mut plan = shape.plan(ShapeSpec::Echo)?;
        for group in &mut plan.groups {
            // Who loses a session opens another, as users do, and tries a message at once.
            let prompt = Reconnect { jitter: Duration::ZERO, backoff: Duration::from_millis(100) };
            group.reconnect.get_or_insert(prompt);
            group.sends_on_open = true;
        }
        Ok(plan)
    }
}

struct Lifecycle {
    command: String,
    at: Duration,
    child: Option<Child>,
    failure: Option<String>,
    /// When, and how many connections ended and opened in the time before.
    series: Vec<Interval>,
}

impl Observer for Lifecycle {
    fn interval(&mut self, interval: &Interval, _groups: &[(&str, Histograms)]) {
        self.series.push(*interval);
    }

    fn tick(&mut self, progress: &Progress) {
        let is_due = progress.phase == Phase::Measure && progress.elapsed >= self.at;
        if is_due && self.child.is_none() && self.failure.is_none() {
            let command = Command::new("sh").arg("-c").arg(&self.command).stdin(Stdio::null()).spawn();
            match command {
                Ok(child) => self.child = Some(child),
                Err(error) => self.failure = Some(error.to_string()),
            }
        }
    }
}

impl Lifecycle {
    /// How the command ended.
    fn exit(&mut self) -> Result<String, Failure> {
        if let Some(failure) = &self.failure {
            return Err(format!("cannot run {:?}: {failure}", self.command).into());
        }
        let Some(child) = &mut self.child else {
            return Err(format!("the run ended before {:?} was due", self.command).into());
        };
        let status = child.wait()?;
        if !status.success() {
            return Err(format!("{:?} failed: {status}", self.command).into());
        }
        Ok(status.to_string())
    }
}

fn story(command: &str, exit: &str, at: Duration, series: &[Interval], outcome: &Outcome) -> String {
    let counts = outcome.whole_total().counts;
    let after: Vec<(Duration, u64)> = series
        .iter()
        .filter(|interval| interval.at + interval.len > at && interval.ended > 0)
        .map(|interval| ((interval.at + interval.len).saturating_sub(at), interval.ended))
        .collect();
    let lost: u64 = after.iter().map(|(_, ended)| ended).sum();
    let mut out = format!("during {command:?} ({exit}), {:.2} s into the measured time:\n", at.as_secs_f64());
    out += &format!("  sessions lost       {lost}\n");
    if let (Some((first, _)), Some((last, _))) = (after.first(), after.last()) {
        let reached = |share: f64| {
            let mut sum = 0;
            let reached = after.iter().find(|(_, ended)| {
                sum += ended;
                sum as f64 >= share * lost as f64
            });
            reached.map_or(0.0, |(at, _)| at.as_secs_f64())
        };
        out += &format!(
            "  closes over time    first {:.2} s, half {:.2} s, 90 % {:.2} s, last {:.2} s after the command\n",
            first.as_secs_f64(),
            reached(0.5),
            reached(0.9),
            last.as_secs_f64()
        );
        let most = after.iter().map(|(_, ended)| *ended).max().unwrap_or_default();
        out += &format!("  most at once        {most} in {} ms\n", GRAIN.as_millis());
    }
    // Replies to our own Closes at the end have 1000; other codes came from the server.
    let codes: Vec<String> = counts.close_codes.iter().map(|(code, count)| format!("{count} x {code}")).collect();
    out += &format!(
        "  close codes         {} (1006: no Close frame; our own farewells count as 1000)\n",
        codes.join(", ")
    );
    if let Some(back) = outcome.whole_total().histograms.get(Metric::Reconnect) {
        let ms = |quantile| percentile::value(back, quantile) as f64 / 1e3;
        let (p50, p99, max) = (ms(0.5), ms(0.99), back.max() as f64 / 1e3);
        out += &format!(
            "  back with a message {} sessions: p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms\n",
            back.len()
        );
    }
    out.push('\n');
    out
}
