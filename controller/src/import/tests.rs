//! The import controller's decisions, each as a table of what is seen and what is done about it.

mod pods;
mod stages;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use longshore_crds::names::{annotation, reason};
use serde_json::{Value, json};

use super::plan::{self, Action, Observed, Plan, Release};
use super::pod::{Workload, pod};
use super::scrape::{Heard, Reading};
use super::source::request;
use crate::claim::Changes;
use crate::write::Marks;

const NOW: &str = "2026-11-21T10:00:00Z";
const URL: &str = "https://h/disk.qcow2";

fn claim(phase: &str, annotations: &Value) -> PersistentVolumeClaim {
    let mut all = json!({annotation::IMPORT_SOURCE: "http", annotation::IMPORT_ENDPOINT: URL});
    for (name, value) in annotations.as_object().unwrap() {
        all[name] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {"name": "disk", "namespace": "ns", "uid": "claim-1", "annotations": all},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": phase},
    }))
    .unwrap()
}

fn importer(status: &Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "importer-disk", "uid": "pod-1",
            "ownerReferences": [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "disk", "uid": "claim-1"}],
        },
        "status": status,
    }))
    .unwrap()
}

fn seen(claim: PersistentVolumeClaim, pod: Option<Pod>) -> Observed {
    Observed {
        claim,
        pod,
        trouble: None,
        heard: None,
        users: Vec::new(),
        binds_late: true,
        honors_first_consumer: true,
        was_filled: false,
        vddk: None,
        wait: None,
    }
}

fn planned(observed: &Observed) -> Plan {
    plan::plan(observed, NOW.parse().unwrap())
}

fn plan(observed: &Observed) -> Vec<Action> {
    planned(observed).actions
}

fn creates(actions: &[Action]) -> bool {
    actions
        .iter()
        .any(|action| matches!(action, Action::CreatePod(_)))
}

/// What the claim's annotations become.
fn written(actions: &[Action]) -> Changes {
    let mut all = Changes::new();
    for action in actions {
        if let Action::Mark(Marks { annotations, .. }) = action {
            all.extend(annotations.clone());
        }
    }
    all
}

fn value<'a>(changes: &'a Changes, name: &str) -> Option<&'a str> {
    changes.get(name)?.as_deref()
}

#[test]
fn a_claim_that_asks_for_nothing_is_left_alone() {
    let mut plain = claim("Bound", &json!({}));
    plain.metadata.annotations = None;
    assert_eq!(plan(&seen(plain, None)), []);
}

#[test]
fn a_bound_claim_gets_a_pod_and_its_name() {
    let actions = plan(&seen(claim("Bound", &json!({})), None));
    assert!(creates(&actions));
    assert_eq!(
        value(&written(&actions), annotation::IMPORT_POD),
        Some("importer-disk")
    );
}

#[test]
fn a_claim_that_waits_for_its_consumer_gets_none_unless_it_shall_not_wait() {
    let waiting = claim("Pending", &json!({}));
    assert_eq!(plan(&seen(waiting, None)), []);
    let at_once = claim("Pending", &json!({annotation::BIND_IMMEDIATE: ""}));
    assert!(creates(&plan(&seen(at_once.clone(), None))));
    // A class that makes volumes by itself is about to do so.
    let early = Observed {
        binds_late: false,
        ..seen(at_once, None)
    };
    assert_eq!(plan(&early), []);
}

#[test]
fn no_pod_starts_while_another_one_mounts_the_claim() {
    // As after somebody lost the annotation that says that the disk is complete.
    let observed = Observed {
        users: vec!["virt-launcher-vm".to_owned()],
        ..seen(claim("Bound", &json!({})), None)
    };
    let actions = plan(&observed);
    assert!(!creates(&actions));
    assert_eq!(
        value(&written(&actions), annotation::RUNNING_REASON),
        Some(reason::IMPORT_TARGET_IN_USE)
    );
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Tell(_)))
    );
}

fn held(gates: &Value) -> Pod {
    let mut pod = serde_json::to_value(importer(&json!({"phase": "Pending"}))).unwrap();
    pod["spec"] = json!({"containers": [], "schedulingGates": gates});
    serde_json::from_value(pod).unwrap()
}

