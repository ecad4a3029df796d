//! A proxy's own memory per idle session: the slope of what it alone has written over the number of
//! sessions, since allocators take memory in steps. Each session echoes one message before it
//! rests; a client of plain HTTP has its response.

use crate::Failure;
use crate::proc::private_dirty_kib;
use crate::proxy::idle;
use crate::proxy::rounds::Bench;
use crate::proxy::target::{Backend, Scratch, Target, TargetArgs};
use crate::run::options::{GroupSpec, ShapeSpec};
use crate::table::{self, Cells};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

/// For a proxy that gives memory back by a timer.
const SETTLE: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub struct IdleArgs {
    #[command(flatten)]
    targets: TargetArgs,
    /// Sessions in the end; twice as many descriptors are open in the proxy
    #[arg(long, value_name = "N", default_value_t = 8000)]
    connections: usize,
    /// Measurements on the way, evenly spaced
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..))]
    steps: u16,
    /// Clients of plain HTTP that keep their connection, instead of sessions
    #[arg(long)]
    plain: bool,
    /// Payload of the one message of each session, or of the one response
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    payload: usize,
    /// Append the table to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

pub fn run(args: &IdleArgs) -> Result<(), Failure> {
    let place = args.targets.place()?;
    let scratch = Scratch::new()?;
    let mut slopes = Vec::new();
    for spec in args.targets.specs()? {
        // A backend for each: its own port, and with it its own room for ephemeral ports.
        let echo = if args.plain { None } else { Some(Backend::start(vec!["serve".into(), "echo".into()])?) };
        let backend = echo.as_ref().map_or_else(|| idle::backend(args.payload), |echo| Ok(echo.addr))?;
        let target = Target::start(&spec, backend, &scratch, place)?;
        let points = measure(args, &target).map_err(|e| format!("{}: {e}", spec.name))?;
        slopes.push(Slope { name: spec.name.clone(), is_peer: target.is_peer, points });
    }
    let what = if args.plain { "idle clients of plain HTTP" } else { "idle sessions" };
    let title = format!("Private dirty memory of {} {what}, in {} steps", args.connections, args.steps);
    table::print(&title, &cells(&slopes), args.markdown.as_deref())
}

struct Slope {
    name: String,
    is_peer: bool,
    /// Sessions and KiB.
    points: Vec<(f64, f64)>,
}

fn cells(slopes: &[Slope]) -> Cells {
    let bytes = |slope: &Slope| line(&slope.points).0 * 1024.0;
    let peers = slopes.iter().filter(|slope| slope.is_peer);
    let best = peers.min_by(|a, b| bytes(a).total_cmp(&bytes(b)));
    let mut heads = vec!["target".into(), "bytes/session".into()];
    heads.extend(best.map(|best| format!("to {}", best.name)));
    heads.extend(["r2", "KiB at each step"].map(String::from));
    let row = |slope: &Slope| {
        let steps: Vec<String> = slope.points.iter().map(|(_, kib)| format!("{kib:.0}")).collect();
        let mut cells = vec![slope.name.clone(), format!("{:.0}", bytes(slope))];
        cells.extend(best.map(|best| format!("{:.3}", bytes(slope) / bytes(best))));
        cells.extend([format!("{:.4}", line(&slope.points).1), steps.join(" ")]);
        cells
    };
    Cells { rows: slopes.iter().map(row).collect(), heads }
}

fn measure(args: &IdleArgs, target: &Target) -> Result<Vec<(f64, f64)>, Failure> {
    let pid = target.pid().ok_or("a proxy is needed: the direct way has no process")?;
    if args.plain && target.tls {
        return Err("clients of plain HTTP do not speak TLS".into());
    }
    let (mut benches, mut clients, mut points, mut open) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for step in 1..=usize::from(args.steps) {
        let sessions = args.connections * step / usize::from(args.steps);
        if args.plain {
            clients.extend(idle::clients(target.addr, sessions - open)?);
        } else {
            benches.push(sessions_of(args, target, sessions - open)?);
        }
        open = sessions;
        sleep(SETTLE);
        points.push((sessions as f64, private_dirty_kib(pid)? as f64));
    }
    Ok(points)
}

fn sessions_of(args: &IdleArgs, target: &Target, count: usize) -> Result<Bench, Failure> {
    let (size, connections) = (Some(args.payload.to_string()), Some(count));
    // One message on each as soon as it is open, as a storm does.
    let spec = GroupSpec { shape: Some(ShapeSpec::Storm), size, connections, ..GroupSpec::default() };
    let mut bench = Bench::new(target.addr, &[spec], (target.tls, true))?;
    bench.open()?;
    Ok(bench)
}

/// Least squares: the slope, and how much of the variance the line explains.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (mean_x, mean_y) = (mean(|p| p.0), mean(|p| p.1));
    let sum = |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|(x, y)| of(x - mean_x, y - mean_y)).sum::<f64>();
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    // A flat line explains all there is.
    (xy / xx, if yy == 0.0 { 1.0 } else { xy * xy / (xx * yy) })
}

#[cfg(test)]
mod tests {
    use super::{Slope, cells, line};

    #[test]
    fn ratios_refer_to_the_peer_that_needs_least() {
        let slope =
            |name: &str, is_peer, kib| Slope { name: name.into(), is_peer, points: vec![(0.0, 0.0), (8.0, kib)] };
        let cells = cells(&[slope("ours", false, 4.0), slope("a", true, 16.0), slope("b", true, 8.0)]);
        assert_eq!(cells.heads, ["target", "bytes/session", "to b", "r2", "KiB at each step"]);
        assert_eq!(cells.rows[0], ["ours", "512", "0.500", "1.0000", "0 4"]);
        assert_eq!(cells.rows[1][2], "2.000");
    }

    #[test]
    fn a_line_is_found_through_its_points() {
        assert_eq!(line(&[(1.0, 5.0), (2.0, 7.0), (3.0, 9.0)]), (2.0, 1.0));
        assert_eq!(line(&[(1.0, 5.0), (2.0, 5.0)]), (0.0, 1.0));
        let (slope, fit) = line(&[(0.0, 0.0), (1.0, 2.0), (2.0, 0.0), (3.0, 2.0)]);
        assert!((slope - 0.4).abs() < 1e-9 && (fit - 0.2).abs() < 1e-9);
    }
}
