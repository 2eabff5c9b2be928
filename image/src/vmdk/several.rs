//! Disks of several files: what a descriptor lists becomes parts.
//!
//! QEMU (`block/vmdk.c`) is followed, but where it would read another disk than the one that was written:
//! it leaves out lines that are not `RW` and zero extents altogether, reads flat extents that are too
//! short as zeros, and lets sparse extents be of another size than the line that names them. Here
//! read-only and zero extents count, and the others are errors. Lines without access are left out.

use std::collections::HashMap;
use std::sync::Arc;

use super::descriptor::{Access, Descriptor, ExtentLine};
use super::disk::{Found, read_up_to};
use super::grains::Grains;
use super::header::Header;
use super::joined::Joined;
use super::kind::Kind;
use super::layout::SECTOR;
use super::part::{Content, Part};
use super::sesparse::SeSparse;
use crate::num::{add, mul, to_u64};
use crate::{
    Error, ErrorKind, Format, Info, Limits, OpenGate, ReadAt, Reference, ReferenceKind, Result,
};

/// Memory for a part, in bytes: itself, its line, its file and name.
const CHARGE_EACH: u64 = 512;

/// Types of disks that are devices, or parts of such.
const DEVICES: &[&str] = &[
    "fullDevice",
    "partitionedDevice",
    "vmfsRaw",
    "vmfsRDM",
    "vmfsRDMP",
    "vmfsRawDeviceMap",
    "vmfsPassthroughRawDeviceMap",
];

/// Types of disks of several files, and of one with its descriptor beside it.
const TYPES: &[&str] = &[
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "monolithicFlat",
    "monolithicSparse",
    "streamOptimized",
    "vmfs",
    "vmfsPreallocated",
    "vmfsEagerZeroedThick",
    "vmfsThin",
    "vmfsSparse",
    "seSparse",
    "custom",
];

/// The descriptor is about other files than the one it is in.
pub(super) fn are_meant(descriptor: &Descriptor) -> bool {
    let own = ["monolithicSparse", "streamOptimized"];
    let kind = descriptor.create_type.as_deref();
    kind.is_some_and(|kind| !own.contains(&kind)) && !descriptor.extents.is_empty()
}

/// Checks what is wrong with the descriptor by itself; returns the type of the disk.
pub(super) fn check(descriptor: &Descriptor) -> Result<&str> {
    descriptor.check_encryption()?;
    let Some(kind) = descriptor.create_type.as_deref() else {
        return Err(Error::malformed(
            "the descriptor does not say what type of disk it describes (createType)",
        ));
    };
    let is = |known: &&str| known.eq_ignore_ascii_case(kind);
    if DEVICES.iter().any(is) {
        return Err(device(kind));
    }
    if !TYPES.iter().any(is) {
        return Err(Error::unsupported(format!(
            "VMDKs of type {kind:?} are not known"
        )));
    }
    if let Some(line) = &descriptor.bad_line {
        return Err(Error::malformed(format!(
            "{line:?} in the descriptor is no extent"
        )));
    }
    for line in &descriptor.extents {
        if ["VMFSRDM", "VMFSRAW", "RDM", "RAW"].contains(&line.kind.as_str()) {
            return Err(device(&line.kind));
        }
    }
    if counted(descriptor).next().is_none() {
        return Err(Error::malformed("the descriptor lists no extents"));
    }
    Ok(kind)
}

/// The lines that are part of the disk.
fn counted(descriptor: &Descriptor) -> impl Iterator<Item = &ExtentLine> {
    descriptor
        .extents
        .iter()
        .filter(|line| line.access != Access::None && line.sectors > 0)
}

fn device(kind: &str) -> Error {
    Error::unsupported(format!(
        "this VMDK ({kind}) stands for a device, and has no data of its own: import the device"
    ))
}

/// The file that `line` is in.
fn reference(line: &ExtentLine) -> Option<Reference> {
    line.file.as_ref().map(|name| Reference {
        name: name.clone(),
        format: None,
        kind: ReferenceKind::Extent,
    })
}

/// Opens the extents of `descriptor`.
pub(super) fn open(descriptor: &Descriptor, gate: &dyn OpenGate, limits: &Limits) -> Result<Found> {
    let kind = check(descriptor)?;
    let lines = || counted(descriptor);
    let count = to_u64(lines().count());
    let charge = limits.reserve(count.saturating_mul(CHARGE_EACH), "the list of extents")?;
    let mut files = Files {
        gate,
        joined: Joined::default(),
        opened: HashMap::new(),
    };
    let mut parts = Vec::new();
    let mut features = Vec::new();
    let mut end = 0;
    for line in lines() {
        let name = line.file.as_deref().unwrap_or_default();
        // What the gate refuses, it names.
        let file = files.of(line)?;
        let base = file.as_ref().map_or(0, |(base, _)| *base);
        let (len, content) =
            content(line, file.map(|(_, file)| file), limits).map_err(|e| in_extent(name, e))?;
        let start = end;
        end = add(start, len, "the size of the disk")?;
        limits.check_virtual_size(end)?;
        if let Content::Grains(grains) = &content {
            for feature in grains.header().features() {
                if !features.contains(&feature) {
                    features.push(feature);
                }
            }
        }
        parts.push(Part {
            guest: start..end,
            base,
            content,
            name: Some(name.to_owned()),
        });
    }
    let mut references: Vec<Reference> = Vec::new();
    for name in lines().filter_map(reference).chain(descriptor.parent()?) {
        // Descriptors list each file once; a hostile one need not be looked at twice either.
        if references.last() != Some(&name) {
            references.push(name);
        }
    }
    let info = Info {
        format: Format::Vmdk,
        variant: kind.to_owned(),
        virtual_size: end,
        cluster_size: parts.iter().filter_map(Part::grain).max(),
        compression: super::codec(parts.iter().any(|part| part.packed() > 0)).compression(),
        features,
        references,
    };
    Ok(Found {
        parts,
        data: files.joined.into_data(),
        info,
        charge: Some(charge),
    })
}

