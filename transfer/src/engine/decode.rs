//! The decoding stage: tasks in, what to write out. Runs on as many threads as the budget laid out.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use longshore_image::ReadAtExt;
use longshore_image::chain::Chain;
use longshore_image::cluster::{ClusterCodec, ClusterDecoder};

use super::Shared;
use super::clusters::Packer;
use super::output::{Batch, Content, Home};
use super::writer::Sink;
use crate::cancel::Stopped;
use crate::phases::Work;
use crate::pool::Pool;
use crate::zeros::data_runs;

/// A piece of work, of at most one unit of output.
#[derive(Debug)]
pub(super) enum Task {
    /// Bytes of the disk that have already arrived: only look for zeros.
    Plain {
        /// A buffer of the output pool, or a chunk of the stream.
        buf: Vec<u8>,
        home: Home,
        /// What is in it: guest offset and range.
        parts: Vec<(u64, Range<usize>)>,
    },
    /// Compressed clusters that have already arrived.
    Packed {
        /// A buffer of the input pool.
        input: Vec<u8>,
        /// The clusters in it.
        clusters: Vec<Packed>,
    },
    /// Bytes of the disk, to be read from a layer and passed on step by step.
    ReadPlain {
        layer: usize,
        /// None with more than a unit of bytes, none empty.
        steps: Vec<Vec<Plain>>,
    },
    /// Compressed clusters, to be read from a layer.
    ReadPacked(Group),
    /// All there is of one aligned unit of the disk.
    Unit(Unit),
}

/// Bytes of the disk as they are in a layer's data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain {
    pub(super) guest: u64,
    pub(super) at: u64,
    pub(super) len: usize,
}

/// Compressed clusters that are read together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) layer: usize,
    /// What to read, one after the other into the input buffer.
    pub(super) reads: Vec<(u64, usize)>,
    pub(super) clusters: Vec<Packed>,
}

/// A unit of the disk: what is in none of its parts is zero.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) guest: u64,
    pub(super) len: usize,
    /// Layer, guest offset, offset in the layer's data, length.
    pub(super) plain: Vec<(usize, u64, u64, usize)>,
    pub(super) packed: Vec<Group>,
    /// Guest bytes that its parts have together.
    pub(super) bytes: u64,
}

/// One compressed cluster of a task.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    /// Guest range of the cluster, as it decodes.
    pub(super) guest: Range<u64>,
    /// The part that is wanted.
    pub(super) visible: Range<u64>,
    /// Where its bytes are in the input buffer.
    pub(super) input: Range<usize>,
}

/// A buffer of the disk's bytes.
struct Decoded {
    buf: Vec<u8>,
    /// What is in it: guest offset and range.
    parts: Vec<(u64, Range<usize>)>,
    home: Home,
    /// Guest bytes that this settles.
    resolved: u64,
}

impl Decoded {
    fn of(buf: Vec<u8>, parts: Vec<(u64, Range<usize>)>) -> Self {
        Self {
            buf,
            home: Home::Outputs,
            resolved: parts.iter().map(|(_, range)| range.len() as u64).sum(),
            parts,
        }
    }
}

/// One decoding thread.
pub(super) struct Worker {
    pub(super) tasks: Receiver<Task>,
    pub(super) sink: Arc<Sink>,
    pub(super) inputs: Pool,
    pub(super) outputs: Pool,
    pub(super) chain: Option<Arc<Chain>>,
    pub(super) decoders: Vec<ClusterDecoder>,
    /// Makes clusters, where the target has them.
    pub(super) packer: Option<Packer>,
    /// For clusters of which only a part is wanted.
    pub(super) scratch: Vec<u8>,
    /// Zeros are written like all else.
    pub(super) keeps_zeros: bool,
    /// Time spent reading.
    pub(super) reading: Duration,
    pub(super) shared: Shared,
}

impl Worker {
    pub(super) fn decoders(codecs: &[ClusterCodec]) -> Vec<ClusterDecoder> {
        codecs
            .iter()
            .map(|&codec| ClusterDecoder::new(codec))
            .collect()
    }

