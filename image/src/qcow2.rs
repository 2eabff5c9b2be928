//! qcow2 (being written).
use crate::{Error, Image, Limits, OpenGate, ReadAt, Result, forward};
use std::sync::Arc;

/// Opens a qcow2 image for random access.
pub fn open(
    _file: Arc<dyn ReadAt>,
    _gate: &dyn OpenGate,
    _limits: &Limits,
) -> Result<Arc<dyn Image>> {
    Err(Error::unsupported("qcow2 is being written"))
}

/// A forward decoder for a qcow2 stream.
pub fn decoder(_options: forward::Options) -> Result<Box<dyn forward::Decoder>> {
    Err(Error::unsupported("qcow2 is being written"))
}
