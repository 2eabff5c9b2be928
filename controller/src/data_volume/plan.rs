//! What to do about a volume, and what to say of it. Pure: the same observation gives the same plan.
//!
//! ```text
//! ending -------------------------> its claim's worker ends
//! a claim, ours ------------------> tell how it does; remember that it was filled;
//!                                   name the next checkpoint, if it is copied in stages;
//!                                   what it is filled from is there until then
//!          nobody's, and allowed -> take it over
//!          somebody else's -------> wait, and say so
//! no claim: nonsense -------------> say so, create nothing
//!           a volume waits for it -> create the claim for that, and fill nothing
//!           not of ours ----------> wait, and say so
//!           not stamped ----------> stamp: filled by a populator, or directly
//!           else -----------------> create the claim
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::DynamicObject;
use longshore_crds::Condition;
use longshore_crds::DataVolumeSpec;
use longshore_crds::data_volume::{Checkpoint, DataVolumeSource};
use longshore_crds::names::{annotation, label, reason};
use serde_json::{Value, json};

use super::external;
use super::render::{self, Profile, Unknown};
use super::statics;
use super::status::{Facts, status};
use super::validate::validate;
use super::volume::{Status, Volume};
use crate::claim::{Changes, Claim, controller};
use crate::event::Note;
use crate::troubles::Trouble;
use crate::write::Marks;

/// How soon to look again at what waits for things that are not watched: classes, quotas, other claims.
const WAITING_PAUSE: Duration = Duration::from_secs(10);

/// All that a plan depends on.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) volume: Volume,
    /// The claim of the same name.
    pub(crate) claim: Option<PersistentVolumeClaim>,
    /// Volumes that wait for a claim of this name, where they are asked for and there is no claim.
    pub(crate) statics: Vec<PersistentVolume>,
    /// What keeps it from being bound, as the cluster tells it.
    pub(crate) trouble: Option<Trouble>,
    pub(crate) profile: Profile,
    /// The class's provisioner is a CSI driver.
    pub(crate) has_driver: bool,
    /// The `VolumeImportSource` of the volume.
    pub(crate) source: Source,
    /// The class makes volumes only once somebody uses the claim, and imports wait for that.
    pub(crate) binds_late: bool,
    /// Every volume may take over a claim that is there already.
    pub(crate) adoption: bool,
}

/// What a populator fills the claim from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// It was not asked for: nothing depends on it.
    Unread,
    Missing,
    There {
        uid: String,
        /// What it lists of the stages of a warm import, and whether that is all.
        stages: (Vec<Checkpoint>, bool),
    },
}

/// What there is to do, in this order; the status comes last.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// The status to write, if it is another one than before.
    pub(crate) status: Option<Status>,
    /// When to look again if nothing happens.
    pub(crate) again: Option<Duration>,
}

/// One thing to do. A change of the volume is the only thing that a plan does: the status is written
/// against the version that was seen.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Tell people.
    Tell(Note),
    /// Change annotations and labels of the volume.
    MarkVolume(Marks),
    /// Change annotations of the claim.
    MarkClaim(Changes),
    /// Create the claim.
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Create what a populator fills the claim from.
    CreateSource(Box<DynamicObject>),
    /// Have the one of this uid list the stages that the volume lists.
    MarkSource { uid: String, stages: Value },
    /// Take it away: the one with this uid.
    DeleteSource(String),
    /// Make the volume the owner of its claim.
    Adopt,
}

/// Decides. `now` is what conditions that change carry.
pub(crate) fn plan(observed: &Observed, now: &str) -> Plan {
    let volume = &observed.volume;
    let mut plan = Plan::default();
    if volume.meta.deletion_timestamp.is_some() {
        // Its claim goes with it, if it does not go on its own; what works on it ends now.
        plan.actions.extend(cancelled(observed));
        return plan;
    }
    let facts = match &observed.claim {
        Some(claim) => existing(observed, claim, &mut plan),
        None => missing(observed, &mut plan),
    };
    if let [Action::MarkVolume(_) | Action::Adopt] = plan.actions.as_slice() {
        // The rest in the next round, which this change brings about.
        return plan;
    }
    if matches!(facts, Facts::Waiting { .. }) || observed.claim.as_ref().is_some_and(is_waited_for)
    {
        plan.again = Some(WAITING_PAUSE);
    }
    let next = status(volume, &facts, now);
    let running = of_kind(&next, "Running");
    if running.is_some_and(|it| external::REASONS.contains(&it.reason.as_str())) {
        plan.again = Some(WAITING_PAUSE);
    }
    if volume.status.phase.as_deref() == Some("Succeeded") {
        // Nobody shall take the claim that is made anew for the one that was filled: the status comes first, and
        // brings the next round about.
        let makes = |it: &Action| matches!(it, Action::CreateClaim(_) | Action::CreateSource(_));
        plan.actions.retain(|action| !makes(action));
    }
    if next != volume.status {
        plan.actions
            .extend(notes(volume, &next).into_iter().map(Action::Tell));
        plan.status = Some(next);
    }
    plan
}

