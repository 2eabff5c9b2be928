//! The controller's calls: volumes and snapshots are made, grown, copied and removed.
//!
//! All can be repeated: what is there already is the answer, unless it is something else of the same name.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::grpc::{Code, Status};
use crate::proto::{
    Access, CapacityRange, Confirmed, ContentSource, CreateSnapshotRequest, CreateSnapshotResponse,
    CreateVolumeRequest, CreateVolumeResponse, Empty, ExpandRequest, ExpandResponse,
    GetCapacityRequest, GetCapacityResponse, Id, ListSnapshotsRequest, ListSnapshotsResponse, Mode,
    Origin as Content, Timestamp, TopologyRequirement, ValidateRequest, ValidateResponse,
    VolumeCapability,
};
use crate::store::{Kind, Origin, Snapshot, Volume, is_plain};
use crate::{Driver, host, proto};

/// `ControllerServiceCapability`: to create and delete volumes, to tell what is left, to create, delete and
/// list snapshots, to clone, to expand, and to give a volume to one pod alone.
pub const CAN: [i32; 7] = [1, 4, 5, 6, 7, 9, 13];

/// Sizes are whole multiples of this.
const STEP: u64 = 1 << 20;
/// What is given to those who don't say how much they want.
const USUAL: u64 = 1 << 30;

impl Driver {
    pub(crate) fn create_volume(
        &self,
        request: &CreateVolumeRequest,
    ) -> Result<CreateVolumeResponse, Status> {
        let name = plain(&request.name, "a volume")?;
        let kind = kind(&request.capabilities)?;
        self.reachable(request.topology.as_ref())?;
        self.wishes.grant(name, &request.parameters)?;
        let origin = request
            .source
            .as_ref()
            .and_then(|source| source.origin.as_ref())
            .map(|content| match content {
                Content::Snapshot(source) => Origin::Snapshot(source.id.clone()),
                Content::Volume(source) => Origin::Volume(source.id.clone()),
            });
        let _turn = self.store.volumes.turn(name);
        if let Some(volume) = self.store.volumes.get(name).map_err(storage)? {
            let fits = size(request.capacity.as_ref(), volume.size) == Ok(volume.size);
            if !fits || volume.kind != kind || volume.origin != origin {
                let text = format!("there is another volume {name}: {volume:?}");
                return Err(Status::new(Code::AlreadyExists, text));
            }
            return Ok(self.created(volume));
        }
        let least = match &origin {
            Some(origin) => self.size_of(origin)?,
            None if kind == Kind::Filesystem => host::SMALLEST,
            None => 0,
        };
        let size = size(request.capacity.as_ref(), least)?;
        let _room = self.reserve(size)?;
        let volume = Volume {
            name: name.to_owned(),
            size,
            kind,
            origin,
        };
        let filled = |image: &Path| {
            match &volume.origin {
                Some(Origin::Snapshot(source)) => {
                    let _turn = self.store.snapshots.turn(source);
                    host::copy(&self.store.snapshots.image(source), image)?;
                }
                Some(Origin::Volume(source)) => {
                    let _turn = self.store.volumes.turn(source);
                    self.copy(source, image)?;
                }
                None => {}
            }
            set_size(image, size)?;
            match (volume.kind, &volume.origin) {
                (Kind::Filesystem, None) => host::format(image),
                // What was copied has a filesystem, which grows once it is mounted.
                _ => Ok(()),
            }
        };
        self.store
            .volumes
            .make(name, &volume, filled)
            .map_err(storage)?;
        tracing::info!(volume = name, size, ?kind, "made");
        Ok(self.created(volume))
    }

    fn created(&self, volume: Volume) -> CreateVolumeResponse {
        let origin = volume.origin.map(|origin| match origin {
            Origin::Snapshot(id) => Content::Snapshot(Id { id }),
            Origin::Volume(id) => Content::Volume(Id { id }),
        });
        CreateVolumeResponse {
            volume: Some(proto::Volume {
                capacity_bytes: signed(volume.size),
                id: volume.name,
                source: origin.map(|origin| ContentSource {
                    origin: Some(origin),
                }),
                topology: vec![self.topology()],
            }),
        }
    }

