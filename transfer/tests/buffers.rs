//! Sources that hand over buffers: the disk is the same, whatever they have in them.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking too")]

use std::io::{self, Read};
use std::sync::Arc;

use longshore_image::ReadAt;
use longshore_transfer::{
    CHUNK, Cache, Cancel, Exchange, Memory, Options, Progress, Qcow2Spec, Result, Source,
    TargetFormat, TargetSpec, transfer,
};

/// Gives its bytes in lots of `lots`, by turns.
struct Lots {
    bytes: Arc<[u8]>,
    lots: Vec<usize>,
}

struct Giving {
    bytes: Arc<[u8]>,
    at: usize,
    lots: std::iter::Cycle<std::vec::IntoIter<usize>>,
}

impl Giving {
    fn give(&mut self, most: usize, buf: &mut [u8]) -> usize {
        let n = most.min(buf.len()).min(self.bytes.len() - self.at);
        buf[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        n
    }
}

impl Read for Giving {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = self.lots.next().unwrap();
        Ok(self.give(most, buf))
    }
}

impl Exchange for Giving {
    fn exchange(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let mut own = vec![0xff; CHUNK];
        let most = self.lots.next().unwrap();
        let n = self.give(most, &mut own);
        // Now and then it has nothing of its own to give.
        if n.is_multiple_of(3) {
            buffer[..n].copy_from_slice(&own[..n]);
        } else {
            *buffer = own;
        }
        Ok(n)
    }
}

impl Lots {
    fn giving(&self) -> Giving {
        Giving {
            bytes: Arc::clone(&self.bytes),
            at: 0,
            lots: self.lots.clone().into_iter().cycle(),
        }
    }
}

impl Source for Lots {
    fn name(&self) -> String {
        "lots".into()
    }
    fn len(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }
    fn random(&self) -> Option<Arc<dyn ReadAt>> {
        None
    }
    fn reopenable(&self) -> bool {
        true
    }
    fn stream(&mut self) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.giving()))
    }
    fn buffers(&mut self) -> Result<Option<Box<dyn Exchange>>> {
        Ok(Some(Box::new(self.giving())))
    }
}

/// Runs of zeros and of numbers, with an end that is not aligned.
fn disk() -> Vec<u8> {
    let mut bytes = Vec::new();
    for run in 0u32..160 {
        let len = 1 + (run * 7919 % 60_000) as usize;
        if run % 3 == 0 {
            bytes.resize(bytes.len() + len, 0);
        } else {
            bytes.extend((1..=251u8).cycle().take(len));
        }
    }
    bytes
}

#[test]
fn a_disk_is_the_same_whatever_the_buffers_have_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Arc<[u8]> = disk().into();
    let least = Memory::of(32 << 20);
    for (n, lots) in [
        vec![CHUNK],
        vec![1, CHUNK],
        vec![100_001, CHUNK, 70_000, CHUNK / 2, 4096],
        vec![CHUNK, 4095, 200_001],
        vec![13_337],
    ]
    .into_iter()
    .enumerate()
    {
        for (cache, memory) in [
            (Cache::Writeback, Memory::default()),
            (Cache::None, Memory::default()),
            (Cache::Writeback, least),
        ] {
            let mut source = Lots {
                bytes: Arc::clone(&bytes),
                lots: lots.clone(),
            };
            let target = TargetSpec {
                path: dir.path().join(format!("out-{n}.raw")),
                cache,
                ..TargetSpec::default()
            };
            let options = Options {
                memory,
                ..Options::default()
            };
            let progress = Progress::default();
            let report = transfer(
                &mut source,
                &target,
                &options,
                &progress,
                &Cancel::default(),
            );
            assert_eq!(report.unwrap().bytes_read, bytes.len() as u64);
            assert!(std::fs::read(&target.path).unwrap() == *bytes, "{lots:?}");
        }
    }
}

#[test]
fn a_qcow2_image_is_made_of_them_and_read_from_them() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Arc<[u8]> = disk().into();
    let image = TargetSpec {
        path: dir.path().join("out.qcow2"),
        format: TargetFormat::Qcow2(Qcow2Spec::default()),
        ..TargetSpec::default()
    };
    let lots = vec![100_001, CHUNK, 1];
    let make = |bytes: &Arc<[u8]>, target: &TargetSpec| {
        let mut source = Lots {
            bytes: Arc::clone(bytes),
            lots: lots.clone(),
        };
        transfer(
            &mut source,
            target,
            &Options::default(),
            &Progress::default(),
            &Cancel::default(),
        )
        .unwrap()
    };
    make(&bytes, &image);
    let packed: Arc<[u8]> = std::fs::read(&image.path).unwrap().into();
    let raw = TargetSpec {
        path: dir.path().join("back.raw"),
        ..TargetSpec::default()
    };
    make(&packed, &raw);
    let mut back = std::fs::read(&raw.path).unwrap();
    back.truncate(bytes.len());
    assert!(back == *bytes);
}
