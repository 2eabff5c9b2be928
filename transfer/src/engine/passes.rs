//! Forward only: a stream, what has to be taken off it, and as many passes as its tables take.

use std::path::PathBuf;
use std::sync::Arc;

use longshore_image::forward::{self, Decoder, Finish};
use longshore_image::stream::{StreamOptions, beginning};
use longshore_image::{Format, Limits, PROBE_LEN, Probe, ReadAt, Wrapper};

use super::output::Output;
use super::pieces::Pieces;
use super::resume::{self, Resumed};
use super::stream::{Opening, Stream};
use super::{Done, Outcome, Shared, digest_of, identify, named_so, stream_decoder};
use crate::budget::{Budget, Inner};
use crate::hold::SpillHold;
use crate::journal::{Around, Image};
use crate::source::Inside;
use crate::target::Target;
use crate::{Error, Options, Progress, Result, Source, TargetSpec};

/// Wrappers around wrappers are followed this deep.
const MOST_LAYERS: usize = 4;
/// Bytes of a compressed stream in which the first [`PROBE_LEN`] of what is inside nearly always show.
const PACKED_PROBE: usize = 64 << 10;

/// What was taken off a stream, for the next pass.
pub(super) enum Layer {
    Wrapper(Wrapper, StreamOptions),
    /// An archive that begins like this.
    Archive(Vec<u8>),
}

/// A stream with its wrappers taken off.
pub(super) struct Unwrapped {
    pub(super) stream: Stream,
    pub(super) layers: Vec<Layer>,
    pub(super) format: Format,
}

pub(super) fn wrappers_of(layers: &[Layer]) -> Vec<Wrapper> {
    let wrappers = layers.iter().filter_map(|layer| match layer {
        Layer::Wrapper(wrapper, _) => Some(*wrapper),
        Layer::Archive(_) => None,
    });
    wrappers.collect()
}

/// The same for a journal.
pub(super) fn around(layers: &[Layer]) -> Vec<Around> {
    let around = layers.iter().map(|layer| match layer {
        Layer::Wrapper(wrapper, _) => Around::Wrapper(*wrapper),
        Layer::Archive(_) => Around::Archive,
    });
    around.collect()
}

/// There may be one layer more.
pub(super) fn one_more(layers: &[Layer], shared: &Shared) -> Result<()> {
    if layers.len() < MOST_LAYERS {
        return Ok(());
    }
    let text = format!("more than {MOST_LAYERS} compressed streams and archives around each other");
    Err(shared.image(longshore_image::Error::unsupported(text)))
}

