//! The back half of every transfer: decoding threads and the one writer.
//!
//! One writer, because buffered writes to one inode take turns anyway (measured: two writers took the
//! same time and twice the CPU, `../shared/reference/performance.md`).

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use longshore_image::chain::Chain;
use longshore_image::cluster::ClusterCodec;

use super::decode::{Batch, Task, Worker};
use super::{Outcome, Shared};
use crate::budget::Layout;
use crate::cancel::Stopped;
use crate::pool::Pool;
use crate::target::Target;
use crate::{Error, Result};

/// Running decoders and writer; tasks go in by [`Back::send`].
pub(super) struct Back {
    tasks: Option<Sender<Task>>,
    inputs: Pool,
    outputs: Pool,
    workers: Vec<JoinHandle<Result<(), Stopped>>>,
    writer: Option<JoinHandle<Result<Target, Stopped>>>,
    layout: Layout,
}

impl Back {
    /// Starts the threads. `codecs` has one entry per layer of `chain`; without a chain, one.
    pub(super) fn start(
        layout: Layout,
        codecs: &[ClusterCodec],
        chain: Option<&Arc<Chain>>,
        target: Target,
        shared: &Shared,
    ) -> Result<Self> {
        let inputs = Pool::new(layout.buffers, layout.unit_in, &shared.failure);
        let outputs = Pool::new(layout.buffers, layout.unit_out, &shared.failure);
        let (task_tx, task_rx) = bounded(layout.threads * 2);
        let (batch_tx, batch_rx) = bounded(layout.buffers);
        let mut workers = Vec::with_capacity(layout.threads);
        for n in 0..layout.threads {
            let worker = Worker {
                tasks: task_rx.clone(),
                batches: batch_tx.clone(),
                inputs: inputs.clone(),
                outputs: outputs.clone(),
                chain: chain.cloned(),
                decoders: Worker::decoders(codecs),
                shared: shared.clone(),
            };
            workers.push(spawn(format!("decode-{n}"), move || worker.run())?);
        }
        drop(batch_tx);
        let pool = outputs.clone();
        let for_writer = shared.clone();
        let writer = spawn("write".to_owned(), move || {
            write(target, &batch_rx, &pool, &for_writer)
        })?;
        Ok(Self {
            tasks: Some(task_tx),
            inputs,
            outputs,
            workers,
            writer: Some(writer),
            layout,
        })
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

    /// Buffers for [`Task::Packed`].
    pub(super) fn inputs(&self) -> &Pool {
        &self.inputs
    }

    /// Buffers for [`Task::Plain`].
    pub(super) fn outputs(&self) -> &Pool {
        &self.outputs
    }

    /// No more tasks: waits until all is written.
    pub(super) fn finish(mut self, shared: &Shared) -> Result<Target, Outcome> {
        match self.join() {
            Some(target) if !shared.failure.failed() => Ok(target),
            _ => Err(Outcome::Stopped),
        }
    }

    /// Waits for all threads; gives the target if all were content.
    fn join(&mut self) -> Option<Target> {
        self.tasks = None;
        let mut content = true;
        for worker in self.workers.drain(..) {
            content &= matches!(worker.join(), Ok(Ok(())));
        }
        let target = self.writer.take()?.join().ok()?.ok()?;
        content.then_some(target)
    }
}

impl Drop for Back {
    /// On every way out the target is closed, and a partial file gone, before the caller hears of it.
    fn drop(&mut self) {
        self.join();
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

fn write(
    mut target: Target,
    batches: &Receiver<Batch>,
    pool: &Pool,
    shared: &Shared,
) -> Result<Target, Stopped> {
    while let Ok(batch) = batches.recv() {
        shared.check()?;
        let before = target.bytes_written();
        for (guest, run) in batch.runs {
            target
                .write(guest, &batch.buf[run])
                .map_err(|e| shared.failure.fail(e))?;
        }
        shared.progress.add_written(target.bytes_written() - before);
        shared.progress.add_resolved(batch.resolved);
        pool.put(batch.buf);
    }
    Ok(target)
}
