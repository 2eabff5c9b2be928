//! A supervisor as a process of its own: this test binary again, running only [`helper`].

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use longshore_launcher::supervisor::{ConsoleMode, Notice, Options, RunError, Supervisor};
use rustix::process::{Pid, Signal, kill_process};

use crate::guests;
use crate::rig::{DEADLINE, Setup, eventually};

const GUEST: &str = "LONGSHORE_TEST_GUEST";
const DIR: &str = "LONGSHORE_TEST_DIR";
const INTERACTIVE: &str = "LONGSHORE_TEST_INTERACTIVE";
const STARTED: &str = "qemu is process ";
/// Exit code for a directory that is in use.
pub(crate) const IN_USE: i32 = 9;

/// Not a test: what the other tests start. Supervises a guest as `longshore run` does.
#[test]
#[ignore = "a process for other tests to start"]
fn helper() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let sector = match std::env::var(GUEST).unwrap().as_str() {
        "hello" => guests::hello(),
        "obedient" => guests::obedient(),
        "stubborn" => guests::stubborn(),
        "chatty" => guests::chatty(),
        "echo" => guests::echo(),
        other => panic!("no guest {other}"),
    };
    let console = match std::env::var_os(INTERACTIVE) {
        Some(_) => ConsoleMode::Interactive,
        None => ConsoleMode::Stdout,
    };
    // The tests wait for what this process says: it must not stay silent for ever.
    std::thread::spawn(|| {
        std::thread::sleep(DEADLINE * 2);
        eprintln!("the helper has waited too long");
        std::process::abort();
    });
    let on_event = |notice: &Notice| match notice {
        Notice::Started { pid, .. } => eprintln!("{STARTED}{pid}"),
        notice => eprintln!("{notice}"),
    };
    let options = Options {
        console,
        on_event: Box::new(on_event),
        ..Options::default()
    };
    let (supervisor, _control) = Supervisor::new(Setup::new(sector).command(&dir), options);
    let code = match supervisor.run() {
        Ok(outcome) => {
            eprintln!("{outcome}");
            i32::from(outcome.exit_code())
        }
        Err(RunError::InUse { .. }) => IN_USE,
        Err(error) => panic!("{error:?}"),
    };
    #[expect(clippy::exit, reason = "the exit code is what the other tests look at")]
    std::process::exit(code);
}

/// That process; killed when dropped.
pub(crate) struct Helper {
    pub(crate) child: Child,
    pub(crate) stdout: Option<BufReader<ChildStdout>>,
    stderr: BufReader<ChildStderr>,
}

impl Helper {
    pub(crate) fn start(guest: &str, dir: &Path) -> Self {
        Self::spawn(Self::command(guest, dir).stdin(Stdio::null()))
    }

    /// With a console that is typed into on this terminal.
    pub(crate) fn on_terminal(guest: &str, dir: &Path, terminal: impl Into<Stdio>) -> Self {
        let mut command = Self::command(guest, dir);
        Self::spawn(command.env(INTERACTIVE, "1").stdin(terminal))
    }

    fn command(guest: &str, dir: &Path) -> Command {
        // Whoever started the tests may ignore signals (nohup does), and children inherit that.
        let mut command = Command::new("env");
        command
            .arg("--default-signal=HUP,INT,QUIT,TERM")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "helper::helper", "--ignored"])
            .args(["--nocapture", "--quiet"])
            .env(GUEST, guest)
            .env(DIR, dir);
        command
    }

    fn spawn(command: &mut Command) -> Self {
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// Reads what the helper says to a line with this in it.
    pub(crate) fn told(&mut self, text: &str) -> String {
        let mut lines = (&mut self.stderr).lines().map(Result::unwrap);
        let line = lines.find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("never told: {text:?}"))
    }

    /// QEMU's process, once it runs.
    pub(crate) fn qemu(&mut self) -> Pid {
        let line = self.told(STARTED);
        let pid = line.rsplit(' ').next().unwrap().parse().unwrap();
        Pid::from_raw(pid).unwrap()
    }

    /// Reads the console on standard output to a line with this in it.
    pub(crate) fn expect(&mut self, text: &str) {
        let stdout = self.stdout.as_mut().unwrap();
        let mut lines = stdout.lines().map(Result::unwrap);
        assert!(
            lines.any(|line| line.contains(text)),
            "the console ended without {text:?}"
        );
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn code(&mut self) -> i32 {
        let status = eventually("the helper's end", || self.child.try_wait().unwrap());
        status.code().unwrap_or_else(|| panic!("{status}"))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
