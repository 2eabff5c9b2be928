//! What to do about installations. Pure: the same installations give the same plan.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use longshore_crds::names::{annotation, label, object};
use longshore_crds::{CdiSpec, CdiStatus, Condition};
use serde_json::{Map, Value, json};

use super::foreign;
use crate::custom::{CDI, part, raw};
use crate::event::Note;
use crate::installation::HONOR_FIRST_CONSUMER;

/// All that a plan depends on.
pub(super) struct Observed {
    /// The oldest first.
    pub(super) installations: Vec<Arc<DynamicObject>>,
    pub(super) configuration: Option<Arc<DynamicObject>>,
    /// Data volumes, if [they matter](Self::waits_for_volumes).
    pub(super) volumes: usize,
    pub(super) version: String,
}

impl Observed {
    /// Whether a deletion depends on there being no data volumes.
    pub(super) fn waits_for_volumes(&self) -> bool {
        let mut installations = self.installations.iter();
        installations.any(|cdi| cdi.metadata.deletion_timestamp.is_some() && blocks(cdi))
    }
}

/// What there is to do, in this order.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    Create(Box<DynamicObject>),
    Change {
        of: Arc<DynamicObject>,
        change: Value,
    },
    Tell {
        of: Arc<DynamicObject>,
        note: Note,
    },
}

/// Decides. `now` is what conditions that change carry.
pub(super) fn plan(observed: &Observed, now: &str) -> Vec<Action> {
    let Some(in_force) = observed.installations.first() else {
        return vec![Action::Create(Box::new(usual()))];
    };
    let mut actions = Vec::new();
    for cdi in &observed.installations {
        let (mut change, phase, conditions) = if cdi.metadata.deletion_timestamp.is_some() {
            ending(observed, cdi)
        } else if Arc::ptr_eq(cdi, in_force) {
            working(observed, cdi)
        } else {
            superfluous(in_force)
        };
        let before: CdiStatus = part(cdi, "status");
        let version = Some(observed.version.clone());
        let next = CdiStatus {
            phase: Some(phase.to_owned()),
            conditions: conditions
                .into_iter()
                .map(|condition| condition.since(&before.conditions, now))
                .collect(),
            operator_version: version.clone(),
            target_version: version.clone(),
            observed_version: if phase == DEPLOYED {
                version
            } else {
                before.observed_version.clone()
            },
        };
        if next != before {
            change.insert("status".to_owned(), json!(next));
        }
        if change.is_empty() {
            continue;
        }
        let metadata = change.entry("metadata").or_insert_with(|| json!({}));
        metadata["uid"] = json!(cdi.metadata.uid);
        metadata["resourceVersion"] = json!(cdi.metadata.resource_version);
        actions.push(Action::Change {
            of: Arc::clone(cdi),
            change: Value::Object(change),
        });
        if next.phase != before.phase
            && let Some(note) = told(phase, &next)
        {
            let of = Arc::clone(cdi);
            actions.push(Action::Tell { of, note });
        }
    }
    actions
}

const DEPLOYED: &str = "Deployed";

