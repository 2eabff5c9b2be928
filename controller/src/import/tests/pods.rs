//! What each way in which a pod can fail, wait or be lost is told as.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use longshore_crds::names::{annotation, reason};
use serde_json::{Value, json};

use super::super::plan::{Action, Observed, may_be_late, refused};
use super::super::users::Users;
use super::{claim, importer, plan, planned, seen, value, written};
use crate::event::Note;
use crate::troubles::Trouble;
use crate::write::Marks;

fn container(restarts: u32, state: &Value, last: &Value) -> Value {
    json!([{"name": "importer", "restartCount": restarts, "ready": true, "image": "importer:1",
        "imageID": "", "state": state, "lastState": last}])
}

fn ended(code: i32, message: &Value) -> Value {
    json!({"terminated": {"exitCode": code, "message": message.to_string()}})
}

/// Reason and message that the claim of a pod with this status gets.
fn told(pod: &Pod) -> (String, String) {
    let changes = written(&plan(&seen(claim("Bound", &json!({})), Some(pod.clone()))));
    let of = |name| value(&changes, name).unwrap_or_default().to_owned();
    (
        of(annotation::RUNNING_REASON),
        of(annotation::RUNNING_MESSAGE),
    )
}

#[test]
fn a_pod_that_was_evicted_says_so_and_makes_way_for_another_one_after_a_while() {
    let mut pod = importer(&json!({
        "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory. ",
    }));
    let (why, message) = told(&pod);
    assert_eq!(why, "Evicted");
    assert_eq!(
        message,
        "the importer's pod failed (Evicted): The node was low on resource: memory; it is made anew"
    );
    let at = |pod: &Pod| planned(&seen(claim("Bound", &json!({})), Some(pod.clone())));
    let away = Action::DeletePod {
        uid: "pod-1".to_owned(),
        name: "importer-disk".to_owned(),
        at_once: false,
    };
    pod.metadata.creation_timestamp =
        Some(serde_json::from_value(json!("2026-11-21T09:59:50Z")).unwrap());
    let fresh = at(&pod);
    assert!(!fresh.actions.contains(&away));
    assert_eq!(fresh.again, Some(Duration::from_secs(20)));
    pod.metadata.creation_timestamp =
        Some(serde_json::from_value(json!("2026-11-21T09:00:00Z")).unwrap());
    assert_eq!(at(&pod).actions.last(), Some(&away));
}

#[test]
fn a_node_that_does_not_answer_is_told_and_its_pod_left_to_it() {
    let status = json!({
        "phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": container(0, &json!({"running": {}}), &json!({})),
    });
    let mut pod = importer(&status);
    pod.spec = serde_json::from_value(json!({"nodeName": "n1", "containers": []})).unwrap();
    let (why, message) = told(&pod);
    assert_eq!(why, reason::NODE_LOST);
    assert!(message.starts_with("node n1 does not answer"), "{message}");
    // Taken away by the cluster, which the node has not heard of.
    pod.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-11-21T09:00:00Z")).unwrap());
    assert_eq!(told(&pod).0, reason::NODE_LOST);
    let actions = plan(&seen(claim("Bound", &json!({})), Some(pod)));
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::DeletePod { .. }))
    );
}

#[test]
fn a_pod_on_its_way_out_says_who_sent_it() {
    let mut pod = importer(&json!({
        "phase": "Running",
        "conditions": [{"type": "DisruptionTarget", "status": "True", "message": "Eviction API: evicting"}],
        "containerStatuses": container(0, &json!({"running": {}}), &json!({})),
    }));
    pod.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-11-21T09:00:00Z")).unwrap());
    let (why, message) = told(&pod);
    assert_eq!(why, reason::POD_TERMINATING);
    assert!(message.contains("Eviction API: evicting"), "{message}");
}

