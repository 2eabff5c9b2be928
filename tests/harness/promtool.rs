//! What Prometheus itself says of a page of metrics.

use std::path::PathBuf;
use std::process::Command;

use crate::program::fed;

/// Upstream's label has to be what it is, whatever promtool thinks of its spelling.
const OWNER: &str = "label names should be written in 'snake_case' not 'camelCase'";

/// Gives a page to promtool, which must have nothing else to say of it. Without promtool it is a skip that
/// names it, in CI a failure.
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
    let other = said.lines().find(|line| !line.ends_with(OWNER));
    let expected = output.status.success() || page.contains("{ownerUID=");
    assert!(expected && other.is_none(), "{said}\n{page}");
}
