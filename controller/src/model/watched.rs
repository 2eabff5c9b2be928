//! What of the controllers' writes is not theirs to make.

use longshore_crds::names::{annotation, label, object};
use serde_json::{Map, Value, json};

use super::server::{Key, Store, is_held, is_importer, key, noted, text, used_by};

/// What the names of copies of a proxy's authorities begin with.
const COPY: &str = "import-proxy-cm-";

impl Store {
    pub(super) fn watch_create(&mut self, plural: &str, body: &Value) {
        if self.is_others && plural != "events" {
            let fault = format!("an object of {plural} was made in somebody else's cluster");
            self.faults.push(fault);
        }
        let name = text(body, "/metadata/name");
        match plural {
            "events" | "leases" | "persistentvolumeclaims" | "volumeimportsources" => {}
            "cdis" | "cdiconfigs" | "storageprofiles" => {
                let wanted = match plural {
                    "cdis" => name == object::CDI && !self.has("cdis"),
                    "cdiconfigs" => name == object::CONFIG,
                    _ => self.objects.contains_key(&key("storageclasses", name)),
                };
                if self.seen_fresh && !wanted {
                    let fault = format!("{name} of {plural} was made, which nobody wanted");
                    self.faults.push(fault);
                }
            }
            "pods" => {
                let owner = text(body, "/metadata/ownerReferences/0/name").to_owned();
                let uid = text(body, "/metadata/ownerReferences/0/uid").to_owned();
                let name = text(body, "/metadata/name").to_owned();
                for ((kind, other), pod) in &self.objects {
                    let is_shown = !self.shown.lags;
                    if is_shown
                        && kind == "pods"
                        && *other != name
                        && used_by(pod).contains(&owner.as_str())
                    {
                        self.faults
                            .push(format!("{name} was made beside {other} on {owner}"));
                    }
                }
                let importers = self.objects.iter().filter(|((kind, _), pod)| {
                    let ended = ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"));
                    let role = &pod["metadata"]["labels"][label::ROLE];
                    kind == "pods" && !ended && *role == json!(label::ROLE_IMPORTER)
                });
                if self.most.is_some_and(|most| importers.count() >= most) {
                    self.faults
                        .push(format!("{name} was made beyond the limit"));
                }
                if body["spec"]["schedulingGates"] != json!([{"name": object::SOLE_USER_GATE}]) {
                    self.faults.push(format!("{name} was made and is not held"));
                }
                let claim = self.objects.get(&key("persistentvolumeclaims", &owner));
                let claim = claim.filter(|claim| text(claim, "/metadata/uid") == uid);
                let Some(claim) = claim else {
                    self.faults.push(format!("{name} was made for no claim"));
                    return;
                };
                let volume = text(claim, "/metadata/ownerReferences/0/kind") == "DataVolume";
                let knows = noted(claim, annotation::POD_PHASE) == Some("Succeeded");
                let stages = self.stages.get(&uid).map_or(&[][..], Vec::as_slice);
                if let Some(checkpoint) = noted(body, annotation::CHECKPOINT) {
                    let before = noted(claim, annotation::CHECKPOINT_PREVIOUS).unwrap_or_default();
                    let last = stages.last().map_or("", String::as_str);
                    let again = stages.iter().any(|stage| stage == checkpoint) || last != before;
                    if again && !self.overlooked.contains(&uid) {
                        self.faults
                            .push(format!("{name} was made for {checkpoint} after {stages:?}"));
                    }
                }
                let is_known = self.filled.contains(&uid) && !self.overlooked.contains(&uid);
                if is_known && (volume || knows) {
                    self.faults
                        .push(format!("{name} was made for a disk that is filled"));
                }
            }
            "configmaps" => {
                let pod = self.owner_of(body);
                let waits = pod.is_some_and(|pod| is_importer(pod) && is_held(pod));
                if !waits || !name.starts_with(COPY) {
                    let fault = format!("{name} was made, and no pod waits for it");
                    self.faults.push(fault);
                }
            }
            other => self.faults.push(format!("an object of {other} was made")),
        }
    }

