//! Forward only: pieces that a decoder finds become tasks. Starts the back half once the geometry of
//! the image is known, since only then it is known what the stages need.

use std::ops::Range;

use longshore_image::forward::{Emit, Geometry, PieceKind};
use longshore_image::{Error as ImageError, ErrorKind, Format, Info};

use super::decode::{Packed, Task};
use super::output::{Home, Output};
use super::stream::Chunk;
use super::writer::Back;
use super::{Outcome, Shared};
use crate::budget::Budget;
use crate::cancel::Stopped;
use crate::journal::{Around, Image, Order};
use crate::pool::Pool;
use crate::target::Target;
use crate::{Allowance, Result};

/// Pieces that do not fill a buffer wait for no more chunks than this where a journal is kept.
const MOST_UNSENT: u32 = 4;

/// Takes pieces until the stream ends.
pub(super) struct Pieces {
    front: Option<(Target, Budget)>,
    threads: usize,
    /// How large the disk is at least, where its size shows at the end only.
    at_least: Option<u64>,
    allowance: Option<Allowance>,
    /// Where the chunks of the stream come from, and how many more of them the decoding threads may have.
    chunks: Option<Pool>,
    lent: usize,
    back: Option<Running>,
    shared: Shared,
    stash: Option<Outcome>,
    /// What to tell the journal of the image, short of its size.
    journal: Option<(Image, Order)>,
    /// What came since somebody asked, where the journal is in the stream's order.
    passed: Vec<Range<u64>>,
    in_order: bool,
    /// Chunks since what is gathered was last sent on for the journal's sake.
    unsent: u32,
}

struct Running {
    back: Back,
    info: Info,
    plain: Option<Gathering<(u64, Range<usize>)>>,
    packed: Option<Gathering<Packed>>,
    packed_out: usize,
    lent: Lent,
}

/// Pieces that lie in the stream's present chunk: they stay there, and the chunk is passed on as a task
/// when the decoder is through with it.
#[derive(Default)]
struct Lent {
    /// Where the chunk is in memory.
    memory: Range<usize>,
    parts: Vec<(u64, Range<usize>)>,
}

impl Lent {
    /// Where `bytes` are in the chunk, if they are in it.
    fn place(&self, bytes: &[u8]) -> Option<Range<usize>> {
        let start = bytes.as_ptr().addr();
        let end = start.checked_add(bytes.len())?;
        let inside = self.memory.start <= start && end <= self.memory.end;
        inside.then(|| start - self.memory.start..end - self.memory.start)
    }
}

/// Notes a part, as one with the last if it follows it on the disk and in memory.
fn note(parts: &mut Vec<(u64, Range<usize>)>, guest: u64, range: Range<usize>) {
    match parts.last_mut() {
        Some((at, last)) if *at + last.len() as u64 == guest && last.end == range.start => {
            last.end = range.end;
        }
        _ => parts.push((guest, range)),
    }
}

/// A buffer that fills up.
struct Gathering<T> {
    buf: Vec<u8>,
    used: usize,
    parts: Vec<T>,
}

impl<T> Gathering<T> {
    fn new(buf: Vec<u8>) -> Self {
        Self {
            buf,
            used: 0,
            parts: Vec::new(),
        }
    }

    fn room(&self) -> usize {
        self.buf.len() - self.used
    }

    fn fill(&mut self, bytes: &[u8]) -> Range<usize> {
        let range = self.used..self.used + bytes.len();
        self.buf[range.clone()].copy_from_slice(bytes);
        self.used = range.end;
        range
    }
}

impl Pieces {
    pub(super) fn new(target: Target, threads: usize, budget: Budget, shared: Shared) -> Self {
        Self {
            front: Some((target, budget)),
            threads,
            at_least: None,
            allowance: None,
            chunks: None,
            lent: 0,
            back: None,
            shared,
            stash: None,
            journal: None,
            passed: Vec::new(),
            in_order: false,
            unsent: 0,
        }
    }

    /// The disk has `bytes` bytes or more, whether or not its beginning says how many.
    pub(super) fn at_least(mut self, bytes: Option<u64>) -> Self {
        self.at_least = bytes;
        self
    }