/// The server did not take the claim, and this is what it said: what to tell, and the status.
pub(crate) fn refused(volume: &Volume, said: &str, now: &str) -> (Vec<Note>, Option<Status>) {
    let reason = if said.contains("exceeded quota") {
        reason::ERR_EXCEEDED_QUOTA
    } else {
        reason::ERR_CLAIM_REFUSED
    };
    let message = format!("the server does not take the claim: {said}");
    let facts = Facts::Waiting { reason, message };
    let next = status(volume, &facts, now);
    if next == volume.status {
        return (Vec::new(), None);
    }
    (notes(volume, &next), Some(next))
}

/// There is no claim: what it takes to get one.
fn missing(observed: &Observed, plan: &mut Plan) -> Facts<'static> {
    let volume = &observed.volume;
    let waiting = |reason, message: String| Facts::Waiting { reason, message };
    let Some(spec) = &volume.spec else {
        let message = "the spec is not one of cdi.kubevirt.io/v1beta1";
        return waiting(reason::ERR_CLAIM_NOT_VALID, message.to_owned());
    };
    if let Err(message) = validate(volume.name(), spec) {
        return waiting(reason::ERR_CLAIM_NOT_VALID, message);
    }
    if !observed.statics.is_empty()
        && let Ok(claim) = render::claim(volume, spec, &observed.profile)
        && let Some(name) =
            statics::fitting(&observed.statics, &claim, observed.profile.class.as_deref())
    {
        let claim = Box::new(statics::taking(claim, name));
        plan.actions.push(Action::CreateClaim(claim));
        return Facts::Nothing;
    }
    if let Some((reason, message)) = not_of_ours(volume, spec) {
        return waiting(reason, message);
    }
    if volume.annotation(annotation::USE_POPULATOR).is_none() {
        // A volume that is there already has nobody who could wait for a populator.
        let asked = spec.pvc.as_ref().or(spec.storage.as_ref());
        let named = asked.is_some_and(|claim| claim.volume_name.is_some());
        let populated = observed.has_driver && !named && spec.source.is_some();
        let stamp = (
            annotation::USE_POPULATOR.to_owned(),
            Some(populated.to_string()),
        );
        plan.actions
            .push(Action::MarkVolume(Changes::from([stamp]).into()));
        return Facts::Nothing;
    }
    match render::claim(volume, spec, &observed.profile) {
        Ok(claim) => {
            plan.actions.push(Action::CreateClaim(Box::new(claim)));
            if render::is_populated(volume, spec) {
                let source = render::source(volume, spec);
                plan.actions.push(Action::CreateSource(Box::new(source)));
            }
            Facts::Nothing
        }
        Err(Unknown(message)) => waiting(reason::STORAGE_PROFILE_INCOMPLETE, message),
    }
}

/// What makes sense, and is not done here.
fn not_of_ours(volume: &Volume, spec: &DataVolumeSpec) -> Option<(&'static str, String)> {
    if let Some(whence) = volume.annotation(annotation::PREPOPULATED) {
        let message = format!(
            "the claim shall come filled ({}: {whence}): it is waited for, and none is made",
            annotation::PREPOPULATED
        );
        return Some((reason::AWAITING_CLAIM, message));
    }
    let source = spec.source.as_ref();
    let kind = match source.map(DataVolumeSource::kinds).as_deref() {
        Some(["pvc"]) => "another claim",
        Some(["snapshot"]) => "a snapshot",
        Some(["upload"]) => "an upload",
        None if spec.source_ref.is_some() => "a DataSource",
        _ => return None,
    };
    let message = format!(
        "this version does not fill claims from {kind}: http, s3, gcs, registry, imageio, vddk and blank are"
    );
    Some((reason::UNSUPPORTED_SOURCE, message))
}

