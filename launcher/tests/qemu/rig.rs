//! A guest under the real supervisor, on a thread of its own, with everything it tells kept.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use longshore_launcher::accel::Accelerator;
use longshore_launcher::supervisor::{
    Command, ConsoleMode, Control, Disposition, Notice, Options, Outcome, Request, Supervisor,
};

use crate::host::QEMU;

/// Longer than anything takes here, however busy the machine; tests fail by it, never pass by it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// How to run a guest; `Setup::new(sector)` and struct update for the rest.
pub(crate) struct Setup {
    pub(crate) sector: Vec<u8>,
    pub(crate) accelerator: Accelerator,
    pub(crate) grace: Duration,
    pub(crate) timeout: Option<Duration>,
    pub(crate) start_paused: bool,
    /// The `-blockdev` of the disk, node name `disk`; `$FILE` is its path.
    pub(crate) blockdev: &'static str,
    pub(crate) extra: &'static [&'static str],
}

impl Setup {
    pub(crate) fn new(sector: Vec<u8>) -> Self {
        Self {
            sector,
            accelerator: Accelerator::Tcg,
            grace: DEADLINE,
            timeout: Some(DEADLINE),
            start_paused: false,
            blockdev: r#"{"driver":"raw","node-name":"disk","file":{"driver":"file","filename":"$FILE","locking":"on"}}"#,
            extra: &[],
        }
    }

    /// Writes the disk into `dir` and says how to run it.
    pub(crate) fn command(&self, dir: &Path) -> Command {
        let disk = dir.join("disk.img");
        self.write_disk(&disk);
        let blockdev = self.blockdev.replace("$FILE", disk.to_str().unwrap());
        let mut args: Vec<OsString> = [
            "-nodefaults",
            "-no-user-config",
            "-S",
            "-display",
            "none",
            "-machine",
            "q35",
            "-accel",
            self.accelerator.name(),
            "-m",
            "32",
            "-sandbox",
            "on",
            "-qmp",
            "unix:qmp.sock,server=on,wait=off",
            "-chardev",
            "socket,id=serial,path=serial.sock,server=on,wait=off",
            "-serial",
            "chardev:serial",
            "-blockdev",
            &blockdev,
            "-device",
            "virtio-blk-pci,drive=disk,id=ua-disk,bootindex=0",
        ]
        .into_iter()
        .map(OsString::from)
        .collect();
        args.extend(self.extra.iter().map(OsString::from));
        Command {
            program: PathBuf::from(QEMU),
            args,
            dir: dir.to_owned(),
            files: Vec::new(),
            qmp_socket: dir.join("qmp.sock"),
            serial_socket: Some(dir.join("serial.sock")),
            vnc_socket: None,
            serial_log: Some(dir.join("console.log")),
            grace: self.grace,
            start_paused: self.start_paused,
        }
    }

    pub(crate) fn write_disk(&self, disk: &Path) {
        let mut image = vec![0; 1 << 20];
        image[..512].copy_from_slice(&self.sector);
        image[512..1024].copy_from_slice(&second_sector());
        std::fs::write(disk, image).unwrap();
    }

    pub(crate) fn start(self) -> Vm {
        let dir = tempfile::tempdir().unwrap();
        let command = self.command(dir.path());
        let heard = Heard::default();
        let notices = Arc::clone(&heard.0);
        let options = Options {
            console: ConsoleMode::Off,
            timeout: self.timeout,
            signals: false,
            on_event: Box::new(move |notice| {
                notices.0.lock().unwrap().push(notice.clone());
                notices.1.notify_all();
            }),
        };
        let (supervisor, control) = Supervisor::new(command, options);
        let thread = std::thread::spawn(move || supervisor.run().expect("qemu could be run"));
        Vm {
            dir,
            heard,
            control,
            thread,
        }
    }
}

/// What is on the disk behind the boot sector.
pub(crate) fn second_sector() -> Vec<u8> {
    (0..512_u16)
        .map(|index| (index * 7 + 3).to_le_bytes()[0])
        .collect()
}

#[derive(Default)]
struct Heard(Arc<(Mutex<Vec<Notice>>, Condvar)>);

pub(crate) struct Vm {
    dir: tempfile::TempDir,
    heard: Heard,
    control: Control,
    thread: JoinHandle<Outcome>,
}

/// What is left of a run.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) notices: Vec<Notice>,
    /// The console's log.
    pub(crate) log: String,
    pub(crate) dir: tempfile::TempDir,
}

impl Vm {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn ask(&self, request: Request) -> Disposition {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(self.control.submit(request))
    }

    /// Waits until something is told.
    pub(crate) fn told(&self, wanted: impl Fn(&Notice) -> bool) -> Notice {
        self.told_times(1, wanted)
    }

    /// Waits until such things have been told this often.
    pub(crate) fn told_times(&self, times: usize, wanted: impl Fn(&Notice) -> bool) -> Notice {
        let (notices, changed) = &*self.heard.0;
        let given_up = Instant::now() + DEADLINE;
        let mut notices = notices.lock().unwrap();
        loop {
            if let Some(notice) = notices
                .iter()
                .filter(|notice| wanted(notice))
                .nth(times - 1)
            {
                return notice.clone();
            }
            let left = given_up.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "never told; only {notices:#?}");
            notices = changed.wait_timeout(notices, left).unwrap().0;
        }
    }

    pub(crate) fn console(&self) -> Client {
        Client::connect(&self.path("console.sock"))
    }

    pub(crate) fn join(self) -> Ended {
        let outcome = self.thread.join().unwrap();
        let notices = self.heard.0.0.lock().unwrap().clone();
        let log = std::fs::read_to_string(self.dir.path().join("console.log")).unwrap();
        Ended {
            outcome,
            notices,
            log,
            dir: self.dir,
        }
    }
}

impl Ended {
    pub(crate) fn was_told(&self, wanted: impl Fn(&Notice) -> bool) -> bool {
        self.notices.iter().any(wanted)
    }
}

/// A client of the console socket.
pub(crate) struct Client(UnixStream);

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = eventually("the console socket", || UnixStream::connect(socket).ok());
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(stream)
    }

    /// Reads until the text was seen; gives all that was read.
    pub(crate) fn expect(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(text.as_bytes()) {
            let read = self.0.read(&mut byte).unwrap_or_else(|error| {
                panic!(
                    "no {text:?} but {:?}: {error}",
                    String::from_utf8_lossy(&seen)
                )
            });
            assert!(
                read == 1,
                "ended without {text:?}: {:?}",
                String::from_utf8_lossy(&seen)
            );
            seen.push(byte[0]);
        }
        String::from_utf8(seen).unwrap()
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }
}

/// Tries until there is an answer; fails at the deadline.
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let given_up = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < given_up, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
