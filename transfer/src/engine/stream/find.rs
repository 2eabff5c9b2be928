//! The stage that takes the image out of an archive.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Chunk, Input, Message, Stream, pump};
use crate::cancel::Stopped;
use crate::engine::Shared;
use crate::pool::Pool;
use crate::source::Finder;
use crossbeam_channel::Sender;

/// Hands on what `finder` finds in `from`. All of `from` is read, whatever it wants of it: what checks
/// the stream in front of us is at its end.
pub(super) fn run(
    finder: Box<dyn Finder>,
    from: Stream,
    out: &Sender<Message>,
    pool: &Pool,
    shared: &Shared,
) -> Result<(), Stopped> {
    let archive = Archive(Arc::new(Mutex::new(Position {
        from,
        chunk: None,
        stopped: false,
    })));
    let image = finder.find(Box::new(archive.clone()));
    let pumped = pump(Input::Bytes(image), out, pool, shared, false);
    let mut position = archive.0.lock().unwrap_or_else(PoisonError::into_inner);
    if position.stopped {
        return Err(Stopped);
    }
    pumped?;
    while position.fill()? {
        shared.check()?;
        position.drop_chunk();
    }
    out.send(Message::End).map_err(|_| Stopped)
}

/// A stream as something to read.
#[derive(Clone)]
struct Archive(Arc<Mutex<Position>>);

struct Position {
    from: Stream,
    chunk: Option<Chunk>,
    stopped: bool,
}

impl Position {
    /// There are bytes; false at the end.
    fn fill(&mut self) -> Result<bool, Stopped> {
        while self.chunk.as_ref().is_none_or(|c| c.range.is_empty()) {
            self.drop_chunk();
            match self.from.next() {
                Ok(Some(chunk)) => self.chunk = Some(chunk),
                Ok(None) => return Ok(false),
                Err(Stopped) => {
                    self.stopped = true;
                    return Err(Stopped);
                }
            }
        }
        Ok(true)
    }

    fn drop_chunk(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            self.from.give_back(chunk);
        }
    }
}

impl Read for Archive {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut position = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match position.fill() {
            Ok(true) => {}
            Ok(false) => return Ok(0),
            // Why is known elsewhere.
            Err(Stopped) => return Err(io::Error::other("the stream stopped")),
        }
        let Some(chunk) = &mut position.chunk else {
            return Ok(0);
        };
        let n = chunk.range.len().min(buf.len());
        let from = chunk.range.start;
        buf[..n].copy_from_slice(&chunk.bytes[from..from + n]);
        chunk.range.start += n;
        Ok(n)
    }
}
