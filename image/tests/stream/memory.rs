//! Decoders stay within the memory they were given, measured as the peak of a process of its own, and
//! say what they would have needed.
//!
//! Each measurement runs this test program again, with only [`child`] in it.

use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

use longshore_image::stream::{StreamOptions, decoder, memory_for};
use longshore_image::{Error, ErrorKind, PROBE_LEN, Wrapper};

use crate::support::{WRAPPERS, decode, have, noise, pipe};

const MIB: u64 = 1 << 20;
/// What a process takes besides: thread stacks, the allocator's own, pages of code that were touched.
const SLACK: u64 = 3 * MIB;

const CHILD: &str = "LONGSHORE_STREAM_CHILD";

fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

/// Decodes a file and prints the growth of this process, the bytes that came out, and their CRC.
#[test]
#[ignore = "a child of the tests below"]
fn child() {
    let Some(args) = std::env::var_os(CHILD) else {
        println!("skipped: {CHILD} is not set");
        return;
    };
    let args = args.into_string().unwrap();
    let [wrapper, memory, threads, path]: [&str; 4] =
        args.splitn(4, ' ').collect::<Vec<_>>().try_into().unwrap();
    let wrapper = WRAPPERS.into_iter().find(|w| w.name() == wrapper).unwrap();
    let mut file = std::fs::File::open(path).unwrap();
    let mut input = vec![1; 256 << 10];
    let mut room = vec![1; 1 << 20];
    let before = peak();
    let options = StreamOptions {
        memory: memory.parse().unwrap(),
        threads: threads.parse().unwrap(),
    };
    let mut decoder = decoder(wrapper, options).unwrap();
    let (mut crc, mut total) = (crc32fast::Hasher::new(), 0);
    loop {
        let n = file.read(&mut input).unwrap();
        if n == 0 {
            break;
        }
        let mut at = 0;
        loop {
            let did = decoder.push(&input[at..n], &mut room).unwrap();
            crc.update(&room[..did.produced]);
            total += did.produced;
            at += did.consumed;
            if at == n && did.produced < room.len() {
                break;
            }
        }
    }
    while let Some(n) = decoder.finish(&mut room).unwrap() {
        crc.update(&room[..n]);
        total += n;
    }
    println!("child: {} {total} {}", peak() - before, crc.finalize());
}

/// As the program sets it with `mallopt` when it starts: left alone, glibc puts ever larger buffers on
/// its heap, where freed ones stay (29 MiB measured instead of 21 with blocks of growing size).
const MALLOC: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=262144");

/// A file that goes when the test does.
struct Packed {
    path: PathBuf,
    command: String,
}

