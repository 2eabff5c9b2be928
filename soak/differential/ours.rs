//! The same images, read by our crates in this process: at random and as a stream.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore_image::chain::Chain;
use longshore_image::cluster::ClusterDecoder;
use longshore_image::{Error, Format, Limits, OpenGate, ReadAt, Reference, Result};

use super::cases::Files;

#[expect(
    dead_code,
    unreachable_pub,
    clippy::unwrap_in_result,
    reason = "it is a library of its own, of which some functions are needed"
)]
#[path = "../../fuzz/src/lib.rs"]
pub(super) mod bodies;

/// How much of each end of a disk is compared.
const WINDOW: u64 = 24 << 20;
/// Compared at a time.
const STEP: u64 = 1 << 20;

/// Why there is no disk.
#[derive(Debug)]
pub(crate) enum Refusal {
    Error(String),
    Panic(String),
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        Self::Error(format!("{e:?}"))
    }
}

/// Lets in what is in its directory.
#[derive(Debug)]
struct InDir(PathBuf);

impl OpenGate for InDir {
    fn open(&self, reference: &Reference) -> Result<Arc<dyn ReadAt>> {
        let bytes = std::fs::read(self.0.join(&reference.name))
            .map_err(|e| Error::io("opening a reference", e))?;
        Ok(Arc::new(bytes))
    }

    fn nested(&self, _: &Reference) -> Arc<dyn OpenGate> {
        Arc::new(Self(self.0.clone()))
    }
}

/// Opens the image and walks all its tables.
pub(crate) fn open(format: Format, files: &Files, dir: &Path) -> Result<Chain, Refusal> {
    calmly(|| {
        let gate = InDir(dir.to_owned());
        let file = Arc::new(files[0].1.clone());
        let image = longshore_image::open(format, file, &gate, &Limits::default())?;
        let chain = Chain::new(image)?;
        for extent in chain.extents() {
            extent?;
        }
        Ok(chain)
    })
}

/// Reads the ends of the disk; where it differs from QEMU's, if there is one. `None` if nowhere.
pub(crate) fn compare(chain: &Chain, disk: Option<&File>) -> Result<Option<String>, Refusal> {
    calmly(|| {
        let size = chain.virtual_size();
        let theirs = disk.map_or(size, |disk| disk.metadata().unwrap().len());
        if size != theirs {
            return Ok(Some(format!("{size} bytes here, {theirs} there")));
        }
        let windows = [
            0..size.min(WINDOW),
            size.saturating_sub(WINDOW).max(WINDOW)..size,
        ];
        let mut decoders: Vec<_> = chain
            .layers()
            .iter()
            .map(|layer| ClusterDecoder::new(layer.cluster_codec()))
            .collect();
        for extent in chain.extents() {
            let extent = extent?;
            for window in &windows {
                let mut at = extent.visible.start.max(window.start);
                let end = extent.visible.end.min(window.end);
                while at < end {
                    let part = at..end.min(at + STEP);
                    at = part.end;
                    let mut ours = vec![0; usize::try_from(part.end - part.start).unwrap()];
                    bodies::random::fill(chain, &mut decoders, &extent, part.start, &mut ours)?;
                    let Some(disk) = disk else { continue };
                    let mut expected = vec![0; ours.len()];
                    disk.read_exact_at(&mut expected, part.start).unwrap();
                    if let Some(n) = ours.iter().zip(&expected).position(|(a, b)| a != b) {
                        let kind = extent.extent.kind;
                        let at = part.start + n as u64;
                        let zeros = expected.iter().all(|&b| b == 0);
                        let there = if zeros { "zeros" } else { "data" };
                        return Ok(Some(format!("at {at:#x}: here {kind:?}, there {there}")));
                    }
                }
            }
        }
        Ok(None)
    })
}

/// The stream against random access, as the fuzz target `agree` has it; what is wrong, if anything.
pub(crate) fn stream_agrees(format: Format, files: &Files) -> Option<String> {
    let [(_, file)] = &files[..] else { return None };
    let checked = calmly(|| {
        bodies::as_format(format, &Arc::new(file.clone()));
        Ok(())
    });
    match checked {
        Err(Refusal::Panic(what)) => Some(format!("the stream: {what}")),
        _ => None,
    }
}

thread_local! {
    /// A panic would be a finding, which has a message of its own.
    static CALM: Cell<bool> = const { Cell::new(false) };
}

/// Keeps panics of the readers from the terminal.
pub(crate) fn quiet_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !CALM.get() {
            usual(panic);
        }
    }));
}

fn calmly<T>(work: impl FnOnce() -> Result<T>) -> Result<T, Refusal> {
    CALM.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    CALM.set(false);
    match done {
        Ok(result) => Ok(result?),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(Refusal::Panic(text.unwrap_or_default()))
        }
    }
}
