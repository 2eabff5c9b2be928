//! What a server serves at a path, and what it does wrong.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Content of a page.
#[derive(Debug, Clone)]
pub enum Body {
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// A file, for what is too large for that.
    File(Arc<File>, u64),
}

impl Body {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    pub(super) fn read(&self, at: u64, len: u64) -> Vec<u8> {
        let n = usize::try_from(len).unwrap();
        match self {
            Self::Bytes(bytes) => {
                let at = usize::try_from(at).unwrap();
                bytes[at..at + n].to_vec()
            }
            Self::File(file, _) => {
                let mut buf = vec![0; n];
                file.read_exact_at(&mut buf, at).unwrap();
                buf
            }
        }
    }
}

/// How a page takes `Range`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranges {
    /// As the RFC says, with `If-Range`; 416 for the empty page.
    Work,
    /// Not at all.
    None,
    /// Announced, and then not at all.
    AnnouncedOnly,
    /// A range that is everything is answered with 200, as Apache does.
    NotFromZero,
    /// At most so many bytes at once.
    Capped(u64),
    /// As they should be, less the headers that name the content's state.
    Nameless,
    /// With a `Content-Range` that is off by one, except for what starts at 0.
    Shifted,
}

/// How a page tells where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// `Content-Length`.
    Known,
    /// Chunks.
    Chunked,
    /// By closing the connection.
    UntilClose,
}

/// What goes wrong with one GET.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing: place this one in front of others.
    Nothing,
    /// This status instead of an answer.
    Status(u16),
    /// 503 with `Retry-After`, in seconds.
    RetryAfter(u64),
    /// The connection closes without an answer.
    HangUp,
    /// What is no HTTP.
    Garbage,
    /// The connection closes after so many bytes of the body.
    Cut(u64),
    /// Nothing more comes after so many bytes of the body, until the client goes away.
    Stall(u64),
    /// Not even headers come, until the client goes away.
    StallAtOnce,
    /// From here on the page is another.
    Become(Box<Page>),
}

/// What is left of a line once its dose is used up, in bytes a second.
const DRIP: u64 = 512 << 10;

/// How many bytes a second each connection gets at most, or all of them together.
#[derive(Debug, Clone)]
pub struct Rate {
    bytes: Arc<AtomicU64>,
    /// What is left of the dose; what comes after it drips.
    dose: Arc<AtomicU64>,
    /// When the line that all share is free again.
    line: Option<Arc<Mutex<Instant>>>,
}

impl Rate {
    /// So many for each connection.
    pub fn of(bytes: u64) -> Self {
        Self {
            bytes: Arc::new(AtomicU64::new(bytes)),
            dose: Arc::new(AtomicU64::new(u64::MAX)),
            line: None,
        }
    }

    /// So many for all connections together.
    pub fn of_all(bytes: u64) -> Self {
        Self {
            line: Some(Arc::new(Mutex::new(Instant::now()))),
            ..Self::of(bytes)
        }
    }

