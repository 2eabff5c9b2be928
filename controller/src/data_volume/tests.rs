//! The decisions about data volumes, each as a table of what is seen and what comes of it.

mod populated;
mod stages;
mod taken;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use longshore_crds::contract::Overhead;
use longshore_crds::names::{annotation, label, reason};
use serde_json::{Value, json};

use super::plan::{Action, Observed, Plan, Source, plan, refused};
use super::render::Profile;
use super::volume::{Status, Volume};
use crate::event::Note;
use crate::troubles::Trouble;

const NOW: &str = "2026-11-22T00:00:00Z";

fn pvc() -> Value {
    json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": "c",
        "resources": {"requests": {"storage": "1Gi"}},
    })
}

fn http() -> Value {
    json!({"http": {"url": "https://h/disk.qcow2"}})
}

/// A volume with this spec and these annotations besides the stamp.
fn volume_of(spec: &Value, annotations: &Value) -> Volume {
    let mut all = json!({annotation::USE_POPULATOR: "false"});
    for (name, value) in annotations.as_object().unwrap() {
        all[name] = value.clone();
    }
    let object = json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
        "metadata": {"name": "disk", "namespace": "ns", "uid": "volume-1", "annotations": all},
        "spec": spec,
    });
    Volume::of(serde_json::from_value(object).unwrap())
}

fn volume(annotations: &Value) -> Volume {
    volume_of(&json!({"source": http(), "pvc": pvc()}), annotations)
}

fn claim(phase: &str, annotations: &Value) -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {
            "name": "disk", "namespace": "ns", "uid": "claim-1", "resourceVersion": "7",
            "annotations": annotations,
            "ownerReferences": [{"apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
                "name": "disk", "uid": "volume-1", "controller": true}],
        },
        "spec": pvc(),
        "status": {"phase": phase},
    }))
    .unwrap()
}

fn seen(volume: Volume, claim: Option<PersistentVolumeClaim>) -> Observed {
    Observed {
        volume,
        claim,
        statics: Vec::new(),
        trouble: None,
        profile: Profile::default(),
        has_driver: false,
        source: Source::Unread,
        binds_late: true,
        adoption: false,
    }
}

fn notes(plan: &Plan) -> Vec<&Note> {
    let actions = plan.actions.iter();
    actions
        .filter_map(|action| match action {
            Action::Tell(note) => Some(note),
            _ => None,
        })
        .collect()
}

fn condition<'a>(status: &'a Status, kind: &str) -> (&'a str, &'a str, &'a str) {
    let mut all = status.conditions.iter();
    let found = all.find(|condition| condition.kind == kind).unwrap();
    (&found.status, &found.reason, &found.message)
}

fn created(plan: &Plan) -> Option<&PersistentVolumeClaim> {
    plan.actions.iter().find_map(|action| match action {
        Action::CreateClaim(claim) => Some(&**claim),
        _ => None,
    })
}

#[test]
fn a_volume_is_stamped_before_anything_is_made_for_it() {
    let mut fresh = volume(&json!({}));
    fresh.meta.annotations = None;
    let first = plan(&seen(fresh, None), NOW);
    assert!(
        matches!(first.actions.as_slice(), [Action::MarkVolume(marks)]
            if marks.annotations[annotation::USE_POPULATOR].as_deref() == Some("false")),
        "{first:?}"
    );
    assert_eq!(first.status, None);
    let second = plan(&seen(volume(&json!({})), None), NOW);
    assert!(created(&second).is_some());
    let status = second.status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(condition(&status, "Bound").1, reason::NOT_FOUND);
}

