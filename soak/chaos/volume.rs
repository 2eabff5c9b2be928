//! One wish on its way: it is filled, or fails as it must, and goes again without a trace.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::disk::{self, Found};
use super::node::{Node, Snapshot};
use super::wish::{Form, Goal, Wish};
use crate::dice::Dice;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not all of it is applied.
    New,
    /// It is being filled, or fails again and again.
    Going,
    /// It is filled, and stays to the end.
    Kept,
    /// Somebody deletes it.
    Leaving,
    /// Nothing of it is left.
    Gone,
}

pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) wish: Wish,
    pub(crate) stage: Stage,
    /// When that began.
    pub(crate) since: Instant,
    /// When it was applied.
    pub(crate) begun: Instant,
    /// What was done to it.
    pub(crate) hits: Vec<&'static str>,
    /// Claims that there were: their uids.
    claims: BTreeSet<String>,
    /// Why it does not go on, as far as is known.
    pub(crate) waits: String,
    pub(crate) restarts: u64,
    /// What was found wrong a moment ago, and on which claim: the next look decides.
    doubt: Option<(String, String)>,
    /// Since when it is filled and in use.
    busy: Option<Instant>,
}

/// Longer than kubelet takes to let go of a volume, its own end and beginning included.
pub(crate) const HELD: Duration = Duration::from_secs(90);

/// What came of looking at one.
#[derive(Debug)]
pub(crate) enum News {
    /// As before, or a step further.
    Nothing,
    /// It holds the right disk.
    Filled,
    /// It failed as it had to.
    Failed,
    /// Its volume was taken from a node that did not know of it any more.
    Unheld,
    /// All of it is gone.
    Gone,
    /// What must never be.
    Wrong(String),
}

/// What a condition of a `DataVolume` says: its reason and message.
fn condition<'a>(volume: &'a Value, kind: &str) -> (&'a str, &'a str) {
    let all = volume["status"]["conditions"].as_array();
    let found = all.and_then(|all| all.iter().find(|condition| condition["type"] == kind));
    let text = |field: &str| found.and_then(|it| it[field].as_str()).unwrap_or_default();
    (text("reason"), text("message"))
}

impl Volume {
    pub(crate) fn new(name: String, wish: Wish) -> Self {
        Self {
            name,
            wish,
            stage: Stage::New,
            since: Instant::now(),
            begun: Instant::now(),
            hits: Vec::new(),
            claims: BTreeSet::new(),
            waits: String::new(),
            restarts: 0,
            doubt: None,
            busy: None,
        }
    }

