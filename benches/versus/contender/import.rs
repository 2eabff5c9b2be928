//! Those who import over HTTP. Scripts find in their environment: `URL`, `OUT`, `SCRATCH` (a file on
//! the result's filesystem), `FMT`, `UNPACK` (the wrapper's tool), `SHA256`, `IN` (the file that is
//! served) and `DENSE` (a file without holes of about the result's allocated bytes).

use super::{Contender, Leaves, OURS, Program};
use crate::versus::case::{Case, Place};

fn http(case: &Case) -> bool {
    case.is_http()
}

/// Images that are not wrapped, without a digest.
fn plain(case: &Case) -> bool {
    http(case) && case.image.unpack.is_none() && !case.digest()
}

fn image(case: &Case) -> bool {
    plain(case) && case.image.format != "raw"
}

fn raw(case: &Case) -> bool {
    plain(case) && case.image.format == "raw"
}

fn digest(case: &Case) -> bool {
    case.digest()
}

fn packed(case: &Case) -> bool {
    http(case) && case.image.unpack.is_some()
}

fn packed_by(case: &Case, wrapper: &str) -> bool {
    packed(case) && case.image.name.starts_with(wrapper)
}

fn gz(case: &Case) -> bool {
    packed_by(case, "raw.gz")
}

fn xz(case: &Case) -> bool {
    packed_by(case, "raw.xz")
}

fn zst(case: &Case) -> bool {
    packed_by(case, "raw.zst")
}

fn bz2(case: &Case) -> bool {
    packed_by(case, "raw.bz2")
}

/// Where the storage sets the pace.
fn stored(case: &Case) -> bool {
    plain(case) && case.place == Place::Disk
}

/// Where it does not: what the network costs beside a file.
fn in_memory(case: &Case) -> bool {
    plain(case) && case.place == Place::Tmpfs
}

const fn script(
    name: &'static str,
    script: &'static [&'static str],
    needs: &'static [&'static str],
    takes: fn(&Case) -> bool,
    leaves: Leaves,
) -> Contender {
    Contender {
        name,
        program: Program::Script,
        args: script,
        needs,
        takes,
        leaves,
    }
}

pub(super) const ALL: &[Contender] = &[
    Contender {
        name: OURS,
        program: Program::Longshore,
        args: &["import", "--progress", "json", "CHECKSUM", "URL", "OUT"],
        needs: &[],
        takes: http,
        leaves: Leaves::Disk,
    },
    script(
        "today's import",
        &[
            r#"curl -sSf -o "$SCRATCH" "$URL"; sync "$SCRATCH"; qemu-img convert -t writeback -f "$FMT" -O raw "$SCRATCH" "$OUT""#,
        ],
        &["curl", "qemu-img"],
        plain,
        Leaves::Disk,
    ),
    script(
        "today's import with sha256sum",
        &[
            r#"curl -sSf -o "$SCRATCH" "$URL"; sync "$SCRATCH"; echo "$SHA256  $SCRATCH" | sha256sum --check --quiet; qemu-img convert -t writeback -f "$FMT" -O raw "$SCRATCH" "$OUT""#,
        ],
        &["curl", "qemu-img", "sha256sum"],
        digest,
        Leaves::Disk,
    ),
    script(
        "today's import unpacking",
        &[
            r#"curl -sSf "$URL" | $UNPACK > "$SCRATCH"; sync "$SCRATCH"; qemu-img convert -t writeback -f raw -O raw "$SCRATCH" "$OUT""#,
        ],
        &["curl", "qemu-img"],
        packed,
        Leaves::Disk,
    ),
    script(
        "nbdkit curl + qemu-img",
        &[r#"nbdkit -U - -r curl "$URL" --run 'qemu-img convert -f "$FMT" -O raw "$uri" "$OUT"'"#],
        &["nbdkit", "qemu-img"],
        image,
        Leaves::Disk,
    ),
    script(
        "nbdkit curl + qemu-img -m 16 -W",
        &[
            r#"nbdkit -U - -r curl "$URL" --run 'qemu-img convert -m 16 -W -f "$FMT" -O raw "$uri" "$OUT"'"#,
        ],
        &["nbdkit", "qemu-img"],
        image,
        Leaves::Disk,
    ),
    script(
        "nbdkit curl + nbdcopy",
        &[r#"nbdkit -U - -r curl "$URL" --run 'nbdcopy "$uri" "$OUT"'"#],
        &["nbdkit", "nbdcopy"],
        raw,
        Leaves::Disk,
    ),
    script(
        "curl + gzip -dc",
        &[r#"curl -sSf "$URL" | gzip -dc > "$OUT""#],
        &["curl", "gzip"],
        gz,
        Leaves::Disk,
    ),
    script(
        "curl + pigz -dc",
        &[r#"curl -sSf "$URL" | pigz -dc > "$OUT""#],
        &["curl", "pigz"],
        gz,
        Leaves::Disk,
    ),
    script(
        "curl + xz -dc -T0",
        // Our own budget, as the most it may take for threads.
        &[r#"curl -sSf "$URL" | xz -dc -T0 --memlimit-mt-decompress=112MiB > "$OUT""#],
        &["curl", "xz"],
        xz,
        Leaves::Disk,
    ),
    script(
        "curl + zstd -dc",
        &[r#"curl -sSf "$URL" | zstd -dc --quiet > "$OUT""#],
        &["curl", "zstd"],
        zst,
        Leaves::Disk,
    ),
    script(
        "curl + bzip2 -dc",
        &[r#"curl -sSf "$URL" | bzip2 -dc > "$OUT""#],
        &["curl", "bzip2"],
        bz2,
        Leaves::Disk,
    ),
    script(
        "bound: curl > /dev/null",
        &[r#"curl -sSf "$URL" > /dev/null"#],
        &["curl"],
        plain,
        Leaves::Nothing,
    ),
    script(
        "bound: dd conv=fdatasync",
        &[r#"dd if="$DENSE" of="$OUT" bs=1M conv=fdatasync status=none"#],
        &["dd"],
        stored,
        Leaves::Bytes,
    ),
    Contender {
        name: "bound: longshore from the file",
        program: Program::Longshore,
        args: &["convert", "--progress", "json", "--sync", "IN", "OUT"],
        needs: &[],
        takes: in_memory,
        leaves: Leaves::Disk,
    },
    Contender {
        name: "bound: longshore without a digest",
        program: Program::Longshore,
        args: &["import", "--progress", "json", "URL", "OUT"],
        needs: &[],
        takes: digest,
        leaves: Leaves::Disk,
    },
    Contender {
        name: "bound: openssl sha256",
        program: Program::Installed("openssl"),
        args: &["dgst", "-sha256", "IN"],
        needs: &[],
        takes: digest,
        leaves: Leaves::Nothing,
    },
    Contender {
        name: "bound: zlib-rs on one thread",
        program: Program::Benches,
        args: &["gunzip", "IN"],
        needs: &[],
        takes: gz,
        leaves: Leaves::Nothing,
    },
];
