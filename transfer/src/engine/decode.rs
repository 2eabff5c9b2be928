//! The decoding stage: tasks in, what to write out. Runs on as many threads as the budget laid out.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use longshore_image::ReadAtExt;
use longshore_image::chain::Chain;
use longshore_image::cluster::{ClusterCodec, ClusterDecoder};

use super::Shared;
use super::writer::Sink;
use crate::cancel::Stopped;
use crate::pool::Pool;
use crate::zeros::data_runs;

/// A piece of work, of at most one unit of output.
#[derive(Debug)]
pub(super) enum Task {
    /// Bytes of the disk that have already arrived: only look for zeros.
    Plain {
        /// A buffer of the output pool.
        buf: Vec<u8>,
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
    /// Bytes of the disk, to be read from a layer.
    ReadPlain {
        layer: usize,
        /// Guest offset, offset in the layer's data, length.
        parts: Vec<(u64, u64, usize)>,
    },
    /// Compressed clusters, to be read from a layer.
    ReadPacked {
        layer: usize,
        /// What to read, one after the other into the input buffer.
        reads: Vec<(u64, usize)>,
        clusters: Vec<Packed>,
    },
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

/// Decoded bytes on their way to the target.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) buf: Vec<u8>,
    /// What is not zero: guest offset and range in `buf`.
    pub(super) runs: Vec<(u64, Range<usize>)>,
    /// Guest bytes that this settles, zeros included.
    pub(super) resolved: u64,
}

/// One decoding thread.
pub(super) struct Worker {
    pub(super) tasks: Receiver<Task>,
    pub(super) sink: Arc<Sink>,
    pub(super) inputs: Pool,
    pub(super) outputs: Pool,
    pub(super) chain: Option<Arc<Chain>>,
    pub(super) decoders: Vec<ClusterDecoder>,
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
            let batch = match self.decode(task) {
                Ok(batch) => batch,
                Err(Halt::Stopped) => return Err(Stopped),
                Err(Halt::Image(e)) => {
                    let e = self.shared.image(e);
                    return Err(self.shared.failure.fail(e));
                }
            };
            self.sink.deliver(batch)?;
        }
        Ok(())
    }

    fn decode(&mut self, task: Task) -> Result<Batch, Halt> {
        match task {
            Task::Plain { buf, parts } => Ok(Self::settle(buf, &parts)),
            Task::Packed { input, clusters } => {
                let buf = self.outputs.get()?;
                let batch = self.inflate(0, &input, &clusters, buf)?;
                self.inputs.put(input);
                Ok(batch)
            }
            Task::ReadPlain { layer, parts } => {
                let mut buf = self.outputs.get()?;
                let image = Arc::clone(self.layer(layer)?);
                let mut placed = Vec::with_capacity(parts.len());
                let mut used = 0;
                for (guest, at, len) in parts {
                    image.read_padded_at(&mut buf[used..used + len], at)?;
                    placed.push((guest, used..used + len));
                    used += len;
                }
                self.shared.progress.add_read(used as u64);
                Ok(Self::settle(buf, &placed))
            }
            Task::ReadPacked {
                layer,
                reads,
                clusters,
            } => {
                let mut input = self.inputs.get()?;
                let image = Arc::clone(self.layer(layer)?);
                let mut used = 0;
                for (at, len) in reads {
                    image.read_padded_at(&mut input[used..used + len], at)?;
                    used += len;
                }
                self.shared.progress.add_read(used as u64);
                let buf = self.outputs.get()?;
                let batch = self.inflate(layer, &input, &clusters, buf)?;
                self.inputs.put(input);
                Ok(batch)
            }
        }
    }

    fn layer(&self, layer: usize) -> longshore_image::Result<&Arc<dyn longshore_image::ReadAt>> {
        match &self.chain {
            Some(chain) => Ok(chain.layer(layer)?.data()),
            None => Err(longshore_image::Error::malformed(
                "a read task without an image",
            )),
        }
    }

    fn inflate(
        &mut self,
        layer: usize,
        input: &[u8],
        clusters: &[Packed],
        mut buf: Vec<u8>,
    ) -> Result<Batch, Halt> {
        let Some(decoder) = self.decoders.get_mut(layer) else {
            return Err(Halt::Image(longshore_image::Error::malformed(
                "no decoder for a layer",
            )));
        };
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
        Ok(Self::settle(buf, &parts))
    }

    /// Finds what is to be written.
    fn settle(buf: Vec<u8>, parts: &[(u64, Range<usize>)]) -> Batch {
        let mut runs = Vec::with_capacity(parts.len());
        let mut resolved = 0;
        for (guest, range) in parts {
            resolved += range.len() as u64;
            data_runs(*guest, &buf[range.clone()], |at, run| {
                runs.push((at, range.start + run.start..range.start + run.end));
            });
        }
        Batch {
            buf,
            runs,
            resolved,
        }
    }
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
