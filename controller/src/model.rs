//! A model of a cluster, in memory, on which the controllers themselves work: what they observe, decide
//! and do is the code that runs in a cluster, down to the requests that their client sends. Only the API
//! server behind it ([`server`]) and everybody else ([`world`]: kubelet, binder, collector of garbage,
//! people) are models.
//!
//! What holds for every history is in [`properties`], for those of claims and volumes, and in
//! [`installation`], for those of what the cluster is made of.

mod installation;
mod properties;
mod server;
mod watched;
mod world;

pub(crate) use self::server::merge;
