//! Opening an image to look at it: what `info` and `map` share.

use longshore_transfer::{Inspection, Options, inspect};

use crate::failure::Failure;
use crate::source::Place;

/// What to look at, and how.
#[derive(Debug)]
pub(crate) struct Look {
    /// Print JSON.
    pub(crate) json: bool,
    /// The image.
    pub(crate) place: Place,
    /// How to open it.
    pub(crate) options: Options,
    /// Do without locks.
    pub(crate) force_share: bool,
}

impl Look {
    /// The source's name for people, and what it holds.
    pub(crate) fn inspect(&self) -> Result<Inspection, Failure> {
        let mut source = self.place.open(self.force_share)?;
        Ok(inspect(source.as_mut(), &self.options)?)
    }
}