/// Opens files, each once.
struct Files<'a> {
    gate: &'a dyn OpenGate,
    joined: Joined,
    opened: HashMap<String, (u64, Arc<dyn ReadAt>)>,
}

impl Files<'_> {
    /// The file that `line` names and where it starts; none if it has none or is left out.
    fn of(&mut self, line: &ExtentLine) -> Result<Option<(u64, Arc<dyn ReadAt>)>> {
        if line.kind == "ZERO" {
            return Ok(None);
        }
        if !["FLAT", "VMFS", "SPARSE", "VMFSSPARSE", "SESPARSE"].contains(&line.kind.as_str()) {
            return Err(Error::unsupported(format!(
                "extents of kind {:?} are not known",
                line.kind
            )));
        }
        let Some(reference) = reference(line) else {
            return Err(Error::malformed(
                "the descriptor lists an extent without a file",
            ));
        };
        if self.gate.leaves_out(&reference) {
            return Ok(None);
        }
        self.file(&reference).map(Some)
    }

    /// The file that `reference` names; where it starts, too.
    fn file(&mut self, reference: &Reference) -> Result<(u64, Arc<dyn ReadAt>)> {
        if let Some((base, file)) = self.opened.get(&reference.name) {
            return Ok((*base, Arc::clone(file)));
        }
        let file = self.gate.open(reference)?;
        let base = self.joined.push(&reference.name, Arc::clone(&file))?;
        self.opened
            .insert(reference.name.clone(), (base, Arc::clone(&file)));
        Ok((base, file))
    }
}

/// How long the part that `line` describes is in bytes, and what is in it.
fn content(
    line: &ExtentLine,
    file: Option<Arc<dyn ReadAt>>,
    limits: &Limits,
) -> Result<(u64, Content)> {
    let len = mul(line.sectors, SECTOR, "the size of an extent")?;
    let Some(file) = file else {
        return Ok((len, Content::Zero));
    };
    match line.kind.as_str() {
        "FLAT" | "VMFS" => {
            let offset = mul(line.offset, SECTOR, "the place of an extent")?;
            let end = add(offset, len, "the place of an extent")?;
            // The last sector of a file may be cut, as in a raw disk.
            let there = file.len().div_ceil(SECTOR).saturating_mul(SECTOR);
            if end > there {
                return Err(Error::malformed(format!(
                    "it is truncated: {end} bytes are needed, {} are there",
                    file.len()
                )));
            }
            Ok((len, Content::Flat { file, offset }))
        }
        "SESPARSE" => {
            let extent = SeSparse::open(file, limits)?;
            let size = extent.virtual_size();
            check_size(len, size, super::sesparse::GRAIN)?;
            Ok((size, Content::SeSparse(extent)))
        }
        _ => {
            let head = read_up_to(&file, Header::LEN, "the header")?;
            let header = match Kind::of(&head) {
                Kind::Sparse => Header::parse(&head, limits)?,
                Kind::Cowd => Header::parse_cowd(&head, limits)?,
                Kind::SeSparse | Kind::Text | Kind::Other => {
                    return Err(Error::malformed(
                        "it is not a sparse extent: its magic number is missing",
                    ));
                }
            };
            let size = header.virtual_size();
            check_size(len, size, header.grain_bytes())?;
            Ok((size, Content::Grains(Grains::open(file, header, limits)?)))
        }
    }
}

/// The size of a sparse extent is that of its line, or rounded up to its last grain.
fn check_size(line: u64, extent: u64, grain: u64) -> Result<()> {
    let rounded = line.div_ceil(grain.max(1)).saturating_mul(grain);
    if extent == line || extent == rounded {
        return Ok(());
    }
    Err(Error::malformed(format!(
        "it is of {extent} bytes of the disk, and the descriptor says {line}: they do not belong together"
    )))
}

/// The error `e` in the extent file `name`.
pub(super) fn in_extent(name: &str, e: Error) -> Error {
    let text = format!("the extent file {name:?} is not readable");
    match (e.kind(), e.needed()) {
        (ErrorKind::LimitExceeded, Some(needed)) => Error::limit(text, needed).with_source(e),
        (kind, _) => Error::new(kind, text).with_source(e),
    }
}
