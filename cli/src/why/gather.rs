//! Asks the cluster, with the rights of whoever calls, for what a verdict may depend on.
//!
//! Only what matters is asked for: of a disk that is done nothing but the disk. A question that is not
//! answered is written down, and the next one is asked, unless nobody answers at all.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, ResourceQuota};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use longshore_crds::names::{annotation as names, object};
use serde::de::DeserializeOwned;

use super::observed::{Observed, Volume, annotation, claim_phase};
use super::{Kind, Why};
use crate::cluster::{Hidden, Reached, Seen, resource};

/// Objects of a list: more than anybody reads about one volume.
const MOST: u32 = 500;

/// Reads it all.
pub(super) async fn gather(why: &Why, reached: &Reached) -> Observed {
    let client = &reached.client;
    let namespace = why.namespace.as_ref().unwrap_or(&reached.namespace);
    let mut seen = Observed {
        kind: why.kind,
        namespace: namespace.clone(),
        name: why.name.clone(),
        now: Timestamp::now(),
        server: reached.address.clone(),
        ..Observed::default()
    };
    let volumes: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), namespace, &resource("DataVolume"));
    if why.kind == Kind::DataVolume {
        seen.volume = volume(&volumes, &why.name).await;
        if let Some(Hidden::Unreachable(_) | Hidden::Unknown) = seen.volume.hidden() {
            return seen;
        }
    }
    seen.claim = get(client, namespace, &why.name).await;
    if let Some(Hidden::Unreachable(_) | Hidden::Unknown) = seen.claim.hidden() {
        return seen;
    }
    if why.kind == Kind::Claim
        && let Some(owner) = seen.claim.there().and_then(|claim| owner(&claim.metadata))
    {
        seen.volume = volume(&volumes, &owner).await;
    }
    let done = |volume: &Volume| volume.phase() == "Succeeded";
    if seen.volume.there().is_some_and(done) {
        return seen;
    }
    workers(&mut seen, client).await;
    surroundings(&mut seen, client).await;
    seen
}

async fn volume(volumes: &Api<DynamicObject>, name: &str) -> Seen<Volume> {
    let answer = volumes.get_opt(name).await;
    answer.map(|found| found.map(Volume::of)).into()
}

/// The volume that a claim belongs to.
fn owner(meta: &ObjectMeta) -> Option<String> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let mut owners = owners.iter();
    let owner =
        owners.find(|owner| owner.kind == "DataVolume" && owner.controller == Some(true))?;
    Some(owner.name.clone())
}

/// What fills the claim, and what was told about it.
async fn workers(seen: &mut Observed, client: &Client) {
    let namespace = seen.namespace.clone();
    let mut uids: Vec<String> = Vec::new();
    uids.extend(seen.volume.there().and_then(|it| it.meta.uid.clone()));
    if let Some(claim) = seen.claim.there().cloned() {
        if let Some(prime) = prime(&claim) {
            seen.prime = get(client, &namespace, &prime).await;
        }
        let filled = seen.prime.there().unwrap_or(&claim);
        let noted = annotation(&filled.metadata, names::IMPORT_POD);
        let name = filled.metadata.name.as_deref().unwrap_or_default();
        let pod = noted.map_or_else(|| object::importer(name), str::to_owned);
        uids.extend(filled.metadata.uid.clone());
        uids.extend(claim.metadata.uid.clone());
        seen.pod = get(client, &namespace, &pod).await;
        uids.extend(seen.pod.there().and_then(|pod| pod.metadata.uid.clone()));
        if claim_phase(&claim) != "Bound" || claim.metadata.deletion_timestamp.is_some() {
            seen.users = users(client, &namespace, &seen.name).await;
        }
    }
    uids.sort_unstable();
    uids.dedup();
    seen.events = events(client, &namespace, &uids).await;
}

/// The claim that is filled in the place of another one, if that is how it is done.
fn prime(claim: &PersistentVolumeClaim) -> Option<String> {
    if let Some(name) = annotation(&claim.metadata, names::PRIME) {
        return Some(name.to_owned());
    }
    let source = claim.spec.as_ref()?.data_source_ref.as_ref()?;
    let ours = source.api_group.as_deref() == Some("cdi.kubevirt.io");
    let uid = claim.metadata.uid.as_deref()?;
    ours.then(|| format!("prime-{uid}"))
}

async fn events(client: &Client, namespace: &str, uids: &[String]) -> Seen<Vec<Event>> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let mut all = Vec::new();
    for uid in uids {
        let about = ListParams::default()
            .fields(&format!("involvedObject.uid={uid}"))
            .limit(MOST);
        match api.list(&about).await {
            Ok(found) => all.extend(found.items),
            Err(error) => return Seen::Hidden(crate::cluster::hidden(&error)),
        }
    }
    Seen::There(all)
}

/// Pods that use a claim and have not ended, but for those that fill it.
async fn users(client: &Client, namespace: &str, claim: &str) -> Seen<Vec<String>> {
    let pods: Seen<Vec<Pod>> = list(Api::namespaced(client.clone(), namespace)).await;
    match pods {
        Seen::There(pods) => Seen::There(
            pods.iter()
                .filter(|pod| uses(pod, claim))
                .filter_map(|pod| pod.metadata.name.clone())
                .filter(|name| *name != object::importer(claim))
                .collect(),
        ),
        Seen::Hidden(why) => Seen::Hidden(why),
        Seen::Absent | Seen::NotAsked => Seen::NotAsked,
    }
}

fn uses(pod: &Pod, claim: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return false;
    }
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    volumes.unwrap_or_default().iter().any(|volume| {
        let named = volume.persistent_volume_claim.as_ref();
        named.is_some_and(|named| named.claim_name == claim)
    })
}

/// The rest of the cluster, as far as it may have to do with it.
async fn surroundings(seen: &mut Observed, client: &Client) {
    let bound = |claim: &PersistentVolumeClaim| claim_phase(claim) == "Bound";
    if !seen.claim.there().is_some_and(bound) {
        seen.classes = list(Api::all(client.clone())).await;
    }
    let quotas: Seen<Vec<ResourceQuota>> =
        list(Api::namespaced(client.clone(), &seen.namespace)).await;
    seen.quotas = quotas;
    let home = object::NAMESPACE;
    seen.lease = get::<Lease>(client, home, object::LEASE).await;
    seen.deployment = get::<Deployment>(client, home, "cdi-deployment").await;
    let installations: Api<DynamicObject> = Api::all_with(client.clone(), &resource("CDI"));
    seen.installation = match list(installations).await {
        Seen::There(all) => Seen::There(
            all.iter()
                .filter_map(|one| one.data.get("status")?.get("conditions").cloned())
                .filter_map(|conditions| serde_json::from_value(conditions).ok())
                .flat_map(|conditions: Vec<longshore_crds::Condition>| conditions)
                .collect(),
        ),
        Seen::Hidden(why) => Seen::Hidden(why),
        Seen::Absent | Seen::NotAsked => Seen::NotAsked,
    };
}

async fn get<K>(client: &Client, namespace: &str, name: &str) -> Seen<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.get_opt(name).await.into()
}

async fn list<K>(api: Api<K>) -> Seen<Vec<K>>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    match api.list(&ListParams::default().limit(MOST)).await {
        Ok(found) => Seen::There(found.items),
        Err(error) => Seen::Hidden(crate::cluster::hidden(&error)),
    }
}
