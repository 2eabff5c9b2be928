//! The transfer itself: which road an image takes, and the stages on it.

mod clusters;
mod decode;
mod holes;
mod inspect;
mod output;
mod passes;
mod pieces;
mod planner;
mod resume;
mod served;
mod share;
mod skip;
mod stream;
mod units;
mod unwrapped;
mod walk;
mod writer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_image::chain::Chain;
use longshore_image::forward::{self, Decoder};
use longshore_image::{
    DenyAll, Format, Info, Limits, OpenGate, PROBE_LEN, Probe, ReadAt, TAIL_LEN, Wrapper,
    probe_tail, vhd,
};

pub use self::inspect::{Inspection, inspect};
use self::output::{Moved, Output};
use self::passes::{Layer, Unwrapped, one_more, stream_road, unwrap_all, wrappers_of};
use self::resume::Resumed;
pub use self::unwrapped::unwrapped;
use self::writer::Back;
use crate::budget::Budget;
use crate::cancel::{Failure, Stopped};
use crate::journal::{Image, Order, Plan, Recorder};
use crate::phases::{Clocks, Phases};
use crate::source::Inside;
use crate::target::Target;
use crate::written::Written;
use crate::{Cancel, Checksum, Error, Memory, Progress, Result, Source, TargetFormat, TargetSpec};

/// How to transfer.
#[derive(Debug, Clone)]
pub struct Options {
    /// The format the image has; `None` asks its content.
    pub from: Option<Format>,
    /// Most decoding threads.
    pub threads: usize,
    /// Memory for everything.
    pub memory: Memory,
    /// Most bytes that may wait in a file for tables that come after their data.
    pub spill_limit: u64,
    /// Digest of the source's bytes.
    pub checksum: Option<Checksum>,
    /// Decides about files that the image names.
    pub gate: Arc<dyn OpenGate>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            from: None,
            threads: default_threads(),
            memory: Memory::from_cgroup(),
            spill_limit: 0,
            checksum: None,
            gate: Arc::new(DenyAll),
        }
    }
}

/// As many as there are cores, or as the cgroup's quota gives.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What a transfer did.
#[derive(Debug, Clone)]
pub struct Report {
    /// The image.
    pub info: Info,
    /// Compressed streams around it, outermost first.
    pub wrappers: Vec<Wrapper>,
    /// What was made of it.
    pub written_as: TargetFormat,
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// Bytes read from the source, side reads and repeated passes included.
    pub bytes_read: u64,
    /// Bytes written to the target.
    pub bytes_written: u64,
    /// Bytes that were not copied: source and target have the same blocks on one filesystem.
    pub bytes_shared: u64,
    /// Bytes that waited in a file for their table.
    pub bytes_spilled: u64,
    /// Bytes of the disk that were there from an earlier run.
    pub bytes_resumed: u64,
    /// Bytes of the journal that were written.
    pub bytes_journal: u64,
    /// How often the stream was read; 0 with random access.
    pub passes: u32,
    /// Decoding threads.
    pub threads: usize,
    /// From start to durable.
    pub elapsed: Duration,
    /// Where the time went.
    pub phases: Phases,
}

/// The part of all memory that a source may take until it is known what it holds: one of so many.
/// Nothing else takes any so far.
const WHILE_PROBING: u64 = 8;

/// What all stages of one transfer share.
#[derive(Clone)]
struct Shared {
    failure: Failure,
    cancel: Cancel,
    progress: Progress,
    clocks: Clocks,
    name: Arc<str>,
    /// Keeps the journal, if there is one.
    recorder: Option<Recorder>,
    /// What of the disk is done already.
    done: Option<Arc<Written>>,
}

impl Shared {
    /// Stops at a failure elsewhere or a request from outside.
    fn check(&self) -> Result<(), Stopped> {
        if self.cancel.is_cancelled() {
            return Err(self.failure.fail(Error::Interrupted));
        }
        if self.failure.failed() {
            Err(Stopped)
        } else {
            Ok(())
        }
    }

    /// This much of the disk is there from an earlier run.
    fn is_done(&self, range: &Range<u64>) -> bool {
        self.done.as_ref().is_some_and(|done| done.covers(range))
    }

