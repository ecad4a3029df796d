//! The commands that generate load: one for each shape, and `run` for a scenario file. Makes a plan
//! of what was typed, runs it, and hands the outcome to the report.

use crate::failure::Usage;
use crate::net::opening::{self, OpeningArgs};
use crate::report::OutputArgs;
use crate::run::limits;
use crate::run::options::{self, GroupSpec, ShapeSpec};
use crate::run::phases;
use crate::run::plan::{Plan, Target, Windows};
use crate::run::progress;
use crate::{Failure, proc};
use serde::Deserialize;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Of one shape.
#[derive(Debug, Clone, clap::Args)]
pub struct ShapeArgs {
    /// Server to measure: ws://HOST, ws://HOST:PORT/PATH or wss://...
    #[arg(value_name = "URL")]
    pub url: String,
    #[command(flatten)]
    pub group: GroupSpec,
    #[command(flatten)]
    pub how: HowArgs,
    #[command(flatten)]
    pub opening: OpeningArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Find the highest rate at which this condition holds, such as 'p99<5ms'
    #[arg(long, value_name = "CONDITION", conflicts_with_all = ["closed"])]
    pub find: Option<crate::report::Threshold>,
}

/// Of a scenario.
#[derive(Debug, Clone, clap::Args)]
pub struct ScenarioArgs {
    /// Groups of connections and what they do; `framegate-loadtest example-scenario` prints one
    #[arg(long, value_name = "FILE")]
    pub scenario: PathBuf,
    /// Server to measure, if the file names none or another
    #[arg(value_name = "URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub how: HowArgs,
    #[command(flatten)]
    pub opening: OpeningArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// For how long, and from where.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct HowArgs {
    /// Measured time [default: 10s]
    #[arg(short, long, value_name = "TIME", value_parser = options::time)]
    pub duration: Option<Duration>,
    /// Open the connections within this time; measuring begins when all are open [default: 0s, as
    /// fast as they go]
    #[arg(long, value_name = "TIME", value_parser = options::time)]
    pub ramp: Option<Duration>,
    /// Traffic before measuring [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = options::time)]
    pub settle: Option<Duration>,
    /// Longest wait for the last replies [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = options::time)]
    pub cooldown: Option<Duration>,
    /// Threads [default: half of the processors]
    #[arg(short, long, value_name = "N")]
    pub threads: Option<usize>,
    /// Processors of the threads, such as 1 or 2,3
    #[arg(long, value_name = "CPUS", value_delimiter = ',')]
    pub pin: Vec<usize>,
    /// Local addresses: 127.0.0.2-127.0.0.9, 10.0.0.0/29, or several, comma-separated
    #[arg(long, value_name = "ADDRS", hide_short_help = true)]
    pub source: Option<String>,
    /// Seed of all random choices
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub seed: Option<u64>,
}

/// A scenario file as typed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Scenario {
    url: Option<String>,
    duration: Option<String>,
    ramp: Option<String>,
    settle: Option<String>,
    cooldown: Option<String>,
    threads: Option<usize>,
    pin: Vec<usize>,
    source: Option<String>,
    seed: Option<u64>,
    #[serde(rename = "group")]
    groups: Vec<GroupSpec>,
}

pub fn shape(shape: ShapeSpec, args: &ShapeArgs) -> Result<ExitCode, Failure> {
    let plan = args.plan(shape)?;
    match &args.find {
        Some(condition) => crate::run::rate_search::find(&plan, condition, &args.output),
        None => measure(&plan, &args.output),
    }
}

pub fn scenario(args: &ScenarioArgs) -> Result<ExitCode, Failure> {
    measure(&args.plan()?, &args.output)
}

impl ShapeArgs {
    pub fn plan(&self, shape: ShapeSpec) -> Result<Plan, Usage> {
        let spec = GroupSpec { shape: Some(shape), ..self.group.clone() };
        let scenario = Scenario { url: Some(self.url.clone()), groups: vec![spec], ..Scenario::default() };
        scenario.plan(&self.how, &self.opening)
    }
}

impl ScenarioArgs {
    pub fn plan(&self) -> Result<Plan, Usage> {
        let mut scenario = Scenario::read(&self.scenario)?;
        scenario.url = self.url.clone().or(scenario.url);
        let in_file = |e: Usage| Usage(format!("{}: {}", self.scenario.display(), e.0));
        scenario.plan(&self.how, &self.opening).map_err(in_file)
    }
}

