//! A model of a cluster, in memory, on which the controllers themselves work: what they observe, decide
//! and do is the code that runs in a cluster, down to the requests that their client sends. Only the API
//! server behind it ([`server`]) and everybody else ([`world`]: kubelet, binder, collector of garbage,
//! people) are models.
//!
//! What holds for every history is in [`properties`].

mod properties;
mod server;
mod world;

pub(crate) use self::server::merge;
