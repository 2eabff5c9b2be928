//! VMDK (being written).
use crate::{Error, Image, Limits, OpenGate, ReadAt, Result, forward};
use std::sync::Arc;

/// Opens a VMDK for random access.
pub fn open(
    _file: Arc<dyn ReadAt>,
    _gate: &dyn OpenGate,
    _limits: &Limits,
) -> Result<Arc<dyn Image>> {
    Err(Error::unsupported("vmdk is being written"))
}

/// A forward decoder for a VMDK stream.
pub fn decoder(_options: forward::Options) -> Result<Box<dyn forward::Decoder>> {
    Err(Error::unsupported("vmdk is being written"))
}
