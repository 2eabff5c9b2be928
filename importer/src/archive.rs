//! Disks inside archives: OVA (a tar with an OVF descriptor) and plain tar.
//!
//! [`open_member`] puts itself between a source and the engine: the disk that was chosen is a source of
//! its own, read in one pass over the archive, checked against the manifest on the way. What the disk's
//! bytes mean is left to the engine. Compressed archives, and those on
//! standard input, have no other way than that pass; compression is taken off by the engine.
//!
//! Sources: DMTF DSP0243 (OVF 1.1 and 2.1), sections 5 (package), 5.1 (manifest), 9.1 (disks).

mod error;
mod manifest;
mod member;
mod ovf;
mod packed;
pub(crate) mod sparse;
pub(crate) mod tape;
mod walk;

use std::path::Path;

use longshore_transfer::{Options, Source};

pub use self::error::ArchiveError;
use self::manifest::Manifest;
use self::member::{Member, Wanted, check_text};
use self::ovf::Envelope;
use self::packed::Packed;
pub(crate) use self::sparse::Part;
use self::sparse::Place;
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

/// How an archive can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As it is.
    Plain,
    /// Once its compression is taken off.
    Packed,
}

/// What the name of an archive says of it; `None` if it names none.
fn kind_of(name: &str) -> Option<Kind> {
    let path = name.split('?').next().unwrap_or(name);
    let path = Path::new(path);
    if ["ova", "tar"]
        .iter()
        .any(|suffix| has_suffix_of(path, suffix))
    {
        return Some(Kind::Plain);
    }
    let short = ["tgz", "txz", "tzst", "tbz2", "tbz"];
    if short.iter().any(|suffix| has_suffix_of(path, suffix)) {
        return Some(Kind::Packed);
    }
    let packed = ["gz", "xz", "zst", "bz2"];
    if packed.iter().any(|suffix| has_suffix_of(path, suffix)) {
        let inner = kind_of(path.file_stem()?.to_str()?)?;
        return (inner == Kind::Plain).then_some(Kind::Packed);
    }
    None
}

fn has_suffix_of(path: &Path, suffix: &str) -> bool {
    path.extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(suffix))
}

/// A source's name may choose a disk: `x.ova#vmdisk1`. Gives the name of the archive, what it is, and
/// the choice, if `spec` names an archive (by its suffix, `.ova` or `.tar`, and perhaps that of its
/// compression) at all.
pub(crate) fn split_member(spec: &str) -> Option<(&str, Kind, Option<&str>)> {
    if let Some((archive, member)) = spec.rsplit_once('#')
        && let Some(kind) = kind_of(archive)
    {
        let member = Some(member).filter(|member| !member.is_empty());
        return Some((archive, kind, member));
    }
    Some((spec, kind_of(spec)?, None))
}

/// Standard input, which may be an archive: it is one if a disk of it was chosen, else if its first
/// bytes say so.
pub(crate) fn on_stdin(inner: Box<dyn Source>, member: Option<&str>) -> Box<dyn Source> {
    Box::new(Packed::new(inner, Wanted::new(member), member.is_some()))
}

/// Lists the disks of an archive of this kind. Of a compressed one that is an OVA only the descriptor is
/// read.
pub(crate) fn contents_of(
    mut source: Box<dyn Source>,
    kind: Kind,
    options: &Options,
) -> crate::Result<Contents> {
    match kind {
        Kind::Plain => contents(source.as_mut()),
        Kind::Packed => packed::contents(source, options),
    }
}

/// Lists the disks of an archive. A source with random access is looked at from header to header; of a
/// stream only the descriptor is read, which is the first file of every OVA.
fn contents(source: &mut dyn Source) -> crate::Result<Contents> {
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
        files.push((entry.name, entry.place.size));
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
    kind: Kind,
    member: Option<&str>,
) -> crate::Result<Box<dyn Source>> {
    if kind == Kind::Packed {
        return Ok(Box::new(Packed::new(inner, Wanted::new(member), true)));
    }
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

/// Where `disk` is, and the manifest, which the descriptor was checked against.
fn look_through(mut walk: Walk, disk: &Disk) -> Result<(Place, Option<Manifest>), ArchiveError> {
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
            place = Some(entry.place);
        }
        first = false;
    }
    if let (Some(manifest), Some((file, text))) = (&manifest, &descriptor) {
        check_text(manifest, file, text)?;
    }
    Ok((place.ok_or_else(|| disk.missing())?, manifest))
}

fn has_suffix(name: &str, suffix: &str) -> bool {
    has_suffix_of(Path::new(name), suffix)
}

impl Disk {
    fn missing(&self) -> ArchiveError {
        ArchiveError::Missing {
            disk: self.id.clone(),
            file: self.file.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_an_archive_and_which_disk_is_wanted() {
        for (spec, expected) in [
            ("a.ova", Some(("a.ova", Kind::Plain, None))),
            ("a.TAR#d", Some(("a.TAR", Kind::Plain, Some("d")))),
            ("a.tar.gz", Some(("a.tar.gz", Kind::Packed, None))),
            ("a.tgz#1", Some(("a.tgz", Kind::Packed, Some("1")))),
            ("a.ova.xz#d", Some(("a.ova.xz", Kind::Packed, Some("d")))),
            ("a.tar.zst#", Some(("a.tar.zst", Kind::Packed, None))),
            (
                "http://h/a.tar.bz2?s=1#d",
                Some(("http://h/a.tar.bz2?s=1", Kind::Packed, Some("d"))),
            ),
            ("a.tar.gz.gz", None),
            ("a.raw.gz", None),
            ("tar.gz", None),
            ("gz", None),
            ("a.tar/b", None),
        ] {
            assert_eq!(split_member(spec), expected, "{spec}");
        }
    }
}
