//! What to do about a claim that shall come filled. Pure: the same observation gives the same plan.
//!
//! ```text
//! names nothing of ours ------------------------> nothing
//! ending, or its DataVolume is -----------------> prime away
//! bound: known to be filled --------------------> prime away (unless kept)
//!        to the volume that was filled for it --> done: say so, prime away
//!        else ----------------------------------> prime away; say that nothing was imported
//! no prime: source missing or nonsense ---------> wait, and say so
//!           no class that can wait for us ------> wait, and say so
//!           waits for its first user -----------> wait
//!           else -------------------------------> make the prime
//! a prime: somebody else's ---------------------> wait, and say so
//!          tell what is said of it
//!          copied in stages --------------------> name the next one, if the source does
//!          filled ------------------------------> hand its volume over
//!          without its volume ------------------> prime away: another one follows
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::jiff::Timestamp;
use longshore_crds::names::{annotation, object, reason};
use longshore_crds::volume_source::VolumeImportSourceSpec;

use super::build;
use super::mirror::{image_labels, mirrored, pending};
use super::observe::PATIENCE;
use super::obstacle::{Obstacle, class, source};
use crate::checkpoint;
use crate::claim::{Changes, Claim, Populator, age, controller, missing};
use crate::context::Class;
use crate::custom::VOLUME_IMPORT_SOURCE;
use crate::event::Note;
use crate::rounds;
use crate::troubles::Trouble;
use crate::write::Marks;

/// How soon to look again at what is not watched.
const WAITING_PAUSE: Duration = Duration::from_secs(10);

/// All that a plan depends on.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) claim: PersistentVolumeClaim,
    /// The claim of the prime's name, whoever made it.
    pub(crate) prime: Option<PersistentVolumeClaim>,
    /// What the claim is to be filled from: until there is a prime, and where that is filled in stages.
    pub(crate) source: Source,
    /// The claim's class; `None` if there is none.
    pub(crate) class: Option<Class>,
    /// The cluster hands the claim's class on to a driver that is there.
    pub(crate) migrated_to_driver: bool,
    /// The volume of the claim, if that is bound and not known to be filled; else that of a prime that is.
    pub(crate) volume: Option<PersistentVolume>,
    /// What keeps the prime from being bound, as the cluster tells it.
    pub(crate) trouble: Option<Trouble>,
    /// A claim of a class that binds late waits for its first user.
    pub(crate) honors_first_consumer: bool,
    /// Disks are allocated up front unless the source says otherwise.
    pub(crate) preallocates: bool,
}

/// What a claim is to be filled from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    /// It was not asked for: it does not matter any more.
    Unread,
    Missing,
    /// It is not what the schema says, which only somebody else's schema lets happen.
    Unreadable,
    There(Box<VolumeImportSourceSpec>),
}

/// What there is to do.
pub(crate) type Plan = rounds::Plan<Action>;

/// One thing to do. A plan changes the claim at most once: the change carries the version seen.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Tell people about the claim.
    Tell(Note),
    /// The same about its prime.
    TellPrime(Note),
    /// Change annotations and labels of the claim.
    Mark(Marks),
    /// Change annotations of the prime.
    MarkPrime(Changes),
    /// Make the prime.
    CreatePrime(Box<PersistentVolumeClaim>),
    /// Make the observed volume the claim's.
    Rebind,
    /// Take the prime away.
    DeletePrime,
}

/// Whether what was planned may be done though it was planned on what a watch has shown, which may be less than
/// there is: to tell of the prime, in a change that carries the claim's version. What is shown next mends it.
pub(super) fn may_be_late(actions: &[Action]) -> bool {
    let tells = |action: &Action| matches!(action, Action::Tell(_) | Action::Mark(_));
    actions.iter().all(tells)
}