    /// Copies a volume's bytes as of one moment, whoever writes to it.
    fn copy(&self, name: &str, to: &Path) -> io::Result<()> {
        let image = self.store.volumes.image(name);
        let Some(device) = host::device_over(&image)? else {
            return host::copy(&image, to);
        };
        let mounts = host::mounts()?;
        let _frozen = match mounts.iter().find(|mounted| mounted.source == device) {
            Some(mounted) => Some(host::Frozen::new(&mounted.at)?),
            None => host::flush(&device).map(|()| None)?,
        };
        host::copy(&image, to)
    }

    fn size_of(&self, origin: &Origin) -> Result<u64, Status> {
        let (what, name, size) = match origin {
            Origin::Snapshot(name) => {
                let found = self.store.snapshots.get(name).map_err(storage)?;
                ("snapshot", name, found.map(|snapshot| snapshot.size))
            }
            Origin::Volume(name) => {
                let found = self.store.volumes.get(name).map_err(storage)?;
                ("volume", name, found.map(|volume| volume.size))
            }
        };
        let text = || format!("there is no {what} {name} to copy");
        size.ok_or_else(|| Status::new(Code::NotFound, text()))
    }

    pub(crate) fn delete_volume(&self, request: &Id) -> Result<Empty, Status> {
        if self
            .store
            .volumes
            .get(&request.id)
            .map_err(storage)?
            .is_none()
        {
            return Ok(Empty {});
        }
        let _turn = self.store.volumes.turn(&request.id);
        let image = self.store.volumes.image(&request.id);
        if let Some(device) = host::device_over(&image).map_err(storage)? {
            let text = format!("{} is still on {}", request.id, device.display());
            return Err(Status::new(Code::FailedPrecondition, text));
        }
        self.store.volumes.remove(&request.id).map_err(storage)?;
        tracing::info!(volume = request.id, "removed");
        Ok(Empty {})
    }

    pub(crate) fn validate(&self, request: ValidateRequest) -> Result<ValidateResponse, Status> {
        let volume = self.volume(&request.id)?;
        Ok(match kind(&request.capabilities) {
            Ok(wanted) if wanted == volume.kind => ValidateResponse {
                confirmed: Some(Confirmed {
                    context: request.context,
                    capabilities: request.capabilities,
                    parameters: request.parameters,
                }),
                message: String::new(),
            },
            Ok(wanted) => ValidateResponse {
                confirmed: None,
                message: format!("it was made as {:?}, not as {wanted:?}", volume.kind),
            },
            Err(status) => ValidateResponse {
                confirmed: None,
                message: status.message,
            },
        })
    }

    pub(crate) fn capacity_left(
        &self,
        request: &GetCapacityRequest,
    ) -> Result<GetCapacityResponse, Status> {
        let elsewhere = request
            .topology
            .as_ref()
            .is_some_and(|topology| *topology != self.topology());
        let available = if elsewhere { 0 } else { self.left()? };
        Ok(GetCapacityResponse {
            available: signed(available),
        })
    }

    pub(crate) fn expand_volume(&self, request: &ExpandRequest) -> Result<ExpandResponse, Status> {
        let mut volume = self.volume(&request.id)?;
        let _turn = self.store.volumes.turn(&request.id);
        let wanted = size(request.capacity.as_ref(), volume.size)?;
        let more = wanted - volume.size;
        if more > 0 {
            let _room = self.reserve(more)?;
            let image = self.store.volumes.image(&request.id);
            set_size(&image, wanted).map_err(storage)?;
            volume.size = wanted;
            self.store
                .volumes
                .note(&request.id, &volume)
                .map_err(storage)?;
            tracing::info!(volume = request.id, size = wanted, "grown");
        }
        Ok(ExpandResponse {
            capacity_bytes: signed(volume.size),
            node_has_to: true,
        })
    }