#[test]
fn what_is_not_done_here_waits_with_a_reason_and_creates_nothing() {
    let storage = json!({"resources": {"requests": {"storage": "1Gi"}}});
    for (spec, annotations, why) in [
        (
            json!({"source": http(), "pvc": pvc()}),
            json!({annotation::PREPOPULATED: "disk"}),
            reason::AWAITING_CLAIM,
        ),
        (
            json!({"source": {"pvc": {"namespace": "n", "name": "c"}}, "pvc": pvc()}),
            json!({}),
            reason::UNSUPPORTED_SOURCE,
        ),
        (
            json!({"source": {"upload": {}}, "pvc": pvc()}),
            json!({}),
            reason::UNSUPPORTED_SOURCE,
        ),
        (
            json!({"sourceRef": {"kind": "DataSource", "name": "x"}, "pvc": pvc()}),
            json!({}),
            reason::UNSUPPORTED_SOURCE,
        ),
        (
            json!({"source": http()}),
            json!({}),
            reason::ERR_CLAIM_NOT_VALID,
        ),
        (json!({"source": 7}), json!({}), reason::ERR_CLAIM_NOT_VALID),
        (
            json!({"source": http(), "storage": storage}),
            json!({}),
            reason::STORAGE_PROFILE_INCOMPLETE,
        ),
    ] {
        let observed = seen(volume_of(&spec, &annotations), None);
        let first = plan(&observed, NOW);
        assert!(created(&first).is_none(), "{spec}");
        assert!(first.again.is_some(), "{spec}: nobody looks again");
        let [note] = notes(&first)[..] else {
            panic!("{spec}: {first:?}")
        };
        let status = first.status.clone().unwrap();
        assert_eq!(status.phase.as_deref(), Some("Pending"));
        for kind in ["Bound", "Ready", "Running"] {
            let (is, word, message) = condition(&status, kind);
            // The word that upstream's clients listen for; Running says which of its causes it is.
            let heard = match why {
                reason::STORAGE_PROFILE_INCOMPLETE => reason::ERR_CLAIM_NOT_VALID,
                why => why,
            };
            let expected = if kind == "Running" { why } else { heard };
            assert_eq!((is, word), ("False", expected), "{spec}");
            assert!(!message.is_empty());
            assert_eq!(*note, Note::warning(heard, message.to_owned()));
        }
        // It is told once.
        let mut later = observed;
        later.volume.status = status;
        let second = plan(&later, "2026-11-22T01:00:00Z");
        assert!(second.actions.is_empty() && second.status.is_none());
    }
}

