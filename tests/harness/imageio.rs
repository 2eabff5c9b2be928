//! A real ovirt-imageio server, and a fake of the oVirt engine that hands out tickets for it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::gate::{Asked, Gate, Reply};
use crate::nbd::Server;
use crate::program::{Running, free_address, shell};

/// The version that `cargo xtask install` installs.
const VERSION: &str = "2.5.1";

/// The real server; it is ended when dropped.
#[derive(Debug)]
pub struct Imageio {
    _process: Running,
    ports: Ports,
    _directory: TempDir,
}

/// Where it listens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    control: u16,
    remote: SocketAddr,
}

fn program() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    let home = base.join(format!("longshore/ovirt-imageio-{VERSION}"));
    home.join("ready")
        .is_file()
        .then(|| home.join("bin/ovirt-imageio"))
}

impl Imageio {
    /// Starts one. `None`, with the reason, where it is not installed; in CI that is a failure.
    pub fn start() -> Option<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST.into())
    }

    /// The same on another address of this host.
    pub fn start_on(host: IpAddr) -> Option<Self> {
        let Some(program) = program() else {
            assert!(std::env::var_os("CI").is_none(), "ovirt-imageio is missing");
            eprintln!("skipped: ovirt-imageio {VERSION} is not installed (cargo xtask install)");
            return None;
        };
        Some(Self::of(&program, host))
    }

    fn of(program: &Path, host: IpAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (remote, control) = (
            SocketAddr::new(host, free_address().port()),
            free_address().port(),
        );
        let folder = directory.path().join("conf.d");
        std::fs::create_dir(&folder).unwrap();
        let configuration = format!(
            "[daemon]\nsystemd_enable = false\ndrop_privileges = false\nrun_dir = {0}\n\
             [tls]\nenable = false\n[local]\nenable = false\n\
             [remote]\nhost = {host}\nport = {1}\n\
             [control]\ntransport = tcp\nport = {control}\nremove_timeout = 10\n\
             [handlers]\nkeys = stderr\n[logger_root]\nhandlers = stderr\n",
            directory.path().display(),
            remote.port()
        );
        std::fs::write(folder.join("50-test.conf"), configuration).unwrap();
        let mut process = Command::new(program)
            .arg("--conf-dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("Ready for requests") {
            let n = log.read_line(&mut said).unwrap();
            assert!(n > 0, "ovirt-imageio ended: {said}");
        }
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self {
            _process: Running(process),
            ports: Ports { control, remote },
            _directory: directory,
        }
    }
}

impl Ports {
    fn ticket(self, method: &str, id: &str, body: &Value) -> u16 {
        let answer = self.asked(method, id, body);
        answer.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn asked(self, method: &str, id: &str, body: &Value) -> String {
        let mut control = TcpStream::connect(("127.0.0.1", self.control)).unwrap();
        let body = body.to_string();
        write!(
            control,
            "{method} /tickets/{id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        control.read_to_string(&mut answer).unwrap();
        answer
    }

    /// What the server knows of a ticket.
    fn knows(self, id: &str) -> bool {
        self.ticket("GET", id, &json!({})) == 200
    }
}

/// How an engine writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Answers {
    /// As it is asked to.
    #[default]
    Json,
    /// But for its single sign-on, which knows no XML.
    Xml,
}

/// What a fake engine does with a transfer.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// So many looks at a new transfer find it being initialized.
    pub initializing: u32,
    /// So many attempts to begin one find the disk locked.
    pub locked: u32,
    /// The phase it has instead of `transferring`.
    pub phase: Option<&'static str>,
    /// No single sign-on: passwords with each request.
    pub basic: bool,
    /// The server can't be reached directly.
    pub only_proxy: bool,
    /// The parent that it names for snapshots.
    pub parent: Option<&'static str>,
    /// Calls that begin so, by method and path, are answered with 503, each so many times.
    pub busy: Option<(&'static str, u32)>,
    /// How its answers are written, whatever is asked for.
    pub answers: Answers,
    /// A new transfer is ready at once, and only the answer that begins it says so: who looks is told nothing.
    pub at_once: bool,
}

#[derive(Debug, Default)]
struct State {
    /// The NBD server of transfers that are yet to begin.
    url: String,
    calls: Vec<String>,
    bodies: Vec<Value>,
    looks: u32,
    begun: u32,
    refused: u32,
    /// The phase that the system has put the transfer in.
    paused: Option<&'static str>,
    open: BTreeMap<String, Value>,
}

/// Not an engine: as much of one as tells whether its transfers are begun, kept and ended as they should.
#[derive(Debug)]
pub struct FakeEngine {
    gate: Gate,
    state: Arc<Mutex<State>>,
    imageio: Imageio,
}

/// Who may log in.
pub const USER: &str = "admin@internal";
/// With what.
pub const PASSWORD: &str = "open sesame";
const TOKEN: &str = "a-token-of-the-fake";

impl FakeEngine {
    /// One whose disk `disk-1` is what an NBD server has, `size` bytes.
    ///
    /// It listens where `imageio` does.
    pub fn start(imageio: Imageio, nbd: &Server, size: u64, behaviour: Behaviour) -> Self {
        let state = State {
            url: export(nbd),
            ..State::default()
        };
        let state = Arc::new(Mutex::new(state));
        let fake = Fake {
            state: Arc::clone(&state),
            imageio: imageio.ports,
            size,
            behaviour,
        };
        let host = imageio.ports.remote.ip().to_string();
        let gate = Gate::listen_on(&host, None, None, move |asked, _| {
            let (status, body) = fake.answer(asked);
            if fake.behaviour.answers == Answers::Xml && !asked.head.target.contains("/sso/") {
                let text = to_xml("answer", &body);
                Reply::say(
                    status,
                    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}"),
                )
                .with("Content-Type", "application/xml")
            } else {
                Reply::say(status, body.to_string()).with("Content-Type", "application/json")
            }
        });
        Self {
            gate,
            state,
            imageio,
        }
    }

