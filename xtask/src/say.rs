//! The one place that writes to the terminal, so that what xtask says keeps its order among the
//! output of its children.

use std::io::{self, Write};

/// A line on standard output. A closed pipe is nobody's error.
pub(crate) fn line(text: &str) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// The command about to run, as one could type it.
pub(crate) fn command(text: &str) {
    line(&format!("$ {text}"));
}

/// A failure, on standard error.
pub(crate) fn problem(text: &str) {
    drop(writeln!(io::stderr().lock(), "error: {text}"));
}

/// Bytes for people: `27.6 MB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    for (unit, name) in UNITS {
        if count >= unit {
            let tenths = count / (unit / 10);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} bytes")
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_shown_in_the_largest_unit_that_fits() {
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(1_000), "1.0 kB");
        assert_eq!(bytes(27_640_000), "27.6 MB");
        assert_eq!(bytes(5_000_000_000), "5.0 GB");
    }
}
