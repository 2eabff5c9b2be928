//! Compressed clusters (qcow2) and grains (VMDK): small inputs whose output size is known.
//!
//! One [`ClusterDecoder`] per thread; it keeps its codec state between clusters.

mod encode;

use std::io::Read;

use libdeflater::{DecompressionError, Decompressor};

pub use self::encode::{ClusterEncoder, Encoding};
use crate::{Compression, Error, Result};

/// How an image compresses its clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterCodec {
    /// It has no compressed clusters.
    None,
    /// Raw deflate (qcow2 compression type 0).
    Deflate,
    /// Deflate in a zlib frame with its checksum (VMDK grains).
    Zlib,
    /// One or more zstd frames (qcow2 compression type 1).
    Zstd,
}

impl ClusterCodec {
    /// How many bytes one compressed byte can become at most, by the codec's own definition: deflate
    /// codes 258 bytes in two bits; a zstd block of 128 KiB of one byte takes four bytes.
    pub fn max_ratio(self) -> u64 {
        match self {
            Self::None => 1,
            Self::Deflate | Self::Zlib => 1032,
            Self::Zstd => 32 << 10,
        }
    }

    /// Memory one decoder keeps for clusters of `cluster` bytes, in bytes.
    pub fn decoder_bytes(self, cluster: u64) -> u64 {
        match self {
            Self::None => 0,
            Self::Deflate | Self::Zlib => 64 << 10,
            // A context, and a window that is never larger than the cluster it decodes.
            Self::Zstd => cluster.saturating_add(256 << 10),
        }
    }

    /// For people.
    pub fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Deflate | Self::Zlib => Compression::Zlib,
            Self::Zstd => Compression::Zstd,
        }
    }
}

/// Decodes compressed clusters, reusing its state.
pub struct ClusterDecoder {
    codec: ClusterCodec,
    deflate: Decompressor,
    zstd: Option<zstd::zstd_safe::DCtx<'static>>,
}

impl std::fmt::Debug for ClusterDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterDecoder")
            .field("codec", &self.codec)
            .finish_non_exhaustive()
    }
}

impl ClusterDecoder {
    /// A decoder for `codec`.
    pub fn new(codec: ClusterCodec) -> Self {
        Self {
            codec,
            deflate: Decompressor::new(),
            zstd: None,
        }
    }

    /// Decodes one cluster so that `out` is exactly full. Input that follows the compressed data is
    /// ignored, and so is output beyond `out`, as QEMU does; output that ends early is an error.
    pub fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<()> {
        match self.codec {
            ClusterCodec::None => Err(Error::malformed(
                "a compressed cluster in an image that has no compression",
            )),
            ClusterCodec::Deflate => match self.deflate.deflate_decompress(input, out) {
                Ok(n) if n == out.len() => Ok(()),
                Ok(n) => Err(short(n, out.len())),
                // The stream goes on past the cluster, or libdeflate is stricter than zlib about it.
                Err(DecompressionError::InsufficientSpace | DecompressionError::BadData) => {
                    inflate_until_full(flate2::read::DeflateDecoder::new(input), out)
                }
            },
            ClusterCodec::Zlib => match self.deflate.zlib_decompress(input, out) {
                Ok(n) if n == out.len() => Ok(()),
                Ok(n) => Err(short(n, out.len())),
                Err(DecompressionError::InsufficientSpace) => {
                    inflate_until_full(flate2::read::ZlibDecoder::new(input), out)
                }
                Err(DecompressionError::BadData) => {
                    Err(Error::malformed("a compressed cluster does not inflate"))
                }
            },
            ClusterCodec::Zstd => self.zstd_until_full(input, out),
        }
    }

    fn zstd_until_full(&mut self, input: &[u8], out: &mut [u8]) -> Result<()> {
        use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, ResetDirective, get_error_name};