/// Decides.
pub(crate) fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let claim = &observed.claim;
    let Some(populator) = claim.populator() else {
        return Plan::default();
    };
    let found = observed.prime.as_ref();
    let prime = found.filter(|prime| is_prime_of(prime, claim));
    if claim.is_ending() || claim.annotation(annotation::CANCELLED) == Some("true") {
        // What works on it ends with it.
        return away(prime).into();
    }
    if populator.kind != VOLUME_IMPORT_SOURCE.name {
        return not_of_ours(claim, populator).into();
    }
    if claim.is_bound() {
        return bound(observed, prime).into();
    }
    if claim.is_lost() {
        let mut actions = stopped(claim, reason::CLAIM_LOST, "the claim has lost its volume");
        actions.extend(away(prime));
        return actions.into();
    }
    match (found, prime) {
        (None, _) => begin(observed, populator, now),
        // Another one is made once it is gone.
        (Some(_), Some(prime)) if prime.is_ending() => Plan::default(),
        (Some(_), Some(prime)) => follow(observed, populator, prime),
        (Some(other), None) => {
            let message = format!(
                "the claim {} is not of this one's populator: remove it",
                other.named()
            );
            Plan::from(stopped(claim, reason::ERR_RESOURCE_EXISTS, &message))
                .and_look_after(WAITING_PAUSE)
        }
    }
}

/// Whether `prime` was made for `claim`, and not for another one of the same name before it.
pub(crate) fn is_prime_of(prime: &PersistentVolumeClaim, claim: &PersistentVolumeClaim) -> bool {
    controller(&prime.metadata).is_some_and(|owner| owner.uid == claim.uid())
}

/// Kinds that are served, and that nobody works on yet.
fn not_of_ours(claim: &PersistentVolumeClaim, populator: Populator<'_>) -> Vec<Action> {
    if claim.is_bound() {
        return Vec::new();
    }
    let message = format!(
        "this version does not fill claims from a {}: the claim waits for one that does",
        populator.kind
    );
    stopped(claim, reason::UNSUPPORTED_SOURCE, &message)
}

/// The claim has a volume.
fn bound(observed: &Observed, prime: Option<&PersistentVolumeClaim>) -> Vec<Action> {
    let claim = &observed.claim;
    let kept = prime.filter(|prime| prime.annotation(annotation::POD_RETAIN) == Some("true"));
    if claim.is_filled() {
        return if kept.is_some() {
            Vec::new()
        } else {
            away(prime)
        };
    }
    if !has_its_volume(observed, prime) {
        let message = "somebody else bound the claim before it was filled, most likely a provisioner that does not heed dataSourceRef: nothing was imported. Take a class of a CSI driver, and delete the claim";
        let mut actions = stopped(claim, reason::BOUND_UNPOPULATED, message);
        actions.extend(away(prime));
        return actions;
    }
    let mut wanted = prime.map_or_else(Changes::new, |prime| mirrored(claim, prime));
    for (name, value) in [
        (annotation::POD_PHASE, "Succeeded"),
        (annotation::POPULATOR_PROGRESS, "100.0%"),
        (annotation::RUNNING, "false"),
        (annotation::RUNNING_REASON, reason::COMPLETED),
        (annotation::RUNNING_MESSAGE, "Import Complete"),
    ] {
        wanted.insert(name.to_owned(), Some(value.to_owned()));
    }
    if checkpoint::stage(claim).is_some() {
        // What is handed over has all of them, and the prime that said so may be gone.
        wanted.extend(checkpoint::finished(claim));
    }
    for name in [
        annotation::BOUND,
        annotation::BOUND_REASON,
        annotation::BOUND_MESSAGE,
    ] {
        wanted.insert(name.to_owned(), None);
    }
    let text = format!("Successfully imported into {}", claim.named());
    let mut actions = vec![Action::Tell(Note::normal(reason::POPULATED, text))];
    if kept.is_some() {
        let text = "PVC Prime retained in Lost state for debugging purposes".to_owned();
        let note = Note::warning(reason::RETAINED_PRIME, text);
        actions.push(Action::TellPrime(note));
    }
    actions.extend(mark(claim, wanted, BTreeMap::new()));
    if kept.is_none() {
        actions.extend(away(prime));
    }
    actions
}

