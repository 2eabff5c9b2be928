//! Where the content of each volume is.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use longshore_crds::{
    FieldPath, Manifest,
    virtual_machine_instance::{Volume, volume::HostDiskType},
};

use super::{
    DiskKind, Host,
    files::{Content, StateFile},
    identity::Identity,
    names,
    problem::ProblemKind,
    report::Report,
    seed,
};

/// Most volumes a cluster takes.
const MAX_VOLUMES: usize = 256;
const CHOICES: &str = "dataVolume, persistentVolumeClaim, cloudInitNoCloud, emptyDisk or hostDisk";

/// The volumes of a machine, and the files they need.
#[derive(Debug)]
pub(super) struct Volumes {
    /// Where the content is, by name of the volume. Volumes with a problem are missing.
    pub(super) found: BTreeMap<String, Backing>,
    pub(super) files: Vec<StateFile>,
}

/// What is behind a disk.
#[derive(Clone, Debug)]
pub(super) struct Backing {
    /// UTF-8, for QEMU takes it inside JSON.
    pub(super) path: String,
    pub(super) kind: DiskKind,
    pub(super) origin: Origin,
}

/// Where a disk comes from, and with it what may be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A volume that outlives the machine.
    Lasting,
    /// Likewise, and nobody may write to it.
    ReadOnly,
    /// An empty disk, made for this start.
    Empty,
    /// Data for cloud-init, made for this start: written to, it is the machine's own loss.
    Seed,
}

impl Origin {
    /// Whether there could be something to boot.
    pub(super) fn is_bootable(self) -> bool {
        match self {
            Self::Lasting | Self::ReadOnly => true,
            Self::Empty | Self::Seed => false,
        }
    }
}

pub(super) fn resolve(
    manifest: &Manifest,
    identity: &Identity,
    host: &Host,
    report: &mut Report,
) -> Volumes {
    let at = manifest.instance_path.key("volumes");
    let volumes = &manifest.vm.spec.template.spec.volumes;
    if volumes.len() > MAX_VOLUMES {
        report.problem(
            &at,
            ProblemKind::TooMany {
                what: "volumes",
                count: volumes.len(),
                limit: MAX_VOLUMES,
            },
        );
    }
    let paths = |index: usize| at.index(index).key("name");
    names::check_unique(
        volumes
            .iter()
            .enumerate()
            .map(|(index, volume)| (volume.name.as_str(), paths(index))),
        report,
    );
    let mut resolver = Resolver {
        manifest,
        identity,
        host,
        report,
        files: Vec::new(),
    };
    let mut found = BTreeMap::new();
    for (index, volume) in volumes.iter().enumerate().take(MAX_VOLUMES) {
        names::check_label(&volume.name, &paths(index), resolver.report);
        if let Some(backing) = resolver.volume(volume, &at.index(index)) {
            found.insert(volume.name.clone(), backing);
        }
    }
    Volumes {
        found,
        files: resolver.files,
    }
}

struct Resolver<'a> {
    manifest: &'a Manifest,
    identity: &'a Identity,
    host: &'a Host,
    report: &'a mut Report,
    files: Vec<StateFile>,
}

