//! Going on with a transfer that a journal tells of.

use std::sync::Arc;

use longshore_image::forward::Decoder;
use longshore_image::{Format, ReadAt};

use super::pieces::Pieces;
use super::stream::{Opening, Stream};
use super::{Layer, Outcome, Shared, digest_of};
use crate::budget::{Budget, Inner};
use crate::journal::{Around, Image, Kept, Point};
use crate::source::Inside;
use crate::{Error, Options, Result, Source};

/// So much of a stream is read again rather than gone past: what comes first are its tables.
const WORTH_IT: u64 = 1 << 20;
/// The beginning of an image is pushed in such pieces, until its decoder knows what it is.
const HEAD: u64 = 64 << 10;

/// What an earlier run knew.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) image: Image,
    point: Point,
}

impl Resumed {
    /// What there is to go on from, of which everybody is told.
    pub(super) fn of(kept: &Kept, shared: &mut Shared) -> Option<Self> {
        let contents = &kept.found.as_ref()?.contents;
        let done = contents.believed();
        let bytes = done.total();
        shared.progress.set_resumed(bytes);
        shared.progress.set_kept(true);
        shared.done = Some(Arc::new(done));
        tracing::info!(bytes, "going on with an earlier import");
        Some(Self {
            image: contents.image.clone()?,
            point: contents.point.clone(),
        })
    }

    /// Where to read on from.
    pub(super) fn opening(&self, source: &mut dyn Source, options: &Options) -> Result<Opening> {
        let hash = self.point.hash.clone();
        let from_start = Opening {
            from: None,
            hash: hash.clone(),
        };
        let Some(at) = self.point.stream.filter(|at| *at >= WORTH_IT) else {
            return Ok(from_start);
        };
        // Tables that have passed can be looked up only where nobody asks for a digest of them.
        let anywhere = self.image.format == Format::Raw;
        let side = digest_of(source, options).is_none() && source.random().is_some();
        if !self.image.around.is_empty() || !(anywhere || side) {
            return Ok(from_start);
        }
        Ok(match source.stream_at(at)? {
            Some(reader) => Opening {
                from: Some((at, reader)),
                hash,
            },
            None => from_start,
        })
    }
}

/// Takes off what was found around the image.
pub(super) fn unwrap(
    mut stream: Stream,
    around: Around,
    inside: Inner,
    source: &dyn Source,
    options: &Options,
    budget: &mut Budget,
    shared: &Shared,
) -> Result<(Stream, Layer), Outcome> {
    let head = stream.peek(longshore_image::PROBE_LEN)?.to_owned();
    match around {
        Around::Wrapper(wrapper) => {
            let (inner, given) = stream.unwrap(wrapper, inside, options.threads, budget, shared)?;
            Ok((inner, Layer::Wrapper(wrapper, given)))
        }
        Around::Archive => match source.inside(&head, options.from.is_some()) {
            Inside::Archive(finder) => {
                let inner = stream.find(finder, Some(budget), shared)?;
                Ok((inner, Layer::Archive(head)))
            }
            _ => Err(Outcome::Error(changed(shared))),
        },
    }
}

/// Has `decoder` go on at `at`. What it has to know of the bytes before comes from `side`.
pub(super) fn skip_to(
    decoder: &mut dyn Decoder,
    at: u64,
    side: Option<&dyn ReadAt>,
    pieces: &mut Pieces,
    shared: &Shared,
) -> Result<(), Outcome> {
    let mut pos = 0;
    while pos < at {
        if decoder.skip_to(at, pieces).map_err(|e| pieces.error(e))? {
            return Ok(());
        }
        shared.check()?;
        let Some(side) = side else {
            return Err(Outcome::Error(changed(shared)));
        };
        let mut head = vec![0; HEAD.min(at - pos) as usize];
        side.read_exact_at(&mut head, pos)
            .map_err(|e| Error::Source {
                name: shared.name.to_string(),
                source: Box::new(e),
            })?;
        shared.progress.add_read(head.len() as u64);
        decoder.push(&head, pieces).map_err(|e| pieces.error(e))?;
        pos += head.len() as u64;
    }
    Ok(())
}

fn changed(shared: &Shared) -> Error {
    Error::SourceChanged {
        name: shared.name.to_string(),
        what: "the image is not the one that the journal tells of".to_owned(),
    }
}
