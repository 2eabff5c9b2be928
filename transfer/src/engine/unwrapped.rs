//! The bytes of a source with their compression taken off, for a reader that wants no disk.

use std::io::{self, Read};

use longshore_image::{PROBE_LEN, Probe, probe};

use super::stream::{Chunk, Opening, Stream};
use super::{Layer, Options, Outcome, Shared, one_more};
use crate::budget::{Budget, Inner};
use crate::cancel::{Failure, Stopped};
use crate::phases::Clocks;
use crate::{Cancel, Error, Progress, Result, Source};

/// Memory that is left to whoever reads.
const FOR_READER: u64 = 16 << 20;

/// Hands all that `source` gives, in order and once, to `consume`: hashed as [`Options::checksum`] asks and
/// with as many compressed streams taken off as there are.
///
/// What `consume` leaves unread is read and dropped, up to `most_left` bytes of it: a digest is of the
/// whole source. An error of the source comes before what `consume` made of it. Progress counts what is
/// read; the caller says when all is done.
pub fn unwrapped<T, E: From<Error>>(
    source: &mut dyn Source,
    options: &Options,
    most_left: u64,
    progress: &Progress,
    cancel: &Cancel,
    consume: impl FnOnce(&mut dyn Read) -> Result<T, E>,
) -> Result<T, E> {
    let shared = Shared {
        failure: Failure::default(),
        cancel: cancel.clone(),
        progress: progress.clone(),
        clocks: Clocks::default(),
        name: source.name().into(),
        recorder: None,
        done: None,
    };
    let explain = |outcome| match outcome {
        Outcome::Error(e) => e,
        Outcome::Stopped => shared.failure.take().unwrap_or(Error::Interrupted),
    };
    progress.begin_pass(1, source.len());
    let mut budget = Budget::new(options.memory)?;
    let stream = open(source, options, &mut budget, &shared).map_err(explain)?;
    if let Some(allowance) = source.allowance() {
        allowance.allow(budget.left().saturating_sub(FOR_READER));
    }
    let mut reader = Reader {
        stream,
        chunk: None,
        shared: &shared,
        stopped: false,
    };
    let consumed = consume(&mut reader);
    if consumed.is_ok() && !reader.stopped {
        let left = io::copy(&mut (&mut reader).take(most_left), &mut io::sink());
        if left.is_ok_and(|left| left >= most_left) && !matches!(reader.read(&mut [0]), Ok(0)) {
            let text = format!("more than {most_left} bytes follow its end");
            // Stages that are still at work find their pools closed.
            let error = shared.image(longshore_image::Error::malformed(text));
            let _ = shared.failure.fail(error);
        }
    }
    let stopped = reader.stopped;
    if let Some(error) = shared.failure.take() {
        let _ = shared.failure.fail(Error::Interrupted);
        return Err(error.into());
    }
    if consumed.is_err() || stopped {
        let _ = shared.failure.fail(Error::Interrupted);
        return match consumed {
            Ok(_) => Err(Error::Interrupted.into()),
            refused => refused,
        };
    }
    reader.stream.join().map_err(explain)?;
    consumed
}

fn open(
    source: &mut dyn Source,
    options: &Options,
    budget: &mut Budget,
    shared: &Shared,
) -> Result<Stream, Outcome> {
    let opening = Opening::default();
    let mut stream = Stream::open(
        source,
        opening,
        options.checksum.as_ref(),
        Some(budget),
        shared,
    )?;
    let mut layers = Vec::new();
    loop {
        let Probe::Wrapper(wrapper) = probe(stream.peek(PROBE_LEN)?) else {
            return Ok(stream);
        };
        one_more(&layers, shared)?;
        let (inner, given) = stream.unwrap(wrapper, Inner::Any, options.threads, budget, shared)?;
        stream = inner;
        layers.push(Layer::Wrapper(wrapper, given));
    }
}

/// A stream as something to read.
struct Reader<'a> {
    stream: Stream,
    chunk: Option<Chunk>,
    shared: &'a Shared,
    stopped: bool,
}

impl Reader<'_> {
    fn fill(&mut self) -> Result<bool, Stopped> {
        while self.chunk.as_ref().is_none_or(|c| c.range.is_empty()) {
            if let Some(chunk) = self.chunk.take() {
                self.stream.give_back(chunk);
            }
            self.shared.check()?;
            match self.stream.next()? {
                Some(chunk) => self.chunk = Some(chunk),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.fill() {
            Ok(true) => {}
            Ok(false) => return Ok(0),
            Err(Stopped) => {
                self.stopped = true;
                // Why is known elsewhere.
                return Err(io::Error::other("the stream stopped"));
            }
        }
        let Some(chunk) = &mut self.chunk else {
            return Ok(0);
        };
        let n = chunk.range.len().min(buf.len());
        let from = chunk.range.start;
        buf[..n].copy_from_slice(&chunk.bytes[from..from + n]);
        chunk.range.start += n;
        Ok(n)
    }
}
