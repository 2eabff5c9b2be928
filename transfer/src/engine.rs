//! The transfer itself: which road an image takes, and the stages on it.

mod clusters;
mod decode;
mod holes;
mod inspect;
mod output;
mod pieces;
mod planner;
mod served;
mod share;
mod stream;
mod units;
mod unwrapped;
mod walk;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_image::chain::Chain;
use longshore_image::forward::{self, Decoder, Finish};
use longshore_image::stream::{StreamOptions, beginning};
use longshore_image::{
    DenyAll, Format, Info, Limits, OpenGate, PROBE_LEN, Probe, ReadAt, TAIL_LEN, Wrapper,
    probe_tail, vhd,
};

pub use self::inspect::{Inspection, inspect};
use self::output::Output;
use self::pieces::Pieces;
use self::stream::Stream;
pub use self::unwrapped::unwrapped;
use self::writer::Back;
use crate::budget::{Budget, Inner};
use crate::cancel::{Failure, Stopped};
use crate::hold::SpillHold;
use crate::phases::{Clocks, Phases};
use crate::source::Inside;
use crate::target::Target;
use crate::{Cancel, Checksum, Error, Memory, Progress, Result, Source, TargetFormat, TargetSpec};

/// Wrappers around wrappers are followed this deep.
const MOST_LAYERS: usize = 4;
/// Bytes of a compressed stream in which the first [`PROBE_LEN`] of what is inside nearly always show.
const PACKED_PROBE: usize = 64 << 10;

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
    /// How often the stream was read; 0 with random access.
    pub passes: u32,
    /// Decoding threads.
    pub threads: usize,
    /// From start to durable.
    pub elapsed: Duration,
    /// Where the time went.
    pub phases: Phases,
}

/// What all stages of one transfer share.
#[derive(Clone)]
struct Shared {
    failure: Failure,
    cancel: Cancel,
    progress: Progress,
    clocks: Clocks,
    name: Arc<str>,
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

    fn image(&self, source: longshore_image::Error) -> Error {
        Error::image(format!("can't read the image {}", self.name), source)
    }
}