/// A claim's phase, its annotations, and what they make of its volume: phase, progress, and the reasons of
/// Bound, Ready and Running.
type State = (
    &'static str,
    Value,
    &'static str,
    &'static str,
    [&'static str; 3],
);

fn pod(phase: &str, why: &str) -> Value {
    json!({
        annotation::IMPORT_POD: "importer-disk", annotation::POD_PHASE: phase,
        annotation::RUNNING: if why == "Pod is running" { "true" } else { "false" },
        annotation::RUNNING_REASON: why, annotation::POD_RESTARTS: "2",
        annotation::PROGRESS: r#"{"percent":12.5}"#,
    })
}

fn states() -> Vec<State> {
    let wait = reason::WAIT_FOR_FIRST_CONSUMER;
    let (bound, pending, transfer) = (reason::BOUND, reason::PENDING, reason::TRANSFER_RUNNING);
    let immediate = json!({annotation::BIND_IMMEDIATE: ""});
    let named = json!({annotation::IMPORT_POD: "importer-disk"});
    let used = json!({annotation::RUNNING: "false", annotation::RUNNING_REASON: reason::IMPORT_TARGET_IN_USE});
    vec![
        (
            "Pending",
            json!({}),
            "WaitForFirstConsumer",
            "N/A",
            [pending, "", wait],
        ),
        (
            "Pending",
            immediate,
            "Pending",
            "N/A",
            [pending, "", pending],
        ),
        (
            "Pending",
            named.clone(),
            "ImportScheduled",
            "N/A",
            [pending, "", pending],
        ),
        ("Bound", json!({}), "PVCBound", "N/A", [bound, "", pending]),
        (
            "Bound",
            used,
            "PVCBound",
            "N/A",
            [bound, "", reason::IMPORT_TARGET_IN_USE],
        ),
        (
            "Bound",
            named,
            "ImportScheduled",
            "N/A",
            [bound, "", pending],
        ),
        (
            "Bound",
            pod("Pending", "ContainerCreating"),
            "ImportScheduled",
            "12.50%",
            [bound, "", "ContainerCreating"],
        ),
        (
            "Bound",
            pod("Running", "Pod is running"),
            "ImportInProgress",
            "12.50%",
            [bound, transfer, "Pod is running"],
        ),
        (
            "Bound",
            pod("Failed", "Evicted"),
            "ImportInProgress",
            "12.50%",
            [bound, "", "Evicted"],
        ),
    ]
}

fn ends() -> Vec<State> {
    let mut fatal = pod("Failed", reason::CHECKSUM_ERROR);
    fatal[annotation::FATAL_ERROR] = json!("true");
    let done = pod("Succeeded", reason::COMPLETED);
    let bound = reason::BOUND;
    vec![
        (
            "Bound",
            fatal,
            "Failed",
            "12.50%",
            [bound, reason::ERROR, reason::CHECKSUM_ERROR],
        ),
        (
            "Bound",
            done.clone(),
            "Succeeded",
            "100.0%",
            [bound, "", reason::COMPLETED],
        ),
        (
            "Lost",
            done,
            "Failed",
            "12.50%",
            [reason::CLAIM_LOST, reason::ERROR, reason::COMPLETED],
        ),
    ]
}

#[test]
fn every_state_of_a_claim_is_a_phase_and_three_conditions_with_reasons() {
    for (claimed, annotations, phase, progress, reasons) in states().into_iter().chain(ends()) {
        let filled = json!({annotation::FILLED_CLAIM: "claim-1"});
        let volume = if phase == "Succeeded" && progress == "100.0%" && claimed == "Bound" {
            // The mark is set in a round of its own, which another test is about.
            volume(&filled)
        } else {
            volume(
                &json!({annotation::FILLED_CLAIM: if claimed == "Lost" { "claim-1" } else { "claim-0" }}),
            )
        };
        let observed = seen(volume, Some(claim(claimed, &annotations)));
        let first = plan(&observed, NOW);
        let status = first
            .status
            .clone()
            .unwrap_or_else(|| panic!("{phase}: {first:?}"));
        assert_eq!(status.phase.as_deref(), Some(phase));
        assert_eq!(status.progress.as_deref(), Some(progress), "{phase}");
        assert_eq!(status.claim_name.as_deref(), Some("disk"));
        let told = ["Bound", "Ready", "Running"].map(|kind| condition(&status, kind).1);
        assert_eq!(told, reasons, "{phase}");
        let is_ready = condition(&status, "Ready").0 == "True";
        assert_eq!(is_ready, phase == "Succeeded");
        // The same again says nothing new.
        let mut later = observed;
        later.volume.status = status;
        let second = plan(&later, "2026-11-22T01:00:00Z");
        assert!(
            second.actions.is_empty() && second.status.is_none(),
            "{phase}: {second:?}"
        );
    }
}

#[test]
fn what_keeps_a_claim_from_being_bound_is_told() {
    let trouble = Trouble {
        reason: "ProvisioningFailed".to_owned(),
        message: "no space in the pool".to_owned(),
    };
    let observed = Observed {
        trouble: Some(trouble),
        ..seen(volume(&json!({})), Some(claim("Pending", &json!({}))))
    };
    let first = plan(&observed, NOW);
    assert!(first.again.is_some());
    let status = first.status.unwrap();
    let (_, why, message) = condition(&status, "Bound");
    assert_eq!(why, reason::PENDING);
    assert_eq!(message, "PVC disk Pending: no space in the pool");
}

#[test]
fn a_missing_library_is_told_as_what_keeps_the_claim_from_being_bound() {
    let asks = json!({
        annotation::RUNNING: "false", annotation::RUNNING_REASON: reason::AWAITING_VDDK,
        annotation::RUNNING_MESSAGE: "waiting for v2v-vmware configmap",
    });
    let first = plan(&seen(volume(&json!({})), Some(claim("Bound", &asks))), NOW);
    let status = first.status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("ImportScheduled"));
    let bound = condition(&status, "Bound");
    let told = (reason::AWAITING_VDDK, "waiting for v2v-vmware configmap");
    assert_eq!(bound, ("False", told.0, told.1));
    for kind in ["Ready", "Running"] {
        assert_eq!(condition(&status, kind), ("False", "", ""));
    }
}

#[test]
fn a_failure_is_told_even_if_nothing_was_seen_to_run_and_steps_on_the_way_are_not() {
    let said = |phase: &str, why: &str, message: &str| {
        let mut all = pod(phase, why);
        all[annotation::RUNNING_MESSAGE] = json!(message);
        claim("Bound", &all)
    };
    let mut before = volume(&json!({}));
    for (phase, why, message, warns) in [
        ("Pending", "ContainerCreating", "", false),
        ("Pending", reason::PENDING, "the pod is being made", false),
        ("Running", reason::ERROR, "answered 404", true),
        // The same once more, and then another one.
        ("Running", reason::ERROR, "answered 404", false),
        ("Running", reason::ERROR, "answered 500", true),
    ] {
        let plan = plan(&seen(before.clone(), Some(said(phase, why, message))), NOW);
        let told = format!("{:?}", notes(&plan));
        let warned = told.contains("Warning") && told.contains(message);
        assert_eq!(warned, warns, "{why} {message}: {told}");
        if let Some(status) = plan.status {
            before.status = status;
        }
    }
}