#[test]
fn a_pod_that_is_held_goes_to_a_node_once_it_alone_uses_the_claim() {
    let ours = json!({"name": "longshore.dev/sole-user"});
    let theirs = json!({"name": "example.org/queue"});
    let alone = plan(&seen(
        claim("Bound", &json!({})),
        Some(held(&json!([ours, theirs]))),
    ));
    let released = Release {
        uid: "pod-1".to_owned(),
        name: "importer-disk".to_owned(),
        // What others hold it with is theirs to take away.
        gates: vec![serde_json::from_value(theirs).unwrap()],
        by_proxy: false,
    };
    assert_eq!(alone.last(), Some(&Action::Release(released)));
    // Whoever has decided on an older claim is told so first.
    let named = Changes::from([(
        annotation::IMPORT_POD.to_owned(),
        Some("importer-disk".to_owned()),
    )]);
    assert_eq!((written(&alone), alone.len()), (named, 2));
    let observed = Observed {
        users: vec!["virt-launcher-vm".to_owned()],
        ..seen(claim("Bound", &json!({})), Some(held(&json!([ours]))))
    };
    let beside = plan(&observed);
    let removed = matches!(
        beside.first(),
        Some(Action::DeletePod { at_once: true, .. })
    );
    assert!(removed, "{beside:?}");
    assert_eq!(
        value(&written(&beside), annotation::RUNNING_REASON),
        Some(reason::IMPORT_TARGET_IN_USE)
    );
    // Nobody but others holds it: that is told as with any pod that waits.
    let queued = json!([{"name": "example.org/queue"}]);
    let queued = plan(&seen(claim("Bound", &json!({})), Some(held(&queued))));
    assert_eq!(
        value(&written(&queued), annotation::POD_PHASE),
        Some("Pending")
    );
}

#[test]
fn what_a_pod_mounts_tells_what_is_brought_to_it_before_it_goes() {
    for (volume, map, expected) in [
        ("proxy-certs", "import-proxy-cm-disk", true),
        // Somebody else's.
        ("proxy-certs", "import-proxy-cm-other", false),
        ("certs", "import-proxy-cm-disk", false),
    ] {
        let mut pod = held(&json!([{"name": "longshore.dev/sole-user"}]));
        let volumes = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "disk"}},
            {"name": volume, "configMap": {"name": map}}]);
        pod.spec.as_mut().unwrap().volumes = serde_json::from_value(volumes).unwrap();
        let actions = plan(&seen(claim("Bound", &json!({})), Some(pod)));
        let Some(Action::Release(released)) = actions.last() else {
            panic!("{actions:?}");
        };
        assert_eq!(released.by_proxy, expected, "{volume} {map}");
    }
}

#[test]
fn nobody_lets_a_pod_go_by_what_was_seen_long_ago() {
    let seen = NOW.parse().unwrap();
    for (now, expected) in [
        (NOW, false),
        ("2026-11-21T10:00:15Z", false),
        ("2026-11-21T10:00:16Z", true),
        // A clock that was set back.
        ("2026-11-21T09:00:00Z", false),
    ] {
        let is_too_late = plan::is_too_late(seen, now.parse().unwrap());
        assert_eq!(is_too_late, expected, "{now}");
    }
}

#[test]
fn a_pod_of_somebody_else_is_neither_used_nor_removed() {
    let mut stranger = importer(&json!({"phase": "Succeeded"}));
    stranger.metadata.owner_references = None;
    let actions = plan(&seen(claim("Bound", &json!({})), Some(stranger)));
    let changes = written(&actions);
    assert_eq!(
        value(&changes, annotation::RUNNING_REASON),
        Some(reason::ERR_RESOURCE_EXISTS)
    );
    assert_eq!(value(&changes, annotation::POD_PHASE), None);
    assert_eq!(actions.len(), 1);
}