impl Packed {
    fn new(command: &str, data: &[u8]) -> Self {
        let name = format!(
            "stream-{}-{:08x}",
            std::process::id(),
            crc32fast::hash(command.as_bytes())
        );
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, pipe(command, data)).unwrap();
        let command = command.to_owned();
        Self { path, command }
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Decoding `packed`, which holds `data`, takes no more than `memory`, as far as that can be told from
/// outside.
fn fits(wrapper: Wrapper, packed: &Packed, data: &[u8], memory: u64, threads: usize) {
    let Packed { path, command } = packed;
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::child", "--ignored", "--nocapture"])
        .env(MALLOC.0, MALLOC.1)
        .env(
            CHILD,
            format!("{} {memory} {threads} {}", wrapper.name(), path.display()),
        )
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {text}{errors}");
    let line = text
        .split("child: ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
    let [growth, total, crc]: [u64; 3] = numbers.try_into().unwrap();
    assert_eq!(total, data.len() as u64, "{command}");
    assert_eq!(crc, u64::from(crc32fast::hash(data)), "{command}");
    println!(
        "{command}, {threads} threads, {} KiB allowed: {} KiB taken",
        memory >> 10,
        growth >> 10
    );
    assert!(
        growth <= memory + SLACK,
        "{command}: {growth} bytes were taken, {memory} allowed"
    );
}

/// The refusal of what `command` makes, one byte short of what it says it needs; enough is enough.
fn refused_below_its_need(wrapper: Wrapper, command: &str, data: &[u8], threads: usize) -> u64 {
    let packed = pipe(command, data);
    let with = |memory| decode(wrapper, &packed, StreamOptions { memory, threads });
    let refusal = |e: Error| {
        assert_eq!(e.kind(), ErrorKind::LimitExceeded, "{command}: {e:?}");
        (e.needed().unwrap(), e.to_string())
    };
    let (needed, text) = refusal(with(100).unwrap_err());
    // The head alone says the same, where formats say it there.
    let said = memory_for(wrapper, &packed[..packed.len().min(PROBE_LEN)]);
    let expected = matches!(wrapper, Wrapper::Xz | Wrapper::Zstd).then_some(needed);
    assert_eq!(said, expected, "{command}");
    let mib = needed.div_ceil(MIB);
    assert!(text.contains(&format!("needs {mib} MiB")), "{text}");
    assert_eq!(
        refusal(with(needed - 1).unwrap_err()).0,
        needed,
        "{command}"
    );
    assert!(with(needed).unwrap() == data, "{command}");
    needed
}

#[test]
fn every_codec_says_what_it_needs_and_is_content_with_it() {
    if !have(&["gzip", "xz", "zstd", "bzip2"]) {
        return;
    }
    let data = noise(4, 300_000);
    for (wrapper, command, between) in [
        (Wrapper::Gzip, "gzip", 32 << 10..100 << 10),
        (Wrapper::Bzip2, "bzip2 -1", 250_000..500_000),
        (Wrapper::Bzip2, "bzip2 -9", 2_250_000..2_500_000),
        (Wrapper::Xz, "xz -0", 256 << 10..512 << 10),
        (Wrapper::Xz, "xz -6", 8 * MIB..9 * MIB),
        (Wrapper::Xz, "xz -9", 64 * MIB..66 * MIB),
        (
            Wrapper::Xz,
            "xz --lzma2=dict=256MiB,mode=fast,mf=hc3",
            256 * MIB..258 * MIB,
        ),
        (Wrapper::Zstd, "zstd -q -1", 512 << 10..3 * MIB),
        (Wrapper::Zstd, "zstd -q -3 --long=27", 128 * MIB..129 * MIB),
        (
            Wrapper::Zstd,
            "zstd -q -3 --ultra --long=29",
            512 * MIB..513 * MIB,
        ),
    ] {
        for threads in [1, 4] {
            let needed = refused_below_its_need(wrapper, command, &data, threads);
            assert!(between.contains(&needed), "{command} needs {needed}");
        }
    }
}

#[test]
fn the_default_budget_reads_xz_9_and_refuses_zstd_long_27() {
    if !have(&["xz", "zstd"]) {
        return;
    }
    let data = noise(4, 300_000);
    let options = StreamOptions {
        memory: 70 * MIB,
        threads: 4,
    };
    let packed = pipe("xz -9", &data);
    assert!(decode(Wrapper::Xz, &packed, options).unwrap() == data);
    let packed = pipe("zstd -q --long=27", &data);
    let e = decode(Wrapper::Zstd, &packed, options).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    assert!(e.needed().unwrap() > 128 * MIB);
}

#[test]
fn a_later_member_that_needs_more_is_refused_with_the_amount_too() {
    if !have(&["xz", "zstd"]) {
        return;
    }
    let data = noise(4, 300_000);
    for (wrapper, small, large, threads) in [
        (Wrapper::Xz, "xz -0 -T2 --block-size=20000", "xz -9", 4),
        (Wrapper::Xz, "xz -0", "xz -9", 1),
        (Wrapper::Zstd, "zstd -q -1", "zstd -q --long=27", 1),
    ] {
        let packed = [pipe(small, &data), pipe(large, &data)].concat();
        let options = StreamOptions {
            memory: 20 * MIB,
            threads,
        };
        let e = decode(wrapper, &packed, options).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::LimitExceeded, "{wrapper:?} {e:?}");
        assert!((64 * MIB..130 * MIB).contains(&e.needed().unwrap()));
    }
}

#[test]
fn gzip_and_bzip2_take_little() {
    if !have(&["gzip", "bzip2"]) {
        return;
    }
    let data = noise(6, 3_000_000);
    let packed = Packed::new("gzip -9", &data);
    fits(Wrapper::Gzip, &packed, &data, 64 << 10, 1);
    let packed = Packed::new("bzip2 -9", &data);
    fits(Wrapper::Bzip2, &packed, &data, 4 * MIB, 1);
    fits(Wrapper::Bzip2, &packed, &data, 5 * MIB / 2, 1);
}

#[test]
fn zstd_takes_its_window_and_no_more() {
    if !have(&["zstd"]) {
        return;
    }
    // Zeros fill the window and cost nothing to compress; noise at the end is not all one block.
    let mut data = vec![0; 150 << 20];
    data.extend(noise(8, 10 << 20));
    for (command, memory) in [
        ("zstd -q -1 --long=27", 129 * MIB),
        ("zstd -q -1 --long=26", 65 * MIB),
        ("zstd -q -1", 3 * MIB),
    ] {
        let packed = Packed::new(command, &data);
        fits(Wrapper::Zstd, &packed, &data, memory, 1);
    }
}

#[test]
fn xz_takes_its_dictionary_and_no_more() {
    if !have(&["xz"]) {
        return;
    }
    let mut data = vec![0; 80 << 20];
    data.extend(noise(8, 2 << 20));
    let packed = Packed::new("xz -9 -T1", &data);
    for threads in [1, 4] {
        fits(Wrapper::Xz, &packed, &data, 70 * MIB, threads);
    }
}

#[test]
fn xz_over_blocks_uses_fewer_threads_rather_than_more_memory() {
    if !have(&["xz"]) {
        return;
    }
    // Noise: a block is as large packed as it is unpacked. Every thread has one of each.
    let data = noise(8, 24 << 20);
    let packed = Packed::new("xz -0 -T2 --block-size=4MiB", &data);
    for memory in [6 * MIB, 10 * MIB, 20 * MIB, 40 * MIB] {
        fits(Wrapper::Xz, &packed, &data, memory, 8);
    }
    // Streams one after another, with blocks of growing size.
    let part = &data[..11 << 20];
    let command = "d=$(mktemp) && cat >$d && \
                   for b in 1 3 11; do xz -0 -T2 --block-size=${b}MiB <$d; done && rm $d";
    let packed = Packed::new(command, part);
    fits(
        Wrapper::Xz,
        &packed,
        &[part, part, part].concat(),
        24 * MIB,
        8,
    );
}