#[test]
fn what_no_status_shows_is_taken_from_events() {
    let waits = json!({"waiting": {"reason": "ContainerCreating"}});
    let pod = importer(&json!({
        "phase": "Pending", "containerStatuses": container(0, &waits, &json!({})),
    }));
    assert_eq!(told(&pod), ("ContainerCreating".to_owned(), String::new()));
    let text = "MountVolume.SetUp failed for volume \"credentials\" : secret \"keys\" not found";
    let trouble = Trouble {
        reason: "FailedMount".to_owned(),
        message: text.to_owned(),
    };
    let observed = Observed {
        trouble: Some(trouble),
        ..seen(claim("Bound", &json!({})), Some(pod))
    };
    let plan = planned(&observed);
    let changes = written(&plan.actions);
    assert_eq!(
        value(&changes, annotation::RUNNING_REASON),
        Some("FailedMount")
    );
    assert_eq!(value(&changes, annotation::RUNNING_MESSAGE), Some(text));
    // An event brings no round about.
    assert!(plan.again.is_some());
}

#[test]
fn only_what_a_pod_at_work_says_is_handed_on_without_a_look_at_what_there_is() {
    let at_work = |state: &Value| json!({"phase": "Running", "containerStatuses": container(1, state, &json!({}))});
    let stopped = ended(
        1,
        &json!({"message": "no route", "reason": "SourceUnreachable"}),
    );
    // No other attempt brings another sum.
    let unfit = ended(0, &json!({"message": "x", "reason": "ChecksumMismatch"}));
    let pods = [
        (None, false),
        (Some(json!({"phase": "Pending"})), true),
        (Some(at_work(&json!({"running": {}}))), true),
        (Some(at_work(&stopped)), true),
        (Some(at_work(&unfit)), false),
        (Some(json!({"phase": "Succeeded"})), false),
        (Some(json!({"phase": "Failed", "reason": "Evicted"})), false),
    ];
    for (status, expected) in pods {
        let pod = status.as_ref().map(importer);
        let observed = seen(claim("Bound", &json!({})), pod);
        let actions = plan(&observed);
        assert!(!actions.is_empty());
        assert_eq!(may_be_late(&observed, &actions), expected, "{status:?}");
    }
    // And where there is nothing to do.
    let waits = seen(claim("Pending", &json!({})), None);
    assert!(may_be_late(&waits, &plan(&waits)));
}

#[test]
fn a_container_that_cannot_be_configured_says_what_it_lacks() {
    let waits = json!({"waiting": {
        "reason": "CreateContainerConfigError", "message": "secret \"keys\" not found",
    }});
    let pod = importer(&json!({
        "phase": "Pending", "containerStatuses": container(0, &waits, &json!({})),
    }));
    let expected = ("CreateContainerConfigError", "secret \"keys\" not found");
    assert_eq!(told(&pod), (expected.0.to_owned(), expected.1.to_owned()));
}

#[test]
fn images_that_cannot_be_had_are_told_in_upstreams_words() {
    let waits = json!({"waiting": {"reason": "ImagePullBackOff", "message": "back-off"}});
    let side_car = importer(&json!({
        "phase": "Pending",
        "initContainerStatuses": [{"name": "vddk-side-car", "restartCount": 0, "ready": false,
            "image": "vddk:8", "imageID": "", "state": waits}],
        "containerStatuses": container(0, &json!({"waiting": {"reason": "PodInitializing"}}), &json!({})),
    }));
    let (why, message) = told(&side_car);
    assert_eq!(why, reason::IMAGE_PULL_FAILED);
    assert_eq!(message, "failed to pull image: vddk:8: back-off");
}

