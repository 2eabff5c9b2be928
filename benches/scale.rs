//! Many imports at once: what the controller takes for each, on a cluster whose kubelets are played by kwok.
//!
//! Volumes are there already, and a fake binder gives them to their claims.
//!
//! `cargo xtask soak scale` starts the cluster, with an audit log of what the controller's account asks. A
//! measurement makes so many data volumes at once and waits until all have succeeded; all times but that of
//! its begin are the API server's own, out of the log. Each adds its lines to raw.csv and requests.csv,
//! and the summary of all is written anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::api::{Api, wait};
use self::audit::{Audit, Step};
use self::process::{Controller, Usage};
use crate::say;

mod api;
mod audit;
mod process;
pub(crate) mod report;

/// What to measure, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long, value_enum)]
    case: Case,
    /// How many data volumes
    #[arg(long)]
    count: usize,
    /// Where raw.csv, requests.csv, machine.txt and summary.md go
    #[arg(long, value_name = "DIR")]
    results: PathBuf,
    /// How to reach the cluster as its administrator
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long)]
    kubectl: PathBuf,
    /// The API server's audit log
    #[arg(long)]
    audit: PathBuf,
    /// The program to measure
    #[arg(long)]
    controller: PathBuf,
}

/// What is special about a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Case {
    /// Any number of imports may be at work
    None,
    /// The limits that an installation has if nobody says otherwise
    Usual,
    /// As `none`; the controller is killed and started again when half of all have succeeded
    Restart,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Usual => "usual",
            Self::Restart => "restart",
        }
    }
}

/// Hosts that images come from.
const SOURCES: usize = 2;
/// Nothing stands still for that long, even on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_mins(5);
/// Between two looks at the log.
const PAUSE: Duration = Duration::from_millis(100);
const NAMESPACE: &str = "crowd";

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.count > 0, "there is nothing to make");
    let api = Api::start(&args.kubectl, &args.kubeconfig)?;
    prepare(args, &api)?;
    // The log tells by its token who asked for something.
    let account = |name: &str| api.account(&args.kubeconfig.with_extension(name));
    let (account, successor) = (account("account")?, account("successor")?);
    let log = args.kubeconfig.with_extension("controller.log");
    let start = |account: &Path| Controller::start(&args.controller, account, &log);
    let mut controller = start(&account)?;
    controller.ready()?;
    let mut audit = Audit::new(&args.audit);
    // What it asks when it starts is no part of it.
    audit.read()?;
    let idle = controller.usage()?;
    audit.begin(SystemTime::now())?;
    let started = Instant::now();
    api.make(
        &format!("/apis/cdi.kubevirt.io/v1beta1/namespaces/{NAMESPACE}/datavolumes"),
        (0..args.count).map(volume).collect(),
    )?;
    let made = started.elapsed().as_secs_f64();
    let mut usage = Usage::default();
    let mut killed = None;
    let mut pace = Pace::new(started);
    while audit.succeeded() < args.count {
        std::thread::sleep(PAUSE);
        audit.read()?;
        pace.look(&api, &mut audit, args.count)
            .with_context(|| said(&log))?;
        api.bind(NAMESPACE, audit.new_claims())?;
        usage = usage.most(controller.usage().with_context(|| said(&log))?);
        if args.case == Case::Restart && killed.is_none() && audit.succeeded() * 2 >= args.count {
            killed = Some(controller.usage()?);
            controller.kill();
            controller = start(&successor)?;
        }
    }
    // What is written after that belongs to it, too: pods are taken away.
    settle(&mut audit)?;
    let last = controller.usage()?;
    let rounds = controller.rounds()?;
    let row = report::Row {
        case: args.case.name().to_owned(),
        count: args.count,
        made,
        pods: audit.last_pod().context("no pod was made")?,
        succeeded: audit.last_success().context("none has succeeded")?,
        requests: to_f64(audit.requests()) / to_f64(args.count),
        processor: killed.map_or(0.0, |usage| usage.processor) + last.processor - idle.processor,
        idle: idle.resident,
        resident: usage.most(last).resident,
        volume_p99: rounds.quantile("datavolume", 0.99),
        import_p99: rounds.quantile("import", 0.99),
        at_work: audit.most_at_work(),
        per_source: audit.most_per(|name| source(number(name))),
        gap: audit.gap(),
        load: load(),
    };
    say::line(&row.to_string());
    report::add(&args.results, &row, audit.counts())?;
    controller.kill();
    Ok(())
}