        let bad = |code| {
            Error::malformed(format!(
                "a compressed cluster is not valid zstd: {}",
                get_error_name(code)
            ))
        };
        let wanted = out.len();
        let ctx = match &mut self.zstd {
            Some(ctx) => ctx,
            empty => {
                let ctx = DCtx::try_create()
                    .ok_or_else(|| Error::limit("no memory for a zstd context", 256 << 10))?;
                empty.insert(ctx)
            }
        };
        ctx.reset(ResetDirective::SessionOnly).map_err(bad)?;
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(out);
        // One call may stop at a block or frame boundary: go on until full or no headway is made.
        loop {
            let before = (from.pos(), to.pos());
            ctx.decompress_stream(&mut to, &mut from).map_err(bad)?;
            if to.pos() == wanted {
                return Ok(());
            }
            if (from.pos(), to.pos()) == before || from.pos() == input.len() && to.pos() == before.1
            {
                return Err(short(to.pos(), wanted));
            }
        }
    }
}

fn short(found: usize, expected: usize) -> Error {
    Error::malformed(format!(
        "a compressed cluster holds {found} bytes instead of {expected}: it is damaged"
    ))
}

fn inflate_until_full(mut decoder: impl Read, out: &mut [u8]) -> Result<()> {
    let wanted = out.len();
    let mut rest = out;
    while !rest.is_empty() {
        match decoder.read(rest) {
            Ok(0) => return Err(short(wanted.saturating_sub(rest.len()), wanted)),
            Ok(n) => rest = rest.get_mut(n..).unwrap_or_default(),
            Err(e) => {
                return Err(
                    Error::malformed("a compressed cluster does not inflate").with_source(e)
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use std::io::Write;

    fn sample() -> Vec<u8> {
        (0..65536u32).map(|i| ((i * i) >> 7) as u8).collect()
    }

    fn deflated(data: &[u8]) -> Vec<u8> {
        let mut e = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(data).unwrap();
        e.finish().unwrap()
    }

    #[test]
    fn deflate_ignores_trailing_bytes_and_surplus_output() {
        let data = sample();
        let mut packed = deflated(&data);
        packed.extend_from_slice(&[0xAA; 700]);
        let mut decoder = ClusterDecoder::new(ClusterCodec::Deflate);
        let mut out = vec![1; data.len()];
        decoder.decode(&packed, &mut out).unwrap();
        assert_eq!(out, data);
        let mut part = vec![1; 1000];
        decoder.decode(&packed, &mut part).unwrap();
        assert_eq!(part, data[..1000]);
    }

    #[test]
    fn short_and_broken_clusters_are_malformed_in_every_codec() {
        let data = sample();
        let zlib = {
            let mut e = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            e.write_all(&data).unwrap();
            e.finish().unwrap()
        };
        let zstd = zstd::stream::encode_all(&data[..], 1).unwrap();
        for (codec, packed) in [
            (ClusterCodec::Deflate, deflated(&data)),
            (ClusterCodec::Zlib, zlib),
            (ClusterCodec::Zstd, zstd),
        ] {
            let mut decoder = ClusterDecoder::new(codec);
            let mut out = vec![0; data.len()];
            decoder.decode(&packed, &mut out).unwrap();
            assert_eq!(out, data, "{codec:?}");
            let mut long = vec![0; data.len() + 1];
            let e = decoder.decode(&packed, &mut long).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Malformed, "{codec:?} inflates short");
            let e = decoder
                .decode(&packed[..packed.len() / 2], &mut out)
                .unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Malformed, "{codec:?} is cut");
            let e = decoder.decode(&[0xFF; 300], &mut out).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Malformed, "{codec:?} is garbage");
            decoder.decode(&packed, &mut out).unwrap();
            assert_eq!(out, data, "{codec:?} works again after errors");
        }
    }

    #[test]
    fn zstd_clusters_of_many_blocks_and_frames_decode_whole() {
        let data: Vec<u8> = (0..2 << 20)
            .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let mut packed = zstd::stream::encode_all(&data[..1 << 20], 1).unwrap();
        packed.extend(zstd::stream::encode_all(&data[1 << 20..], 1).unwrap());
        let mut out = vec![0; data.len()];
        ClusterDecoder::new(ClusterCodec::Zstd)
            .decode(&packed, &mut out)
            .unwrap();
        assert_eq!(out, data);
    }
}
