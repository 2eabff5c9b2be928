//! What Prometheus itself says of a page of metrics.

use std::path::PathBuf;
use std::process::Command;

use crate::program::fed;

/// Gives a page to promtool, which must have nothing to say of it. Without promtool it is a skip that names
/// it, in CI a failure.
pub fn check_metrics(page: &str) {
    let Some(promtool) = std::env::var_os("LONGSHORE_PROMTOOL").map(PathBuf::from) else {
        let why = "LONGSHORE_PROMTOOL names no promtool: `cargo xtask test` does";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("skipped: {why}");
        return;
    };
    let output = fed(
        Command::new(promtool).args(["check", "metrics"]),
        page.as_bytes(),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{page}");
}
