//! Debian's docker-registry, and skopeo to fill it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::gate::Upstream;
use crate::http::Authority;
use crate::program::{Running, have, run};

/// A line for a file of accounts: `ann` with the password `s3cret`, by bcrypt with the least work there is.
pub const ANN: &str = "ann:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

/// The tools are there.
pub fn have_all() -> bool {
    ["docker-registry", "skopeo"].into_iter().all(have)
}

/// Who may pull.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// No questions asked.
    #[default]
    Everybody,
    /// [`ANN`].
    Password,
    /// Whoever has a token: the address of who gives them, and the file with its certificate.
    Token(String, PathBuf),
}

/// A running registry. It ends when it is dropped.
#[derive(Debug)]
pub struct Registry {
    _process: Running,
    directory: TempDir,
    address: String,
}

impl Registry {
    /// One for everybody, over plain HTTP.
    pub fn start() -> Self {
        Self::with(&Access::Everybody, None)
    }

    /// One for some, or over TLS.
    pub fn with(access: &Access, tls: Option<&Authority>) -> Self {
        Self::over(tempfile::tempdir().unwrap(), access, tls)
    }

    /// The same over what another one left.
    pub fn over(directory: TempDir, access: &Access, tls: Option<&Authority>) -> Self {
        let at = |name: &str| directory.path().join(name);
        let mut config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:0\n",
            at("data").display()
        );
        if let Some(authority) = tls {
            let (certificate, key) = authority.issue(&["127.0.0.1", "localhost"]);
            std::fs::write(at("cert.pem"), certificate).unwrap();
            std::fs::write(at("key.pem"), key).unwrap();
            write!(
                config,
                "  tls:\n    certificate: {}\n    key: {}\n",
                at("cert.pem").display(),
                at("key.pem").display()
            )
            .unwrap();
        }
        match access {
            Access::Everybody => {}
            Access::Password => {
                std::fs::write(at("htpasswd"), ANN).unwrap();
                write!(
                    config,
                    "auth:\n  htpasswd:\n    realm: r\n    path: {}\n",
                    at("htpasswd").display()
                )
                .unwrap();
            }
            Access::Token(realm, certificate) => write!(
                config,
                "auth:\n  token:\n    realm: {realm}\n    service: longshore-test\n    \
                 issuer: longshore-issuer\n    rootcertbundle: {}\n",
                certificate.display()
            )
            .unwrap(),
        }
        std::fs::write(at("config.yml"), config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(at("config.yml"))
            .env_remove("OTEL_TRACES_EXPORTER")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, rest) = line.split_once("listening on ")?;
                let end = rest.find(['"', ',']).unwrap_or(rest.len());
                Some(rest[..end].to_owned())
            })
            .expect("docker-registry ended without listening");
        // It ends if nobody takes what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            _process: Running(child),
            directory,
            address,
        }
    }

    /// Ends it, and keeps what it has.
    pub fn stop(self) -> TempDir {
        self.directory
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it listens.
    pub fn upstream(&self) -> Upstream {
        Upstream::Tcp(self.address.parse().unwrap())
    }

    /// How an image there is called.
    pub fn name(&self, image: &str) -> String {
        format!("docker://{}/{image}", self.address)
    }

    /// Copies an image to `image`, with skopeo and these options of it.
    pub fn copy(&self, options: &[&str], from: &str, image: &str) {
        let mut command = skopeo();
        command.args(["--dest-tls-verify=false", "--dest-creds=ann:s3cret"]);
        run(command.args(options).args([from, &self.name(image)]));
    }
}

/// `skopeo copy`.
pub fn skopeo() -> Command {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--quiet"]);
    command
}
