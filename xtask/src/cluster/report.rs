//! `cargo xtask cluster report`: what an import takes besides its transfer, several times over, written down.
//!
//! A round is an import into a volume that is there already, and one into a volume that a provisioner makes. The
//! importer's own time is that between the first and the last line of its log, as the container runtime stamped
//! them; all else is what three watches told ([`super::watched`]).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::control::{Programs, kubectl};
use super::node;
use super::place::{Place, State};
use super::up_with;
use super::watched::{Steps, import, server};
use crate::shell::Run;
use crate::{guest, paths, say};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cluster to measure on; it is started if it does not run, and ended again
    #[arg(long, default_value = "report")]
    name: String,
    /// How many rounds
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// The folder for what was found: raw.csv, machine.txt and summary.md
    #[arg(long, default_value = "target/cluster-report")]
    results: PathBuf,
}

/// What of an import is ours and the node's, without provisioning and transfer: no more than this.
const GOAL: f64 = 3.0;

/// The steps, in their order.
const STEPS: [&str; 6] = [
    "made: apply, until the controller has made claim and pod",
    "placed: until the claim has its volume and the pod its node",
    "started: until the importer's first line",
    "transfer: until its last",
    "ended: until the kubelet has told that the pod has ended",
    "told: until the data volume says Succeeded",
];
/// Which of them is not counted.
const TRANSFER: usize = 3;

/// How volumes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Volume {
    /// It is there.
    Static,
    /// A provisioner makes it.
    Provisioned,
}

impl Volume {
    const ALL: [Self; 2] = [Self::Static, Self::Provisioned];

    fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Provisioned => "provisioned",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Static => "local",
            Self::Provisioned => "local-path",
        }
    }
}

/// One import.
#[derive(Debug, Clone, PartialEq)]
struct Took {
    volume: Volume,
    /// Seconds of each step.
    steps: [f64; STEPS.len()],
}

impl Took {
    fn total(&self) -> f64 {
        self.steps.iter().sum()
    }

    /// Without transfer, and without what a provisioner takes.
    fn rest(&self) -> f64 {
        let [_, placed, ..] = self.steps;
        let provisioning = match self.volume {
            Volume::Static => 0.0,
            Volume::Provisioned => placed,
        };
        self.total() - self.steps.get(TRANSFER).copied().unwrap_or_default() - provisioning
    }
}

pub(super) fn run(args: &Args) -> Result<()> {
    let place = Place::of(&args.name)?;
    let image = guest::make()?.join(guest::QCOW2);
    let started_here = place.state() != State::Up;
    if started_here {
        up_with(&place, true)?;
    }
    let outcome = measure(&place, &image, args);
    if started_here {
        super::down(&place)?;
    }
    let found = outcome?;
    let results = paths::root().join(&args.results);
    paths::make_dir(&results)?;
    paths::write(&results.join("raw.csv"), raw(&found)?)?;
    paths::write(&results.join("machine.txt"), machine(&image)?)?;
    let summary = summary(&found)?;
    paths::write(&results.join("summary.md"), &summary)?;
    say::line(&format!("\n{summary}\nwritten to {}", results.display()));
    Ok(())
}

fn measure(place: &Place, image: &Path, args: &Args) -> Result<Vec<Took>> {
    let programs = Programs::build()?;
    let (_server, url) = server(place, image)?;
    let mut found = Vec::new();
    for round in 1..=args.rounds {
        for volume in Volume::ALL {
            let namespace = format!("report-{}-{round}-{}", std::process::id(), volume.name());
            let took = one(place, &programs, &namespace, volume, &url);
            let clean = || {
                kubectl(&programs, place)
                    .args(["delete", "namespace", &namespace, "--request-timeout=0"])
                    .capture()
            };
            // The next one is to find the node idle.
            clean()?;
            let took = took?;
            say::line(&format!(
                "round {round}, {:<11}  {:>6.2} s, of which {:>5.2} s are neither transfer nor provisioning",
                volume.name(),
                took.total(),
                took.rest()
            ));
            found.push(took);
        }
    }
    Ok(found)
}

