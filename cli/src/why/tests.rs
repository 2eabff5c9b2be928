//! Observations and the verdicts on them.

use std::fmt::Debug;

use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use longshore_crds::Condition;
use longshore_crds::names::{annotation as names, reason};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Kind;
use super::judge::{State, Verdict, judge};
use super::observed::{Observed, Volume};
use super::report::text;
use crate::cluster::{Hidden, Seen, resource};

const NOW: &str = "2026-11-22T01:00:00Z";

fn of<T: DeserializeOwned + Debug>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn there<T: DeserializeOwned + Debug>(value: Value) -> Seen<T> {
    Seen::There(of(value))
}

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn volume(phase: &str, conditions: &Value) -> Volume {
    let mut object = DynamicObject::new("disk", &resource("DataVolume")).within("ns");
    object.metadata.uid = Some("volume".to_owned());
    object.metadata.creation_timestamp = of(json!("2026-11-22T00:00:00Z"));
    object.data = json!({
        "spec": {"pvc": {}},
        "status": {"phase": phase, "conditions": conditions},
    });
    Volume::of(object)
}

fn claim(phase: &str, annotations: &Value) -> Value {
    json!({
        "metadata": {"name": "disk", "namespace": "ns", "uid": "claim", "annotations": annotations,
            "creationTimestamp": "2026-11-22T00:00:00Z"},
        "spec": {"storageClassName": "fast"},
        "status": {"phase": phase},
    })
}

fn pod(status: &Value) -> Value {
    json!({
        "metadata": {"name": "importer-disk", "namespace": "ns", "uid": "pod",
            "creationTimestamp": "2026-11-22T00:00:00Z"},
        "status": status,
    })
}

fn event(uid: &str, kind: &str, reason: &str, message: &str) -> Value {
    json!({
        "metadata": {"name": reason.to_lowercase()}, "involvedObject": {"uid": uid}, "type": kind,
        "reason": reason, "message": message, "source": {"component": "somebody"},
        "lastTimestamp": "2026-11-22T00:59:00Z",
    })
}

fn working_lease() -> Value {
    json!({"spec": {"holderIdentity": "it", "leaseDurationSeconds": 60,
        "renewTime": "2026-11-22T00:59:58.000000Z"}})
}

/// A volume with a bound claim and no pod, in a cluster where all is well.
fn usual() -> Observed {
    Observed {
        kind: Kind::DataVolume,
        namespace: "ns".to_owned(),
        name: "disk".to_owned(),
        now: now(),
        server: "https://api".to_owned(),
        volume: Seen::There(volume("ImportScheduled", &json!([]))),
        claim: there(claim("Bound", &json!({}))),
        prime: Seen::NotAsked,
        pod: Seen::Absent,
        events: there(json!([])),
        users: Seen::NotAsked,
        classes: there(json!([
            {"metadata": {"name": "fast"}, "provisioner": "p"},
            {"metadata": {"name": "late"}, "provisioner": "p",
                "volumeBindingMode": "WaitForFirstConsumer"},
        ])),
        quotas: there(json!([])),
        lease: there(working_lease()),
        deployment: Seen::Hidden(Hidden::Forbidden),
        installation: there(json!([])),
    }
}

fn first(verdict: &Verdict) -> (&str, &str, &str) {
    let cause = verdict.causes.first();
    let cause = cause.unwrap_or_else(|| panic!("there is a cause: {verdict:?}"));
    (
        &cause.reason,
        &cause.message,
        verdict.next.as_deref().unwrap_or_default(),
    )
}

/// The verdict's first reason, and parts of its sentence and of the next command.
fn expect(case: &str, observed: &Observed, reason: &str, message: &str, next: &str) {
    let verdict = judge(observed);
    let found = first(&verdict);
    assert_eq!(found.0, reason, "{case}: {verdict:?}");
    assert!(found.1.contains(message), "{case}: {verdict:?}");
    assert!(found.2.contains(next), "{case}: {verdict:?}");
    assert!(
        verdict.causes.iter().all(|cause| !cause.advice.is_empty()),
        "{case}: {verdict:?}"
    );
}

