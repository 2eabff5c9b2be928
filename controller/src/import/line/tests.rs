//! The line by itself: never more than may be, everybody's turn comes, nobody waits for what is free.

use longshore_crds::names::annotation;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::super::pod::{Workload, pod};
use super::super::source::request;
use super::*;

const START: i64 = 1_700_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

/// A claim that was made in that second, from that host.
fn claim(second: u8, host: &str, node: Option<&str>) -> PersistentVolumeClaim {
    let mut annotations = json!({annotation::IMPORT_ENDPOINT: format!("https://u:p@{host}/disk")});
    if let Some(node) = node {
        annotations[SELECTED_NODE] = json!(node);
    }
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("disk-{second}"), "namespace": "ns", "uid": format!("uid-{second}"),
            "resourceVersion": "1", "creationTimestamp": at(i64::from(second)).to_string(),
            "annotations": annotations,
        },
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }))
    .unwrap()
}

fn made(claim: &PersistentVolumeClaim, phase: &str) -> Pod {
    let request = request(claim, None).unwrap().unwrap();
    let mut pod = pod(claim, &request, &Workload::default());
    pod.status = serde_json::from_value(json!({"phase": phase})).unwrap();
    pod
}

fn asks(line: &Line, claim: &PersistentVolumeClaim, limits: Limits, now: i64) -> Option<Wait> {
    line.asks(claim, &import(claim), limits, at(now))
}

fn import(claim: &PersistentVolumeClaim) -> Import {
    request(claim, None).unwrap().unwrap().import
}

const ONE: Limits = Limits {
    per_node: None,
    per_source: Some(1),
};

#[test]
fn a_pod_that_was_gone_when_it_was_found_gives_its_place_back() {
    let line = Line::default();
    let [first, second, third] = [1, 2, 3].map(|second| claim(second, "h:80", None));
    line.sees(&made(&first, "Running"));
    line.misses(&made(&first, "Running"));
    // Somebody asked for it before, and hears only now that it was there.
    line.finds(&made(&first, "Running"), at(0));
    assert!(asks(&line, &second, ONE, 1).is_some());
    assert_eq!(asks(&line, &second, ONE, 120), None);
    // One that the watch shows keeps its place, whoever else finds it.
    line.sees(&made(&second, "Running"));
    line.finds(&made(&second, "Running"), at(121));
    assert!(asks(&line, &third, ONE, 300).is_some());
}

#[test]
fn one_source_is_asked_by_so_many_and_others_go_past() {
    let line = Line::default();
    let [first, second, third] = [1, 2, 3].map(|second| claim(second, "h:80", None));
    let other = claim(4, "other", None);
    assert_eq!(asks(&line, &first, ONE, 10), None);
    let wait = asks(&line, &second, ONE, 10).unwrap();
    assert_eq!(wait.ahead, 0);
    assert_eq!(
        wait.message(),
        "as many imports from h:80 as may be at work (1) are: this one is next"
    );
    assert_eq!(asks(&line, &third, ONE, 10).unwrap().ahead, 1);
    assert_eq!(asks(&line, &other, ONE, 10), None);
    // Nothing has changed, and then the first one ends.
    assert!(line.still(&second, ONE, at(11)).is_some());
    line.sees(&made(&first, "Running"));
    assert!(line.still(&second, ONE, at(12)).is_some());
    line.sees(&made(&first, "Succeeded"));
    assert_eq!(line.still(&second, ONE, at(13)), None);
    // Whoever comes later does not go before it.
    assert!(asks(&line, &third, ONE, 13).is_some());
    assert_eq!(asks(&line, &second, ONE, 13), None);
}

#[test]
fn a_node_takes_so_many_and_all_nodes_together_so_many_times_their_number() {
    let line = Line::default();
    for name in ["one", "two", "closed"] {
        let node = json!({"metadata": {"name": name}, "spec": {"unschedulable": name == "closed"}});
        line.knows(&serde_json::from_value(node).unwrap());
    }
    let limits = Limits {
        per_node: Some(1),
        per_source: None,
    };
    let on = |second, node| claim(second, "h", node);
    assert_eq!(asks(&line, &on(1, Some("one")), limits, 0), None);
    let wait = asks(&line, &on(2, Some("one")), limits, 0).unwrap();
    let full = Full::Node {
        name: "one".to_owned(),
        limit: 1,
    };
    assert_eq!(wait.full, full);
    assert_eq!(asks(&line, &on(3, None), limits, 0), None);
    let wait = asks(&line, &on(4, None), limits, 0).unwrap();
    assert_eq!(wait.full, Full::Nodes { limit: 2 });
}