    fn image(&self, source: longshore_image::Error) -> Error {
        Error::image(format!("can't read the image {}", self.name), source)
    }
}

/// Copies the disk that `source` holds to `target`.
///
/// On error nothing is left that looks complete: see [`TargetSpec`] for what a killed transfer leaves.
/// With a [journal](TargetSpec::journal) an error that may pass leaves what the next call with the same
/// arguments goes on from; [`Snapshot::kept`](crate::Snapshot) tells.
pub fn transfer(
    source: &mut dyn Source,
    target: &TargetSpec,
    options: &Options,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<Report> {
    let started = Instant::now();
    let mut shared = Shared {
        failure: Failure::default(),
        cancel: cancel.clone(),
        progress: progress.clone(),
        clocks: Clocks::default(),
        name: source.name().into(),
        recorder: None,
        done: None,
    };
    let options = &known(source, options);
    if let Some(allowance) = source.allowance() {
        allowance.allow(options.memory.bytes() / WHILE_PROBING);
    }
    let plan = if source.changes_only() {
        None
    } else {
        Plan::of(source, target, options)
    };
    let (opened, kept) = if source.changes_only() {
        (Target::existing(target, source.identity())?, None)
    } else {
        Target::open(target, source.identity(), plan.as_ref())?
    };
    let resumed = kept
        .as_ref()
        .and_then(|kept| Resumed::of(kept, &mut shared));
    shared.recorder = kept.map(|kept| Recorder::new(kept, &target.path, &shared.failure, progress));
    let outcome = copy(source, opened, target, options, resumed.as_ref(), &shared);
    let Some(recorder) = &shared.recorder else {
        return Ok(outcome?.report(target, started, 0, &shared));
    };
    match outcome {
        Ok(finished) => {
            let journal = recorder.bytes_written();
            recorder.complete();
            Ok(finished.report(target, started, journal, &shared))
        }
        Err(e) => {
            let stopped = cancel.is_cancelled() && matches!(e, Error::Source { .. });
            if !stopped && !e.may_pass(|e| source.lasts(e)) {
                progress.set_kept(false);
                recorder.abandon();
            } else if recorder.keep() {
                progress.set_kept(true);
            }
            Err(e)
        }
    }
}

/// All is durable.
struct Finished {
    info: Info,
    wrappers: Vec<Wrapper>,
    virtual_size: u64,
    threads: usize,
    moved: Moved,
    flush: Duration,
}

impl Finished {
    fn report(
        self,
        target: &TargetSpec,
        started: Instant,
        journal: u64,
        shared: &Shared,
    ) -> Report {
        shared.progress.set_done();
        let snapshot = shared.progress.snapshot();
        Report {
            info: self.info,
            wrappers: self.wrappers,
            written_as: target.format,
            virtual_size: self.virtual_size,
            bytes_read: snapshot.read,
            bytes_written: self.moved.written,
            bytes_shared: self.moved.shared,
            bytes_spilled: snapshot.spilled,
            bytes_resumed: snapshot.resumed,
            bytes_journal: journal,
            passes: snapshot.pass,
            threads: self.threads,
            elapsed: started.elapsed(),
            phases: shared.clocks.read_out(self.moved.write_back, self.flush),
        }
    }
}

/// The digest that is computed of the source's bytes.
pub(crate) fn digest_of(source: &dyn Source, options: &Options) -> Option<Checksum> {
    options.checksum.clone().or_else(|| source.digest())
}

/// The transfer, once its target is open.
fn copy(
    source: &mut dyn Source,
    opened: Target,
    target: &TargetSpec,
    options: &Options,
    resumed: Option<&Resumed>,
    shared: &Shared,
) -> Result<Finished> {
    let budget = Budget::new(options.memory)?;
    let outcome = if let Some(disk) = served::disk(source, options)? {
        served::road(disk, source, opened, options, budget, shared)
    } else {
        match random_image(source, options, resumed, &budget, shared)? {
            Some((format, chain, limits)) => {
                random_road(format, &chain, limits, opened, options, budget, shared)
            }
            None => stream_road(source, opened, target, options, resumed, budget, shared),
        }
    };
    let done = match outcome {
        Ok(done) => done,
        Err(Outcome::Error(e)) => return Err(e),
        Err(Outcome::Stopped) => {
            return Err(shared.failure.take().unwrap_or(Error::Interrupted));
        }
    };
    let finishing = Instant::now();
    if let Some(recorder) = &shared.recorder {
        recorder.stop();
        if let Some(e) = shared.failure.take() {
            return Err(e);
        }
    }
    let moved = done.output.finish(done.virtual_size)?;
    Ok(Finished {
        info: done.info,
        wrappers: done.wrappers,
        virtual_size: done.virtual_size,
        threads: done.threads,
        moved,
        flush: finishing.elapsed(),
    })
}

/// The options, with what the source knows of its content.
fn known(source: &dyn Source, options: &Options) -> Options {
    let mut options = options.clone();
    options.from = options.from.or_else(|| source.format());
    options
}

/// Everything is written, nothing is durable yet.
struct Done {
    output: Output,
    info: Info,
    wrappers: Vec<Wrapper>,
    virtual_size: u64,
    threads: usize,
}

/// Why a road ended early: an error here, or one that a stage recorded.
enum Outcome {
    Error(Error),
    Stopped,
}

impl From<Error> for Outcome {
    fn from(e: Error) -> Self {
        Self::Error(e)
    }
}

impl From<Stopped> for Outcome {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// The image, if it is to be read at random: a local one without a wrapper, of which no digest is
/// wanted (a digest needs every byte in order).
fn random_image(
    source: &mut dyn Source,
    options: &Options,
    resumed: Option<&Resumed>,
    budget: &Budget,
    shared: &Shared,
) -> Result<Option<(Format, Arc<Chain>, Limits)>> {
    if digest_of(source, options).is_some() || !source.prefers_random() {
        return Ok(None);
    }
    let Some(file) = source.random() else {
        return Ok(None);
    };
    let format = match resumed {
        // What it is was found out once, and is not asked again.
        Some(resumed) if !resumed.image.around.is_empty() => return Ok(None),
        Some(resumed) => resumed.image.format,
        None => match image_in(source, file.as_ref(), options, &shared.name)? {
            Some(format) => format,
            None => return Ok(None),
        },
    };
    // What tables may take is the same on either road, and charged on the one that is taken.
    let limits = Limits::with_table_bytes(budget.table_share());
    let chain = open_chain(format, file, options, &limits, shared)?;
    Ok(Some((format, Arc::new(chain), limits)))
}

/// The format of the image that a file is by its first bytes, and by its last where those say nothing,
/// given what the caller says it is. `None` for what must be taken apart in a stream: a wrapper, or what
/// the source takes for an archive.
fn image_in(
    source: &dyn Source,
    file: &dyn ReadAt,
    options: &Options,
    name: &str,
) -> Result<Option<Format>> {
    let read = |offset: u64, len: usize| {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset)
            .map(|()| bytes)
            .map_err(|e| Error::Source {
                name: name.to_owned(),
                source: Box::new(e),
            })
    };
    let len = usize::try_from(file.len()).unwrap_or(usize::MAX);
    let head = read(0, PROBE_LEN.min(len))?;
    let Probe::Image(mut format) = identify(&head, options.from, name)? else {
        return Ok(None);
    };
    if end_decides(format, options) {
        let tail = TAIL_LEN.min(len);
        let tail = read(file.len() - tail as u64, tail)?;
        format = probe_tail(&tail, file.len()).unwrap_or(format);
    }
    let is_image = matches!(source.inside(&head, options.from.is_some()), Inside::Image);
    Ok(is_image.then_some(format))
}

/// Nothing was recognised at the beginning, and nobody said that it is raw.
fn end_decides(found: Format, options: &Options) -> bool {
    options.from.is_none() && found == Format::Raw
}

/// The decoder for a stream that was found to be `format`, and how large its disk is at least.
fn stream_decoder(
    format: Format,
    options: &Options,
    hints: forward::Options,
) -> longshore_image::Result<(Box<dyn Decoder>, Option<u64>)> {
    if end_decides(format, options) {
        let at_least = hints
            .stream_len
            .map(|len| len.saturating_sub(TAIL_LEN as u64));
        return Ok((vhd::raw_or_fixed(&hints), at_least));
    }
    Ok((forward::decoder(format, hints)?, None))
}

/// What `head` is, given what the caller says it is.
///
/// With `--from` the content decides nothing, except that a wrapper named by the source's suffix
/// (`disk.raw.gz`) is still taken off: a guest that writes a gzip header into the first sector of a raw
/// disk must not change how the disk is read.
pub(crate) fn identify(head: &[u8], from: Option<Format>, name: &str) -> Result<Probe> {
    let found = longshore_image::probe(head);
    match (from, found) {
        (Some(format), Probe::Wrapper(wrapper)) if !named_so(name, wrapper) => {
            Ok(Probe::Image(format))
        }
        (Some(format), Probe::Image(_) | Probe::Unsupported(_)) => Ok(Probe::Image(format)),
        (None, Probe::Unsupported(what)) => Err(Error::image(
            format!("can't read {name}"),
            longshore_image::Error::unsupported(format!(
                "{what} images are not read yet; `--from raw` takes the bytes as they are"
            )),
        )),
        (_, found) => Ok(found),
    }
}

fn named_so(name: &str, wrapper: Wrapper) -> bool {
    let path = name.split(['?', '#']).next().unwrap_or(name);
    let suffix = Path::new(path)
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or("");
    suffix.eq_ignore_ascii_case(wrapper.name())
}

fn random_road(
    format: Format,
    chain: &Arc<Chain>,
    limits: Limits,
    mut target: Target,
    options: &Options,
    mut budget: Budget,
    shared: &Shared,
) -> Result<Done, Outcome> {
    let Some(top) = chain.top() else {
        return Err(Outcome::Stopped);
    };
    let info = top.info();
    let virtual_size = chain.virtual_size();
    target.begin(Some(virtual_size))?;
    if let Some(recorder) = &shared.recorder {
        let alone = chain.layers().len() == 1 && info.references.is_empty();
        let image = Image {
            format,
            around: Vec::new(),
            virtual_size: Some(virtual_size),
        };
        recorder.begin(image, Order::Any, alone)?;
    }
    shared.progress.set_size(virtual_size);
    // What `limits` allows.
    budget.tables()?;
    let codecs: Vec<_> = chain.layers().iter().map(|l| l.cluster_codec()).collect();
    let heaviest = codecs
        .iter()
        .copied()
        .max_by_key(|c| c.decoder_bytes(1 << 20));
    let heaviest = heaviest.unwrap_or(longshore_image::cluster::ClusterCodec::None);
    let layout = budget.layout(
        options.threads,
        chain.cluster_size(),
        heaviest,
        Output::writing(&target),
    )?;
    let disk = Some(virtual_size);
    let output = Output::begin(target, disk, &layout)?;
    let in_units = output.clusters().is_some();
    let back = Back::start(layout, &codecs, Some(chain), output, disk, shared)?;
    let planned = if top.best_read_forward() {
        let decoder = forward::decoder(
            info.format,
            forward::Options {
                stream_len: Some(top.data().len()),
                ..forward::Options::one_pass(limits)
            },
        );
        let decoder = decoder.map_err(|e| shared.image(e))?;
        walk::plan(decoder, chain, &back, shared)
    } else if in_units {
        units::plan(chain, &back, shared)
    } else {
        planner::plan(chain, &back, shared)
    };
    let output = back.finish(shared);
    planned?;
    Ok(Done {
        output: output?,
        info,
        wrappers: Vec::new(),
        virtual_size,
        threads: layout.threads,
    })
}

/// Opens an image and whatever the gate lets it refer to.
fn open_chain(
    format: Format,
    file: Arc<dyn ReadAt>,
    options: &Options,
    limits: &Limits,
    shared: &Shared,
) -> Result<Chain> {
    let image = longshore_image::open(format, file, options.gate.as_ref(), limits)
        .map_err(|e| shared.image(e))?;
    Chain::new(image).map_err(|e| shared.image(e))
}
