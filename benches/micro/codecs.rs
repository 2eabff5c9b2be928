//! Codecs, zero detection and checksums: bytes a second on one thread.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use longshore_image::Wrapper;
use longshore_image::cluster::{ClusterCodec, ClusterDecoder, ClusterEncoder, Encoding};
use longshore_image::stream::{StreamOptions, decoder};
use longshore_micro::{CLUSTER, DATA, data, piped};
use longshore_transfer::{Algorithm, Hasher, is_zero};

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn bytes() -> Vec<u8> {
    data().expect("the program can read itself")
}

fn throughput(group: &mut Group<'_>, bytes: usize) {
    group.throughput(Throughput::Bytes(bytes as u64));
}

/// One cluster after the other, as a decoding thread does it.
fn clusters(c: &mut Criterion) {
    let data = bytes();
    let mut group = c.benchmark_group("cluster");
    throughput(&mut group, DATA);
    for (name, codec) in [
        ("zlib", ClusterCodec::Deflate),
        ("zstd", ClusterCodec::Zstd),
    ] {
        let encoding = Encoding::new(codec, None).expect("the default level is known");
        let mut encoder = ClusterEncoder::new(encoding).expect("there is memory for an encoder");
        let mut out = vec![0; CLUSTER];
        let packed: Vec<Vec<u8>> = data
            .chunks(CLUSTER)
            .filter_map(|cluster| {
                let length = encoder.encode(cluster, &mut out)?;
                Some(out.get(..length)?.to_vec())
            })
            .collect();
        // What does not compress is not decoded either.
        throughput(&mut group, packed.len() * CLUSTER);
        let mut decoder = ClusterDecoder::new(codec);
        group.bench_function(format!("{name} decode"), |b| {
            b.iter(|| {
                for cluster in &packed {
                    decoder
                        .decode(black_box(cluster), &mut out)
                        .expect("we packed it ourselves");
                }
            });
        });
        throughput(&mut group, DATA);
        group.bench_function(format!("{name} encode"), |b| {
            b.iter(|| {
                for cluster in data.chunks(CLUSTER) {
                    black_box(encoder.encode(black_box(cluster), &mut out));
                }
            });
        });
    }
    group.finish();
}

/// Whole streams, as they come from a file or a server.
fn streams(c: &mut Criterion) {
    let data = bytes();
    let mut group = c.benchmark_group("stream");
    group.sample_size(20);
    throughput(&mut group, DATA);
    let options = StreamOptions {
        memory: 64 << 20,
        threads: 1,
    };
    for (wrapper, program, args) in [
        (Wrapper::Gzip, "gzip", &["-6", "-c"][..]),
        (Wrapper::Xz, "xz", &["-6", "-T1", "-c"]),
        (Wrapper::Zstd, "zstd", &["-3", "-q", "-c"]),
        (Wrapper::Bzip2, "bzip2", &["-9", "-c"]),
    ] {
        let packed = piped(program, args, &data).expect(program);
        let mut out = vec![0; 256 << 10];
        group.bench_function(wrapper.name(), |b| {
            b.iter(|| {
                let mut decoder = decoder(wrapper, options).expect("64 MiB are enough");
                let mut input = packed.as_slice();
                while !input.is_empty() {
                    let done = decoder.push(input, &mut out).expect("the tool packed it");
                    input = input.get(done.consumed..).unwrap_or_default();
                }
                while decoder
                    .finish(&mut out)
                    .expect("the stream is whole")
                    .is_some()
                {}
            });
        });
    }
    group.finish();
}

fn zeros(c: &mut Criterion) {
    let mut group = c.benchmark_group("zeros");
    let zeros = vec![0; DATA];
    throughput(&mut group, DATA);
    group.bench_function("8 MiB from memory", |b| {
        b.iter(|| is_zero(black_box(&zeros)));
    });
    let cluster = vec![0; CLUSTER];
    throughput(&mut group, CLUSTER);
    group.bench_function("64 KiB in cache", |b| {
        b.iter(|| is_zero(black_box(&cluster)));
    });
    group.finish();
}

fn checksums(c: &mut Criterion) {
    let data = bytes();
    let mut group = c.benchmark_group("checksum");
    throughput(&mut group, DATA);
    for algorithm in [
        Algorithm::Md5,
        Algorithm::Sha1,
        Algorithm::Sha256,
        Algorithm::Sha512,
    ] {
        group.bench_function(algorithm.name(), |b| {
            b.iter(|| {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(black_box(&data));
                black_box(hasher.hex())
            });
        });
    }
    // gzip's, and VHDX's.
    group.bench_function("crc32", |b| b.iter(|| crc32fast::hash(black_box(&data))));
    group.bench_function("crc32c", |b| b.iter(|| crc32c::crc32c(black_box(&data))));
    group.finish();
}

criterion_group!(benches, clusters, streams, zeros, checksums);
criterion_main!(benches);