/// One import in a namespace of its own.
fn one(
    place: &Place,
    programs: &Programs,
    namespace: &str,
    volume: Volume,
    url: &str,
) -> Result<Took> {
    let apply = |object: &Value| -> Result<()> {
        let file = place.file("report.json");
        paths::write(&file, object.to_string())?;
        kubectl(programs, place)
            .args(["apply", "-f"])
            .arg(&file)
            .capture()
            .map(drop)
    };
    apply(&json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace},
    }))?;
    if volume == Volume::Static {
        apply(&folder(place, namespace)?)?;
    }
    let steps = import(
        place,
        programs,
        &json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
            "metadata": {"name": "disk", "namespace": namespace, "annotations": {
                "cdi.kubevirt.io/storage.bind.immediate.requested": "true",
                "cdi.kubevirt.io/storage.pod.retainAfterCompletion": "true",
            }},
            "spec": {
                "source": {"http": {"url": url}},
                "storage": {
                    "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
                    "storageClassName": volume.class(),
                    "resources": {"requests": {"storage": "2Gi"}},
                },
            },
        }),
        |_| (),
    )?;
    let log = kubectl(programs, place)
        .args(["--namespace", namespace, "logs", "--timestamps"])
        .arg("importer-disk")
        .capture()?;
    if volume == Volume::Static {
        kubectl(programs, place)
            .args(["delete", "pv", namespace, "--wait=false"])
            .capture()?;
    }
    let steps = whole(&steps, &log).context("not every step was seen")?;
    Ok(Took { volume, steps })
}

/// A folder of the node as the volume of the claim that is to come.
fn folder(place: &Place, namespace: &str) -> Result<Value> {
    let path = place.make("folders")?.join(namespace);
    paths::make_dir(&path)?;
    Ok(json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": namespace},
        "spec": {
            "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local", "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": path},
            "claimRef": {"namespace": namespace, "name": "disk"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node::NAME]},
            ]}]}},
        },
    }))
}

/// What each step took, out of what was seen from outside and the importer's log.
fn whole(steps: &Steps, log: &str) -> Option<[f64; STEPS.len()]> {
    let [made, placed, done, succeeded] = steps.seconds()?;
    let begun = time_of_day(steps.clock);
    let mut lines = log.lines().filter_map(stamp);
    let first = lines.next()?;
    let last = lines.next_back().unwrap_or(first);
    let after = |stamp: f64| (stamp - begun).rem_euclid(DAY);
    let mut before = 0.0;
    // What was over before anybody saw it is part of the step after it.
    let took = [made, placed, after(first), after(last), done, succeeded].map(|end| {
        let took = (end - before).max(0.0);
        before = end.max(before);
        took
    });
    Some(took)
}

const DAY: f64 = 24.0 * 60.0 * 60.0;

fn time_of_day(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64().rem_euclid(DAY)
}

/// The time of day, in seconds, that a line of a log begins with: `2026-11-22T03:04:05.123456789Z ...`.
fn stamp(line: &str) -> Option<f64> {
    let (stamp, _) = line.split_once(' ')?;
    let (_, time) = stamp.strip_suffix('Z')?.split_once('T')?;
    let mut parts = time.split(':').map(str::parse::<f64>);
    let mut part = || parts.next()?.ok();
    Some(part()? * 3600.0 + part()? * 60.0 + part()?)
}

fn raw(found: &[Took]) -> Result<String> {
    let mut text = "import,volume".to_owned();
    for step in STEPS {
        write!(text, ",{}", step.split(':').next().unwrap_or(step))?;
    }
    text.push_str(",total,rest\n");
    for (number, took) in found.iter().enumerate() {
        write!(text, "{number},{}", took.volume.name())?;
        for seconds in took.steps.iter().chain([&took.total(), &took.rest()]) {
            write!(text, ",{seconds:.3}")?;
        }
        text.push('\n');
    }
    Ok(text)
}