    pub(super) fn run(mut self) -> Result<(), Stopped> {
        while let Ok(task) = self.tasks.recv() {
            match task {
                Task::Plain { buf, home, parts } => self.work(|_| {
                    Ok(Decoded {
                        home,
                        ..Decoded::of(buf, parts)
                    })
                })?,
                Task::Packed { input, clusters } => {
                    self.work(|this| this.inflate(0, input, &clusters))?;
                }
                Task::ReadPlain { layer, steps } => {
                    for step in &steps {
                        self.work(|this| this.plain(layer, step))?;
                    }
                }
                Task::ReadPacked(group) => self.work(|this| {
                    let input = this.read(&group)?;
                    this.inflate(group.layer, input, &group.clusters)
                })?,
                Task::Unit(unit) => self.work(|this| this.unit(&unit))?,
            }
        }
        Ok(())
    }

    /// Makes bytes of the disk by `decode`, and passes them on.
    fn work(
        &mut self,
        decode: impl FnOnce(&mut Self) -> Result<Decoded, Halt>,
    ) -> Result<(), Stopped> {
        let (started, reading) = (Instant::now(), self.reading);
        let decoded = match decode(self) {
            Ok(decoded) => decoded,
            Err(Halt::Stopped) => return Err(Stopped),
            Err(Halt::Image(e)) => {
                let e = self.shared.image(e);
                return Err(self.shared.failure.fail(e));
            }
        };
        let Decoded {
            buf,
            parts,
            home,
            resolved,
        } = decoded;
        let batch = match &mut self.packer {
            Some(packer) => packer.pack(buf, &parts, resolved, &self.sink)?,
            None if self.keeps_zeros => Batch {
                buf,
                home,
                content: Content::Runs(parts.clone()),
                parts,
                resolved,
            },
            None => Self::settle(buf, home, parts, resolved),
        };
        let read = self.reading.saturating_sub(reading);
        let clocks = &self.shared.clocks;
        clocks.add(Work::Read, read);
        clocks.add(Work::Decode, started.elapsed().saturating_sub(read));
        self.sink.deliver(batch)
    }

    /// Reads plain data.
    fn plain(&mut self, layer: usize, step: &[Plain]) -> Result<Decoded, Halt> {
        let mut buf = self.outputs.get()?;
        let image = Arc::clone(self.layer(layer)?);
        let reading = Instant::now();
        let mut placed = Vec::with_capacity(step.len());
        let mut used = 0;
        for &Plain { guest, at, len } in step {
            image.read_padded_at(&mut buf[used..used + len], at)?;
            placed.push((guest, used..used + len));
            used += len;
        }
        self.reading += reading.elapsed();
        self.shared.progress.add_read(used as u64);
        Ok(Decoded::of(buf, placed))
    }

    /// Reads what a group's clusters are decoded from.
    fn read(&mut self, group: &Group) -> Result<Vec<u8>, Halt> {
        let mut input = self.inputs.get()?;
        let image = self.layer(group.layer)?;
        let reading = Instant::now();
        let mut used = 0;
        for &(at, len) in &group.reads {
            image.read_padded_at(&mut input[used..used + len], at)?;
            used += len;
        }
        self.reading += reading.elapsed();
        self.shared.progress.add_read(used as u64);
        Ok(input)
    }

    /// All of a unit, zeros included, up to the end of its last cluster.
    fn unit(&mut self, unit: &Unit) -> Result<Decoded, Halt> {
        let mut buf = self.outputs.get()?;
        let cluster = self.packer.as_ref().map_or(1, Packer::cluster);
        let len = unit.len.next_multiple_of(cluster).min(buf.len());
        if unit.bytes < len as u64 {
            buf[..len].fill(0);
        }
        let reading = Instant::now();
        for &(layer, guest, at, len) in &unit.plain {
            let from = (guest - unit.guest) as usize;
            self.layer(layer)?
                .read_padded_at(&mut buf[from..from + len], at)?;
            self.shared.progress.add_read(len as u64);
        }
        self.reading += reading.elapsed();
        for group in &unit.packed {
            let input = self.read(group)?;
            for cluster in &group.clusters {
                let from = (cluster.visible.start - unit.guest) as usize;
                let to = (cluster.visible.end - unit.guest) as usize;
                self.decode_part(group.layer, &input, cluster, &mut buf[from..to])?;
            }
            self.inputs.put(input);
        }
        Ok(Decoded {
            resolved: unit.bytes,
            ..Decoded::of(buf, vec![(unit.guest, 0..len)])
        })
    }