#[test]
fn a_registry_that_does_not_give_its_image_is_told_in_upstreams_words() {
    let told_by = |source: &str, why: &str| {
        let last = ended(1, &json!({"message": "r/i:x answered 404", "reason": why}));
        let waits = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let mut pod = importer(&json!({
            "phase": "Running", "containerStatuses": container(1, &waits, &last),
        }));
        pod.spec = serde_json::from_value(json!({"containers": [{
            "name": "importer", "env": [{"name": "IMPORTER_SOURCE", "value": source}],
        }]}))
        .unwrap();
        told(&pod)
    };
    for (source, why, is_pull) in [
        ("registry", "ConnectFailed", true),
        ("registry", "CertificateRefused", true),
        ("registry", "Unauthorized", true),
        ("registry", "NotFound", true),
        ("registry", "BadStatus", true),
        ("registry", "Stalled", true),
        ("registry", "NoImageForPlatform", false),
        ("registry", "DiskMissing", false),
        ("registry", "ImageMalformed", false),
        // In the middle of the disk.
        ("registry", "SourceUnreadable", false),
        ("registry", "TargetTooSmall", false),
        ("http", "NotFound", false),
        ("http", "ConnectFailed", false),
    ] {
        let (found, message) = told_by(source, why);
        let expected = if is_pull {
            (
                reason::IMAGE_PULL_FAILED,
                "failed to pull image: r/i:x answered 404",
            )
        } else {
            (reason::ERROR, "r/i:x answered 404")
        };
        assert_eq!(
            (found.as_str(), message.as_str()),
            expected,
            "{source} {why}"
        );
    }
}

#[test]
fn a_volume_that_is_too_small_has_one_text_and_its_event_the_whole_story() {
    let story = "virtual image size 5 is larger than the reported available storage 4. A larger PVC is required";
    let last = ended(1, &json!({"message": story, "reason": "TargetTooSmall"}));
    let pod = importer(&json!({
        "phase": "Running",
        "containerStatuses": container(1, &json!({"waiting": {"reason": "CrashLoopBackOff"}}), &last),
    }));
    let actions = plan(&seen(claim("Bound", &json!({})), Some(pod)));
    let changes = written(&actions);
    assert_eq!(
        value(&changes, annotation::RUNNING_MESSAGE),
        Some("DataVolume too small to contain image")
    );
    // Before the change that it is about: rather twice than never.
    let note = Note::warning(reason::ERR_IMPORT_FAILED, story.to_owned());
    assert_eq!(actions.first(), Some(&Action::Tell(note)));
}

#[test]
fn a_digest_that_a_registry_may_mend_is_tried_again() {
    let last = ended(
        1,
        &json!({"message": "blob is wrong", "reason": "ChecksumMismatch"}),
    );
    let pod = importer(&json!({
        "phase": "Running",
        "containerStatuses": container(1, &json!({"waiting": {"reason": "CrashLoopBackOff"}}), &last),
    }));
    let changes = written(&plan(&seen(claim("Bound", &json!({})), Some(pod))));
    assert_eq!(value(&changes, annotation::FATAL_ERROR), None);
    assert_eq!(
        value(&changes, annotation::RUNNING_REASON),
        Some(reason::ERROR)
    );
}

#[test]
fn what_an_image_says_becomes_labels_and_annotations() {
    let end = json!({
        "message": "Import Complete", "preallocationApplied": true,
        "vddkInfo": {"Version": "8.0.2", "Host": "esx1"},
        "labels": {
            "instancetype.kubevirt.io/default-instancetype": "u1.small", "team": "b",
            // The server would take none of it.
            "Bad_Prefix/x": "y", "a.kubevirt.io/b": "has spaces",
        },
    });
    let pod = importer(&json!({
        "phase": "Succeeded", "containerStatuses": container(0, &ended(0, &end), &json!({})),
    }));
    let mut claim = claim("Bound", &json!({}));
    claim.metadata.labels = Some([("team".to_owned(), "a".to_owned())].into());
    let actions = plan(&seen(claim, Some(pod)));
    let changes = written(&actions);
    assert_eq!(value(&changes, annotation::PREALLOCATION), Some("true"));
    assert_eq!(value(&changes, annotation::VDDK_VERSION), Some("8.0.2"));
    assert_eq!(value(&changes, annotation::VDDK_HOST), Some("esx1"));
    let labels = actions.iter().find_map(|action| match action {
        Action::Mark(Marks { labels, .. }) => Some(labels.clone()),
        _ => None,
    });
    let name = "instancetype.kubevirt.io/default-instancetype".to_owned();
    assert_eq!(labels, Some([(name, "u1.small".to_owned())].into()));
}

