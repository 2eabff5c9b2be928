//! A network namespace at the other end of a line of so many bits a second.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Addresses of the two ends: a network that is kept for documentation.
const HERE: &str = "198.51.100.1";
pub(super) const THERE: &str = "198.51.100.2";

const PATIENCE: Duration = Duration::from_secs(10);

/// Gone when dropped, with both ends of the line.
#[derive(Debug)]
pub(super) struct Line {
    name: String,
}

impl Line {
    /// Needs root.
    pub(super) fn new(megabits: u32) -> Result<Self> {
        let id = std::process::id();
        let this = Self {
            name: format!("longshore-{id}"),
        };
        let (near, far) = (format!("ls{id}a"), format!("ls{id}b"));
        let name = &this.name;
        for line in [
            format!("ip netns add {name}"),
            format!("ip link add {near} type veth peer name {far} netns {name}"),
            format!("ip address add {HERE}/30 dev {near}"),
            format!("ip link set {near} up"),
            format!("ip netns exec {name} ip address add {THERE}/30 dev {far}"),
            format!("ip netns exec {name} ip link set {far} up"),
            format!("ip netns exec {name} ip link set lo up"),
            format!(
                "ip netns exec {name} tc qdisc add dev {far} root tbf rate {megabits}mbit burst 256kb latency 30ms"
            ),
        ] {
            shell(&line)?;
        }
        Ok(this)
    }

    /// A program at the far end.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // The far end goes with its namespace, and takes the near one along.
        drop(shell(&format!("ip netns delete {}", self.name)));
    }
}

/// Killed when dropped.
#[derive(Debug)]
pub(super) struct Running(Child);

impl Running {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn();
        Ok(Self(child.context("starting what is at the far end")?))
    }

    /// Until somebody answers at `address`.
    pub(super) fn wait_for(&mut self, address: &str) -> Result<()> {
        self.wait(address, || Ok(TcpStream::connect(address).is_ok()))
    }

    /// Until somebody answers at `port` in the far end itself.
    pub(super) fn wait_in(&mut self, line: &Line, port: u16) -> Result<()> {
        let address = format!("http://127.0.0.1:{port}/");
        self.wait(&format!("{address} of the far end"), || {
            // Any answer will do.
            let mut curl = line.command(Path::new("curl"));
            let status = curl.args(["-s", &address]).status();
            Ok(status.context("starting curl")?.success())
        })
    }

    fn wait(&mut self, what: &str, answers: impl Fn() -> Result<bool>) -> Result<()> {
        let started = Instant::now();
        while !answers()? {
            let over = self.0.try_wait().context("looking at the far end")?;
            if over.is_some() || started.elapsed() > PATIENCE {
                bail!("nobody answers at {what}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Words, without quotes.
fn shell(line: &str) -> Result<()> {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    done(Command::new(program).args(words))
}

/// Runs it to its end, which has to be a good one.
pub(super) fn done(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command.stderr(Stdio::piped()).output();
    let output = output.with_context(|| format!("starting {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(())
}
