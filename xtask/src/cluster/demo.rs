//! `cargo xtask cluster demo`: a data volume on a real cluster, watched from `kubectl apply` to its end.
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
use serde_json::json;

use self::steps::{Seen, Steps};
use super::control::{Programs, kubectl};
use super::place::Place;
use super::{node, up};
use crate::http::Server;
use crate::shell::Run;
use crate::{guest, paths, say};

mod steps;

/// What to show.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cluster to show it on; it is started if it does not run, and ended again
    #[arg(long, default_value = "demo")]
    name: String,
    /// Leave everything as it is at the end
    #[arg(long)]
    keep: bool,
    /// How many imports, one after the other
    #[arg(long, default_value_t = 1)]
    runs: u32,
}

/// A busy machine is not a broken one.
const PATIENCE: Duration = Duration::from_mins(5);

pub(super) fn run(args: &Args) -> Result<()> {
    let place = Place::of(&args.name)?;
    let image = guest::make()?.join(guest::QCOW2);
    let started_here = place.running().is_empty();
    if started_here {
        up(&place)?;
    }
    let outcome = show(&place, &image, args);
    if args.keep {
        say::line(&format!(
            "\nThe cluster stays: `export KUBECONFIG={}`, and `cargo xtask cluster down --name {}` at the end.",
            place.kubeconfig().display(),
            place.name
        ));
    } else if started_here {
        super::down(&place)?;
    }
    outcome
}

/// Serves a file on the node's network until standard input ends; from inside.
pub(super) fn serve(file: &Path) -> Result<()> {
    let server = Server::start_on(node::ADDRESS, file)?;
    say::line(&server.url());
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut std::io::stdin(), &mut rest).context("waiting for the end")?;
    Ok(())
}

/// A child that goes with this.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn show(place: &Place, image: &Path, args: &Args) -> Result<()> {
    let programs = Programs::build()?;
    let (_server, url) = server(place, image)?;
    let size = std::fs::metadata(image)
        .with_context(|| format!("looking at {}", image.display()))?
        .len();
    say::line(&format!(
        "\nServing {} of compressed qcow2 to the node at {url}",
        say::bytes(size)
    ));
    for number in 1..=args.runs {
        let namespace = format!("demo-{}-{number}", std::process::id());
        kubectl(&programs, place)
            .args(["create", "namespace", &namespace])
            .capture()?;
        let steps = import(place, &programs, &namespace, &url);
        if !args.keep || steps.is_err() {
            kubectl(&programs, place)
                .args(["delete", "namespace", &namespace, "--wait=false"])
                .capture()?;
        }
        say::line(&format!("\nWhere the time went:\n{}", steps?.table()));
    }
    Ok(())
}

/// Starts [`serve`] in the node's network.
fn server(place: &Place, image: &Path) -> Result<(Background, String)> {
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
fn import(place: &Place, programs: &Programs, namespace: &str, url: &str) -> Result<Steps> {
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
    let volume = json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
        "metadata": {"name": "demo", "namespace": namespace, "annotations": {
            "cdi.kubevirt.io/storage.bind.immediate.requested": "true",
        }},
        "spec": {
            "source": {"http": {"url": url}},
            "storage": {"resources": {"requests": {"storage": "2Gi"}}},
        },
    });
    let file = place.file("demo.json");
    paths::write(&file, volume.to_string())?;
    let mut steps = Steps::begin();
    kubectl(programs, place)
        .args(["apply", "-f"])
        .arg(&file)
        .capture()?;
    follow(&seen, &mut steps)?;
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

/// Prints what changes until it is over.
fn follow(seen: &Receiver<(Instant, Seen)>, steps: &mut Steps) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut last = None;
    while !steps.over() {
        let left = until.saturating_duration_since(Instant::now());
        let (when, seen) = seen
            .recv_timeout(left)
            .context("the data volume did not succeed in time: `kubectl describe dv` tells why")?;
        let what = seen.to_string();
        if last.as_ref() != Some(&what) {
            say::line(&format!("{:>7.2} s  {what}", steps.since(when)));
            last = Some(what);
        }
        steps.see(when, &seen);
    }
    Ok(())
}
