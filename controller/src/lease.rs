//! One controller works, the others wait: a `Lease`, taken and renewed.
//!
//! Who holds it and cannot renew it for [`DEADLINE`] ends its process, well before others may take it over
//! after [`DURATION`]. What a deposed one still has under way does no harm: its writes carry what they
//! were decided on.
//!
//! The times and the name are upstream's, so the two never work at once on one cluster. An annotation
//! tells who of the two a holder is.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use longshore_crds::names::{annotation, object};

use crate::error::{CONFLICT, unless};
use crate::health::Health;

/// How long a lease is good after it was renewed.
const DURATION: Duration = Duration::from_mins(1);
/// How long renewing may fail.
const DEADLINE: Duration = Duration::from_secs(40);
/// How often it is looked at.
pub(crate) const PERIOD: Duration = Duration::from_secs(5);

/// Who has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Us,
    /// Another controller of ours.
    OneOfOurs,
    /// Somebody who is none of ours.
    Foreign(String),
}

/// A share in a lease.
pub(crate) struct Elector {
    leases: Api<Lease>,
    /// Who we are: a pod's name.
    identity: String,
    /// What others wrote last, and when we first saw that. Their clocks are not ours.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Elector {
    pub(crate) fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            identity,
            seen: None,
        }
    }

    /// Keeps it. Returns when it is lost.
    pub(crate) async fn keep(&mut self, health: &Health) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < DEADLINE {
            tokio::time::sleep(PERIOD).await;
            health.looked();
            match tokio::time::timeout(PERIOD, self.attempt()).await {
                Ok(Ok(Holder::Us)) => renewed = Instant::now(),
                Ok(Ok(_)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "the lease could not be renewed"),
                Err(_) => tracing::warn!("the lease could not be renewed in time"),
            }
        }
    }

    /// Gives it up, so that the next one need not wait until it is no good any more.
    pub(crate) async fn release(&self) {
        if let Err(error) = tokio::time::timeout(PERIOD, self.try_release())
            .await
            .unwrap_or(Ok(()))
        {
            tracing::warn!(%error, "the lease could not be given up: the next controller waits until it ends");
        }
    }

    async fn try_release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.leases.get_opt(object::LEASE).await? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        // The version that was read is the precondition.
        written(
            self.leases
                .replace(object::LEASE, &PostParams::default(), &lease)
                .await,
        )
        .map(drop)
    }

    /// Takes or renews it, if nobody else has it.
    pub(crate) async fn attempt(&mut self) -> Result<Holder, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.leases.get_opt(object::LEASE).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(object::LEASE.to_owned()),
                    annotations: Some(self.mark().into()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None, now)),
            };
            return written(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        if !self.may_take(&spec, Instant::now()) {
            let holder = spec.holder_identity.unwrap_or_default();
            let marked = lease.annotations().get(annotation::LEASE_HOLDER);
            return Ok(if marked == Some(&holder) {
                Holder::OneOfOurs
            } else {
                Holder::Foreign(holder)
            });
        }
        lease.annotations_mut().extend(self.mark());
        // The version that was read is the precondition: of two who saw it, one comes through.
        lease.spec = Some(self.spec(Some(&spec), now));
        written(
            self.leases
                .replace(object::LEASE, &PostParams::default(), &lease)
                .await,
        )
    }

    fn mark(&self) -> [(String, String); 1] {
        [(annotation::LEASE_HOLDER.to_owned(), self.identity.clone())]
    }

    /// Ours, given up, or not renewed for as long as it was good.
    fn may_take(&mut self, spec: &LeaseSpec, now: Instant) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return true;
        }
        match &self.seen {
            Some((seen, since)) if seen == spec => {
                let good = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
                now.duration_since(*since) > Duration::from_secs(good)
            }
            _ => {
                self.seen = Some((spec.clone(), now));
                false
            }
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>, now: MicroTime) -> LeaseSpec {
        let ours = before.filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: ours
                .and_then(|spec| spec.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(match (before, ours) {
                (Some(_), None) => transitions.saturating_add(1),
                _ => transitions,
            }),
            ..LeaseSpec::default()
        }
    }
}

/// Somebody was faster: that is an answer. Who it was is seen the next time.
fn written(outcome: Result<Lease, kube::Error>) -> Result<Holder, kube::Error> {
    Ok(match unless(outcome, CONFLICT)? {
        Some(_) => Holder::Us,
        None => Holder::OneOfOurs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: &str, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(60),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    #[tokio::test]
    async fn a_lease_is_taken_only_once_nobody_has_renewed_it_for_as_long_as_it_was_good() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let mut elector = Elector::new(client, "cdi", "me".to_owned());
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(elector.may_take(&held("", 0), start));
        assert!(elector.may_take(&held("me", 0), start));
        assert!(!elector.may_take(&held("other", 0), start));
        assert!(!elector.may_take(&held("other", 0), after(60)));
        assert!(elector.may_take(&held("other", 0), after(61)));
        // It was renewed: its time starts anew.
        assert!(!elector.may_take(&held("other", 1), after(62)));
        assert!(!elector.may_take(&held("other", 1), after(120)));
        let taken = elector.spec(Some(&held("other", 1)), MicroTime(Timestamp::now()));
        assert_eq!(taken.lease_transitions, Some(2));
        assert_eq!(
            elector
                .spec(Some(&taken), MicroTime(Timestamp::now()))
                .lease_transitions,
            Some(2)
        );
    }
}