#[test]
fn what_an_image_says_of_how_it_is_run_is_said_of_the_volume_once() {
    let done = json!({annotation::POD_PHASE: "Succeeded"});
    let mut filled = claim("Bound", &done);
    let name = format!("{}default-preference", label::OF_INSTANCETYPE);
    let labels = [
        (name.clone(), "fedora".to_owned()),
        ("app".to_owned(), "x".to_owned()),
    ];
    filled.metadata.labels = Some(labels.into());
    let labels = |volume: Volume| match plan(&seen(volume, Some(filled.clone())), NOW).actions.pop()
    {
        Some(Action::MarkVolume(marks)) => marks.labels,
        other => panic!("{other:?}"),
    };
    let mut plain = volume(&json!({}));
    let expected = [(name.clone(), "fedora".to_owned())];
    assert_eq!(labels(plain.clone()), expected.into());
    plain.meta.labels = Some([(name, "mine".to_owned())].into());
    assert_eq!(labels(plain), [].into());
    // Who takes it away afterwards means it.
    let knows = volume(&json!({annotation::FILLED_CLAIM: "claim-1"}));
    let later = plan(&seen(knows, Some(filled.clone())), NOW);
    assert!(
        !later
            .actions
            .iter()
            .any(|it| matches!(it, Action::MarkVolume(_)))
    );
}

#[test]
fn succeeded_is_for_as_long_as_it_is_the_same_claim() {
    let done = json!({annotation::POD_PHASE: "Succeeded"});
    let first = plan(&seen(volume(&json!({})), Some(claim("Bound", &done))), NOW);
    assert!(
        matches!(first.actions.as_slice(), [Action::MarkVolume(marks)]
            if marks.annotations[annotation::FILLED_CLAIM].as_deref() == Some("claim-1")),
        "{first:?}"
    );
    let remembers = json!({annotation::FILLED_CLAIM: "claim-1"});
    let phase = |claim| {
        let plan = plan(&seen(volume(&remembers), claim), NOW);
        plan.status.unwrap().phase.unwrap()
    };
    assert_eq!(phase(Some(claim("Bound", &done))), "Succeeded");
    // Somebody lost the mark.
    assert_eq!(phase(Some(claim("Bound", &json!({})))), "Succeeded");
    // Another claim of the name.
    let mut other = claim("Bound", &json!({}));
    other.metadata.uid = Some("claim-2".to_owned());
    assert_eq!(phase(Some(other)), "PVCBound");
    // None: it is made anew.
    assert_eq!(phase(None), "Pending");
    let again = plan(&seen(volume(&remembers), None), NOW);
    let claim = created(&again).unwrap();
    let handed_on = claim.metadata.annotations.as_ref().unwrap();
    assert!(!handed_on.contains_key(annotation::FILLED_CLAIM));
}

#[test]
fn a_claim_that_is_there_is_taken_where_that_is_allowed() {
    let allow = |answer: &str| json!({annotation::ALLOW_ADOPTION: answer});
    let for_us = json!({annotation::POPULATED_FOR: "disk"});
    for (gate, answer, marks, owned, taken) in [
        (false, json!({}), json!({}), false, false),
        (false, allow("true"), json!({}), false, true),
        (true, json!({}), json!({}), false, true),
        (true, allow("false"), json!({}), false, false),
        (false, allow("false"), for_us.clone(), false, true),
        (false, json!({}), for_us, false, true),
        // What somebody controls is never taken.
        (true, allow("true"), json!({}), true, false),
    ] {
        let mut claim = claim("Bound", &marks);
        let owner = claim.metadata.owner_references.as_mut().unwrap();
        owner[0].uid = "other".to_owned();
        if !owned {
            claim.metadata.owner_references = None;
        }
        let observed = Observed {
            adoption: gate,
            ..seen(volume(&answer), Some(claim))
        };
        let plan = plan(&observed, NOW);
        let adopts = plan.actions == [Action::Adopt];
        assert_eq!(adopts, taken, "{gate} {answer} {marks} {owned}");
        if !taken {
            let status = plan.status.unwrap();
            assert_eq!(condition(&status, "Bound").1, reason::ERR_RESOURCE_EXISTS);
        }
    }
    let mut ending = claim("Bound", &json!({}));
    ending.metadata.owner_references = None;
    ending.metadata.deletion_timestamp = Some(serde_json::from_value(json!(NOW)).unwrap());
    let plan = plan(&seen(volume(&allow("true")), Some(ending)), NOW);
    assert!(!plan.actions.contains(&Action::Adopt));
}

