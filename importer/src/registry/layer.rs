//! The layer with the disk, as a source.
//!
//! Its bytes are the layer's as it is stored, and must be as many as the manifest says, with its digest:
//! the engine hashes them, takes compression off, and hands what is left to the search. All of the layer
//! is read, so the digest is right before the disk is declared done; what comes after the disk shows
//! whether there is a second one.
//!
//! A layer that is stored unpacked, where it can be read at random, has its disk at random too. That is
//! for looking at it (`info`, `map`) and not for copying, for nothing checks it.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use longshore_image::{Error as ImageError, ErrorKind, Probe, ReadAt, probe};
use longshore_transfer::{
    Allowance, Checksum, Error as TransferError, Exchange, Finder, Fingerprint, Inside, Source,
};

use super::error::RegistryError;
use super::hunt::{Hidden, Hunt, short};
use super::manifest::Descriptor;
use crate::ArchiveError;
use crate::archive::Part;
use crate::archive::tape::BLOCK;

/// A layer in which the disk is, or nowhere.
pub(super) struct DiskLayer {
    name: String,
    layer: Box<dyn Source>,
    digest: Checksum,
    size: u64,
    hidden: Hidden,
    /// Where the disk is in it, once someone asked.
    placed: OnceLock<Option<Placed>>,
}

/// The disk in an unpacked layer.
struct Placed {
    disk: Arc<Part>,
    /// What the layer begins with.
    head: Vec<u8>,
}

impl DiskLayer {
    /// `layer` gives what `descriptor` describes. `name` is the image's.
    pub(super) fn new(
        name: &str,
        layer: Box<dyn Source>,
        descriptor: &Descriptor,
        hidden: Hidden,
    ) -> Result<Self, RegistryError> {
        if let Some(len) = layer.len()
            && len != descriptor.size
        {
            return Err(RegistryError::malformed(
                format!("the layer {}", descriptor.digest),
                format!(
                    "it has {len} bytes, and {} by its manifest",
                    descriptor.size
                ),
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            layer,
            digest: descriptor.digest.checksum(),
            size: descriptor.size,
            hidden,
            placed: OnceLock::new(),
        })
    }

    /// Where the disk is, if the layer is not packed and can be read at random.
    fn place(&self) -> Option<Placed> {
        let layer = self.layer.random()?;
        let len = usize::try_from(layer.len().min(BLOCK)).ok()?;
        let mut head = vec![0; len];
        layer.read_exact_at(&mut head, 0).ok()?;
        if matches!(probe(&head), Probe::Wrapper(_)) {
            return None;
        }
        let mut hunt = Hunt::at_random(self.what(), Arc::clone(&layer), self.hidden.clone());
        // What is wrong with it is said when it is read as a stream.
        let disk = hunt.next().ok().flatten()?;
        let end = disk.at.checked_add(disk.size)?;
        if end > layer.len() {
            return None;
        }
        Some(Placed {
            disk: Arc::new(Part::new(layer, disk.at..end)),
            head,
        })
    }

    /// What people know it as.
    pub(super) fn what(&self) -> String {
        format!(
            "the layer {}:{}",
            self.digest.algorithm.name(),
            self.digest.hex
        )
    }

    pub(super) fn hidden(&self) -> &Hidden {
        &self.hidden
    }
}

impl Source for DiskLayer {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn len(&self) -> Option<u64> {
        Some(self.size)
    }

    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        let placed = self.placed.get_or_init(|| self.place()).as_ref()?;
        let disk = Arc::clone(&placed.disk);
        Some(disk)
    }

    fn reopenable(&self) -> bool {
        self.layer.reopenable()
    }