    pub(crate) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.since = Instant::now();
    }

    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Applies it. Some of it may be there from the attempt before.
    fn begin(&mut self, node: &Node) -> Result<()> {
        for object in self.wish.objects(&self.name) {
            node.apply(&object)?;
        }
        self.enter(Stage::Going);
        Ok(())
    }

    /// Asks for all of it to go.
    pub(crate) fn delete(&mut self, node: &Node) -> Result<()> {
        let name = &self.name;
        let kinds = match self.wish.form {
            Form::Direct | Form::Populator => "datavolumes",
            Form::Annotated => "persistentvolumeclaims",
            Form::Populated => "persistentvolumeclaims,volumeimportsources",
        };
        node.delete(&[kinds, name])?;
        self.enter(Stage::Leaving);
        Ok(())
    }

    /// Names of the claims that are, or were, filled in the place of its own.
    pub(crate) fn primes(&self) -> impl Iterator<Item = String> {
        self.claims.iter().map(|uid| format!("prime-{uid}"))
    }

    /// The pods of its importers.
    pub(crate) fn pods<'a>(&self, all: &'a Snapshot) -> Vec<(&'a str, &'a Value)> {
        let mut names: Vec<String> = self.primes().collect();
        names.push(self.name.clone());
        let is_ours = |pod: &&str| {
            let claim = pod.strip_prefix("importer-");
            claim.is_some_and(|claim| names.iter().any(|name| name == claim))
        };
        all.all("Pod").filter(|(name, _)| is_ours(name)).collect()
    }

    /// What there is of it.
    fn traces(&self, all: &Snapshot) -> Vec<String> {
        let is_ours = |object: &String| {
            let name = object.rsplit('/').next().unwrap_or_default();
            name == self.name
                || name == format!("importer-{}", self.name)
                || self.claims.iter().any(|uid| name.contains(uid.as_str()))
        };
        all.names().into_iter().filter(is_ours).collect()
    }

    /// Looks at what has become of it.
    pub(crate) fn step(&mut self, node: &Node, all: &Snapshot) -> Result<News> {
        let claim = all.get("PersistentVolumeClaim", &self.name);
        if let Some(uid) = claim.and_then(|claim| claim["metadata"]["uid"].as_str()) {
            self.claims.insert(uid.to_owned());
        }
        match self.stage {
            Stage::New => self.begin(node).map(|()| News::Nothing),
            Stage::Leaving => {
                let traces = self.traces(all);
                if traces.is_empty() {
                    self.enter(Stage::Gone);
                    return Ok(News::Gone);
                }
                self.waits = format!("there still are {}", traces.join(", "));
                Ok(News::Nothing)
            }
            Stage::Kept if self.wish.form.has_volume() => {
                let volume = all.get("DataVolume", &self.name);
                let phase = volume.and_then(|volume| volume["status"]["phase"].as_str());
                Ok(match phase {
                    Some("Succeeded") => News::Nothing,
                    other => News::Wrong(format!("it was Succeeded, and now is {other:?}")),
                })
            }
            Stage::Kept | Stage::Gone => Ok(News::Nothing),
            Stage::Going if self.wish.form.has_volume() => Ok(self.volume(node, all, claim)),
            Stage::Going => Ok(self.claim(node, all, claim)),
        }
    }

    fn volume(&mut self, node: &Node, all: &Snapshot, claim: Option<&Value>) -> News {
        let Some(volume) = all.get("DataVolume", &self.name) else {
            // It was applied after the snapshot.
            return News::Nothing;
        };
        let phase = volume["status"]["phase"].as_str().unwrap_or_default();
        self.restarts = volume["status"]["restartCount"]
            .as_u64()
            .unwrap_or_default();
        let (reason, message) = condition(volume, "Running");
        let (bound, bound_message) = condition(volume, "Bound");
        self.waits = format!("{phase}; {bound}: {bound_message}; {reason}: {message}");
        match (self.wish.goal, phase) {
            (Goal::Filled, "Succeeded") => match claim {
                Some(claim) => self.compare(node, all, claim),
                None => News::Nothing,
            },
            (Goal::WrongSum, "Failed") => {
                if reason == "ChecksumError" {
                    return News::Failed;
                }
                News::Wrong(format!("it failed for another reason: {}", self.waits))
            }
            (Goal::TooSmall, _) if message == "DataVolume too small to contain image" => {
                News::Failed
            }
            (Goal::Missing, _) if reason == "Error" && message.contains("404") => News::Failed,
            (Goal::WrongSum | Goal::TooSmall | Goal::Missing, "Succeeded")
            | (Goal::Filled | Goal::TooSmall | Goal::Missing, "Failed") => {
                News::Wrong(format!("it should not be {phase}: {}", self.waits))
            }
            _ => News::Nothing,
        }
    }

    /// A claim on its own.
    fn claim(&mut self, node: &Node, all: &Snapshot, claim: Option<&Value>) -> News {
        let Some(claim) = claim else {
            return News::Nothing;
        };
        let annotation = |name: &str| {
            let name = format!("cdi.kubevirt.io/storage.{name}");
            claim["metadata"]["annotations"][name]
                .as_str()
                .unwrap_or_default()
        };
        let (phase, bound) = (annotation("pod.phase"), &claim["status"]["phase"]);
        self.restarts = annotation("pod.restarts").parse().unwrap_or_default();
        self.waits = format!(
            "{phase}, {bound}; {}: {}",
            annotation("condition.running.reason"),
            annotation("condition.running.message")
        );
        if phase == "Succeeded" && bound == "Bound" {
            return self.compare(node, all, claim);
        }
        News::Nothing
    }

    fn compare(&mut self, node: &Node, all: &Snapshot, claim: &Value) -> News {
        let leaves = claim["metadata"]["deletionTimestamp"].is_string();
        if leaves || claim["status"]["phase"] != "Bound" {
            return News::Nothing;
        }
        let disks: Vec<&[u8]> = self.wish.disks.iter().map(AsRef::as_ref).collect();
        // It may be on its way out by now, with its volume: only what is so twice is believed.
        let found = match disk::look(node, claim, &disks) {
            Ok(found) => found,
            Err(error) => Found::Wrong(format!("{error:#}")),
        };
        let uid = claim["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        match found {
            Found::Right => {
                self.doubt = None;
                News::Filled
            }
            Found::Busy => {
                "filled, and its volume is in use".clone_into(&mut self.waits);
                let since = *self.busy.get_or_insert_with(Instant::now);
                if since.elapsed() < HELD || !self.pods(all).is_empty() {
                    return News::Nothing;
                }
                match disk::let_go(node, claim) {
                    Ok(()) => News::Unheld,
                    Err(error) => News::Wrong(format!("its volume is not let go: {error:#}")),
                }
            }
            Found::Wrong(what) => {
                let before = self.doubt.replace((uid.clone(), what.clone()));
                if before.is_some_and(|(claim, _)| claim == uid) {
                    return News::Wrong(what);
                }
                News::Nothing
            }
        }
    }

    /// What comes after it is filled, or failed.
    pub(crate) fn over(&mut self, node: &Node, dice: &mut Dice, keep: bool) -> Result<()> {
        if self.wish.goal == Goal::Missing && dice.roll(2) == 0 {
            self.wish.goal = Goal::Filled;
            self.wish.calm();
            return Ok(());
        }
        if keep {
            self.enter(Stage::Kept);
            return Ok(());
        }
        self.delete(node)
    }
}