#[test]
fn a_kept_pod_keeps_its_name_on_the_claim() {
    let pod = importer(&json!({"phase": "Succeeded"}));
    let named = json!({annotation::IMPORT_POD: "importer-disk"});
    let kept = json!({annotation::IMPORT_POD: "importer-disk", annotation::POD_RETAIN: "true"});
    for (annotations, taken_away) in [(named, true), (kept, false)] {
        let observed = seen(claim("Bound", &annotations), Some(pod.clone()));
        let changes = written(&plan(&observed));
        assert_eq!(changes.contains_key(annotation::IMPORT_POD), taken_away);
    }
}

#[test]
fn a_pod_that_the_server_refuses_is_told_once() {
    let claim_of = |annotations: &Value| claim("Bound", annotations);
    let quota = "pods \"importer-disk\" is forbidden: exceeded quota: q";
    for (said, why) in [
        (quota, reason::ERR_EXCEEDED_QUOTA),
        ("serviceaccount \"x\" not found", reason::ERR_STARTING_POD),
    ] {
        let actions = refused(&claim_of(&json!({})), said);
        let changes = written(&actions);
        assert_eq!(value(&changes, annotation::RUNNING_REASON), Some(why));
        let message = value(&changes, annotation::RUNNING_MESSAGE).unwrap();
        let upstreams = "Error starting pod 'importer-disk': For more information, request access to cdi-deploy logs from your sysadmin";
        assert_eq!(message, format!("{upstreams}: {said}"));
        let note = Note::warning(why, message.to_owned());
        assert_eq!(actions.first(), Some(&Action::Tell(note)));
        let known = json!({
            annotation::RUNNING: "false", annotation::RUNNING_REASON: why,
            annotation::RUNNING_MESSAGE: message,
        });
        assert_eq!(refused(&claim_of(&known), said), []);
    }
}

#[test]
fn work_on_a_claim_ends_at_once_when_its_volume_goes() {
    let cancelled = claim("Bound", &json!({annotation::CANCELLED: "true"}));
    let mut pod = importer(&json!({"phase": "Pending"}));
    let away = |at_once| Action::DeletePod {
        uid: "pod-1".to_owned(),
        name: "importer-disk".to_owned(),
        at_once,
    };
    assert_eq!(
        plan(&seen(cancelled.clone(), Some(pod.clone()))),
        [away(true)]
    );
    // It was to end by and by: now at once.
    pod.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-11-21T09:00:00Z")).unwrap());
    pod.metadata.deletion_grace_period_seconds = Some(30);
    assert_eq!(
        plan(&seen(cancelled.clone(), Some(pod.clone()))),
        [away(true)]
    );
    pod.metadata.deletion_grace_period_seconds = Some(0);
    assert_eq!(plan(&seen(cancelled.clone(), Some(pod))), []);
    assert_eq!(plan(&seen(cancelled, None)), []);
}

#[test]
fn a_claim_whose_volume_remembers_that_it_was_filled_gets_its_mark_back() {
    let remembered = |users: Vec<String>| Observed {
        was_filled: true,
        users,
        ..seen(claim("Bound", &json!({})), None)
    };
    let changes = written(&plan(&remembered(Vec::new())));
    assert_eq!(value(&changes, annotation::POD_PHASE), Some("Succeeded"));
    assert_eq!(changes.len(), 1);
    // While somebody uses it nothing is done about it, and that is told.
    let changes = written(&plan(&remembered(vec!["vm".to_owned()])));
    assert_eq!(
        value(&changes, annotation::RUNNING_REASON),
        Some(reason::IMPORT_TARGET_IN_USE)
    );
}

