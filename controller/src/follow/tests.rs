use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector;

use super::*;

fn pod(name: &str, version: &str) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("ns".to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        },
        ..Pod::default()
    }
}

/// What is handed on, in its order, and whether it was kept by then; or in which version another one was.
fn handed_on(events: Vec<Event<Pod>>) -> Vec<(String, Option<String>)> {
    let (shown, kept) = reflector::store();
    let events = stream::iter(events.into_iter().map(Ok)).reflect(kept);
    let all = once_kept(events, shown.clone(), ()).map(|pod| {
        let name = pod.unwrap().metadata.name.unwrap();
        let there = shown.get(&ObjectRef::new(&name).within("ns"));
        let version = there.and_then(|pod| pod.metadata.resource_version.clone());
        (name, version)
    });
    // All of it is there already.
    let mut all: Vec<_> = all.collect().now_or_never().unwrap();
    all.sort();
    all
}

fn told(all: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
    let owned =
        |(name, version): &(&str, Option<&str>)| ((*name).to_owned(), version.map(str::to_owned));
    all.iter().map(owned).collect()
}

#[test]
fn what_is_listed_is_handed_on_once_all_of_the_list_is_kept() {
    let begun = vec![Event::Init, Event::InitApply(pod("a", "1"))];
    assert_eq!(handed_on(begun.clone()), []);
    let ended = [Event::InitApply(pod("b", "2")), Event::InitDone];
    let ended = [begun, ended.to_vec()].concat();
    assert_eq!(
        handed_on(ended),
        told(&[("a", Some("1")), ("b", Some("2"))])
    );
}

#[test]
fn what_changes_is_handed_on_as_it_is_kept_and_what_goes_as_it_is_forgotten() {
    let events = vec![
        Event::Init,
        Event::InitDone,
        Event::Apply(pod("a", "1")),
        Event::Apply(pod("a", "2")),
        Event::Delete(pod("a", "3")),
    ];
    assert_eq!(
        handed_on(events),
        told(&[("a", None), ("a", Some("1")), ("a", Some("2"))])
    );
}

#[test]
fn what_went_while_nobody_watched_is_handed_on_when_the_next_list_lacks_it() {
    let events = vec![
        Event::Init,
        Event::InitApply(pod("a", "1")),
        Event::InitApply(pod("b", "2")),
        Event::InitDone,
        // The list that a watch begins with, and one that is cut short, forget nothing.
        Event::Init,
        Event::InitApply(pod("c", "4")),
        Event::Init,
        Event::InitApply(pod("b", "3")),
        Event::InitDone,
    ];
    assert_eq!(
        handed_on(events),
        told(&[
            ("a", None),
            ("a", Some("1")),
            ("b", Some("2")),
            ("b", Some("3")),
        ])
    );
}
