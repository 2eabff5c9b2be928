//! The front half of the forward road: one thread that reads, one that hashes, one per wrapper, or
//! several for one whose parts can be decoded on their own.

mod blocks;
mod find;
mod unwrap;

use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use longshore_image::Wrapper;
use longshore_image::stream::{self, StreamOptions};

use self::unwrap::Outlet;
use super::writer::spawn;
use super::{Outcome, Shared};
use crate::budget::{Budget, CHUNK, CHUNKS, Inner};
use crate::cancel::Stopped;
use crate::checksum::Hasher;
use crate::journal::HashMark;
use crate::phases::Work;
use crate::pool::Pool;
use crate::source::{Exchange, Finder};
use crate::{Checksum, Error, Result, Source};

/// Chunks begin at multiples of this in the stream.
const PAGE: usize = 4096;

/// Some bytes of a stream, in a buffer that goes back where it came from.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) range: Range<usize>,
}

enum Message {
    Chunk(Chunk),
    /// The stream is complete. A channel that closes without this means that a stage stopped.
    End,
}

/// The last stage so far: what comes out of it has not been claimed yet.
pub(super) struct Stream {
    messages: Receiver<Message>,
    pool: Pool,
    /// Chunks looked at and not yet taken.
    peeked: VecDeque<Chunk>,
    ended: bool,
    head: Vec<u8>,
    threads: Vec<JoinHandle<Result<(), Stopped>>>,
}

/// Where a stream begins. The default is its start, of which nothing is known.
#[derive(Default)]
pub(super) struct Opening {
    /// The source from another offset than 0.
    pub(super) from: Option<(u64, Box<dyn Read + Send>)>,
    /// The digest of what was read before. At the stream's start it is that of what comes first, and
    /// compared with it.
    pub(super) hash: Option<HashMark>,
}

impl Opening {
    /// The offset in the source.
    pub(super) fn at(&self) -> u64 {
        self.from.as_ref().map_or(0, |(at, _)| *at)
    }
}

impl Stream {
    /// Opens the source and starts reading. `budget` is charged on the first pass only.
    pub(super) fn open(
        source: &mut dyn Source,
        opening: Opening,
        checksum: Option<&Checksum>,
        budget: Option<&mut Budget>,
        shared: &Shared,
    ) -> Result<Self> {
        if let Some(budget) = budget {
            budget.chunks()?;
        }
        let at = opening.at();
        let input = match opening.from {
            Some((_, reader)) => Input::Bytes(reader),
            None => match source.buffers()? {
                Some(buffers) => Input::Buffers(buffers),
                None => Input::Bytes(source.stream()?),
            },
        };
        let pool = Pool::new(CHUNKS, CHUNK, &shared.failure);
        let (tx, rx) = bounded(CHUNKS);
        let (read_pool, read_shared) = (pool.clone(), shared.clone());
        // The reader may sit in a read for long; it is left to itself if the transfer fails.
        let mut threads = vec![spawn("read".to_owned(), move || {
            pump(input, &tx, &read_pool, &read_shared, true)?;
            tx.send(Message::End).map_err(|_| Stopped)
        })?];
        let mut messages = rx;
        let wanted = checksum.cloned();
        let promised = source.digest().filter(|digest| Some(digest) != checksum);
        // Of two digests there is no journal.
        let mut mark = opening.hash;
        for checksum in wanted.into_iter().chain(promised) {
            let (tx, rx) = bounded(CHUNKS);
            let hashing = Hashing::new(&checksum, at, mark.take(), shared)?;
            let from = std::mem::replace(&mut messages, rx);
            threads.push(spawn("hash".to_owned(), move || {
                hash(hashing, &checksum, &from, &tx)
            })?);
        }
        Ok(Self::of(messages, pool, threads))
    }

    /// What comes out of `messages`, of which nothing was taken yet.
    fn of(
        messages: Receiver<Message>,
        pool: Pool,
        threads: Vec<JoinHandle<Result<(), Stopped>>>,
    ) -> Self {
        Self {
            messages,
            pool,
            peeked: VecDeque::new(),
            ended: false,
            head: Vec::new(),
            threads,
        }
    }