    /// From now on as many as it can.
    pub fn lift(&self) {
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// From now on so many bytes as before, and then so few that whoever waits for what they lead to sees it
    /// before all is through, however slow the machine is.
    pub fn dose(&self, bytes: u64) {
        self.dose.store(bytes, Ordering::Relaxed);
    }

    /// `None` if it is lifted.
    pub(super) fn get(&self) -> Option<u64> {
        let rate = self.bytes.load(Ordering::Relaxed);
        let drips = rate > 0 && self.dose.load(Ordering::Relaxed) == 0;
        Some(if drips { DRIP } else { rate }).filter(|&rate| rate > 0)
    }

    /// Takes as long as the line takes for `sent` bytes, a twentieth of what it does in a second.
    pub(super) fn pass(&self, sent: u64, rate: u64) {
        let less = |dose: u64| (dose < u64::MAX).then(|| dose.saturating_sub(sent));
        let _endless = (self.dose).fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let took = Duration::from_secs_f64(
            f64::from(u32::try_from(sent).unwrap()) / f64::from(u32::try_from(rate).unwrap()),
        );
        let wait = match &self.line {
            None => took,
            Some(line) => {
                let mut free = line.lock().unwrap();
                let now = Instant::now();
                *free = (*free).max(now) + took;
                *free - now
            }
        };
        // This is the slow line itself, no wait for anything.
        std::thread::sleep(wait);
    }
}

/// What is at a path.
#[derive(Debug, Clone)]
pub struct Page {
    pub(super) status: u16,
    pub(super) body: Body,
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    pub(super) ranges: Ranges,
    pub(super) length: Length,
    pub(super) headers: Vec<(String, String)>,
    pub(super) auth: Option<String>,
    pub(super) challenge: String,
    pub(super) head: bool,
    pub(super) throttle: Option<Rate>,
    pub(super) faults: VecDeque<Fault>,
}

impl Page {
    /// A page that behaves.
    pub fn of(body: impl Into<Arc<[u8]>>) -> Self {
        Self::with(Body::Bytes(body.into()))
    }

    /// A file that is served as it is when asked for.
    pub fn file(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        Self::with(Body::File(Arc::new(file), len))
    }

    fn with(body: Body) -> Self {
        Self {
            status: 200,
            body,
            etag: Some("\"v1\"".to_owned()),
            last_modified: None,
            ranges: Ranges::Work,
            length: Length::Known,
            headers: Vec::new(),
            auth: None,
            challenge: "Basic realm=\"test\"".to_owned(),
            head: true,
            throttle: None,
            faults: VecDeque::new(),
        }
    }

    /// A page that is only a status.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            etag: None,
            ..Self::of([])
        }
    }

    /// A page that leads elsewhere.
    pub fn redirect(status: u16, to: &str) -> Self {
        Self::status(status).header("Location", to)
    }

    /// With this `ETag`, quotes and all, or none.
    #[must_use]
    pub fn etag(mut self, tag: Option<&str>) -> Self {
        self.etag = tag.map(str::to_owned);
        self
    }

    /// With this `Last-Modified`.
    #[must_use]
    pub fn last_modified(mut self, time: &str) -> Self {
        self.last_modified = Some(time.to_owned());
        self
    }

    /// With ranges that work like this.
    #[must_use]
    pub fn ranges(mut self, ranges: Ranges) -> Self {
        self.ranges = ranges;
        self
    }

    /// With an end that is told like this.
    #[must_use]
    pub fn length(mut self, length: Length) -> Self {
        self.length = length;
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Only for those who send this `Authorization`.
    #[must_use]
    pub fn auth(mut self, value: &str) -> Self {
        self.auth = Some(value.to_owned());
        self
    }

    /// What those who do not are told to do.
    #[must_use]
    pub fn challenge(mut self, value: &str) -> Self {
        value.clone_into(&mut self.challenge);
        self
    }

    /// HEAD is refused.
    #[must_use]
    pub fn no_head(mut self) -> Self {
        self.head = false;
        self
    }

    /// At most about so many bytes a second.
    #[must_use]
    pub fn throttle(mut self, bytes: u64) -> Self {
        self.throttle = Some(Rate::of(bytes));
        self
    }

    /// The same for all connections together.
    #[must_use]
    pub fn throttle_all(self, bytes: u64) -> Self {
        self.throttle_by(&Rate::of_all(bytes))
    }

    /// The same with a rate that can be lifted, for answers under way too.
    #[must_use]
    pub fn throttle_by(mut self, rate: &Rate) -> Self {
        self.throttle = Some(rate.clone());
        self
    }

    /// With one more fault at the end of the script.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push_back(fault);
        self
    }

    /// The same, `times` times.
    #[must_use]
    pub fn faults(mut self, fault: &Fault, times: usize) -> Self {
        self.faults
            .extend(std::iter::repeat_n(fault.clone(), times));
        self
    }
}