/// Whether it goes on, and what is looked at more seldom than the log.
struct Pace {
    started: Instant,
    told: Instant,
    asked: Instant,
    /// Pods and successes so far, and since when.
    steps: (usize, Instant),
}

impl Pace {
    fn new(started: Instant) -> Self {
        let now = Instant::now();
        Self {
            started,
            told: now,
            asked: now,
            steps: (0, now),
        }
    }

    fn look(&mut self, api: &Api, audit: &mut Audit, count: usize) -> Result<()> {
        if self.asked.elapsed() > Duration::from_secs(1) {
            ask(api, audit)?;
            self.asked = Instant::now();
        }
        let (pods, succeeded) = (audit.pods(), audit.succeeded());
        if self.told.elapsed() > Duration::from_secs(5) {
            self.told = Instant::now();
            let time = self.started.elapsed().as_secs_f64();
            say::line(&format!(
                "{time:>6.1} s  {pods} pods made, {succeeded} of {count} succeeded"
            ));
        }
        if pods + succeeded > self.steps.0 {
            self.steps = (pods + succeeded, Instant::now());
        }
        ensure!(
            self.steps.1.elapsed() < PATIENCE,
            "{pods} pods were made and {succeeded} of {count} have succeeded, and nothing for {} s",
            PATIENCE.as_secs()
        );
        Ok(())
    }
}

/// Looks at the objects of which the log does not tell whether they have taken a step.
fn ask(api: &Api, audit: &mut Audit) -> Result<()> {
    for step in Step::ALL {
        let doubts = audit.doubts(step);
        if doubts.is_empty() {
            continue;
        }
        let seen = api.phases(NAMESPACE, step.resource(), &doubts)?;
        // What the next controller has done meanwhile is no doubt any more, and is its own.
        audit.read()?;
        for (name, phase) in seen {
            if step.is_done(&phase) {
                audit.believe(step, &name);
            }
        }
    }
    Ok(())
}

/// Everything that is there before the first data volume.
fn prepare(args: &Args, api: &Api) -> Result<()> {
    if args.case != Case::Usual {
        api.apply(&json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "CDI",
            "metadata": {"name": "cdi", "annotations": {
                "longshore.dev/imports-per-node": "0", "longshore.dev/imports-per-source": "0",
            }},
            "spec": {},
        }))?;
    }
    api.apply(&json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE},
    }))?;
    // Volumes for the claims: that they are bound is said by a fake binder.
    api.make(
        "/api/v1/persistentvolumes",
        (0..args.count).map(disk).collect(),
    )?;
    wait("the namespace's account", || {
        let found = ["get", "serviceaccount", "-o", "name", "-n", NAMESPACE];
        Ok(api.ask(&found)?.contains("default"))
    })
}

/// Waits until nothing was asked for two seconds.
fn settle(audit: &mut Audit) -> Result<()> {
    let mut quiet = Instant::now();
    let started = Instant::now();
    let mut before = audit.requests();
    while quiet.elapsed() < Duration::from_secs(2) && started.elapsed() < Duration::from_mins(2) {
        std::thread::sleep(PAUSE);
        audit.read()?;
        if audit.requests() != before {
            before = audit.requests();
            quiet = Instant::now();
        }
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("dv-{number:06}")
}

/// Of which data volume a pod is.
fn number(pod: &str) -> usize {
    let digits = pod.rsplit('-').next().and_then(|text| text.parse().ok());
    digits.unwrap_or_default()
}

fn source(number: usize) -> usize {
    number % SOURCES
}

fn volume(number: usize) -> String {
    json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
        "metadata": {"name": name(number), "namespace": NAMESPACE},
        "spec": {
            "source": {"http": {
                "url": format!("https://images-{}.example.org/disk.qcow2", source(number)),
            }},
            "pvc": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    })
    .to_string()
}

fn disk(number: usize) -> String {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name(number)},
        "spec": {
            "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": "by-hand", "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/nonexistent"},
            "claimRef": {"namespace": NAMESPACE, "name": name(number)},
        },
    })
    .to_string()
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// The end of what the controller logged.
fn said(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().saturating_sub(10);
    format!("the controller said:\n{}", lines[last..].join("\n"))
}

#[expect(clippy::cast_precision_loss, reason = "counts, for people")]
fn to_f64(count: usize) -> f64 {
    count as f64
}
