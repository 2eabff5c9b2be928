//! One thread that takes a wrapper off, and the way out for whatever takes one off.

use crossbeam_channel::Sender;
use longshore_image::Wrapper;
use longshore_image::stream::StreamDecoder;

use super::{Chunk, Message, Stream};
use crate::Error;
use crate::cancel::Stopped;
use crate::engine::Shared;
use crate::phases::Work;
use crate::pool::Pool;

/// Where decompressed bytes go, and errors.
pub(super) struct Outlet {
    pub(super) out: Sender<Message>,
    pub(super) pool: Pool,
    pub(super) wrapper: Wrapper,
    /// The error to give if the stream wants more memory, short of the amount.
    pub(super) refused: Error,
    pub(super) shared: Shared,
}

impl Outlet {
    pub(super) fn fail(&self, e: longshore_image::Error) -> Stopped {
        let error = match (e.needed(), &self.refused) {
            (
                Some(more),
                Error::Memory {
                    what,
                    needed,
                    allowed,
                },
            ) if more > 0 => Error::Memory {
                what: what.clone(),
                needed: needed + more,
                allowed: *allowed,
            },
            _ => Error::image(
                format!(
                    "can't decompress {} ({})",
                    self.shared.name,
                    self.wrapper.name()
                ),
                e,
            ),
        };
        self.shared.failure.fail(error)
    }
}

/// A chunk that fills up.
pub(super) struct Filling {
    outlet: Outlet,
    full: Vec<u8>,
    filled: usize,
}

impl Filling {
    pub(super) fn new(outlet: Outlet) -> Result<Self, Stopped> {
        let full = outlet.pool.get()?;
        Ok(Self {
            outlet,
            full,
            filled: 0,
        })
    }

    /// Where the next bytes go; never empty.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.full[self.filled..]
    }

    /// So many bytes were put there. True if that filled the chunk, which went on its way.
    pub(super) fn produced(&mut self, n: usize) -> Result<bool, Stopped> {
        self.filled += n;
        if self.filled < self.full.len() {
            return Ok(false);
        }
        let bytes = std::mem::take(&mut self.full);
        self.send(bytes)?;
        self.full = self.outlet.pool.get()?;
        Ok(true)
    }

    /// Copies `bytes` out.
    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        while !bytes.is_empty() {
            let room = self.room();
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            self.produced(n)?;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// All is out, and was right.
    pub(super) fn finish(mut self) -> Result<(), Stopped> {
        if self.filled > 0 {
            let bytes = std::mem::take(&mut self.full);
            self.send(bytes)?;
        }
        self.outlet.out.send(Message::End).map_err(|_| Stopped)
    }

    pub(super) fn fail(&self, e: longshore_image::Error) -> Stopped {
        self.outlet.fail(e)
    }

    fn send(&mut self, bytes: Vec<u8>) -> Result<(), Stopped> {
        let range = 0..std::mem::take(&mut self.filled);
        let chunk = Chunk { bytes, range };
        self.outlet
            .out
            .send(Message::Chunk(chunk))
            .map_err(|_| Stopped)
    }
}

/// Pushes all of `from` through `decoder`.
pub(super) fn run(
    mut decoder: Box<dyn StreamDecoder>,
    mut from: Stream,
    outlet: Outlet,
) -> Result<(), Stopped> {
    let clocks = outlet.shared.clocks.clone();
    let mut filling = Filling::new(outlet)?;
    while let Some(chunk) = from.next()? {
        let mut input = chunk.range.clone();
        loop {
            let (from, to) = (&chunk.bytes[input.clone()], filling.room());
            let progress = clocks
                .time(Work::Decode, || decoder.push(from, to))
                .map_err(|e| filling.fail(e))?;
            input.start += progress.consumed;
            let full = filling.produced(progress.produced)?;
            // All taken and nothing held back in the decoder: on to the next chunk.
            if input.is_empty() && !full {
                break;
            }
        }
        from.give_back(chunk);
    }
    while let Some(n) = decoder
        .finish(filling.room())
        .map_err(|e| filling.fail(e))?
    {
        filling.produced(n)?;
    }
    filling.finish()
}
