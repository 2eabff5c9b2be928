//! Causes around the pod: the controller, the claim and its class, quotas.

use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use longshore_crds::names::{annotation as names, reason};

use super::judge::{Cause, advice, next};
use super::observed::{Observed, annotation, claim_phase, told_at};
use crate::cluster::Seen;
use crate::pace::duration;

/// Beyond what the lease itself says: clocks differ.
const CLOCKS: i64 = 30;
/// A controller that works has looked at everything new by then.
const NEGLECT: i64 = 15;
/// Marks on classes that make one the default.
const DEFAULTS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.kubevirt.io/is-default-virt-class",
];
/// Said of a claim without being a warning, and telling all the same.
const TELLING: [&str; 3] = [
    "FailedBinding",
    "ExternalProvisioning",
    "WaitForPodScheduled",
];

pub(super) fn about_claim(claim: &PersistentVolumeClaim) -> String {
    let meta = &claim.metadata;
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    format!(
        "PersistentVolumeClaim {}/{}",
        text(&meta.namespace),
        text(&meta.name)
    )
}

/// The controller does not work.
pub(super) fn controller(observed: &Observed) -> Option<Cause> {
    let cause = |reason: &str, message: String, advice: &str, next: &str| {
        Some(Cause {
            about: "the controller".to_owned(),
            reason: reason.to_owned(),
            message,
            advice: advice.to_owned(),
            since: None,
            next: Some(next.to_owned()),
        })
    };
    let conditions = observed.installation.there();
    let passive = conditions.and_then(|all| {
        let mut all = all.iter();
        all.find(|one| one.kind == "LongshorePassive" && one.status == "True")
    });
    if let Some(passive) = passive {
        return cause(
            &passive.reason,
            passive.message.clone(),
            &advice("LongshorePassive (CDI)", &passive.reason),
            "kubectl describe cdi",
        );
    }
    let lease = lease(observed);
    if lease == Lease::Good {
        return None;
    }
    let logs = "kubectl -n cdi logs deployment/cdi-deployment";
    match &observed.deployment {
        Seen::Absent => {
            return cause(
                "ControllerNotInstalled",
                "there is no deployment cdi-deployment in the namespace cdi: nothing works on data volumes".to_owned(),
                "have it installed",
                "kubectl apply -f deploy/longshore.yaml",
            );
        }
        Seen::There(deployment) => {
            let wanted = deployment.spec.replicas;
            if wanted == Some(0) {
                return cause(
                    "ControllerScaledDown",
                    "the deployment cdi/cdi-deployment is scaled to 0: nothing works on data volumes".to_owned(),
                    "scale it up",
                    "kubectl -n cdi scale deployment/cdi-deployment --replicas=1",
                );
            }
            let ready = deployment.status.as_ref();
            let ready = ready.and_then(|status| status.available_replicas);
            if ready.unwrap_or(0) == 0 {
                return cause(
                    "ControllerNotReady",
                    "no pod of the deployment cdi/cdi-deployment is available".to_owned(),
                    "see what keeps it from starting",
                    "kubectl -n cdi describe pods",
                );
            }
        }
        Seen::NotAsked | Seen::Hidden(_) => {}
    }
    match lease {
        Lease::Stale { holder, seconds } => cause(
            "ControllerLeaseStale",
            format!(
                "{holder} holds the controller's lease, and renewed it {} ago: it does not work",
                duration(seconds)
            ),
            "see what keeps it; another one takes over a minute after it ended",
            logs,
        ),
        Lease::Free => cause(
            "ControllerLeaseFree",
            "nobody holds the controller's lease: no controller works".to_owned(),
            "see what keeps it from starting",
            logs,
        ),
        Lease::Unknown | Lease::Good if is_neglected(observed) => cause(
            "ControllerSilent",
            format!(
                "nothing was said about it in {}: no controller seems to work",
                duration(u64::try_from(age(observed)).unwrap_or(0))
            ),
            "ask whoever administers the cluster to look at the deployment cdi-deployment in the namespace cdi",
            logs,
        ),
        Lease::Unknown | Lease::Good => None,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Lease {
    Good,
    Stale { holder: String, seconds: u64 },
    Free,
    Unknown,
}

fn lease(observed: &Observed) -> Lease {
    let lease = match &observed.lease {
        Seen::There(lease) => lease,
        Seen::Absent => return Lease::Free,
        Seen::NotAsked | Seen::Hidden(_) => return Lease::Unknown,
    };
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.clone());
    let Some(holder) = holder.filter(|holder| !holder.is_empty()) else {
        return Lease::Free;
    };
    let good = spec.and_then(|spec| spec.lease_duration_seconds);
    let renewed = spec.and_then(|spec| spec.renew_time.as_ref());
    let Some(renewed) = renewed else {
        return Lease::Unknown;
    };
    let since = observed.now.duration_since(renewed.0).as_secs();
    if since > i64::from(good.unwrap_or(60)).saturating_add(CLOCKS) {
        Lease::Stale {
            holder,
            seconds: u64::try_from(since).unwrap_or(0),
        }
    } else {
        Lease::Good
    }
}

fn age(observed: &Observed) -> i64 {
    let meta = match (observed.volume.there(), observed.claim.there()) {
        (Some(volume), _) => &volume.meta,
        (None, Some(claim)) => &claim.metadata,
        (None, None) => return 0,
    };
    observed.age(meta)
}

/// It should have been looked at, and nothing shows that it was.
fn is_neglected(observed: &Observed) -> bool {
    if age(observed) < NEGLECT {
        return false;
    }
    if let Some(volume) = observed.volume.there() {
        return volume.phase().is_empty();
    }
    let Some(claim) = observed.claim.there() else {
        return false;
    };
    let noted = |name| annotation(&claim.metadata, name).is_some();
    let asks = noted(names::IMPORT_SOURCE) || noted(names::IMPORT_ENDPOINT);
    let seen = noted(names::IMPORT_POD) || noted(names::RUNNING_REASON);
    asks && !seen && claim_phase(claim) == "Bound"
}

/// What keeps a claim, or the one that is filled in its place, from being bound.
pub(super) fn claims(observed: &Observed) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(claim) = observed.prime.there() {
        causes.extend(claim_causes(observed, claim));
    }
    match observed.claim.there() {
        // It gets its volume from the other one.
        Some(claim) if observed.prime.there().is_some() && claim_phase(claim) == "Pending" => {
            causes.extend(ending(observed, claim));
        }
        Some(claim) => causes.extend(claim_causes(observed, claim)),
        None if matches!(observed.claim, Seen::Absent) => {
            let volume = observed.volume.there();
            let unnamed = volume.is_some_and(|volume| volume.class.is_none());
            if unnamed && lacks_default(observed) {
                causes.push(no_default(format!(
                    "DataVolume {}/{}",
                    observed.namespace, observed.name
                )));
            }
        }
        None => {}
    }
    causes
}

