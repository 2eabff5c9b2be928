//! bzip2 over blocks: one thread cuts the stream, several decode, one puts together.
//!
//! ```text
//!          parts ──▶ decode ─┐ pieces
//! cut ──▶                    ├──▶ join ──▶ chunks
//!          line, in order ───┘
//! ```
//!
//! What is in flight is bounded twice: the line is as long as there are workers, and the bytes of its
//! parts are paid for with tokens, since a hostile block has three times the bytes of an honest one.
//! Each part has its own channel of a few pieces, so that a worker ahead of its turn waits and one whose
//! turn it is never does.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use longshore_image::stream::StreamOptions;
use longshore_image::stream::bzip2::{
    BlockDecoder, DECODER_BYTES, Line, MOST_PART, Outcome, Part, Splitter, join,
};
use longshore_image::{Error as ImageError, Wrapper};

use super::Stream;
use super::unwrap::{Filling, Outlet};
use crate::cancel::Stopped;
use crate::engine::writer::spawn;
use crate::phases::{Clocks, Work};
use crate::{Result, engine};

/// Bytes of a piece, and how many of a part may wait: together more than a block without long runs.
const PIECE: usize = 512 << 10;
const PIECES: usize = 2;
/// Bytes of parts that a token pays for, and tokens for each part that may be in line. A block of
/// 900,000 bytes that does not compress takes four of them.
const TOKEN: usize = 256 << 10;
const TOKENS: usize = 4;
/// More workers than this help nobody.
const MOST_WORKERS: usize = 64;
/// Parts in the line besides those that are being decoded: one that is cut, one that is put together.
const BESIDE: usize = 2;

/// What the parts in the line and their pieces take, for each worker that there is.
const IN_LINE: u64 = (PIECE * (PIECES + 1) + TOKEN * TOKENS) as u64;
/// What is there once: the parts beside the others, the part being cut, one that had to be joined, and
/// a decoder for that.
const FIXED: u64 = BESIDE as u64 * IN_LINE + 2 * MOST_PART as u64 + DECODER_BYTES;

/// Memory with which so many threads can be at work.
pub(super) fn memory_for(threads: usize) -> u64 {
    FIXED + threads.min(MOST_WORKERS) as u64 * (IN_LINE + DECODER_BYTES)
}

/// How many workers decode this, if it is done here.
pub(super) fn workers(wrapper: Wrapper, options: StreamOptions) -> Option<usize> {
    if wrapper != Wrapper::Bzip2 || options.threads < 2 {
        return None;
    }
    let most = options.memory.saturating_sub(FIXED) / (IN_LINE + DECODER_BYTES);
    let workers = options.threads.min(MOST_WORKERS).min(most as usize);
    (workers > 0).then_some(workers)
}

/// A place in the line.
enum Slot {
    Part {
        part: Arc<Part>,
        answers: Receiver<Answer>,
    },
    /// There are no more.
    End,
    /// The stream can't be cut any further.
    Failed(ImageError),
}

/// What a worker says of a part: an outcome, and after a block its pieces.
enum Answer {
    Outcome(Outcome),
    Piece { bytes: Vec<u8>, last: bool },
    Failed(ImageError),
}

struct Task {
    part: Arc<Part>,
    answers: Sender<Answer>,
}

/// Starts all threads.
pub(super) fn start(
    from: Stream,
    outlet: Outlet,
    workers: usize,
    threads: &mut Vec<JoinHandle<Result<(), Stopped>>>,
) -> Result<()> {
    let (tasks, todo) = bounded(workers);
    let (line, parts) = bounded(workers);
    let tokens = TOKENS * (workers + BESIDE);
    let (give, take) = bounded(tokens);
    for _ in 0..tokens {
        // There is room for all of them.
        let _ = give.try_send(());
    }
    for n in 0..workers {
        let (todo, clocks) = (todo.clone(), outlet.shared.clocks.clone());
        threads.push(spawn(format!("bunzip-{n}"), move || {
            work(&todo, &clocks);
            Ok(())
        })?);
    }
    let shared = outlet.shared.clone();
    let wrapper = outlet.wrapper.name();
    let cutter = Cutter {
        line,
        tasks,
        tokens: take,
        shared,
    };
    threads.push(spawn(format!("cut-{wrapper}"), move || cutter.run(from))?);
    threads.push(spawn(format!("unwrap-{wrapper}"), move || {
        let mut joiner = Joiner {
            parts,
            tokens: give,
            filling: Filling::new(outlet)?,
        };
        match join(&mut joiner) {
            Ok(()) => joiner.filling.finish(),
            Err(Halt::Stopped) => Err(Stopped),
            Err(Halt::Image(e)) => Err(joiner.filling.fail(e)),
        }
    })?);
    Ok(())
}

/// The thread in front.
struct Cutter {
    line: Sender<Slot>,
    tasks: Sender<Task>,
    tokens: Receiver<()>,
    shared: engine::Shared,
}