    /// What was found around the image, and whether there is a digest of that.
    pub(super) fn journalled(mut self, format: Format, around: Vec<Around>, hashed: bool) -> Self {
        let anywhere = around.is_empty() && format == Format::Raw;
        let image = Image {
            format,
            around,
            virtual_size: None,
        };
        self.journal = Some((image, Order::Stream { hashed, anywhere }));
        self.in_order = self.shared.recorder.is_some();
        self
    }

    /// The same where each piece counts by itself, whatever came before it.
    pub(super) fn journalled_as_it_comes(mut self, format: Format) -> Self {
        let image = Image {
            format,
            around: Vec::new(),
            virtual_size: None,
        };
        self.journal = Some((image, Order::Any));
        self
    }

    /// What came since this was asked last.
    pub(super) fn passed(&mut self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.passed)
    }

    /// What the stages leave of the budget is for the source.
    pub(super) fn allowance(mut self, allowance: Option<Allowance>) -> Self {
        self.allowance = allowance;
        self
    }

    /// From here on chunks are of this pool.
    pub(super) fn chunks(&mut self, pool: &Pool) {
        pool.grow(self.lent);
        self.chunks = Some(pool.clone());
    }

    /// What the decoder is about to see is in this chunk.
    pub(super) fn seeing(&mut self, chunk: &Chunk) {
        if let Some(running) = &mut self.back
            && running.back.takes_chunks()
        {
            let start = chunk.bytes.as_ptr().addr();
            running.lent.memory = start..start + chunk.bytes.len();
        }
    }

    /// The decoder has seen the chunk: it goes to those who need it, or back.
    pub(super) fn seen(&mut self, chunk: Chunk) -> Result<(), Stopped> {
        let Some(pool) = &self.chunks else {
            return Ok(());
        };
        let Some(running) = &mut self.back else {
            pool.put(chunk.bytes);
            return Ok(());
        };
        running.lent.memory = 0..0;
        self.unsent += 1;
        if self.shared.recorder.is_some() && self.unsent >= MOST_UNSENT {
            // The journal is in the stream's order, and waits for the least piece.
            self.unsent = 0;
            running.send_plain()?;
        }
        let parts = std::mem::take(&mut running.lent.parts);
        if parts.is_empty() {
            pool.put(chunk.bytes);
            return Ok(());
        }
        running.back.send(Task::Plain {
            buf: chunk.bytes,
            home: Home::Chunks(pool.clone()),
            parts,
        })
    }

    /// What really happened when a decoder reports that we could not take a piece.
    pub(super) fn error(&mut self, e: ImageError) -> Outcome {
        self.stash
            .take()
            .unwrap_or_else(|| Outcome::Error(self.shared.image(e)))
    }

    /// `guest` reads as zeros.
    pub(super) fn zeros(&self, guest: Range<u64>) -> Result<(), Stopped> {
        match &self.back {
            Some(running) => running.back.zeros(guest),
            None => Err(Stopped),
        }
    }

    /// Sends what is gathered, waits until all is written. `found` is what the end of the stream said the
    /// image is.
    pub(super) fn finish(
        mut self,
        virtual_size: u64,
        found: Option<Info>,
    ) -> Result<(Output, Info, usize), Outcome> {
        let Some(mut running) = self.back.take() else {
            return Err(Outcome::Stopped);
        };
        running.send_plain()?;
        running.send_packed()?;
        let threads = running.back.layout().threads;
        let output = running.back.finish(&self.shared)?;
        let mut info = found.unwrap_or(running.info);
        info.virtual_size = virtual_size;
        Ok((output, info, threads))
    }

    fn start(&mut self, geometry: &Geometry) -> Result<(), Outcome> {
        let Some((mut target, mut budget)) = self.front.take() else {
            return Ok(());
        };
        target.begin(geometry.virtual_size.or(self.at_least))?;
        if let (Some(recorder), Some((image, order))) = (&self.shared.recorder, self.journal.take())
        {
            let image = Image {
                virtual_size: geometry.virtual_size,
                ..image
            };
            let alone = geometry.info.references.is_empty();
            recorder.begin(image, order, alone)?;
        }
        if let Some(size) = geometry.virtual_size {
            self.shared.progress.set_size(size);
        }
        let writing = Output::writing(&target);
        // A decompressor in front of a raw disk has taken all but this.
        let ahead = match (geometry.cluster_size, writing.cluster) {
            (0, 0) => budget.keep_ahead(),
            _ => 0,
        };
        let layout = budget.layout(self.threads, geometry.cluster_size, geometry.codec, writing)?;
        budget.give_back(ahead);
        let disk = geometry.virtual_size;
        let output = Output::begin(target, disk, &layout)?;
        let back = Back::start(layout, &[geometry.codec], None, output, disk, &self.shared)?;
        if back.takes_chunks()
            && let Some(pool) = &self.chunks
        {
            self.lent = budget.lent();
            pool.grow(self.lent);
        }
        if let Some(allowance) = &self.allowance {
            allowance.allow(budget.left());
        }
        self.back = Some(Running {
            back,
            info: geometry.info.clone(),
            plain: None,
            packed: None,
            packed_out: 0,
            lent: Lent::default(),
        });
        Ok(())
    }

    fn stop(&mut self, outcome: Outcome) -> ImageError {
        self.stash = Some(outcome);
        ImageError::new(ErrorKind::Io, "the target took no more")
    }
}