#[test]
fn a_pod_uses_a_claim_by_name_or_as_its_own_until_it_has_ended() {
    let pod = |phase: &str, volume: &Value| -> Pod {
        let mut volume = volume.clone();
        volume["name"] = json!("data");
        serde_json::from_value(json!({
            "metadata": {"name": "vm", "namespace": "ns"},
            "spec": {"containers": [], "volumes": [volume]},
            "status": {"phase": phase},
        }))
        .unwrap()
    };
    let named = json!({"persistentVolumeClaim": {"claimName": "disk", "readOnly": true}});
    let own = json!({"ephemeral": {}});
    for (phase, volume, claim, used) in [
        ("Running", &named, "disk", true),
        ("Pending", &named, "disk", true),
        ("Running", &named, "other", false),
        ("Succeeded", &named, "disk", false),
        ("Failed", &named, "disk", false),
        ("Running", &own, "vm-data", true),
        ("Running", &own, "data", false),
    ] {
        let users = Users::new(Duration::ZERO);
        users.sees(&pod(phase, volume));
        let found = !users.of("ns", claim, &[]).is_empty();
        assert_eq!(found, used, "{phase} {volume} {claim}");
    }
}

#[test]
fn a_node_pulls_what_is_in_a_registry_and_nothing_else() {
    for (endpoint, image) in [
        ("docker://r/i:1", Some("r/i:1")),
        ("oci-archive:///disk.tar", None),
    ] {
        let asked = claim(
            "Bound",
            &json!({
                annotation::IMPORT_SOURCE: "registry", annotation::IMPORT_ENDPOINT: endpoint,
                annotation::IMPORT_METHOD: "node",
            }),
        );
        let actions = plan(&seen(asked, None));
        let Some(Action::CreatePod(request)) = actions.last() else {
            panic!("{actions:?}");
        };
        assert_eq!(request.pulled_by_node(), image);
    }
}