    pub(crate) fn create_snapshot(
        &self,
        request: &CreateSnapshotRequest,
    ) -> Result<CreateSnapshotResponse, Status> {
        let name = plain(&request.name, "a snapshot")?;
        let _turn = self.store.snapshots.turn(name);
        if let Some(snapshot) = self.store.snapshots.get(name).map_err(storage)? {
            if snapshot.source != request.source {
                let text = format!("the snapshot {name} is one of {}", snapshot.source);
                return Err(Status::new(Code::AlreadyExists, text));
            }
            return Ok(told(snapshot));
        }
        let volume = self.volume(&request.source)?;
        let _source = self.store.volumes.turn(&request.source);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let snapshot = Snapshot {
            name: name.to_owned(),
            source: request.source.clone(),
            size: volume.size,
            created: now.unwrap_or_default().as_secs(),
        };
        self.store
            .snapshots
            .make(name, &snapshot, |image| self.copy(&request.source, image))
            .map_err(storage)?;
        tracing::info!(snapshot = name, volume = request.source, "made");
        Ok(told(snapshot))
    }

    pub(crate) fn delete_snapshot(&self, request: &Id) -> Result<Empty, Status> {
        if is_plain(&request.id) {
            let _turn = self.store.snapshots.turn(&request.id);
            self.store.snapshots.remove(&request.id).map_err(storage)?;
        }
        Ok(Empty {})
    }

    pub(crate) fn list_snapshots(
        &self,
        request: &ListSnapshotsRequest,
    ) -> Result<ListSnapshotsResponse, Status> {
        let all = self.store.snapshots.all().map_err(storage)?;
        let wanted = |snapshot: &Snapshot| {
            (request.id.is_empty() || request.id == snapshot.name)
                && (request.source.is_empty() || request.source == snapshot.source)
                // The token is the name of the last one that was told.
                && snapshot.name > request.starting_token
        };
        let mut entries: Vec<Snapshot> = all.into_iter().filter(wanted).collect();
        let most = usize::try_from(request.max_entries).unwrap_or_default();
        let more = most > 0 && entries.len() > most;
        if more {
            entries.truncate(most);
        }
        let last = entries.last().filter(|_| more);
        Ok(ListSnapshotsResponse {
            next_token: last.map(|last| last.name.clone()).unwrap_or_default(),
            entries: entries.into_iter().map(told).collect(),
        })
    }

    pub(crate) fn volume(&self, id: &str) -> Result<Volume, Status> {
        let found = self.store.volumes.get(id).map_err(storage)?;
        found.ok_or_else(|| Status::new(Code::NotFound, format!("there is no volume {id}")))
    }

    /// Refuses volumes that are to be reached from other nodes only.
    fn reachable(&self, wanted: Option<&TopologyRequirement>) -> Result<(), Status> {
        let Some(wanted) = wanted else { return Ok(()) };
        if wanted.requisite.is_empty() || wanted.requisite.contains(&self.topology()) {
            return Ok(());
        }
        let text = format!("volumes are on {} only", self.node);
        Err(Status::new(Code::ResourceExhausted, text))
    }
}

fn told(snapshot: Snapshot) -> CreateSnapshotResponse {
    CreateSnapshotResponse {
        snapshot: Some(proto::Snapshot {
            size_bytes: signed(snapshot.size),
            id: snapshot.name,
            source: snapshot.source,
            created: Some(Timestamp {
                seconds: signed(snapshot.created),
                nanos: 0,
            }),
            ready: true,
        }),
    }
}

fn plain<'a>(name: &'a str, what: &str) -> Result<&'a str, Status> {
    if is_plain(name) {
        return Ok(name);
    }
    let text = format!("the name of {what} is made of letters, digits, dots and dashes: {name:?}");
    Err(Status::invalid(text))
}

/// What a volume with these capabilities is.
fn kind(capabilities: &[VolumeCapability]) -> Result<Kind, Status> {
    let mut found = None;
    for capability in capabilities {
        let kind = of(capability)?;
        if found.is_some_and(|found| found != kind) {
            return Err(Status::invalid("a volume is a device or a filesystem"));
        }
        found = Some(kind);
    }
    found.ok_or_else(|| Status::invalid("the volume's capabilities are missing"))
}

