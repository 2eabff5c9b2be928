//! Disks inside archives: OVA (a tar with an OVF descriptor) and plain tar.
//!
//! [`open_member`] puts itself between a source and the engine: the disk that was chosen is a source of
//! its own, read in one pass over the archive, checked against the manifest on the way. What the disk's
//! bytes mean is left to the engine. Compressed archives are not read here.
//!
//! Sources: DMTF DSP0243 (OVF 1.1 and 2.1), sections 5 (package), 5.1 (manifest), 9.1 (disks).

mod error;
mod manifest;
mod member;
mod ovf;
mod walk;

use std::path::Path;

use longshore_transfer::Source;

pub use self::error::ArchiveError;
use self::manifest::Manifest;
use self::member::{Member, Wanted, check_text};
use self::ovf::Envelope;
use self::walk::Walk;

/// Most bytes of an OVF descriptor or of a manifest.
const MOST_TEXT: u64 = 8 << 20;
/// Most entries of an archive.
const MOST_ENTRIES: usize = 100_000;

/// What is in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// There is an OVF descriptor; without one every file counts as a disk.
    pub is_ova: bool,
    /// The disks, in the descriptor's order or that of the files.
    pub disks: Vec<Disk>,
    /// There is a manifest. `None` if the descriptor was all that could be looked at (a stream).
    pub has_manifest: Option<bool>,
}

/// A disk in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// How the descriptor calls it; the file's name in a plain tar.
    pub id: String,
    /// The file in the archive; `None` for a disk that starts empty.
    pub file: Option<String>,
    /// Bytes that the file has in the archive, if that is known.
    pub file_size: Option<u64>,
    /// Size of the guest's disk in bytes, as the descriptor says.
    pub capacity: Option<u64>,
    /// The descriptor's word for the format, mostly an address.
    pub format: Option<String>,
    /// Why it can't be imported, if it can't.
    pub refused: Option<&'static str>,
}

/// A source's name may choose a disk: `x.ova#vmdisk1`. Gives the name of the archive and the choice, if
/// `spec` names an archive (by its suffix, `.ova` or `.tar`) at all.
pub(crate) fn split_member(spec: &str) -> Option<(&str, Option<&str>)> {
    let is_archive = |name: &str| {
        let path = name.split('?').next().unwrap_or(name);
        Path::new(path).extension().is_some_and(|suffix| {
            ["ova", "tar"]
                .iter()
                .any(|s| suffix.eq_ignore_ascii_case(s))
        })
    };
    match spec.rsplit_once('#') {
        Some((archive, member)) if is_archive(archive) => {
            Some((archive, Some(member).filter(|member| !member.is_empty())))
        }
        _ => is_archive(spec).then_some((spec, None)),
    }
}

/// Lists the disks of an archive. A source with random access is looked at from header to header; of a
/// stream only the descriptor is read, which is the first file of every OVA.
pub(crate) fn contents(source: &mut dyn Source) -> crate::Result<Contents> {
    let name = source.name();
    let listed = match source.random() {
        Some(file) => list(Walk::file(file), true),
        None => list(Walk::stream(source.stream()?), false),
    };
    listed.map_err(|source| crate::Error::Archive { name, source })
}

fn list(mut walk: Walk, to_the_end: bool) -> Result<Contents, ArchiveError> {
    let mut files: Vec<(String, u64)> = Vec::new();
    let mut envelope = None;
    let mut has_manifest = false;
    while let Some(entry) = walk.next_file()? {
        if envelope.is_none() && files.is_empty() && has_suffix(&entry.name, "ovf") {
            envelope = Some(Envelope::parse(&walk.text(MOST_TEXT)?)?);
            if !to_the_end {
                break;
            }
        } else if has_suffix(&entry.name, "mf") {
            has_manifest = true;
        }
        files.push((entry.name, entry.size));
    }
    let is_ova = envelope.is_some();
    let disks = match envelope {
        Some(envelope) => envelope.disks(&files),
        None => files
            .into_iter()
            .map(|(file, size)| Disk {
                id: file.clone(),
                file: Some(file),
                file_size: Some(size),
                capacity: None,
                format: None,
                refused: None,
            })
            .collect(),
    };
    Ok(Contents {
        is_ova,
        disks,
        has_manifest: to_the_end.then_some(has_manifest),
    })
}

/// One disk of the archive that `inner` gives, as a source. `member` is its id, its file or its number
/// (from 1); without it the archive must hold one disk only.
pub(crate) fn open_member(
    mut inner: Box<dyn Source>,
    member: Option<&str>,
) -> crate::Result<Box<dyn Source>> {
    let name = inner.name();
    let fail = |source| crate::Error::Archive {
        name: name.clone(),
        source,
    };
    let wanted = Wanted::new(member);
    let Some(file) = inner.random() else {
        return Ok(Box::new(Member::in_stream(inner, wanted)));
    };
    let contents = contents(inner.as_mut())?;
    let disk = wanted.choose(&contents.disks).map_err(fail)?;
    let (place, manifest) = look_through(Walk::file(file), &disk).map_err(fail)?;
    Ok(Box::new(Member::at(inner, disk, place, manifest)))
}

/// Where `disk` is (offset, length), and the manifest, which the descriptor was checked against.
fn look_through(
    mut walk: Walk,
    disk: &Disk,
) -> Result<((u64, u64), Option<Manifest>), ArchiveError> {
    let mut manifest = None;
    let mut place = None;
    let mut descriptor = None;
    let mut first = true;
    while let Some(entry) = walk.next_file()? {
        if first && has_suffix(&entry.name, "ovf") {
            descriptor = Some((entry.name, walk.text(MOST_TEXT)?));
        } else if has_suffix(&entry.name, "mf") {
            manifest = Some(Manifest::parse(&walk.text(MOST_TEXT)?)?);
        } else if Some(&entry.name) == disk.file.as_ref() {
            place = Some((entry.at, entry.size));
        }
        first = false;
    }
    if let (Some(manifest), Some((file, text))) = (&manifest, &descriptor) {
        check_text(manifest, file, text)?;
    }
    Ok((place.ok_or_else(|| disk.missing())?, manifest))
}

fn has_suffix(name: &str, suffix: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(suffix))
}

impl Disk {
    fn missing(&self) -> ArchiveError {
        ArchiveError::Missing {
            disk: self.id.clone(),
            file: self.file.clone().unwrap_or_default(),
        }
    }
}
