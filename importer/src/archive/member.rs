//! One disk of an archive, as a source.
//!
//! The archive's stream is read in order and once: what is in front of the disk is skipped, the disk is
//! handed on and hashed, and its end is only told once its digest is right. Where the manifest comes
//! after the disk (`VirtualBox`) and could not be read in advance, the rest of the archive is read too.

use std::io::{self, Read};
use std::sync::Arc;

use longshore_image::{Error as ImageError, ErrorKind, ReadAt};
use longshore_transfer::{
    Algorithm, Allowance, Checksum, Error as TransferError, Fingerprint, Hasher, Source,
};

use super::manifest::Manifest;
use super::ovf::Envelope;
use super::sparse::{Part, Place};
use super::walk::{Entry, Walk};
use super::{ArchiveError, Disk, MOST_TEXT, has_suffix};

/// Files of an archive that are named where one must be chosen, at the most.
const MOST_NAMED: usize = 50;

/// Which disk is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted(Option<String>);

impl Wanted {
    pub(super) fn new(member: Option<&str>) -> Self {
        Self(member.map(str::to_owned))
    }

    /// The name of the archive with the disk's behind it.
    pub(super) fn of(&self, archive: &str) -> String {
        match &self.0 {
            Some(member) => format!("{archive}#{member}"),
            None => archive.to_owned(),
        }
    }

    /// The disk, if it can be imported.
    pub(super) fn choose(&self, disks: &[Disk]) -> Result<Disk, ArchiveError> {
        let ids = || disks.iter().map(|disk| disk.id.clone()).collect();
        let disk = if let Some(wanted) = &self.0 {
            let by_name = disks
                .iter()
                .find(|disk| disk.id == *wanted || disk.file.as_ref() == Some(wanted));
            let by_number = || disks.get(wanted.parse::<usize>().ok()?.checked_sub(1)?);
            by_name
                .or_else(by_number)
                .ok_or_else(|| ArchiveError::NoSuchDisk {
                    wanted: wanted.clone(),
                    disks: ids(),
                })?
        } else {
            let mut usable = disks.iter().filter(|disk| disk.refused.is_none());
            match (usable.next(), usable.next(), disks) {
                (Some(only), None, _) | (None, _, [only]) => only,
                (Some(_), Some(_), _) => return Err(ArchiveError::Choose { disks: ids() }),
                (None, ..) => {
                    return Err(ArchiveError::malformed(
                        "it holds no disk that can be imported",
                    ));
                }
            }
        };
        match disk.refused {
            Some(why) => Err(ArchiveError::Unsupported {
                what: format!("disk {} ({why})", disk.id),
                next: "import another disk, or export the machine again as one self-contained OVA",
            }),
            None => Ok(disk.clone()),
        }
    }
}

/// The chosen disk.
pub(super) struct Member {
    inner: Box<dyn Source>,
    wanted: Wanted,
    /// Where the disk is and what it must be, if the archive could be looked at in advance.
    known: Option<Known>,
}

struct Known {
    disk: Disk,
    place: Place,
    manifest: Option<Manifest>,
}

impl Member {
    /// The disk at `place` of an archive that was looked through.
    pub(super) fn at(
        inner: Box<dyn Source>,
        disk: Disk,
        place: Place,
        manifest: Option<Manifest>,
    ) -> Self {
        let wanted = Wanted(Some(disk.id.clone()));
        Self {
            inner,
            wanted,
            known: Some(Known {
                disk,
                place,
                manifest,
            }),
        }
    }

    /// A disk that will be found as the archive passes.
    pub(super) fn in_stream(inner: Box<dyn Source>, wanted: Wanted) -> Self {
        Self {
            inner,
            wanted,
            known: None,
        }
    }
}

impl Source for Member {
    fn name(&self) -> String {
        self.wanted.of(&self.inner.name())
    }

    fn len(&self) -> Option<u64> {
        self.known.as_ref().map(|known| known.place.size)
    }