    fn stream(&mut self) -> longshore_transfer::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Measured {
            what: self.what(),
            inner: self.layer.stream()?,
            left: self.size,
        }))
    }

    fn buffers(&mut self) -> longshore_transfer::Result<Option<Box<dyn Exchange>>> {
        let Some(inner) = self.layer.buffers()? else {
            return Ok(None);
        };
        Ok(Some(Box::new(Measured {
            what: self.what(),
            inner,
            left: self.size,
        })))
    }

    /// What it says it is, is not asked: registries have layers of every compression under every type.
    fn inside(&self, head: &[u8], _: bool) -> Inside {
        // The disk at random begins otherwise than the layer.
        if let Some(Some(placed)) = self.placed.get()
            && !head.starts_with(&placed.head)
        {
            return Inside::Image;
        }
        match probe(head) {
            Probe::Wrapper(wrapper) => Inside::Wrapped(wrapper),
            _ => Inside::Archive(Box::new(Search {
                name: self.name.clone(),
                what: self.what(),
                hidden: self.hidden.clone(),
            })),
        }
    }

    fn digest(&self) -> Option<Checksum> {
        Some(self.digest.clone())
    }

    /// The digest, which is checked; and what must not be found in it, for that decides which disk is.
    fn fingerprint(&self) -> Option<Fingerprint> {
        let mut state = self.what();
        if self.hidden != Hidden::default() {
            state = format!("{state} less {:?}", self.hidden);
        }
        Some(Fingerprint {
            place: self.name.clone(),
            state,
            len: Some(self.size),
        })
    }

    fn allowance(&self) -> Option<Allowance> {
        self.layer.allowance()
    }
}

/// A stream that must have a certain length.
struct Measured<R: ?Sized> {
    what: String,
    left: u64,
    inner: Box<R>,
}

impl<R: ?Sized> Measured<R> {
    /// So many bytes came, where `room` says whether any were asked for.
    fn count(&mut self, read: usize, room: bool) -> io::Result<usize> {
        let wrong = |how| {
            let error = RegistryError::malformed(&self.what, how);
            io::Error::new(io::ErrorKind::InvalidData, error)
        };
        if read as u64 > self.left {
            return Err(wrong("it goes on after the size that its manifest names"));
        }
        if read == 0 && self.left > 0 && room {
            return Err(wrong("it ends before the size that its manifest names"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl<R: Read + ?Sized> Read for Measured<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.count(read, !buf.is_empty())
    }
}

impl Exchange for Measured<dyn Exchange> {
    fn exchange(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let read = self.inner.exchange(buffer)?;
        self.count(read, !buffer.is_empty())
    }
}

/// Finds the disk.
#[derive(Debug)]
struct Search {
    name: String,
    what: String,
    hidden: Hidden,
}

impl Finder for Search {
    fn find(self: Box<Self>, archive: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        Box::new(Reading {
            hunt: Hunt::new(self.what, archive, self.hidden),
            name: self.name,
            state: State::Before,
        })
    }
}

/// The disk's bytes as the layer passes.
struct Reading {
    name: String,
    hunt: Hunt,
    state: State,
}

enum State {
    Before,
    Inside { path: String },
    Done,
}

impl Reading {
    fn find(&mut self) -> Result<State, RegistryError> {
        match self.hunt.next()? {
            Some(disk) => Ok(State::Inside { path: disk.path }),
            None => Err(self.hunt.none()),
        }
    }

    /// The disk has ended: it must have been the only one.
    fn look_behind(&mut self, path: &str) -> Result<(), RegistryError> {
        match self.hunt.next()? {
            Some(other) => Err(RegistryError::SeveralDisks {
                first: short(path),
                second: short(&other.path),
            }),
            None => Ok(()),
        }
    }
}

impl Read for Reading {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match &self.state {
                State::Before => {
                    self.state = self.find().map_err(|e| refusal(&self.name, e))?;
                }
                State::Inside { path } => {
                    let read = self.hunt.read(buf)?;
                    if read > 0 || buf.is_empty() {
                        return Ok(read);
                    }
                    let path = path.clone();
                    self.state = State::Done;
                    self.look_behind(&path)
                        .map_err(|e| refusal(&self.name, e))?;
                }
                State::Done => return Ok(0),
            }
        }
    }
}

/// An error as a reader gives it. What could not be read has its own error already.
pub(super) fn refusal(name: &str, error: RegistryError) -> io::Error {
    let kind = match error {
        RegistryError::Tar {
            source: ArchiveError::Read { source },
            ..
        } => return source,
        RegistryError::Unsupported { .. } => ErrorKind::Unsupported,
        _ => ErrorKind::Malformed,
    };
    let text = "no disk could be taken out of the container image";
    io::Error::other(TransferError::Image {
        context: format!("can't read {name}"),
        source: ImageError::new(kind, text).with_source(error),
    })
}
