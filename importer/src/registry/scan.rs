//! Looking into a layer without taking its disk out.
//!
//! The engine takes compression off and checks the digest, as it does for an import; what it finds in
//! the layer is noted here instead of copied. The look ends at the first disk. A layer without one is
//! read to its end and must have its digest, for what it takes away counts.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use longshore_transfer::{
    Allowance, Checksum, Error as TransferError, Finder, Inside, Options, Source, inspect,
};

use super::error::RegistryError;
use super::hunt::{Hidden, Hunt};
use super::layer::DiskLayer;
use crate::ArchiveError;

/// What a layer has.
pub(super) enum Seen {
    /// A disk.
    Disk(DiskLayer),
    /// None, and what is hidden from the layers below.
    Nothing(Hidden),
}

type Note = Arc<Mutex<Option<Result<Option<Hidden>, RegistryError>>>>;

/// Looks into `layer`.
pub(super) fn scan(layer: DiskLayer) -> Result<Seen, RegistryError> {
    let note = Note::default();
    let mut look = Look {
        layer,
        note: Arc::clone(&note),
    };
    let outcome = inspect(&mut look, &Options::default());
    let noted = note.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (noted, outcome) {
        (Some(Ok(None)), _) => Ok(Seen::Disk(look.layer)),
        (Some(Err(e)), _) => Err(e),
        // Nothing was handed on, and the engine may say that nothing is no image; what it says of the
        // layer's own bytes counts.
        (Some(Ok(Some(hidden))), Ok(_) | Err(TransferError::Image { .. })) => {
            Ok(Seen::Nothing(hidden))
        }
        (_, Err(e)) => Err(RegistryError::Layer {
            source: Box::new(e.into()),
        }),
        (None, Ok(_)) => Err(RegistryError::malformed(look.layer.what(), "it is no tar")),
    }
}

struct Look {
    layer: DiskLayer,
    note: Note,
}

impl Source for Look {
    fn name(&self) -> String {
        self.layer.name()
    }

    fn len(&self) -> Option<u64> {
        self.layer.len()
    }

    fn random(&self) -> Option<Arc<dyn longshore_image::ReadAt>> {
        None
    }

    fn reopenable(&self) -> bool {
        false
    }

    fn stream(&mut self) -> longshore_transfer::Result<Box<dyn Read + Send>> {
        self.layer.stream()
    }

    fn inside(&self, head: &[u8], decided: bool) -> Inside {
        match self.layer.inside(head, decided) {
            Inside::Archive(_) => Inside::Archive(Box::new(Looker {
                what: self.layer.what(),
                hidden: self.layer.hidden().clone(),
                note: Arc::clone(&self.note),
            })),
            other => other,
        }
    }

    fn digest(&self) -> Option<Checksum> {
        self.layer.digest()
    }

    fn allowance(&self) -> Option<Allowance> {
        self.layer.allowance()
    }
}

#[derive(Debug)]
struct Looker {
    what: String,
    hidden: Hidden,
    note: Note,
}

impl Finder for Looker {
    fn find(self: Box<Self>, archive: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        Box::new(Once {
            hunt: Some(Hunt::new(self.what, archive, self.hidden)),
            note: self.note,
        })
    }
}

/// Looks when it is read, and has nothing to give.
struct Once {
    hunt: Option<Hunt>,
    note: Note,
}

impl Read for Once {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let Some(mut hunt) = self.hunt.take() else {
            return Ok(0);
        };
        let (seen, more) = match hunt.next() {
            Ok(Some(_)) => (Ok(None), false),
            Ok(None) => (Ok(Some(hunt.hides())), true),
            // A stream that broke off has its own story, which the engine tells.
            Err(RegistryError::Tar {
                source: ArchiveError::Read { source },
                ..
            }) => return Err(source),
            Err(e) => (Err(e), false),
        };
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        if more {
            // The rest is read for its digest.
            return Ok(0);
        }
        Err(io::Error::other("only a look was wanted"))
    }
}