impl Cutter {
    fn run(self, mut from: Stream) -> Result<(), Stopped> {
        let mut splitter = Splitter::default();
        while let Some(chunk) = from.next()? {
            self.shared.check()?;
            match splitter.push(&chunk.bytes[chunk.range.clone()], |part| self.send(part)) {
                Ok(()) => {}
                Err(Halt::Stopped) => return Err(Stopped),
                // What came before is put together, and this is said when it is its turn.
                Err(Halt::Image(e)) => {
                    return self.line.send(Slot::Failed(e)).map_err(|_| Stopped);
                }
            }
            from.give_back(chunk);
        }
        let last = self.send(splitter.finish());
        if last.is_err() {
            return Err(Stopped);
        }
        self.line.send(Slot::End).map_err(|_| Stopped)
    }

    fn send(&self, part: Part) -> Result<(), Halt> {
        for _ in 0..tokens(&part) {
            self.tokens.recv().map_err(|_| Halt::Stopped)?;
        }
        let part = Arc::new(part);
        let (answers, answered) = bounded(PIECES);
        let slot = Slot::Part {
            part: Arc::clone(&part),
            answers: answered,
        };
        self.line.send(slot).map_err(|_| Halt::Stopped)?;
        let task = Task { part, answers };
        self.tasks.send(task).map_err(|_| Halt::Stopped)
    }
}

/// What a part costs. Even the smallest is not for nothing, or there were no bound on their number.
fn tokens(part: &Part) -> usize {
    part.size().div_ceil(TOKEN).clamp(1, TOKENS * BESIDE)
}

/// A thread that decodes. Whoever wants nothing more of a part has dropped its channel.
fn work(todo: &Receiver<Task>, clocks: &Clocks) {
    let mut decoder = BlockDecoder::default();
    while let Ok(Task { part, answers }) = todo.recv() {
        let outcome = clocks.time(Work::Decode, || decoder.decode(&part));
        drop(part);
        let has_block = matches!(outcome, Ok(Some(_)));
        let answer = match outcome {
            Ok(block) => Answer::Outcome(block.map_or(Outcome::Short, Outcome::Block)),
            Err(e) => Answer::Failed(e),
        };
        if answers.send(answer).is_ok() && has_block {
            pieces(&mut decoder, &answers, clocks);
        }
    }
}

fn pieces(decoder: &mut BlockDecoder, answers: &Sender<Answer>, clocks: &Clocks) {
    loop {
        let mut bytes = vec![0; PIECE];
        let (answer, last) = match clocks.time(Work::Decode, || decoder.read(&mut bytes)) {
            Ok(n) => {
                let last = n < bytes.len();
                bytes.truncate(n);
                (Answer::Piece { bytes, last }, last)
            }
            Err(e) => (Answer::Failed(e), true),
        };
        if answers.send(answer).is_err() || last {
            return;
        }
    }
}

/// The thread behind.
struct Joiner {
    parts: Receiver<Slot>,
    tokens: Sender<()>,
    filling: Filling,
}

enum Halt {
    Stopped,
    Image(ImageError),
}

impl From<ImageError> for Halt {
    fn from(e: ImageError) -> Self {
        Self::Image(e)
    }
}

impl From<Stopped> for Halt {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl Line for Joiner {
    type Work = Receiver<Answer>;
    type Error = Halt;

    fn next(&mut self) -> Result<Option<(Arc<Part>, Self::Work)>, Halt> {
        match self.parts.recv() {
            Ok(Slot::Part { part, answers }) => {
                for _ in 0..tokens(&part) {
                    // There is room for all of them; who took them may be gone.
                    let _ = self.tokens.try_send(());
                }
                Ok(Some((part, answers)))
            }
            Ok(Slot::End) => Ok(None),
            Ok(Slot::Failed(e)) => Err(e.into()),
            Err(_) => Err(Halt::Stopped),
        }
    }

    fn outcome(&mut self, work: &mut Self::Work) -> Result<Outcome, Halt> {
        match work.recv() {
            Ok(Answer::Outcome(outcome)) => Ok(outcome),
            Ok(Answer::Failed(e)) => Err(e.into()),
            Ok(Answer::Piece { .. }) | Err(_) => Err(Halt::Stopped),
        }
    }

    fn put(&mut self, work: Self::Work) -> Result<(), Halt> {
        loop {
            match work.recv() {
                Ok(Answer::Piece { bytes, last }) => {
                    self.filling.put(&bytes)?;
                    if last {
                        return Ok(());
                    }
                }
                Ok(Answer::Failed(e)) => return Err(e.into()),
                Ok(Answer::Outcome(_)) | Err(_) => return Err(Halt::Stopped),
            }
        }
    }

    fn put_own(&mut self, decoder: &mut BlockDecoder) -> Result<(), Halt> {
        loop {
            let room = self.filling.room();
            let len = room.len();
            let n = decoder.read(room)?;
            self.filling.produced(n)?;
            if n < len {
                return Ok(());
            }
        }
    }
}
