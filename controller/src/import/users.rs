//! Which pods of a namespace use which claims, asked for once for all who ask at the same time.
//!
//! A list is as long as there are pods, and a thousand claims that are made at once would each ask for one.
//! Whoever asks gets a list that was begun after they asked, so nothing is older than if it were their own;
//! those that ask while one is under way share the next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Mutex as Turn;

/// Names of pods that have not ended, by the claim that they use.
pub(crate) type Uses = HashMap<String, Vec<String>>;

/// Namespaces that are remembered. Beyond it those that nobody asks about make room.
const MOST: usize = 1000;

/// What was listed last, by namespace.
#[derive(Debug, Default)]
pub(crate) struct Users {
    clock: AtomicU64,
    places: Mutex<HashMap<String, Arc<Turn<Listed>>>>,
}

#[derive(Debug, Default)]
struct Listed {
    begun: u64,
    uses: Arc<Uses>,
}

impl Users {
    /// The uses in a namespace; `list` asks the cluster, if nobody else does at this moment.
    pub(crate) async fn of<E>(
        &self,
        namespace: &str,
        list: impl AsyncFnOnce() -> Result<Vec<Pod>, E>,
    ) -> Result<Arc<Uses>, E> {
        let asked = self.tick();
        let place = self.place(namespace);
        let mut listed = place.lock().await;
        if listed.begun > asked {
            return Ok(Arc::clone(&listed.uses));
        }
        let begun = self.tick();
        let pods = list().await?;
        *listed = Listed {
            begun,
            uses: Arc::new(uses(&pods)),
        };
        Ok(Arc::clone(&listed.uses))
    }

    fn tick(&self) -> u64 {
        // From 1: what was never listed was begun at 0.
        self.clock.fetch_add(1, Ordering::SeqCst).saturating_add(1)
    }

    fn place(&self, namespace: &str) -> Arc<Turn<Listed>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MOST {
            places.retain(|_, place| Arc::strong_count(place) > 1);
        }
        Arc::clone(places.entry(namespace.to_owned()).or_default())
    }
}

/// The uses of all of these.
pub(super) fn uses(pods: &[Pod]) -> Uses {
    let mut all = Uses::new();
    for pod in pods {
        let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
        let (Some(name), false) = (
            pod.metadata.name.as_deref(),
            matches!(phase, Some("Succeeded" | "Failed")),
        ) else {
            continue;
        };
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
        for volume in volumes.unwrap_or_default() {
            let named = volume.persistent_volume_claim.as_ref();
            let claim = match named {
                Some(named) => named.claim_name.clone(),
                None if volume.ephemeral.is_some() => format!("{name}-{}", volume.name),
                None => continue,
            };
            let users = all.entry(claim).or_default();
            if !users.iter().any(|user| user == name) {
                users.push(name.to_owned());
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::convert::Infallible;
    use std::sync::atomic::AtomicUsize;
    use tokio::sync::Notify;

    fn pod(name: &str, phase: &str, claim: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name}, "status": {"phase": phase},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": claim}},
                {"name": "b", "ephemeral": {}},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn pods_that_have_ended_use_nothing() {
        let all = uses(&[
            pod("one", "Running", "disk"),
            pod("two", "Succeeded", "disk"),
            pod("three", "Pending", "disk"),
        ]);
        assert_eq!(all["disk"], ["one", "three"]);
        assert_eq!(all["one-b"], ["one"]);
        assert!(!all.contains_key("two-b"));
    }

    #[tokio::test]
    async fn those_who_ask_while_a_list_is_under_way_share_the_next_one() {
        let users = Arc::new(Users::default());
        let (lists, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let ask = || {
            let (users, lists, gate) = (users.clone(), lists.clone(), gate.clone());
            tokio::spawn(async move {
                let list = async || {
                    lists.fetch_add(1, Ordering::SeqCst);
                    gate.notified().await;
                    Ok::<_, Infallible>(vec![pod("one", "Running", "disk")])
                };
                users.of("ns", list).await.unwrap()
            })
        };
        let first = ask();
        while lists.load(Ordering::SeqCst) < 1 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..50).map(|_| ask()).collect();
        // All of them have asked once each has had its turn.
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        gate.notify_one();
        assert_eq!(first.await.unwrap()["disk"], ["one"]);
        gate.notify_one();
        for other in others {
            assert_eq!(other.await.unwrap()["disk"], ["one"]);
        }
        assert_eq!(lists.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_list_that_fails_is_the_failure_of_whoever_asked_for_it() {
        let users = Users::default();
        assert_eq!(users.of("ns", async || Err("no")).await, Err("no"));
        let pods = users.of("ns", async || Ok::<_, Infallible>(Vec::new()));
        assert!(pods.await.unwrap().is_empty());
    }
}
