//! nbdkit as a child of ours: its arguments, its directory, what it says, and its end.
//!
//! It ends with us, whatever we die of (`--exit-with-parent`), and when the source is dropped. That option
//! watches the thread that started it, so that is a thread which does nothing else and lives as long: it
//! listens to what nbdkit says.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use longshore_transfer::Cancel;
use rustix::fs::{FileType, Mode};

use super::{Served, VddkDisk, VddkError};
use crate::http::TICK;
use crate::nbd::{Keeper, NbdError};

/// Lines of nbdkit's that are kept.
const LINES: usize = 12;
/// Bytes of a line that are.
const LINE: usize = 400;
/// Bytes of the library's configuration, and settings in it, that are told.
const MOST_SETTINGS: u64 = 16 << 10;
const SETTINGS: usize = 64;
/// How a snapshot is read unless something else is said: the library crashes when it may choose, and there is no
/// other way from a container. Upstream's choice.
const TRANSPORTS: &str = "file:nbdssl:nbd";
/// How long it may take to end when it is asked to, before it is killed.
const FAREWELL: Duration = Duration::from_secs(5);

/// A running nbdkit.
pub(super) struct Child {
    process: Mutex<Process>,
    directory: Private,
    said: Arc<Said>,
}

impl Child {
    /// Starts it, and waits until it listens.
    pub(super) fn start(disk: &VddkDisk, cancel: &Cancel) -> Result<Self, VddkError> {
        let directory = Private::new()?;
        let password = &disk.auth.password;
        if password.len() > LINE || password.contains(['\0', '\n']) {
            return Err(VddkError::Value {
                what: "password",
                why: "it is too long, or of more than one line",
            });
        }
        let password = directory.hand_over("password", password)?;
        let mut command = Command::new(&disk.nbdkit);
        command
            .args(arguments(disk, &directory.0)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Secrets of ours may be in there.
            .env_clear()
            .env("LANG", "C");
        for name in ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let said = Arc::new(Said {
            lines: Mutex::default(),
            secret: disk.auth.password.clone(),
            served: disk.served.clone(),
        });
        if let Some(config) = &disk.config {
            said.tell_settings(config);
        }
        let process = spawn(command, &said).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => VddkError::NoNbdkit {
                program: disk.nbdkit.clone(),
            },
            _ => VddkError::Start {
                action: "start nbdkit",
                source: e,
            },
        })?;
        let this = Self {
            process: Mutex::new(process),
            directory,
            said,
        };
        this.ready(disk.start, cancel)?;
        // It has been read.
        drop(password);
        this.directory.remove("password");
        Ok(this)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.0.join("socket")
    }

    /// Waits for its process number, which it writes down once it listens.
    fn ready(&self, patience: Duration, cancel: &Cancel) -> Result<(), VddkError> {
        let started = Instant::now();
        loop {
            let written = std::fs::metadata(self.directory.0.join("pid"));
            if written.is_ok_and(|meta| meta.len() > 0) {
                return Ok(());
            }
            if let Some(error) = self.ended() {
                return Err(error);
            }
            if cancel.is_cancelled() {
                return Err(VddkError::Cancelled);
            }
            if started.elapsed() > patience {
                return Err(VddkError::Slow {
                    after: patience,
                    said: self.said.told(),
                });
            }
            std::thread::sleep(TICK);
        }
    }

    /// How it ended, if it did.
    fn ended(&self) -> Option<VddkError> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let status = process.try_wait().ok()??;
        drop(process);
        self.said.wait_for_the_end();
        let said = self.said.told();
        Some(if said.contains("cannot open plugin") {
            VddkError::NoPlugin { said }
        } else {
            VddkError::Ended {
                status: status.to_string(),
                said,
            }
        })
    }

    /// Makes sense of a failure of the connection.
    pub(super) fn failed(&self, source: NbdError) -> VddkError {
        let since = Instant::now();
        let mut ended = self.ended();
        // A process closes its sockets some time before it has ended.
        while ended.is_none() && is_of_the_line(&source) && since.elapsed() < FAREWELL / 5 {
            std::thread::sleep(TICK);
            ended = self.ended();
        }
        match ended {
            Some(ended) => ended,
            None if matches!(source, NbdError::Cancelled) => VddkError::Cancelled,
            None => VddkError::Server {
                said: self.said.told(),
                source,
            },
        }
    }
}

