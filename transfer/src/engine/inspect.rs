//! Looking at an image without copying it: what `info` and `map` need.

use std::ops::Range;

use longshore_image::chain::Chain;
use longshore_image::forward::{self, Emit, Geometry, PieceKind};
use longshore_image::{Error as ImageError, ErrorKind, Info, Limits, Wrapper};

use super::stream::Opening;
use super::{
    Options, Outcome, Shared, Unwrapped, image_in, known, open_chain, stream_decoder, unwrap_all,
    wrappers_of,
};
use crate::budget::Budget;
use crate::cancel::Failure;
use crate::phases::Clocks;
use crate::{Cancel, Error, Progress, Result, Source};

/// What a source holds.
#[derive(Debug)]
pub struct Inspection {
    /// The image.
    pub info: Info,
    /// Size of the guest's disk in bytes; `None` if only the end of the stream tells.
    pub virtual_size: Option<u64>,
    /// Compressed streams around it, outermost first.
    pub wrappers: Vec<Wrapper>,
    /// Length of the source in bytes, if known.
    pub source_len: Option<u64>,
    /// The image with random access, if the source and its wrappers allow that.
    pub chain: Option<Chain>,
}

/// Reads as little of `source` as tells what it is: tables at random where that works, else the
/// stream up to the image's header.
pub fn inspect(source: &mut dyn Source, options: &Options) -> Result<Inspection> {
    let shared = Shared {
        failure: Failure::default(),
        cancel: Cancel::default(),
        progress: Progress::default(),
        clocks: Clocks::default(),
        name: source.name().into(),
        recorder: None,
        done: None,
    };
    let options = &known(source, options);
    let mut budget = Budget::new(options.memory)?;
    let source_len = source.len();
    if let Some(file) = source.random()
        && let Some(format) = image_in(source, file.as_ref(), options, &shared.name)?
    {
        let (tables, waiting) = budget.tables()?;
        let limits = Limits::with_table_bytes(tables + waiting);
        let chain = open_chain(format, file, options, &limits, &shared)?;
        let info = chain.top().map(|top| top.info());
        let Some(info) = info else {
            return Err(Error::Interrupted);
        };
        return Ok(Inspection {
            virtual_size: Some(info.virtual_size),
            info,
            wrappers: Vec::new(),
            source_len,
            chain: Some(chain),
        });
    }
    let outcome = stream_header(source, options, budget, &shared);
    // Stages that are still at work find their pools closed.
    let first = shared.failure.take();
    let _ = shared.failure.fail(Error::Interrupted);
    match outcome {
        Ok((geometry, wrappers)) => Ok(Inspection {
            virtual_size: geometry.virtual_size,
            info: geometry.info,
            wrappers,
            source_len,
            chain: None,
        }),
        Err(Outcome::Error(e)) => Err(e),
        Err(Outcome::Stopped) => Err(first.unwrap_or(Error::Interrupted)),
    }
}

fn stream_header(
    source: &mut dyn Source,
    options: &Options,
    mut budget: Budget,
    shared: &Shared,
) -> Result<(Geometry, Vec<Wrapper>), Outcome> {
    let opening = Opening::default();
    let unwrapped = unwrap_all(source, opening, options, None, false, &mut budget, shared)?;
    let (wrappers, plain) = (wrappers_of(&unwrapped.layers), unwrapped.layers.is_empty());
    let Unwrapped {
        mut stream, format, ..
    } = unwrapped;
    let (tables, waiting) = budget.tables()?;
    let hints = forward::Options {
        limits: Limits::with_table_bytes(tables),
        hold: Box::new(forward::MemoryHold::new(waiting)),
        side: None,
        reopenable: false,
        stream_len: if plain { source.len() } else { None },
    };
    let (mut decoder, _) = stream_decoder(format, options, hints).map_err(|e| shared.image(e))?;
    let mut header = Header(None);
    while let Some(chunk) = stream.next()? {
        let pushed = decoder.push(&chunk.bytes[chunk.range.clone()], &mut header);
        if let Some(geometry) = header.0.take() {
            return Ok((geometry, wrappers));
        }
        pushed.map_err(|e| shared.image(e))?;
        stream.give_back(chunk);
    }
    let finished = decoder.finish(&mut header);
    match header.0.take() {
        Some(geometry) => Ok((geometry, wrappers)),
        None => Err(finished
            .err()
            .map_or_else(|| Outcome::Stopped, |e| Outcome::Error(shared.image(e)))),
    }
}

/// Catches the geometry and stops.
struct Header(Option<Geometry>);

impl Emit for Header {
    fn geometry(&mut self, geometry: &Geometry) -> longshore_image::Result<()> {
        self.0 = Some(geometry.clone());
        Err(ImageError::new(
            ErrorKind::Misuse,
            "only the header was wanted",
        ))
    }

    fn piece(&mut self, _: Range<u64>, _: PieceKind, _: &[u8]) -> longshore_image::Result<()> {
        Ok(())
    }
}
