//! Bytes of the disk become clusters of an image: cut, looked through for zeros, compressed.
//!
//! [`Packer`] is one per decoding thread. What comes as whole clusters is compressed where it is, in
//! its own buffer. What comes in pieces smaller than a cluster is gathered in [`Parts`], which all
//! threads share.
//!
//! # When pieces are smaller than clusters
//! With random access never: the planner hands out aligned units of the disk ([`super::units`]). In a
//! stream: at the ends of buffers, always soon completed by the next one; where the image's clusters
//! are smaller than the target's (qcow2 with 4 KiB clusters, VMDK grains of 64 KiB into clusters of
//! 2 MiB); at the end of a disk of unknown length. [`Parts`] keeps as many such clusters as the budget
//! laid out (`Layout::parts`). Beyond that the one that has waited longest is written as if it were
//! complete, with zeros for what has not come, which is what it mostly is: a hole. If more of it does
//! come later, the writer takes it apart and keeps it uncompressed, and further pieces are written in
//! place. So any order gives a right image in bounded memory; only a source whose pieces are scattered
//! wider than that costs room in the file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use longshore_image::cluster::{ClusterEncoder, Encoding};
use longshore_image::qcow2::write::{Form, Stored, join_parts};

use super::output::{Batch, Content, Home};
use super::writer::Sink;
use crate::Result;
use crate::cancel::Stopped;
use crate::pool::Pool;
use crate::zeros::{data_runs, is_zero};

/// A cluster in more pieces than this is not worth waiting for.
const MOST_PIECES: usize = 256;

/// A cluster of which only parts have come.
#[derive(Debug)]
struct Part {
    buf: Vec<u8>,
    covered: Vec<Range<usize>>,
    /// When it was begun.
    stamp: u64,
}

#[derive(Debug, Default)]
struct Open {
    parts: BTreeMap<u64, Part>,
    /// Guest offsets by stamp.
    order: BTreeMap<u64, u64>,
    stamp: u64,
}

impl Open {
    fn remove(&mut self, guest: u64) -> Option<Part> {
        let part = self.parts.remove(&guest)?;
        self.order.remove(&part.stamp);
        Some(part)
    }

    fn oldest(&mut self) -> Option<(u64, Part)> {
        let (_, guest) = self.order.pop_first()?;
        Some((guest, self.parts.remove(&guest)?))
    }
}

/// Clusters that wait for their other parts.
#[derive(Debug)]
pub(super) struct Parts {
    open: Mutex<Open>,
    most: usize,
    pool: Pool,
}

/// What became of a piece.
enum Added {
    /// It is kept.
    Kept,
    /// It was the last one of its cluster.
    Complete(Part),
    /// There was no room: this one has to go first.
    Full(u64, Part),
}

impl Parts {
    /// `pool` has buffers of one cluster, more of them than `most`.
    pub(super) fn new(most: usize, pool: Pool) -> Self {
        Self {
            open: Mutex::default(),
            most,
            pool,
        }
    }

    /// Adds `bytes` at `from` of the cluster at `guest`, which is complete with `want` bytes.
    fn add(&self, guest: u64, from: usize, bytes: &[u8], want: usize) -> Result<Added, Stopped> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.parts.contains_key(&guest) {
            if open.parts.len() >= self.most
                && let Some((oldest, part)) = open.oldest()
            {
                return Ok(Added::Full(oldest, part));
            }
            // Waits, if at all, for a cluster that is being written: nobody who does that waits for us.
            let mut buf = self.pool.get()?;
            buf.fill(0);
            open.stamp += 1;
            let stamp = open.stamp;
            open.order.insert(stamp, guest);
            let part = Part {
                buf,
                covered: Vec::new(),
                stamp,
            };
            open.parts.insert(guest, part);
        }
        let Some(part) = open.parts.get_mut(&guest) else {
            return Ok(Added::Kept);
        };
        let range = from..from + bytes.len();
        part.buf[range.clone()].copy_from_slice(bytes);
        join_parts(&mut part.covered, range);
        let complete = matches!(&part.covered[..], [one] if one.start == 0 && one.end >= want);
        if complete || part.covered.len() > MOST_PIECES {
            return Ok(open.remove(guest).map_or(Added::Kept, Added::Complete));
        }
        Ok(Added::Kept)
    }

    fn take_oldest(&self) -> Option<(u64, Part)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.oldest()
    }
}

/// One thread's way of making clusters.
pub(super) struct Packer {
    cluster: usize,
    encoder: Option<ClusterEncoder>,
    scratch: Vec<u8>,
    parts: Arc<Parts>,
    /// End of the disk, if known: its last cluster is complete there.
    end: Option<u64>,
}