#[test]
fn what_cannot_be_read_is_the_answer() {
    let hidden = |why: Hidden| Observed {
        volume: Seen::Hidden(why),
        claim: Seen::NotAsked,
        ..usual()
    };
    for (why, reason, message, next) in [
        (
            Hidden::Forbidden,
            "Forbidden",
            "may not read DataVolumes in the namespace ns",
            "kubectl auth can-i get datavolumes.cdi.kubevirt.io -n ns",
        ),
        (
            Hidden::Unknown,
            "Unauthorized",
            "does not know you",
            "whoami",
        ),
        (
            Hidden::NoSuchKind,
            "NoSuchKind",
            "definition is not installed",
            "get crd",
        ),
        (
            Hidden::Unreachable("connection refused".to_owned()),
            "Unreachable",
            "https://api does not answer: connection refused",
            "cluster-info",
        ),
    ] {
        let observed = hidden(why);
        assert_eq!(judge(&observed).state, State::Unknown);
        expect(reason, &observed, reason, message, next);
    }
    let absent = Observed {
        volume: Seen::Absent,
        ..usual()
    };
    assert_eq!(judge(&absent).state, State::Missing);
    expect(
        "only a claim",
        &absent,
        "NotFound",
        "only a claim",
        "longshore why pvc disk -n ns",
    );
    let nothing = Observed {
        claim: Seen::Absent,
        ..absent
    };
    expect("nothing", &nothing, "NotFound", "no DataVolume", "dv -A");
}

#[test]
fn a_forbidden_volume_is_gone_around_by_its_claim() {
    let annotations = json!({
        "cdi.kubevirt.io/storage.import.endpoint": "https://x",
        "cdi.kubevirt.io/storage.condition.running": "false",
        "cdi.kubevirt.io/storage.condition.running.reason": "ImportTargetInUse",
        "cdi.kubevirt.io/storage.condition.running.message": "pod vm uses the claim",
    });
    let observed = Observed {
        volume: Seen::Hidden(Hidden::Forbidden),
        claim: there(claim("Bound", &annotations)),
        ..usual()
    };
    expect(
        "by its claim",
        &observed,
        "ImportTargetInUse",
        "pod vm",
        "get pods",
    );
    let verdict = judge(&observed);
    assert!(
        verdict
            .unread
            .iter()
            .any(|it| it.contains("the DataVolume"))
    );
}

#[test]
fn what_is_done_at_work_failed_or_ending_is_told_as_such() {
    let done = Observed {
        volume: Seen::There(volume("Succeeded", &json!([]))),
        ..usual()
    };
    let verdict = judge(&done);
    assert_eq!((verdict.state, verdict.next), (State::Done, None));
    assert!(verdict.causes.is_empty());

    let progress = "{\"percent\":40.0,\"read\":1048576,\"rate\":2048,\"etaSeconds\":65}";
    let running = json!({"phase": "Running", "containerStatuses": [{"name": "importer", "ready": true,
        "image": "", "imageID": "", "restartCount": 2, "state": {"running": {}},
        "lastState": {"terminated": {"exitCode": 1, "message": "{\"message\":\"it broke\"}"}}}]});
    let working = Observed {
        volume: Seen::There(volume("ImportInProgress", &json!([]))),
        claim: there(claim("Bound", &json!({"longshore.dev/progress": progress}))),
        pod: there(pod(&running)),
        ..usual()
    };
    let verdict = judge(&working);
    assert_eq!(verdict.state, State::Working);
    assert_eq!(
        verdict.summary,
        "ImportInProgress: at work, 40.0%, 1 MiB read, 2 KiB/s, 1 min 5 s left"
    );
    assert_eq!(verdict.next.as_deref(), Some("longshore get dv -w -n ns"));
    assert_eq!(
        verdict.remarks,
        ["the importer was started again 2 times; the last attempt failed of: it broke"]
    );

    let checksum = json!([{"type": "Running", "status": "False", "reason": "ChecksumError",
        "message": "the digest is another"}]);
    let failed = Observed {
        volume: Seen::There(volume("Failed", &checksum)),
        ..usual()
    };
    assert_eq!(judge(&failed).state, State::Failed);
    expect(
        "failed",
        &failed,
        "ChecksumError",
        "digest",
        "kubectl -n ns delete dv disk",
    );

    let mut ending = volume("ImportInProgress", &json!([]));
    ending.meta.deletion_timestamp = of(json!(NOW));
    let ending = Observed {
        volume: Seen::There(ending),
        ..usual()
    };
    assert_eq!(judge(&ending).state, State::Ending);
}

