//! Sample data, the tools that compress it, and a loop around the decoder.

use std::io::Write;
use std::process::{Command, Stdio};

use longshore_image::stream::{StreamOptions, decoder};
use longshore_image::{Result, Wrapper};

/// Room for every sample here, whatever its window.
pub(crate) const ROOMY: StreamOptions = StreamOptions {
    memory: 256 << 20,
    threads: 1,
};

pub(crate) const WRAPPERS: [Wrapper; 4] =
    [Wrapper::Gzip, Wrapper::Xz, Wrapper::Zstd, Wrapper::Bzip2];

/// Decodes `packed`, handed over in pieces: `sizes` gives the next lengths of input and output, which
/// must not be zero.
pub(crate) fn decode_in(
    wrapper: Wrapper,
    packed: &[u8],
    options: StreamOptions,
    mut sizes: impl FnMut() -> (usize, usize),
) -> Result<Vec<u8>> {
    let mut decoder = decoder(wrapper, options)?;
    let mut out = Vec::new();
    let mut rest = packed;
    loop {
        let (input, output) = sizes();
        let input = &rest[..input.min(rest.len())];
        let mut room = vec![0xEE; output];
        let did = decoder.push(input, &mut room)?;
        assert!(did.consumed <= input.len() && did.produced <= room.len());
        assert!(
            input.is_empty() || did.consumed > 0 || did.produced > 0,
            "{wrapper:?} makes no headway"
        );
        out.extend_from_slice(&room[..did.produced]);
        rest = &rest[did.consumed..];
        if rest.is_empty() && did.produced < room.len() {
            break;
        }
    }
    loop {
        let (_, output) = sizes();
        let mut room = vec![0xEE; output];
        match decoder.finish(&mut room)? {
            None => return Ok(out),
            Some(n) => {
                assert!(n > 0, "{wrapper:?} makes no headway at the end");
                out.extend_from_slice(&room[..n]);
            }
        }
    }
}

/// Decodes `packed` in ordinary chunks.
pub(crate) fn decode(wrapper: Wrapper, packed: &[u8], options: StreamOptions) -> Result<Vec<u8>> {
    decode_in(wrapper, packed, options, || (64 << 10, 256 << 10))
}

/// Bytes that look random and always are the same.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(len)
    .collect()
}

/// `len` bytes as disks have them: some text, some holes, some noise.
pub(crate) fn sample(len: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(len + 10_000);
    let words = noise(3, 4096);
    let mut i = 0;
    while data.len() < len {
        match i % 5 {
            0 => data.extend_from_slice(&noise(i, 3000)),
            1 => data.resize(data.len() + 9000, 0),
            _ => {
                for _ in 0..200 {
                    let at = usize::from(words[data.len() % 4096]) * 8;
                    data.extend_from_slice(&words[at..at + 12]);
                }
            }
        }
        i += 1;
    }
    data.truncate(len);
    data
}

/// Whether all programs are here. In CI they must be.
pub(crate) fn have(programs: &[&str]) -> bool {
    programs.iter().all(|program| {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success();
        assert!(
            found || std::env::var_os("CI").is_none(),
            "{program} is missing"
        );
        if !found {
            eprintln!("skipped: {program} is not installed");
        }
        found
    })
}

/// What the shell command `command` makes of `input`.
pub(crate) fn pipe(command: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("sh")
        .args(["-ec", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command may not want all of it.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command} failed");
    output.stdout
}
