//! What a plan depends on, fetched.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use longshore_crds::names::{annotation, object};

use super::plan::{Observed, Source, is_prime_of};
use crate::checkpoint;
use crate::claim::{Claim as _, about, age};
use crate::context::Context;
use crate::custom::{VOLUME_IMPORT_SOURCE, raw};
use crate::error::{Result, Trying as _};
use crate::event;

/// What is not there or not bound by then is asked about, or told.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Everything about `seen`; `None` if it is there no more.
pub(super) async fn observe(
    context: &Context,
    seen: &PersistentVolumeClaim,
    now: Timestamp,
) -> Result<Option<Observed>> {
    let namespace = seen.metadata.namespace.as_deref().unwrap_or_default();
    let about = about(seen);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let claim = claims.get_opt(seen.named()).await.trying("read", &about)?;
    let Some(claim) = claim.filter(|claim| claim.metadata.uid == seen.metadata.uid) else {
        return Ok(None);
    };
    let prime = claims.get_opt(&object::prime(claim.uid())).await;
    let prime = prime.trying("read the prime claim of", &about)?;
    let installation = context.installation();
    let mut observed = Observed {
        class: claim.class().and_then(|name| context.class(Some(name))),
        migrated_to_driver: claim
            .annotation(annotation::MIGRATED_TO)
            .is_some_and(|driver| context.known.has_driver(driver)),
        honors_first_consumer: installation.honors_first_consumer(),
        preallocates: installation.preallocates(),
        claim,
        prime,
        source: Source::Unread,
        volume: None,
        trouble: None,
    };
    let claim = &observed.claim;
    if claim.is_ending() {
        return Ok(Some(observed));
    }
    let prime = observed.prime.as_ref();
    let prime = prime.filter(|prime| is_prime_of(prime, claim));
    let volume = match prime {
        _ if claim.is_bound() => claim.volume().filter(|_| !claim.is_filled()),
        Some(prime) if prime.is_filled() => prime.volume(),
        _ => None,
    };
    if let Some(name) = volume {
        let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
        let volume = volumes.get_opt(name).await;
        observed.volume = volume.trying("read the volume of", &about)?;
    }
    if let Some(prime) = prime
        && prime.is_pending()
        && age(&prime.metadata, now) >= PATIENCE
    {
        observed.trouble = event::trouble(&context.client, namespace, prime).await?;
    }
    let is_asked_for = match &observed.prime {
        None => !claim.is_bound(),
        Some(_) => prime.is_some_and(|prime| checkpoint::stage(prime).is_some()),
    };
    if is_asked_for
        && let Some(populator) = claim.populator()
        && populator.kind == VOLUME_IMPORT_SOURCE.name
    {
        let sources = VOLUME_IMPORT_SOURCE.api_in(&context.client, namespace);
        let source = sources.get_opt(populator.name).await;
        observed.source = match source.trying("read what fills", &about)? {
            Some(source) if source.metadata.deletion_timestamp.is_none() => {
                match serde_json::from_value(raw(&source, "spec")) {
                    Ok(spec) => Source::There(Box::new(spec)),
                    Err(_) => Source::Unreadable,
                }
            }
            _ => Source::Missing,
        };
    }
    Ok(Some(observed))
}