/// The server may be gone.
fn is_of_the_line(error: &NbdError) -> bool {
    match error {
        NbdError::Connect { .. } | NbdError::Broken { .. } => true,
        NbdError::GaveUp { source, .. } => is_of_the_line(source),
        _ => false,
    }
}

impl Keeper for Child {
    fn explain(&self, error: NbdError) -> Box<dyn std::error::Error + Send + Sync> {
        Box::new(self.failed(error))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let process = self
            .process
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // Asked to end, it closes what it has open on the server.
        let asked = i32::try_from(process.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        let until = Instant::now();
        while matches!(asked, Some(Ok(())))
            && matches!(process.try_wait(), Ok(None))
            && until.elapsed() < FAREWELL
        {
            std::thread::sleep(TICK);
        }
        // Both fail only if it has ended.
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// Starts the process on a thread that stays with it.
fn spawn(mut command: Command, said: &Arc<Said>) -> io::Result<Process> {
    let (sender, started) = sync_channel(1);
    let said = Arc::clone(said);
    std::thread::Builder::new()
        .name("nbdkit".to_owned())
        .spawn(move || {
            let mut process = command.spawn();
            let stderr = process.as_mut().ok().and_then(|p| p.stderr.take());
            if sender.send(process).is_ok()
                && let Some(stderr) = stderr
            {
                said.listen(stderr);
            }
            said.end();
        })?;
    started.recv().map_err(io::Error::other)?
}

/// The library is where it should be: it is loaded late, and nbdkit's message for that says little.
pub(super) fn has_library(libdir: &Path) -> Result<(), VddkError> {
    let there = std::fs::read_dir(libdir.join("lib64")).is_ok_and(|files| {
        files.flatten().any(|file| {
            file.file_name()
                .to_string_lossy()
                .starts_with("libvixDiskLib.so")
        })
    });
    if there {
        Ok(())
    } else {
        Err(VddkError::NoLibrary {
            libdir: libdir.to_owned(),
        })
    }
}

/// What nbdkit is started with. nbdkit's retry filter is not part of it: it would have requests wait for
/// each other, and reads that fail are tried again by the client.
fn arguments(disk: &VddkDisk, directory: &Path) -> Result<Vec<OsString>, VddkError> {
    let mut arguments: Vec<OsString> = [
        "--exit-with-parent",
        "--foreground",
        "--readonly",
        "--log=stderr",
        // What the library says of itself is for those who trace; not each read.
        "--verbose",
        "-Dnbdkit.backend.datapath=0",
        "-Dvddk.datapath=0",
        "--unix",
    ]
    .map(OsString::from)
    .into();
    arguments.push(directory.join("socket").into());
    arguments.push("--pidfile".into());
    arguments.push(directory.join("pid").into());
    arguments.push(match &disk.plugin {
        Some(plugin) => plugin.into(),
        None => "vddk".into(),
    });
    let mut add = |what: &'static str, name: &str, value: &str| {
        if value.is_empty() || value.contains(['\0', '\n']) {
            let why = "it is empty, or of more than one line";
            return Err(VddkError::Value { what, why });
        }
        arguments.push(format!("{name}={value}").into());
        Ok(())
    };
    // Upstream's plugin counts what it is told: for it the port is part of the server, as upstream has it.
    match (&disk.plugin, disk.port) {
        (Some(_), Some(port)) => add("server", "server", &format!("{}:{port}", disk.server))?,
        _ => add("server", "server", &disk.server)?,
    }
    add("user", "user", &disk.auth.user)?;
    add("machine", "vm", &format!("moref={}", disk.vm))?;
    add("path", "file", &disk.file)?;
    let transports = disk.snapshot.is_some().then(|| TRANSPORTS.to_owned());
    let transports = disk.transports.clone().or(transports);
    let optional = [
        ("thumbprint", "thumbprint", &disk.thumbprint),
        ("snapshot", "snapshot", &disk.snapshot),
        ("transports", "transports", &transports),
        ("compression", "compression", &disk.compression),
    ];
    for (what, name, value) in optional {
        if let Some(value) = value {
            add(what, name, value)?;
        }
    }
    if let (None, Some(port)) = (&disk.plugin, disk.port) {
        add("port", "port", &port.to_string())?;
    }
    let mut path = |name: &str, path: &Path| {
        let mut argument = OsString::from(name);
        argument.push(path);
        arguments.push(argument);
    };
    if let Some(config) = &disk.config {
        path("config=", config);
    }
    path("libdir=", &disk.libdir);
    path("password=+", &directory.join("password"));
    Ok(arguments)
}

/// A directory of our own, gone when dropped.
struct Private(PathBuf);

impl Private {
    fn new() -> Result<Self, VddkError> {
        let temporary = std::env::temp_dir();
        // Paths of sockets have at most 107 bytes.
        let temporary = if temporary.as_os_str().len() > 60 {
            PathBuf::from("/tmp")
        } else {
            temporary
        };
        let mut tried = 0;
        loop {
            let name = format!("longshore-{:016x}", RandomState::new().hash_one(tried));
            let path = temporary.join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tried < 8 => tried += 1,
                Err(source) => {
                    return Err(VddkError::Start {
                        action: "make a directory for nbdkit's socket",
                        source,
                    });
                }
            }
        }
    }

    /// A pipe by this name with a line in it, which is gone with us if nobody reads it.
    fn hand_over(&self, name: &str, line: &str) -> Result<File, VddkError> {
        let path = self.0.join(name);
        let private = Mode::from_raw_mode(0o600);
        let made = rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, private, 0);
        let written = made.map_err(io::Error::from).and_then(|()| {
            // Open for both, so that neither opening nor writing waits for the other end.
            let mut pipe = File::options().read(true).write(true).open(&path)?;
            pipe.write_all(format!("{line}\n").as_bytes())?;
            Ok(pipe)
        });
        written.map_err(|source| VddkError::Start {
            action: "hand nbdkit the password",
            source,
        })
    }