/// A change of an object, its phase, and what is said of it.
type Verdict = (Map<String, Value>, &'static str, [Condition; 3]);

/// The one that is made where there is none: what everybody sets.
fn usual() -> DynamicObject {
    let mut cdi = CDI.empty(object::CDI);
    cdi.metadata.annotations =
        Some([(annotation::CONFIG_AUTHORITY.to_owned(), String::new())].into());
    cdi.metadata.labels = Some(
        [(
            label::COMPONENT.to_owned(),
            label::COMPONENT_VALUE.to_owned(),
        )]
        .into(),
    );
    cdi.data = json!({"spec": {"config": {"featureGates": [HONOR_FIRST_CONSUMER]}}});
    cdi
}

/// Whether its deletion is to wait for data volumes.
fn blocks(cdi: &DynamicObject) -> bool {
    let spec: CdiSpec = part(cdi, "spec");
    spec.uninstall_strategy.as_deref() == Some("BlockUninstallIfWorkloadsExist")
}

fn working(observed: &Observed, cdi: &DynamicObject) -> Verdict {
    let mut change = Map::new();
    let mut metadata = Map::new();
    let has_finalizer = cdi
        .finalizers()
        .iter()
        .any(|one| one == object::CDI_FINALIZER);
    if has_finalizer != blocks(cdi) {
        metadata.insert("finalizers".to_owned(), finalizers(cdi, !has_finalizer));
    }
    if !cdi.annotations().contains_key(annotation::CONFIG_AUTHORITY) {
        // Settings that were written where upstream once had them must not be lost with the first look.
        let written = observed.configuration.as_deref();
        let written = written
            .map(|object| raw(object, "spec"))
            .unwrap_or_default();
        let none = raw(cdi, "spec")["config"].is_null();
        if none && written.as_object().is_some_and(|fields| !fields.is_empty()) {
            change.insert("spec".to_owned(), json!({"config": written}));
        }
        let mark = json!({annotation::CONFIG_AUTHORITY: ""});
        metadata.insert("annotations".to_owned(), mark);
    }
    if !metadata.is_empty() {
        change.insert("metadata".to_owned(), Value::Object(metadata));
    }
    let conditions = [
        Condition::new("Available", true, "DeployCompleted", "Deployment Completed"),
        Condition::new("Progressing", false, "DeployCompleted", ""),
        Condition::new("Degraded", false, "DeployCompleted", ""),
    ];
    (change, DEPLOYED, conditions)
}

fn ending(observed: &Observed, cdi: &DynamicObject) -> Verdict {
    let mut change = Map::new();
    let (reason, message, degraded) = if blocks(cdi) && observed.volumes > 0 {
        let message = format!(
            "there are still {} DataVolumes present: delete them, or set uninstallStrategy to RemoveWorkloads",
            observed.volumes
        );
        ("DataVolumesExist", message, true)
    } else {
        let own = finalizers(cdi, false);
        if json!(cdi.finalizers()) != own {
            change.insert("metadata".to_owned(), json!({"finalizers": own}));
        }
        (
            "Deleting",
            "it goes; DataVolumes and claims stay".to_owned(),
            false,
        )
    };
    let conditions = [
        Condition::new("Available", true, reason, ""),
        Condition::new("Progressing", true, reason, message.clone()),
        Condition::new("Degraded", degraded, reason, message),
    ];
    (change, "Deleting", conditions)
}

fn superfluous(in_force: &DynamicObject) -> Verdict {
    let message = format!(
        "the settings of CDI {} are in force: delete this one, or that one",
        in_force.name_any()
    );
    let reason = "OtherInstallation";
    let conditions = [
        Condition::new("Available", false, reason, message.clone()),
        Condition::new("Progressing", false, reason, ""),
        Condition::new("Degraded", true, reason, message),
    ];
    (Map::new(), "Error", conditions)
}

/// The finalizers of an object with ours, or without it.
fn finalizers(cdi: &DynamicObject, ours: bool) -> Value {
    let mut all = cdi.finalizers().to_vec();
    all.retain(|one| one != object::CDI_FINALIZER);
    if ours {
        all.push(object::CDI_FINALIZER.to_owned());
    }
    json!(all)
}

fn told(phase: &str, status: &CdiStatus) -> Option<Note> {
    let [available, progressing, degraded] = status.conditions.as_slice() else {
        return None;
    };
    match phase {
        DEPLOYED => Some(Note::normal(&available.reason, available.message.clone())),
        "Error" => Some(Note::warning(&degraded.reason, degraded.message.clone())),
        _ => Some(Note::normal(
            &progressing.reason,
            progressing.message.clone(),
        )),
    }
}

/// What an installation of somebody else's is to say of us; `None` if it says so already.
pub(super) fn passive(cdi: &DynamicObject, why: &foreign::Foreign, now: &str) -> Option<Value> {
    let mut status: CdiStatus = part(cdi, "status");
    let wanted = why.condition().since(&status.conditions, now);
    if status.conditions.contains(&wanted) {
        return None;
    }
    // The list has no keys: what others say in it is written again as it is.
    status
        .conditions
        .retain(|condition| condition.kind != wanted.kind);
    status.conditions.push(wanted);
    Some(json!({
        "metadata": {"uid": cdi.metadata.uid, "resourceVersion": cdi.metadata.resource_version},
        "status": {"conditions": status.conditions},
    }))
}
