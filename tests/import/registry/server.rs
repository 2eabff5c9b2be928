//! Debian's docker-registry, and skopeo to fill it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use longshore_tests::http::Authority;
use longshore_tests::program::{have, run};
use tempfile::TempDir;

use super::image::Images;

/// The tools are there.
pub(super) fn have_all() -> bool {
    ["docker-registry", "skopeo", "gzip", "zstd"]
        .iter()
        .all(|tool| have(tool))
}

/// Who may pull.
#[derive(Debug, Clone, Default)]
pub(super) enum Access {
    #[default]
    Everybody,
    /// `ann` with the password `s3cret`.
    Password,
    /// Whoever has a token: the address of who gives them, and the file with its certificate.
    Token(String, PathBuf),
}

/// A running registry. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Registry {
    child: Child,
    directory: TempDir,
    address: String,
    secure: bool,
}

impl Registry {
    pub(super) fn start() -> Self {
        Self::with(&Access::Everybody, None)
    }

    pub(super) fn with(access: &Access, tls: Option<&Authority>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::over(directory, access, tls)
    }

    /// The same over what another one left.
    pub(super) fn over(directory: TempDir, access: &Access, tls: Option<&Authority>) -> Self {
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
                // bcrypt of s3cret, with the least work there is.
                let line = "ann:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";
                std::fs::write(at("htpasswd"), line).unwrap();
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
            child,
            directory,
            address,
            secure: tls.is_some(),
        }
    }

    /// Ends it, and keeps what it has.
    pub(super) fn stop(mut self) -> TempDir {
        self.end();
        std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap())
    }

    /// Host and port.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn name(&self, image: &str) -> String {
        format!("docker://{}/{image}", self.address)
    }

    /// Copies an image of a layout to `image`, with skopeo.
    pub(super) fn push(&self, images: &Images, tag: &str, image: &str) {
        let layout = tempfile::tempdir().unwrap();
        images.write(layout.path());
        self.copy(&format!("oci:{}:{tag}", layout.path().display()), image);
    }

    fn copy(&self, from: &str, image: &str) {
        let mut command = skopeo();
        command.args(["--all", "--preserve-digests", "--dest-tls-verify=false"]);
        if self.secure {
            command.args(["--dest-creds", "ann:s3cret"]);
        }
        run(command.arg(from).arg(self.name(image)));
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.end();
    }
}

/// `skopeo copy`.
pub(super) fn skopeo() -> Command {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--quiet"]);
    command
}

/// A file in a temporary directory, for a command.
pub(super) fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}
