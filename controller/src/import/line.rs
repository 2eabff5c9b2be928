//! The line in which imports wait for their turn: so many at a time on the nodes, so many from one source.
//!
//! Kept in memory. What is at work is known from the pods that there are, and from the turns that were
//! given a moment ago and have no pod yet; who waits asks again every few seconds, and is forgotten when
//! it does not. Whoever came first goes first, unless what it waits for keeps nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use longshore_crds::contract::{Import, variables};

use crate::claim::{Claim as _, controller};

/// Where the scheduler notes where a claim's first consumer goes, and so its importer.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// A turn without a pod ends then: something kept it from being made.
const TURN: Duration = Duration::from_mins(1);
/// Who does not ask for as long as this waits no more.
const WAIT: Duration = Duration::from_secs(30);
/// How soon to ask again at the front of the line, and further behind.
const SOON: Duration = Duration::from_secs(1);
/// See [`SOON`].
const LATER: Duration = Duration::from_secs(5);
/// How many are the front of the line.
const FRONT: usize = 16;

/// How many imports may be at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// On one node; `None`: any number. Where nobody knows yet which node an import will be on, so many
    /// times the nodes there are.
    pub(crate) per_node: Option<usize>,
    /// From one source; `None`: any number.
    pub(crate) per_source: Option<usize>,
}

/// What an import takes a share of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Host and port, as the source's address has them.
    pub(super) source: Option<String>,
    /// The node, if it is known.
    pub(super) node: Option<String>,
}

/// Why it is not somebody's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wait {
    /// What there is no room on.
    pub(super) full: Full,
    /// How many came first and wait for the same, rounded up to one less than a power of two: what is
    /// written of it is written seldom.
    pub(super) ahead: usize,
}

/// What there is no room on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Full {
    Source { host: String, limit: usize },
    Node { name: String, limit: usize },
    Nodes { limit: usize },
}

impl Wait {
    /// For people.
    pub(super) fn message(&self) -> String {
        let (limit, place) = match &self.full {
            Full::Source { host, limit } => (limit, format!("from {host}")),
            Full::Node { name, limit } => (limit, format!("on node {name}")),
            Full::Nodes { limit } => (limit, "on all nodes".to_owned()),
        };
        let ahead = match self.ahead {
            0 => "this one is next".to_owned(),
            1 => "one is ahead of this one".to_owned(),
            more => format!("up to {more} are ahead of this one"),
        };
        format!("as many imports {place} as may be at work ({limit}) are: {ahead}")
    }

    /// How soon to ask again.
    pub(super) fn pause(&self) -> Duration {
        if self.ahead < FRONT { SOON } else { LATER }
    }
}

/// The line.
#[derive(Debug, Default)]
pub(crate) struct Line(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By the uid of the claim.
    at_work: BTreeMap<String, Work>,
    /// By the time that the claim was made, and its uid.
    waiting: BTreeMap<Key, Waiting>,
    /// Those that take pods.
    nodes: BTreeSet<String>,
    /// For what the verdicts of all who wait hold: until something changes, and no longer than that second.
    judged: Option<(Timestamp, Limits)>,
}

type Key = (Timestamp, String);

#[derive(Debug)]
struct Work {
    place: Place,
    /// When the turn was given; `None` once a pod was shown.
    given: Option<Timestamp>,
}

#[derive(Debug)]
struct Waiting {
    place: Place,
    asked: Timestamp,
    /// The version of the claim that the answer was for.
    version: String,
    /// The answer that was given.
    wait: Option<Wait>,
    /// The one that there is now, if [`State::judged`] says so.
    verdict: Option<Wait>,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are all importer pods that there are.
    pub(crate) fn sees_all(&self, pods: &[Pod]) {
        let mut state = self.lock();
        state.at_work.retain(|_, work| work.given.is_some());
        state.judged = None;
        for pod in pods {
            state.sees(pod, None);
        }
    }

    /// An importer pod has changed.
    pub(super) fn sees(&self, pod: &Pod) {
        self.lock().sees(pod, None);
    }

    /// An importer pod was asked for, and is there. Whether it still is when this is heard only the watch tells:
    /// one that it does not show soon is as good as a turn that came to nothing.
    pub(super) fn finds(&self, pod: &Pod, now: Timestamp) {
        self.lock().sees(pod, Some(now));
    }

    /// These are all nodes that there are.
    pub(super) fn knows_all(&self, nodes: &[Node]) {
        let mut state = self.lock();
        state.nodes.clear();
        state.judged = None;
        for node in nodes {
            state.knows(node);
        }
    }

