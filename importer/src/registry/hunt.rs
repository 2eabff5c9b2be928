//! The search for the one file in `disk/` of a layer.
//!
//! A layer is a change to what lies below: entries with names that begin with `.wh.` take things away
//! (OCI image specification, "Whiteouts"). Only names are looked at; nothing is ever unpacked.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use longshore_image::ReadAt;

use super::entries::{Entries, Entry};
use super::error::RegistryError;

/// The directory with the disk.
const DIRECTORY: &str = "disk";
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// Most names that one image takes away.
const MOST_NAMES: usize = 10_000;

/// What upper layers take away from lower ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hidden {
    all: bool,
    names: BTreeSet<String>,
}

impl Hidden {
    /// Nothing of the lower layers' `disk/` is left.
    pub(super) fn all(&self) -> bool {
        self.all
    }
}

/// A search through one layer.
pub(super) struct Hunt {
    entries: Entries,
    /// What layers above take away from this one.
    hidden: Hidden,
    /// What this one takes away from those below.
    hides: Hidden,
    what: String,
    /// Something that would have been the disk, had it lain elsewhere.
    nearly: Option<String>,
}

/// What a name means.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Elsewhere,
    /// The directory itself, or whatever stands in its place.
    Directory,
    /// Directly in it.
    Inside(&'a str),
    /// Deeper in it.
    Deeper,
    /// All of it is taken away.
    TakesAll,
    /// One name in it is taken away.
    Takes(&'a str),
    /// Up and out.
    Escapes,
}

fn place(path: &str) -> Place<'_> {
    let mut parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let (first, second, third) = (parts.next(), parts.next(), parts.next());
    if [first, second, third].contains(&Some("..")) || parts.any(|part| part == "..") {
        return Place::Escapes;
    }
    match (first, second, third) {
        (Some(OPAQUE | ".wh.disk"), None, _) | (Some(DIRECTORY), Some(OPAQUE), None) => {
            Place::TakesAll
        }
        (Some(DIRECTORY), None, _) => Place::Directory,
        (Some(DIRECTORY), Some(name), None) => match name.strip_prefix(WHITEOUT) {
            // AUFS' own bookkeeping hides nothing.
            Some(taken) if taken.starts_with(WHITEOUT) => Place::Elsewhere,
            Some(taken) => Place::Takes(taken),
            None => Place::Inside(name),
        },
        (Some(DIRECTORY), Some(_), Some(_)) => Place::Deeper,
        _ => Place::Elsewhere,
    }
}

impl Hunt {
    /// A search through the unpacked layer that `what` names.
    pub(super) fn new(what: String, layer: Box<dyn Read + Send>, hidden: Hidden) -> Self {
        Self::through(what, Entries::stream(layer), hidden)
    }

    /// The same through one with random access, from header to header.
    pub(super) fn at_random(what: String, layer: Arc<dyn ReadAt>, hidden: Hidden) -> Self {
        Self::through(what, Entries::file(layer), hidden)
    }

    fn through(what: String, entries: Entries, hidden: Hidden) -> Self {
        Self {
            entries,
            hidden,
            hides: Hidden::default(),
            what,
            nearly: None,
        }
    }

    /// Goes on to the next disk, which can then be read. `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, RegistryError> {
        loop {
            let entry = self.entries.next().map_err(|source| RegistryError::Tar {
                what: self.what.clone(),
                source,
            })?;
            let Some(entry) = entry else { return Ok(None) };
            match place(&entry.path) {
                Place::Elsewhere => {}
                Place::Escapes => {
                    return Err(RegistryError::malformed(
                        &self.what,
                        format!("the entry {:?} leads out of the image", short(&entry.path)),
                    ));
                }
                Place::Directory if entry.kind.is_dir() => {}
                Place::Directory => {
                    self.hides.all = true;
                    self.nearly = Some("disk is no directory in it".to_owned());
                }
                Place::Deeper => {
                    self.nearly.get_or_insert_with(|| {
                        format!("{:?} lies deeper than directly in disk", short(&entry.path))
                    });
                }
                Place::TakesAll => self.hides.all = true,
                Place::Takes(name) => self.take(name)?,
                Place::Inside(name) if self.hidden.names.contains(name) => {}
                Place::Inside(name) if entry.kind.is_dir() => {
                    let name = name.to_owned();
                    self.take(&name)?;
                }
                Place::Inside(_) => return self.disk(entry).map(Some),
            }
        }
    }

    fn take(&mut self, name: &str) -> Result<(), RegistryError> {
        if self.hides.names.len() >= MOST_NAMES {
            return Err(RegistryError::malformed(
                &self.what,
                format!("it takes more than {MOST_NAMES} files away from disk"),
            ));
        }
        self.hides.names.insert(name.to_owned());
        Ok(())
    }

    /// It is one, if it can be read.
    fn disk(&self, entry: Entry) -> Result<Entry, RegistryError> {
        let unsupported = |what: String, next| Err(RegistryError::Unsupported { what, next });
        let path = short(&entry.path);
        if entry.sparse {
            return unsupported(
                format!("the sparse file {path:?} in the image"),
                "build the image with a tool that writes plain files, such as podman or docker",
            );
        }
        if entry.kind.is_symlink() || entry.kind.is_hard_link() {
            let link = short(entry.link.as_deref().unwrap_or(""));
            return unsupported(
                format!("the link {path:?} (to {link:?}) in the place of a disk"),
                "put the disk itself into the image's directory disk",
            );
        }
        if !entry.kind.is_file() && !entry.kind.is_contiguous() {
            return Err(RegistryError::malformed(
                &self.what,
                format!("{path:?} is no file"),
            ));
        }
        Ok(entry)
    }

    /// Why there is none, at the end.
    pub(super) fn none(&self) -> RegistryError {
        let why = self.nearly.clone().unwrap_or_else(|| {
            "it has no file in its directory disk (see KubeVirt's container disks)".to_owned()
        });
        RegistryError::NoDisk { why }
    }

    /// What upper layers and this one take away from those below.
    pub(super) fn hides(self) -> Hidden {
        let mut hidden = self.hidden;
        hidden.all |= self.hides.all;
        hidden.names.extend(self.hides.names);
        hidden
    }
}