/// A filesystem is for one node; there is no more than one, so that devices may be shared.
pub(crate) fn of(capability: &VolumeCapability) -> Result<Kind, Status> {
    let mode = capability.mode.unwrap_or_default().mode();
    if mode == Mode::Unknown {
        return Err(Status::invalid("the access mode is missing"));
    }
    let many = matches!(
        mode,
        Mode::MultiNodeReader | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter
    );
    match &capability.access {
        None => Err(Status::invalid("the access type is missing")),
        Some(Access::Block(_)) => Ok(Kind::Block),
        Some(Access::Mount(_)) if many => Err(Status::invalid(format!(
            "a filesystem is for one node, not for {mode:?}"
        ))),
        Some(Access::Mount(mount)) if !matches!(&*mount.fs_type, "" | "xfs") => Err(
            Status::invalid(format!("filesystems are XFS, not {}", mount.fs_type)),
        ),
        Some(Access::Mount(_)) => Ok(Kind::Filesystem),
    }
}

/// How large a volume becomes that has to have at least `least` bytes.
fn size(range: Option<&CapacityRange>, least: u64) -> Result<u64, Status> {
    let CapacityRange {
        required_bytes,
        limit_bytes,
    } = range.copied().unwrap_or_default();
    let (Ok(required), Ok(limit)) = (u64::try_from(required_bytes), u64::try_from(limit_bytes))
    else {
        return Err(Status::invalid("a capacity is negative"));
    };
    let wanted = match required.max(least) {
        0 if limit > 0 => limit.min(USUAL),
        0 => USUAL,
        wanted => wanted,
    };
    let wanted = wanted.next_multiple_of(STEP);
    if limit > 0 && wanted > limit {
        let text = format!("{limit} bytes are too few: it would have {wanted}");
        return Err(Status::new(Code::OutOfRange, text));
    }
    Ok(wanted)
}

/// Makes a file that large, with holes.
fn set_size(image: &Path, size: u64) -> io::Result<()> {
    std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(image)?
        .set_len(size)
}

/// Sizes here are of files, which are shorter than `i64` tells.
fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what `map_err` takes, everywhere"
)]
pub(crate) fn storage(error: io::Error) -> Status {
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(required_bytes: i64, limit_bytes: i64) -> CapacityRange {
        CapacityRange {
            required_bytes,
            limit_bytes,
        }
    }

    #[test]
    fn sizes_are_whole_mebibytes_between_what_is_wanted_and_what_is_allowed() {
        const MIB: i64 = 1 << 20;
        let of = |range, least| size(Some(&range), least).map_err(|status| status.code);
        assert_eq!(size(None, 0), Ok(1 << 30));
        assert_eq!(of(range(1, 0), 0), Ok(1 << 20));
        assert_eq!(of(range(MIB, MIB), 0), Ok(1 << 20));
        assert_eq!(of(range(0, 5 * MIB), 0), Ok(5 << 20));
        assert_eq!(of(range(MIB, 0), 3 << 20), Ok(3 << 20));
        assert_eq!(of(range(MIB + 1, MIB + 2), 0), Err(Code::OutOfRange));
        assert_eq!(of(range(0, MIB), 3 << 20), Err(Code::OutOfRange));
        assert_eq!(of(range(-1, 0), 0), Err(Code::InvalidArgument));
        assert_eq!(of(range(i64::MAX, 0), 0), Ok(1 << 63));
    }

    #[test]
    fn filesystems_are_xfs_and_for_one_node() {
        let capability = |access, mode| VolumeCapability {
            access,
            mode: Some(proto::AccessMode { mode }),
        };
        let mount = |fs_type: &str| {
            let fs_type = fs_type.to_owned();
            Some(Access::Mount(proto::Mount {
                fs_type,
                flags: Vec::new(),
            }))
        };
        let block = || Some(Access::Block(Empty {}));
        assert_eq!(of(&capability(mount("xfs"), 1)), Ok(Kind::Filesystem));
        assert_eq!(of(&capability(mount(""), 6)), Ok(Kind::Filesystem));
        assert_eq!(of(&capability(block(), 5)), Ok(Kind::Block));
        for refused in [
            capability(mount("ext3"), 1),
            capability(mount("xfs"), 5),
            capability(block(), 0),
            capability(None, 1),
        ] {
            assert_eq!(of(&refused).unwrap_err().code, Code::InvalidArgument);
        }
        let both = [capability(block(), 1), capability(mount(""), 1)];
        assert!(kind(&both).is_err());
        assert!(kind(&[]).is_err());
    }
}