    /// A node is there, and takes pods or does not.
    pub(super) fn knows(&self, node: &Node) {
        self.lock().knows(node);
    }

    /// A node is no more.
    pub(super) fn loses(&self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let mut state = self.lock();
        state.nodes.remove(name);
        state.judged = None;
    }

    /// An importer pod is no more.
    pub(super) fn misses(&self, pod: &Pod) {
        if let Some(uid) = claim_of(pod) {
            let mut state = self.lock();
            if state.at_work.remove(uid).is_some() {
                state.judged = None;
            }
        }
    }

    /// It neither waits nor is at work, as far as no pod says otherwise.
    pub(super) fn leaves(&self, claim: &PersistentVolumeClaim) {
        let mut state = self.lock();
        let waited = state.waiting.remove(&place_in_line(claim)).is_some();
        let work = state.at_work.get(claim.uid());
        let had_turn = work.is_some_and(|work| work.given.is_some());
        if had_turn {
            state.at_work.remove(claim.uid());
        }
        if waited || had_turn {
            state.judged = None;
        }
    }

    /// Whether a claim that was told to wait has to go on waiting for the same reason; it need not be
    /// looked at then.
    pub(super) fn still(
        &self,
        claim: &PersistentVolumeClaim,
        limits: Limits,
        now: Timestamp,
    ) -> Option<Duration> {
        let mut state = self.lock();
        let key = place_in_line(claim);
        let known = state.waiting.get_mut(&key)?;
        if Some(known.version.as_str()) != claim.metadata.resource_version.as_deref() {
            return None;
        }
        known.asked = now;
        let before = known.wait.clone();
        let wait = state.turn(&key, limits, now)?;
        (Some(&wait) == before.as_ref()).then(|| wait.pause())
    }

    /// Whether it is this claim's turn; if not, why.
    pub(super) fn asks(
        &self,
        claim: &PersistentVolumeClaim,
        import: &Import,
        limits: Limits,
        now: Timestamp,
    ) -> Option<Wait> {
        let mut state = self.lock();
        let key = place_in_line(claim);
        if let Some(work) = state.at_work.get_mut(claim.uid()) {
            // Its pod is gone, and that was not told yet: another one takes its place.
            work.given = Some(now);
            state.waiting.remove(&key);
            state.judged = None;
            return None;
        }
        let place = Place {
            source: import.source.endpoint().and_then(|it| host(it.reveal())),
            node: claim.annotation(SELECTED_NODE).map(str::to_owned),
        };
        let waiting = Waiting {
            place,
            asked: now,
            version: claim.metadata.resource_version.clone().unwrap_or_default(),
            wait: None,
            verdict: None,
        };
        state.waiting.insert(key.clone(), waiting);
        state.judged = None;
        let wait = state.turn(&key, limits, now);
        if wait.is_some() {
            if let Some(waiting) = state.waiting.get_mut(&key) {
                waiting.wait.clone_from(&wait);
            }
        } else if let Some(waiting) = state.waiting.remove(&key) {
            let work = Work {
                place: waiting.place,
                given: Some(now),
            };
            state.at_work.insert(claim.uid().to_owned(), work);
            state.judged = None;
        }
        wait
    }
}

impl State {
    fn knows(&mut self, node: &Node) {
        self.judged = None;
        let name = node.metadata.name.clone().unwrap_or_default();
        let spec = node.spec.as_ref();
        let closed = spec.is_some_and(|spec| spec.unschedulable == Some(true));
        if closed {
            self.nodes.remove(&name);
        } else {
            self.nodes.insert(name);
        }
    }