    fn remove(&self, name: &str) {
        if let Err(error) = std::fs::remove_file(self.0.join(name)) {
            tracing::warn!(%error, name, "a file of nbdkit's stays behind until the end");
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "nbdkit's directory stays behind");
        }
    }
}

/// The last of what nbdkit says, without the password.
struct Said {
    lines: Mutex<(VecDeque<String>, bool)>,
    secret: String,
    served: Served,
}

impl Said {
    fn listen(&self, stderr: impl Read) {
        let mut stderr = BufReader::new(stderr);
        let most = 2 * LINE + self.secret.len();
        // The rest of a line that is too long.
        let mut rest = false;
        loop {
            let mut line = Vec::new();
            match (&mut stderr).take(most as u64).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let whole = line.ends_with(b"\n");
                    if !rest {
                        self.hear(&String::from_utf8_lossy(&line), whole);
                    }
                    rest = !whole;
                }
            }
        }
    }

    /// Tells the log what the library is configured with. Whoever configured it looks there; the library itself
    /// says it only where it is traced.
    fn tell_settings(&self, config: &Path) {
        let mut settings = Vec::new();
        let read =
            File::open(config).and_then(|file| file.take(MOST_SETTINGS).read_to_end(&mut settings));
        if let Err(error) = read {
            tracing::warn!(path = %config.display(), %error, "VMware's library is configured by what can't be read");
        }
        let settings = String::from_utf8_lossy(&settings);
        let lines = settings.split_inclusive('\n');
        let lines = lines.map(|line| {
            let whole = line.ends_with('\n') || (settings.len() as u64) < MOST_SETTINGS;
            self.plain(line, whole)
        });
        for setting in lines.filter(|line| !line.is_empty()).take(SETTINGS) {
            tracing::info!("VMware's library is configured by {setting}");
        }
    }

    fn hear(&self, line: &str, whole: bool) {
        let plain = self.plain(line, whole);
        // What it traces is no message. Nor is for the log what the library may print past nbdkit: nobody knows
        // what is in it.
        let traced = plain.contains(": debug: ");
        if !traced && plain.starts_with("nbdkit:") {
            // Upstream's words.
            tracing::info!("Log line from nbdkit: {plain}");
        } else {
            tracing::debug!(line = plain, "nbdkit");
        }
        if traced {
            self.served.hear(&plain);
            return;
        }
        if plain.is_empty() {
            return;
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.0.len() >= LINES {
            lines.0.pop_front();
        }
        lines.0.push_back(plain);
    }

    /// A line as it may be shown: short, without the password and without what moves cursors.
    fn plain(&self, line: &str, whole: bool) -> String {
        let mut masked = if self.secret.is_empty() {
            line.to_owned()
        } else {
            line.replace(&self.secret, "***")
        };
        if !whole {
            // It may end with the beginning of the password.
            let keep = masked.chars().count().saturating_sub(self.secret.len());
            masked = masked.chars().take(keep).collect();
        }
        let plain = masked.trim().chars().filter(|c| !c.is_control());
        plain.take(LINE).collect()
    }

    fn end(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
    }

    /// What was said last comes a moment after the end.
    fn wait_for_the_end(&self) {
        for _ in 0..20 {
            if self.lines.lock().unwrap_or_else(PoisonError::into_inner).1 {
                return;
            }
            std::thread::sleep(TICK);
        }
    }

    fn told(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.0.iter().cloned().collect::<Vec<_>>().join(" / ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, secret: &str) -> String {
        let said = Said {
            lines: Mutex::default(),
            secret: secret.to_owned(),
            served: Served::default(),
        };
        said.listen(text.as_bytes());
        said.told()
    }

    #[test]
    fn the_last_lines_are_kept_and_the_password_is_not() {
        let text = "nbdkit: debug: much\nnbdkit: error: login hush\x07 failed\n\n";
        assert_eq!(said(text, "hush"), "nbdkit: error: login *** failed");
        let many: Vec<_> = (0..100).map(|n| format!("line {n}")).collect();
        let kept = said(&many.join("\n"), "");
        assert!(
            kept.starts_with("line 88 / ") && kept.ends_with("line 99"),
            "{kept}"
        );
        let endless = "x".repeat(1 << 20);
        assert!(said(&endless, "").len() <= LINES * (LINE + 3));
        for before in 2 * LINE - 20..2 * LINE + 20 {
            let cut = format!("{}hush{}", "-".repeat(before), "x".repeat(5000));
            let told = said(&cut, "hush");
            assert!(!told.contains('h') && !told.contains('u'), "{told}");
        }
    }

    #[test]
    fn the_password_is_in_no_argument() {
        let auth = crate::BasicAuth {
            user: "admin".into(),
            password: "hush".into(),
        };
        let mut disk = VddkDisk::new("vc", auth, "vm-1", "[ds] a/b.vmdk");
        disk.thumbprint = Some("AA:BB".into());
        let arguments = arguments(&disk, Path::new("/run/x")).unwrap();
        let text = format!("{arguments:?}");
        assert!(
            !text.contains("hush") && text.contains("password=+/run/x/password"),
            "{text}"
        );
        assert!(
            text.contains("vm=moref=vm-1") && text.contains("file=[ds] a/b.vmdk"),
            "{text}"
        );
        disk.file = "a\nb".into();
        let refused = super::arguments(&disk, Path::new("/run/x"));
        assert!(matches!(
            refused,
            Err(VddkError::Value { what: "path", .. })
        ));
    }
}