#[test]
fn turns_that_nobody_takes_and_claims_that_go_make_room() {
    let line = Line::default();
    let [first, second, third] = [1, 2, 3].map(|second| claim(second, "h", None));
    assert_eq!(asks(&line, &first, ONE, 0), None);
    assert!(asks(&line, &second, ONE, 0).is_some());
    assert!(asks(&line, &third, ONE, 0).is_some());
    // Its pod could not be made.
    line.leaves(&first);
    // The second one is gone, and does not ask any more.
    assert!(asks(&line, &third, ONE, 20).is_some());
    assert_eq!(asks(&line, &third, ONE, 31), None);
    assert!(asks(&line, &first, ONE, 32).is_some());
    // No pod came of that turn either.
    assert!(asks(&line, &first, ONE, 50).is_some());
    assert!(asks(&line, &first, ONE, 70).is_some());
    assert_eq!(asks(&line, &first, ONE, 91), None);
}

#[test]
fn a_line_that_begins_anew_knows_what_is_at_work() {
    let line = Line::default();
    let [first, second] = [1, 2].map(|second| claim(second, "h", None));
    line.sees_all(&[made(&first, "Running")]);
    assert!(asks(&line, &second, ONE, 0).is_some());
    assert_eq!(asks(&line, &first, ONE, 0), None);
    line.sees_all(&[]);
    line.leaves(&first);
    assert_eq!(asks(&line, &second, ONE, 0), None);
}

#[test]
fn hosts_are_what_addresses_name() {
    for (address, expected) in [
        (
            "https://user:pass@H.example.org:8443/a?b",
            Some("h.example.org:8443"),
        ),
        ("docker://registry/a:1", Some("registry")),
        ("s3://bucket/key", Some("s3:")),
        ("gs://bucket/key", Some("gs:")),
        ("https://[::1]:80/x", Some("[::1]:80")),
        ("https:///x", None),
        ("nonsense", None),
    ] {
        assert_eq!(host(address).as_deref(), expected, "{address}");
    }
}

proptest! {
    /// Claims ask and end in any order, with watches that come late or not at all: never more at work
    /// than may be, and everybody's turn comes.
    #[test]
    fn never_too_many_and_everybody_in_the_end(
        steps in vec((0_u8..8, 0_u8..4), 1..80),
        per_source in 1_usize..3,
        per_node in 1_usize..4,
    ) {
        let limits = Limits { per_node: Some(per_node), per_source: Some(per_source) };
        let line = Line::default();
        let claims: Vec<_> = (0..8)
            .map(|n| claim(n, if n % 2 == 0 { "even" } else { "odd" }, None))
            .collect();
        let mut working: BTreeSet<u8> = BTreeSet::new();
        let mut done: BTreeSet<u8> = BTreeSet::new();
        let mut now = 0;
        let step = |n: u8, what: u8, now: i64, working: &mut BTreeSet<u8>, done: &mut BTreeSet<u8>| {
            let claim = &claims[usize::from(n)];
            match what {
                _ if done.contains(&n) => {}
                0 | 1 if working.contains(&n) => line.sees(&made(claim, "Running")),
                0 | 1 => {
                    if asks(&line, claim, limits, now).is_none() {
                        working.insert(n);
                        line.sees(&made(claim, "Pending"));
                    }
                }
                2 => {
                    if working.remove(&n) {
                        done.insert(n);
                        line.sees(&made(claim, "Succeeded"));
                    }
                }
                _ => {
                    // The watch begins anew.
                    let all: Vec<_> =
                        working.iter().map(|n| made(&claims[usize::from(*n)], "Running")).collect();
                    line.sees_all(&all);
                }
            }
        };
        for (n, what) in steps {
            now += 1;
            step(n, what, now, &mut working, &mut done);
            prop_assert!(working.len() <= per_node);
            for parity in 0..2 {
                prop_assert!(working.iter().filter(|n| **n % 2 == parity).count() <= per_source);
            }
        }
        for _ in 0..20 {
            for n in 0..8 {
                now += 1;
                step(n, 0, now, &mut working, &mut done);
            }
            for n in working.clone() {
                step(n, 2, now, &mut working, &mut done);
            }
        }
        prop_assert_eq!(done.len(), 8);
    }
}
