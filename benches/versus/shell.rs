//! Running the programs that prepare and describe a measurement; the measured ones are in `measure`.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs to the end; gives what came on standard output, and a failure says what came on standard
/// error.
pub(super) fn run(program: impl AsRef<OsStr>, args: &[&OsStr]) -> Result<String> {
    let mut command = Command::new(program.as_ref());
    command.args(args);
    output(&mut command)
}

/// The same for a command already put together.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Finds a program as a shell would, and in the `sbin` folders that a plain user's `PATH` lacks.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_which_program_and_what_it_said() {
        let args = ["-c", "echo broken >&2; exit 3"].map(OsStr::new);
        let text = run("sh", &args).unwrap_err().to_string();
        assert!(
            text.contains("sh failed") && text.contains("broken"),
            "{text}"
        );
    }
}
