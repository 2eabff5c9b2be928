//! Which pods use which claims: what one watch of all pods has shown so far.
//!
//! A watch brings pods in the order in which they were made or changed. So once it has shown our own pod, it
//! has shown every pod that was made before that, and whoever is asked then needs no list ([`Users::beside`]).
//! That is so however far behind the watch is, and whoever looks: what is old shows our pod no sooner than
//! the others. A list that comes in the middle of a watch replaces all at once, for the same reason.
//!
//! Does not know which pods are ours, nor what a use means.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::oneshot;

/// A watch shows what was written within a moment, unless the API server has more to do than it can.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Names of pods and claims are names within a namespace.
type Place = (String, String);

/// Uses that were shown.
#[derive(Debug)]
pub(crate) struct Users {
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    shown: Shown,
    /// By the uid of the pod that somebody wants to see.
    awaited: HashMap<String, Vec<oneshot::Sender<()>>>,
}

/// Pods that use claims and have not ended.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pods: HashMap<Place, User>,
    /// Names of the pods that use a claim.
    claims: HashMap<Place, BTreeSet<String>>,
}

#[derive(Debug)]
struct User {
    uid: String,
    claims: Vec<String>,
}

impl Users {
    /// No pods. Whoever wants to see one waits so long for it.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            patience,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are all that there are.
    pub(crate) fn sees_all(&self, shown: Shown) {
        let mut state = self.state();
        state.shown = shown;
        let State { shown, awaited } = &mut *state;
        for user in shown.pods.values() {
            tell(awaited, &user.uid);
        }
    }

    /// A pod was made or has changed.
    pub(super) fn sees(&self, pod: &Pod) {
        let mut state = self.state();
        state.shown.put(pod);
        tell(&mut state.awaited, uid(pod));
    }

    /// A pod is no more.
    pub(super) fn misses(&self, pod: &Pod) {
        let mut state = self.state();
        state.shown.remove(&place(pod));
        tell(&mut state.awaited, uid(pod));
    }

    /// Pods besides those of the names `own` that use a claim, as far as was shown.
    pub(super) fn of(&self, namespace: &str, claim: &str, own: &[String]) -> Vec<String> {
        self.state().shown.of(namespace, claim, own)
    }

    /// Pods besides `pod` that use a claim, all that were made before `pod` among them; `None` if `pod` was
    /// not shown in time, or is no more.
    pub(super) async fn beside(
        &self,
        pod: &Pod,
        namespace: &str,
        claim: &str,
    ) -> Option<Vec<String>> {
        let own = [pod.metadata.name.clone().unwrap_or_default()];
        let shown = {
            let mut state = self.state();
            if state.shown.has(pod) {
                return Some(state.shown.of(namespace, claim, &own));
            }
            if self.patience.is_zero() {
                return None;
            }
            let (teller, shown) = oneshot::channel();
            let waiting = state.awaited.entry(uid(pod).to_owned()).or_default();
            waiting.push(teller);
            shown
        };
        let in_time = tokio::time::timeout(self.patience, shown).await.is_ok();
        let mut state = self.state();
        if !in_time {
            state.awaited.retain(|_, waiting| {
                waiting.retain(|teller| !teller.is_closed());
                !waiting.is_empty()
            });
        }
        let known = state.shown.has(pod);
        known.then(|| state.shown.of(namespace, claim, &own))
    }
}

impl Shown {
    /// Takes a pod down as it is now.
    pub(crate) fn put(&mut self, pod: &Pod) {
        let place = place(pod);
        self.remove(&place);
        let claims = claims(pod);
        if claims.is_empty() {
            return;
        }
        for claim in &claims {
            let claim = (place.0.clone(), claim.clone());
            self.claims
                .entry(claim)
                .or_default()
                .insert(place.1.clone());
        }
        let uid = uid(pod).to_owned();
        self.pods.insert(place, User { uid, claims });
    }

    fn remove(&mut self, place: &Place) {
        let Some(user) = self.pods.remove(place) else {
            return;
        };
        for claim in user.claims {
            let claim = (place.0.clone(), claim);
            if let Some(users) = self.claims.get_mut(&claim) {
                users.remove(&place.1);
                if users.is_empty() {
                    self.claims.remove(&claim);
                }
            }
        }
    }

    /// Whether it has this pod, and not only one of the same name.
    fn has(&self, pod: &Pod) -> bool {
        let known = self.pods.get(&place(pod));
        known.is_some_and(|user| user.uid == uid(pod))
    }