/// It is known that there is no default class.
fn lacks_default(observed: &Observed) -> bool {
    observed.classes.there().is_some() && default_class(observed).is_none()
}

fn default_class(observed: &Observed) -> Option<&StorageClass> {
    let classes = observed.classes.there()?;
    let is_default = |class: &&StorageClass| {
        let mut marks = DEFAULTS.into_iter();
        marks.any(|mark| annotation(&class.metadata, mark) == Some("true"))
    };
    classes.iter().find(is_default)
}

fn no_default(about: String) -> Cause {
    Cause {
        about,
        reason: "NoDefaultStorageClass".to_owned(),
        message: "it names no StorageClass, and the cluster has no default one".to_owned(),
        advice: "name a class (storageClassName) and make it anew, or have one marked as default: the annotation storageclass.kubernetes.io/is-default-class: \"true\"".to_owned(),
        since: None,
        next: Some("kubectl get storageclass".to_owned()),
    }
}

fn ending(observed: &Observed, claim: &PersistentVolumeClaim) -> Option<Cause> {
    let since = claim.metadata.deletion_timestamp.as_ref()?;
    let users = observed.users.there().map(Vec::as_slice);
    let users = users.unwrap_or_default().join(", ");
    let message = if users.is_empty() {
        "it is being deleted".to_owned()
    } else {
        format!("it is being deleted, which waits for the pods that use it: {users}")
    };
    Some(Cause {
        about: about_claim(claim),
        reason: reason::ERR_MARKED_FOR_DELETION.to_owned(),
        message,
        advice: advice("Running", reason::ERR_MARKED_FOR_DELETION),
        since: Some(since.0),
        next: Some(format!("kubectl -n {} get pods", observed.namespace)),
    })
}

fn claim_causes(observed: &Observed, claim: &PersistentVolumeClaim) -> Vec<Cause> {
    let mut causes: Vec<Cause> = ending(observed, claim).into_iter().collect();
    match claim_phase(claim) {
        "Lost" => causes.push(Cause {
            about: about_claim(claim),
            reason: reason::CLAIM_LOST.to_owned(),
            message: "the persistent volume it was bound to is gone".to_owned(),
            advice: advice("Bound", reason::CLAIM_LOST),
            since: None,
            next: Some(next(reason::CLAIM_LOST, observed)),
        }),
        "Bound" => {}
        _ => causes.extend(unbound(observed, claim)),
    }
    causes
}

