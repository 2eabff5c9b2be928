//! What every report begins with: when, on what, at which commit.

use std::process::Command;
use std::time::Duration;

/// A heading and what the run was.
pub(crate) fn head(title: &str, elapsed: Duration) -> String {
    let said = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.unwrap_or_default()
    };
    let qemu = said("qemu-img", &["--version"]);
    format!(
        "# {title}\n\n- ended: {}\n- commit: `{}` and what was changed since\n- peer: {}\n- kernel: {}, {} cores\n- took: {} s\n\n",
        said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        said("git", &["rev-parse", "--short", "HEAD"]),
        qemu.lines().next().unwrap_or("none"),
        said("uname", &["-sr"]),
        std::thread::available_parallelism().map_or(1, usize::from),
        elapsed.as_secs(),
    )
}