#[test]
fn what_the_pod_does_is_told_on_the_claim_and_only_once() {
    let restarting = json!({"phase": "Running", "containerStatuses": [{
        "name": "importer", "restartCount": 2, "ready": false, "image": "", "imageID": "",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "message": "{\"message\": \"h answered 404\"}"}},
    }]});
    let running = json!({"phase": "Running", "containerStatuses": [{
        "name": "importer", "restartCount": 0, "ready": true, "image": "", "imageID": "",
        "state": {"running": {}},
    }]});
    let full = json!({"phase": "Running", "containerStatuses": [{
        "name": "importer", "restartCount": 1, "ready": false, "image": "", "imageID": "",
        "state": {"terminated": {"exitCode": 1, "message": "{\"message\": \"No space left on device\"}"}},
    }]});
    let killed = json!({"phase": "Running", "containerStatuses": [{
        "name": "importer", "restartCount": 1, "ready": false, "image": "", "imageID": "",
        "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
    }]});
    let ended = json!({"phase": "Running", "containerStatuses": [{
        "name": "importer", "restartCount": 0, "ready": false, "image": "", "imageID": "",
        "state": {"terminated": {"exitCode": 0, "message": "{\"message\": \"Import Complete\"}"}},
    }]});
    let nowhere = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"},
    ]});
    let no_image = json!({"phase": "Pending", "containerStatuses": [{
        "name": "importer", "restartCount": 0, "ready": false, "image": "importer:1", "imageID": "",
        "state": {"waiting": {"reason": "ErrImagePull", "message": "not there"}},
    }]});
    for (status, phase, runs, why, message) in [
        (running, "Running", "true", "Pod is running", ""),
        (restarting, "Running", "false", "Error", "h answered 404"),
        (
            full,
            "Running",
            "false",
            "Error",
            "DataVolume too small to contain image",
        ),
        (
            killed,
            "Running",
            "false",
            "OOMKilled",
            "the importer was killed for its memory (OOMKilled): give its pod a higher limit if this goes on",
        ),
        (ended, "Running", "false", "Completed", "Import Complete"),
        (
            nowhere,
            "Pending",
            "false",
            "Unschedulable",
            "Importer pod cannot be scheduled: no node",
        ),
        (
            no_image,
            "Pending",
            "false",
            "ImagePullFailed",
            "failed to pull image: importer:1: not there",
        ),
        (
            json!({"phase": "Succeeded"}),
            "Succeeded",
            "false",
            "Completed",
            "Import Complete",
        ),
    ] {
        let pod = importer(&status);
        let mut claim = claim("Bound", &json!({annotation::IMPORT_POD: "importer-disk"}));
        let changes = written(&plan(&seen(claim.clone(), Some(pod.clone()))));
        assert_eq!(value(&changes, annotation::POD_PHASE), Some(phase));
        assert_eq!(value(&changes, annotation::RUNNING), Some(runs));
        assert_eq!(value(&changes, annotation::RUNNING_REASON), Some(why));
        assert_eq!(value(&changes, annotation::RUNNING_MESSAGE), Some(message));
        let annotations = claim.metadata.annotations.as_mut().unwrap();
        for (name, value) in changes {
            match value {
                Some(value) => annotations.insert(name, value),
                None => annotations.remove(&name),
            };
        }
        let again = plan(&seen(claim, Some(pod)));
        assert!(
            again
                .iter()
                .all(|action| matches!(action, Action::DeletePod { .. })),
            "{phase} {why}: {again:?}"
        );
    }
}

#[test]
fn how_far_a_pod_is_goes_to_the_claim_and_why_it_is_not_known_to_the_condition() {
    let pod = importer(&json!({"phase": "Running", "containerStatuses": [{
        "name": "importer", "restartCount": 0, "ready": true, "image": "", "imageID": "",
        "state": {"running": {"startedAt": "2020-01-01T00:00:00Z"}},
    }]}));
    let after = |annotations: &Value, heard| {
        let observed = Observed {
            heard,
            ..seen(claim("Bound", annotations), Some(pod.clone()))
        };
        written(&plan(&observed))
    };
    let reading = Heard::Said(Reading {
        percent: Some(12.5),
        ..Reading::default()
    });
    let changes = after(&json!({}), Some(reading));
    let text = value(&changes, annotation::PROGRESS).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(text).unwrap()["percent"],
        12.5
    );
    assert_eq!(value(&changes, annotation::RUNNING_MESSAGE), Some(""));

    let silent = Heard::Silent("no way there".to_owned());
    let changes = after(&json!({}), Some(silent));
    assert_eq!(value(&changes, annotation::RUNNING), Some("true"));
    assert_eq!(
        value(&changes, annotation::RUNNING_MESSAGE),
        Some("no way there")
    );
    // It stays so in rounds that do not ask.
    let known = json!({annotation::PROGRESS: value(&changes, annotation::PROGRESS)});
    let changes = after(&known, None);
    assert_eq!(
        value(&changes, annotation::RUNNING_MESSAGE),
        Some("no way there")
    );
}

