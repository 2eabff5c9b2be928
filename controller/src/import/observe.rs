//! What a plan depends on: shown by watches, or fetched.
//!
//! Where something is to be made or ended the claim and its pod are read anew: what a watch brings may be older
//! than what was written since, and to a claim that seems not to be filled its disk would be written once more.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::runtime::reflector::ObjectRef;
use longshore_crds::names::{annotation, object};

use super::plan::{Observed, belongs, is_kept, is_left_over};
use super::pod::is_held;
use super::source::lacks_vddk;
use crate::checkpoint;
use crate::claim::{Claim as _, about, age, controller};
use crate::context::Context;
use crate::custom::DATA_VOLUME;
use crate::error::{Error, Result, Trying as _};

/// A pod that has not started by then is asked about.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything about `seen` as watches have shown it; `None` if that is not all that matters.
pub(super) async fn glance(
    context: &Context,
    seen: &PersistentVolumeClaim,
    now: Timestamp,
) -> Option<Observed> {
    let namespace = seen.metadata.namespace.as_deref().unwrap_or_default();
    let names = pod_names(seen);
    let mut shown = names.iter().filter_map(|name| {
        let place = ObjectRef::new(name).within(namespace);
        context.pods.get(&place)
    });
    let pod = shown.next().map(|pod| Pod::clone(&pod));
    let mut observed = begun(context, seen.clone(), pod);
    let claim = &observed.claim;
    let is_wanted = !claim.is_filled() && !claim.is_ending();
    match &observed.pod {
        Some(pod) if is_held(pod) => return None,
        None if is_wanted && lacks_vddk(claim) => return None,
        Some(_) => follow(context, &mut observed, now).await,
        // Whether its volume remembers that it was filled is asked before a pod is made.
        None if is_wanted => look_around(context, &mut observed, &names),
        None => {}
    }
    Some(observed)
}

/// Everything about `seen` as it is; `None` if it is there no more.
pub(super) async fn observe(
    context: &Context,
    seen: &PersistentVolumeClaim,
    now: Timestamp,
) -> Result<Option<Observed>> {
    let namespace = seen.metadata.namespace.as_deref().unwrap_or_default();
    let about = about(seen);
    let Some(claim) = context.anew(seen).await? else {
        return Ok(None);
    };
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let mut pod = None;
    let names = pod_names(&claim);
    for name in &names {
        let found = pods.get_opt(name).await;
        pod = found.trying("read the pod of", &about)?;
        if pod.is_some() {
            break;
        }
    }
    let mut observed = begun(context, claim, pod);
    let claim = &observed.claim;
    let is_wanted = !claim.is_filled() && !claim.is_ending();
    if is_wanted && observed.pod.is_none() && lacks_vddk(claim) {
        observed.vddk = vddk_image(context).await?;
    }
    match &observed.pod {
        Some(pod) if is_held(pod) => {
            observed.users = users_beside(context, claim, pod).await?;
        }
        Some(_) => follow(context, &mut observed, now).await,
        // Who else is there matters only until the pod may run: afterwards it is too late to ask.
        None if is_wanted => {
            let Some(was_filled) = was_filled(context, claim).await? else {
                return Ok(None);
            };
            observed.was_filled = was_filled;
            look_around(context, &mut observed, &names);
        }
        None => {}
    }
    Ok(Some(observed))
}

/// What is known with the claim and its pod.
fn begun(context: &Context, claim: PersistentVolumeClaim, pod: Option<Pod>) -> Observed {
    // One that is kept after what it did does not stand in the way of the next.
    let done = |pod: &Pod| {
        belongs(pod, &claim) && is_left_over(&claim, pod) && is_kept(&claim) && !claim.is_filled()
    };
    Observed {
        pod: pod.filter(|pod| !done(pod)),
        claim,
        trouble: None,
        heard: None,
        users: Vec::new(),
        binds_late: false,
        honors_first_consumer: context.installation().honors_first_consumer(),
        was_filled: false,
        vddk: None,
        wait: None,
    }
}

