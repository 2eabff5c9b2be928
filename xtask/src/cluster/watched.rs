//! An import on a cluster, watched from `kubectl apply` to its end: what `demo` shows and `report` writes down.
//!
//! When each step was seen is what three watches tell: of the data volume, of its claim and of its pod. It
//! is measured as people see it, at a `kubectl`, so some milliseconds late.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use self::steps::Seen;
pub(super) use self::steps::Steps;
use super::control::{Programs, kubectl};
use super::place::Place;
use crate::paths;
use crate::shell::Run;

mod steps;

/// A busy machine is not a broken one.
const PATIENCE: Duration = Duration::from_mins(5);

/// A child that goes with this.
pub(super) struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts `cluster serve` in the node's network; gives the URL of the file.
pub(super) fn server(place: &Place, image: &Path) -> Result<(Background, String)> {
    let init = place.init()?;
    let own = std::env::current_exe().context("finding xtask itself")?;
    let mut child = Run::new("nsenter")
        .arg(format!("--target={}", init.pid))
        .arg("--net")
        .arg(own)
        .args(["cluster", "serve"])
        .arg(image)
        .quiet()
        .into_command()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a web server on the node")?;
    let output = child.stdout.take().context("a piped child has an output")?;
    let child = Background(child);
    let mut url = String::new();
    BufReader::new(output)
        .read_line(&mut url)
        .context("reading where the web server listens")?;
    if url.is_empty() {
        bail!("the web server on the node did not start");
    }
    Ok((child, url.trim().to_owned()))
}

/// Applies a data volume and watches what becomes of it.
/// `say` gets what changes.
pub(super) fn import(
    place: &Place,
    programs: &Programs,
    volume: &Value,
    say: impl FnMut(&str),
) -> Result<Steps> {
    let namespace = volume["metadata"]["namespace"].as_str();
    let namespace = namespace.context("a data volume has a namespace")?;
    let (sender, seen) = channel();
    let watches = [
        ("dv", "{.status.phase}|{.status.progress}"),
        ("pvc", "{.status.phase}|"),
        (
            "pod",
            "{.spec.nodeName}|{.status.phase}{.status.containerStatuses[0].state.running.startedAt}",
        ),
    ];
    let mut running = Vec::new();
    for (kind, fields) in watches {
        running.push(watch(place, programs, namespace, kind, fields, &sender)?);
    }
    drop(sender);
    let file = place.file("watched.json");
    paths::write(&file, volume.to_string())?;
    let mut steps = Steps::begin();
    kubectl(programs, place)
        .args(["apply", "-f"])
        .arg(&file)
        .capture()?;
    follow(&seen, &mut steps, say)?;
    Ok(steps)
}

/// Hands on what a watch prints, with the time it came.
fn watch(
    place: &Place,
    programs: &Programs,
    namespace: &str,
    kind: &'static str,
    fields: &str,
    to: &Sender<(Instant, Seen)>,
) -> Result<Background> {
    let mut child = kubectl(programs, place)
        .args(["--request-timeout=0", "--namespace", namespace])
        .args(["get", kind, "--watch", "--output"])
        .arg(format!(r#"jsonpath={fields}{{"\n"}}"#))
        .into_command()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("watching {kind}"))?;
    let output = child.stdout.take().context("a piped child has an output")?;
    let to = to.clone();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let now = Instant::now();
            if let Some(seen) = Seen::parse(kind, &line)
                && to.send((now, seen)).is_err()
            {
                break;
            }
        }
    });
    Ok(Background(child))
}

/// Tells what changes until it is over.
fn follow(
    seen: &Receiver<(Instant, Seen)>,
    steps: &mut Steps,
    mut say: impl FnMut(&str),
) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut last = None;
    while !steps.over() {
        let left = until.saturating_duration_since(Instant::now());
        let (when, seen) = seen
            .recv_timeout(left)
            .context("the data volume did not succeed in time: `kubectl describe dv` tells why")?;
        let what = seen.to_string();
        if last.as_ref() != Some(&what) {
            say(&format!("{:>7.2} s  {what}", steps.since(when)));
            last = Some(what);
        }
        steps.see(when, &seen);
    }
    Ok(())
}