/// Whether the volume that the claim is bound to is the one that was filled for it.
fn has_its_volume(observed: &Observed, prime: Option<&PersistentVolumeClaim>) -> bool {
    let claim = &observed.claim;
    let noted = observed.volume.as_ref().and_then(|volume| {
        let annotations = volume.metadata.annotations.as_ref()?;
        annotations.get(annotation::POPULATED_CLAIM)
    });
    // Upstream leaves no note, but keeps the prime until the claim says that it is filled.
    let from_prime =
        prime.is_some_and(|prime| prime.is_filled() && prime.volume() == claim.volume());
    noted.is_some_and(|uid| uid == claim.uid()) || from_prime
}

/// No prime yet.
fn begin(observed: &Observed, populator: Populator<'_>, now: Timestamp) -> Plan {
    let claim = &observed.claim;
    let source = match source(observed, populator) {
        Ok(source) => source,
        // It may be on its way, by the same hand that made the claim.
        Err(Obstacle {
            reason: reason::AWAITING_SOURCE,
            ..
        }) if age(&claim.metadata, now) < PATIENCE => {
            return Plan::default().and_look_after(PATIENCE);
        }
        Err(Obstacle { reason, message }) => return stopped(claim, reason, &message).into(),
    };
    let class = match class(observed) {
        Ok(class) => class,
        Err(Obstacle { reason, message }) => {
            return Plan::from(stopped(claim, reason, &message)).and_look_after(WAITING_PAUSE);
        }
    };
    let given = |name| claim.annotation(name).is_some();
    let has_node = claim
        .annotation(annotation::SELECTED_NODE)
        .is_some_and(|node| !node.is_empty());
    if class.binds_late
        && observed.honors_first_consumer
        && !has_node
        && !given(annotation::BIND_IMMEDIATE)
    {
        // What kept it from beginning is over.
        let none = [
            annotation::RUNNING,
            annotation::RUNNING_REASON,
            annotation::RUNNING_MESSAGE,
        ];
        let none = none.map(|name| (name.to_owned(), None)).into();
        return mark(claim, none, BTreeMap::new()).into();
    }
    let name = object::prime(claim.uid());
    // Written even where it is there: who decided on an older claim is told so before there is a prime.
    let named = Changes::from([(annotation::PRIME.to_owned(), Some(name))]);
    let prime = build::prime(claim, source, observed.preallocates);
    vec![
        Action::Mark(named.into()),
        Action::CreatePrime(Box::new(prime)),
    ]
    .into()
}

/// Hands on what is said of the prime, and its volume once it is filled.
fn follow(observed: &Observed, populator: Populator<'_>, prime: &PersistentVolumeClaim) -> Plan {
    let claim = &observed.claim;
    let bound_to = observed.volume.as_ref().and_then(holder);
    let is_of = |claim: &PersistentVolumeClaim| bound_to.is_some_and(|uid| uid == claim.uid());
    if prime.is_filled() && !is_of(prime) && !is_of(claim) || prime.is_lost() && !prime.is_filled()
    {
        let message = format!(
            "{} has lost its volume before it was handed over: it is made and filled anew",
            prime.named()
        );
        let note = Note::warning(reason::POPULATION_FAILED, message);
        return vec![Action::Tell(note), Action::DeletePrime].into();
    }
    let mut notes = Vec::new();
    let mut wanted = mirrored(claim, prime);
    let phase = prime.annotation(annotation::POD_PHASE);
    if !prime.is_filled() {
        // A stage that was copied is not the whole: nobody shall read that here.
        let told = phase.filter(|phase| *phase != "Succeeded");
        wanted.insert(annotation::POD_PHASE.to_owned(), told.map(str::to_owned));
        if phase == Some("Failed") && claim.annotation(annotation::POD_PHASE) != phase {
            let text = format!("import into {} failed", claim.named());
            notes.push(Action::Tell(Note::warning(reason::POPULATION_FAILED, text)));
        }
    }
    wanted.insert(annotation::PRIME.to_owned(), Some(prime.named().to_owned()));
    let trouble = observed.trouble.as_ref();
    if let Some(trouble) = trouble {
        let known = claim.annotation(annotation::BOUND_MESSAGE);
        if !known.is_some_and(|known| known.ends_with(&trouble.message)) {
            let note = Note::warning(&trouble.reason, trouble.message.clone());
            notes.push(Action::Tell(note.of_prime(prime.named())));
        }
    }
    let mut waits = pending(claim, prime, trouble);
    if observed.source == Source::Missing && checkpoint::paused_at(prime).is_some() {
        let name = populator.name;
        waits = format!("{waits}, and there is no VolumeImportSource {name} to name the next one");
    }
    for (name, value) in [
        (annotation::BOUND, "false".to_owned()),
        (annotation::BOUND_REASON, reason::PENDING.to_owned()),
        (annotation::BOUND_MESSAGE, waits),
    ] {
        wanted.insert(name.to_owned(), Some(value));
    }
    let marks = mark(claim, wanted, image_labels(claim, prime));
    let mut actions = Vec::new();
    if !marks.is_empty() {
        // Told with the change that it is about, and before it: rather twice than not at all.
        actions.extend(notes);
        actions.extend(marks);
    }
    let due = due(observed, prime);
    if !due.is_empty() {
        actions.push(Action::MarkPrime(due));
    }
    if prime.is_filled() && is_of(prime) {
        actions.push(Action::Rebind);
    }
    Plan {
        actions,
        // Why it is not bound is told by events, which bring no round about.
        again: prime.is_pending().then_some(PATIENCE),
    }
}