/// How the pod does.
async fn follow(context: &Context, observed: &mut Observed, now: Timestamp) {
    let Some(pod) = &observed.pod else {
        return;
    };
    match phase(pod) {
        Some("Running") => {
            let address = pod.status.as_ref().and_then(|it| it.pod_ip.as_deref());
            if let (Some(scraper), Some(address)) = (&context.scraper, address) {
                observed.heard = scraper.read(address).await;
            }
        }
        Some("Succeeded" | "Failed") => {}
        _ if age(&pod.metadata, now) < PATIENCE => {}
        _ => observed.trouble = context.troubles.of(&pod.metadata),
    }
}

/// What may keep a pod from being made.
fn look_around(context: &Context, observed: &mut Observed, names: &[String]) {
    let claim = &observed.claim;
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    // Those that were just looked for are not there, whatever was shown last.
    observed.users = context.users.of(namespace, claim.named(), names);
    if !claim.is_bound() {
        observed.binds_late = binds_late(context, claim);
    }
}

/// The image with VMware's library that an administrator named for all.
async fn vddk_image(context: &Context) -> Result<Option<String>> {
    let (home, name) = (&context.settings.namespace, object::VDDK_CONFIG);
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), home);
    let about = format!("ConfigMap {home}/{name} with the image of VMware's library");
    let found = maps.get_opt(name).await.trying("read", &about)?;
    let data = found.and_then(|map| map.data).unwrap_or_default();
    let image = data.get(object::VDDK_CONFIG_KEY).map(|text| text.trim());
    Ok(image.filter(|image| !image.is_empty()).map(str::to_owned))
}

/// The names that its pod can have: that of what it is to do now, and that of what was begun.
fn pod_names(claim: &PersistentVolumeClaim) -> Vec<String> {
    let now = checkpoint::pod_name(claim);
    let begun = claim.annotation(annotation::IMPORT_POD).filter(|name| {
        let mut bytes = name.bytes();
        // Whoever annotates a claim shall not name other things.
        *name != now
            && name.starts_with(object::IMPORTER_PREFIX)
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
    });
    let begun = begun.map(str::to_owned);
    [Some(now), begun].into_iter().flatten().collect()
}

/// Pods besides the importer's own that use the claim and have not ended: all that were made before it, and
/// of those that came later what is known.
async fn users_beside(
    context: &Context,
    claim: &PersistentVolumeClaim,
    pod: &Pod,
) -> Result<Vec<String>> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let users = context.users.beside(pod, namespace, claim.named());
    users.await.ok_or_else(|| Error::NotShown {
        pod: format!(
            "{namespace}/{}",
            pod.metadata.name.as_deref().unwrap_or_default()
        ),
    })
}

fn binds_late(context: &Context, claim: &PersistentVolumeClaim) -> bool {
    let class = context.class(claim.class());
    class.is_some_and(|class| class.binds_late)
}

/// Whether the volume that controls the claim remembers that it was filled.
/// `None` if that is gone: then the claim goes too, and nobody knows whether there is a disk in it.
async fn was_filled(context: &Context, claim: &PersistentVolumeClaim) -> Result<Option<bool>> {
    let owner = controller(&claim.metadata).filter(|owner| owner.kind == "DataVolume");
    let Some(owner) = owner else {
        return Ok(Some(false));
    };
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let volumes = DATA_VOLUME.api_in(&context.client, namespace);
    let volume = volumes.get_opt(&owner.name).await;
    let volume = volume.trying("read the volume of", &about(claim))?;
    let same = volume.filter(|volume| volume.metadata.uid.as_ref() == Some(&owner.uid));
    Ok(same.map(|volume| {
        let known = volume.metadata.annotations.unwrap_or_default();
        known.get(annotation::FILLED_CLAIM).map(String::as_str) == Some(claim.uid())
    }))
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}
