//! Disks of oVirt, from its imageio servers.
//!
//! The engine begins an image transfer and says where its bytes are to be had; the server tells what is
//! data (`/extents`), and that is read by several requests at the same time, as many as the server allows.
//! Servers without extents are read as one stream. The transfer is finalized when all was read and
//! cancelled on every other way out, or the disk would stay locked.
//!
//! What changed since a checkpoint is a layer of the disk (a snapshot, read without what is below it), or
//! the dirty extents of an incremental backup. Either is applied in place.

mod address;
mod alive;
mod answer;
mod disk;
mod engine;
mod error;
mod extents;

use std::fmt;
use std::io::Read;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use longshore_image::{Format, ReadAt};
use longshore_transfer::{Allowance, Fingerprint, Served, Source};
use reqwest::{Client, Method};
use serde_json::Value;
use url::Url;

use self::alive::{Alive, Keeping};
use self::disk::{Disk, Parts};
use self::engine::{Engine, Places, Transfer};
pub use self::error::ImageioError;
use self::extents::{Context, Extents};
use crate::http::{Fetch, HttpError, HttpSource, Net, Ranged, client_for, exchange, read_through};

use crate::whole::Whole;
use crate::{BasicAuth, Error, Result, SourceOptions};

/// Most readers, whatever a server allows.
const MOST_READERS: u64 = 16;
/// A server that says nothing about readers takes one.
const USUAL_READERS: u64 = 1;
/// `OPTIONS` is answered with a few words.
const MOST_OPTIONS: usize = 64 << 10;

/// A disk of oVirt, and how to reach it.
#[derive(Clone)]
pub struct ImageioDisk {
    /// The engine's API, such as `https://engine.example.org/ovirt-engine/api`.
    pub engine: Url,
    /// Name (with its profile: `admin@internal`) and password.
    pub auth: BasicAuth,
    /// The disk's id.
    pub disk: String,
    /// Which state of it; `None` is the present one.
    pub checkpoint: Option<Checkpoint>,
    /// How long the engine lets the transfer be without activity.
    pub inactivity: Duration,
    /// How long to wait for a locked disk, and for the transfer to begin.
    pub patience: Duration,
}

/// A state of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checkpoint {
    /// A snapshot: all of it, or what it has on top of the one before.
    Snapshot {
        /// The disk snapshot's id.
        current: String,
        /// The one that the target has already.
        previous: Option<String>,
    },
    /// What an incremental backup, begun by someone else, says has changed since its checkpoint.
    Backup {
        /// The backup's id.
        backup: String,
    },
}

impl ImageioDisk {
    /// The disk with this id, in its present state.
    pub fn new(engine: Url, auth: BasicAuth, disk: &str) -> Self {
        Self {
            engine,
            auth,
            disk: disk.to_owned(),
            checkpoint: None,
            inactivity: Duration::from_mins(1),
            patience: Duration::from_mins(5),
        }
    }

    /// The disk for people.
    pub fn name(&self) -> String {
        let host = self.engine.host_str().unwrap_or_default();
        format!("imageio://{host}/{}", self.disk)
    }

    fn is_layer(&self) -> bool {
        matches!(
            &self.checkpoint,
            Some(Checkpoint::Snapshot {
                previous: Some(_),
                ..
            })
        )
    }

    fn is_delta(&self) -> bool {
        self.is_layer() || matches!(&self.checkpoint, Some(Checkpoint::Backup { .. }))
    }
}

impl fmt::Debug for ImageioDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageioDisk")
            .field("name", &self.name())
            .field("checkpoint", &self.checkpoint)
            .finish_non_exhaustive()
    }
}

/// Begins a transfer of `disk`.
pub fn imageio_source(disk: &ImageioDisk, options: &SourceOptions) -> Result<Box<dyn Source>> {
    Ok(Box::new(ImageioSource::open(disk, options)?))
}

/// The same for an `imageio://` address.
pub(crate) fn open(spec: &str, options: &SourceOptions) -> Result<Box<dyn Source>> {
    let disk = address::parse(spec, options).map_err(|source| Error::Imageio {
        name: "the imageio:// address".to_owned(),
        source,
    })?;
    imageio_source(&disk, options)
}

/// A disk in transfer.
struct ImageioSource {
    name: String,
    /// The snapshot that is read, all of it.
    snapshot: Option<String>,
    changes_only: bool,
    net: Arc<Net>,
    /// `None` where the server tells none.
    extents: Option<Extents>,
    fetch: Fetch,
    readers: usize,
    /// Where there are no extents.
    stream: Option<HttpSource>,
    allowance: Allowance,
    random: OnceLock<Arc<Ranged>>,
    alive: Arc<Alive>,
    /// Ends before the transfer does.
    _keeping: Keeping,
    transfer: Arc<Transfer>,
}

