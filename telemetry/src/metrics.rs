//! Metrics as text, in the format that Prometheus reads (version 0.0.4).
//!
//! What there is to tell is the caller's business; how it is spelled is decided here.

use std::fmt::Write as _;

/// The `Content-Type` of an [`Exposition`].
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many were how large.
    Histogram,
}

impl Kind {
    /// What Prometheus calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Counts of durations, by upper bounds in seconds.
#[derive(Debug, Clone)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    /// An empty one; bounds ascend, and what is above the last is counted all the same.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len()],
            count: 0,
            sum: 0.0,
        }
    }

    /// One of so many seconds.
    pub fn observe(&mut self, seconds: f64) {
        self.count += 1;
        self.sum += seconds;
        for (bound, count) in self.bounds.iter().zip(&mut self.counts) {
            if seconds <= *bound {
                *count += 1;
            }
        }
    }
}

/// A page of metrics, being written.
#[derive(Debug, Clone, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a metric. Its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = kind.name();
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample: a plain decimal, since readers in the field look for digits and not for exponents.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        let mut before = '{';
        for (label, content) in labels {
            let _ = write!(self.text, "{before}{label}=\"");
            for c in content.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
            before = ',';
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let count = |n: u64| {
            #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
            let n = n as f64;
            n
        };
        let bucket = format!("{name}_bucket");
        let bounds = histogram.bounds.iter().map(f64::to_string);
        let counts = histogram.counts.iter().copied();
        let last = ("+Inf".to_owned(), histogram.count);
        for (bound, n) in bounds.zip(counts).chain([last]) {
            let mut labels = labels.to_vec();
            labels.push(("le", &bound));
            self.sample(&bucket, &labels, count(n));
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum);
        self.sample(&format!("{name}_count"), labels, count(histogram.count));
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_plain_decimals_with_escaped_labels() {
        let mut page = Exposition::new();
        page.family("a_bytes_total", Kind::Counter, "One\nline \\ only");
        page.sample("a_bytes_total", &[], 1e15);
        page.family("b", Kind::Gauge, "B.");
        page.sample("b", &[("x", "q\"\\\n"), ("y", "z")], 47.68);
        assert_eq!(
            page.into_text(),
            "# HELP a_bytes_total One\\nline \\\\ only\n# TYPE a_bytes_total counter\n\
             a_bytes_total 1000000000000000\n# HELP b B.\n# TYPE b gauge\n\
             b{x=\"q\\\"\\\\\\n\",y=\"z\"} 47.68\n"
        );
    }

    #[test]
    fn a_histogram_counts_below_each_bound_and_all() {
        let mut times = Histogram::new(&[0.5, 2.0]);
        for seconds in [0.25, 1.0, 4.0] {
            times.observe(seconds);
        }
        let mut page = Exposition::new();
        page.histogram("t_seconds", &[("a", "b")], &times);
        assert_eq!(
            page.into_text(),
            "t_seconds_bucket{a=\"b\",le=\"0.5\"} 1\nt_seconds_bucket{a=\"b\",le=\"2\"} 2\n\
             t_seconds_bucket{a=\"b\",le=\"+Inf\"} 3\nt_seconds_sum{a=\"b\"} 5.25\n\
             t_seconds_count{a=\"b\"} 3\n"
        );
    }
}
