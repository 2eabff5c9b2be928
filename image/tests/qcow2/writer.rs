//! What we write: read back both ways, and every cluster of the file counted as often as it is used.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Range;

use longshore_image::cluster::{ClusterCodec, ClusterEncoder, Encoding};
use longshore_image::qcow2::write::{Form, Params, Store, Stored, WriteError, Writer};
use longshore_image::{ErrorKind, Limits};
use proptest::prelude::*;

use crate::support::{Bench, Forward, disk, open, options, random, same};

/// A file in memory.
#[derive(Debug, Default)]
struct Memory {
    bytes: Vec<u8>,
    written: u64,
}

impl Store for Memory {
    type Error = Infallible;

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Infallible> {
        let (at, end) = (at as usize, at as usize + bytes.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), Infallible> {
        buf.fill(0);
        let there = self.bytes.get(at as usize..).unwrap_or_default();
        let n = there.len().min(buf.len());
        buf[..n].copy_from_slice(&there[..n]);
        Ok(())
    }
}

fn params(cluster_size: u64, virtual_size: Option<u64>, codec: ClusterCodec) -> Params {
    Params {
        cluster_size,
        virtual_size,
        codec,
        // A few slices: they are written and read again all the time.
        cache: 4 << 10,
        limits: Limits::default(),
    }
}

/// An image being made of pieces, and the disk that it must become.
struct Making {
    cluster: usize,
    store: Memory,
    writer: Writer,
    encoder: Option<ClusterEncoder>,
    model: Vec<u8>,
}

impl Making {
    fn new(cluster: u64, codec: Option<ClusterCodec>, len: usize, known: bool) -> Self {
        let mut store = Memory::default();
        let size = known.then_some(len as u64);
        let params = params(cluster, size, codec.unwrap_or(ClusterCodec::Deflate));
        let writer = Writer::new(&params, &mut store).unwrap();
        let encoding = codec.map(|codec| Encoding::new(codec, None).unwrap());
        Self {
            cluster: cluster as usize,
            store,
            writer,
            encoder: encoding.map(|encoding| ClusterEncoder::new(encoding).unwrap()),
            model: vec![0; len],
        }
    }