#[test]
fn every_reason_that_conditions_have_is_told_with_what_the_page_says_of_it() {
    for row in super::words::rows() {
        let kinds: Vec<&str> = row.conditions.split(", ").collect();
        let Some(kind) = kinds
            .iter()
            .find(|kind| ["Bound", "Running"].contains(*kind))
        else {
            continue;
        };
        for reason in row.reasons.split(", ") {
            let conditions =
                json!([{"type": kind, "status": "False", "reason": reason, "message": "so it is"}]);
            let observed = Observed {
                volume: Seen::There(volume("Pending", &conditions)),
                ..usual()
            };
            expect(reason, &observed, reason, "so it is", "kubectl ");
            let advice = judge(&observed).causes.remove(0).advice;
            let known = super::words::advice(kind, reason).unwrap();
            assert_eq!(advice, known);
        }
    }
}

#[test]
fn what_a_claim_waits_for_is_found_without_a_condition() {
    let pending = |class: Value, annotations: &Value| {
        let mut claim = claim("Pending", annotations);
        claim["spec"]["storageClassName"] = class;
        there(claim)
    };
    let none = json!({});
    let warned = event("claim", "Warning", "ProvisioningFailed", "no room on it");
    let slow = event("claim", "Normal", "ExternalProvisioning", "waiting for p");
    let chosen = json!({"volume.kubernetes.io/selected-node": "n"});
    let cases = vec![
        (
            "no default class",
            Observed {
                claim: pending(Value::Null, &none),
                ..usual()
            },
            ("NoDefaultStorageClass", "no default", "get storageclass"),
        ),
        (
            "no such class",
            Observed {
                claim: pending(json!("gone"), &none),
                events: there(json!([warned])),
                ..usual()
            },
            ("NoSuchStorageClass", "fast, late", "get storageclass"),
        ),
        (
            "nobody uses it",
            Observed {
                claim: pending(json!("late"), &none),
                users: there(json!([])),
                ..usual()
            },
            ("WaitForFirstConsumer", "none does", "describe pvc disk"),
        ),
        (
            "a user without a node",
            Observed {
                claim: pending(json!("late"), &none),
                users: there(json!(["vm"])),
                ..usual()
            },
            ("WaitForFirstConsumer", "the pod vm", "describe pod vm"),
        ),
        (
            "the provisioner failed",
            Observed {
                claim: pending(json!("late"), &chosen),
                events: there(json!([slow, warned])),
                ..usual()
            },
            ("ProvisioningFailed", "no room", "describe pvc disk"),
        ),
        (
            "the provisioner is slow",
            Observed {
                claim: pending(json!("fast"), &none),
                events: there(json!([slow])),
                ..usual()
            },
            ("ExternalProvisioning", "waiting for p", "describe pvc disk"),
        ),
    ];
    for (case, observed, (reason, message, next)) in cases {
        expect(case, &observed, reason, message, next);
    }
}