/// Reads the disk at hand.
impl Read for Hunt {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.entries.read(buf)
    }
}

/// A name for people: hostile ones have a megabyte.
pub(super) fn short(name: &str) -> String {
    name.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use tar::EntryType;

    use super::*;

    fn tar(entries: &[(&str, EntryType)]) -> Box<dyn Read + Send> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind) in entries {
            let mut header = tar::Header::new_gnu();
            // As it is: the crate would tidy it up.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
        }
        Box::new(std::io::Cursor::new(builder.into_inner().unwrap()))
    }

    const FILE: EntryType = EntryType::Regular;

    fn hunt(entries: &[(&str, EntryType)], hidden: &Hidden) -> Hunt {
        Hunt::new("a layer".to_owned(), tar(entries), hidden.clone())
    }

    fn found(entries: &[(&str, EntryType)]) -> Vec<String> {
        let mut hunt = hunt(entries, &Hidden::default());
        std::iter::from_fn(|| Some(hunt.next().unwrap()?.path)).collect()
    }

    #[test]
    fn only_files_directly_in_disk_are_disks() {
        let files = [
            ("etc/disk/a", FILE),
            ("disk/", EntryType::Directory),
            ("disk/deep/er", FILE),
            ("disks/a", FILE),
            ("disk", EntryType::Directory),
            ("./disk/b", FILE),
            ("/disk//c", FILE),
            ("disk/.wh.d", FILE),
            ("disk/.wh..wh.plnk", FILE),
        ];
        assert_eq!(found(&files), ["./disk/b", "/disk//c"]);
    }

    #[test]
    fn what_is_taken_away_is_told_and_not_found_below() {
        let mut top = hunt(&[("disk/.wh.a", FILE), ("x", FILE)], &Hidden::default());
        assert_eq!(top.next().unwrap(), None);
        let hidden = top.hides();
        assert!(!hidden.all());
        let mut below = hunt(&[("disk/a", FILE), ("disk/b", FILE)], &hidden);
        assert_eq!(below.next().unwrap().unwrap().path, "disk/b");
        for all in [
            ".wh.disk",
            "disk/.wh..wh..opq",
            ".wh..wh..opq",
            "./.wh.disk",
        ] {
            let mut hunt = hunt(&[(all, FILE)], &Hidden::default());
            assert_eq!(hunt.next().unwrap(), None);
            assert!(hunt.hides().all(), "{all}");
        }
        let mut replaced = hunt(&[("disk", EntryType::Symlink)], &Hidden::default());
        assert_eq!(replaced.next().unwrap(), None);
        assert!(replaced.none().to_string().contains("no directory"));
        assert!(replaced.hides().all());
    }

    #[test]
    fn a_layer_does_not_take_away_what_it_brings() {
        let files = [("disk/.wh..wh..opq", FILE), ("disk/a", FILE)];
        assert_eq!(found(&files), ["disk/a"]);
    }

    #[test]
    fn links_devices_and_ways_out_are_refused() {
        for (path, kind) in [
            ("disk/a", EntryType::Symlink),
            ("disk/a", EntryType::Link),
            ("disk/a", EntryType::Fifo),
            ("disk/a", EntryType::Block),
            ("disk/a", EntryType::GNUSparse),
            ("disk/../disk/a", FILE),
            ("../disk/a", FILE),
            ("a/b/c/d/../../x", FILE),
        ] {
            let mut hunt = hunt(&[(path, kind)], &Hidden::default());
            assert!(hunt.next().is_err(), "{path} {kind:?}");
        }
    }
}
