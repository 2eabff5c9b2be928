//! The one place that writes to the terminal.

use std::io::{self, Write};

/// A line on standard output. A closed pipe is nobody's error.
pub(crate) fn line(text: &str) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// A failure, on standard error.
pub(crate) fn problem(text: &str) {
    drop(writeln!(io::stderr().lock(), "error: {text}"));
}