#[test]
fn what_a_claim_lacks_is_found_without_the_right_to_see_classes_or_a_claim() {
    let none = json!({});
    let bare = event("claim", "Normal", "FailedBinding", "no volumes available");
    let mut unnamed = claim("Pending", &none);
    unnamed["spec"]["storageClassName"] = Value::Null;
    let cases = vec![
        (
            "classes may not be read",
            Observed {
                claim: there(unnamed),
                classes: Seen::Hidden(Hidden::Forbidden),
                events: there(json!([bare])),
                ..usual()
            },
            ("FailedBinding", "no volumes", "describe pvc disk"),
        ),
        (
            "its volume is gone",
            Observed {
                claim: there(claim("Lost", &none)),
                ..usual()
            },
            ("ClaimLost", "is gone", "delete pvc disk"),
        ),
        (
            "no claim and no default class",
            Observed {
                claim: Seen::Absent,
                ..usual()
            },
            ("NoDefaultStorageClass", "no default", "get storageclass"),
        ),
    ];
    for (case, observed, (reason, message, next)) in cases {
        expect(case, &observed, reason, message, next);
    }
}

#[test]
fn a_claim_that_goes_tells_who_uses_it() {
    let mut ending = claim("Bound", &json!({}));
    ending["metadata"]["deletionTimestamp"] = json!(NOW);
    let ending = Observed {
        claim: there(ending),
        users: there(json!(["vm"])),
        ..usual()
    };
    expect(
        "it is in use and goes",
        &ending,
        "ErrResourceMarkedForDeletion",
        "use it: vm",
        "get pods",
    );
}

/// As upstream's clients expect it, such a volume says only that it is pending.
#[test]
fn what_a_volume_has_no_word_for_its_claim_has() {
    let message = "waiting for v2v-vmware configmap";
    let says = format!("target PVC disk Pending and [prime-1] : {message}");
    let conditions = json!([
        {"type": "Running", "status": "False", "reason": "", "message": ""},
        {"type": "Bound", "status": "False", "reason": "Pending", "message": says},
    ]);
    let awaits = json!({
        names::RUNNING: "false", names::RUNNING_REASON: reason::AWAITING_VDDK,
        names::RUNNING_MESSAGE: message,
    });
    let observed = Observed {
        volume: Seen::There(volume("ImportScheduled", &conditions)),
        claim: there(claim("Bound", &awaits)),
        ..usual()
    };
    expect(
        "no library",
        &observed,
        reason::AWAITING_VDDK,
        message,
        "edit dv disk",
    );
}

#[test]
fn of_a_claim_with_a_stand_in_the_stand_in_is_looked_at() {
    let mut prime = claim("Pending", &json!({}));
    prime["metadata"]["name"] = json!("prime-claim");
    prime["metadata"]["uid"] = json!("prime");
    let warned = event("prime", "Warning", "ProvisioningFailed", "no room on it");
    let observed = Observed {
        claim: there(claim("Pending", &json!({}))),
        prime: there(prime),
        events: there(json!([warned])),
        ..usual()
    };
    expect(
        "stand-in",
        &observed,
        "ProvisioningFailed",
        "no room",
        "describe pvc prime-claim",
    );
}

