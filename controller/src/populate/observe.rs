//! What a plan depends on: shown by a watch, or fetched.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::runtime::reflector::{ObjectRef, Store};
use longshore_crds::names::{annotation, object};

use super::plan::{Observed, Source, is_prime_of};
use crate::checkpoint;
use crate::claim::{Claim as _, about, age};
use crate::context::Context;
use crate::custom::{VOLUME_IMPORT_SOURCE, raw};
use crate::error::{Result, Trying as _};
use crate::troubles::Trouble;

/// What is not there or not bound by then is asked about, or told.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Everything about `seen` as a watch has shown it; `None` unless that is all that matters: while the prime is
/// being filled, all at once, and when everything is done.
pub(super) fn glance(
    context: &Context,
    seen: &PersistentVolumeClaim,
    shown: &Store<PersistentVolumeClaim>,
    now: Timestamp,
) -> Option<Observed> {
    let namespace = seen.metadata.namespace.as_deref().unwrap_or_default();
    let prime = shown.get(&ObjectRef::new(&object::prime(seen.uid())).within(namespace));
    let is_done = seen.is_bound() && seen.is_filled();
    let is_under_way = !seen.is_bound()
        && prime.as_ref().is_some_and(|prime| {
            is_prime_of(prime, seen)
                && !prime.is_filled()
                && !prime.is_lost()
                && checkpoint::stage(prime).is_none()
        });
    if seen.is_ending() || !is_done && !is_under_way {
        return None;
    }
    let prime = prime.map(|prime| PersistentVolumeClaim::clone(&prime));
    let mut observed = begun(context, seen.clone(), prime);
    observed.trouble = trouble(context, &observed, now);
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
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let prime = claims.get_opt(&object::prime(claim.uid())).await;
    let prime = prime.trying("read the prime claim of", &about)?;
    let mut observed = begun(context, claim, prime);
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
    observed.trouble = trouble(context, &observed, now);
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

/// What is known with the claim and its prime.
fn begun(
    context: &Context,
    claim: PersistentVolumeClaim,
    prime: Option<PersistentVolumeClaim>,
) -> Observed {
    let installation = context.installation();
    Observed {
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
    }
}

/// What keeps the prime from being bound.
fn trouble(context: &Context, observed: &Observed, now: Timestamp) -> Option<Trouble> {
    let prime = observed.prime.as_ref()?;
    let waits = is_prime_of(prime, &observed.claim)
        && prime.is_pending()
        && age(&prime.metadata, now) >= PATIENCE;
    waits.then(|| context.troubles.of(&prime.metadata))?
}
