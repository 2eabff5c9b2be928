//! What a plan depends on: shown by watches, or fetched.
//!
//! The claim is the one that was shown last. An older one makes a status that is older, which the next one
//! corrects, and its changes carry its version. That there is none is not believed of a watch.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::runtime::reflector::ObjectRef;
use longshore_crds::data_volume::{ClaimSpec, ContentType};
use longshore_crds::names::{annotation, object};
use longshore_crds::volume_source::VolumeImportSourceSpec;

use super::plan::{Observed, Source, is_waited_for};
use super::volume::Volume;
use super::{about, statics};
use crate::claim::{Claim as _, age, controller};
use crate::context::Context;
use crate::custom::{VOLUME_IMPORT_SOURCE, raw};
use crate::error::{Result, Trying as _};

/// A claim that is not bound by then is asked about.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything about `volume`; `None` if the watches have yet to show what we wrote of its claim.
pub(super) async fn observe(
    context: &Context,
    volume: Volume,
    now: Timestamp,
) -> Result<Option<Observed>> {
    let namespace = volume.meta.namespace.clone().unwrap_or_default();
    let about = about(&volume);
    let place = ObjectRef::new(volume.name()).within(&namespace);
    let claim = match context.claims.get(&place) {
        Some(shown) if context.written.is_older(&shown.metadata) => return Ok(None),
        Some(shown) => Some(PersistentVolumeClaim::clone(&shown)),
        None => {
            let client = context.client.clone();
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(client, &namespace);
            let claim = claims.get_opt(volume.name()).await;
            claim.trying("read the claim of", &about)?
        }
    };
    let class = match asked(&volume, claim.as_ref()) {
        Some(Asked::Disk(name)) => context.class_of_disk(name),
        Some(Asked::Any(name)) => context.class(name),
        None => None,
    };
    let installation = context.installation();
    let trouble = match &claim {
        Some(claim) if is_waited_for(claim) && age(&claim.metadata, now) >= PATIENCE => {
            context.troubles.of(&claim.metadata)
        }
        _ => None,
    };
    let mut profile = context.profile(class.as_ref());
    let mut statics = Vec::new();
    if claim.is_none() {
        let is_static = volume.annotation(annotation::CHECK_STATIC_VOLUME).is_some();
        let bare = bare_class(context, &volume).filter(|_| class.is_none());
        if is_static || bare.is_some() {
            let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
            let all = volumes.list(&ListParams::default()).await;
            statics = all.trying("list the volumes for", &about)?.items;
        }
        if let Some((storage, name)) = bare {
            let requests = storage.resources.as_ref().map(|it| &it.requests);
            let least = requests.and_then(|requests| requests.get("storage"));
            let mut free = statics.clone();
            free.retain(|one| {
                let is_taken = one.spec.as_ref().is_some_and(|it| it.claim_ref.is_some());
                !is_taken || statics::is_for(one, &namespace, volume.name())
            });
            profile.sets = statics::sets(&free, name, least);
        }
        statics.retain(|one| is_static && statics::is_for(one, &namespace, volume.name()));
    }
    let source = match &claim {
        Some(claim) => source(context, &volume, claim).await?,
        None => Source::Unread,
    };
    Ok(Some(Observed {
        statics,
        volume,
        claim,
        trouble,
        source,
        profile,
        has_driver: class.as_ref().is_some_and(|class| class.has_driver),
        binds_late: class.is_some_and(|class| class.binds_late)
            && installation.honors_first_consumer(),
        adoption: installation.adopts_claims(),
    }))
}

/// What the volume asks for of a class that is only a name on volumes that are there, if it leaves open how it is
/// used. The watch tells what names there are; of what kind their volumes are it does not keep.
fn bare_class<'a>(context: &Context, volume: &'a Volume) -> Option<(&'a ClaimSpec, &'a str)> {
    let storage = volume.spec.as_ref()?.storage.as_ref()?;
    let name = storage.storage_class_name.as_deref()?;
    let mode = storage.volume_mode.as_deref();
    let is_open =
        storage.access_modes.is_empty() || mode.is_none_or(|mode| mode == "FromStorageProfile");
    let is_known = || name.is_empty() || !context.known.volumes_of(name).is_empty();
    (is_open && is_known()).then_some((storage, name))
}

/// A class by its name, or whichever is the default one of these.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    Any(Option<&'a str>),
    /// Virtual machines' disks have one of their own.
    Disk(Option<&'a str>),
}

/// The class that the claim is of, or will be.
pub(super) fn asked<'a>(
    volume: &'a Volume,
    claim: Option<&'a PersistentVolumeClaim>,
) -> Option<Asked<'a>> {
    if let Some(claim) = claim {
        return Some(Asked::Any(claim.class()));
    }
    let spec = volume.spec.as_ref()?;
    // What is under `pvc` is handed on as it is, and Kubernetes fills in the rest.
    if let Some(claim) = &spec.pvc {
        return Some(Asked::Any(claim.storage_class_name.as_deref()));
    }
    let name = spec.storage.as_ref()?.storage_class_name.as_deref();
    Some(match spec.content_type {
        Some(ContentType::Archive) => Asked::Any(name),
        _ => Asked::Disk(name),
    })
}

/// What a populator fills the volume's own claim from, for as long as that matters.
async fn source(
    context: &Context,
    volume: &Volume,
    claim: &PersistentVolumeClaim,
) -> Result<Source> {
    let name = object::import_source(volume.uid());
    let ours = controller(&claim.metadata).is_some_and(|owner| owner.uid == volume.uid());
    let named = claim.populator().is_some_and(|it| it.name == name);
    // It went when the volume succeeded, and what is lost on the claim does not bring it back.
    let over = volume.has_filled(claim) && volume.status.phase.as_deref() == Some("Succeeded");
    if !ours || !named || over {
        return Ok(Source::Unread);
    }
    let namespace = volume.meta.namespace.as_deref().unwrap_or_default();
    let sources = VOLUME_IMPORT_SOURCE.api_in(&context.client, namespace);
    let found = sources.get_opt(&name).await;
    let found = found.trying("read what fills the claim of", &about(volume))?;
    let Some(source) = found else {
        return Ok(Source::Missing);
    };
    let spec = serde_json::from_value(raw(&source, "spec"));
    // What cannot be read lists nothing.
    let spec: VolumeImportSourceSpec = spec.unwrap_or_default();
    let ends = spec.final_checkpoint == Some(true);
    Ok(Source::There {
        uid: source.metadata.uid.unwrap_or_default(),
        stages: (spec.checkpoints, ends),
    })
}