/// A claim without a volume.
fn unbound(observed: &Observed, claim: &PersistentVolumeClaim) -> Option<Cause> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let describe = format!("kubectl -n {} describe pvc {name}", observed.namespace);
    let told = observed.told_about(&claim.metadata);
    let spec = claim.spec.as_ref();
    let named = spec.and_then(|spec| spec.storage_class_name.as_deref());
    let class = match (named, observed.classes.there()) {
        (None, Some(_)) if lacks_default(observed) => return Some(no_default(about_claim(claim))),
        (None, Some(_)) => default_class(observed),
        (Some(""), _) | (_, None) => None,
        (Some(named), Some(classes)) => {
            let mut all = classes.iter();
            let found = all.find(|class| class.metadata.name.as_deref() == Some(named));
            // A class that nobody provisions for may be a mere word that volumes carry, too.
            if found.is_none()
                && let Some(event) = told.iter().find(|event| is_warning(event))
            {
                let known: Vec<&str> = classes
                    .iter()
                    .filter_map(|class| class.metadata.name.as_deref())
                    .collect();
                return Some(Cause {
                    about: about_claim(claim),
                    reason: "NoSuchStorageClass".to_owned(),
                    message: format!(
                        "there is no StorageClass {named}, and no free volume of that class; there are: {}",
                        known.join(", ")
                    ),
                    advice: "name one of these and make it anew, or have the class made".to_owned(),
                    since: told_at(event),
                    next: Some("kubectl get storageclass".to_owned()),
                });
            }
            found
        }
    };
    let warned = told.iter().find(|event| is_warning(event));
    let late = class
        .is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let chosen = annotation(&claim.metadata, "volume.kubernetes.io/selected-node").is_some();
    if late && !chosen && warned.is_none() {
        return Some(unused(observed, claim, &describe));
    }
    let event = warned.or_else(|| told.iter().find(|event| tells(event)))?;
    Some(from_event(about_claim(claim), event, describe))
}

/// A claim whose volume is made once somebody uses it.
fn unused(observed: &Observed, claim: &PersistentVolumeClaim, describe: &str) -> Cause {
    let users = observed.users.there().map(Vec::as_slice);
    let cause = |message: String, advice: String, next: String| Cause {
        about: about_claim(claim),
        reason: reason::WAIT_FOR_FIRST_CONSUMER.to_owned(),
        message,
        advice,
        since: None,
        next: Some(next),
    };
    if let Some([user, ..]) = users {
        return cause(
            format!("its volume is made once the pod {user}, which uses it, has a node"),
            "see what keeps that pod from getting a node".to_owned(),
            format!("kubectl -n {} describe pod {user}", observed.namespace),
        );
    }
    cause(
        "its class makes volumes once a pod uses the claim, and none does".to_owned(),
        advice("Running", reason::WAIT_FOR_FIRST_CONSUMER),
        describe.to_owned(),
    )
}

/// What somebody told, as a cause.
pub(super) fn from_event(about: String, event: &Event, next: String) -> Cause {
    let why = event.reason.clone().unwrap_or_default();
    let known = super::words::advice("Running", &why);
    let advice = match why.as_str() {
        "FailedBinding" => {
            "have a volume made that fits, or name a StorageClass and make it anew".to_owned()
        }
        "ExternalProvisioning" => {
            "if it takes minutes: see whether the pods of that provisioner run, and what they log"
                .to_owned()
        }
        "ProvisioningFailed" => {
            "the message is the provisioner's, and it tries again: mend what it names".to_owned()
        }
        _ => known.unwrap_or_else(|| "the message tells what is waited for".to_owned()),
    };
    let component = event.source.as_ref().and_then(|it| it.component.as_deref());
    let component = component.or(event.reporting_component.as_deref());
    let message = event.message.clone().unwrap_or_default();
    Cause {
        about,
        reason: why,
        message: match component.filter(|one| !one.is_empty()) {
            Some(component) => format!("{} ({component})", message.trim_end()),
            None => message,
        },
        advice,
        since: told_at(event),
        next: Some(next),
    }
}

pub(super) fn is_warning(event: &Event) -> bool {
    event.type_.as_deref() == Some("Warning") && !is_ours(event)
}

fn tells(event: &Event) -> bool {
    event
        .reason
        .as_deref()
        .is_some_and(|it| TELLING.contains(&it))
}

/// What we tell is in conditions, too.
fn is_ours(event: &Event) -> bool {
    let component = event.source.as_ref().and_then(|it| it.component.as_deref());
    component.is_some_and(|it| {
        it.starts_with("datavolume-") || it == "import-controller" || it.ends_with("-populator")
    })
}

/// Quotas that are used up, where one is the cause.
pub(super) fn remarks(observed: &Observed, causes: &[Cause]) -> Vec<String> {
    let of_quota = |cause: &Cause| {
        cause.reason == reason::ERR_EXCEEDED_QUOTA || cause.message.contains("exceeded quota")
    };
    if !causes.iter().any(of_quota) {
        return Vec::new();
    }
    let mut remarks = Vec::new();
    for quota in observed
        .quotas
        .there()
        .map(Vec::as_slice)
        .unwrap_or_default()
    {
        let name = quota.metadata.name.as_deref().unwrap_or_default();
        let Some(status) = &quota.status else {
            continue;
        };
        let used = status.used.clone().unwrap_or_default();
        for (what, hard) in status.hard.iter().flatten() {
            if let Some(used) = used.get(what) {
                remarks.push(format!(
                    "quota {name}: {what}: {} of {} used",
                    used.0, hard.0
                ));
            }
        }
    }
    remarks
}