/// Copies the disk that `source` holds to `target`.
///
/// On error nothing is left that looks complete: see [`TargetSpec`] for what a killed transfer leaves.
pub fn transfer(
    source: &mut dyn Source,
    target: &TargetSpec,
    options: &Options,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<Report> {
    let started = Instant::now();
    let shared = Shared {
        failure: Failure::default(),
        cancel: cancel.clone(),
        progress: progress.clone(),
        clocks: Clocks::default(),
        name: source.name().into(),
    };
    let options = &known(source, options);
    let opened = if source.changes_only() {
        Target::existing(target, source.identity())?
    } else {
        Target::open(target, source.identity())?
    };
    let budget = Budget::new(options.memory)?;
    let outcome = if let Some(disk) = served::disk(source, options)? {
        served::road(disk, source, opened, options, budget, &shared)
    } else {
        match random_image(source, options, &budget, &shared)? {
            Some((chain, limits)) => random_road(&chain, limits, opened, options, budget, &shared),
            None => stream_road(source, opened, target, options, budget, &shared),
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
    let moved = done.output.finish(done.virtual_size)?;
    progress.set_done();
    let flush = finishing.elapsed();
    let snapshot = progress.snapshot();
    Ok(Report {
        info: done.info,
        wrappers: done.wrappers,
        written_as: target.format,
        virtual_size: done.virtual_size,
        bytes_read: snapshot.read,
        bytes_written: moved.written,
        bytes_shared: moved.shared,
        bytes_spilled: snapshot.spilled,
        passes: snapshot.pass,
        threads: done.threads,
        elapsed: started.elapsed(),
        phases: shared.clocks.read_out(moved.write_back, flush),
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
    budget: &Budget,
    shared: &Shared,
) -> Result<Option<(Arc<Chain>, Limits)>> {
    if options.checksum.is_some() || source.digest().is_some() || !source.prefers_random() {
        return Ok(None);
    }
    let Some(file) = source.random() else {
        return Ok(None);
    };
    let Some(format) = image_in(source, file.as_ref(), options, &shared.name)? else {
        return Ok(None);
    };
    // What tables may take is the same on either road, and charged on the one that is taken.
    let limits = Limits::with_table_bytes(budget.table_share());
    let chain = open_chain(format, file, options, &limits, shared)?;
    Ok(Some((Arc::new(chain), limits)))
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

/// What was taken off a stream, for the next pass.
enum Layer {
    Wrapper(Wrapper, StreamOptions),
    /// An archive that begins like this.
    Archive(Vec<u8>),
}

/// A stream with its wrappers taken off.
struct Unwrapped {
    stream: Stream,
    layers: Vec<Layer>,
    format: Format,
}

impl Unwrapped {
    fn wrappers(&self) -> Vec<Wrapper> {
        wrappers_of(&self.layers)
    }
}

fn wrappers_of(layers: &[Layer]) -> Vec<Wrapper> {
    let wrappers = layers.iter().filter_map(|layer| match layer {
        Layer::Wrapper(wrapper, _) => Some(*wrapper),
        Layer::Archive(_) => None,
    });
    wrappers.collect()
}

/// There may be one layer more.
fn one_more(layers: &[Layer], shared: &Shared) -> Result<()> {
    if layers.len() < MOST_LAYERS {
        return Ok(());
    }
    let text = format!("more than {MOST_LAYERS} compressed streams and archives around each other");
    Err(shared.image(longshore_image::Error::unsupported(text)))
}

fn unwrap_all(
    source: &mut dyn Source,
    options: &Options,
    raw_target: bool,
    budget: &mut Budget,
    shared: &Shared,
) -> Result<Unwrapped, Outcome> {
    let mut stream = Stream::open(source, options.checksum.as_ref(), Some(budget), shared)?;
    let mut layers = Vec::new();
    let mut found = false;
    loop {
        let head = stream.peek(PROBE_LEN)?;
        let inside = if found {
            Inside::Image
        } else {
            source.inside(head, options.from.is_some())
        };
        let wrapper = match inside {
            Inside::Archive(finder) => {
                one_more(&layers, shared)?;
                layers.push(Layer::Archive(head.to_owned()));
                stream = stream.find(finder, Some(budget), shared)?;
                found = true;
                continue;
            }
            Inside::Wrapped(wrapper) => wrapper,
            Inside::Image => {
                let name = inner_name(&shared.name, &wrappers_of(&layers));
                match identify(head, options.from, &name)? {
                    Probe::Wrapper(wrapper) => wrapper,
                    Probe::Image(format) => {
                        return Ok(Unwrapped {
                            stream,
                            layers,
                            format,
                        });
                    }
                    // `identify` has an error for what is unsupported.
                    _ => return Err(Outcome::Stopped),
                }
            }
        };
        one_more(&layers, shared)?;
        let mut wrappers = wrappers_of(&layers);
        wrappers.push(wrapper);
        let name = inner_name(&shared.name, &wrappers);
        let takes_what_it_gets = matches!(wrapper, Wrapper::Xz | Wrapper::Zstd);
        let mut inner = Inner::Any;
        if raw_target && takes_what_it_gets {
            let head = stream.peek(PACKED_PROBE)?;
            if raw_inside(source, wrapper, head, options, budget, &name) {
                inner = Inner::Raw;
            }
        }
        let (unwrapped, given) = stream.unwrap(wrapper, inner, options.threads, budget, shared)?;
        stream = unwrapped;
        layers.push(Layer::Wrapper(wrapper, given));
    }
}

/// True if a raw disk is what `wrapper` is around, by the first bytes in it. That is looked at before the
/// decompressor is made, since it may have more memory then.
fn raw_inside(
    source: &dyn Source,
    wrapper: Wrapper,
    head: &[u8],
    options: &Options,
    budget: &Budget,
    name: &str,
) -> bool {
    let Some(inside) = beginning(wrapper, head, PROBE_LEN, budget.left()) else {
        return false;
    };
    matches!(
        source.inside(&inside, options.from.is_some()),
        Inside::Image
    ) && matches!(
        identify(&inside, options.from, name),
        Ok(Probe::Image(Format::Raw))
    )
}

/// The stream once more, from its start.
fn unwrap_again(
    source: &mut dyn Source,
    layers: &[Layer],
    options: &Options,
    shared: &Shared,
) -> Result<Stream> {
    let mut stream = Stream::open(source, None, None, shared)?;
    for layer in layers {
        stream = match layer {
            Layer::Wrapper(wrapper, used) => {
                stream.unwrap_with(*wrapper, *used, Error::Interrupted, shared)?
            }
            Layer::Archive(head) => match source.inside(head, options.from.is_some()) {
                Inside::Archive(finder) => stream.find(finder, None, shared)?,
                _ => return Err(Error::Interrupted),
            },
        };
    }
    Ok(stream)
}

fn stream_road(
    source: &mut dyn Source,
    target: Target,
    spec: &TargetSpec,
    options: &Options,
    mut budget: Budget,
    shared: &Shared,
) -> Result<Done, Outcome> {
    let mut pass = 1;
    let len = source.len();
    shared.progress.begin_pass(pass, len);
    let raw_target = Output::writing(&target).cluster == 0;
    let Unwrapped {
        mut stream,
        layers,
        format,
    } = unwrap_all(source, options, raw_target, &mut budget, shared)?;
    let plain = layers.is_empty();
    let (tables, waiting) = if raw_target && format == Format::Raw && !plain {
        budget.raw_tables()?
    } else {
        budget.tables()?
    };
    let directory = match spec.path.parent() {
        // Beside a block device node there is no room.
        Some(parent) if !parent.as_os_str().is_empty() && !parent.starts_with("/dev") => {
            parent.to_owned()
        }
        Some(parent) if parent.starts_with("/dev") => std::env::temp_dir(),
        _ => ".".into(),
    };
    let side = if plain && options.checksum.is_none() && source.digest().is_none() {
        source.random()
    } else {
        None
    };
    let side = side.map(|inner| -> Arc<dyn ReadAt> {
        Arc::new(Counted {
            inner,
            progress: shared.progress.clone(),
        })
    });
    // What can be read again is read again; only what comes once waits on disk.
    let once = side.is_none() && !source.reopenable();
    let spill = if once { options.spill_limit } else { 0 };
    let hold = SpillHold::new(waiting, &directory, spill, shared.progress.spilled());
    let (mut decoder, at_least) = stream_decoder(
        format,
        options,
        forward::Options {
            limits: Limits::with_table_bytes(tables),
            hold: Box::new(hold),
            side,
            reopenable: source.reopenable(),
            stream_len: if plain { len } else { None },
        },
    )
    .map_err(|e| shared.image(e))?;
    let mut pieces = Pieces::new(target, options.threads, budget, shared.clone())
        .at_least(at_least)
        .allowance(source.allowance());
    pieces.chunks(stream.pool());
    let virtual_size = loop {
        while let Some(chunk) = stream.next()? {
            shared.check()?;
            pieces.seeing(&chunk);
            decoder
                .push(&chunk.bytes[chunk.range.clone()], &mut pieces)
                .map_err(|e| pieces.error(e))?;
            pieces.seen(chunk)?;
        }
        let finish = decoder.finish(&mut pieces).map_err(|e| pieces.error(e))?;
        stream.join()?;
        match finish {
            Finish::Done { virtual_size } => break virtual_size,
            Finish::AnotherPass => {
                pass += 1;
                tracing::info!(
                    pass,
                    "the image's tables follow its data: reading it once more"
                );
                shared.progress.begin_pass(pass, len);
                stream = unwrap_again(source, &layers, options, shared)?;
                pieces.chunks(stream.pool());
            }
        }
    };
    let (output, info, threads) = pieces.finish(virtual_size, decoder.found())?;
    Ok(Done {
        output,
        info,
        wrappers: wrappers_of(&layers),
        virtual_size,
        threads,
    })
}

/// The name without the suffixes of the wrappers taken off so far.
fn inner_name(name: &str, wrappers: &[Wrapper]) -> String {
    let mut inner = name.split(['?', '#']).next().unwrap_or(name).to_owned();
    for wrapper in wrappers {
        if named_so(&inner, *wrapper) {
            inner.truncate(inner.len() - wrapper.name().len() - 1);
        }
    }
    inner
}

/// Side reads count as reading.
#[derive(Debug)]
struct Counted {
    inner: Arc<dyn ReadAt>,
    progress: Progress,
}

impl ReadAt for Counted {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.inner.read_exact_at(buf, offset)?;
        self.progress.add_read(buf.len() as u64);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }
}
