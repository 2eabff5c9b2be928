//! The web server that images are imported from: nginx, as a process of ours on loopback.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::shell;

const PATIENCE: Duration = Duration::from_secs(10);

/// Ended when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Serves the files of `root`, and keeps its own in `scratch`.
    pub(super) fn start(nginx: &Path, root: &Path, scratch: &Path) -> Result<Self> {
        // Free a moment ago, and numbers are not handed out again at once.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .context("looking for a free port")?
            .port();
        let config = scratch.join("nginx.conf");
        fs::write(&config, configuration(root, scratch, port)).context("configuring nginx")?;
        let mut child = Command::new(nginx)
            .arg("-p")
            .arg(scratch)
            .arg("-e")
            .arg(scratch.join("nginx.log"))
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", nginx.display()))?;
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let over = child.try_wait().context("waiting for nginx")?;
            if over.is_some() || started.elapsed() > PATIENCE {
                drop(child.kill());
                drop(child.wait());
                let said = fs::read_to_string(scratch.join("nginx.log")).unwrap_or_default();
                bail!("nginx does not answer: {}", said.trim());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { child, port })
    }

    pub(super) fn url(&self, file: &str) -> String {
        format!("http://127.0.0.1:{}/{file}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The one that xtask unpacked, or the machine's own.
pub(super) fn find(given: Option<&Path>) -> Result<PathBuf> {
    let found = given.map(Path::to_owned);
    found.or_else(|| shell::program("nginx")).context(
        "nginx is not there: `cargo xtask bench` unpacks it from the distribution's package",
    )
}

/// One process that sends whole files from the page cache, and writes down nothing.
pub(crate) fn configuration(root: &Path, scratch: &Path, port: u16) -> String {
    let (root, scratch) = (root.display(), scratch.display());
    let mut text = format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {scratch}/nginx.pid;\n\
         error_log {scratch}/nginx.log error;\nevents {{ worker_connections 256; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  sendfile_max_chunk 2m;\n  tcp_nopush on;\n\
         \x20 keepalive_requests 1000000;\n  default_type application/octet-stream;\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        text.extend([format!("  {kind}_temp_path {scratch}/nginx-{kind};\n")]);
    }
    text.extend([format!(
        "  server {{ listen 127.0.0.1:{port}; root \"{root}\"; }}\n}}\n"
    )]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_the_folder_and_listens_on_loopback_only() {
        let text = configuration(Path::new("/images"), Path::new("/scratch"), 4711);
        assert!(
            text.contains("listen 127.0.0.1:4711; root \"/images\";"),
            "{text}"
        );
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