    /// A pod may be let go unless somebody used its claim before it came.
    fn watch_release(&mut self, name: &str, body: &Value) {
        let Some(pod) = self.objects.get(&key("pods", name)) else {
            return;
        };
        let born = |pod: &Value| self.born.get(text(pod, "/metadata/uid"));
        let claim = text(pod, "/metadata/ownerReferences/0/name");
        let ours = pod["metadata"]["labels"][label::ROLE] == json!(label::ROLE_IMPORTER);
        let earlier = self.objects.iter().find(|((kind, other), it)| {
            kind == "pods" && other != name && used_by(it).contains(&claim) && born(it) < born(pod)
        });
        let fault = if !ours || text(body, "/metadata/uid").is_empty() {
            "is not ours to let go".to_owned()
        } else if *body != json!({"metadata": body["metadata"], "spec": {"schedulingGates": []}}) {
            format!("was changed: {body}")
        } else if let Some(((_, other), _)) = earlier {
            format!("was let go beside {other} on {claim}")
        } else if let Some(map) = self.lacks(pod) {
            format!("was let go without its {map}")
        } else {
            return;
        };
        self.faults.push(format!("{name} {fault}"));
    }

    /// What a pod mounts and nobody has made for it.
    fn lacks(&self, pod: &Value) -> Option<String> {
        let volumes = pod["spec"]["volumes"].as_array().map(Vec::as_slice);
        let maps = volumes
            .unwrap_or_default()
            .iter()
            .map(|volume| text(volume, "/configMap/name"))
            .filter(|map| !map.is_empty());
        let mut lacks = maps.filter(|map| {
            let map = self.objects.get(&key("configmaps", map));
            map.and_then(|map| self.owner_of(map)) != Some(pod)
        });
        lacks.next().map(str::to_owned)
    }

    /// Who an object goes with.
    fn owner_of(&self, object: &Value) -> Option<&Value> {
        let uid = text(object, "/metadata/ownerReferences/0/uid");
        let mut all = self.objects.values();
        all.find(|it| text(it, "/metadata/uid") == uid)
    }

