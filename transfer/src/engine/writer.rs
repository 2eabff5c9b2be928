//! The back half of every transfer: decoding threads that take turns at writing.
//!
//! One writes at a time, because buffered writes to one inode take turns anyway (measured: two writers
//! took the same time and twice the CPU). Whoever has decoded something and finds nobody writing writes what
//! is there, its own first of all while it is still in that core's cache; whoever finds somebody writing
//! leaves the bytes to them and decodes on.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use longshore_image::FileRange;
use longshore_image::chain::Chain;
use longshore_image::cluster::ClusterCodec;

use super::clusters::{Packer, Parts};
use super::decode::{Task, Worker};
use super::output::{Batch, Home, Output};
use super::{Outcome, Shared};
use crate::budget::{Layout, PARTS_IN_FLIGHT};
use crate::cancel::Stopped;
use crate::phases::Work;
use crate::pool::Pool;
use crate::{Error, Result};

/// Where batches go: the output, and what waits for whoever is writing.
pub(super) struct Sink {
    output: Mutex<Option<Output>>,
    waiting: Mutex<VecDeque<Batch>>,
    outputs: Pool,
    parts: Pool,
    shared: Shared,
}

impl Sink {
    /// Writes `batch`, or leaves it to the thread that is writing now. What waits never outlives the
    /// last call: its number is bounded by the pool its buffers come from.
    pub(super) fn deliver(&self, batch: Batch) -> Result<(), Stopped> {
        self.waiting().push_back(batch);
        self.write_waiting()
    }

