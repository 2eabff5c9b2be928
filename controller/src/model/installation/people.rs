//! What people do to a cluster, and another operator.

use longshore_crds::names::{annotation, object};
use serde_json::{Value, json};

use crate::model::server::{Store, key, text};

/// What is known of a class's provisioner.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sort {
    Recognized,
    Unknown,
    /// It makes no volumes: people do.
    Manual,
}

/// Something that happens besides the controllers. Names are one of two.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Class(bool, Sort),
    DeleteClass(bool),
    /// A class is the default one, or is no more.
    Default(bool),
    /// A volume that somebody made by hand, of a class.
    Volume(bool),
    DeleteVolume,
    SnapshotClass(bool),
    /// A profile before its class, or for none.
    Profile(bool),
    /// Its spec says what volumes can do, or does no more.
    EditProfile(bool, bool),
    /// Its own smallest claim, which is not ours.
    SmallestClaim(bool),
    DeleteProfile(bool),
    /// With settings or without, and whether volumes keep it.
    Installation(bool, bool, bool),
    EditSettings(bool, u8),
    /// Somebody takes the mark away that says where settings are written.
    EditAuthority(bool),
    EditStrategy(bool),
    /// Somebody else's finalizer, or it goes.
    Finalizer(bool),
    DeleteInstallation(bool),
    EditConfiguration(u8),
    DeleteConfiguration,
    DataVolume(bool),
    /// Another operator is deployed, at rest, or gone.
    Operator(Option<bool>),
    /// Somebody else has the lease, or gives it up.
    Lease(bool),
}

/// Something that people call one or the other.
fn class_name(second: bool) -> &'static str {
    if second { "slow" } else { "fast" }
}

fn cdi_name(second: bool) -> &'static str {
    if second { "mine" } else { object::CDI }
}

impl Store {
    /// Does it.
    pub(super) fn step(&mut self, step: Step) {
        let store = self;
        match step {
            Step::Operator(None) => store.remove(&key("deployments", object::OPERATOR), false),
            Step::Operator(Some(runs)) => {
                store.remove(&key("deployments", object::OPERATOR), false);
                store.have(
                    "deployments",
                    &json!({
                        "metadata": {"name": object::OPERATOR},
                        "spec": {"replicas": u8::from(runs), "selector": {}, "template": {}},
                    }),
                );
            }
            Step::Lease(theirs) => {
                let name = object::LEASE;
                store.have("leases", &json!({"metadata": {"name": name}, "spec": {}}));
                store.change(&key("leases", name), |lease| {
                    if theirs {
                        lease["spec"] = json!({
                            "holderIdentity": "upstream", "leaseDurationSeconds": 3600,
                            "renewTime": "2026-11-22T00:00:00.000000Z",
                        });
                    } else if text(lease, "/spec/holderIdentity") == "upstream" {
                        lease["spec"] = json!({});
                    }
                });
            }
            other => store.step_of_installations(other),
        }
    }