    /// Decodes what is wanted of `cluster` into `out`.
    fn decode_part(
        &mut self,
        layer: usize,
        input: &[u8],
        cluster: &Packed,
        out: &mut [u8],
    ) -> longshore_image::Result<()> {
        let decoder = decoder_of(&mut self.decoders, layer)?;
        let input = &input[cluster.input.clone()];
        if cluster.visible.start == cluster.guest.start {
            return decoder.decode(input, out);
        }
        let skip = (cluster.visible.start - cluster.guest.start) as usize;
        self.scratch.resize(skip + out.len(), 0);
        decoder.decode(input, &mut self.scratch)?;
        out.copy_from_slice(&self.scratch[skip..]);
        Ok(())
    }

    fn layer(&self, layer: usize) -> longshore_image::Result<&Arc<dyn longshore_image::ReadAt>> {
        match &self.chain {
            Some(chain) => Ok(chain.layer(layer)?.data()),
            None => Err(longshore_image::Error::malformed(
                "a read task without an image",
            )),
        }
    }

    /// Decodes clusters out of `input`, which goes back to its pool.
    fn inflate(
        &mut self,
        layer: usize,
        input: Vec<u8>,
        clusters: &[Packed],
    ) -> Result<Decoded, Halt> {
        let mut buf = self.outputs.get()?;
        let decoder = decoder_of(&mut self.decoders, layer)?;
        let mut parts: Vec<(u64, Range<usize>)> = Vec::with_capacity(clusters.len());
        let mut used = 0;
        for cluster in clusters {
            let len = (cluster.guest.end - cluster.guest.start) as usize;
            decoder.decode(&input[cluster.input.clone()], &mut buf[used..used + len])?;
            let from = used + (cluster.visible.start - cluster.guest.start) as usize;
            let to = from + (cluster.visible.end - cluster.visible.start) as usize;
            match parts.last_mut() {
                // Neighbours on the disk that are neighbours in the buffer become one write.
                Some((guest, range))
                    if range.end == from
                        && *guest + range.len() as u64 == cluster.visible.start =>
                {
                    range.end = to;
                }
                _ => parts.push((cluster.visible.start, from..to)),
            }
            used += len;
        }
        self.inputs.put(input);
        Ok(Decoded::of(buf, parts))
    }

    /// Finds what is to be written.
    fn settle(buf: Vec<u8>, home: Home, parts: Vec<(u64, Range<usize>)>, resolved: u64) -> Batch {
        let mut runs = Vec::with_capacity(parts.len());
        for (guest, range) in &parts {
            data_runs(*guest, &buf[range.clone()], |at, run| {
                runs.push((at, range.start + run.start..range.start + run.end));
            });
        }
        Batch {
            buf,
            home,
            content: Content::Runs(runs),
            parts,
            resolved,
        }
    }
}

fn decoder_of(
    decoders: &mut [ClusterDecoder],
    layer: usize,
) -> longshore_image::Result<&mut ClusterDecoder> {
    decoders
        .get_mut(layer)
        .ok_or_else(|| longshore_image::Error::malformed("no decoder for a layer"))
}

/// Why a task was not done.
enum Halt {
    Stopped,
    Image(longshore_image::Error),
}

impl From<Stopped> for Halt {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<longshore_image::Error> for Halt {
    fn from(e: longshore_image::Error) -> Self {
        Self::Image(e)
    }
}
