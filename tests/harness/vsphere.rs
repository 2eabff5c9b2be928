//! A vCenter with one machine: govmomi's simulator, with a fake of changed block tracking (`tools/vsphere`).

use std::io::{BufRead, BufReader};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::program::run;
use crate::stores::find;

/// Who may log in.
pub const USER: &str = "administrator@vsphere.local";
/// With this.
pub const PASSWORD: &str = "open <&> sesame";

/// The simulator, ended when dropped.
#[derive(Debug)]
pub struct Simulator {
    child: Child,
    /// `HOST:PORT`.
    pub address: String,
    told: Value,
}

impl Simulator {
    /// One whose machine has a disk, and a snapshot of it for each of `1.raw`, `2.raw`.. in `folder`.
    /// `None` if it is not installed.
    pub fn start(folder: &Path) -> Option<Self> {
        let program = find("LONGSHORE_VSPHERE_SIMULATOR", "vsphere-simulator");
        program.map(|program| Self::run(&program, folder))
    }

    fn run(program: &Path, folder: &Path) -> Self {
        let mut child = Command::new(program)
            .arg(folder)
            .env("USER", USER)
            .env("PASSWORD", PASSWORD)
            // It ends when this does.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let address = told["address"].as_str().unwrap().to_owned();
        Self {
            child,
            address,
            told,
        }
    }

    fn text(&self, what: &str) -> &str {
        self.told[what].as_str().unwrap()
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// The same simulator at another address of this machine, for those who do not see its own.
    pub fn at(&self, host: &str) -> SocketAddr {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let own = self.address.clone();
        std::thread::spawn(move || {
            for outer in listener.incoming().map_while(Result::ok) {
                // It may have ended: then so does this connection.
                let Ok(inner) = TcpStream::connect(&own) else {
                    continue;
                };
                relay(outer.try_clone().unwrap(), inner.try_clone().unwrap());
                relay(inner, outer);
            }
        });
        address
    }

    /// SHA-1 of its certificate.
    pub fn thumbprint(&self) -> &str {
        self.text("sha1")
    }

    /// SHA-256 of the same.
    pub fn long_thumbprint(&self) -> &str {
        self.text("sha256")
    }

    /// The machine's reference.
    pub fn machine(&self) -> &str {
        self.text("vm")
    }

    /// The machine's uuid.
    pub fn uuid(&self) -> &str {
        self.text("uuid")
    }

    /// vCenter's uuid for it.
    pub fn instance_uuid(&self) -> &str {
        self.text("instance")
    }

    /// The disk's file before there were snapshots.
    pub fn file(&self) -> &str {
        self.text("file")
    }

    /// The file of the disk in a snapshot, counted from 1.
    pub fn file_in(&self, snapshot: usize) -> String {
        match snapshot {
            1 => self.file().to_owned(),
            n => self.file().replace(".vmdk", &format!("-{:06}.vmdk", n - 1)),
        }
    }

    /// The reference of a snapshot, counted from 1.
    pub fn snapshot(&self, n: usize) -> &str {
        self.told["snapshots"][n - 1].as_str().unwrap()
    }

    /// The changeId of the disk in a snapshot.
    pub fn change(&self, n: usize) -> String {
        format!("{}{n}", self.text("life"))
    }

    /// How often a method was called.
    pub fn calls(&self, method: &str) -> u64 {
        let calls: Value = serde_json::from_str(&self.ask("calls")).unwrap();
        calls[method].as_u64().unwrap_or(0)
    }

    /// Ends all sessions.
    pub fn expire(&self) {
        assert_eq!(self.ask("expire").trim(), "ended");
    }

    /// Has the next calls of a method end in a fault.
    pub fn fail(&self, method: &str, fault: &str, times: u32) {
        let what = format!("fail?method={method}&fault={fault}&times={times}");
        assert_eq!(self.ask(&what).trim(), "ready");
    }

    fn ask(&self, what: &str) -> String {
        let url = format!("https://{}/test/{what}", self.address);
        let args = ["--insecure", "--silent", "--fail", &url];
        String::from_utf8(run(Command::new("curl").args(args))).unwrap()
    }
}

/// Passes on what comes, until either end has had enough.
fn relay(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Write));
    });
}

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
