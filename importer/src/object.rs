//! What object stores have in common: papers that run out, where they are had, keys in URLs, and what
//! such a store says when it refuses.
//!
//! An object is read as any other content of a web server (see [`crate::http`]): this module and
//! [`crate::s3`] and [`crate::gcs`] only know its URL, and what to show for it.

pub(crate) mod ambient;
pub(crate) mod clock;
pub(crate) mod desk;
pub(crate) mod key;
pub(crate) mod lease;
pub(crate) mod options;
pub(crate) mod refusal;
pub(crate) mod secret;
pub(crate) mod xml;
