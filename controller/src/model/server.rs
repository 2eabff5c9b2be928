//! An API server that keeps its objects in a map, as far as the controllers can tell it from a real one:
//! versions, uids, preconditions, merge patches, finalizers, status apart from the rest.
//!
//! It watches what the controllers do: a write that is not theirs to make is a fault ([`super::watched`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, Request, Response};
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use kube::{Client, Resource};
use serde_json::{Value, json};

use crate::import::users::{Shown, Users};

/// Which object: plural of its kind and its name. There is one namespace.
pub(super) type Key = (String, String);

pub(super) const NAMESPACE: &str = "ns";

/// Kinds whose objects belong to no namespace.
const OF_NO_NAMESPACE: [&str; 6] = [
    "cdis",
    "cdiconfigs",
    "persistentvolumes",
    "storageclasses",
    "storageprofiles",
    "volumesnapshotclasses",
];

/// Kinds whose status is written with the rest.
const WHOLE: [&str; 2] = ["cdis", "cdiconfigs"];

/// What becomes of the gates of new pods.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Gates {
    #[default]
    Kept,
    /// As before Kubernetes 1.27.
    Dropped,
}

/// Everything that the cluster knows, and what was seen of the controllers.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) objects: BTreeMap<Key, Value>,
    /// Counts changes.
    pub(super) version: u64,
    made: BTreeMap<Key, u32>,
    /// When objects, by uid, were made, as the version that this brought about.
    pub(super) born: BTreeMap<String, u64>,
    /// Writes that the controller may still make before it dies.
    pub(super) life: Option<u32>,
    /// Nobody may make any more pods or claims.
    pub(super) quota_is_used_up: bool,
    /// Claims, by uid, whose disk was filled.
    pub(super) filled: BTreeSet<String>,
    /// Claims, by uid, whose importer has ended well and was gone before anybody noted that.
    pub(super) overlooked: BTreeSet<String>,
    /// Claims, by uid, and which checkpoints were copied to them.
    pub(super) stages: BTreeMap<String, Vec<String>>,
    /// As many importers may be at work.
    pub(super) most: Option<usize>,
    pub(super) gates: Gates,
    /// What the controllers did and must not.
    pub(super) faults: Vec<String>,
    /// Somebody else looks after the cluster, and the controllers know.
    pub(super) is_others: bool,
    /// What the controllers see is what is.
    pub(super) seen_fresh: bool,
    /// The watch of all pods.
    pub(super) shown: PodWatch,
    /// The claim that a machine begins to use just before an importer's pod is made for it.
    pub(super) intrusion: Option<String>,
    /// Seconds.
    pub(super) now: i64,
    /// What the controllers have asked so far.
    pub(super) requests: u64,
}

/// A watch of all pods, and one of those of importers.
#[derive(Debug, Default)]
pub(super) struct PodWatch {
    /// What the one has shown, as the controllers know it.
    pub(super) users: Option<Arc<Users>>,
    /// What the other has.
    pub(super) importers: Writer<Pod>,
    /// It shows nothing now.
    pub(super) lags: bool,
}

/// The store, shared by the model and the clients.
#[derive(Debug, Clone, Default)]
pub(super) struct Server(Arc<Mutex<Store>>);

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Refused(u16, &'static str, String);

pub(super) type Answer = Result<Value, Refused>;

pub(super) fn key(plural: &str, name: &str) -> Key {
    (plural.to_owned(), name.to_owned())
}

pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    let value = object.pointer(pointer).and_then(Value::as_str);
    value.unwrap_or_default()
}

/// An annotation of an object.
pub(super) fn noted<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].get(name)?.as_str()
}

/// Whether a pod is labelled as an importer's.
pub(super) fn is_importer(pod: &Value) -> bool {
    text(&pod["metadata"]["labels"], "/cdi.kubevirt.io") == "importer"
}

