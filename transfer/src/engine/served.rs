//! A raw disk that a server hands out in pieces: they become tasks as they come.

use std::ops::Range;

use longshore_image::cluster::ClusterCodec;
use longshore_image::forward::{Emit, Geometry, PieceKind};
use longshore_image::{Compression, Error as ImageError, Format, Info};

use super::pieces::Pieces;
use super::{Done, Options, Outcome, Shared};
use crate::budget::Budget;
use crate::served::{Piece, Served};
use crate::target::Target;
use crate::written::Written;
use crate::{Error, Result, Source};

/// What is there already is asked for again if it is smaller.
const SMALL: u64 = 512 << 10;

/// The disk as its server hands it out, unless a digest of all its bytes is wanted, or the bytes are said
/// to be an image of another format.
pub(super) fn disk(source: &mut dyn Source, options: &Options) -> Result<Option<Box<dyn Served>>> {
    let changes = source.changes_only();
    let plain = options.checksum.is_none() && options.from == Some(Format::Raw);
    let disk = if plain { source.served()? } else { None };
    if changes && disk.is_none() {
        let text = "changes of a disk are raw bytes, and have no digest of their own";
        return Err(Error::image(
            format!("can't apply {}", source.name()),
            ImageError::new(longshore_image::ErrorKind::Misuse, text),
        ));
    }
    Ok(disk)
}

pub(super) fn road(
    mut disk: Box<dyn Served>,
    source: &dyn Source,
    target: Target,
    options: &Options,
    budget: Budget,
    shared: &Shared,
) -> Result<Done, Outcome> {
    let size = disk.size();
    let info = Info {
        format: Format::Raw,
        variant: String::new(),
        virtual_size: size,
        cluster_size: None,
        compression: Compression::None,
        features: Vec::new(),
        references: Vec::new(),
    };
    if let Some(done) = &shared.done {
        disk.only(wanted(done, size));
    }
    let mut pieces = Pieces::new(target, options.threads, budget, shared.clone())
        .allowance(source.allowance())
        .journalled_as_it_comes(Format::Raw);
    let geometry = Geometry {
        virtual_size: Some(size),
        cluster_size: 0,
        codec: ClusterCodec::None,
        info,
    };
    pieces.geometry(&geometry).map_err(|e| pieces.error(e))?;
    let mut at = 0;
    loop {
        shared.check()?;
        let range = match disk.next()? {
            Piece::Data(guest, bytes) => {
                let range = guest..guest.saturating_add(bytes.len() as u64);
                check(&range, at, size, shared)?;
                shared.progress.add_read(bytes.len() as u64);
                pieces
                    .piece(range.clone(), PieceKind::Plain, bytes)
                    .map_err(|e| pieces.error(e))?;
                range
            }
            Piece::Zeros(range) => {
                check(&range, at, size, shared)?;
                pieces.zeros(range.clone())?;
                range
            }
            Piece::Waiting => continue,
            Piece::End => break,
        };
        // What was left out is settled too.
        shared.progress.add_resolved(range.start - at);
        at = range.end;
    }
    shared.progress.add_resolved(size - at);
    let (output, info, threads) = pieces.finish(size, None)?;
    Ok(Done {
        output,
        info,
        wrappers: Vec::new(),
        virtual_size: size,
        threads,
    })
}

/// What an earlier run has not done. Small parts of what it has are read with the gaps around them: a request
/// costs more than they do.
fn wanted(done: &Written, size: u64) -> Vec<Range<u64>> {
    let mut wanted: Vec<Range<u64>> = Vec::new();
    for gap in done.gaps(0..size) {
        match wanted.last_mut() {
            Some(last) if gap.start - last.end < SMALL => last.end = gap.end,
            _ => wanted.push(gap),
        }
    }
    wanted
}

/// Pieces are in order and on the disk.
fn check(range: &Range<u64>, at: u64, size: u64, shared: &Shared) -> Result<(), Outcome> {
    if at <= range.start && range.start <= range.end && range.end <= size {
        return Ok(());
    }
    let text = format!(
        "bytes {} to {} came after byte {at} of {size}",
        range.start, range.end
    );
    Err(Outcome::Error(shared.image(ImageError::malformed(text))))
}