    /// The next bytes; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Chunk>, Stopped> {
        if let Some(chunk) = self.peeked.pop_front() {
            return Ok(Some(chunk));
        }
        if self.ended {
            return Ok(None);
        }
        match self.messages.recv() {
            Ok(Message::Chunk(chunk)) => Ok(Some(chunk)),
            Ok(Message::End) => {
                self.ended = true;
                Ok(None)
            }
            Err(_) => Err(Stopped),
        }
    }

    /// Gives a chunk's buffer back.
    pub(super) fn give_back(&self, chunk: Chunk) {
        self.pool.put(chunk.bytes);
    }

    /// Where chunks go back to, for those who keep one for longer.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The first `n` bytes, or all there are if fewer. They stay in the stream.
    pub(super) fn peek(&mut self, n: usize) -> Result<&[u8], Stopped> {
        let mut looked = VecDeque::new();
        self.head.clear();
        while self.head.len() < n {
            let Some(chunk) = self.next()? else { break };
            self.head
                .extend_from_slice(&chunk.bytes[chunk.range.clone()]);
            looked.push_back(chunk);
            if looked.len() >= CHUNKS {
                break;
            }
        }
        looked.append(&mut self.peeked);
        self.peeked = looked;
        self.head.truncate(n);
        Ok(&self.head)
    }

    /// Puts a decompressor behind this stream, in which there is `inner`.
    pub(super) fn unwrap(
        self,
        wrapper: Wrapper,
        inner: Inner,
        threads: usize,
        budget: &mut Budget,
        shared: &Shared,
    ) -> Result<(Self, StreamOptions)> {
        budget.chunks()?;
        let needed = stream::memory_for(wrapper, &self.head);
        let most = (wrapper == Wrapper::Bzip2).then(|| blocks::memory_for(threads));
        let options = StreamOptions {
            memory: budget.wrapper(wrapper, inner, needed, most)?,
            threads,
        };
        let refused = budget.wrapper_refused(wrapper.name(), inner);
        Ok((
            self.unwrap_with(wrapper, options, refused, shared)?,
            options,
        ))
    }

    /// The same with what an earlier pass was given.
    pub(super) fn unwrap_with(
        self,
        wrapper: Wrapper,
        options: StreamOptions,
        refused: Error,
        shared: &Shared,
    ) -> Result<Self> {
        let pool = Pool::new(CHUNKS, CHUNK, &shared.failure);
        let (tx, rx) = bounded(CHUNKS);
        let out = Outlet {
            out: tx,
            pool: pool.clone(),
            wrapper,
            refused,
            shared: shared.clone(),
        };
        let mut from = self;
        let mut threads = std::mem::take(&mut from.threads);
        if let Some(workers) = blocks::workers(wrapper, options) {
            blocks::start(from, out, workers, &mut threads)?;
        } else {
            let decoder = stream::decoder(wrapper, options).map_err(|e| shared.image(e))?;
            threads.push(spawn(format!("unwrap-{}", wrapper.name()), move || {
                unwrap::run(decoder, from, out)
            })?);
        }
        Ok(Self::of(rx, pool, threads))
    }

    /// Puts the search in an archive behind this stream. `budget` is charged on the first pass only.
    pub(super) fn find(
        self,
        finder: Box<dyn Finder>,
        budget: Option<&mut Budget>,
        shared: &Shared,
    ) -> Result<Self> {
        if let Some(budget) = budget {
            budget.chunks()?;
        }
        let pool = Pool::new(CHUNKS, CHUNK, &shared.failure);
        let (tx, rx) = bounded(CHUNKS);
        let mut from = self;
        let mut threads = std::mem::take(&mut from.threads);
        let (out_pool, out_shared) = (pool.clone(), shared.clone());
        threads.push(spawn("find".to_owned(), move || {
            find::run(finder, from, &tx, &out_pool, &out_shared)
        })?);
        Ok(Self::of(rx, pool, threads))
    }

    /// The stream has ended: its threads end too, and say whether they were content (a digest that
    /// does not match shows here).
    pub(super) fn join(&mut self) -> Result<(), Outcome> {
        for thread in self.threads.drain(..) {
            if !matches!(thread.join(), Ok(Ok(()))) {
                return Err(Outcome::Stopped);
            }
        }
        Ok(())
    }
}

/// What is read from.
enum Input {
    Bytes(Box<dyn Read + Send>),
    Buffers(Box<dyn Exchange>),
}

impl Input {
    /// How much of a chunk of `len` bytes must be filled, of which `filled` is. Full chunks keep the stages
    /// behind efficient; a pipe gives 64 KiB at a time. A buffer that was exchanged is sent as it is unless
    /// it is nearly empty, and for the sake of whole pages: what is added is copied.
    fn enough(&self, filled: usize, len: usize) -> usize {
        match self {
            Self::Bytes(_) => len,
            Self::Buffers(_) => (len / 2).max(filled.next_multiple_of(PAGE)).min(len),
        }
    }