#[test]
fn a_spec_that_changes_once_there_is_a_claim_is_warned_about_once() {
    let spec_hash = volume(&json!({})).spec_hash;
    let told = |marks: &Value| {
        let plan = plan(&seen(volume(&json!({})), Some(claim("Bound", marks))), NOW);
        let warned = notes(&plan)
            .iter()
            .any(|note| format!("{note:?}").contains(reason::SPEC_CHANGE_IGNORED));
        let marked = plan.actions.iter().any(|action| {
            matches!(action, Action::MarkClaim(marks)
                if marks[annotation::SPEC_IGNORED].as_deref() == Some(spec_hash.as_str()))
        });
        assert_eq!(warned, marked);
        warned
    };
    assert!(!told(&json!({annotation::SPEC: spec_hash})));
    assert!(told(&json!({annotation::SPEC: "another"})));
    assert!(!told(
        &json!({annotation::SPEC: "another", annotation::SPEC_IGNORED: spec_hash})
    ));
    // One that was adopted was made from no spec.
    assert!(!told(&json!({})));
}

#[test]
fn a_volume_that_goes_ends_the_work_on_its_claim_unless_it_is_orphaned() {
    let cancels = |finalizers: &[&str], marks: &Value| {
        let mut volume = volume(&json!({}));
        volume.meta.deletion_timestamp = Some(serde_json::from_value(json!(NOW)).unwrap());
        volume.meta.finalizers = Some(finalizers.iter().map(|&name| name.to_owned()).collect());
        let plan = plan(&seen(volume, Some(claim("Bound", marks))), NOW);
        assert!(plan.status.is_none() && plan.again.is_none());
        matches!(plan.actions.as_slice(), [Action::MarkClaim(marks)]
            if marks[annotation::CANCELLED].is_some())
    };
    assert!(cancels(&["foregroundDeletion"], &json!({})));
    assert!(!cancels(&["orphan"], &json!({})));
    assert!(!cancels(&[], &json!({annotation::POD_PHASE: "Succeeded"})));
    assert!(!cancels(&[], &json!({annotation::CANCELLED: "true"})));
}

#[test]
fn what_the_server_refuses_is_told_once() {
    let mut volume = volume(&json!({}));
    let quota = "persistentvolumeclaims \"disk\" is forbidden: exceeded quota: q";
    let (notes, status) = refused(&volume, quota, NOW);
    let status = status.unwrap();
    let (_, why, message) = condition(&status, "Bound");
    assert_eq!(why, reason::ERR_EXCEEDED_QUOTA);
    assert!(message.ends_with(quota), "{message}");
    assert_eq!(notes, [Note::warning(why, message.to_owned())]);
    volume.status = status;
    let again = refused(&volume, quota, "2026-11-22T01:00:00Z");
    assert_eq!(again, (Vec::new(), None));
    let (_, other) = refused(&volume, "admission webhook says no", NOW);
    assert_eq!(
        condition(&other.unwrap(), "Bound").1,
        reason::ERR_CLAIM_REFUSED
    );
}

#[test]
fn events_tell_phases_and_why_a_worker_stopped() {
    let running = json!({
        annotation::POD_PHASE: "Running", annotation::RUNNING: "true",
        annotation::RUNNING_REASON: "Pod is running",
    });
    let first = plan(
        &seen(volume(&json!({})), Some(claim("Bound", &running))),
        NOW,
    );
    let told = notes(&first);
    let progress = Note::normal(
        reason::IMPORT_IN_PROGRESS,
        "Import into disk in progress".to_owned(),
    );
    let bound = Note::normal(reason::BOUND, "PVC disk Bound".to_owned());
    assert_eq!(told, [&progress, &bound]);
    let mut later = volume(&json!({}));
    later.status = first.status.unwrap();
    let broken = json!({
        annotation::POD_PHASE: "Running", annotation::RUNNING: "false",
        annotation::RUNNING_REASON: "Error", annotation::RUNNING_MESSAGE: "h answered 404",
    });
    let second = plan(&seen(later, Some(claim("Bound", &broken))), NOW);
    assert_eq!(
        notes(&second),
        [&Note::warning("Error", "h answered 404".to_owned())]
    );
}