#[test]
fn what_keeps_a_pod_is_found_without_a_condition() {
    let waiting = |reason: &str, message: Value| {
        json!({"phase": "Pending", "containerStatuses": [{"name": "importer", "ready": false,
            "image": "the-image", "imageID": "", "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": message}},
            "lastState": {"terminated": {"exitCode": 1, "message": "{\"message\":\"it broke\"}"}}}]})
    };
    let creating = json!({"phase": "Pending", "containerStatuses": [{"name": "importer",
        "ready": false, "image": "", "imageID": "", "restartCount": 0,
        "state": {"waiting": {"reason": "ContainerCreating"}}}]});
    let mut killed = waiting("CrashLoopBackOff", json!("back-off"));
    killed["containerStatuses"][0]["lastState"]["terminated"] =
        json!({"exitCode": 137, "reason": "OOMKilled"});
    let mount = event("pod", "Warning", "FailedMount", "secret \"keys\" not found");
    let unscheduled = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled",
        "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]});
    let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"});
    for (case, status, events, (reason, message, next)) in [
        (
            "no node",
            unscheduled,
            json!([]),
            ("Unschedulable", "0/1 nodes", "describe pod importer-disk"),
        ),
        (
            "no image",
            waiting("ImagePullBackOff", json!("not found")),
            json!([]),
            ("ImagePullFailed", "the-image: not found", "describe pod"),
        ),
        (
            "no secret",
            creating.clone(),
            json!([mount]),
            ("FailedMount", "secret \"keys\" not found", "describe pod"),
        ),
        (
            "no key in a secret",
            waiting("CreateContainerConfigError", json!("no key")),
            json!([]),
            ("CreateContainerConfigError", "no key", "describe pod"),
        ),
        (
            "it failed",
            waiting("CrashLoopBackOff", json!("back-off")),
            json!([]),
            ("Error", "it broke", "logs importer-disk --previous"),
        ),
        (
            "it was killed",
            killed,
            json!([]),
            ("OOMKilled", "exit code 137", "logs importer-disk"),
        ),
        (
            "it takes long",
            creating,
            json!([]),
            ("ContainerCreating", "no trouble", "describe pod"),
        ),
        (
            "sent away",
            evicted,
            json!([]),
            ("Evicted", "low on memory", "describe pod"),
        ),
    ] {
        let observed = Observed {
            pod: there(pod(&status)),
            events: there(events),
            ..usual()
        };
        expect(case, &observed, reason, message, next);
    }
}

#[test]
fn a_controller_that_does_not_work_is_noticed() {
    let passive = Condition::new("LongshorePassive", true, "ForeignOperator", "beside it");
    let stale = json!({"spec": {"holderIdentity": "it", "leaseDurationSeconds": 60,
        "renewTime": "2026-11-22T00:50:00.000000Z"}});
    let free = json!({"spec": {"holderIdentity": ""}});
    let unavailable = json!({"metadata": {}, "spec": {"replicas": 1, "selector": {},
        "template": {}}, "status": {}});
    let asleep = json!({"metadata": {}, "spec": {"replicas": 0, "selector": {}, "template": {}}});
    let cases = vec![
        (
            "beside another one",
            Observed {
                installation: Seen::There(vec![passive]),
                ..usual()
            },
            ("ForeignOperator", "beside it", "describe cdi"),
        ),
        (
            "stale",
            Observed {
                lease: there(stale.clone()),
                ..usual()
            },
            ("ControllerLeaseStale", "10 min ago", "logs"),
        ),
        (
            "free",
            Observed {
                lease: there(free),
                ..usual()
            },
            ("ControllerLeaseFree", "nobody holds", "logs"),
        ),
        (
            "not installed",
            Observed {
                lease: Seen::Absent,
                deployment: Seen::Absent,
                ..usual()
            },
            ("ControllerNotInstalled", "no deployment", "apply"),
        ),
        (
            "asleep",
            Observed {
                lease: there(stale.clone()),
                deployment: there(asleep),
                ..usual()
            },
            ("ControllerScaledDown", "scaled to 0", "scale"),
        ),
        (
            "does not start",
            Observed {
                lease: there(stale),
                deployment: there(unavailable),
                ..usual()
            },
            ("ControllerNotReady", "no pod", "describe pods"),
        ),
        (
            "silent, and nothing may be read",
            Observed {
                lease: Seen::Hidden(Hidden::Forbidden),
                deployment: Seen::Hidden(Hidden::Forbidden),
                installation: Seen::Hidden(Hidden::Forbidden),
                claim: Seen::Absent,
                classes: Seen::Hidden(Hidden::Forbidden),
                volume: Seen::There(volume("", &json!([]))),
                ..usual()
            },
            ("ControllerSilent", "1 h 0 min", "logs"),
        ),
    ];
    for (case, observed, (reason, message, next)) in cases {
        expect(case, &observed, reason, message, next);
    }
}

