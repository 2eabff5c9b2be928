//! What chaos does.

use anyhow::{Context as _, Result};
use longshore_tests::http::Page;
use longshore_tests::node::{kill, processes_of};
use serde_json::Value;

use super::node::{Node, Snapshot};
use super::volume::{Stage, Volume};
use super::wish::{Form, Goal, Images, Source, troubles};
use crate::dice::Dice;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillImporter,
    DeletePod,
    ForcePod,
    KillController,
    DeleteController,
    KillService(&'static str),
    TroubledSource,
    SlowSource,
    OtherSource,
    DeleteVolume,
    DeleteClaim,
    DeletePrime,
    CutPower,
}

/// All of them, each as often as it is to happen.
const FAULTS: [(Fault, usize); 22] = [
    (Fault::KillImporter, 14),
    (Fault::DeletePod, 6),
    (Fault::ForcePod, 6),
    (Fault::KillController, 7),
    (Fault::DeleteController, 2),
    (Fault::KillService("kube-apiserver"), 3),
    (Fault::KillService("etcd"), 2),
    (Fault::KillService("kube-controller-manager"), 2),
    (Fault::KillService("kube-scheduler"), 2),
    (Fault::KillService("kubelet"), 5),
    (Fault::KillService("containerd"), 4),
    (Fault::KillService("csi-driver"), 6),
    (Fault::KillService("csi-provisioner"), 4),
    (Fault::KillService("csi-resizer"), 1),
    (Fault::KillService("kube-proxy"), 1),
    (Fault::TroubledSource, 16),
    (Fault::SlowSource, 4),
    (Fault::OtherSource, 4),
    (Fault::DeleteVolume, 6),
    (Fault::DeleteClaim, 6),
    (Fault::DeletePrime, 5),
    (Fault::CutPower, 1),
];

impl Fault {
    pub(crate) fn pick(dice: &mut Dice) -> Self {
        let mut roll = dice.roll(FAULTS.iter().map(|(_, weight)| weight).sum());
        for (fault, weight) in FAULTS {
            if roll < weight {
                return fault;
            }
            roll -= weight;
        }
        Self::KillImporter
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillImporter => "an importer killed",
            Self::DeletePod => "an importer's pod deleted",
            Self::ForcePod => "an importer's pod deleted, without time to end",
            Self::KillController => "the controller killed",
            Self::DeleteController => "the controller's pod deleted",
            Self::KillService(name) => name,
            Self::TroubledSource => "a source with faults",
            Self::SlowSource => "a source that gets slow",
            Self::OtherSource => "another disk at the same address",
            Self::DeleteVolume => "what was asked for deleted midway",
            Self::DeleteClaim => "the claim of a DataVolume deleted",
            Self::DeletePrime => "the claim that a populator fills deleted",
            Self::CutPower => "the node's power cut",
        }
    }

    /// Does it; `None` if there is nothing now that it could happen to, else what it happened to.
    pub(crate) fn strike(
        self,
        node: &Node,
        all: &Snapshot,
        volumes: &mut [Volume],
        images: &Images,
        dice: &mut Dice,
    ) -> Result<Option<String>> {
        match self {
            Self::KillService(name) => {
                let process = node.service(name);
                let process = process.with_context(|| format!("{name} was never started"))?;
                return Ok(kill(&[process]).then(String::new));
            }
            Self::CutPower => {
                node.cut_power()?;
                return Ok(Some(String::new()));
            }
            Self::DeleteController => {
                node.delete_controller()?;
                return Ok(Some(String::new()));
            }
            Self::KillController => {
                let pods = node.controllers()?;
                let processes: Vec<u32> = pods.iter().flat_map(processes_of).collect();
                return Ok(kill(&processes).then(String::new));
            }
            _ => {}
        }
        let suits = |volume: &&mut Volume| volume.stage == Stage::Going && self.suits(volume, all);
        let mut able: Vec<&mut Volume> = volumes.iter_mut().filter(suits).collect();
        if able.is_empty() {
            return Ok(None);
        }
        let at = dice.roll(able.len());
        let volume = able.swap_remove(at);
        let pods = volume.pods(all);
        let mut what = volume.name.clone();
        let done = match self {
            Self::KillImporter => {
                let processes: Vec<u32> =
                    pods.iter().flat_map(|(_, pod)| processes_of(pod)).collect();
                kill(&processes)
            }
            Self::DeletePod | Self::ForcePod => {
                let Some((pod, _)) = pods.first() else {
                    return Ok(None);
                };
                let mut args = vec!["pod", pod];
                if self == Self::ForcePod {
                    args.extend(["--force", "--grace-period=0"]);
                }
                node.delete(&args)?;
                true
            }
            Self::TroubledSource => {
                let (name, faults) = troubles(dice);
                what = format!("{what}: {} x {name}", faults.len());
                let Source::Http { server, page, .. } = &volume.wish.source else {
                    return Ok(None);
                };
                let troubled = faults.into_iter().fold(Page::clone(page), Page::fault);
                server.set("/disk", troubled);
                true
            }
            Self::SlowSource => volume.wish.slow_down(),
            Self::OtherSource => volume.wish.replace(images),
            Self::DeleteVolume => {
                volume.delete(node)?;
                true
            }
            Self::DeleteClaim => {
                node.delete(&["pvc", &volume.name])?;
                true
            }
            _ => {
                let primes: Vec<String> = volume.primes().collect();
                let there = primes
                    .iter()
                    .find(|name| all.get("PersistentVolumeClaim", name).is_some());
                let Some(prime) = there else {
                    return Ok(None);
                };
                node.delete(&["pvc", prime])?;
                true
            }
        };
        if !done {
            return Ok(None);
        }
        volume.hits.push(self.name());
        Ok(Some(what))
    }

    /// Whether it can happen to this volume now.
    fn suits(self, volume: &Volume, all: &Snapshot) -> bool {
        let runs = |pod: &&(&str, &Value)| pod.1["status"]["phase"] == "Running";
        let wish = &volume.wish;
        match self {
            Self::KillImporter => volume.pods(all).iter().any(|pod| runs(&pod)),
            Self::DeletePod | Self::ForcePod => !volume.pods(all).is_empty(),
            Self::TroubledSource | Self::SlowSource | Self::OtherSource => {
                matches!(wish.source, Source::Http { .. }) && wish.goal != Goal::Missing
            }
            Self::DeleteClaim => {
                wish.form.has_volume() && all.get("PersistentVolumeClaim", &volume.name).is_some()
            }
            Self::DeletePrime => matches!(wish.form, Form::Populator | Form::Populated),
            _ => true,
        }
    }
}
