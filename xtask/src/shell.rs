//! Running other programs: show the command, run it, and turn every way of failing into one
//! readable error.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, IsTerminal, Write, stdin};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::say;

/// A program, its arguments and its surroundings.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
    quiet: bool,
}

impl Run {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        // `cargo run` describes xtask to us in these; a nested cargo must not take them for its own
        // package's.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if [
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "CARGO_BIN_",
                "CARGO_CRATE_",
                "CARGO_PRIMARY_",
            ]
            .iter()
            .any(|prefix| text.starts_with(prefix))
            {
                command.env_remove(&name);
            }
        }
        Self {
            command,
            quiet: false,
        }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Does not show the command: for look-ups that change nothing.
    pub(crate) fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Has this program run another one: its words, variables and folder follow ours.
    pub(crate) fn then(mut self, other: &Self) -> Self {
        self.command.arg(other.command.get_program());
        self.command.args(other.command.get_args());
        for (name, value) in other.command.get_envs() {
            match value {
                Some(value) => self.command.env(name, value),
                None => self.command.env_remove(name),
            };
        }
        if let Some(dir) = other.command.get_current_dir() {
            self.command.current_dir(dir);
        }
        self
    }

    /// For whoever sets up the channels of the program himself.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }

    /// Runs with our own terminal; anything but success is an error.
    pub(crate) fn check(mut self) -> Result<()> {
        self.show();
        let name = self.name();
        let status = self
            .command
            .status()
            .with_context(|| format!("starting {name}"))?;
        succeed(&name, status)
    }

    /// Runs with our own terminal and gives the exit code; ended by a signal is an error.
    pub(crate) fn code(mut self) -> Result<i32> {
        self.show();
        let name = self.name();
        let status = self
            .command
            .status()
            .with_context(|| format!("starting {name}"))?;
        status
            .code()
            .with_context(|| format!("{name} was ended: {status}"))
    }

    /// What the program printed on standard output; a failure carries what it printed on standard
    /// error.
    pub(crate) fn capture(self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.capture_bytes()?).into_owned())
    }

    /// The same for output that is not text.
    pub(crate) fn capture_bytes(mut self) -> Result<Vec<u8>> {
        self.show();
        let name = self.name();
        let output = self
            .command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {name}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{name} failed ({}): {}", output.status, said.trim());
        }
        Ok(output.stdout)
    }

    /// Runs, shows standard output as it comes and gives each line to `seen`. Ends everything at
    /// the deadline.
    pub(crate) fn watch(
        mut self,
        limit: Duration,
        mut seen: impl FnMut(&str),
    ) -> Result<ExitStatus> {
        self.show();
        let name = self.name();
        let deadline = Instant::now() + limit;
        // At a terminal, Ctrl-C must reach the children, so they stay in our group; elsewhere a
        // group of their own lets us end grandchildren too.
        let grouped = !stdin().is_terminal();
        if grouped {
            self.command.process_group(0).stdin(Stdio::null());
        }
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let output = child.stdout.take().context("a piped child has an output")?;
        let (sender, lines) = channel();
        // Not joined: a daemon that inherited the pipe could keep it open for ever.
        thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut line = Vec::new();
            while reader
                .read_until(b'\n', &mut line)
                .is_ok_and(|count| count > 0)
            {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });
        let mut ended = None;
        loop {
            match lines.recv_timeout(Duration::from_millis(200)) {
                Ok(line) => {
                    let mut out = std::io::stdout().lock();
                    drop(out.write_all(&line).and_then(|()| out.flush()));
                    seen(String::from_utf8_lossy(&line).trim_end());
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    // The output is over, but the program may still be ending.
                    if ended.is_none() {
                        thread::sleep(Duration::from_millis(20));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(status) = ended {
                return Ok(status);
            }
            ended = child
                .try_wait()
                .with_context(|| format!("waiting for {name}"))?;
            if ended.is_none() && Instant::now() > deadline {
                end(&mut child, grouped);
                bail!(
                    "{name} was ended: it took longer than {} s",
                    limit.as_secs()
                );
            }
        }
    }

    fn name(&self) -> String {
        let program = Path::new(self.command.get_program());
        program
            .file_name()
            .unwrap_or(program.as_os_str())
            .to_string_lossy()
            .into_owned()
    }

    fn show(&self) {
        if !self.quiet {
            say::command(&self.text());
        }
    }

    /// The command as one could type it.
    pub(crate) fn text(&self) -> String {
        let mut words = Vec::new();
        for (name, value) in self.command.get_envs() {
            let set = |value| format!("{}={}", name.to_string_lossy(), quoted(value));
            words.extend(value.map(set));
        }
        words.push(quoted(self.command.get_program()));
        words.extend(self.command.get_args().map(quoted));
        words.join(" ")
    }
}

fn succeed(name: &str, status: ExitStatus) -> Result<()> {
    if status.success() {
        Ok(())
    } else {
        bail!("{name} failed ({status})")
    }
}

/// Asks first, so that QEMU and cargo can put their things in order, then insists.
fn end(child: &mut Child, grouped: bool) {
    if grouped {
        let group = format!("-{}", child.id());
        let signal = |name: &str| {
            let kill = Command::new("kill")
                .args([name, "--", &group])
                .stderr(Stdio::null())
                .status();
            drop(kill);
        };
        signal("-TERM");
        let patience = Instant::now() + Duration::from_secs(5);
        while Instant::now() < patience && matches!(child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(50));
        }
        // Always: the child may be gone, and a grandchild not.
        signal("-KILL");
    } else {
        drop(child.kill());
    }
    drop(child.wait());
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_an_error_that_names_it_and_what_it_said() {
        let error = Run::new("sh")
            .args(["-c", "echo broken >&2; exit 3"])
            .quiet()
            .capture()
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sh") && text.contains("broken") && text.contains('3'),
            "{text}"
        );
    }

    #[test]
    fn watching_sees_every_line_and_the_exit_status() {
        let mut lines = Vec::new();
        let run = Run::new("sh")
            .args(["-c", "echo one; printf two; exit 4"])
            .quiet();
        let status = run
            .watch(Duration::from_secs(30), |line| lines.push(line.to_owned()))
            .unwrap();
        assert_eq!(status.code(), Some(4));
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn a_program_past_its_deadline_is_ended() {
        let started = Instant::now();
        let run = Run::new("sleep").arg("600").quiet();
        let error = run.watch(Duration::from_millis(300), |_| ()).unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
        assert!(started.elapsed() < Duration::from_mins(1));
    }

    #[test]
    fn shown_commands_can_be_pasted_into_a_shell() {
        let run = Run::new("tool").env("A", "b c").args(["--x=1", "it's", ""]);
        assert!(
            run.text().ends_with(r"A='b c' tool --x=1 'it'\''s' ''"),
            "{}",
            run.text()
        );
    }
}