fn rendered(spec: &Value, annotations: &Value, profile: Profile) -> Value {
    let mut volume = volume_of(spec, annotations);
    volume.meta.labels = Some([("team".to_owned(), "a".to_owned())].into());
    let observed = Observed {
        profile,
        ..seen(volume, None)
    };
    let plan = plan(&observed, NOW);
    let claim = created(&plan).unwrap_or_else(|| panic!("{spec}: {:?}", plan.status));
    serde_json::to_value(claim).unwrap()
}

#[test]
fn storage_grows_by_what_its_filesystem_takes_and_pvc_is_taken_word_for_word() {
    let sets = json!([
        {"accessModes": ["ReadWriteMany"], "volumeMode": "Filesystem"},
        {"accessModes": ["ReadWriteMany"], "volumeMode": "Block"},
    ]);
    let profile = || Profile {
        class: Some("c".to_owned()),
        sets: serde_json::from_value(sets.clone()).unwrap(),
        overhead: Overhead::USUAL,
        ..Profile::default()
    };
    let storage = |mode: Option<&str>| {
        let mut storage = json!({"resources": {"requests": {"storage": "1Gi"}}});
        if let Some(mode) = mode {
            storage["volumeMode"] = json!(mode);
        }
        rendered(
            &json!({"source": http(), "storage": storage}),
            &json!({}),
            profile(),
        )
    };
    let size = |claim: &Value| claim["spec"]["resources"]["requests"]["storage"].clone();
    let grown = Overhead::USUAL.required(1 << 30).to_string();
    for mode in [None, Some("Filesystem"), Some("FromStorageProfile")] {
        let claim = storage(mode);
        assert_eq!(size(&claim), grown.as_str(), "{mode:?}");
        assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteMany"]));
        assert_eq!(claim["spec"]["volumeMode"], "Filesystem");
    }
    assert_eq!(size(&storage(Some("Block"))), "1Gi");
    let verbatim = rendered(
        &json!({"source": http(), "pvc": pvc()}),
        &json!({}),
        profile(),
    );
    assert_eq!(size(&verbatim), "1Gi");
    assert_eq!(verbatim["spec"]["accessModes"], json!(["ReadWriteOnce"]));
}

#[test]
fn a_claim_says_what_its_volume_says() {
    let mut named = pvc();
    named["volumeName"] = json!("pv");
    named["selector"] = json!({"matchLabels": {"a": "b"}});
    let spec = json!({
        "source": {"http": {
            "url": "https://h/disk", "secretRef": "", "certConfigMap": "ca", "checksum": format!("md5:{}", "0".repeat(32)),
            "extraHeaders": ["A: 1", "B: 2"], "secretExtraHeaders": ["s"], "insecureSkipVerify": true,
        }},
        "pvc": named, "contentType": "archive", "preallocation": true,
        "priorityClassName": "high", "serviceAccountName": "worker",
    });
    let own = json!({
        "k8s.v1.cni.cncf.io/networks": "net", annotation::POD_RETAIN: "true",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        // Dead upstream, and without effect here.
        annotation::DELETE_AFTER_COMPLETION: "true",
        // Nothing that is found out about a claim is taken from a volume.
        annotation::POD_PHASE: "Succeeded",
    });
    let claim = rendered(&spec, &own, Profile::default());
    let annotations = &claim["metadata"]["annotations"];
    for (name, value) in [
        (annotation::IMPORT_SOURCE, json!("http")),
        (annotation::IMPORT_ENDPOINT, json!("https://h/disk")),
        (annotation::IMPORT_SECRET, Value::Null),
        (annotation::IMPORT_CERTIFICATES, json!("ca")),
        (
            "cdi.kubevirt.io/storage.import.extraHeaders.1",
            json!("B: 2"),
        ),
        (
            "cdi.kubevirt.io/storage.import.secretExtraHeaders.0",
            json!("s"),
        ),
        (annotation::IMPORT_INSECURE, json!("true")),
        (annotation::CONTENT_TYPE, json!("archive")),
        (annotation::PREALLOCATION_REQUESTED, json!("true")),
        (annotation::POD_PRIORITY_CLASS, json!("high")),
        (annotation::POD_SERVICE_ACCOUNT, json!("worker")),
        (annotation::CREATED_FOR, json!("volume-1")),
        ("k8s.v1.cni.cncf.io/networks", json!("net")),
        (annotation::POD_RETAIN, json!("true")),
        (
            "kubectl.kubernetes.io/last-applied-configuration",
            Value::Null,
        ),
        (annotation::POD_PHASE, Value::Null),
    ] {
        assert_eq!(annotations[name], value, "{name}");
    }
    assert_eq!(claim["metadata"]["labels"]["team"], "a");
    assert_eq!(claim["metadata"]["labels"][label::APP], label::APP_VALUE);
    assert_eq!(claim["metadata"]["labels"][label::FILLING_UP], "disabled");
    assert_eq!(claim["spec"]["volumeName"], "pv");
    assert_eq!(claim["spec"]["selector"]["matchLabels"]["a"], "b");
    assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], "volume-1");
}

