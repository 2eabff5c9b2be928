//! The controller that is measured: a process, what `/proc` tells of it, and its own metrics.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// It lists what there is before it is ready.
const PATIENCE: Duration = Duration::from_mins(2);
/// Ticks of a processor's second in `/proc`, on every Linux there is.
const TICKS: f64 = 100.0;

/// It.
pub(super) struct Controller {
    child: Child,
    health: u16,
    metrics: u16,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What it has taken so far.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Usage {
    /// Seconds of a processor.
    pub(super) processor: f64,
    /// KiB that are resident.
    pub(super) resident: u64,
}

impl Usage {
    /// The same time later, and the most memory.
    pub(super) fn most(self, later: Self) -> Self {
        Self {
            processor: later.processor,
            resident: self.resident.max(later.resident),
        }
    }
}

impl Controller {
    /// Starts it.
    pub(super) fn start(program: &Path, account: &Path, log: &Path) -> Result<Self> {
        let (health, metrics) = (free_port()?, free_port()?);
        let log = fs::OpenOptions::new().create(true).append(true).open(log);
        let log = log.context("opening the controller's log")?;
        let child = Command::new(program)
            .env("KUBECONFIG", account)
            .env("IMPORTER_IMAGE", "longshore.test/importer:1")
            // As a container that is started again in its pod has it: the lease is its own.
            .env("POD_NAME", "measured")
            .env("HEALTH_ADDRESS", format!("127.0.0.1:{health}"))
            .env("METRICS_ADDRESS", format!("127.0.0.1:{metrics}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Self {
            child,
            health,
            metrics,
        })
    }

    /// Waits until it is at work.
    pub(super) fn ready(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !is_ready(self.health) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the controller ended ({status})");
            }
            if Instant::now() > until {
                bail!("the controller was not ready in {} s", PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends it without a word.
    pub(super) fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    pub(super) fn usage(&self) -> Result<Usage> {
        let of = |file: &str| {
            let path = format!("/proc/{}/{file}", self.child.id());
            fs::read_to_string(&path).with_context(|| format!("reading {path}"))
        };
        let stat = of("stat")?;
        let (_, fields) = stat.rsplit_once(')').context("a strange /proc/PID/stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        let status = of("status")?;
        let resident = status.lines().find_map(|line| {
            let rest = line.strip_prefix("VmRSS:")?;
            rest.split_whitespace().next()?.parse().ok()
        });
        Ok(Usage {
            processor: ticks / TICKS,
            // What is a zombie has none.
            resident: resident.context("the controller has ended")?,
        })
    }

    /// How long its rounds took.
    pub(super) fn rounds(&self) -> Result<Rounds> {
        let url = format!("https://127.0.0.1:{}/metrics", self.metrics);
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--insecure", &url])
            .output()
            .context("starting curl")?;
        ensure!(
            output.status.success(),
            "{url}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(Rounds::parse(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// Rounds by controller: how many took at most so long.
#[derive(Debug, Default)]
pub(super) struct Rounds(BTreeMap<String, Vec<(f64, f64)>>);

impl Rounds {
    fn parse(page: &str) -> Self {
        let mut all: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for line in page.lines() {
            let bucket = || {
                let rest = line.strip_prefix("cdi_controller_reconcile_seconds_bucket{")?;
                let (labels, count) = rest.rsplit_once("} ")?;
                let label = |name: &str| {
                    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                    rest.split('"').next()
                };
                let bound = match label("le")? {
                    "+Inf" => f64::INFINITY,
                    text => text.parse().ok()?,
                };
                Some((label("controller")?, bound, count.parse().ok()?))
            };
            if let Some((controller, bound, count)) = bucket() {
                let of = all.entry(controller.to_owned()).or_default();
                of.push((bound, count));
            }
        }
        Self(all)
    }

    /// Seconds that this share of rounds took at most, as Prometheus reckons it; infinite beyond the last bound.
    pub(super) fn quantile(&self, controller: &str, share: f64) -> f64 {
        let buckets = self.0.get(controller).map_or(&[][..], Vec::as_slice);
        let total = buckets.last().map_or(0.0, |(_, count)| *count);
        let (mut below, mut before) = (0.0, 0.0);
        for (bound, count) in buckets {
            if *count >= total * share && total > 0.0 {
                if bound.is_infinite() || *count <= before {
                    return *bound;
                }
                return below + (bound - below) * (total * share - before) / (count - before);
            }
            (below, before) = (*bound, *count);
        }
        0.0
    }
}

fn is_ready(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.ends_with("at work\n"))
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_the_bucket_that_it_falls_into() {
        let name = "cdi_controller_reconcile_seconds_bucket";
        let page = format!(
            "{name}{{controller=\"import\",le=\"0.1\"}} 50\n{name}{{controller=\"import\",le=\"0.2\"}} 100\n{name}{{controller=\"import\",le=\"+Inf\"}} 100\nother 3\n"
        );
        let rounds = Rounds::parse(&page);
        let near = |share: f64, expected: f64| {
            let found = rounds.quantile("import", share);
            assert!((found - expected).abs() < 1e-9, "{share}: {found}");
        };
        near(0.25, 0.05);
        near(0.99, 0.198);
        assert!(rounds.quantile("other", 0.5) < 1e-9);
    }
}