impl ImageioSource {
    fn open(disk: &ImageioDisk, options: &SourceOptions) -> Result<Self> {
        let name = disk.name();
        let fail = |source| Error::Imageio {
            name: name.clone(),
            source,
        };
        let http = |action, source| {
            fail(match source {
                HttpError::Cancelled => ImageioError::Cancelled,
                source => ImageioError::Http { action, source },
            })
        };
        let thread = |source| http("start a thread", HttpError::Thread { source });
        let net = Arc::new(Net::start(options.cancel.clone()).map_err(thread)?);
        let engine = Engine::log_in(disk, options, &net)?.map_err(fail)?;
        let transfer = Arc::new(engine.begin(disk).map_err(fail)?);
        let places = transfer.ready().map_err(fail)?;
        // The ticket is in the URL: the engine's password is not for the server.
        let options = SourceOptions {
            basic_auth: None,
            headers: Vec::new(),
            ..options.clone()
        };
        let (url, client, features) = reach(&places, &net, &options)?.map_err(fail)?;
        let alive = Alive::new();
        let touching = {
            let (client, url) = (client.clone(), url.clone());
            let (net, stall) = (Arc::clone(&net), options.stall_timeout);
            move || {
                let request = client.request(Method::OPTIONS, url.clone());
                // What is wrong shows when bytes are wanted.
                let _ = net.wait(async move { exchange(request, stall, MOST_OPTIONS).await });
            }
        };
        let keeping = Keeping::start(
            Arc::clone(&transfer),
            Arc::clone(&alive),
            disk.inactivity,
            touching,
        )
        .map_err(thread)?;
        let extents = if features.extents {
            extents_of(&url, &client, disk, &net, options.stall_timeout).map_err(fail)?
        } else {
            None
        };
        if disk.is_delta() && extents.is_none() {
            return Err(fail(ImageioError::NoExtents));
        }
        let len = extents.as_ref().map(Extents::size);
        let fetch = Fetch::of(&url, len, &options)?;
        let stream = match extents {
            Some(_) => None,
            None => Some(HttpSource::open(url.as_str(), &options)?),
        };
        Ok(Self {
            changes_only: disk.is_delta(),
            snapshot: match &disk.checkpoint {
                Some(Checkpoint::Snapshot {
                    current,
                    previous: None,
                }) if transfer.is_of_snapshot() => Some(current.clone()),
                _ => None,
            },
            net,
            extents,
            fetch,
            readers: features.readers.min(options.connections).max(1),
            stream,
            allowance: Allowance::default(),
            random: OnceLock::new(),
            alive,
            _keeping: keeping,
            transfer,
            name,
        })
    }
}

/// What a server can do.
#[derive(Debug, Clone, Copy)]
struct Features {
    extents: bool,
    readers: usize,
}

/// The first of the places that answers, and what it can do.
fn reach(
    places: &Places,
    net: &Net,
    options: &SourceOptions,
) -> Result<std::result::Result<(Url, Client, Features), ImageioError>> {
    let action = "ask the imageio server for what it can do";
    let mut failed = ImageioError::Answer {
        action,
        why: "the engine names no server".to_owned(),
    };
    for place in [&places.direct, &places.proxy].into_iter().flatten() {
        let url = match Url::parse(place) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => url,
            _ => {
                let why = "the engine names a server by what is no URL".to_owned();
                failed = ImageioError::Answer { action, why };
                continue;
            }
        };
        let client = client_for(&url, options)?;
        let request = client.request(Method::OPTIONS, url.clone());
        let stall = options.stall_timeout;
        let answer = net.wait(async move { exchange(request, stall, MOST_OPTIONS).await });
        match answer {
            Ok((status, body)) => {
                return Ok(features(status, &body).map(|found| (url, client, found)));
            }
            Err(HttpError::Cancelled) => return Ok(Err(ImageioError::Cancelled)),
            // From here it can't be reached; the proxy may be.
            Err(source) => failed = ImageioError::Http { action, source },
        }
    }
    Ok(Err(failed))
}

