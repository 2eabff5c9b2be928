//! The `longshore` program as tests run it, and the tools they compare it with.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Far longer than a server takes to start.
const DEADLINE: Duration = Duration::from_mins(1);

/// A command of the [`program`]. It heeds every signal that asks it to end: whoever started the tests may
/// ignore some (nohup does, and so does a script's `&`), and children inherit that.
pub fn longshore() -> Command {
    let mut command = Command::new("env");
    command
        .arg("--default-signal=HUP,INT,QUIT,TERM")
        .arg(program());
    command
}

/// The `longshore` of this build, which is brought up to date first; or the one that the environment
/// variable `LONGSHORE` names.
pub fn program() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| built("longshore", "longshore-cli", "LONGSHORE"))
        .clone()
}

/// The same of the importer pod's program, and `LONGSHORE_IMPORTER`.
pub fn importer() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            built(
                "longshore-importer",
                "longshore-importer",
                "LONGSHORE_IMPORTER",
            )
        })
        .clone()
}

/// The same of the controller's program, and `LONGSHORE_CONTROLLER`.
pub fn controller() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            built(
                "longshore-controller",
                "longshore-controller",
                "LONGSHORE_CONTROLLER",
            )
        })
        .clone()
}

fn built(name: &str, package: &str, instead: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(instead) {
        return path.into();
    }
    // target/PROFILE/deps/TEST: the program belongs two levels up.
    let exe = std::env::current_exe().unwrap();
    let profile = exe.ancestors().nth(2).unwrap().to_owned();
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--locked", "--bin", name]);
    build.args(["--package", package]);
    if profile.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    assert!(build.status().unwrap().success(), "{name} does not build");
    profile.join(name)
}

/// Runs a command that must succeed, and gives its standard output.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?} did not start: {e}"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    output.stdout
}

/// Runs a shell's script in a folder, which must succeed, and gives its standard output.
pub fn shell(folder: &Path, script: &str) -> Vec<u8> {
    run(Command::new("sh").current_dir(folder).args(["-ec", script]))
}

/// Runs a command with `input` on its standard input, through a pipe.
pub fn fed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // It may have had enough; what it says of that is checked elsewhere.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().unwrap()
    })
}

/// `ALGORITHM:HEX` of `bytes`, as coreutils see it.
pub fn digest(algorithm: &str, bytes: &[u8]) -> String {
    let output = fed(&mut Command::new(format!("{algorithm}sum")), bytes);
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    format!("{algorithm}:{}", text.split(' ').next().unwrap())
}

/// Starts a command, and takes nothing of what it says.
pub fn silent(command: &mut Command) -> Child {
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Sends a signal by its name.
pub fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    run(kill.args([&format!("-{name}"), &child.id().to_string()]));
}

/// A program that runs until this is dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    /// Waits until `ready`, which nothing tells of; false if it ended before.
    pub fn gets_ready(&mut self, ready: impl Fn() -> bool) -> bool {
        let until = Instant::now() + DEADLINE;
        while !ready() {
            if self.0.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < until, "{:?} does not get ready", self.0);
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A `qemu-io` that has a raw image open for writing.
pub fn held(image: &Path) -> Running {
    let mut command = Command::new("qemu-io");
    command.args(["-f", "raw"]).arg(image);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = Running(command.spawn().unwrap());
    // When it answers it has opened the image.
    let stdin = holder.0.stdin.as_mut().unwrap();
    stdin.write_all(b"length\n").unwrap();
    let mut line = String::new();
    BufReader::new(holder.0.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("MiB"), "{line}");
    holder
}

/// An address of this host at which nobody listens, for a server that takes none that is bound already.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// What a command said on standard error, and how it ended.
pub fn said(output: &Output) -> String {
    format!(
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    )
}

/// True if `tool` can be run here. A missing tool is a failure in CI, elsewhere a skip that names itself.
pub fn have(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok();
    assert!(
        there || std::env::var_os("CI").is_none(),
        "{tool} is missing, and this is CI"
    );
    if !there {
        eprintln!("skipped: {tool} is not installed");
    }
    there
}