#[test]
fn every_source_becomes_the_annotations_that_ask_for_it() {
    let url = "https://h/x";
    for (source, expected) in [
        (json!({"blank": {}}), json!({"source": "none"})),
        (
            json!({"s3": {"url": url, "secretRef": "k"}}),
            json!({"source": "s3", "endpoint": url, "secretName": "k"}),
        ),
        (
            json!({"gcs": {"url": "gs://b/o", "secretRef": "k"}}),
            json!({"source": "gcs", "endpoint": "gs://b/o", "secretName": "k"}),
        ),
        (
            json!({"registry": {"url": "docker://r/i", "pullMethod": "node", "platform": {"architecture": "arm64"}}}),
            json!({"source": "registry", "endpoint": "docker://r/i", "registryImportMethod": "node", "registryImageArchitecture": "arm64"}),
        ),
        (
            json!({"imageio": {"url": url, "diskId": "1", "secretRef": "k", "certConfigMap": "ca"}}),
            json!({"source": "imageio", "endpoint": url, "diskId": "1", "secretName": "k", "certConfigMap": "ca"}),
        ),
        (
            json!({"vddk": {"url": url, "uuid": "u", "backingFile": "f", "thumbprint": "t", "secretRef": "k", "initImageURL": "i"}}),
            json!({"source": "vddk", "endpoint": url, "uuid": "u", "backingFile": "f", "vddk.thumbprint": "t", "secretName": "k"}),
        ),
    ] {
        let claim = rendered(
            &json!({"source": source, "pvc": pvc()}),
            &json!({}),
            Profile::default(),
        );
        let annotations = claim["metadata"]["annotations"].as_object().unwrap();
        let prefix = "cdi.kubevirt.io/storage.import.";
        let mut found = json!({});
        for (name, value) in annotations {
            if let Some(name) = name.strip_prefix(prefix) {
                found[name] = value.clone();
            }
        }
        assert_eq!(found, expected);
    }
    let mut from_elsewhere = pvc();
    from_elsewhere["dataSource"] = json!({"apiGroup": "g", "kind": "K", "name": "n"});
    let claim = rendered(
        &json!({"pvc": from_elsewhere}),
        &json!({}),
        Profile::default(),
    );
    assert_eq!(
        claim["metadata"]["annotations"][annotation::EXTERNAL_POPULATION],
        "true"
    );
    assert_eq!(claim["spec"]["dataSource"]["kind"], "K");
}

#[test]
fn a_claim_is_made_anew_once_its_volume_no_longer_says_that_it_is_filled() {
    let mut done = volume(&json!({annotation::FILLED_CLAIM: "claim-0"}));
    done.status.phase = Some("Succeeded".to_owned());
    let first = plan(&seen(done.clone(), None), NOW);
    assert!(created(&first).is_none(), "{first:?}");
    done.status = first.status.unwrap();
    assert_eq!(done.status.phase.as_deref(), Some("Pending"));
    assert!(created(&plan(&seen(done, None), NOW)).is_some());
}