    pub(super) fn watch_patch(&mut self, key: &Key, sub: Option<&str>, body: &Value) {
        if key.0 == "pods" && sub.is_none() {
            self.watch_release(&key.1, body);
            return;
        }
        let mut fault = |what: &str| self.faults.push(format!("{} {}: {what}", key.0, key.1));
        let fields: Vec<&str> = keys(body);
        match (key.0.as_str(), sub) {
            ("events", _) | ("datavolumes", Some("status")) => return,
            ("datavolumes", None) => {}
            ("cdis" | "cdiconfigs" | "storageprofiles", _) => {
                if text(body, "/metadata/uid").is_empty() {
                    fault("was changed, whichever object of the name it is");
                }
                // What was changed is seen when it was.
                return;
            }
            ("persistentvolumeclaims", None) => {
                let claim = self.objects.get(key);
                let asks = claim.is_some_and(|claim| {
                    noted(claim, annotation::IMPORT_SOURCE)
                        .or_else(|| noted(claim, annotation::IMPORT_ENDPOINT))
                        .is_some()
                        || text(claim, "/metadata/ownerReferences/0/kind") == "DataVolume"
                        || text(claim, "/spec/dataSourceRef/kind") == "VolumeImportSource"
                });
                let says_filled = noted(body, annotation::POD_PHASE) == Some("Succeeded");
                let is_empty = claim.is_some_and(|claim| {
                    claim["spec"]["dataSourceRef"].is_object()
                        && !self.filled.contains(text(claim, "/metadata/uid"))
                });
                if says_filled && is_empty {
                    fault("was called filled, and is not");
                }
                let adopts = body["metadata"].get("ownerReferences").is_some();
                let volume = self.objects.get(&self::key("datavolumes", &key.1));
                let allowed = volume.is_some_and(|volume| {
                    noted(volume, annotation::ALLOW_ADOPTION) == Some("true")
                });
                if !(asks || adopts && allowed) {
                    fault("a claim of somebody else was changed");
                }
                let uid = claim.map_or("", |claim| text(claim, "/metadata/uid"));
                // Of a disk that is copied in stages, the first one counts.
                let filled = self.filled.contains(uid) || self.stages.contains_key(uid);
                let told = noted(body, annotation::POD_PHASE) == Some("Succeeded");
                // Who has not seen yet that it was adopted does so again, and is refused for the version.
                let again = adopts
                    && claim.is_some_and(|claim| {
                        text(claim, "/metadata/ownerReferences/0/kind") == "DataVolume"
                    });
                if told && asks && !filled && !again {
                    fault("was said to be filled, and is not");
                }
                if told {
                    self.overlooked.remove(uid);
                }
            }
            ("persistentvolumes", None) => {
                self.watch_rebind(key, body);
                return;
            }
            ("volumeimportsources", None) => {
                let source = self.objects.get(key);
                let ours = source.is_some_and(|source| {
                    text(source, "/metadata/ownerReferences/0/kind") == "DataVolume"
                        && text(source, "/metadata/uid") == text(body, "/metadata/uid")
                });
                let listed = ["checkpoints", "finalCheckpoint", "targetClaim"];
                let stages = keys(&body["spec"])
                    .iter()
                    .all(|field| listed.contains(field));
                if !(ours && stages) {
                    fault("was changed, and not only in its stages");
                }
                return;
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

    /// A volume is handed from the claim that it was filled for to the one in whose place that was.
    fn watch_rebind(&mut self, key: &Key, body: &Value) {
        let (from, to) = {
            let holder = |volume: &Value| text(volume, "/spec/claimRef/uid").to_owned();
            (
                self.objects.get(key).map(holder).unwrap_or_default(),
                holder(body),
            )
        };
        let mut claims = self.objects.values();
        let prime = claims.find(|object| text(object, "/metadata/uid") == from);
        let owner = prime.map(|prime| text(prime, "/metadata/ownerReferences/0/uid"));
        // Of one that was copied in stages, all were.
        let whole = self.filled.contains(&from)
            || self.stages.contains_key(&from)
                && prime.is_some_and(|prime| noted(prime, annotation::CHECKPOINTS_DONE).is_some());
        if !whole || owner != Some(to.as_str()) {
            self.faults
                .push(format!("{} was taken from {from} and given to {to}", key.1));
        }
        if text(body, "/metadata/resourceVersion").is_empty() {
            self.faults
                .push(format!("{} was given away blindly", key.1));
        }
        self.filled.insert(to);
    }

    pub(super) fn watch_replace(&mut self, key: &Key) {
        if key.0 != "leases" {
            self.faults
                .push(format!("{} {} was replaced", key.0, key.1));
        }
    }

    /// Of installations, the configuration and profiles, what was written besides what is ours.
    pub(super) fn watch_change(&mut self, key: &Key, before: &Value, after: &Value) {
        let others = match key.0.as_str() {
            "cdis" if self.is_others => but_for_passive,
            "cdis" => of_installation,
            "cdiconfigs" => of_configuration,
            "storageprofiles" => of_profile,
            _ => return,
        };
        let (old, new) = (others(before, before), others(after, before));
        if old != new {
            let fault = format!("{} {}: {old} became {new}", key.0, key.1);
            self.faults.push(fault);
        }
        if self.is_others && key.0 != "cdis" {
            let fault = format!("{} {}: changed in somebody else's cluster", key.0, key.1);
            self.faults.push(fault);
        }
        let (had, has) = (holds(before), holds(after));
        let blocks = text(before, "/spec/uninstallStrategy") == "BlockUninstallIfWorkloadsExist";
        if had && !has && blocks && self.has("datavolumes") {
            let fault = format!("{} went although there are volumes", key.1);
            self.faults.push(fault);
        }
    }

    pub(super) fn watch_delete(&mut self, key: &Key, body: &Value) {
        let fault = match (key.0.as_str(), self.objects.get(key)) {
            (_, None) => None,
            ("pods", Some(pod)) => {
                let ours = pod["metadata"]["labels"][label::ROLE] == json!(label::ROLE_IMPORTER)
                    && text(pod, "/metadata/ownerReferences/0/kind") == "PersistentVolumeClaim";
                (!ours).then_some("is not ours, and was deleted")
            }
            ("storageprofiles", Some(profile)) => {
                let born = |object: &Value| self.born.get(text(object, "/metadata/uid"));
                let class = self.objects.get(&self::key("storageclasses", &key.1));
                let meant = text(body, "/preconditions/uid");
                if !meant.is_empty() && meant != text(profile, "/metadata/uid") {
                    // The server refuses that: it is about one that was there before.
                    None
                } else if class.is_some_and(|class| born(class) < born(profile)) {
                    Some("was deleted though its class has been there all the time")
                } else if text(body, "/preconditions/uid").is_empty() {
                    Some("was deleted, whichever object of the name it is")
                } else {
                    self.is_others
                        .then_some("was deleted in somebody else's cluster")
                }
            }
            ("persistentvolumeclaims", Some(claim)) => {
                let ours = noted(claim, annotation::POPULATOR_KIND).is_some()
                    && text(claim, "/metadata/ownerReferences/0/kind") == "PersistentVolumeClaim";
                let sure = !text(body, "/preconditions/uid").is_empty();
                (!ours || !sure).then_some("was deleted, and is not only ours")
            }
            ("volumeimportsources", Some(source)) => {
                let ours = text(source, "/metadata/ownerReferences/0/kind") == "DataVolume";
                (!ours).then_some("is somebody's, and was deleted")
            }
            ("configmaps", Some(map)) => {
                let works = self.owner_of(map).is_some_and(|pod| {
                    let ended = ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"));
                    !ended && !is_held(pod)
                });
                let ours = key.1.starts_with(COPY);
                (!ours || works).then_some("is not ours or in use, and was deleted")
            }
            _ => Some("was deleted"),
        };
        if let Some(fault) = fault {
            self.faults.push(format!("{} {} {fault}", key.0, key.1));
        }
    }

    fn has(&self, plural: &str) -> bool {
        self.objects.keys().any(|(kind, _)| kind == plural)
    }
}

/// Whether an installation waits for volumes.
fn holds(cdi: &Value) -> bool {
    let finalizers = cdi["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|all| all.contains(&json!(object::CDI_FINALIZER)))
}

/// Anything but that we do nothing.
fn but_for_passive(cdi: &Value, _: &Value) -> Value {
    let mut cdi = without(cdi, &[("/metadata", &["resourceVersion"])]);
    let conditions = cdi.pointer_mut("/status/conditions");
    if let Some(conditions) = conditions.and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition["type"] != json!("LongshorePassive"));
    }
    // Where nothing is said there may be no place for it.
    let nothing = [json!({}), json!({"conditions": []})];
    if nothing.contains(&cdi["status"]) {
        cdi = without(&cdi, &[("", &["status"])]);
    }
    cdi
}

/// Settings may be brought to where there are none.
fn of_installation(cdi: &Value, before: &Value) -> Value {
    let mut rest = without(
        cdi,
        &[
            ("", &["status"]),
            ("/metadata", &["resourceVersion"]),
            ("/metadata/annotations", &[annotation::CONFIG_AUTHORITY]),
        ],
    );
    if before["spec"]["config"].is_null() {
        rest = without(&rest, &[("/spec", &["config"])]);
    }
    let finalizers = rest.pointer_mut("/metadata/finalizers");
    if let Some(finalizers) = finalizers.and_then(Value::as_array_mut) {
        finalizers.retain(|one| *one != json!(object::CDI_FINALIZER));
    }
    without(&rest, &[])
}

fn of_configuration(config: &Value, _: &Value) -> Value {
    let ours = [("", ["spec", "status"].as_slice()), LABELS, VERSION];
    without(config, &ours)
}

/// How small a claim may be is noted where nothing is.
fn of_profile(profile: &Value, before: &Value) -> Value {
    let noted = [annotation::CRON_ONE_NODE, annotation::CRON_SNAPSHOT_CLASS];
    let ours = [
        ("", ["status"].as_slice()),
        LABELS,
        VERSION,
        ("/metadata/annotations", &noted),
    ];
    let rest = without(profile, &ours);
    if self::noted(before, annotation::SMALLEST_CLAIM).is_some() {
        return rest;
    }
    without(
        &rest,
        &[("/metadata/annotations", &[annotation::SMALLEST_CLAIM])],
    )
}

const VERSION: (&str, &[&str]) = ("/metadata", &["resourceVersion"]);
const LABELS: (&str, &[&str]) = (
    "/metadata/labels",
    &[
        label::APP,
        label::MANAGED_BY,
        label::COMPONENT,
        label::PART_OF,
        label::VERSION,
        label::ROLE,
    ],
);

/// An object without some fields, and without objects and lists that have nothing in them.
fn without(object: &Value, fields: &[(&str, &[&str])]) -> Value {
    let mut rest = object.clone();
    for (place, names) in fields {
        if let Some(place) = rest.pointer_mut(place).and_then(Value::as_object_mut) {
            place.retain(|name, _| !names.contains(&name.as_str()));
        }
    }
    if let Some(metadata) = rest["metadata"].as_object_mut() {
        metadata.retain(|_, value| *value != json!({}) && *value != json!([]));
    }
    if let Some(rest) = rest.as_object_mut() {
        rest.retain(|_, value| *value != json!({}));
    }
    rest
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object();
    object
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect()
}