/// There is a claim of that name.
fn existing<'a>(
    observed: &'a Observed,
    claim: &'a PersistentVolumeClaim,
    plan: &mut Plan,
) -> Facts<'a> {
    let volume = &observed.volume;
    match controller(&claim.metadata) {
        Some(owner) if owner.uid == volume.uid() => {
            let marks = remembered(volume, claim);
            if marks == Marks::default() {
                plan.actions.extend(of_source(observed, claim));
            } else {
                plan.actions.push(Action::MarkVolume(marks));
            }
            let due = if statics::takes(claim) {
                statics::taken(claim)
            } else if claim.populator().is_some() {
                // The populator's business, by what the source lists.
                Changes::new()
            } else {
                volume.due(claim)
            };
            if due.is_empty() {
                plan.actions.extend(changed_spec(observed, claim));
            } else {
                plan.actions.push(Action::MarkClaim(due));
            }
            Facts::Claim {
                claim,
                binds_late: observed.binds_late,
                has_driver: observed.has_driver,
                trouble: observed.trouble.as_ref(),
            }
        }
        None if may_adopt(observed, claim) && is_being_filled(volume, claim) => {
            let message = format!(
                "Resource \"{}\" already exists and is still being filled: it is adopted once its import is done",
                claim.named()
            );
            Facts::Waiting {
                reason: reason::ERR_RESOURCE_EXISTS,
                message,
            }
        }
        None if may_adopt(observed, claim) => {
            // Its volume knows that it is filled before it is its own: who loses its mark then is
            // filled again unless the volume knows better.
            plan.actions
                .push(if claim.is_filled() && !volume.has_filled(claim) {
                    Action::MarkVolume(Marks {
                        annotations: filled(claim),
                        labels: told_of_disk(volume, claim),
                    })
                } else {
                    Action::Adopt
                });
            Facts::Nothing
        }
        _ => {
            let name = claim.named();
            // The first words are upstream's.
            let message = format!(
                "Resource \"{name}\" already exists and is not managed by DataVolume: remove the claim, rename the volume, or allow its adoption with the annotation {}",
                annotation::ALLOW_ADOPTION
            );
            Facts::Waiting {
                reason: reason::ERR_RESOURCE_EXISTS,
                message,
            }
        }
    }
}

/// That this claim is filled.
fn filled(claim: &PersistentVolumeClaim) -> Changes {
    let uid = Some(claim.uid().to_owned());
    Changes::from([(annotation::FILLED_CLAIM.to_owned(), uid)])
}

/// What a volume is to know of its claim that it does not yet.
fn remembered(volume: &Volume, claim: &PersistentVolumeClaim) -> Marks {
    let mut marks = Changes::new();
    let mut labels = BTreeMap::new();
    if claim.is_filled() {
        marks.extend(filled(claim));
        if !volume.has_filled(claim) {
            labels = told_of_disk(volume, claim);
        }
    }
    if claim.is_bound() && claim.annotation(annotation::POPULATED_FOR) == Some(volume.name()) {
        // It came filled: if it goes, nobody here can fill another one as it was.
        marks.insert(
            annotation::PREPOPULATED.to_owned(),
            Some(claim.named().to_owned()),
        );
    }
    marks.retain(|name, value| volume.annotation(name) != value.as_deref());
    Marks {
        annotations: marks,
        labels,
    }
}

