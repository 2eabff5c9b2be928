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
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
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
}
