//! Where a cluster's files are, and which of its processes run.
//!
//! A cluster is a folder of the cache. Its processes are written down with the time they were started,
//! so that `down` never ends a stranger who got the number of one that is gone. All of them have the folder in
//! their environment too: that tells those whose starter was killed before it could write them down.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt as _;

use crate::paths;
use crate::shell::Run;

/// Variable that a cluster's processes have the folder in.
const MARK: &str = "LONGSHORE_CLUSTER";

/// A cluster's folder.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    side: Side,
}

/// Where we look at it from. Process numbers and addresses of one side mean nothing on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The host.
    Outside,
    /// The node's namespaces.
    Inside,
}

/// What was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) pid: u32,
    /// Ticks after the host's boot, out of `/proc`.
    started: u64,
}

impl Place {
    /// The place of the cluster that is called so: letters, digits and dashes, and few of them, since
    /// sockets lie in it.
    pub(super) fn of(name: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 20 || !name.chars().all(fits) {
            bail!("a cluster's name has up to 20 lower-case letters, digits and dashes");
        }
        Ok(Self {
            name: name.to_owned(),
            folder: paths::cache("cluster")?.join(name),
            side: Side::Outside,
        })
    }

    /// The same place from within the node's namespaces.
    pub(super) fn inside(self) -> Self {
        Self {
            side: Side::Inside,
            ..self
        }
    }

    /// The list of what was started on this side.
    fn list(&self) -> PathBuf {
        self.file(match self.side {
            Side::Outside => "processes",
            Side::Inside => "processes-inside",
        })
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A folder in it, made if it is missing.
    pub(super) fn make(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        paths::make_dir(&folder)?;
        Ok(folder)
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        match self.side {
            Side::Outside => self.file("kubeconfig"),
            Side::Inside => self.file("kubeconfig-inside"),
        }
    }

    /// What was started and still runs.
    pub(super) fn running(&self) -> Vec<Process> {
        let Ok(text) = fs::read_to_string(self.list()) else {
            return Vec::new();
        };
        text.lines()
            .filter_map(Process::parse)
            .filter(Process::runs)
            .collect()
    }

    /// The first process of the node's namespaces.
    pub(super) fn init(&self) -> Result<Process> {
        let mut running = self.running().into_iter();
        running
            .find(|process| process.name == "init")
            .with_context(|| format!("the node of the cluster {} does not run", self.name))
    }

    /// Starts a program in the background, its output in `logs/NAME.log`, and writes it down.
    pub(super) fn start(&self, name: &str, run: Run) -> Result<Process> {
        self.start_with(name, run, Stdio::null())
    }

    /// The same with something to read.
    pub(super) fn start_with(&self, name: &str, run: Run, input: Stdio) -> Result<Process> {
        let mut command = run.into_command();
        command.env(MARK, &self.folder);
        self.output(&mut command, name)?;
        // Ctrl-C at the terminal that started it is not meant for it.
        let child = command
            .stdin(input)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        self.note(name, child.id())
    }

    /// Writes down a process that something else started.
    pub(super) fn note(&self, name: &str, pid: u32) -> Result<Process> {
        let process = Process::of(name, pid)?;
        let mut list = fs::read_to_string(self.list()).unwrap_or_default();
        list += &process.line();
        paths::write(&self.list(), list)?;
        Ok(process)
    }

    /// Sends a program's output to its log.
    fn output(&self, command: &mut Command, name: &str) -> Result<()> {
        let log = self.make("logs")?.join(format!("{name}.log"));
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        command.stdout(log.try_clone()?).stderr(log);
        Ok(())
    }

    /// The end of a log, for the error that somebody reads.
    pub(super) fn tail(&self, name: &str) -> String {
        let text = fs::read_to_string(self.file("logs").join(format!("{name}.log")));
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.len().saturating_sub(15);
        lines[last..].join("\n")
    }

    /// Ends all processes, the last started first.
    pub(super) fn end(&self) -> Result<()> {
        for process in self.running().iter().rev() {
            process.end()?;
        }
        for stray in self.strays() {
            stray.kill()?;
        }
        Ok(())
    }

    /// What carries the mark of this cluster.
    fn strays(&self) -> Vec<Process> {
        let mark = format!("{MARK}={}", self.folder.display());
        let Ok(processes) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for entry in processes.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // Of processes of others nothing is to be read, nor of those that are gone.
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let marked = environment
                .split(|&byte| byte == 0)
                .any(|variable| variable == mark.as_bytes());
            if let Some(started) = started(pid).filter(|_| marked && pid != std::process::id()) {
                found.push(Process {
                    name: "a process that was not written down".to_owned(),
                    pid,
                    started,
                });
            }
        }
        found
    }

    /// Says that whoever runs this is starting the cluster, until [`Self::has_started`].
    pub(super) fn starts(&self) -> Result<()> {
        let own = Process::of("up", std::process::id())?;
        paths::write(&self.file(STARTING), own.line())
    }