impl Resolver<'_> {
    fn volume(&mut self, volume: &Volume, at: &FieldPath) -> Option<Backing> {
        let kinds = volume.kinds();
        let [kind] = kinds.as_slice() else {
            self.report.problem(
                at,
                ProblemKind::ExactlyOne {
                    choices: CHOICES,
                    found: kinds,
                },
            );
            return None;
        };
        let at = at.key(*kind);
        if let Some(source) = &volume.data_volume {
            return self.provided(volume, "data volume", &source.name, &at, Origin::Lasting);
        }
        if let Some(source) = &volume.persistent_volume_claim {
            let origin = if source.read_only == Some(true) {
                Origin::ReadOnly
            } else {
                Origin::Lasting
            };
            return self.provided(volume, "claim", &source.claim_name, &at, origin);
        }
        if let Some(source) = &volume.cloud_init_no_cloud {
            let image = seed::image(source, self.manifest, self.identity, &at, self.report)?;
            let path = self.file(
                &format!("cloudinit_{}.iso", volume.name),
                Content::Bytes(image),
            )?;
            return Some(Backing {
                path,
                kind: DiskKind::File,
                origin: Origin::Seed,
            });
        }
        if let Some(source) = &volume.empty_disk {
            let path = at.key("capacity");
            let Some(capacity) = &source.capacity else {
                self.report.problem(&path, ProblemKind::Required);
                return None;
            };
            let size = capacity.to_u64().unwrap_or(0).next_multiple_of(512);
            if size == 0 {
                let value = capacity.to_string();
                self.report.problem(
                    &path,
                    ProblemKind::Invalid {
                        value,
                        expected: "the size of a disk",
                    },
                );
                return None;
            }
            let path = self.file(
                &format!("emptydisk_{}.raw", volume.name),
                Content::Sparse(size),
            )?;
            return Some(Backing {
                path,
                kind: DiskKind::File,
                origin: Origin::Empty,
            });
        }
        if let Some(source) = &volume.host_disk {
            if source.disk_type == Some(HostDiskType::DiskOrCreate) {
                self.unsupported(
                    &at.key("type"),
                    "making a host disk",
                    "make the file and use the type Disk",
                );
                return None;
            }
            if !self.host.allow_host_disks {
                self.report.problem(
                    &at,
                    ProblemKind::HostDiskDenied {
                        path: source.path.clone(),
                    },
                );
                return None;
            }
            return self.provided(volume, "host disk", &source.path, &at, Origin::Lasting);
        }
        let (what, remedy) = refusal(kind);
        self.unsupported(&at, what, remedy);
        None
    }

    /// A disk that the caller made or found.
    fn provided(
        &mut self,
        volume: &Volume,
        kind: &'static str,
        name: &str,
        at: &FieldPath,
        origin: Origin,
    ) -> Option<Backing> {
        let Some(disk) = self.host.disks.get(&volume.name) else {
            self.report.problem(
                at,
                ProblemKind::NotProvided {
                    kind,
                    name: name.to_owned(),
                },
            );
            return None;
        };
        let path = self.usable(&disk.path, at)?;
        Some(Backing {
            path,
            kind: disk.kind,
            origin,
        })
    }

    /// Has a file made in the state directory. No name of an object has an underscore, so a disk
    /// that someone keeps there under such a name is not replaced.
    fn file(&mut self, name: &str, content: Content) -> Option<String> {
        let path = self.host.state_dir.join(name);
        let text = self.usable(&path, &FieldPath::root().key("state directory"))?;
        self.files.push(StateFile { path, content });
        Some(text)
    }

    fn usable(&mut self, path: &Path, at: &FieldPath) -> Option<String> {
        let text = path.to_str().filter(|_| path.is_absolute());
        if text.is_none() {
            self.report.problem(
                at,
                ProblemKind::UnusablePath {
                    path: PathBuf::from(path),
                },
            );
        }
        text.map(str::to_owned)
    }

    fn unsupported(&mut self, at: &FieldPath, what: &'static str, remedy: &'static str) {
        self.report
            .problem(at, ProblemKind::Unsupported { what, remedy });
    }
}

/// Why a volume of this kind cannot be had, and what can.
fn refusal(kind: &str) -> (&'static str, &'static str) {
    let leave_out = "remove the volume and its disk";
    match kind {
        "containerDisk" => (
            "a disk inside a container image",
            "use a dataVolume with a source that can be imported",
        ),
        "cloudInitConfigDrive" => (
            "a config drive",
            "use cloudInitNoCloud, which has the same fields",
        ),
        "ephemeral" => (
            "a disk whose changes are thrown away",
            "use the claim itself, or a copy of it",
        ),
        "configMap" | "secret" | "downwardAPI" | "serviceAccount" | "sysprep" => (
            "a disk with files of the cluster",
            "hand the files over with cloudInitNoCloud",
        ),
        "downwardMetrics" => ("a disk with metrics of the host", leave_out),
        "memoryDump" => ("a claim for memory dumps", leave_out),
        _ => ("a volume of this kind", leave_out),
    }
}
