//! What keeps a claim from being filled: its source, or its class.

use longshore_crds::data_volume::{ContentType, DataVolumeSource};
use longshore_crds::names::{annotation, reason};
use longshore_crds::volume_source::VolumeImportSourceSpec;

use super::plan::{Observed, Source};
use crate::claim::{Claim as _, Populator};
use crate::context::Class;
use crate::data_volume::validate;

/// Why there can be no prime.
pub(super) struct Obstacle {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// What the claim is filled from, if that makes sense.
pub(super) fn source<'a>(
    observed: &'a Observed,
    populator: Populator<'_>,
) -> Result<&'a VolumeImportSourceSpec, Obstacle> {
    let name = populator.name;
    let awaited = |message: String| Obstacle {
        reason: reason::AWAITING_SOURCE,
        message,
    };
    let invalid = |message: &str| Obstacle {
        reason: reason::ERR_SOURCE_NOT_VALID,
        message: format!("VolumeImportSource {name}: {message}"),
    };
    if let Some(namespace) = populator.namespace {
        return Err(Obstacle {
            reason: reason::UNSUPPORTED_SOURCE,
            message: format!(
                "the VolumeImportSource is in the namespace {namespace}: it must be beside the claim"
            ),
        });
    }
    let spec = match &observed.source {
        Source::There(spec) => spec,
        Source::Unread | Source::Missing => {
            let message = format!("there is no VolumeImportSource {name}: it is waited for");
            return Err(awaited(message));
        }
        Source::Unreadable => return Err(invalid("it is not one of cdi.kubevirt.io/v1beta1")),
    };
    let target = spec.target_claim.as_deref().filter(|one| !one.is_empty());
    if let Some(target) = target.filter(|one| *one != observed.claim.named()) {
        let message = format!("the VolumeImportSource {name} is for the claim {target} only");
        return Err(awaited(message));
    }
    if !spec.checkpoints.is_empty() && target.is_none() {
        // Upstream's rule: two claims could be at different stages.
        return Err(invalid(
            "with checkpoints it is for one claim: name it in targetClaim",
        ));
    }
    let content = match spec.content_type.as_deref() {
        None | Some("" | "kubevirt") => ContentType::Kubevirt,
        Some("archive") => ContentType::Archive,
        Some(_) => return Err(invalid("contentType is kubevirt or archive")),
    };
    let whence = spec.source.clone().unwrap_or_default();
    let whence = DataVolumeSource::from(whence);
    validate::source(&whence, Some(content))
        .and_then(|()| validate::checkpoints(&whence, &spec.checkpoints))
        .map_err(|message| invalid(&message))?;
    Ok(spec)
}

/// The claim's class, if its volumes can wait until they are filled.
pub(super) fn class(observed: &Observed) -> Result<&Class, Obstacle> {
    let claim = &observed.claim;
    let Some(class) = &observed.class else {
        let message = match claim.class() {
            None | Some("") => {
                "the claim names no storage class: a populator cannot fill it".to_owned()
            }
            Some(name) => format!("there is no storage class {name}"),
        };
        return Err(Obstacle {
            reason: reason::NO_STORAGE_CLASS,
            message,
        });
    };
    let forced = claim.annotation(annotation::USE_POPULATOR) == Some("true");
    if class.has_driver || observed.migrated_to_driver || (forced && !class.is_in_tree()) {
        return Ok(class);
    }
    let Class {
        name, provisioner, ..
    } = class;
    Err(Obstacle {
        reason: reason::NO_CSI_DRIVER,
        message: format!(
            "there is no CSIDriver {provisioner}, so volumes of the class {name} may come without waiting for what shall fill them: take another class, or a DataVolume, which fills them itself"
        ),
    })
}
