//! `longshore purge`: takes the definitions of our kinds, and with them all their objects, off a cluster.
//!
//! Deleting the definition of `DataVolume` makes the cluster collect every claim that a data volume owns,
//! and with them the disks. So this refuses while there is one, and while anybody is at work who could make
//! one: the controller, or upstream's operator. It acts with the rights of whoever calls it, since the
//! controller has none of these.

use std::path::PathBuf;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use longshore_crds::names::object;
use serde_json::json;

use crate::cluster::{Access, block_on, resource};
use crate::failure::Failure;
use crate::output::{Data, say};

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Purge {
    /// How to reach the cluster, if not as `kubectl` does.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Do it, and do not only say what would be done.
    pub(crate) sure: bool,
}

/// Kinds in the order in which they go: first what nothing hangs on, then the one that data hangs on.
const KINDS: [(&str, &str); 7] = [
    ("VolumeImportSource", "volumeimportsources"),
    ("VolumeUploadSource", "volumeuploadsources"),
    ("VolumeCloneSource", "volumeclonesources"),
    ("StorageProfile", "storageprofiles"),
    ("CDIConfig", "cdiconfigs"),
    ("CDI", "cdis"),
    ("DataVolume", "datavolumes"),
];

/// Volumes named in a refusal.
const MOST_NAMED: usize = 5;

pub(crate) fn run(purge: &Purge) -> Result<(), Failure> {
    block_on(purge.run())
}

impl Purge {
    async fn run(&self) -> Result<(), Failure> {
        let client = self.client().await?;
        refuse_if_at_work(&client).await?;
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        let mut there = Vec::new();
        for (kind, plural) in KINDS {
            let name = format!("{plural}.cdi.kubevirt.io");
            let found = definitions.get_opt(&name).await;
            if found.or_fail("read the definition", &name)?.is_some() {
                there.push((kind, plural, name));
            }
        }
        for (kind, plural, _) in &there {
            if *kind == "DataVolume" {
                refuse_if_any(&client, kind, plural).await?;
            }
        }
        if there.is_empty() {
            say("there is nothing to purge");
            return Ok(());
        }
        let mut data = Data::open();
        for (kind, plural, name) in &there {
            if self.sure {
                if *kind == "DataVolume" {
                    // Once more, as late as can be: the others took their time.
                    refuse_if_any(&client, kind, plural).await?;
                } else {
                    let_go(&client, kind, plural).await?;
                }
                let deleted = definitions.delete(name, &DeleteParams::default()).await;
                deleted.or_fail("delete the definition", name)?;
            }
            data.line(&format!("customresourcedefinition/{name}"))?;
        }
        data.finish()?;
        if !self.sure {
            say("nothing was deleted: --yes deletes these definitions and all their objects");
        }
        Ok(())
    }

    async fn client(&self) -> Result<Client, Failure> {
        let access = Access {
            kubeconfig: self.kubeconfig.clone(),
            context: None,
        };
        Ok(access.or_fail().await?.client)
    }
}

/// Whoever is at work could make a volume after we looked, or would make anew what we delete.
async fn refuse_if_at_work(client: &Client) -> Result<(), Failure> {
    let deployments: Api<Deployment> = Api::all(client.clone());
    for (name, advice) in [
        (
            object::OPERATOR,
            "these definitions belong to what it installed",
        ),
        (
            "cdi-deployment",
            "delete the installation first: kubectl delete -f deploy/longshore.yaml",
        ),
    ] {
        let named = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = deployments.list(&named).await;
        let found = found.or_fail("look for the deployment", name)?;
        if let Some(deployment) = found.items.first() {
            let namespace = deployment.namespace().unwrap_or_default();
            return Err(Failure::Purge {
                why: format!("the deployment {namespace}/{name} is there: {advice}"),
            });
        }
    }
    Ok(())
}

async fn refuse_if_any(client: &Client, kind: &str, plural: &str) -> Result<(), Failure> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(kind));
    let volumes = match api.list_metadata(&ListParams::default()).await {
        // Another one who purges was faster.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        outcome => outcome.or_fail("list", plural)?.items,
    };
    if volumes.is_empty() {
        return Ok(());
    }
    let mut names: Vec<String> = volumes
        .iter()
        .take(MOST_NAMED)
        .map(|volume| {
            format!(
                "{}/{}",
                volume.namespace().unwrap_or_default(),
                volume.name_any()
            )
        })
        .collect();
    if volumes.len() > MOST_NAMED {
        names.push("...".to_owned());
    }
    Err(Failure::Purge {
        why: format!(
            "there are still {} DataVolumes present ({}), and their claims and disks would go with them: delete them first, with --cascade=orphan where the claim is to stay",
            volumes.len(),
            names.join(", ")
        ),
    })
}

/// Nobody is left who would take finalizers away.
async fn let_go(client: &Client, kind: &str, plural: &str) -> Result<(), Failure> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(kind));
    let objects = api.list(&ListParams::default()).await;
    for object in objects.or_fail("list", plural)?.items {
        if object.finalizers().is_empty() {
            continue;
        }
        let free = json!({"metadata": {"uid": object.metadata.uid, "finalizers": null}});
        let name = object.name_any();
        let (params, free) = (PatchParams::default(), Patch::Merge(free));
        let freed = api.patch(&name, &params, &free).await;
        freed.or_fail("free", &format!("{kind} {name}"))?;
    }
    Ok(())
}

/// Says what was tried when it fails.
trait OrFail<T> {
    fn or_fail(self, action: &str, what: &str) -> Result<T, Failure>;
}

impl<T> OrFail<T> for Result<T, kube::Error> {
    fn or_fail(self, action: &str, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::Purge {
            why: format!("could not {action} {what}: {error}"),
        })
    }
}
