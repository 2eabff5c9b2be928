//! Object stores: real ones, started for a test and filled by curl, whose signatures are its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::gate::{Gate, Upstream};
use crate::program::{Running, free_address, run, silent};

/// What versitygw is told, and what opens it.
pub const ACCESS_KEY: &str = "LONGSHORETESTKEY";
/// The secret that goes with it.
pub const SECRET_KEY: &str = "s3cret/of+the=test";
/// The region it insists on.
pub const REGION: &str = "eu-test-1";
/// Buckets can be parts of host names below this one.
pub const DOMAIN: &str = "objects.test";

/// A program that a variable of the environment names (`cargo xtask test` sets it), or that is on the path. One
/// that is missing is a failure in CI, elsewhere a skip that names itself.
pub fn find(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    assert!(
        found.is_some() || std::env::var_os("CI").is_none(),
        "{name} is missing, and this is CI: `cargo xtask test` builds it and sets {variable}"
    );
    if found.is_none() {
        eprintln!("skipped: {name} is not installed (cargo xtask test builds it)");
    }
    found
}

fn start(command: &mut Command) -> Running {
    Running(silent(command.stdin(Stdio::null())))
}

/// versitygw over a directory, on a socket: <https://github.com/versity/versitygw>.
#[derive(Debug)]
pub struct Versity {
    directory: TempDir,
    _server: Running,
}

impl Versity {
    /// `None` if it is not installed.
    pub fn start() -> Option<Self> {
        let program = find("LONGSHORE_VERSITYGW", "versitygw")?;
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let socket = directory.path().join("socket");
        let mut server = start(
            Command::new(program)
                .env("ROOT_ACCESS_KEY", ACCESS_KEY)
                .env("ROOT_SECRET_KEY", SECRET_KEY)
                .arg("--port")
                .arg(&socket)
                .args(["--region", REGION, "--virtual-domain", DOMAIN, "--quiet"])
                .arg("posix")
                .arg(&root),
        );
        assert!(server.gets_ready(|| UnixStream::connect(&socket).is_ok()));
        let versity = Self {
            directory,
            _server: server,
        };
        versity.curl("/disks", &["--request", "PUT"]);
        versity.curl("/public", &["--request", "PUT"]);
        let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::public/*"]}]}"#;
        versity.put_bytes("/public?policy=", policy.as_bytes());
        Some(versity)
    }

    /// Where it listens.
    pub fn upstream(&self) -> Upstream {
        Upstream::Unix(self.directory.path().join("socket"))
    }

    /// Puts a file at a path, which is encoded as in a URL.
    pub fn put(&self, path: &str, file: &Path) {
        self.curl(path, &["--upload-file", file.to_str().unwrap()]);
    }

    /// The same with bytes.
    pub fn put_bytes(&self, path: &str, bytes: &[u8]) {
        let file = self.directory.path().join("upload");
        std::fs::write(&file, bytes).unwrap();
        self.put(path, &file);
    }

    /// Puts an object in two parts, so that its `ETag` is no digest of it.
    pub fn put_in_parts(&self, path: &str, bytes: &[u8]) {
        let answer = self.curl(&format!("{path}?uploads="), &["--request", "POST"]);
        let id = between(&answer, "<UploadId>", "</UploadId>").to_owned();
        // The least a part may have.
        let (first, second) = bytes.split_at(5 << 20);
        let parts = [(1, first), (2, second)].map(|(number, part)| {
            let file = self.directory.path().join("upload");
            std::fs::write(&file, part).unwrap();
            let target = format!("{path}?partNumber={number}&uploadId={id}");
            let file = file.to_str().unwrap();
            let answer = self.curl(&target, &["--include", "--upload-file", file]);
            let tag = answer.lines().find_map(|line| line.strip_prefix("ETag:"));
            let tag = tag.unwrap().trim();
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
        });
        let list = format!(
            "<CompleteMultipartUpload>{}</CompleteMultipartUpload>",
            parts.concat()
        );
        self.curl(
            &format!("{path}?uploadId={id}"),
            &["--request", "POST", "--data-raw", &list],
        );
    }

    fn curl(&self, path: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--show-error",
            "--fail-with-body",
            "--path-as-is",
        ]);
        command.arg("--unix-socket");
        command.arg(self.directory.path().join("socket"));
        command
            .arg("--aws-sigv4")
            .arg(format!("aws:amz:{REGION}:s3"));
        command
            .arg("--user")
            .arg(format!("{ACCESS_KEY}:{SECRET_KEY}"));
        command.args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]);
        command.args(["--header", "Expect:"]).args(arguments);
        command.arg(format!("http://localhost{path}"));
        String::from_utf8(run(&mut command)).unwrap()
    }
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let (_, rest) = text.split_once(before).unwrap();
    rest.split_once(after).unwrap().0
}

/// fake-gcs-server, in memory: <https://github.com/fsouza/fake-gcs-server>. It checks no credentials.
#[derive(Debug)]
pub struct Gcs {
    address: SocketAddr,
    _server: Running,
}

impl Gcs {
    /// One that is asked through `gate`, and has to know it by its address. `None` if it is not installed.
    pub fn behind(gate: &Gate) -> Option<Self> {
        let program = find("LONGSHORE_FAKE_GCS_SERVER", "fake-gcs-server")?;
        // It cannot be given a port that is bound already: somebody may be faster.
        for _ in 0..10 {
            let address = free_address();
            let mut server = start(Command::new(&program).args([
                "-scheme=http",
                "-host=127.0.0.1",
                "-backend=memory",
                &format!("-port={}", address.port()),
                &format!("-public-host={}", gate.address()),
            ]));
            if server
                .gets_ready(|| request(address, "GET", "/_internal/healthcheck", b"").is_some())
            {
                let gcs = Self {
                    address,
                    _server: server,
                };
                gcs.post("/storage/v1/b", br#"{"name":"disks"}"#);
                gate.put_before(Upstream::Tcp(address));
                return Some(gcs);
            }
        }
        panic!("no port is free for long enough");
    }

    /// Puts bytes at a name, which is encoded as in a URL.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let path = format!("/upload/storage/v1/b/disks/o?uploadType=media&name={name}");
        self.post(&path, bytes);
    }

    fn post(&self, path: &str, body: &[u8]) {
        let status = request(self.address, "POST", path, body).unwrap();
        assert!(status.contains(" 200 "), "{path}: {status}");
    }
}

/// The status line that comes for a request.
fn request(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> Option<String> {
    let mut wire = TcpStream::connect(address).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    wire.write_all(head.as_bytes()).ok()?;
    wire.write_all(body).ok()?;
    let mut wire = BufReader::new(wire);
    let mut status = String::new();
    wire.read_line(&mut status).ok()?;
    let mut rest = Vec::new();
    wire.read_to_end(&mut rest).ok()?;
    Some(status)
}