    /// For tables on the side, and for looking: it is not checked against the manifest.
    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        let known = self.known.as_ref()?;
        let archive = self.inner.random()?;
        Some(Arc::new(Part::of(archive, known.place.clone())))
    }

    fn reopenable(&self) -> bool {
        self.inner.reopenable()
    }

    fn stream(&mut self) -> longshore_transfer::Result<Box<dyn Read + Send>> {
        let name = self.name();
        // In a local file nothing in front of the disk has to pass.
        let walk = match self.inner.random() {
            Some(file) if self.inner.prefers_random() => Walk::file(file),
            _ => Walk::stream(self.inner.stream()?),
        };
        let manifest = self.known.as_ref().and_then(|known| known.manifest.clone());
        let disk = self.known.as_ref().map(|known| known.disk.clone());
        Ok(Box::new(Reading {
            name,
            walk,
            wanted: self.wanted.clone(),
            disk,
            looked_through: self.known.is_some(),
            manifest,
            state: State::Before,
        }))
    }

    fn identity(&self) -> Option<(u64, u64)> {
        self.inner.identity()
    }

    fn allowance(&self) -> Option<Allowance> {
        self.inner.allowance()
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let archive = self.inner.fingerprint()?;
        Some(Fingerprint {
            place: self.wanted.of(&archive.place),
            ..archive
        })
    }

    fn lasts(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        self.inner.lasts(error)
    }
}

/// The disk's bytes as the archive passes.
pub(super) struct Reading {
    name: String,
    walk: Walk,
    wanted: Wanted,
    disk: Option<Disk>,
    /// All that the manifest could say is known.
    looked_through: bool,
    manifest: Option<Manifest>,
    state: State,
}

enum State {
    Before,
    Inside { file: String, digests: Digests },
    Done,
}

/// What the manifest asks for, or what it may ask for once it comes.
struct Digests(Vec<(Algorithm, Hasher)>);

impl Digests {
    fn of(algorithms: &[Algorithm]) -> Self {
        let hashers = algorithms.iter().map(|&a| (a, Hasher::new(a)));
        Self(hashers.collect())
    }

    fn update(&mut self, bytes: &[u8]) {
        for (_, hasher) in &mut self.0 {
            hasher.update(bytes);
        }
    }

    /// Compares with `expected`; false if it was not computed.
    fn check(self, name: &str, expected: &Checksum) -> Result<bool, TransferError> {
        let found = self.0.into_iter().find(|(a, _)| *a == expected.algorithm);
        let Some((_, hasher)) = found else {
            return Ok(false);
        };
        let computed = hasher.hex();
        if computed == expected.hex {
            return Ok(true);
        }
        Err(TransferError::Checksum {
            name: name.to_owned(),
            algorithm: expected.algorithm.name(),
            expected: expected.hex.clone(),
            computed,
        })
    }
}

/// An error of the archive as a reader gives it. What could not be read has its own error already.
pub(super) fn refusal(name: &str, error: ArchiveError) -> io::Error {
    let kind = match &error {
        ArchiveError::Read { .. } => {
            let ArchiveError::Read { source } = error else {
                return io::Error::other(error);
            };
            return source;
        }
        ArchiveError::Unsupported { .. } => ErrorKind::Unsupported,
        ArchiveError::Choose { .. } | ArchiveError::NoSuchDisk { .. } => ErrorKind::Misuse,
        _ => ErrorKind::Malformed,
    };
    let text = "no disk could be taken out of the archive";
    io::Error::other(TransferError::Image {
        context: format!("can't read {name}"),
        source: ImageError::new(kind, text).with_source(error),
    })
}

impl Reading {
    /// A disk that is searched for in an archive of which nothing is known.
    pub(super) fn forward(name: String, walk: Walk, wanted: Wanted) -> Self {
        Self {
            name,
            walk,
            wanted,
            disk: None,
            looked_through: false,
            manifest: None,
            state: State::Before,
        }
    }

    /// Goes to the disk. Descriptor and manifest are taken in on the way.
    fn find(&mut self) -> Result<State, ArchiveError> {
        let mut first = true;
        let mut descriptor: Option<(String, Vec<u8>)> = None;
        loop {
            let Some(entry) = self.walk.next_file()? else {
                let disk = self.disk.take();
                return Err(disk.map_or_else(
                    || ArchiveError::malformed("it holds no disk"),
                    |disk| disk.missing(),
                ));
            };
            if self.disk.is_none() && first && has_suffix(&entry.name, "ovf") {
                let text = self.walk.text(MOST_TEXT)?;
                let disks = Envelope::parse(&text)?.disks(&[]);
                self.disk = Some(self.wanted.choose(&disks)?);
                descriptor = Some((entry.name, text));
            } else if has_suffix(&entry.name, "mf") && !self.looked_through {
                let manifest = Manifest::parse(&self.walk.text(MOST_TEXT)?)?;
                if let Some((file, text)) = &descriptor {
                    check_text(&manifest, file, text)?;
                }
                self.manifest = Some(manifest);
            } else if self.is_wanted(&entry) {
                return Ok(self.enter(entry));
            }
            first = false;
        }
    }

