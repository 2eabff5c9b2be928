//! What is said of a claim because it is said of the one that is filled in its place.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use longshore_crds::names::{annotation, reason};

use crate::checkpoint;
use crate::claim::{Changes, Claim as _};
use crate::data_volume::progress;
use crate::troubles::Trouble;

/// What becomes of it is said of the claim as it is said of the prime claim. How it ends is told later.
const MIRRORED: [&str; 9] = [
    annotation::POD_SCHEDULABLE,
    annotation::PREALLOCATION,
    annotation::RUNNING,
    annotation::RUNNING_MESSAGE,
    annotation::RUNNING_REASON,
    annotation::FATAL_ERROR,
    annotation::VDDK_VERSION,
    annotation::VDDK_HOST,
    annotation::PROGRESS,
];

/// What there is to say while the claim has no volume. The first words and the brackets are upstream's, and its
/// clients look for them.
pub(super) fn pending(
    claim: &PersistentVolumeClaim,
    prime: &PersistentVolumeClaim,
    trouble: Option<&Trouble>,
) -> String {
    let copied;
    let stage = match trouble {
        _ if prime.is_filled() => "its volume is being handed over",
        Some(trouble) => &trouble.message,
        None if prime.is_bound() => match checkpoint::paused_at(prime) {
            Some(stage) => {
                copied = format!("checkpoint {stage} is copied");
                &copied
            }
            None if prime.annotation(annotation::RUNNING_REASON) == Some(reason::AWAITING_VDDK) => {
                let why = prime.annotation(annotation::RUNNING_MESSAGE);
                why.unwrap_or_default()
            }
            None => "it is being filled",
        },
        None => "Pending",
    };
    let (name, prime) = (claim.named(), prime.named());
    format!("target PVC {name} Pending and [{prime}] : {stage}")
}

/// What the claim shall say of what the prime says.
pub(super) fn mirrored(claim: &PersistentVolumeClaim, prime: &PersistentVolumeClaim) -> Changes {
    let mut wanted: Changes = MIRRORED
        .iter()
        .map(|name| {
            let value = prime.annotation(name).map(str::to_owned);
            ((*name).to_owned(), value)
        })
        .chain(checkpoint::mirrored(claim, prime))
        .collect();
    let count = |claim: &PersistentVolumeClaim| -> Option<u32> {
        claim.annotation(annotation::POD_RESTARTS)?.parse().ok()
    };
    // A prime that was made anew starts to count from 0; what people see does not.
    if let Some(restarts) = count(claim).max(count(prime)) {
        let restarts = Some(restarts.to_string());
        wanted.insert(annotation::POD_RESTARTS.to_owned(), restarts);
    }
    if prime.is_bound() {
        let share = Some(progress(prime));
        wanted.insert(annotation::POPULATOR_PROGRESS.to_owned(), share);
    }
    wanted
}

/// Labels that the image brought: they are the disk's, and there with it. Of those that the prime had before
/// the claim may have lost some since.
pub(super) fn image_labels(
    claim: &PersistentVolumeClaim,
    prime: &PersistentVolumeClaim,
) -> BTreeMap<String, String> {
    let is_kubevirts = |name: &str| {
        let domain = name.split_once('/').map(|(domain, _)| domain);
        domain.is_some_and(|domain| domain == "kubevirt.io" || domain.ends_with(".kubevirt.io"))
    };
    if !prime.is_filled() {
        return BTreeMap::new();
    }
    let known = claim.metadata.labels.clone().unwrap_or_default();
    let labels = prime.metadata.labels.clone().unwrap_or_default();
    labels
        .into_iter()
        .filter(|(name, _)| is_kubevirts(name) && !known.contains_key(name))
        .collect()
}