    fn of(&self, namespace: &str, claim: &str, own: &[String]) -> Vec<String> {
        let claim = (namespace.to_owned(), claim.to_owned());
        let users = self.claims.get(&claim).into_iter().flatten();
        users.filter(|user| !own.contains(user)).cloned().collect()
    }
}

/// Wakes those who wait to see the pod of this uid.
fn tell(awaited: &mut HashMap<String, Vec<oneshot::Sender<()>>>, uid: &str) {
    for teller in awaited.remove(uid).into_iter().flatten() {
        // Who has given up needs no word.
        let _ = teller.send(());
    }
}

fn place(pod: &Pod) -> Place {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    (part(&pod.metadata.namespace), part(&pod.metadata.name))
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The claims that a pod uses: none any more once it has ended.
fn claims(pod: &Pod) -> Vec<String> {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    let volumes = volumes.unwrap_or_default().iter();
    volumes
        .filter_map(|volume| match &volume.persistent_volume_claim {
            Some(named) => Some(named.claim_name.clone()),
            // Made for the pod, under a name made of both.
            None => volume
                .ephemeral
                .is_some()
                .then(|| format!("{name}-{}", volume.name)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn pod(name: &str, uid: &str, phase: &str, claim: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "ns", "uid": uid}, "status": {"phase": phase},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": claim}},
                {"name": "b", "ephemeral": {}},
            ]},
        }))
        .unwrap()
    }

    fn all(pods: &[Pod]) -> Shown {
        let mut shown = Shown::default();
        for pod in pods {
            shown.put(pod);
        }
        shown
    }

    #[test]
    fn pods_use_claims_until_they_have_ended_or_are_gone() {
        let users = Users::new(Duration::ZERO);
        users.sees_all(all(&[
            pod("one", "1", "Running", "disk"),
            pod("two", "2", "Succeeded", "disk"),
            pod("three", "3", "Pending", "disk"),
        ]));
        let of = |claim: &str| users.of("ns", claim, &[]);
        assert_eq!(of("disk"), ["one", "three"]);
        assert_eq!(of("one-b"), ["one"]);
        assert!(of("two-b").is_empty());
        assert!(users.of("elsewhere", "disk", &[]).is_empty());
        assert_eq!(users.of("ns", "disk", &["one".to_owned()]), ["three"]);
        users.sees(&pod("one", "1", "Failed", "disk"));
        assert_eq!(of("disk"), ["three"]);
        assert!(of("one-b").is_empty());
        users.misses(&pod("three", "3", "Pending", "disk"));
        assert!(of("disk").is_empty());
        assert!(users.state().shown.claims.is_empty());
    }

    #[test]
    fn a_list_replaces_all_that_was_known() {
        let users = Users::new(Duration::ZERO);
        users.sees(&pod("one", "1", "Running", "disk"));
        users.sees_all(all(&[pod("two", "2", "Running", "other")]));
        assert!(users.of("ns", "disk", &[]).is_empty());
        assert_eq!(users.of("ns", "other", &[]), ["two"]);
    }

    #[tokio::test]
    async fn who_else_there_is_is_said_only_once_ones_own_pod_was_shown() {
        let users = Arc::new(Users::new(Duration::from_mins(10)));
        let ours = pod("importer-disk", "u", "Pending", "disk");
        let asks = {
            let (users, ours) = (users.clone(), ours.clone());
            tokio::spawn(async move { users.beside(&ours, "ns", "disk").await })
        };
        while users.state().awaited.is_empty() {
            tokio::task::yield_now().await;
        }
        // One of the name that was there before is not ours, and neither is a stranger.
        users.sees(&pod("importer-disk", "before", "Pending", "disk"));
        users.sees(&pod("vm", "v", "Running", "disk"));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!asks.is_finished());
        users.sees(&ours);
        assert_eq!(asks.await.unwrap().unwrap(), ["vm"]);
        // What is known already is said at once, and what a list brings counts as much.
        users.misses(&pod("vm", "v", "Running", "disk"));
        users.sees_all(all(std::slice::from_ref(&ours)));
        let beside = users.beside(&ours, "ns", "disk").await;
        assert!(beside.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_pod_that_is_gone_or_never_shown_has_nobody_beside_it() {
        let users = Arc::new(Users::new(Duration::from_millis(1)));
        let ours = pod("importer-disk", "u", "Pending", "disk");
        assert_eq!(users.beside(&ours, "ns", "disk").await, None);
        assert!(users.state().awaited.is_empty());
        users.sees(&ours);
        users.misses(&ours);
        assert_eq!(users.beside(&ours, "ns", "disk").await, None);
    }
}