/// Whether a pod waits for a word before it goes to a node.
pub(super) fn is_held(pod: &Value) -> bool {
    let gates = pod["spec"]["schedulingGates"].as_array();
    gates.is_some_and(|gates| !gates.is_empty())
}

/// A watch brings all that there is.
pub(super) fn show<K>(watch: &mut Writer<K>, objects: impl IntoIterator<Item = K>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    watch.apply_watcher_event(&Event::Init);
    for object in objects {
        watch.apply_watcher_event(&Event::InitApply(object));
    }
    watch.apply_watcher_event(&Event::InitDone);
}

/// Names of the claims that a pod uses, unless it has ended.
pub(super) fn used_by(pod: &Value) -> Vec<&str> {
    if ["Succeeded", "Failed"].contains(&text(pod, "/status/phase")) {
        return Vec::new();
    }
    let volumes = pod["spec"]["volumes"].as_array().map(Vec::as_slice);
    let volumes = volumes.unwrap_or_default().iter();
    volumes
        .map(|volume| text(volume, "/persistentVolumeClaim/claimName"))
        .filter(|name| !name.is_empty())
        .collect()
}

impl Server {
    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of the cluster's state does not depend on when it came about.
    pub(super) fn state(&self) -> Value {
        let store = self.store();
        let mut objects = Vec::new();
        for ((plural, name), object) in &store.objects {
            if ["events", "leases"].contains(&plural.as_str()) {
                continue;
            }
            let mut object = object.clone();
            let meta = object["metadata"].as_object_mut().unwrap();
            for field in ["resourceVersion", "creationTimestamp", "deletionTimestamp"] {
                if let Some(value) = meta.get_mut(field) {
                    *value = json!("");
                }
            }
            if plural == "configmaps" {
                // Another one is made as often as nobody knows whether there is one.
                object["metadata"]["uid"] = json!("");
            }
            let conditions = object.pointer_mut("/status/conditions");
            for condition in conditions
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                condition["lastTransitionTime"] = json!("");
                condition["lastHeartbeatTime"] = json!("");
            }
            objects.push(json!([plural, name, object]));
        }
        Value::Array(objects)
    }

    /// A client of it.
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { server.answer(request).await }
        });
        Client::new(service, NAMESPACE)
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Dead> {
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap_or_default();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let mut store = self.store();
        store.requests += 1;
        let writes = head.method != Method::GET;
        let is_of_pods = path.contains("/pods");
        if writes {
            match &mut store.life {
                Some(0) => return Err(Dead),
                Some(left) => *left -= 1,
                None => {}
            }
        }
        let (code, answer) = match store.handle(&head.method, &path, &query, &body) {
            Ok(answer) => (200, answer),
            Err(Refused(code, reason, message)) => (
                code,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                    "reason": reason, "message": message, "metadata": {}}),
            ),
        };
        if writes && is_of_pods {
            store.show_pods();
        }
        let answer = Response::builder()
            .status(code)
            .body(Body::from(answer.to_string().into_bytes()));
        Ok(answer.unwrap())
    }
}

/// The controller's process has ended in the middle of what it did.
#[derive(Debug, thiserror::Error)]
#[error("the controller was killed")]
struct Dead;

impl Store {
    /// The watches of pods bring what there is, unless they lag.
    pub(super) fn show_pods(&mut self) {
        let Some(users) = self.shown.users.clone().filter(|_| !self.shown.lags) else {
            return;
        };
        let mut shown = Shown::default();
        let mut importers = Vec::new();
        for ((kind, _), object) in &self.objects {
            if kind == "pods" {
                let pod = serde_json::from_value(object.clone()).unwrap();
                shown.put(&pod);
                if is_importer(object) {
                    importers.push(pod);
                }
            }
        }
        users.sees_all(shown);
        show(&mut self.shown.importers, importers);
    }