    fn step_of_installations(&mut self, step: Step) {
        let store = self;
        match step {
            Step::Installation(at, says, blocks) => {
                let mut spec = json!({});
                if says {
                    spec["config"] = settings(0);
                }
                if blocks {
                    spec["uninstallStrategy"] = json!("BlockUninstallIfWorkloadsExist");
                }
                let labels = json!({"app.kubernetes.io/part-of": cdi_name(at), "keep": "me"});
                let metadata = json!({"name": cdi_name(at), "labels": labels});
                store.have("cdis", &json!({"metadata": metadata, "spec": spec}));
            }
            Step::EditSettings(at, which) => store.change(&key("cdis", cdi_name(at)), |cdi| {
                cdi["spec"]["config"] = settings(which);
            }),
            Step::EditAuthority(at) => store.change(&key("cdis", cdi_name(at)), |cdi| {
                cdi["metadata"]["annotations"] = json!({"keep": "me"});
            }),
            Step::EditStrategy(at) => store.change(&key("cdis", cdi_name(at)), |cdi| {
                let strategy = &mut cdi["spec"]["uninstallStrategy"];
                *strategy = json!(match strategy.as_str() {
                    Some("BlockUninstallIfWorkloadsExist") => "RemoveWorkloads",
                    _ => "BlockUninstallIfWorkloadsExist",
                });
            }),
            Step::Finalizer(at) => store.change(&key("cdis", cdi_name(at)), |cdi| {
                // The server takes no new ones on what is to go.
                if !text(cdi, "/metadata/deletionTimestamp").is_empty() {
                    return;
                }
                let mut all = cdi["metadata"]["finalizers"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let before = all.len();
                all.retain(|one| *one != json!("example.org/keep"));
                if all.len() == before {
                    all.push(json!("example.org/keep"));
                }
                cdi["metadata"]["finalizers"] = Value::Array(all);
            }),
            Step::DeleteInstallation(at) => store.remove(&key("cdis", cdi_name(at)), false),
            Step::EditConfiguration(which) => {
                store.change(&key("cdiconfigs", object::CONFIG), |config| {
                    config["spec"] = settings(which);
                });
            }
            Step::DeleteConfiguration => store.remove(&key("cdiconfigs", object::CONFIG), false),
            Step::DataVolume(true) => {
                store.have("datavolumes", &json!({"metadata": {"name": "dv"}}));
            }
            Step::DataVolume(false) => store.remove(&key("datavolumes", "dv"), false),
            other => store.step_of_classes(other),
        }
    }

    fn step_of_classes(&mut self, step: Step) {
        let store = self;
        match step {
            Step::Class(at, sort) => store.have("storageclasses", &class(class_name(at), sort)),
            Step::DeleteClass(at) => store.remove(&key("storageclasses", class_name(at)), false),
            Step::Default(at) => store.change(&key("storageclasses", class_name(at)), |class| {
                let mark = &mut class["metadata"]["annotations"][crate::context::IS_DEFAULT];
                *mark = json!(if *mark == json!("true") {
                    "false"
                } else {
                    "true"
                });
            }),
            Step::Volume(at) => store.have(
                "persistentvolumes",
                &json!({
                    "metadata": {"name": "v"},
                    "spec": {"storageClassName": class_name(at), "accessModes": ["ReadWriteMany"]},
                }),
            ),
            Step::DeleteVolume => store.remove(&key("persistentvolumes", "v"), false),
            Step::SnapshotClass(is) => {
                let name = "snapshots";
                let driver = json!({"metadata": {"name": name}, "driver": "rancher.io/local-path"});
                if is {
                    store.have("volumesnapshotclasses", &driver);
                } else {
                    store.remove(&key("volumesnapshotclasses", name), false);
                }
            }
            Step::Profile(at) => store.have(
                "storageprofiles",
                &json!({
                    "metadata": {"name": class_name(at), "annotations": {"keep": "me"}},
                    "spec": {"cloneStrategy": "copy"},
                }),
            ),
            Step::EditProfile(at, says) => {
                store.change(&key("storageprofiles", class_name(at)), |profile| {
                    profile["spec"] = if says {
                        json!({"claimPropertySets": sets()})
                    } else {
                        json!({})
                    };
                });
            }
            Step::SmallestClaim(at) => {
                store.change(&key("storageprofiles", class_name(at)), |profile| {
                    profile["metadata"]["annotations"][annotation::SMALLEST_CLAIM] = json!("3Gi");
                });
            }
            Step::DeleteProfile(at) => store.remove(&key("storageprofiles", class_name(at)), false),
            _ => {}
        }
    }

    /// Creates an object unless there is one of its name.
    fn have(&mut self, plural: &str, object: &Value) {
        drop(self.create(plural, object));
    }
}

fn class(name: &str, sort: Sort) -> Value {
    let provisioner = match sort {
        Sort::Recognized => "rancher.io/local-path",
        Sort::Unknown => "example.org/unknown",
        Sort::Manual => crate::known::NO_PROVISIONER,
    };
    json!({"metadata": {"name": name}, "provisioner": provisioner})
}

/// Of several.
fn settings(which: u8) -> Value {
    match which % 4 {
        0 => json!({"featureGates": ["HonorWaitForFirstConsumer"]}),
        1 => json!({"filesystemOverhead": {"global": "0.1", "storageClass": {"fast": "0"}}}),
        2 => json!({"podResourceRequirements": {"limits": {"cpu": "2"}}, "preallocation": true}),
        _ => json!({}),
    }
}

/// What somebody knows better than we do.
fn sets() -> Value {
    json!([{"accessModes": ["ReadWriteMany"], "volumeMode": "Block"}])
}