impl Packer {
    pub(super) fn new(
        cluster: u64,
        encoding: Option<Encoding>,
        parts: &Arc<Parts>,
        end: Option<u64>,
    ) -> longshore_image::Result<Self> {
        let cluster = cluster as usize;
        Ok(Self {
            cluster,
            encoder: encoding.map(ClusterEncoder::new).transpose()?,
            // One byte less than a cluster: what does not become smaller stays as it is.
            scratch: vec![0; if encoding.is_some() { cluster - 1 } else { 0 }],
            parts: Arc::clone(parts),
            end,
        })
    }

    /// Bytes per cluster.
    pub(super) fn cluster(&self) -> usize {
        self.cluster
    }

    /// Makes clusters of `parts` of `buf` (guest offset and range, ranges in order).
    pub(super) fn pack(
        &mut self,
        mut buf: Vec<u8>,
        parts: &[(u64, Range<usize>)],
        resolved: u64,
        sink: &Sink,
    ) -> Result<Batch, Stopped> {
        let mut made = Made::default();
        for (guest, range) in parts {
            let (mut guest, mut at) = (*guest, range.start);
            while at < range.end {
                let within = (guest % self.cluster as u64) as usize;
                let n = (self.cluster - within).min(range.end - at);
                if n == self.cluster {
                    self.make(guest, &mut buf, at, None, &mut made);
                } else {
                    self.piece(guest - within as u64, within, &buf[at..at + n], sink)?;
                }
                guest += n as u64;
                at += n;
            }
        }
        Ok(made.batch(buf, Home::Outputs, resolved))
    }

    /// A piece of the cluster at `guest`.
    fn piece(&mut self, guest: u64, from: usize, bytes: &[u8], sink: &Sink) -> Result<(), Stopped> {
        let rest = self.end.map_or(u64::MAX, |end| end.saturating_sub(guest));
        let want = rest.min(self.cluster as u64) as usize;
        loop {
            match self.parts.add(guest, from, bytes, want)? {
                Added::Kept => return Ok(()),
                Added::Complete(part) => return self.part(guest, part, want, sink),
                Added::Full(oldest, part) => self.part(oldest, part, self.cluster, sink)?,
            }
        }
    }

    /// Delivers a cluster that came in parts, whether or not all have come.
    fn part(&mut self, guest: u64, part: Part, want: usize, sink: &Sink) -> Result<(), Stopped> {
        let Part {
            mut buf, covered, ..
        } = part;
        let complete = matches!(&covered[..], [one] if one.start == 0 && one.end >= want);
        let mut made = Made::default();
        let covered = (!complete).then_some(covered);
        self.make(guest, &mut buf, 0, covered, &mut made);
        sink.deliver(made.batch(buf, Home::Parts, 0))
    }

    /// All that is coming has come: delivers what is in parts still.
    pub(super) fn drain(&mut self, sink: &Sink) -> Result<(), Stopped> {
        while let Some((guest, part)) = self.parts.take_oldest() {
            self.part(guest, part, self.cluster, sink)?;
        }
        Ok(())
    }

    /// Makes one cluster of the bytes at `at` of `buf`. Packed ones are moved up in the buffer, over
    /// what has been packed before them: one after the other, they become one write.
    fn make(
        &mut self,
        guest: u64,
        buf: &mut [u8],
        at: usize,
        covered: Option<Vec<Range<usize>>>,
        made: &mut Made,
    ) {
        let whole = at..at + self.cluster;
        let bytes = &buf[whole.clone()];
        if is_zero(bytes) {
            return;
        }
        let packed = self
            .encoder
            .as_mut()
            .and_then(|encoder| encoder.encode(bytes, &mut self.scratch));
        let (form, bytes) = if let Some(len) = packed {
            let to = made.free..made.free + len;
            buf[to.clone()].copy_from_slice(&self.scratch[..len]);
            (Form::Packed, to)
        } else {
            data_runs(guest, bytes, |_, run| {
                made.run(at + run.start..at + run.end);
            });
            (Form::Plain, whole)
        };
        made.free = bytes.end;
        made.stored.push(Stored {
            guest,
            bytes,
            form,
            covered,
        });
    }
}

/// Clusters of one buffer.
#[derive(Debug, Default)]
struct Made {
    stored: Vec<Stored>,
    runs: Vec<Range<usize>>,
    /// Up to here the buffer is taken by what is stored; never beyond what has been looked at.
    free: usize,
}

impl Made {
    fn run(&mut self, run: Range<usize>) {
        match self.runs.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => self.runs.push(run),
        }
    }

    fn batch(self, buf: Vec<u8>, home: Home, resolved: u64) -> Batch {
        Batch {
            buf,
            home,
            content: Content::Clusters {
                stored: self.stored,
                runs: self.runs,
            },
            parts: Vec::new(),
            resolved,
        }
    }
}