    fn handle(&mut self, method: &Method, path: &str, query: &str, body: &Value) -> Answer {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        // Behind `api/v1` or `apis/GROUP/VERSION`.
        let rest = match parts.as_slice() {
            ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
            _ => &[],
        };
        let (plural, name, sub) = match rest {
            ["namespaces", _, plural] | [plural] => (*plural, None, None),
            ["namespaces", _, plural, name] | [plural, name] => (*plural, Some(*name), None),
            ["namespaces", _, plural, name, sub] | [plural, name, sub] => {
                (*plural, Some(*name), Some(*sub))
            }
            _ => return Err(Refused(404, "NotFound", format!("no such path: {path}"))),
        };
        match (method.as_str(), name) {
            ("GET", Some(name)) => self.get(&key(plural, name)),
            ("GET", None) => Ok(self.list(plural, query)),
            ("POST", None) => {
                self.watch_create(plural, body);
                if plural == "pods" {
                    self.intrude(body);
                }
                self.create(plural, body)
            }
            ("PATCH", Some(name)) => {
                let key = key(plural, name);
                self.watch_patch(&key, sub, body);
                let before = self.get(&key)?;
                let after = self.patch(&key, sub, body)?;
                self.watch_change(&key, &before, &after);
                Ok(after)
            }
            ("PUT", Some(name)) => {
                let key = key(plural, name);
                self.watch_replace(&key);
                self.replace(&key, body)
            }
            ("DELETE", Some(name)) => {
                let key = key(plural, name);
                self.watch_delete(&key, body);
                self.delete(&key, body)
            }
            _ => Err(Refused(405, "MethodNotAllowed", format!("{method} {path}"))),
        }
    }

    /// Somebody is faster.
    fn intrude(&mut self, pod: &Value) {
        let claim = text(pod, "/metadata/ownerReferences/0/name");
        if self.intrusion.as_deref() == Some(claim) {
            self.intrusion = None;
            let machine = super::world::machine(claim);
            drop(self.create("pods", &machine));
        }
    }

    fn get(&self, key: &Key) -> Answer {
        let found = self.objects.get(key).cloned();
        found.ok_or_else(|| Refused(404, "NotFound", format!("{} {} not found", key.0, key.1)))
    }

