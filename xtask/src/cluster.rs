//! `cargo xtask cluster`: a real Kubernetes on this machine, from packages and Go modules alone.

use anyhow::Result;
use clap::Subcommand;

use crate::gotools::{self, KUBERNETES};
use crate::say;

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Only build what the others start, into the cache
    Build,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Build => {
            let names = [
                "etcd",
                "kube-apiserver",
                "kube-controller-manager",
                "kubectl",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
            ];
            for path in gotools::build(&KUBERNETES, names)? {
                say::line(&path.display().to_string());
            }
            Ok(())
        }
    }
}