    fn fill(&mut self, bytes: &mut Vec<u8>, filled: usize) -> std::io::Result<usize> {
        let enough = self.enough(filled, bytes.len());
        match self {
            Self::Bytes(reader) => reader.read(&mut bytes[filled..]),
            Self::Buffers(buffers) if filled == 0 => buffers.exchange(bytes),
            Self::Buffers(buffers) => buffers.read(&mut bytes[filled..enough]),
        }
    }
}

/// Sends all that `input` gives, short of the end mark. `counted`: these are the source's own bytes.
fn pump(
    mut input: Input,
    out: &Sender<Message>,
    pool: &Pool,
    shared: &Shared,
    counted: bool,
) -> Result<(), Stopped> {
    loop {
        let mut bytes = pool.get()?;
        let mut filled = 0;
        let mut ended = false;
        while filled < input.enough(filled, bytes.len()) {
            shared.check()?;
            let read = shared
                .clocks
                .time(Work::Read, || input.fill(&mut bytes, filled));
            match read {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(n) => {
                    filled += n;
                    if counted {
                        shared.progress.add_streamed(n as u64);
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => {
                    // A reader that knows better what went wrong says so.
                    let error = e.downcast::<Error>().unwrap_or_else(|e| Error::Source {
                        name: shared.name.to_string(),
                        source: Box::new(e),
                    });
                    return Err(shared.failure.fail(error));
                }
            }
        }
        if filled > 0 {
            let chunk = Chunk {
                bytes,
                range: 0..filled,
            };
            out.send(Message::Chunk(chunk)).map_err(|_| Stopped)?;
        } else {
            pool.put(bytes);
        }
        if ended {
            return Ok(());
        }
    }
}

/// The digest of what passes.
struct Hashing {
    hasher: Hasher,
    /// Bytes of the source that it is of.
    at: u64,
    /// What it has to be at some offset to come.
    known: Option<HashMark>,
    shared: Shared,
}

impl Hashing {
    fn new(checksum: &Checksum, at: u64, mark: Option<HashMark>, shared: &Shared) -> Result<Self> {
        let (hasher, known) = match mark {
            Some(mark) if at > 0 => (Hasher::from_state(checksum.algorithm, &mark.state), None),
            mark => (Some(Hasher::new(checksum.algorithm)), mark),
        };
        let Some(hasher) = hasher else {
            return Err(not_as_before(shared, "the digest can't be gone on with"));
        };
        Ok(Self {
            hasher,
            at,
            known,
            shared: shared.clone(),
        })
    }

    fn update(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        if let Some(known) = &self.known
            && let Ok(left) = usize::try_from(known.at.saturating_sub(self.at))
            && let Some((before, after)) = bytes.split_at_checked(left)
        {
            self.hasher.update(before);
            self.at += before.len() as u64;
            if self.hasher.state() != known.state {
                let what = format!("its first {} bytes are others", known.at);
                return Err(self.shared.failure.fail(not_as_before(&self.shared, &what)));
            }
            self.known = None;
            bytes = after;
        }
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
        if let Some(recorder) = &self.shared.recorder
            && self.known.is_none()
        {
            recorder.hashed(self.at, || self.hasher.state());
        }
        Ok(())
    }
}

fn not_as_before(shared: &Shared, what: &str) -> Error {
    Error::SourceChanged {
        name: shared.name.to_string(),
        what: what.to_owned(),
    }
}

fn hash(
    mut hashing: Hashing,
    expected: &Checksum,
    from: &Receiver<Message>,
    out: &Sender<Message>,
) -> Result<(), Stopped> {
    let shared = hashing.shared.clone();
    while let Ok(message) = from.recv() {
        match message {
            Message::Chunk(chunk) => {
                shared.clocks.time(Work::Decode, || {
                    hashing.update(&chunk.bytes[chunk.range.clone()])
                })?;
                out.send(Message::Chunk(chunk)).map_err(|_| Stopped)?;
            }
            Message::End => {
                if hashing.known.is_some() {
                    let error = not_as_before(&shared, "it has become shorter");
                    return Err(shared.failure.fail(error));
                }
                let computed = hashing.hasher.hex();
                if computed != expected.hex {
                    return Err(shared.failure.fail(Error::Checksum {
                        name: shared.name.to_string(),
                        algorithm: expected.algorithm.name(),
                        expected: expected.hex.clone(),
                        computed,
                    }));
                }
                return out.send(Message::End).map_err(|_| Stopped);
            }
        }
    }
    Err(Stopped)
}