    fn is_wanted(&self, entry: &Entry) -> bool {
        match (&self.disk, &self.wanted.0) {
            (Some(disk), _) => disk.file.as_ref() == Some(&entry.name),
            (None, Some(wanted)) => *wanted == entry.name,
            // A plain tar in a stream: its first file, and `finish` sees to it that it is the only one.
            (None, None) => true,
        }
    }

    fn enter(&self, entry: Entry) -> State {
        let expected = self.manifest.as_ref().and_then(|m| m.digest(&entry.name));
        let digests = match expected {
            Some(expected) => Digests::of(&[expected.algorithm]),
            None if self.manifest.is_some() => {
                tracing::warn!(
                    file = entry.name,
                    "the manifest does not name the disk: it can't be checked"
                );
                Digests::of(&[])
            }
            None if self.looked_through => Digests::of(&[]),
            // It may still come, and these two are what writers use.
            None => Digests::of(&[Algorithm::Sha1, Algorithm::Sha256]),
        };
        State::Inside {
            file: entry.name,
            digests,
        }
    }

    /// What comes after the disk may be its manifest, or show that it had to be chosen.
    fn look_behind(&mut self, file: &str) -> Result<(), ArchiveError> {
        let alone = self.disk.is_none() && self.wanted.0.is_none();
        if self.manifest.is_some() && !alone {
            return Ok(());
        }
        let mut disks = vec![file.to_owned()];
        while let Some(entry) = self.walk.next_file()? {
            if has_suffix(&entry.name, "mf") {
                self.manifest = Some(Manifest::parse(&self.walk.text(MOST_TEXT)?)?);
                break;
            }
            disks.push(entry.name);
            if disks.len() > MOST_NAMED {
                break;
            }
        }
        if alone && disks.len() > 1 {
            return Err(ArchiveError::Choose { disks });
        }
        Ok(())
    }

    /// The disk has ended: looks whether it was what it should be.
    fn finish(&mut self, file: &str, digests: Digests) -> io::Result<()> {
        if !self.looked_through {
            self.look_behind(file).map_err(|e| refusal(&self.name, e))?;
        }
        let Some(expected) = self.manifest.as_ref().and_then(|m| m.digest(file)) else {
            return Ok(());
        };
        let checked = digests
            .check(&self.name, expected)
            .map_err(io::Error::other)?;
        if !checked {
            tracing::warn!(
                algorithm = expected.algorithm.name(),
                "the disk was not checked: the manifest comes after it in a stream and asks for another digest"
            );
        }
        Ok(())
    }
}

/// The descriptor itself is in the manifest too.
pub(super) fn check_text(manifest: &Manifest, file: &str, text: &[u8]) -> Result<(), ArchiveError> {
    let Some(expected) = manifest.digest(file) else {
        return Ok(());
    };
    let mut digests = Digests::of(&[expected.algorithm]);
    digests.update(text);
    match digests.check(file, expected) {
        Ok(_) => Ok(()),
        Err(e) => Err(ArchiveError::malformed(e.to_string())),
    }
}

impl Read for Reading {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.state {
                State::Before => {
                    self.state = self.find().map_err(|e| refusal(&self.name, e))?;
                }
                State::Inside { digests, .. } => {
                    let read = self.walk.read(buf)?;
                    digests.update(&buf[..read]);
                    if read > 0 || buf.is_empty() {
                        return Ok(read);
                    }
                    let State::Inside { file, digests } =
                        std::mem::replace(&mut self.state, State::Done)
                    else {
                        return Ok(0);
                    };
                    self.finish(&file, digests)?;
                }
                State::Done => return Ok(0),
            }
        }
    }
}