    fn write_waiting(&self) -> Result<(), Stopped> {
        loop {
            let mut output = match self.output.try_lock() {
                Ok(output) => output,
                Err(TryLockError::WouldBlock) => return Ok(()),
                Err(TryLockError::Poisoned(_)) => return Err(Stopped),
            };
            let output_open = output.as_mut().ok_or(Stopped)?;
            while let Some(batch) = self.next() {
                self.write(output_open, batch)?;
            }
            drop(output);
            // Somebody may have come between our last look and the unlocking, and have gone again.
            if self.waiting().is_empty() {
                return Ok(());
            }
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<Batch>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Output::share`]. What others leave to us meanwhile, we write.
    pub(super) fn share(&self, guest: u64, from: &FileRange<'_>) -> Result<bool, Stopped> {
        let shared = {
            let mut output = self.output.lock().map_err(|_| Stopped)?;
            let output = output.as_mut().ok_or(Stopped)?;
            let shared = output.share(guest, from.file, from.at, from.len);
            if shared {
                self.settled(output, std::iter::once(guest..guest + from.len))?;
            }
            shared
        };
        if shared {
            self.shared.progress.add_resolved(from.len);
        }
        self.write_waiting()?;
        Ok(shared)
    }

    /// `guest` reads as zeros. See [`Output::clear`].
    pub(super) fn zeros(&self, guest: Range<u64>) -> Result<(), Stopped> {
        let resolved = guest.end - guest.start;
        {
            let mut output = self.output.lock().map_err(|_| Stopped)?;
            let output = output.as_mut().ok_or(Stopped)?;
            output
                .clear(guest)
                .map_err(|e| self.shared.failure.fail(e))?;
        }
        self.shared.progress.add_resolved(resolved);
        self.write_waiting()
    }

    fn next(&self) -> Option<Batch> {
        self.waiting().pop_front()
    }

    fn write(&self, output: &mut Output, batch: Batch) -> Result<(), Stopped> {
        self.shared.check()?;
        let before = output.bytes_written();
        self.shared
            .clocks
            .time(Work::Write, || output.write(&batch))
            .map_err(|e| self.shared.failure.fail(e))?;
        let parts = batch.parts.iter();
        self.settled(
            output,
            parts.map(|(guest, range)| *guest..*guest + range.len() as u64),
        )?;
        let progress = &self.shared.progress;
        progress.add_written(output.bytes_written() - before);
        progress.add_resolved(batch.resolved);
        match batch.home {
            Home::Outputs => self.outputs.put(batch.buf),
            Home::Parts => self.parts.put(batch.buf),
            Home::Chunks(pool) => pool.put(batch.buf),
        }
        Ok(())
    }

    /// Has the journal know of it, and every now and then written.
    fn settled(
        &self,
        output: &mut Output,
        ranges: impl IntoIterator<Item = Range<u64>>,
    ) -> Result<(), Stopped> {
        let Some(recorder) = &self.shared.recorder else {
            return Ok(());
        };
        if !recorder.settled(ranges) {
            return Ok(());
        }
        output
            .checkpoint(recorder)
            .map_err(|e| self.shared.failure.fail(e))
    }

    /// The output, once no thread can deliver any more.
    fn close(&self) -> Option<Output> {
        self.output
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Running decoders; tasks go in by [`Back::send`].
pub(super) struct Back {
    tasks: Option<Sender<Task>>,
    inputs: Pool,
    outputs: Pool,
    workers: Vec<JoinHandle<Result<(), Stopped>>>,
    sink: Arc<Sink>,
    /// Makes clusters of what is left in parts at the end.
    last: Option<Packer>,
    layout: Layout,
    shares_blocks_of: Option<u64>,
    keeps_zeros: bool,
    takes_chunks: bool,
}

impl Back {
    /// Starts the threads. `codecs` has one entry per layer of `chain`; without a chain, one. `disk` is
    /// the size of the disk in bytes, if known.
    pub(super) fn start(
        layout: Layout,
        codecs: &[ClusterCodec],
        chain: Option<&Arc<Chain>>,
        output: Output,
        disk: Option<u64>,
        shared: &Shared,
    ) -> Result<Self> {
        let inputs = Pool::new(layout.buffers, layout.unit_in, &shared.failure);
        let outputs = Pool::new(layout.buffers, layout.unit_out, &shared.failure);
        let (task_tx, task_rx) = bounded(layout.buffers);
        let clusters = output.clusters();
        let shares_blocks_of = output.shares_blocks_of();
        let keeps_zeros = output.keeps_zeros();
        let takes_chunks = clusters.is_none();
        let cluster = clusters.map_or(0, |(cluster, _)| cluster as usize);
        let in_parts = layout.parts + PARTS_IN_FLIGHT as usize;
        let part_buffers = Pool::new(in_parts, cluster, &shared.failure);
        let parts = Arc::new(Parts::new(layout.parts, part_buffers.clone()));
        let packer = || match clusters {
            Some((cluster, encoding)) => Packer::new(cluster, encoding, &parts, disk)
                .map(Some)
                .map_err(|e| shared.image(e)),
            None => Ok(None),
        };
        let sink = Arc::new(Sink {
            output: Mutex::new(Some(output)),
            waiting: Mutex::default(),
            outputs: outputs.clone(),
            parts: part_buffers,
            shared: shared.clone(),
        });
        let mut workers = Vec::with_capacity(layout.threads);
        for n in 0..layout.threads {
            let worker = Worker {
                tasks: task_rx.clone(),
                sink: Arc::clone(&sink),
                inputs: inputs.clone(),
                outputs: outputs.clone(),
                chain: chain.cloned(),
                decoders: Worker::decoders(codecs),
                packer: packer()?,
                scratch: Vec::new(),
                keeps_zeros,
                reading: Duration::ZERO,
                shared: shared.clone(),
            };
            workers.push(spawn(format!("decode-{n}"), move || worker.run())?);
        }
        Ok(Self {
            tasks: Some(task_tx),
            inputs,
            outputs,
            workers,
            sink,
            last: packer()?,
            layout,
            shares_blocks_of,
            keeps_zeros,
            takes_chunks,
        })
    }

    /// A [`Task::Plain`] may have a chunk of the stream: nothing has to be laid out anew.
    pub(super) fn takes_chunks(&self) -> bool {
        self.takes_chunks
    }

    pub(super) fn send(&self, task: Task) -> Result<(), Stopped> {
        self.tasks
            .as_ref()
            .ok_or(Stopped)?
            .send(task)
            .map_err(|_| Stopped)
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// The block of what the target may share with the source; see [`Output::shares_blocks_of`].
    pub(super) fn shares_blocks_of(&self) -> Option<u64> {
        self.shares_blocks_of
    }

    /// Shares `from` with the target, at `guest`. False if it must be copied.
    pub(super) fn share(&self, guest: u64, from: &FileRange<'_>) -> Result<bool, Stopped> {
        self.sink.share(guest, from)
    }

    /// `guest` reads as zeros, where it might not.
    pub(super) fn zeros(&self, guest: Range<u64>) -> Result<(), Stopped> {
        if self.keeps_zeros {
            return self.sink.zeros(guest);
        }
        self.sink
            .shared
            .progress
            .add_resolved(guest.end - guest.start);
        Ok(())
    }

    /// Buffers for [`Task::Packed`].
    pub(super) fn inputs(&self) -> &Pool {
        &self.inputs
    }

    /// Buffers for [`Task::Plain`].
    pub(super) fn outputs(&self) -> &Pool {
        &self.outputs
    }

    /// No more tasks: waits until all is written.
    pub(super) fn finish(mut self, shared: &Shared) -> Result<Output, Outcome> {
        match self.close() {
            Some((output, true)) if !shared.failure.failed() => Ok(output),
            Some((output, _)) => {
                self.end_early(output);
                Err(Outcome::Stopped)
            }
            None => Err(Outcome::Stopped),
        }
    }

    /// Waits for all threads, and says whether all were content.
    fn close(&mut self) -> Option<(Output, bool)> {
        self.tasks = None;
        let mut content = true;
        for worker in self.workers.drain(..) {
            content &= matches!(worker.join(), Ok(Ok(())));
        }
        if content && let Some(mut packer) = self.last.take() {
            content = packer.drain(&self.sink).is_ok();
        }
        let output = self.sink.close()?;
        Some((output, content))
    }

    /// What has settled is written down, if it can be made durable.
    fn end_early(&self, mut output: Output) {
        let Some(recorder) = &self.sink.shared.recorder else {
            return;
        };
        if let Err(e) = output.checkpoint(recorder) {
            tracing::warn!(error = %e, "the last of what was done is not written down");
        }
        recorder.stop();
    }
}

impl Drop for Back {
    /// On every way out the target is closed, and a partial file gone, before the caller hears of it.
    fn drop(&mut self) {
        if let Some((output, _)) = self.close() {
            self.end_early(output);
        }
    }
}

/// A named thread. A panic in it stops the transfer: its channel ends close.
pub(super) fn spawn<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name)
        .spawn(body)
        .map_err(|source| Error::Thread { source })
}