/// What the importer learned from the image of how machines run it, and nobody has said of the volume.
fn told_of_disk(volume: &Volume, claim: &PersistentVolumeClaim) -> BTreeMap<String, String> {
    let known = volume.meta.labels.as_ref();
    let labels = claim.metadata.labels.iter().flatten();
    let news = labels.filter(|(name, _)| {
        name.starts_with(label::OF_INSTANCETYPE)
            && !known.is_some_and(|known| known.contains_key(*name))
    });
    news.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What a populator fills the claim from is there until that is done, whoever takes it away.
fn of_source(observed: &Observed, claim: &PersistentVolumeClaim) -> Option<Action> {
    let volume = &observed.volume;
    match &observed.source {
        Source::Missing
            if !claim.is_filled() && !claim.is_ending() && !volume.has_filled(claim) =>
        {
            let source = render::source(volume, volume.spec.as_ref()?);
            Some(Action::CreateSource(Box::new(source)))
        }
        Source::There { uid, .. } if claim.is_filled() => Some(Action::DeleteSource(uid.clone())),
        Source::There { uid, stages } => listed(volume, stages).map(|stages| Action::MarkSource {
            uid: uid.clone(),
            stages,
        }),
        Source::Unread | Source::Missing => None,
    }
}

/// The stages that a volume lists, where what its claim is filled from does not.
fn listed(volume: &Volume, known: &(Vec<Checkpoint>, bool)) -> Option<Value> {
    let spec = volume.spec.as_ref()?;
    let ends = spec.final_checkpoint == Some(true);
    let same = known.0 == spec.checkpoints && (known.1 == ends || spec.checkpoints.is_empty());
    // Those of a source are never taken away: it would be another import.
    (!same && !spec.checkpoints.is_empty()).then(|| {
        json!({
            "checkpoints": spec.checkpoints, "finalCheckpoint": ends,
            "targetClaim": volume.name(),
        })
    })
}

/// Once there is a claim its volume's spec has no effect any more. That is told once for each change.
fn changed_spec(observed: &Observed, claim: &PersistentVolumeClaim) -> Vec<Action> {
    let volume = &observed.volume;
    let Some(made_from) = claim.annotation(annotation::SPEC) else {
        return Vec::new();
    };
    let spec = volume.spec_hash.as_str();
    if made_from == spec || claim.annotation(annotation::SPEC_IGNORED) == Some(spec) {
        return Vec::new();
    }
    if observed.source == Source::Missing && !claim.is_filled() {
        // What it is filled from is being made of the new one.
        let made = (annotation::SPEC.to_owned(), Some(spec.to_owned()));
        return vec![Action::MarkClaim(Changes::from([made]))];
    }
    let message = format!(
        "the spec was changed after its claim {} had been made: the change has no effect; a claim that is deleted is made anew from it",
        claim.named()
    );
    let told = (annotation::SPEC_IGNORED.to_owned(), Some(spec.to_owned()));
    vec![
        Action::Tell(Note::warning(reason::SPEC_CHANGE_IGNORED, message)),
        Action::MarkClaim(Changes::from([told])),
    ]
}

/// What ends the work on the claim of a volume that goes. One that is orphaned stays as it is.
fn cancelled(observed: &Observed) -> Option<Action> {
    let claim = observed.claim.as_ref()?;
    let volume = &observed.volume;
    let finalizers = volume.meta.finalizers.as_deref().unwrap_or_default();
    let orphans = finalizers.iter().any(|name| name == "orphan");
    let ours = controller(&claim.metadata).is_some_and(|owner| owner.uid == volume.uid());
    let told = claim.annotation(annotation::CANCELLED).is_some();
    if !ours || orphans || told || claim.is_filled() || claim.is_ending() {
        return None;
    }
    let cancelled = (annotation::CANCELLED.to_owned(), Some("true".to_owned()));
    Some(Action::MarkClaim(Changes::from([cancelled])))
}

/// A claim that nobody controls may be taken where the user says so, or where it was filled for this.
fn may_adopt(observed: &Observed, claim: &PersistentVolumeClaim) -> bool {
    if claim.is_ending() {
        return false;
    }
    if claim.annotation(annotation::POPULATED_FOR) == Some(observed.volume.name()) {
        return true;
    }
    match observed.volume.annotation(annotation::ALLOW_ADOPTION) {
        Some(answer) => answer == "true",
        None => observed.adoption,
    }
}

/// Whether a claim that nobody controls is not what it is to be yet. What is adopted is taken as done.
fn is_being_filled(volume: &Volume, claim: &PersistentVolumeClaim) -> bool {
    let asks = [annotation::IMPORT_SOURCE, annotation::IMPORT_ENDPOINT];
    let asks =
        asks.iter().any(|name| claim.annotation(name).is_some()) || claim.populator().is_some();
    asks && !claim.is_filled()
        && claim.annotation(annotation::POPULATED_FOR) != Some(volume.name())
        && volume.annotation(annotation::FILLED_CLAIM) != Some(claim.uid())
}

/// Why it is not bound is told by events, which bring no round about. Why one is not that a populator is at
/// work on is told by its annotations.
pub(super) fn is_waited_for(claim: &PersistentVolumeClaim) -> bool {
    claim.is_pending() && claim.annotation(annotation::PRIME).is_none()
}

/// What events tell of a change of the status.
fn notes(volume: &Volume, next: &Status) -> Vec<Note> {
    let before = &volume.status;
    let mut notes = Vec::new();
    if next.phase != before.phase
        && let Some(note) = phase_note(volume, next.phase.as_deref())
    {
        notes.push(note);
    }
    let changed = |kind| {
        let (old, new) = (of_kind(before, kind), of_kind(next, kind)?);
        let same = old.is_some_and(|old| old.reason == new.reason && old.message == new.message);
        (!same).then_some((old, new))
    };
    if let Some((old, bound)) = changed("Bound") {
        let turned = old.is_none_or(|old| old.reason != bound.reason);
        let (reason, message) = (bound.reason.as_str(), bound.message.clone());
        match reason {
            // Which claim is filled in this one's place is news, too.
            reason::PENDING if bound.message.contains("[prime-") => {
                notes.push(Note::normal(reason, message));
            }
            _ if !turned && next.claim_name.is_some() => {}
            reason::BOUND | reason::PENDING | reason::NOT_FOUND => {
                notes.push(Note::normal(reason, message));
            }
            reason::CLAIM_LOST => {
                let message = format!("PVC {} lost", volume.name());
                notes.push(Note::warning(reason::ERR_CLAIM_LOST, message));
            }
            _ => notes.push(Note::warning(reason, message)),
        }
    }
    if let Some((old, running)) = changed("Running")
        && running.status == "False"
        && !running.message.is_empty()
        && !matches!(next.phase.as_deref(), Some("Succeeded" | "Paused"))
        // What fails at once is never seen to run.
        && (old.is_some_and(|old| old.status == "True") || tells_of_failure(volume, next, running))
    {
        notes.push(Note::warning(&running.reason, running.message.clone()));
    }
    notes
}

/// Whether there is a claim with a volume, or one that a populator has begun with, and this is no usual step on
/// the way.
fn tells_of_failure(volume: &Volume, next: &Status, running: &Condition) -> bool {
    let is_bound = of_kind(next, "Bound").is_some_and(|bound| bound.status == "True");
    let populates = volume.annotation(annotation::USE_POPULATOR) == Some("true")
        && !matches!(next.phase.as_deref(), Some("Pending" | "PendingPopulation"));
    let usual = [
        reason::PENDING,
        reason::COMPLETED,
        reason::IMPORT_QUEUED,
        reason::WAIT_FOR_FIRST_CONSUMER,
        reason::PENDING_POPULATION,
        "ContainerCreating",
        "PodInitializing",
    ];
    (is_bound || populates) && !usual.contains(&running.reason.as_str())
}

fn of_kind<'a>(status: &'a Status, kind: &str) -> Option<&'a Condition> {
    let mut conditions = status.conditions.iter();
    conditions.find(|condition| condition.kind == kind)
}

/// What an event says of a phase that was reached.
fn phase_note(volume: &Volume, phase: Option<&str>) -> Option<Note> {
    let name = volume.name();
    if phase == Some("Succeeded")
        && let Some(filler) = volume.spec.as_ref().and_then(external::filler)
    {
        let message = format!("PVC {name} successfully populated by {filler}");
        let reason = reason::EXTERNAL_POPULATION_SUCCEEDED;
        return Some(Note::normal(reason, message));
    }
    let note = match phase? {
        "ImportScheduled" => Note::normal(
            reason::IMPORT_SCHEDULED,
            format!("Import into {name} scheduled"),
        ),
        "ImportInProgress" => Note::normal(
            reason::IMPORT_IN_PROGRESS,
            format!("Import into {name} in progress"),
        ),
        "Succeeded" => Note::normal(
            reason::IMPORT_SUCCEEDED,
            format!("Successfully imported into PVC {name}"),
        ),
        "Paused" => Note::normal(
            reason::IMPORT_PAUSED,
            format!("Multistage import into PVC {name} is paused"),
        ),
        "Failed" => Note::warning(
            reason::IMPORT_FAILED,
            format!("Failed to import into PVC {name}"),
        ),
        _ => return None,
    };
    Some(note)
}