    /// `given`: when it was found, if the watch has not shown it.
    fn sees(&mut self, pod: &Pod, given: Option<Timestamp>) {
        let Some(uid) = claim_of(pod) else {
            return;
        };
        let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            if self.at_work.remove(uid).is_some() {
                self.judged = None;
            }
            return;
        }
        let spec = pod.spec.as_ref();
        let containers = spec.map(|spec| spec.containers.as_slice());
        let mut told = containers
            .unwrap_or_default()
            .iter()
            .flat_map(|container| container.env.as_deref().unwrap_or_default());
        let address = told.find(|it| it.name == variables::ENDPOINT);
        let place = Place {
            source: address.and_then(|it| host(it.value.as_deref()?)),
            node: spec.and_then(|spec| spec.node_name.clone()),
        };
        let known = self.at_work.get(uid);
        let was_shown = known.is_some_and(|work| work.given.is_none());
        if was_shown && known.is_some_and(|work| work.place == place) {
            // It is not news.
            return;
        }
        let given = given.filter(|_| !was_shown);
        let work = Work { place, given };
        self.waiting.retain(|(_, waiting), _| waiting != uid);
        self.at_work.insert(uid.to_owned(), work);
        self.judged = None;
    }

    /// Why it is not somebody's turn, if it is not.
    fn turn(&mut self, key: &Key, limits: Limits, now: Timestamp) -> Option<Wait> {
        if self.judged != Some((now, limits)) {
            self.judge(limits, now);
            self.judged = Some((now, limits));
        }
        self.waiting.get(key)?.verdict.clone()
    }

    /// Lets all who wait go in their order, as far as there is room, to see who has to wait. A thousand of them
    /// that ask in the same second are judged once.
    fn judge(&mut self, limits: Limits, now: Timestamp) {
        let since = |time| Duration::try_from(now.duration_since(time)).unwrap_or_default();
        self.at_work
            .retain(|_, work| work.given.is_none_or(|given| since(given) < TURN));
        self.waiting.retain(|_, one| since(one.asked) < WAIT);
        let nodes = self.nodes.len();
        let (mut busy, mut left) = (Busy::default(), Busy::default());
        for work in self.at_work.values() {
            busy.take(&work.place);
        }
        let mut verdicts = Vec::with_capacity(self.waiting.len());
        for waiting in self.waiting.values() {
            let Some(full) = busy.full(&waiting.place, limits, nodes) else {
                busy.take(&waiting.place);
                verdicts.push(None);
                continue;
            };
            let ahead = left.concerned(&full).saturating_add(1).next_power_of_two();
            let ahead = ahead.saturating_sub(1);
            left.take(&waiting.place);
            verdicts.push(Some(Wait { full, ahead }));
        }
        for (waiting, verdict) in self.waiting.values_mut().zip(verdicts) {
            waiting.verdict = verdict;
        }
    }
}

/// How many there are, and where.
#[derive(Debug, Default)]
struct Busy<'a> {
    all: usize,
    sources: BTreeMap<&'a str, usize>,
    nodes: BTreeMap<&'a str, usize>,
}

impl<'a> Busy<'a> {
    fn take(&mut self, place: &'a Place) {
        self.all = self.all.saturating_add(1);
        for (counts, name) in [
            (&mut self.sources, &place.source),
            (&mut self.nodes, &place.node),
        ] {
            if let Some(name) = name {
                let count = counts.entry(name.as_str()).or_default();
                *count = count.saturating_add(1);
            }
        }
    }

    /// How many of them it matters to.
    fn concerned(&self, full: &Full) -> usize {
        let count = match full {
            Full::Source { host, .. } => self.sources.get(host.as_str()),
            Full::Node { name, .. } => self.nodes.get(name.as_str()),
            Full::Nodes { .. } => Some(&self.all),
        };
        count.copied().unwrap_or_default()
    }

    /// What has no room for one more.
    fn full(&self, place: &Place, limits: Limits, nodes: usize) -> Option<Full> {
        let count = |counts: &BTreeMap<&str, usize>, name: &str| {
            counts.get(name).copied().unwrap_or_default()
        };
        if let (Some(limit), Some(host)) = (limits.per_source, &place.source)
            && count(&self.sources, host) >= limit
        {
            let host = host.clone();
            return Some(Full::Source { host, limit });
        }
        let limit = limits.per_node?;
        if let Some(name) = &place.node
            && count(&self.nodes, name) >= limit
        {
            let name = name.clone();
            return Some(Full::Node { name, limit });
        }
        let limit = limit.saturating_mul(nodes.max(1));
        (self.all >= limit).then_some(Full::Nodes { limit })
    }
}

fn place_in_line(claim: &PersistentVolumeClaim) -> Key {
    let made = claim.metadata.creation_timestamp.as_ref();
    (
        made.map(|time| time.0).unwrap_or_default(),
        claim.uid().to_owned(),
    )
}

fn claim_of(pod: &Pod) -> Option<&str> {
    controller(&pod.metadata).map(|owner| owner.uid.as_str())
}

/// Host and port of an address. Buckets of Amazon are one source, and so are those of Google.
fn host(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://")?;
    if matches!(scheme, "s3" | "gs") {
        return Some(format!("{scheme}:"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
