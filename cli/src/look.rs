//! Opening an image to look at it: what `info` and `map` share.

use std::sync::Arc;

use longshore_image::{DenyAll, OpenGate, ReadAt, Reference, ReferenceKind};
use longshore_importer::SourceOptions;
use longshore_transfer::{Inspection, Options, inspect};

use crate::failure::Failure;
use crate::source::Place;

/// What to look at, and how.
#[derive(Debug)]
pub(crate) struct Look {
    /// Print JSON.
    pub(crate) json: bool,
    /// Files that the image names were let in.
    pub(crate) opens_references: bool,
    /// The image.
    pub(crate) place: Place,
    /// How to open it.
    pub(crate) options: Options,
    /// How to reach it.
    pub(crate) source_options: SourceOptions,
}

impl Look {
    /// What the source holds.
    pub(crate) fn inspect(&self) -> Result<Inspection, Failure> {
        let mut source = self.place.open(&self.source_options)?;
        Ok(inspect(source.as_mut(), &self.options)?)
    }
}

/// Opens nothing, and does without: enough to tell what an image is.
#[derive(Debug)]
pub(crate) struct Onlooker;

impl OpenGate for Onlooker {
    fn open(&self, reference: &Reference) -> longshore_image::Result<Arc<dyn ReadAt>> {
        match reference.kind {
            // Nobody reads the bytes of the disk.
            ReferenceKind::DataFile => Ok(Arc::new(Vec::<u8>::new())),
            _ => DenyAll.open(reference),
        }
    }

    fn nested(&self, _reference: &Reference) -> Arc<dyn OpenGate> {
        Arc::new(Self)
    }

    fn leaves_out(&self, _parent: &Reference) -> bool {
        true
    }
}