    /// Says that all of it is there.
    pub(super) fn has_started(&self) -> Result<()> {
        fs::remove_file(self.file(STARTING)).context("noting that the cluster has started")
    }

    pub(super) fn state(&self) -> State {
        if let Ok(line) = fs::read_to_string(self.file(STARTING)) {
            return match Process::parse(&line).filter(Process::runs) {
                Some(process) => State::Starting(process),
                None => State::Interrupted,
            };
        }
        if self.running().is_empty() {
            State::Down
        } else {
            State::Up
        }
    }

    /// Takes the folder away.
    pub(super) fn remove(&self) -> Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)
                .with_context(|| format!("removing {}", self.folder.display()))?;
        }
        Ok(())
    }
}

impl Process {
    fn of(name: &str, pid: u32) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            pid,
            started: started(pid).with_context(|| format!("{name} ended at once"))?,
        })
    }

    /// Whether there is a process of that number, and not only its exit code.
    pub(super) fn is_there(pid: u32) -> bool {
        started(pid).is_some()
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        Some(Self {
            pid: words.next()?.parse().ok()?,
            started: words.next()?.parse().ok()?,
            name: words.next()?.to_owned(),
        })
    }

    fn line(&self) -> String {
        format!("{} {} {}\n", self.pid, self.started, self.name)
    }

    pub(super) fn runs(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Asks it to end, and makes it if it does not.
    fn end(&self) -> Result<()> {
        // The first process of a node heeds no request to end; all others in it go when it goes.
        if self.name == "init" {
            return self.kill();
        }
        self.signal(&[("TERM", 10), ("KILL", 10)])
    }

    fn kill(&self) -> Result<()> {
        self.signal(&[("KILL", 10)])
    }

    /// Sends signals, one after the other, each with the seconds it has to work.
    fn signal(&self, signals: &[(&str, u64)]) -> Result<()> {
        for &(signal, patience) in signals {
            if !self.runs() {
                return Ok(());
            }
            // It may have gone by now.
            let pid = self.pid.to_string();
            drop(
                Run::new("kill")
                    .args(["-s", signal, &pid])
                    .quiet()
                    .capture(),
            );
            let until = Instant::now() + Duration::from_secs(patience);
            while self.runs() && Instant::now() < until {
                thread::sleep(Duration::from_millis(20));
            }
        }
        if self.runs() {
            bail!("{} (process {}) does not end", self.name, self.pid);
        }
        Ok(())
    }
}

/// The file that is there while a cluster is started.
const STARTING: &str = "starting";

/// What there is of a cluster.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing runs.
    Down,
    /// All of it runs, or did.
    Up,
    /// This process is starting it.
    Starting(Process),
    /// Whoever started it was stopped midway.
    Interrupted,
}

/// When a process was started, unless it is gone or only waits to be buried.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (state != "Z").then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_took_over_a_number_is_a_stranger() {
        let own = std::process::id();
        let process = Process {
            name: "xtask".to_owned(),
            pid: own,
            started: started(own).unwrap(),
        };
        assert!(process.runs());
        assert_eq!(
            Process::parse(process.line().trim_end()),
            Some(process.clone())
        );
        let stranger = Process {
            started: process.started + 1,
            ..process
        };
        assert!(!stranger.runs());
    }

    #[test]
    fn what_a_starter_that_was_killed_left_behind_is_known_and_ended() {
        let folder = std::env::temp_dir().join(format!("longshore-place-{}", std::process::id()));
        let place = Place {
            name: "half".to_owned(),
            folder: folder.clone(),
            side: Side::Outside,
        };
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(place.state(), State::Down);
        place.starts().unwrap();
        assert!(matches!(place.state(), State::Starting(_)));
        // One that was written down, and one whose starter was killed first.
        place
            .start("sleep", Run::new("sleep").arg("600").quiet())
            .unwrap();
        let sleeping = |mark: &Path| {
            let mut sleep = Command::new("sleep");
            sleep.arg("600").env(MARK, mark).spawn().unwrap()
        };
        let (mut stray, mut other) = (sleeping(&folder), sleeping(&folder.join("other")));
        fs::write(place.file(STARTING), "1 0 up\n").unwrap();
        assert_eq!(place.state(), State::Interrupted);
        place.end().unwrap();
        assert!(place.running().is_empty());
        assert!(!stray.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "not of this cluster");
        other.kill().unwrap();
        other.wait().unwrap();
        place.remove().unwrap();
    }

    #[test]
    fn names_that_would_not_fit_a_path_are_refused() {
        for name in ["", "a/b", "..", "UPPER", &"x".repeat(21)] {
            assert!(Place::of(name).is_err(), "{name}");
        }
        assert!(Place::of("two-2").is_ok());
    }
}
