//! The one place that writes to the terminal: talk on standard error, data on standard output.

use std::io::{self, Write};

/// A line for whoever watches.
pub(crate) fn line(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// What was asked for. A closed pipe is nobody's error.
pub(crate) fn data(text: &str) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// A failure, on standard error.
pub(crate) fn problem(text: &str) {
    line(&format!("error: {text}"));
}
