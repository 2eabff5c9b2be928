//! The cluster: `kubectl`, and its proxy where many objects are made at once.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// Requests at the same time.
const AT_ONCE: usize = 16;
/// For what others do before the measurement.
const PATIENCE: Duration = Duration::from_mins(10);

/// It.
pub(super) struct Api {
    kubectl: PathBuf,
    config: PathBuf,
    proxy: Child,
    address: String,
}

impl Drop for Api {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.proxy.kill());
        drop(self.proxy.wait());
    }
}

impl Api {
    pub(super) fn start(kubectl: &Path, config: &Path) -> Result<Self> {
        let mut proxy = Command::new(kubectl)
            .arg("--kubeconfig")
            .arg(config)
            .args(["proxy", "--port=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting kubectl proxy")?;
        let output = proxy.stdout.take().context("a piped child has an output")?;
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        let address = line
            .trim()
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .to_owned();
        let api = Self {
            kubectl: kubectl.to_owned(),
            config: config.to_owned(),
            proxy,
            address,
        };
        read.context("reading where kubectl proxy listens")?;
        ensure!(api.address.contains(':'), "kubectl proxy said: {line}");
        Ok(api)
    }

    fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.config);
        command
    }

    /// What `kubectl` says.
    pub(super) fn ask(&self, args: &[&str]) -> Result<String> {
        let output = self.kubectl().args(args).output();
        let output = output.with_context(|| format!("kubectl {}", args.join(" ")))?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Those of these objects that there are, and in which phase each is.
    pub(super) fn phases(
        &self,
        namespace: &str,
        resource: &str,
        names: &[&str],
    ) -> Result<Vec<(String, String)>> {
        let columns = "custom-columns=NAME:.metadata.name,PHASE:.status.phase";
        let how = ["--ignore-not-found", "--no-headers", "-o", columns];
        let said = self.ask(&[&["get", "-n", namespace, resource], names, &how].concat())?;
        let lines = said.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        });
        Ok(lines.collect())
    }

    pub(super) fn apply(&self, object: &Value) -> Result<()> {
        let mut child = self
            .kubectl()
            .args(["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("starting kubectl")?;
        let mut input = child.stdin.take().context("a piped child has an input")?;
        input
            .write_all(object.to_string().as_bytes())
            .context("telling kubectl what to apply")?;
        drop(input);
        let status = child.wait().context("waiting for kubectl")?;
        ensure!(status.success(), "kubectl apply failed ({status})");
        Ok(())
    }

    /// Makes objects, as fast as the API server takes them.
    pub(super) fn make(&self, path: &str, objects: Vec<String>) -> Result<()> {
        Self::each(objects, |object| {
            self.send("POST", path, "application/json", &object)
        })
    }

    /// A fake binder: says of claims that they have the volumes of their names. The controller manager's does
    /// one claim after the other, and would be what is measured.
    pub(super) fn bind(&self, namespace: &str, claims: Vec<String>) -> Result<()> {
        Self::each(claims, |claim| {
            let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}");
            let bound = json!({
                "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
                "spec": {"volumeName": claim},
            });
            let status = json!({"status": {
                "phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"},
            }});
            let merge = "application/merge-patch+json";
            self.send("PATCH", &path, merge, &bound.to_string())?;
            self.send(
                "PATCH",
                &format!("{path}/status"),
                merge,
                &status.to_string(),
            )
        })
    }

    /// Does something with each of these, with several at a time.
    fn each(items: Vec<String>, act: impl Fn(String) -> Result<()> + Sync) -> Result<()> {
        let left = Mutex::new(items.into_iter());
        let work = || -> Result<()> {
            loop {
                let next = left.lock().ok().and_then(|mut left| left.next());
                let Some(item) = next else { return Ok(()) };
                act(item)?;
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            let mut outcomes = threads.into_iter().map(|thread| {
                let outcome = thread.join();
                outcome.unwrap_or_else(|_| bail!("a thread that wrote objects panicked"))
            });
            outcomes.try_for_each(|outcome| outcome)
        })
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<()> {
        let mut stream = TcpStream::connect(&self.address).context("reaching kubectl proxy")?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "{method} {path}: {answer}");
        Ok(())
    }

    /// A kubeconfig with the rights that the controller's deployment gives it, and no others.
    pub(super) fn account(&self, file: &Path) -> Result<PathBuf> {
        let token = ["create", "token", "cdi-sa", "-n", "cdi", "--duration=4h"];
        let token = self.ask(&token)?;
        let view = self.ask(&["config", "view", "--raw", "--minify", "-o", "json"])?;
        let mut config: Value = serde_json::from_str(&view).context("reading the kubeconfig")?;
        config["users"][0]["user"] = json!({"token": token.trim()});
        std::fs::write(file, config.to_string()).context("writing a kubeconfig")?;
        Ok(file.to_owned())
    }
}

/// Waits until `ready`.
pub(super) fn wait(what: &str, ready: impl Fn() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while !ready()? {
        if Instant::now() > until {
            bail!("{what} did not come about in {} s", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