fn machine(image: &Path) -> Result<String> {
    let said = |program: &str, args: &[&str]| {
        let run = Run::new(program).args(args).quiet();
        run.capture().unwrap_or_default().trim().to_owned()
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find(|line| line.starts_with("model name"));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let size = std::fs::metadata(image)
        .with_context(|| format!("looking at {}", image.display()))?
        .len();
    Ok(format!(
        "commit: {}\n{}\nprocessors: {}\nkernel: {}\nload at the end: {}\nimage: {} of compressed qcow2\n",
        said("git", &["describe", "--always", "--dirty"]),
        cpu.unwrap_or_default(),
        said("nproc", &[]),
        said("uname", &["-r"]),
        load.trim(),
        say::bytes(size)
    ))
}

fn summary(found: &[Took]) -> Result<String> {
    let mut text = "# From `kubectl apply` to Succeeded\n\n`cargo xtask cluster report`: a DataVolume from a web \
        server on the node, seconds. What was measured: [raw.csv](raw.csv), on what: [machine.txt](machine.txt).\n"
        .to_owned();
    for volume in Volume::ALL {
        let of: Vec<&Took> = found.iter().filter(|took| took.volume == volume).collect();
        if of.is_empty() {
            bail!("there were no rounds");
        }
        let about = match volume {
            Volume::Static => "Into a volume that is there",
            Volume::Provisioned => "Into a volume that local-path makes",
        };
        write!(
            text,
            "\n## {about}\n\n| step | median | least | most |\n|---|---|---|---|\n"
        )?;
        let mut row = |name: &str, all: Vec<f64>| {
            let [least, median, most] = spread(all);
            writeln!(text, "| {name} | {median:.2} | {least:.2} | {most:.2} |")
        };
        for (number, step) in STEPS.iter().enumerate() {
            let all = of.iter().filter_map(|took| took.steps.get(number).copied());
            row(step, all.collect())?;
        }
        row("in all", of.iter().map(|took| took.total()).collect())?;
        let but = match volume {
            Volume::Static => "transfer",
            Volume::Provisioned => "`transfer` and `placed`, in which the provisioner works",
        };
        let name = format!("**without {but}** (goal: under {GOAL} s)");
        row(&name, of.iter().map(|took| took.rest()).collect())?;
    }
    Ok(text)
}

/// Least, median and most.
fn spread(mut all: Vec<f64>) -> [f64; 3] {
    all.sort_by(f64::total_cmp);
    let at = |index: usize| all.get(index).copied().unwrap_or_default();
    [at(0), at(all.len() / 2), at(all.len().saturating_sub(1))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_log_tells_its_time_of_day() {
        let line = "2026-11-22T01:02:03.250000000Z starting importer";
        assert_eq!(stamp(line), Some(3723.25));
        assert_eq!(stamp("nothing"), None);
    }

    #[test]
    fn a_rest_has_neither_transfer_nor_provisioning() {
        let steps = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
        let took = |volume| Took { volume, steps };
        assert!((took(Volume::Static).rest() - 55.0).abs() < 1e-9);
        assert!((took(Volume::Provisioned).rest() - 53.0).abs() < 1e-9);
        let text = summary(&[took(Volume::Static), took(Volume::Provisioned)]).unwrap();
        assert!(
            text.contains("| in all | 63.00 | 63.00 | 63.00 |"),
            "{text}"
        );
        let raw = raw(&[took(Volume::Static)]).unwrap();
        assert!(
            raw.ends_with("0,static,1.000,2.000,4.000,8.000,16.000,32.000,63.000,55.000\n"),
            "{raw}"
        );
    }

    #[test]
    fn the_middle_one_of_several_is_their_median() {
        let said = format!("{:?}", spread(vec![3.0, 1.0, 2.0]));
        assert_eq!(said, "[1.0, 2.0, 3.0]");
    }
}