    /// Puts clusters of `bytes`, which are whole or of which only a range counts.
    fn put(&mut self, clusters: &[(usize, Option<Range<usize>>)], bytes: &[u8]) {
        let (mut buf, mut stored, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        for (index, part) in clusters {
            let start = index * self.cluster;
            let part = part.clone().unwrap_or(0..self.cluster);
            let mut cluster = vec![0; self.cluster];
            for at in part.clone() {
                cluster[at] = bytes[(start + at) % bytes.len()];
                if let Some(byte) = self.model.get_mut(start + at) {
                    *byte = cluster[at];
                } else {
                    cluster[at] = 0;
                }
            }
            let mut out = vec![0; self.cluster - 1];
            let packed = self
                .encoder
                .as_mut()
                .and_then(|encoder| encoder.encode(&cluster, &mut out));
            let from = buf.len();
            let form = if let Some(n) = packed {
                buf.extend_from_slice(&out[..n]);
                Form::Packed
            } else {
                buf.extend_from_slice(&cluster);
                runs.push(from..buf.len());
                Form::Plain
            };
            stored.push(Stored {
                guest: start as u64,
                bytes: from..buf.len(),
                form,
                covered: (part.len() < self.cluster).then(|| vec![part]),
            });
        }
        self.writer
            .put(&mut self.store, &buf, &stored, &runs)
            .unwrap();
    }

    /// The disk turns out to be only `len` bytes long, and is made `size` bytes large.
    fn cut(mut self, len: usize, size: usize) -> (Vec<u8>, Vec<u8>) {
        let (end, bytes) = (len as u64, size as u64);
        let len = self.writer.finish(&mut self.store, end, bytes).unwrap();
        self.model.truncate(end as usize);
        self.model.resize(size, 0);
        let mut file = self.store.bytes;
        assert!(file.len() as u64 <= len, "something lies behind the end");
        file.resize(len as usize, 0);
        self.model.resize(self.model.len().next_multiple_of(512), 0);
        (file, self.model)
    }

    fn finish(self) -> (Vec<u8>, Vec<u8>) {
        let len = self.model.len();
        self.cut(len, len)
    }
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn be32(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Counts who refers to each cluster, and demands that the refcounts say the same. Returns the number
/// of refcount blocks.
fn check_refcounts(file: &[u8]) -> usize {
    let bits = be32(file, 20);
    let size = 1usize << bits;
    assert_eq!(file.len() % 512, 0);
    let mut used = BTreeMap::<usize, u64>::new();
    let mut refer = |range: Range<usize>| {
        // Packed clusters at the end have their sectors, not all of the cluster.
        assert!(range.end <= file.len(), "{range:?} is beyond the file");
        for cluster in range.start / size..range.end.div_ceil(size) {
            *used.entry(cluster).or_default() += 1;
        }
    };
    refer(0..size);
    let (l1, l1_len) = (be64(file, 40) as usize, be32(file, 36) * 8);
    refer(l1..l1 + l1_len);
    let (table, clusters) = (be64(file, 48) as usize, be32(file, 56));
    refer(table..table + clusters * size);
    for entry in (l1..l1 + l1_len).step_by(8) {
        let entry = be64(file, entry);
        if entry == 0 {
            continue;
        }
        assert_eq!(entry >> 63, 1, "an L2 table is used once");
        let l2 = (entry & 0x00ff_ffff_ffff_fe00) as usize;
        refer(l2..l2 + size);
        for at in (l2..l2 + size).step_by(8) {
            let raw = be64(file, at);
            if raw & 1 << 62 != 0 {
                assert_eq!(raw >> 63, 0, "compressed clusters are never called copied");
                let shift = 70 - bits;
                let host = (raw & ((1 << shift) - 1)) as usize;
                let sectors = ((raw & ((1 << 62) - 1)) >> shift) as usize + 1;
                refer(host / 512 * 512..(host / 512 + sectors) * 512);
            } else if raw != 0 {
                assert_eq!(raw >> 63, 1);
                let host = (raw & 0x00ff_ffff_ffff_fe00) as usize;
                refer(host..host + size);
            }
        }
    }
    let mut blocks = Vec::new();
    for entry in (table..table + clusters * size).step_by(8) {
        let block = be64(file, entry) as usize;
        if block != 0 {
            refer(block..block + size);
            blocks.push(((entry - table) / 8, block));
        }
    }
    let mut counted = BTreeMap::new();
    for &(index, block) in &blocks {
        for n in 0..size / 2 {
            let count = u16::from_be_bytes([file[block + n * 2], file[block + n * 2 + 1]]);
            if count > 0 {
                counted.insert(index * size / 2 + n, u64::from(count));
            }
        }
    }
    assert_eq!(counted, used, "refcounts, and who refers");
    blocks.len()
}

fn check(file: &[u8], model: &[u8], forward: bool) {
    check_refcounts(file);
    same(
        "random",
        &random(&open(file.to_vec()).unwrap()).unwrap(),
        model,
    );
    if forward {
        let seen = Forward::new(options()).chunk(10_000).run(file).unwrap();
        same("forward", &seen.disk, model);
        assert_eq!(seen.passes, 1);
    }
}

#[test]
fn refcounts_and_their_table_grow_over_many_blocks_and_clusters() {
    // A block of 512 bytes counts 128 KiB of the file, a cluster of the table 8 MiB.
    let bytes = disk(3, 1 << 20);
    for known in [true, false] {
        let len = 21 << 20;
        let mut making = Making::new(512, None, len, known);
        for batch in 0..len / 512 / 64 {
            let clusters: Vec<_> = (0..64).map(|n| (batch * 64 + n, None)).collect();
            making.put(&clusters, &bytes);
        }
        let (file, model) = making.finish();
        assert!(check_refcounts(&file) > 160);
        assert!(be32(&file, 56) >= 3, "clusters of the refcount table");
        check(&file, &model, true);
    }
}

#[test]
fn tables_move_where_a_disk_outgrows_the_room_for_them() {
    // Room is for 16 GiB; beyond that, one cluster.
    let mut making = Making::new(512, Some(ClusterCodec::Deflate), 0, false);
    making.put(&[(1, None), (0, None)], b"longshore");
    let far = (40u64 << 30) / 512;
    making.put(&[(far as usize, None)], b"longshore");
    let mut store = making.store;
    let len = making
        .writer
        .finish(&mut store, (40 << 30) + 512, (40 << 30) + 512)
        .unwrap();
    let mut file = store.bytes;
    file.resize(len as usize, 0);
    check_refcounts(&file);
    assert!(be64(&file, 40) > 5 << 20, "L1 is behind the data");
    let image = open(file).unwrap();
    let last = image.extents(far * 512..far * 512 + 512).next().unwrap();
    assert!(!matches!(
        last.unwrap().kind,
        longshore_image::ExtentKind::Zero
    ));
}

#[test]
fn what_comes_again_after_it_was_compressed_is_taken_apart_and_counted_right() {
    for codec in [None, Some(ClusterCodec::Deflate), Some(ClusterCodec::Zstd)] {
        let mut making = Making::new(4096, codec, 64 << 10, true);
        making.put(&[(0, Some(0..100)), (1, None), (2, Some(0..4000))], b"abc");
        making.put(&[(0, Some(100..4096)), (1, None)], b"defg");
        making.put(&[(2, Some(4000..4096)), (1, Some(5..10))], b"hij");
        making.put(&[(0, Some(7..9)), (0, Some(8..11))], b"xyz");
        let (file, model) = making.finish();
        check(&file, &model, true);
    }
}

#[test]
fn an_empty_disk_of_8_tib_is_a_few_clusters() {
    for (cluster, most) in [(64 << 10, 600 << 10), (2 << 20, 12 << 20)] {
        let mut store = Memory::default();
        let params = params(cluster, Some(8 << 40), ClusterCodec::Deflate);
        let writer = Writer::new(&params, &mut store).unwrap();
        let len = writer.finish(&mut store, 8 << 40, 8 << 40).unwrap();
        assert!(len <= most, "{len}");
        assert!(store.written < 64 << 10, "{} written", store.written);
    }
}

#[test]
fn what_qcow2_can_not_say_is_refused_with_what_could() {
    let refused = |cluster, size, limits| {
        let params = Params {
            limits,
            ..params(cluster, Some(size), ClusterCodec::Deflate)
        };
        match Writer::new(&params, &mut Memory::default()) {
            Err(WriteError::Image(e)) => e,
            other => panic!("{other:?}"),
        }
    };
    // 32 MiB of L1 map 128 GiB with the smallest clusters.
    let e = refused(512, (128 << 30) + 1, Limits::with_table_bytes(1 << 30));
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("use larger clusters"), "{e}");
    let e = refused(512, 100 << 30, Limits::with_table_bytes(1 << 20));
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    for cluster in [0, 256, 513, 4 << 20] {
        let e = refused(cluster, 1 << 20, Limits::default());
        assert_eq!(e.kind(), ErrorKind::Misuse);
    }
}

#[test]
fn packed_clusters_follow_each_other_to_the_byte() {
    let Some(bench) = Bench::new("qcow2") else {
        return;
    };
    let bytes = disk(9, 1 << 20);
    let mut making = Making::new(65536, Some(ClusterCodec::Deflate), 4 << 20, true);
    let clusters: Vec<_> = (0..64).map(|n| (n, None)).collect();
    making.put(&clusters, &bytes);
    let (file, model) = making.finish();
    check(&file, &model, true);
    bench.write("ours.qcow2", &file);
    bench.write("disk.raw", &model);
    bench.img("check -q ours.qcow2");
    bench.img("convert -q -c -O qcow2 disk.raw theirs.qcow2");
    let theirs = bench.read("theirs.qcow2").len();
    assert!(
        file.len() <= theirs + theirs / 50,
        "{} {theirs}",
        file.len()
    );
    same("qemu-img", &bench.oracle("ours.qcow2"), &model);
}

#[derive(Debug, Clone)]
struct Op {
    cluster: usize,
    part: Option<(u16, u16)>,
}

fn ops(clusters: usize) -> impl Strategy<Value = Vec<Vec<Op>>> {
    let part = proptest::option::weighted(0.3, (any::<u16>(), any::<u16>()));
    let op = (0..clusters, part).prop_map(|(cluster, part)| Op { cluster, part });
    proptest::collection::vec(proptest::collection::vec(op, 1..12), 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_order_of_clusters_and_parts_gives_a_sound_image_of_the_disk(
        bits in 9u32..15,
        codec in prop_oneof![
            Just(None),
            Just(Some(ClusterCodec::Deflate)),
            Just(Some(ClusterCodec::Zstd)),
        ],
        known in any::<bool>(),
        tail in 0usize..512,
        cut in proptest::option::weighted(0.3, (any::<u32>(), any::<u16>())),
        seed in any::<u64>(),
        batches in ops(200),
    ) {
        let size = 1usize << bits;
        let len = 200 * size - tail;
        let bytes = disk(seed, 300_000);
        let mut making = Making::new(size as u64, codec, len, known);
        for batch in batches {
            let clusters: Vec<_> = batch
                .iter()
                .map(|op| {
                    let part = op.part.map(|(a, b)| {
                        let (a, b) = (usize::from(a) % size, usize::from(b) % size);
                        a.min(b)..a.max(b) + 1
                    });
                    (op.cluster, part)
                })
                .collect();
            making.put(&clusters, &bytes);
        }
        let (file, model) = match cut {
            Some((cut, more)) => {
                let end = cut as usize % (len + 1);
                making.cut(end, end + usize::from(more))
            }
            None => making.finish(),
        };
        check(&file, &model, true);
    }
}
