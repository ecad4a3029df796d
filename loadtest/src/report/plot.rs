//! Plots: latency over percentiles on the scale of HDR histograms (each nine as wide as the one
//! before), and latency over time. And the command that lays the logs of several runs over each
//! other.

use super::{hlog, html, number};
use crate::Failure;
use crate::failure::Usage;
use crate::percentile;
use crate::run::measure::Interval;
use hdrhistogram::Histogram;
use plotters::prelude::*;
use std::path::PathBuf;

const SIZE: (u32, u32) = (960, 480);
/// Told apart by who sees colours differently (Okabe and Ito), dark enough on white.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(60, 60, 60),
];

#[derive(Debug, Clone, clap::Args)]
pub struct PlotArgs {
    /// Logs of runs (run.hlog)
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// What to plot: round-trip, one-way, handshake, ... or GROUP/METRIC
    #[arg(long, value_name = "METRIC", default_value = "round-trip")]
    metric: String,
    /// Output file: .svg or .html
    #[arg(short, long, value_name = "FILE", default_value = "plot.html")]
    out: PathBuf,
    /// Title of the plot
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
}

pub fn run(args: &PlotArgs) -> Result<(), Failure> {
    let mut curves = Vec::new();
    for file in &args.files {
        let mut all = hlog::read(file).map_err(Usage)?;
        let name = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        // Logs of runs are often all called run.hlog: then the folder tells them apart.
        let folder = file.parent().and_then(|folder| folder.file_name()).map(|name| name.to_string_lossy());
        let label = match folder {
            Some(folder) if name == "run" => folder.into_owned(),
            _ => name,
        };
        let found: Vec<String> = all.keys().cloned().collect();
        let histogram = all
            .remove(&args.metric)
            .ok_or_else(|| Usage(format!("{} has no {}: it has {}", file.display(), args.metric, found.join(", "))))?;
        curves.push((label, histogram));
    }
    let borrowed: Vec<(String, &Histogram<u64>)> = curves.iter().map(|(label, curve)| (label.clone(), curve)).collect();
    let title = args.title.clone().unwrap_or_else(|| args.metric.clone());
    let drawn = percentile_plot(&borrowed, &title)?;
    let is_svg = args.out.extension().is_some_and(|extension| extension == "svg");
    let table = compare(&borrowed);
    std::fs::write(&args.out, if is_svg { drawn } else { html::page(&title, &[drawn], &table) })
        .map_err(|e| format!("cannot write {}: {e}", args.out.display()))?;
    print!("{table}");
    println!("written to {}", args.out.display());
    Ok(())
}

fn compare(curves: &[(String, &Histogram<u64>)]) -> String {
    let mut out = format!("{:<20}", "");
    percentile::PERCENTILES.iter().for_each(|(name, _)| out += &format!("{name:>10}"));
    out += &format!("{:>10}\n", "max");
    for (label, histogram) in curves {
        out += &format!("{label:<20}");
        for (_, quantile) in percentile::PERCENTILES {
            let value = percentile::supported(histogram, quantile);
            out += &format!("{:>10}", value.map_or_else(|| "-".into(), |value| number::time(value as f64)));
        }
        out += &format!("{:>10}\n", number::time(histogram.max() as f64));
    }
    out
}

/// Latency over percentiles, one curve each, as an SVG document.
pub fn percentile_plot(curves: &[(String, &Histogram<u64>)], title: &str) -> Result<String, Failure> {
    // The place of a quantile is the number of its nines.
    let nines = |quantile: f64| (1.0 / (1.0 - quantile).max(1e-9)).log10();
    let most = curves.iter().map(|(_, curve)| curve.len() as f64).fold(10.0, f64::max).log10().ceil().min(7.0);
    let top = curves.iter().map(|(_, curve)| curve.max()).max().unwrap_or(1).max(1) as f64 / 1e3;
    let mut out = String::new();
    {
        let root = SVGBackend::with_string(&mut out, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 22))
            .margin(16)
            .margin_right(36)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..most, 0.0..top * 1.05)?;
        let label = |nines: &f64| {
            let decimals = (*nines as usize).saturating_sub(2);
            format!("{:.decimals$} %", (1.0 - 10f64.powf(-nines)) * 100.0)
        };
        chart
            .configure_mesh()
            .x_labels(most as usize + 1)
            .x_label_formatter(&label)
            .x_desc("percentile")
            .y_desc("ms")
            .light_line_style(RGBColor(235, 235, 235))
            .draw()?;
        for (index, (name, curve)) in curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let steps = curve
                .iter_quantiles(20)
                .map(|step| (nines(step.quantile_iterated_to()).min(most), step.value_iterated_to() as f64 / 1e3));
            chart
                .draw_series(LineSeries::new(steps, colour.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        let legend = SeriesLabelPosition::UpperLeft;
        chart
            .configure_series_labels()
            .position(legend)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .draw()?;
        root.present()?;
    }
    Ok(out)
}

/// Latency over time: median, p99 and maximum of each interval, as an SVG document.
pub fn timeline(intervals: &[Interval]) -> Result<String, Failure> {
    let end = intervals.iter().map(|interval| (interval.at + interval.len).as_secs_f64()).fold(1.0, f64::max);
    let top = intervals.iter().map(|interval| interval.max_us).max().unwrap_or(1).max(1) as f64 / 1e3;
    let mut out = String::new();
    {
        let root = SVGBackend::with_string(&mut out, (SIZE.0, SIZE.1 * 2 / 3)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("latency over time", ("sans-serif", 22))
            .margin(16)
            .margin_right(36)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..end, 0.0..top * 1.05)?;
        chart.configure_mesh().x_desc("s").y_desc("ms").light_line_style(RGBColor(235, 235, 235)).draw()?;
        let values = |interval: &Interval| [interval.max_us, interval.p99_us, interval.p50_us];
        let series = ["max", "p99", "p50"].into_iter().zip([COLOURS[1], COLOURS[5], COLOURS[0]]);
        for (index, (name, colour)) in series.enumerate() {
            let middle = |interval: &Interval| (interval.at + interval.len / 2).as_secs_f64();
            let points = intervals.iter().map(|interval| (middle(interval), values(interval)[index] as f64 / 1e3));
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .draw()?;
        root.present()?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    #[test]
    fn a_plot_has_its_axes_and_its_curves() {
        let outcome = outcome();
        let histogram = outcome.groups[0].measured.histograms.get(crate::run::measure::Metric::RoundTrip).unwrap();
        let svg = percentile_plot(&[("first".into(), histogram), ("second".into(), histogram)], "a <title>").unwrap();
        for expected in ["<svg", "90 %", "99.9 %", "first", "second", "percentile", "a &lt;title&gt;"] {
            assert!(svg.contains(expected), "{expected}");
        }
        assert!(timeline(&outcome.intervals).unwrap().contains("latency over time"));
    }
}
