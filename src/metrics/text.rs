//! The Prometheus exposition format 0.0.4: a table of metrics, each with a function that writes its
//! samples.

use std::fmt::{self, Write};

/// The `Content-Type` of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One row of the table; `R` is what the samples are read from.
pub(super) struct Metric<R: 'static> {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
    pub samples: fn(&R, &mut Samples<'_>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// All metrics in order; one without samples is left out.
pub(super) fn write<R>(metrics: &'static [Metric<R>], reading: &R) -> String {
    let mut text = String::with_capacity(16 * 1024);
    for metric in metrics {
        let (name, help, kind) = (metric.name, metric.help, metric.kind.name());
        let start = text.len();
        line(&mut text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
        let empty = text.len();
        (metric.samples)(reading, &mut Samples { text: &mut text, name, labels: metric.labels });
        if text.len() == empty {
            text.truncate(start);
        }
    }
    text
}

/// Writes the samples of one metric.
pub(super) struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
    labels: &'static [&'static str],
}

impl Samples<'_> {
    /// One sample; `values` are those of the metric's labels, in their order.
    pub fn put(&mut self, values: &[&dyn fmt::Display], number: impl fmt::Display) {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        self.text.push_str(self.name);
        let mut before = '{';
        for (label, value) in self.labels.iter().zip(values) {
            // Writing to a `String` cannot fail.
            let _ = write!(self.text, "{before}{label}=\"");
            let _ = write!(LabelValue(self.text), "{value}");
            self.text.push('"');
            before = ',';
        }
        let end = if self.labels.is_empty() { "" } else { "}" };
        line(self.text, format_args!("{end} {number}"));
    }

    /// A sample of an upstream for each of `states`, for metrics with these two labels.
    pub fn put_states(&mut self, upstream: &str, states: &[&str], numbers: &[u64]) {
        states.iter().zip(numbers).for_each(|(state, number)| self.put(&[&upstream, state], number));
    }

    /// A sample for each worker, for metrics with the one label `worker`.
    pub fn put_each<T: fmt::Display>(&mut self, numbers: impl Iterator<Item = T>) {
        numbers.enumerate().for_each(|(worker, number)| self.put(&[&worker], number));
    }

    /// A histogram in seconds. `counts` has one element more than `bounds_us`: the observations
    /// above all bounds.
    pub fn put_histogram(&mut self, bounds_us: &[u64], counts: &[u64], sum_us: u64) {
        self.put_buckets("", bounds_us, counts, sum_us);
    }

    /// The same of one section, for histograms with the one label `auth`. Names of sections need no
    /// escapes.
    pub fn put_auth_histogram(&mut self, auth: &str, bounds_us: &[u64], counts: &[u64], sum_us: u64) {
        self.put_buckets(&format!("auth=\"{auth}\""), bounds_us, counts, sum_us);
    }

    /// The same of one side, for histograms with the one label `side`.
    pub fn put_side_histogram(&mut self, side: &str, bounds_us: &[u64], counts: &[u64], sum_us: u64) {
        self.put_buckets(&format!("side=\"{side}\""), bounds_us, counts, sum_us);
    }

    fn put_buckets(&mut self, label: &str, bounds_us: &[u64], counts: &[u64], sum_us: u64) {
        let (name, mut total) = (self.name, 0);
        let (before, alone) = match label {
            "" => (String::new(), String::new()),
            label => (format!("{label},"), format!("{{{label}}}")),
        };
        let bounds = bounds_us.iter().map(|us| Millionths(*us).to_string()).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts) {
            total += count;
            line(self.text, format_args!("{name}_bucket{{{before}le=\"{bound}\"}} {total}"));
        }
        line(self.text, format_args!("{name}_sum{alone} {}\n{name}_count{alone} {total}", Millionths(sum_us)));
    }
}

/// Escapes what the format requires in a label value: backslash, quote, line feed.
struct LabelValue<'a>(&'a mut String);

impl Write for LabelValue<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// Milliseconds as seconds.
pub(super) struct Thousandths(pub u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

/// Microseconds as seconds.
pub(super) struct Millionths(pub u64);

impl fmt::Display for Millionths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

fn line(text: &mut String, args: fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = text.write_fmt(args);
    text.push('\n');
}
