//! `longshore why`: what a data volume or a claim waits for, and what to do about it.
//!
//! ```text
//! gather (asks, with the caller's rights) -> Observed -> judge (pure) -> Verdict -> report
//! ```
//!
//! Everything that is decided is decided in [`judge`]. What the caller may not read is gone around and
//! mentioned: the rights of a namespace's user are enough for most answers.

mod cluster_side;
mod gather;
mod judge;
mod observed;
mod pod_side;
mod report;
#[cfg(test)]
mod tests;
mod words;

use crate::cluster::{Access, block_on};
use crate::failure::Failure;

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Why {
    pub(crate) access: Access,
    /// The namespace, if not the one of the kubeconfig.
    pub(crate) namespace: Option<String>,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) json: bool,
}

/// What kind of object it is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    DataVolume,
    Claim,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::DataVolume => "DataVolume",
            Self::Claim => "PersistentVolumeClaim",
        }
    }

    /// What `kubectl` calls it.
    fn short(self) -> &'static str {
        match self {
            Self::DataVolume => "dv",
            Self::Claim => "pvc",
        }
    }
}

pub(crate) fn run(why: &Why) -> Result<(), Failure> {
    block_on(async {
        let reached = why.access.or_fail().await?;
        let observed = gather::gather(why, &reached).await;
        let verdict = judge::judge(&observed);
        report::print(&verdict, why.json)?;
        match verdict.state {
            judge::State::Missing | judge::State::Unknown => Err(Failure::NoAnswer),
            _ => Ok(()),
        }
    })
}