    /// Its API.
    pub fn api(&self) -> String {
        self.gate.url("/ovirt-engine/api")
    }

    /// Host and port.
    pub fn host(&self) -> String {
        self.gate.address().to_string()
    }

    /// From now on the disk is what another NBD server has.
    pub fn put(&self, nbd: &Server) {
        self.lock().url = export(nbd);
    }

    /// Pauses the transfer, as the system does when its storage fails: the ticket is gone.
    pub fn pause(&self) {
        self.lock().paused = Some("paused_system");
        self.imageio
            .ports
            .ticket("DELETE", "transfer-1", &json!({}));
    }

    /// When the ticket of the transfer runs out, in seconds of the server's clock.
    pub fn expires(&self) -> u64 {
        let answer = self.imageio.ports.asked("GET", "transfer-1", &json!({}));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let ticket: Value = serde_json::from_str(body).unwrap();
        ticket["expires"].as_u64().unwrap()
    }

    /// What was asked of it, method and path.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// The bodies of requests for transfers.
    pub fn wanted(&self) -> Vec<Value> {
        self.lock().bodies.clone()
    }

    /// How often `what` is part of a call.
    pub fn count(&self, what: &str) -> usize {
        self.calls()
            .iter()
            .filter(|call| call.contains(what))
            .count()
    }

    /// No transfer is open, and no ticket for one.
    pub fn is_quiet(&self) -> bool {
        self.lock().open.is_empty() && !self.imageio.ports.knows("transfer-1")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How imageio names what a server has.
fn export(server: &Server) -> String {
    format!("nbd:unix:{}", server.socket().display())
}

/// An element as an engine writes it: ids are attributes, and the rest is inside.
fn to_xml(name: &str, value: &Value) -> String {
    let escaped = |text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        text.replace('"', "&quot;")
    };
    match value {
        Value::Array(many) => many.iter().map(|one| to_xml(name, one)).collect(),
        Value::Object(parts) => {
            let id = parts.get("id").and_then(Value::as_str);
            let id = id.map(|id| format!(" href=\"/{name}/{0}\" id=\"{0}\"", escaped(id)));
            let inside = parts.iter().filter(|(name, _)| *name != "id");
            let inside: Vec<_> = inside.map(|(name, part)| to_xml(name, part)).collect();
            let (id, inside) = (id.unwrap_or_default(), inside.join("\n  "));
            format!("<{name}{id}>\n  {inside}</{name}>")
        }
        Value::String(text) => format!("<{name}>{}</{name}>", escaped(text)),
        other => format!("<{name}>{other}</{name}>"),
    }
}

/// Puts the layer `top.qcow2` on `base.raw` in a folder, with changes that are options of `qemu-io`; `now.raw` is
/// what the disk has then.
pub fn layers(folder: &Path, changes: &str) {
    let script = format!(
        "qemu-img create -q -f qcow2 -b base.raw -F raw top.qcow2
        qemu-io -f qcow2 {changes} top.qcow2
        qemu-img convert -O raw top.qcow2 now.raw"
    );
    shell(folder, &script);
}

/// Only the top layer of a folder, as the host serves a shallow transfer.
pub fn shallow(folder: &Path) -> Server {
    let file = json!({"driver": "file", "filename": folder.join("top.qcow2")});
    let top = json!({"driver": "qcow2", "backing": null, "file": file});
    Server::qemu_with(&["--allocation-depth"], Path::new(&format!("json:{top}")))
}

struct Fake {
    state: Arc<Mutex<State>>,
    /// The server itself ends with the engine, which this thread of its outlives.
    imageio: Ports,
    size: u64,
    behaviour: Behaviour,
}

impl Fake {
    fn answer(&self, asked: &Asked) -> (u16, Value) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{} {}", asked.head.method, asked.head.target);
        state.calls.push(line.clone());
        let line = line.as_str();
        if line == "POST /ovirt-engine/sso/oauth/token" {
            if self.is_busy(&mut state, line) {
                return (503, json!({"detail": "the engine is starting"}));
            }
            return self.token(&asked.body);
        }
        let known = if self.behaviour.basic {
            // admin@internal:open sesame
            "Basic YWRtaW5AaW50ZXJuYWw6b3BlbiBzZXNhbWU=".to_owned()
        } else {
            format!("Bearer {TOKEN}")
        };
        if asked.header("authorization") != Some(known.as_str()) {
            return (401, json!({"reason": "Unauthorized"}));
        }
        if self.is_busy(&mut state, line) {
            return (503, json!({"detail": "the engine is starting"}));
        }
        let Some((method, path)) = line.split_once(" /ovirt-engine/api/") else {
            return (404, json!({}));
        };
        match (method, path) {
            ("GET", "disks/disk%2D1") => {
                let domains = json!({"storage_domain": [{"id": "sd-0"}, {"id": "sd-1"}]});
                (
                    200,
                    json!({"id": "disk-1", "image_id": "image-9", "storage_domains": domains}),
                )
            }
            ("GET", "storagedomains/sd%2D0/disksnapshots") => (200, json!({})),
            ("GET", "storagedomains/sd%2D1/disksnapshots") => {
                let mut snapshot = json!({"id": "image-2"});
                if let Some(parent) = self.behaviour.parent {
                    snapshot["parent"] = json!({"id": parent});
                }
                (200, json!({"disk_snapshot": [{"id": "image-1"}, snapshot]}))
            }
            ("POST", "imagetransfers") => self.begin(&mut state, &asked.body),
            _ => self.transfer(&mut state, method, path),
        }
    }