impl Scenario {
    fn read(path: &Path) -> Result<Scenario, Usage> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Ok(Scenario::parse(&text).map_err(|error| format!("{}:{error}", path.display()))?)
    }

    /// Errors begin with line and column.
    fn parse(text: &str) -> Result<Scenario, String> {
        let scenario: Scenario = toml::from_str(text).map_err(|error| {
            let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
            let (line, column) = (before.matches('\n').count() + 1, before.rsplit('\n').next().map_or(0, str::len) + 1);
            format!("{line}:{column}: {}", error.message().replace('\n', " "))
        })?;
        if scenario.groups.is_empty() {
            return Err("1:1: no [[group]]: a scenario needs at least one".into());
        }
        Ok(scenario)
    }

    fn plan(&self, how: &HowArgs, opening: &OpeningArgs) -> Result<Plan, Usage> {
        let mut targets: HashMap<&str, Arc<Target>> = HashMap::new();
        let mut groups = Vec::new();
        for (index, spec) in self.groups.iter().enumerate() {
            let url = spec
                .url
                .as_deref()
                .or(self.url.as_deref())
                .ok_or("no URL: give one on the command line or in the file".to_owned())?;
            let target = match targets.get(url) {
                Some(target) => target.clone(),
                None => Arc::new(opening::target(url, opening)?),
            };
            targets.insert(url, target.clone());
            let in_group =
                |error: String| if self.groups.len() > 1 { format!("group {}: {error}", index + 1) } else { error };
            groups.push(spec.build(target).map_err(in_group)?);
        }
        let mut names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("duplicate group name {:?}", twice[0]).into());
        }
        let sources =
            how.source.as_ref().or(self.source.as_ref()).map(|text| limits::parse_sources(text)).transpose()?;
        let sources: Vec<IpAddr> = sources.unwrap_or_default();
        let (pins, cpus) = (if how.pin.is_empty() { self.pin.clone() } else { how.pin.clone() }, processors());
        if let Some(wrong) = pins.iter().find(|pin| !cpus.contains(pin)) {
            return Err(format!("CPU {wrong} is not among those this process may use ({cpus:?})").into());
        }
        let connections: usize = groups.iter().map(|group| group.connections).sum();
        let threads = how.threads.or(self.threads).unwrap_or_else(|| cpus.len().div_ceil(2).max(pins.len()));
        if threads == 0 || threads > 1024 {
            return Err(format!("threads = {threads}: expected a number from 1 to 1024").into());
        }
        let window = |flag: Option<Duration>, key: &str, text: &Option<String>, default: u64| match (flag, text) {
            (Some(time), _) => Ok(time),
            (None, Some(text)) => options::duration(key, text),
            (None, None) => Ok(Duration::from_secs(default)),
        };
        let windows = Windows {
            ramp: window(how.ramp, "ramp", &self.ramp, 0)?,
            settle: window(how.settle, "settle", &self.settle, 1)?,
            measure: window(how.duration, "duration", &self.duration, 10)?,
            cooldown: window(how.cooldown, "cooldown", &self.cooldown, 5)?,
        };
        if windows.measure.is_zero() {
            return Err("duration = 0s: must be longer".to_owned().into());
        }
        let url = self.url.clone().unwrap_or_else(|| "several URLs".into());
        let threads = threads.min(connections);
        let seed = how.seed.or(self.seed).unwrap_or(1);
        Ok(Plan { url, groups, windows, threads, pins, sources, seed })
    }
}

/// Runs a plan with its live line, and tells the outcome.
fn measure(plan: &Plan, output: &OutputArgs) -> Result<ExitCode, Failure> {
    phases::prepare(plan)?;
    let mut observer = progress::Live::new(output)?;
    let outcome = phases::run(plan, Duration::from_secs(1), &mut observer)?;
    observer.finish()?;
    crate::report::tell(&outcome, output)
}

fn processors() -> Vec<usize> {
    proc::cpus().unwrap_or_else(|_| vec![0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_scenario_name_line_column_and_key() {
        let cases = [
            ("", "1:1: no [[group]]"),
            ("[[group]]\nshape = \"echo\"\nconections = 5\n", "3:1: unknown field `conections`"),
            ("[[group]]\nconnections = \"many\"\n", "2:15: invalid type"),
            ("[[group]]\nshape = \"echoes\"\n", "2:9: unknown variant"),
            ("[[group]\n", "1:"),
        ];
        for (text, expected) in cases {
            let error = Scenario::parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_example_is_a_scenario() {
        let scenario = Scenario::parse(crate::EXAMPLE_SCENARIO).unwrap();
        let plan = scenario.plan(&HowArgs::default(), &OpeningArgs::default()).unwrap();
        assert!(plan.groups.len() >= 4);
    }
}