#[test]
fn an_image_that_a_node_cannot_pull_is_told_though_the_importer_runs_beside_it() {
    let pod = importer(&json!({"phase": "Running", "containerStatuses": [
        {"name": "importer", "restartCount": 2, "ready": true, "image": "", "imageID": "",
            "state": {"running": {}}},
        {"name": "server", "restartCount": 0, "ready": false, "image": "r/i:1", "imageID": "",
            "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}},
    ]}));
    let changes = written(&plan(&seen(claim("Bound", &json!({})), Some(pod.clone()))));
    assert_eq!(value(&changes, annotation::POD_RESTARTS), Some("2"));
    assert_eq!(value(&changes, annotation::RUNNING), Some("false"));
    let (why, message) = told(&pod);
    assert_eq!(why, reason::IMAGE_PULL_FAILED);
    assert!(message.contains("r/i:1"), "{message}");
}

#[test]
fn a_claim_for_an_upload_or_a_clone_is_told_that_these_are_to_come() {
    for (name, what) in [
        (annotation::UPLOAD_TARGET, "an upload"),
        (annotation::CLONE_REQUEST, "another claim"),
    ] {
        let asks = json!({name: ""});
        let mut claim = claim("Bound", &asks);
        claim.metadata.annotations = Some(BTreeMap::from([(name.to_owned(), String::new())]));
        let changes = written(&plan(&seen(claim.clone(), None)));
        let why = value(&changes, annotation::RUNNING_REASON);
        assert_eq!(why, Some(reason::UNSUPPORTED_SOURCE));
        let message = value(&changes, annotation::RUNNING_MESSAGE).unwrap();
        assert!(message.contains(what), "{message}");
        // Somebody else has filled it.
        let all = claim.metadata.annotations.as_mut().unwrap();
        all.insert(annotation::POD_PHASE.to_owned(), "Succeeded".to_owned());
        assert_eq!(plan(&seen(claim, None)), []);
    }
}

#[test]
fn a_pod_is_made_only_of_the_claim_that_was_seen() {
    // The name of a pod before it is there already.
    let noted = json!({annotation::IMPORT_POD: "importer-disk"});
    for annotations in [json!({}), noted] {
        let actions = plan(&seen(claim("Bound", &annotations), None));
        let [Action::Mark(marks), Action::CreatePod(_)] = actions.as_slice() else {
            panic!("{actions:?}");
        };
        let named = value(&marks.annotations, annotation::IMPORT_POD);
        assert_eq!(named, Some("importer-disk"));
    }
}

#[test]
fn sources_that_lack_something_are_refused_before_there_is_a_pod() {
    let no_image = json!({annotation::IMPORT_SOURCE: "vddk"});
    let stream = json!({
        annotation::IMPORT_SOURCE: "registry", annotation::IMPORT_IMAGE_STREAM: "true",
        annotation::IMPORT_ENDPOINT: "fedora:42",
    });
    let warm = json!({annotation::CHECKPOINT: "snap-1"});
    let files = json!({
        annotation::IMPORT_SOURCE: "none", annotation::CONTENT_TYPE: "archive",
    });
    let no_disk = json!({annotation::IMPORT_SOURCE: "imageio"});
    let no_address = json!({annotation::IMPORT_ENDPOINT: ""});
    for (annotations, why, names) in [
        (no_image, reason::AWAITING_VDDK, annotation::VDDK_IMAGE),
        (
            stream,
            reason::UNSUPPORTED_SOURCE,
            annotation::IMPORT_METHOD,
        ),
        (warm, reason::UNSUPPORTED_SOURCE, "checkpoints"),
        (files, reason::UNSUPPORTED_SOURCE, annotation::CONTENT_TYPE),
        (
            no_disk,
            reason::UNSUPPORTED_SOURCE,
            annotation::IMPORT_DISK_ID,
        ),
        (
            no_address,
            reason::UNSUPPORTED_SOURCE,
            annotation::IMPORT_ENDPOINT,
        ),
    ] {
        let actions = plan(&seen(claim("Bound", &annotations), None));
        let changes = written(&actions);
        assert_eq!(actions.len(), 1, "{annotations}");
        assert_eq!(value(&changes, annotation::RUNNING_REASON), Some(why));
        let message = value(&changes, annotation::RUNNING_MESSAGE).unwrap();
        assert!(message.contains(names), "{message}");
    }
}

#[test]
fn a_missing_image_is_told_when_a_pod_would_be_made_and_not_before() {
    let vddk = json!({annotation::IMPORT_SOURCE: "vddk"});
    let mut told = vddk.clone();
    for name in [annotation::RUNNING_REASON, annotation::RUNNING_MESSAGE] {
        told[name] = json!(reason::AWAITING_VDDK);
    }
    // Who waits for a consumer says so, whatever was said before.
    assert_eq!(plan(&seen(claim("Pending", &vddk), None)), []);
    let changes = written(&plan(&seen(claim("Pending", &told), None)));
    assert_eq!(changes.get(annotation::RUNNING_REASON), Some(&None));
    assert_eq!(changes.get(annotation::RUNNING_MESSAGE), Some(&None));
    let first = planned(&seen(claim("Bound", &vddk), None));
    let why = written(&first.actions);
    assert_eq!(
        value(&why, annotation::RUNNING_REASON),
        Some(reason::AWAITING_VDDK)
    );
    assert!(first.again.is_some(), "nobody watches where it is named");
    // What no consumer mends is told at once.
    let odd = json!({annotation::CHECKPOINT: "snap-1"});
    let why = written(&plan(&seen(claim("Pending", &odd), None)));
    assert_eq!(
        value(&why, annotation::RUNNING_REASON),
        Some(reason::UNSUPPORTED_SOURCE)
    );
}

#[test]
fn a_pod_at_work_is_followed_whatever_would_be_refused_now() {
    let begun = |source: &str, content: &str| {
        let asks = json!({
            annotation::IMPORT_SOURCE: source, annotation::CONTENT_TYPE: content,
            annotation::IMPORT_POD: "importer-disk",
        });
        claim("Bound", &asks)
    };
    for asks in [begun("vddk", "kubevirt"), begun("none", "archive")] {
        let done = importer(&json!({"phase": "Succeeded"}));
        let changes = written(&plan(&seen(asks, Some(done))));
        assert_eq!(value(&changes, annotation::POD_PHASE), Some("Succeeded"));
    }
}