    fn is_busy(&self, state: &mut State, line: &str) -> bool {
        let Some((calls, times)) = self.behaviour.busy else {
            return false;
        };
        if !line.starts_with(calls) || state.refused >= times {
            return false;
        }
        state.refused += 1;
        true
    }

    fn token(&self, body: &str) -> (u16, Value) {
        if self.behaviour.basic {
            return (404, json!({}));
        }
        let expected = "grant_type=password&scope=ovirt-app-api&username=admin%40internal&password=open+sesame";
        if body == expected {
            (
                200,
                json!({"access_token": TOKEN, "scope": "ovirt-app-api"}),
            )
        } else {
            (
                400,
                json!({"error": "access_denied", "error_description": "Cannot authenticate user"}),
            )
        }
    }

    fn begin(&self, state: &mut State, body: &str) -> (u16, Value) {
        state.begun += 1;
        if state.begun <= self.behaviour.locked {
            let detail = "[Cannot transfer Virtual Disk: Disk is locked. Please try again later.]";
            return (409, json!({"reason": "Operation Failed", "detail": detail}));
        }
        let wanted: Value = serde_json::from_str(body).unwrap();
        state.bodies.push(wanted.clone());
        let dirty = wanted.get("backup").is_some();
        let inactivity: u64 = wanted["inactivity_timeout"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let ticket = json!({
            "uuid": "transfer-1", "size": self.size, "url": state.url, "timeout": 300,
            "inactivity_timeout": inactivity, "ops": ["read"], "dirty": dirty,
        });
        assert_eq!(self.imageio.ticket("PUT", "transfer-1", &ticket), 200);
        state.open.insert("transfer-1".to_owned(), wanted);
        if self.behaviour.at_once {
            return (201, self.transferring("transferring"));
        }
        (201, json!({"id": "transfer-1", "phase": "initializing"}))
    }

    /// A transfer as it is told.
    fn transferring(&self, phase: &str) -> Value {
        let url = format!("http://{}/images/transfer-1", self.imageio.remote);
        let nowhere = format!(
            "http://127.0.0.1:{}/images/transfer-1",
            free_address().port()
        );
        let direct = if self.behaviour.only_proxy {
            &nowhere
        } else {
            &url
        };
        json!({"id": "transfer-1", "phase": phase, "transfer_url": direct, "proxy_url": url})
    }

    fn transfer(&self, state: &mut State, method: &str, path: &str) -> (u16, Value) {
        let Some(verb) = path.strip_prefix("imagetransfers/transfer%2D1") else {
            return (404, json!({}));
        };
        if state.open.is_empty() {
            return (404, json!({}));
        }
        match (method, verb) {
            ("GET", "") if self.behaviour.at_once => (200, json!({})),
            ("GET", "") => {
                state.looks += 1;
                let phase = match self.behaviour.phase {
                    _ if state.looks <= self.behaviour.initializing => "initializing",
                    _ if state.paused.is_some() => state.paused.unwrap(),
                    Some(phase) => phase,
                    None => "transferring",
                };
                (200, self.transferring(phase))
            }
            ("POST", "/extend") => {
                let status = self
                    .imageio
                    .ticket("PATCH", "transfer-1", &json!({"timeout": 300}));
                (status, json!({}))
            }
            ("POST", "/finalize" | "/cancel") => {
                let status = self.imageio.ticket("DELETE", "transfer-1", &json!({}));
                assert!(matches!(status, 204 | 409), "{status}");
                state.open.clear();
                (200, json!({"status": "complete"}))
            }
            _ => (404, json!({})),
        }
    }
}
