//! What our processes tell each other.
//!
//! ```text
//! controller --[ environment of the pod: Import, Credentials ]--> importer pod
//! controller <--[ termination message: Termination ]-- importer pod
//! controller --[ annotation of the claim: Progress ]--> commands
//! ```
//!
//! Both sides compile against this, so that a parameter is spelled once. The names of variables and of
//! the message's fields are upstream CDI's where it has them, which makes dashboards and habits carry over;
//! they are no interface to anybody outside: the controller that made a pod is the only one that configures
//! it.
//!
//! Nothing here opens a file, a socket or the environment itself: callers hand over what they read.

mod credentials;
mod import;
mod overhead;
mod progress;
mod secret;
mod termination;
pub mod variables;
mod vars;

pub use credentials::Credentials;
pub use import::{
    CacheMode, Checkpoint, ContentType, Headers, Import, Proxy, Pull, Resume, Source, Tls, Vmware,
};
pub use overhead::{Overhead, ParseOverheadError};
pub use progress::Progress;
pub use secret::Secret;
pub use termination::{MOST_BYTES, SourceIdentity, Termination, VddkInfo};
pub use vars::EnvError;