impl Emit for Pieces {
    fn wants(&self, guest: &Range<u64>) -> bool {
        !self.shared.is_done(guest)
    }

    fn geometry(&mut self, geometry: &Geometry) -> longshore_image::Result<()> {
        self.start(geometry).map_err(|outcome| self.stop(outcome))
    }

    fn piece(
        &mut self,
        guest: Range<u64>,
        kind: PieceKind,
        bytes: &[u8],
    ) -> longshore_image::Result<()> {
        if self.shared.is_done(&guest) {
            self.shared.progress.add_resolved(guest.end - guest.start);
            return Ok(());
        }
        let Some(running) = &mut self.back else {
            return Err(ImageError::malformed("data before the image's header"));
        };
        if self.in_order {
            match self.passed.last_mut() {
                Some(last) if last.end == guest.start => last.end = guest.end,
                _ => self.passed.push(guest.clone()),
            }
        }
        let taken = match kind {
            PieceKind::Plain => running.plain(guest.start, bytes),
            PieceKind::Compressed => running.packed(guest, bytes),
        };
        taken.map_err(|Stopped| self.stop(Outcome::Stopped))
    }
}

impl Running {
    fn plain(&mut self, mut guest: u64, mut bytes: &[u8]) -> Result<(), Stopped> {
        if let Some(range) = self.lent.place(bytes) {
            note(&mut self.lent.parts, guest, range);
            return Ok(());
        }
        while !bytes.is_empty() {
            let gathering = match &mut self.plain {
                Some(gathering) => gathering,
                none => none.insert(Gathering::new(self.back.outputs().get()?)),
            };
            let n = gathering.room().min(bytes.len());
            let (now, later) = bytes.split_at(n);
            let range = gathering.fill(now);
            note(&mut gathering.parts, guest, range);
            guest += n as u64;
            bytes = later;
            if self.plain.as_ref().is_some_and(|g| g.room() == 0) {
                self.send_plain()?;
            }
        }
        Ok(())
    }

    fn packed(&mut self, guest: Range<u64>, bytes: &[u8]) -> Result<(), Stopped> {
        let layout = self.back.layout();
        let bytes = &bytes[..bytes.len().min(layout.unit_in)];
        let output = (guest.end - guest.start) as usize;
        let full = self.packed.as_ref().is_some_and(|g| g.room() < bytes.len());
        if full || self.packed_out + output > layout.unit_out {
            self.send_packed()?;
        }
        let gathering = match &mut self.packed {
            Some(gathering) => gathering,
            none => none.insert(Gathering::new(self.back.inputs().get()?)),
        };
        let input = gathering.fill(bytes);
        gathering.parts.push(Packed {
            visible: guest.clone(),
            guest,
            input,
        });
        self.packed_out += output;
        Ok(())
    }

    fn send_plain(&mut self) -> Result<(), Stopped> {
        match self.plain.take() {
            Some(full) => self.back.send(Task::Plain {
                buf: full.buf,
                home: Home::Outputs,
                parts: full.parts,
            }),
            None => Ok(()),
        }
    }

    fn send_packed(&mut self) -> Result<(), Stopped> {
        self.packed_out = 0;
        match self.packed.take() {
            Some(full) => self.back.send(Task::Packed {
                input: full.buf,
                clusters: full.parts,
            }),
            None => Ok(()),
        }
    }
}