    fn list(&self, plural: &str, query: &str) -> Value {
        let asked = |field: &str| {
            let (_, rest) = query.split_once(field)?;
            let rest = rest
                .strip_prefix("%3D")
                .or_else(|| rest.strip_prefix('='))?;
            rest.split(['%', ',', '&']).next()
        };
        let (uid, named) = (asked("involvedObject.uid"), asked("metadata.name"));
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|((kind, _), _)| kind == plural)
            .map(|(_, object)| object)
            .filter(|object| uid.is_none_or(|uid| text(object, "/involvedObject/uid") == uid))
            .filter(|object| named.is_none_or(|name| text(object, "/metadata/name") == name))
            .collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})
    }

    pub(super) fn create(&mut self, plural: &str, body: &Value) -> Answer {
        let name = text(body, "/metadata/name").to_owned();
        let key = key(plural, &name);
        if self.objects.contains_key(&key) {
            let message = format!("{plural} {name} already exists");
            return Err(Refused(409, "AlreadyExists", message));
        }
        if self.quota_is_used_up && ["pods", "persistentvolumeclaims"].contains(&plural) {
            let message = format!("{plural} \"{name}\" is forbidden: exceeded quota: all");
            return Err(Refused(403, "Forbidden", message));
        }
        let count = self.made.entry(key.clone()).or_default();
        *count += 1;
        let mut object = body.clone();
        let uid = format!("{plural}-{name}-{count}");
        self.born.insert(uid.clone(), self.version);
        object["metadata"]["uid"] = json!(uid);
        if !OF_NO_NAMESPACE.contains(&plural) {
            object["metadata"]["namespace"] = json!(NAMESPACE);
        }
        object["metadata"]["creationTimestamp"] = json!(time(self.now));
        match plural {
            "persistentvolumeclaims" => {
                object["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
                object["status"] = json!({"phase": "Pending"});
            }
            "pods" => {
                object["status"] = json!({"phase": "Pending"});
                if self.gates == Gates::Dropped {
                    object["spec"]["schedulingGates"] = Value::Null;
                }
            }
            "storageprofiles" => object["status"] = json!({}),
            _ => {}
        }
        self.put(key.clone(), object);
        self.get(&key)
    }

    /// Stores an object as its next version.
    pub(super) fn put(&mut self, key: Key, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key, object);
    }

    fn patch(&mut self, key: &Key, sub: Option<&str>, body: &Value) -> Answer {
        let known = self.get(key)?;
        let wanted = &body["metadata"];
        for field in ["uid", "resourceVersion"] {
            let expected = text(wanted, &format!("/{field}"));
            if !expected.is_empty() && expected != text(&known["metadata"], &format!("/{field}")) {
                let message = format!("{} {}: another {field}", key.0, key.1);
                return Err(Refused(409, "Conflict", message));
            }
        }
        let mut next = known.clone();
        if sub == Some("status") {
            merge(&mut next["status"], &body["status"]);
        } else {
            let mut body = body.clone();
            if let Some(body) = body.as_object_mut()
                && !WHOLE.contains(&key.0.as_str())
            {
                body.remove("status");
            }
            merge(&mut next, &body);
        }
        let finalizers = next["metadata"]["finalizers"].as_array();
        if finalizers.is_none_or(Vec::is_empty)
            && !text(&next, "/metadata/deletionTimestamp").is_empty()
            && key.0 != "pods"
        {
            // Nothing holds it any more.
            self.version += 1;
            self.objects.remove(key);
            return Ok(next);
        }
        if next != known {
            self.put(key.clone(), next);
        }
        self.get(key)
    }

    /// Only leases are written as a whole. How often one was is no change of the cluster.
    fn replace(&mut self, key: &Key, body: &Value) -> Answer {
        let known = self.get(key)?;
        let version = text(&known, "/metadata/resourceVersion");
        if version != text(body, "/metadata/resourceVersion") {
            let message = format!("{} {}: another resourceVersion", key.0, key.1);
            return Err(Refused(409, "Conflict", message));
        }
        let mut next = body.clone();
        next["metadata"]["resourceVersion"] = json!(format!("{version}+"));
        self.objects.insert(key.clone(), next.clone());
        Ok(next)
    }

    fn delete(&mut self, key: &Key, body: &Value) -> Answer {
        let known = self.get(key)?;
        let uid = text(body, "/preconditions/uid");
        if !uid.is_empty() && uid != text(&known, "/metadata/uid") {
            let message = format!("{} {}: another uid", key.0, key.1);
            return Err(Refused(409, "Conflict", message));
        }
        self.remove(key, body["gracePeriodSeconds"] == json!(0));
        Ok(known)
    }

    /// Deletes an object; with finalizers, or as a pod that runs, it stays for a while.
    pub(super) fn remove(&mut self, key: &Key, at_once: bool) {
        let Some(mut object) = self.objects.get(key).cloned() else {
            return;
        };
        let held = object["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|finalizers| !finalizers.is_empty());
        let runs = key.0 == "pods"
            && !at_once
            && !["Succeeded", "Failed"].contains(&text(&object, "/status/phase"));
        if !held && !runs {
            self.version += 1;
            self.objects.remove(key);
        } else if text(&object, "/metadata/deletionTimestamp").is_empty() {
            object["metadata"]["deletionTimestamp"] = json!(time(self.now));
            object["metadata"]["deletionGracePeriodSeconds"] = json!(30);
            self.put(key.clone(), object);
        }
    }
}

/// RFC 7396.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        if value.is_null() {
            if let Some(target) = target.as_object_mut() {
                target.remove(name);
            }
        } else {
            merge(&mut target[name.as_str()], value);
        }
    }
}

/// A time as the API writes it.
pub(super) fn time(seconds: i64) -> String {
    let time = k8s_openapi::jiff::Timestamp::from_second(seconds).unwrap();
    time.to_string()
}
