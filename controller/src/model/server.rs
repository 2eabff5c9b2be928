//! An API server that keeps its objects in a map, as far as the controllers can tell it from a real one:
//! versions, uids, preconditions, merge patches, finalizers, status apart from the rest.
//!
//! It watches what the controllers do: a write that is not theirs to make is a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use longshore_crds::names::{annotation, label};
use serde_json::{Map, Value, json};

/// Which object: plural of its kind and its name. There is one namespace.
pub(super) type Key = (String, String);

pub(super) const NAMESPACE: &str = "ns";

/// Everything that the cluster knows, and what was seen of the controllers.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) objects: BTreeMap<Key, Value>,
    /// Counts changes.
    pub(super) version: u64,
    made: BTreeMap<Key, u32>,
    /// Writes that the controller may still make before it dies.
    pub(super) life: Option<u32>,
    /// Nobody may make any more pods or claims.
    pub(super) quota_is_used_up: bool,
    /// Claims, by uid, whose disk was filled.
    pub(super) filled: BTreeSet<String>,
    /// What the controllers did and must not.
    pub(super) faults: Vec<String>,
    /// Seconds.
    pub(super) now: i64,
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
        let writes = head.method != Method::GET;
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
            ["namespaces", _, plural, name, sub] => (*plural, Some(*name), Some(*sub)),
            _ => return Err(Refused(404, "NotFound", format!("no such path: {path}"))),
        };
        match (method.as_str(), name) {
            ("GET", Some(name)) => self.get(&key(plural, name)),
            ("GET", None) => Ok(self.list(plural, query)),
            ("POST", None) => {
                self.watch_create(plural, body);
                self.create(plural, body)
            }
            ("PATCH", Some(name)) => {
                let key = key(plural, name);
                self.watch_patch(&key, sub, body);
                self.patch(&key, sub, body)
            }
            ("DELETE", Some(name)) => {
                let key = key(plural, name);
                self.watch_delete(&key);
                self.delete(&key, body)
            }
            _ => Err(Refused(405, "MethodNotAllowed", format!("{method} {path}"))),
        }
    }

    fn get(&self, key: &Key) -> Answer {
        let found = self.objects.get(key).cloned();
        found.ok_or_else(|| Refused(404, "NotFound", format!("{} {} not found", key.0, key.1)))
    }

    fn list(&self, plural: &str, query: &str) -> Value {
        let uid = query
            .split_once("involvedObject.uid%3D")
            .or_else(|| query.split_once("involvedObject.uid="))
            .map(|(_, rest)| rest.split(['%', ',', '&']).next().unwrap_or_default());
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|((kind, _), _)| kind == plural)
            .map(|(_, object)| object)
            .filter(|object| uid.is_none_or(|uid| text(object, "/involvedObject/uid") == uid))
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
        object["metadata"]["uid"] = json!(format!("{plural}-{name}-{count}"));
        object["metadata"]["namespace"] = json!(NAMESPACE);
        object["metadata"]["creationTimestamp"] = json!(time(self.now));
        match plural {
            "persistentvolumeclaims" => {
                object["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
                object["status"] = json!({"phase": "Pending"});
            }
            "pods" => object["status"] = json!({"phase": "Pending"}),
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
            if let Some(body) = body.as_object_mut() {
                body.remove("status");
            }
            merge(&mut next, &body);
        }
        if next != known {
            self.put(key.clone(), next);
        }
        self.get(key)
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

    fn watch_create(&mut self, plural: &str, body: &Value) {
        match plural {
            "events" | "persistentvolumeclaims" => {}
            "pods" => {
                let owner = text(body, "/metadata/ownerReferences/0/name").to_owned();
                let uid = text(body, "/metadata/ownerReferences/0/uid").to_owned();
                let name = text(body, "/metadata/name").to_owned();
                for ((kind, other), pod) in &self.objects {
                    if kind == "pods" && *other != name && used_by(pod).contains(&owner.as_str()) {
                        self.faults
                            .push(format!("{name} was made beside {other} on {owner}"));
                    }
                }
                let claim = self.objects.get(&key("persistentvolumeclaims", &owner));
                let claim = claim.filter(|claim| text(claim, "/metadata/uid") == uid);
                let Some(claim) = claim else {
                    self.faults.push(format!("{name} was made for no claim"));
                    return;
                };
                let volume = text(claim, "/metadata/ownerReferences/0/kind") == "DataVolume";
                let knows = noted(claim, annotation::POD_PHASE) == Some("Succeeded");
                if self.filled.contains(&uid) && (volume || knows) {
                    self.faults
                        .push(format!("{name} was made for a disk that is filled"));
                }
            }
            other => self.faults.push(format!("an object of {other} was made")),
        }
    }

    fn watch_patch(&mut self, key: &Key, sub: Option<&str>, body: &Value) {
        let mut fault = |what: &str| self.faults.push(format!("{} {}: {what}", key.0, key.1));
        let fields: Vec<&str> = keys(body);
        match (key.0.as_str(), sub) {
            ("events", _) | ("datavolumes", Some("status")) => return,
            ("datavolumes", None) => {}
            ("persistentvolumeclaims", None) => {
                let claim = self.objects.get(key);
                let asks = claim.is_some_and(|claim| {
                    noted(claim, annotation::IMPORT_SOURCE)
                        .or_else(|| noted(claim, annotation::IMPORT_ENDPOINT))
                        .is_some()
                        || text(claim, "/metadata/ownerReferences/0/kind") == "DataVolume"
                });
                let adopts = body["metadata"].get("ownerReferences").is_some();
                let volume = self.objects.get(&self::key("datavolumes", &key.1));
                let allowed = volume.is_some_and(|volume| {
                    noted(volume, annotation::ALLOW_ADOPTION) == Some("true")
                });
                if !(asks || adopts && allowed) {
                    fault("a claim of somebody else was changed");
                }
            }
            _ => {
                fault("is not to be changed");
                return;
            }
        }
        if fields.iter().any(|field| *field != "metadata") {
            fault("more than its metadata was changed");
        }
        let annotations = body["metadata"]["annotations"].as_object();
        for name in annotations.into_iter().flat_map(Map::keys) {
            if !name.starts_with("cdi.kubevirt.io/") && !name.starts_with("longshore.dev/") {
                fault("a foreign annotation was changed");
            }
        }
    }

    fn watch_delete(&mut self, key: &Key) {
        let pod = self.objects.get(key).filter(|_| key.0 == "pods");
        let ours = pod.is_none_or(|pod| {
            pod["metadata"]["labels"][label::ROLE] == json!(label::ROLE_IMPORTER)
                && text(pod, "/metadata/ownerReferences/0/kind") == "PersistentVolumeClaim"
        });
        if key.0 != "pods" || !ours {
            self.faults.push(format!("{} {} was deleted", key.0, key.1));
        }
    }
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object();
    object
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect()
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