#[test]
fn restarts_that_people_have_seen_are_not_taken_back() {
    let known = claim("Bound", &json!({annotation::POD_RESTARTS: "3"}));
    let fresh = importer(&json!({"phase": "Pending"}));
    let changes = written(&plan(&seen(known, Some(fresh))));
    assert_eq!(value(&changes, annotation::POD_RESTARTS), None);
}

#[test]
fn a_wrong_checksum_is_the_end() {
    let result = json!({"message": "the checksum is wrong", "reason": "ChecksumMismatch"});
    let pod = importer(&json!({"phase": "Succeeded", "containerStatuses": [{
        "name": "importer", "restartCount": 0, "ready": false, "image": "", "imageID": "",
        "state": {"terminated": {"exitCode": 0, "message": result.to_string()}},
    }]}));
    let changes = written(&plan(&seen(claim("Bound", &json!({})), Some(pod.clone()))));
    assert_eq!(value(&changes, annotation::FATAL_ERROR), Some("true"));
    assert_eq!(value(&changes, annotation::POD_PHASE), Some("Failed"));
    let failed = claim("Bound", &json!({annotation::FATAL_ERROR: "true"}));
    assert_eq!(plan(&seen(failed.clone(), Some(pod))), []);
    assert_eq!(plan(&seen(failed, None)), []);
}

#[test]
fn a_filled_claim_keeps_its_disk_and_loses_its_pod() {
    let filled = json!({annotation::POD_PHASE: "Succeeded"});
    let pod = importer(&json!({"phase": "Succeeded"}));
    let away = vec![Action::DeletePod {
        uid: "pod-1".to_owned(),
        name: "importer-disk".to_owned(),
        at_once: false,
    }];
    assert_eq!(
        plan(&seen(claim("Bound", &filled), Some(pod.clone()))),
        away
    );
    assert_eq!(plan(&seen(claim("Bound", &filled), None)), []);
    let kept = json!({annotation::POD_PHASE: "Succeeded", annotation::POD_RETAIN: "true"});
    assert_eq!(plan(&seen(claim("Bound", &kept), Some(pod))), []);
}

#[test]
fn a_claim_that_ends_takes_its_pod_with_it() {
    let mut ending = claim("Bound", &json!({}));
    ending.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-11-21T00:00:00Z")).unwrap());
    let pod = importer(&json!({"phase": "Running"}));
    let away = vec![Action::DeletePod {
        uid: "pod-1".to_owned(),
        name: "importer-disk".to_owned(),
        at_once: true,
    }];
    assert_eq!(plan(&seen(ending.clone(), Some(pod))), away);
    assert_eq!(plan(&seen(ending, None)), []);
}

#[test]
fn what_a_killed_worker_leaves_is_bound_to_its_claim() {
    let variable = |pod: &Pod, name: &str| {
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let mut vars = container.env.iter().flatten();
        vars.find(|var| var.name == name)
            .and_then(|var| var.value.clone())
    };
    let made = |mode: &str, source: &str| {
        let mut claim = claim("Bound", &json!({annotation::IMPORT_SOURCE: source}));
        claim.spec.as_mut().unwrap().volume_mode = Some(mode.to_owned());
        let request = request(&claim, None).unwrap().unwrap();
        pod(&claim, &request, &Workload::default())
    };
    let own = |pod: &Pod| {
        let spec = pod.spec.as_ref().unwrap();
        let mut volumes = spec.volumes.iter().flatten();
        volumes.any(|volume| volume.empty_dir.is_some())
    };
    let files = made("Filesystem", "http");
    assert_eq!(
        variable(&files, "IMPORTER_CLAIM_UID").as_deref(),
        Some("claim-1")
    );
    // Beside the disk.
    assert_eq!(variable(&files, "IMPORTER_JOURNAL_DIR"), None);
    assert!(!own(&files));
    let device = made("Block", "http");
    assert_eq!(
        variable(&device, "IMPORTER_JOURNAL_DIR").as_deref(),
        Some("/journal")
    );
    assert!(own(&device));
    assert!(!own(&made("Block", "none")));
}