#[test]
fn a_thing_is_told_once_and_the_newest_comes_first() {
    let conditions = json!([
        {"type": "Bound", "status": "True", "reason": "Bound"},
        {"type": "Running", "status": "False", "reason": "Unschedulable",
            "message": "Importer pod cannot be scheduled: 0/1 nodes are available",
            "lastTransitionTime": "2026-11-22T00:10:00Z"},
    ]);
    let status = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled",
        "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available",
        "lastTransitionTime": "2026-11-22T00:59:50Z"}]});
    let mut lost = claim("Lost", &json!({}));
    lost["metadata"]["annotations"] = Value::Null;
    let observed = Observed {
        volume: Seen::There(volume("ImportScheduled", &conditions)),
        claim: there(lost),
        pod: there(pod(&status)),
        ..usual()
    };
    let verdict = judge(&observed);
    let reasons: Vec<&str> = verdict.causes.iter().map(|it| it.reason.as_str()).collect();
    assert_eq!(reasons, ["Unschedulable", "ClaimLost"]);
    let text = text(&verdict, now());
    assert!(text.starts_with("DataVolume ns/disk\nImportScheduled: waits (Unschedulable)\n"));
    assert!(
        text.contains("\n1. Pod ns/importer-disk (Unschedulable, 10 s ago)\n"),
        "{text}"
    );
    assert!(
        text.ends_with("\nnext: kubectl -n ns describe pod importer-disk\n"),
        "{text}"
    );
}

#[test]
fn a_quota_that_is_in_the_way_is_shown_with_its_numbers() {
    let conditions = json!([{"type": "Bound", "status": "False", "reason": "ErrExceededQuota",
        "message": "exceeded quota: few"}]);
    let quotas = json!([{"metadata": {"name": "few"}, "status": {
        "hard": {"requests.storage": "10Gi"}, "used": {"requests.storage": "9Gi"}}}]);
    let observed = Observed {
        volume: Seen::There(volume("Pending", &conditions)),
        claim: Seen::NotAsked,
        quotas: there(quotas),
        ..usual()
    };
    expect(
        "quota",
        &observed,
        "ErrExceededQuota",
        "few",
        "describe resourcequota",
    );
    assert_eq!(
        judge(&observed).remarks,
        ["quota few: requests.storage: 9Gi of 10Gi used"]
    );
}

#[test]
fn a_claim_that_asks_for_nothing_is_done_once_it_is_bound() {
    let plain = |phase: &str| Observed {
        kind: Kind::Claim,
        volume: Seen::NotAsked,
        claim: there(claim(phase, &json!({}))),
        ..usual()
    };
    assert_eq!(judge(&plain("Bound")).state, State::Done);
    assert_eq!(judge(&plain("Pending")).state, State::Waiting);
    assert_eq!(judge(&plain("Lost")).state, State::Failed);
    let filled = json!({"cdi.kubevirt.io/storage.import.endpoint": "x",
        "cdi.kubevirt.io/storage.pod.phase": "Succeeded"});
    let filled = Observed {
        claim: there(claim("Bound", &filled)),
        ..plain("Bound")
    };
    assert_eq!(judge(&filled).state, State::Done);
    let asks = json!({"cdi.kubevirt.io/storage.import.endpoint": "x"});
    let neglected = Observed {
        claim: there(claim("Bound", &asks)),
        lease: Seen::Hidden(Hidden::Forbidden),
        ..plain("Bound")
    };
    expect("neglected", &neglected, "ControllerSilent", "1 h", "logs");
}