/// `known` is what an earlier run found around the image, and as what.
pub(super) fn unwrap_all(
    source: &mut dyn Source,
    opening: Opening,
    options: &Options,
    known: Option<&Image>,
    raw_target: bool,
    budget: &mut Budget,
    shared: &Shared,
) -> Result<Unwrapped, Outcome> {
    let checksum = options.checksum.as_ref();
    let mut stream = Stream::open(source, opening, checksum, Some(budget), shared)?;
    let mut layers = Vec::new();
    if let Some(known) = known {
        let raw = raw_target && known.format == Format::Raw;
        for (n, around) in known.around.iter().enumerate() {
            let inner = match around {
                Around::Wrapper(wrapper)
                    if raw && n + 1 == known.around.len() && takes_what_it_gets(*wrapper) =>
                {
                    Inner::Raw
                }
                _ => Inner::Any,
            };
            let (unwrapped, layer) =
                resume::unwrap(stream, *around, inner, source, options, budget, shared)?;
            stream = unwrapped;
            layers.push(layer);
        }
        return Ok(Unwrapped {
            stream,
            layers,
            format: known.format,
        });
    }
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
        let mut inner = Inner::Any;
        if raw_target && takes_what_it_gets(wrapper) {
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

/// Its decompressor is faster with more memory.
fn takes_what_it_gets(wrapper: Wrapper) -> bool {
    matches!(wrapper, Wrapper::Xz | Wrapper::Zstd)
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
pub(super) fn unwrap_again(
    source: &mut dyn Source,
    layers: &[Layer],
    options: &Options,
    shared: &Shared,
) -> Result<Stream> {
    let mut stream = Stream::open(source, Opening::default(), None, None, shared)?;
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

pub(super) fn stream_road(
    source: &mut dyn Source,
    target: Target,
    spec: &TargetSpec,
    options: &Options,
    resumed: Option<&Resumed>,
    mut budget: Budget,
    shared: &Shared,
) -> Result<Done, Outcome> {
    let len = source.len();
    shared.progress.begin_pass(1, len);
    let opening = match resumed {
        Some(resumed) => resumed.opening(source, options)?,
        None => Opening::default(),
    };
    let at = opening.at();
    shared.progress.begin_at(at);
    if resumed.is_some() && at == 0 {
        shared.progress.set_rereads();
        tracing::info!(
            "the source is read again from its start; what is there is not written again"
        );
    }
    let raw_target = Output::writing(&target).cluster == 0;
    let known = resumed.map(|resumed| &resumed.image);
    let Unwrapped {
        stream,
        layers,
        format,
    } = unwrap_all(
        source,
        opening,
        options,
        known,
        raw_target,
        &mut budget,
        shared,
    )?;
    let plain = layers.is_empty();
    let (tables, waiting) = if raw_target && format == Format::Raw {
        budget.raw_tables()?
    } else {
        budget.tables()?
    };
    let directory = spill_directory(spec);
    let side = if plain && options.checksum.is_none() && source.digest().is_none() {
        source.random()
    } else {
        None
    };
    let head = side.clone();
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
        .allowance(source.allowance())
        .journalled(
            format,
            around(&layers),
            digest_of(source, options).is_some(),
        );
    pieces.chunks(stream.pool());
    if at > 0 {
        resume::skip_to(decoder.as_mut(), at, head.as_deref(), &mut pieces, shared)?;
    }
    let mut passes = Passes {
        source,
        layers: &layers,
        options,
        len,
        shared,
    };
    let virtual_size = passes.run(stream, decoder.as_mut(), &mut pieces)?;
    let (output, info, threads) = pieces.finish(virtual_size, decoder.found())?;
    Ok(Done {
        output,
        info,
        wrappers: wrappers_of(&layers),
        virtual_size,
        threads,
    })
}

/// A stream is pushed through a decoder, as often as it takes.
struct Passes<'a> {
    source: &'a mut dyn Source,
    layers: &'a [Layer],
    options: &'a Options,
    len: Option<u64>,
    shared: &'a Shared,
}

impl Passes<'_> {
    /// The size of the disk.
    fn run(
        &mut self,
        mut stream: Stream,
        decoder: &mut dyn Decoder,
        pieces: &mut Pieces,
    ) -> Result<u64, Outcome> {
        let plain = self.layers.is_empty();
        let mut pass = 1;
        loop {
            while let Some(chunk) = stream.next()? {
                self.shared.check()?;
                pieces.seeing(&chunk);
                decoder
                    .push(&chunk.bytes[chunk.range.clone()], pieces)
                    .map_err(|e| pieces.error(e))?;
                pieces.seen(chunk)?;
                if let Some(recorder) = &self.shared.recorder {
                    let point = decoder.safe_point().filter(|_| plain && pass == 1);
                    recorder.passed(pieces.passed(), point);
                }
            }
            let finish = decoder.finish(pieces).map_err(|e| pieces.error(e))?;
            stream.join()?;
            match finish {
                Finish::Done { virtual_size } => return Ok(virtual_size),
                Finish::AnotherPass => {
                    pass += 1;
                    tracing::info!(
                        pass,
                        "the image's tables follow its data: reading it once more"
                    );
                    self.shared.progress.begin_pass(pass, self.len);
                    if let Some(recorder) = &self.shared.recorder {
                        recorder.another_pass();
                    }
                    stream = unwrap_again(self.source, self.layers, self.options, self.shared)?;
                    pieces.chunks(stream.pool());
                }
            }
        }
    }
}

/// Where bytes wait that do not fit into memory.
fn spill_directory(spec: &TargetSpec) -> PathBuf {
    match spec.path.parent() {
        // Beside a block device node there is no room.
        Some(parent) if !parent.as_os_str().is_empty() && !parent.starts_with("/dev") => {
            parent.to_owned()
        }
        Some(parent) if parent.starts_with("/dev") => std::env::temp_dir(),
        _ => ".".into(),
    }
}

/// The name without the suffixes of the wrappers taken off so far.
pub(super) fn inner_name(name: &str, wrappers: &[Wrapper]) -> String {
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
pub(super) struct Counted {
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