fn features(status: u16, body: &[u8]) -> std::result::Result<Features, ImageioError> {
    let action = "ask the imageio server for what it can do";
    // Old servers and proxies, which only stream.
    let none = Features {
        extents: false,
        readers: 1,
    };
    match status {
        200 => {}
        204 | 405 => return Ok(none),
        status => {
            let said = String::from_utf8_lossy(body);
            let said = said.trim().chars().filter(|c| !c.is_control());
            return Err(ImageioError::Refused {
                action,
                status,
                said: said.take(300).collect(),
            });
        }
    }
    let options: Value = serde_json::from_slice(body).map_err(|e| ImageioError::Answer {
        action,
        why: e.to_string(),
    })?;
    let listed = options.get("features").and_then(Value::as_array);
    let extents = listed.is_some_and(|all| all.iter().any(|feature| feature == "extents"));
    let readers = options.get("max_readers").and_then(Value::as_u64);
    let readers = readers.unwrap_or(USUAL_READERS).clamp(1, MOST_READERS);
    Ok(Features {
        extents,
        readers: usize::try_from(readers).unwrap_or(1),
    })
}

/// What the server says of the disk. `None` if it does not say that.
fn extents_of(
    url: &Url,
    client: &Client,
    disk: &ImageioDisk,
    net: &Arc<Net>,
    stall: Duration,
) -> std::result::Result<Option<Extents>, ImageioError> {
    let action = "ask the imageio server for extents";
    let context = match &disk.checkpoint {
        Some(Checkpoint::Backup { .. }) => Context::Dirty,
        _ if disk.is_layer() => Context::Layer,
        _ => Context::Zero,
    };
    let mut wanted = url.clone();
    wanted.set_path(&format!("{}/extents", url.path()));
    wanted.set_query(Some(match context {
        Context::Dirty => "context=dirty",
        Context::Zero | Context::Layer => "context=zero",
    }));
    let (status, body) =
        read_through(net, client.get(wanted), stall).map_err(|source| match source {
            HttpError::Cancelled => ImageioError::Cancelled,
            source => ImageioError::Http { action, source },
        })?;
    match status {
        200 => {}
        404 => return Ok(None),
        status => {
            return Err(ImageioError::Refused {
                action,
                status,
                said: String::new(),
            });
        }
    }
    let extents = Extents::read(std::io::BufReader::new(body), context);
    extents.map(Some).map_err(|e| ImageioError::Answer {
        action,
        why: e.to_string(),
    })
}

impl Source for ImageioSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn len(&self) -> Option<u64> {
        match &self.extents {
            Some(extents) => Some(extents.size()),
            None => self.stream.as_ref().and_then(Source::len),
        }
    }

    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        let len = self.extents.as_ref()?.size();
        let ranged = self.random.get_or_init(|| {
            let (net, fetch) = (Arc::clone(&self.net), self.fetch.clone());
            Arc::new(Ranged::new(net, fetch, len))
        });
        let ranged = Arc::clone(ranged);
        Some(ranged)
    }

    fn reopenable(&self) -> bool {
        true
    }

    fn stream(&mut self) -> longshore_transfer::Result<Box<dyn Read + Send>> {
        if let Some(disk) = self.served()? {
            return Ok(Box::new(Whole::new(disk)));
        }
        match &mut self.stream {
            Some(stream) => Ok(Box::new(Ending {
                stream: stream.stream()?,
                transfer: Arc::clone(&self.transfer),
                alive: Arc::clone(&self.alive),
            })),
            None => Err(longshore_transfer::Error::Interrupted),
        }
    }

    fn format(&self) -> Option<Format> {
        Some(Format::Raw)
    }

    fn served(&mut self) -> longshore_transfer::Result<Option<Box<dyn Served>>> {
        let Some(extents) = &self.extents else {
            return Ok(None);
        };
        let parts = Parts {
            name: self.name.clone(),
            net: Arc::clone(&self.net),
            fetch: self.fetch.clone(),
            readers: self.readers,
            allowance: self.allowance.clone(),
            transfer: Arc::clone(&self.transfer),
            alive: Arc::clone(&self.alive),
        };
        Ok(Some(Box::new(Disk::new(parts, extents))))
    }

    fn changes_only(&self) -> bool {
        self.changes_only
    }

    /// The disk itself is written to between two transfers, and nothing tells that.
    fn fingerprint(&self) -> Option<Fingerprint> {
        let snapshot = self.snapshot.as_ref()?;
        Some(Fingerprint {
            place: self.name(),
            state: format!("snapshot {snapshot}"),
            len: self.len(),
        })
    }

    fn allowance(&self) -> Option<Allowance> {
        match &self.stream {
            Some(stream) => stream.allowance(),
            None => Some(self.allowance.clone()),
        }
    }
}

/// A stream that tells the transfer when all of it was read.
struct Ending {
    stream: Box<dyn Read + Send>,
    transfer: Arc<Transfer>,
    alive: Arc<Alive>,
}

impl Read for Ending {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.stream.read(buf)?;
        self.alive.touch();
        if n == 0 && !buf.is_empty() {
            self.transfer.complete();
        }
        Ok(n)
    }
}