/// What the source names next, for a prime that is filled in stages.
fn due(observed: &Observed, prime: &PersistentVolumeClaim) -> Changes {
    match &observed.source {
        Source::There(source) if checkpoint::stage(prime).is_some() => checkpoint::due(
            prime,
            &source.checkpoints,
            source.final_checkpoint == Some(true),
        ),
        // It rests until somebody makes another one.
        Source::There(_) | Source::Unread | Source::Missing | Source::Unreadable => Changes::new(),
    }
}

/// The server did not take the prime, and this is what it said.
pub(crate) fn refused(claim: &PersistentVolumeClaim, said: &str) -> Vec<Action> {
    let reason = if said.contains("exceeded quota") {
        reason::ERR_EXCEEDED_QUOTA
    } else {
        reason::ERR_CREATING_PRIME
    };
    let message = format!("the server does not take the claim that is filled in its place: {said}");
    let mut actions = mark(claim, stop(reason, &message), BTreeMap::new());
    if !actions.is_empty() {
        let note = Note::warning(reason::ERR_CREATING_PRIME, message);
        actions.insert(0, Action::Tell(note));
    }
    actions
}

/// Nothing is done, and this is why: told when it is noted.
fn stopped(claim: &PersistentVolumeClaim, reason: &str, message: &str) -> Vec<Action> {
    let mut actions = mark(claim, stop(reason, message), BTreeMap::new());
    if !actions.is_empty() {
        let note = Note::warning(reason, message.to_owned());
        actions.insert(0, Action::Tell(note));
    }
    actions
}

fn stop(reason: &str, message: &str) -> Changes {
    [
        (annotation::RUNNING, "false"),
        (annotation::RUNNING_REASON, reason),
        (annotation::RUNNING_MESSAGE, message),
    ]
    .map(|(name, value)| (name.to_owned(), Some(value.to_owned())))
    .into()
}

/// What of this the claim does not have yet, if anything.
fn mark(
    claim: &PersistentVolumeClaim,
    wanted: Changes,
    labels: BTreeMap<String, String>,
) -> Vec<Action> {
    let annotations = missing(claim, wanted);
    if annotations.is_empty() && labels.is_empty() {
        return Vec::new();
    }
    vec![Action::Mark(Marks {
        annotations,
        labels,
    })]
}

fn away(prime: Option<&PersistentVolumeClaim>) -> Vec<Action> {
    let prime = prime.filter(|prime| !prime.is_ending());
    prime.map(|_| Action::DeletePrime).into_iter().collect()
}

/// The uid of the claim that a volume is for.
fn holder(volume: &PersistentVolume) -> Option<&str> {
    let claim: &ObjectReference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    claim.uid.as_deref()
}
