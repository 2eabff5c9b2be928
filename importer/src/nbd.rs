//! Disks on NBD servers: `nbd://host:port/export` and `nbd+unix:///export?socket=path`.
//!
//! What an export has is a raw disk, whatever it looks like: a guest can write a qcow2 header into its
//! first sector. `--from` says otherwise. The server tells what is zero (`base:allocation`), and only
//! the rest is read, in order, by many requests at the same time.
//!
//! The client is ours, and blocking: one thread that is there anyway writes requests and reads answers
//! (see `disk`), which takes neither a runtime nor a copy between threads; on several connections where the
//! server allows that (`fleet`). It does without TLS and without extended headers.

mod address;
pub(crate) mod areas;
mod disk;
mod error;
mod fleet;
mod greeting;
mod link;
mod random;
mod session;
mod wire;

use std::error::Error as StdError;
use std::io::Read;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use longshore_image::{Format, ReadAt};
use longshore_transfer::{Allowance, Fingerprint, Served, Source};

pub(crate) use self::address::{Address, Place};
use self::areas::{Areas, ChangedBlocks, ChangesError};
use self::disk::Disk;
pub use self::error::NbdError;
use self::link::Patience;
use self::random::Random;
use self::session::{Session, Setup};
use crate::http::Policy;
use crate::whole::Whole;
use crate::{Error, Result, SourceOptions};

/// Why a disk could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    Server(#[from] NbdError),
    #[error(transparent)]
    Changes(#[from] ChangesError),
}

/// What a server is called, and what is known of why it fails.
pub(crate) trait Keeper: Send + Sync {
    /// Makes sense of a failure, by what else is known of the server.
    fn explain(&self, error: NbdError) -> Box<dyn StdError + Send + Sync>;
}

/// A name for errors.
#[derive(Clone)]
pub(crate) struct Naming {
    name: Arc<str>,
    keeper: Option<Arc<dyn Keeper>>,
}

impl Naming {
    fn error(&self, failed: Failed) -> longshore_transfer::Error {
        let source: Box<dyn StdError + Send + Sync> = match (failed, &self.keeper) {
            (Failed::Server(NbdError::Cancelled), _) => {
                return longshore_transfer::Error::Interrupted;
            }
            (Failed::Server(e), Some(keeper)) => keeper.explain(e),
            (Failed::Server(e), None) => Box::new(e),
            (Failed::Changes(e), _) => Box::new(e),
        };
        longshore_transfer::Error::Source {
            name: self.name.to_string(),
            source,
        }
    }
}

/// An export.
pub(crate) struct NbdSource {
    naming: Naming,
    setup: Setup,
    size: u64,
    /// The first connection, until someone takes it.
    first: Mutex<Option<Session>>,
    changes: Option<Box<dyn ChangedBlocks>>,
    changes_only: bool,
    /// What is known not to change.
    state: Option<String>,
    allowance: Allowance,
    random: OnceLock<Option<Arc<Random>>>,
}

impl NbdSource {
    /// Connects to the export that `spec` names.
    pub(crate) fn open(spec: &str, options: &SourceOptions) -> Result<Self> {
        let address = Address::parse(spec).map_err(|source| Error::Nbd {
            name: spec.split(['?', '#']).next().unwrap_or("").to_owned(),
            source,
        })?;
        let name = address.shown();
        Self::at(address, &name, None, options)
    }

    /// The same for an address, under a name for people.
    pub(crate) fn at(
        address: Address,
        name: &str,
        keeper: Option<Arc<dyn Keeper>>,
        options: &SourceOptions,
    ) -> Result<Self> {
        let setup = Setup {
            address,
            patience: Patience {
                connect: options.connect_timeout,
                stall: options.stall_timeout,
                cancel: options.cancel.clone(),
            },
            policy: Policy {
                retries: options.retries,
                first_pause: options.backoff,
            },
            connections: options.connections,
        };
        let session = Session::open_patiently(&setup).map_err(|source| Error::Nbd {
            name: name.to_owned(),
            source,
        })?;
        Ok(Self {
            naming: Naming {
                name: name.into(),
                keeper,
            },
            size: session.export().size,
            setup,
            first: Mutex::new(Some(session)),
            changes: None,
            changes_only: false,
            state: None,
            allowance: Allowance::default(),
            random: OnceLock::new(),
        })
    }

    /// The source is what `changes` tell of, and nothing else.
    pub(crate) fn with_changes(mut self, changes: Box<dyn ChangedBlocks>) -> Self {
        self.changes = Some(changes);
        self.changes_only = true;
        self
    }

    /// The disk does not change, and no other has this name in this state.
    pub(crate) fn in_state(mut self, state: String) -> Self {
        self.state = Some(state);
        self
    }

    fn session(&self) -> std::result::Result<Session, Failed> {
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        Ok(match first {
            Some(session) => session,
            None => Session::open_patiently(&self.setup)?,
        })
    }

    fn disk(&mut self) -> std::result::Result<Disk, Failed> {
        let session = self.session()?;
        let export = session.export();
        if self.changes_only && self.changes.is_none() {
            let what = "what changed is asked for once only".to_owned();
            return Err(NbdError::Unsupported { what }.into());
        }
        let areas = Areas::new(self.changes.take(), export.size, export.block);
        Ok(Disk::new(
            self.setup.clone(),
            self.naming.clone(),
            session,
            areas,
            self.allowance.clone(),
        ))
    }
}

impl Source for NbdSource {
    fn name(&self) -> String {
        self.naming.name.to_string()
    }

    fn len(&self) -> Option<u64> {
        Some(self.size)
    }

    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        let random = self.random.get_or_init(|| {
            let session = self.session().ok()?;
            Some(Arc::new(Random::new(self.setup.clone(), session)))
        });
        let random = random.clone()?;
        Some(random)
    }

    fn reopenable(&self) -> bool {
        true
    }

    fn stream(&mut self) -> longshore_transfer::Result<Box<dyn Read + Send>> {
        let disk = self.disk().map_err(|e| self.naming.error(e))?;
        Ok(Box::new(Whole::new(Box::new(disk))))
    }

    fn format(&self) -> Option<Format> {
        Some(Format::Raw)
    }

    fn served(&mut self) -> longshore_transfer::Result<Option<Box<dyn Served>>> {
        let disk = self.disk().map_err(|e| self.naming.error(e))?;
        Ok(Some(Box::new(disk)))
    }

    fn changes_only(&self) -> bool {
        self.changes_only
    }

    /// A server does not say whether its disk is what it was.
    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(Fingerprint {
            place: self.name(),
            state: self.state.clone()?,
            len: self.len(),
        })
    }

    fn allowance(&self) -> Option<Allowance> {
        Some(self.allowance.clone())
    }
}
