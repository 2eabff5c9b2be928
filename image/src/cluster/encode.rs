//! Compressing clusters, for the formats that are written here.
//!
//! One [`ClusterEncoder`] per thread; it keeps its codec state between clusters.
//!
//! Deflate is libdeflate's, which has no window of 4 KiB to offer as QEMU's own writer uses. That does
//! not matter to readers: a cluster is inflated by one call into one buffer, where zlib follows any
//! distance back to the buffer's start, whatever window it was told (checked with qemu-img in
//! `tests/images`).

use libdeflater::{CompressionLvl, Compressor};
use zstd::zstd_safe::{CCtx, CParameter};

use super::ClusterCodec;
use crate::num::to_u64;
use crate::{Error, ErrorKind, Result};

/// A codec and how hard it tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    codec: ClusterCodec,
    level: u8,
}

impl Encoding {
    /// Hardest levels: what is above takes much longer for about one per cent, and zstd tens of MiB for
    /// each thread.
    pub const MAX_LEVEL: u8 = 9;

    /// `codec` at `level` (1 to [`Self::MAX_LEVEL`]) or the level that proved best for it.
    pub fn new(codec: ClusterCodec, level: Option<u8>) -> Result<Self> {
        let usual = match codec {
            // Of 369 MiB of libraries `qemu-img convert -c` made 147.7 MB in 11.7 s; level 2 144.6 MB,
            // 5 140.4 MB, 6 139.7 MB, for 2.7, 3.7 and 4.5 s of CPU.
            ClusterCodec::Deflate => 5,
            ClusterCodec::Zstd => 3,
            ClusterCodec::None | ClusterCodec::Zlib => {
                return Err(Error::new(
                    ErrorKind::Misuse,
                    "clusters are compressed as raw deflate or zstd",
                ));
            }
        };
        let level = level.unwrap_or(usual);
        if !(1..=Self::MAX_LEVEL).contains(&level) {
            return Err(Error::new(
                ErrorKind::Misuse,
                format!(
                    "compression level {level} is not between 1 and {}",
                    Self::MAX_LEVEL
                ),
            ));
        }
        Ok(Self { codec, level })
    }

    /// The codec.
    pub fn codec(self) -> ClusterCodec {
        self.codec
    }

    /// The level.
    pub fn level(self) -> u8 {
        self.level
    }

    /// Memory one encoder keeps for clusters of `cluster` bytes, in bytes; from above.
    pub fn encoder_bytes(self, cluster: u64) -> u64 {
        match self.codec {
            // Hash tables of 32 KiB windows and a block's worth of symbols.
            ClusterCodec::Deflate => 1 << 20,
            // Tables grow with the cluster and the level, and are never larger than this.
            _ => cluster.saturating_mul(8).saturating_add(2 << 20),
        }
    }
}

/// Encodes clusters, reusing its state.
pub struct ClusterEncoder {
    encoding: Encoding,
    state: State,
}

enum State {
    Deflate(Compressor),
    Zstd(CCtx<'static>),
}

impl std::fmt::Debug for ClusterEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterEncoder")
            .field("encoding", &self.encoding)
            .finish_non_exhaustive()
    }
}

impl ClusterEncoder {
    /// An encoder.
    pub fn new(encoding: Encoding) -> Result<Self> {
        let state = if encoding.codec == ClusterCodec::Zstd {
            let mut context = CCtx::try_create()
                .ok_or_else(|| Error::limit("no memory for a zstd context", 1 << 20))?;
            context
                .set_parameter(CParameter::CompressionLevel(i32::from(encoding.level)))
                .map_err(|code| {
                    let text = zstd::zstd_safe::get_error_name(code);
                    Error::new(ErrorKind::Misuse, format!("zstd did not start: {text}"))
                })?;
            State::Zstd(context)
        } else {
            let level = CompressionLvl::new(i32::from(encoding.level)).unwrap_or_default();
            State::Deflate(Compressor::new(level))
        };
        Ok(Self { encoding, state })
    }

    /// Compresses `cluster` into `out`; says how long that became, or `None` if it does not fit.
    pub fn encode(&mut self, cluster: &[u8], out: &mut [u8]) -> Option<usize> {
        match &mut self.state {
            State::Deflate(compressor) => compressor.deflate_compress(cluster, out).ok(),
            // Whatever zstd can't do, the cluster is kept as it is.
            State::Zstd(context) => context.compress2(out, cluster).ok(),
        }
        .filter(|&len| len > 0)
    }

    /// Bytes of memory that it holds now, where the codec tells.
    pub fn bytes(&self) -> Option<u64> {
        match &self.state {
            State::Deflate(_) => None,
            State::Zstd(context) => Some(to_u64(context.sizeof())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ClusterDecoder;

    fn text(len: usize) -> Vec<u8> {
        let mut state = 7u32;
        (0..len)
            .map(|i| {
                if i % 5 == 0 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                }
                b'a' + (state >> 28) as u8
            })
            .collect()
    }

    #[test]
    fn every_codec_level_and_size_comes_back_from_the_decoder() {
        for codec in [ClusterCodec::Deflate, ClusterCodec::Zstd] {
            for level in 1..=Encoding::MAX_LEVEL {
                let encoding = Encoding::new(codec, Some(level)).unwrap();
                let mut encoder = ClusterEncoder::new(encoding).unwrap();
                let mut decoder = ClusterDecoder::new(codec);
                for len in [512, 64 << 10, 2 << 20] {
                    let cluster = text(len);
                    let mut out = vec![0; len - 1];
                    let n = encoder.encode(&cluster, &mut out).unwrap();
                    let mut back = vec![0; len];
                    decoder.decode(&out[..n], &mut back).unwrap();
                    assert_eq!(back, cluster, "{codec:?} {level} {len}");
                    if let Some(bytes) = encoder.bytes() {
                        let allowed = encoding.encoder_bytes(len as u64);
                        assert!(
                            bytes <= allowed,
                            "{codec:?} {level} {len}: {bytes} > {allowed}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn noise_does_not_fit_and_the_encoder_goes_on() {
        let mut state = 1u64;
        let noise: Vec<u8> = (0..64 << 10)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        for codec in [ClusterCodec::Deflate, ClusterCodec::Zstd] {
            let mut encoder = ClusterEncoder::new(Encoding::new(codec, None).unwrap()).unwrap();
            let mut out = vec![0; noise.len() - 1];
            assert_eq!(encoder.encode(&noise, &mut out), None);
            assert!(encoder.encode(&text(64 << 10), &mut out).is_some());
        }
    }

    #[test]
    fn levels_and_codecs_that_are_none_are_misuse() {
        for (codec, level) in [
            (ClusterCodec::Deflate, Some(0)),
            (ClusterCodec::Zstd, Some(10)),
            (ClusterCodec::Zlib, None),
            (ClusterCodec::None, None),
        ] {
            let e = Encoding::new(codec, level).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Misuse);
        }
    }
}
