#!/usr/bin/env bash
# Makes fuzz/seeds anew from what qemu-img and the compressors write. The result is committed: small images of every
# shape that the readers know. Needs qemu-utils, python3, gzip, xz-utils, zstd, bzip2.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
rm -rf seeds
mkdir -p seeds/{qcow2_open,vmdk_open,vmdk_files,qcow_open,parallels_open,stream,agree,vhd,vdi}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A disk of 200 KiB and a bit: text, holes, noise.
{
  for i in {1..400}; do echo 'the quick brown fox'; done
  head -c 50000 /dev/zero
  seq 1 700 | gzip -n
  head -c 100000 /dev/zero
  seq 1 2000
  head -c 30000 /dev/zero
  printf 'end\n'
} >"$work/disk.bin"
truncate -s 203264 "$work/disk.bin"
raw=$work/disk.bin
# Large clusters take room: they get a smaller disk.
head -c 66048 "$raw" >"$work/small.bin"
q=seeds/qcow2_open
v=seeds/vmdk_open

convert() { qemu-img convert -f raw -O "$1" "${@:3}" "$raw" "$2"; }
convert_small() { raw=$work/small.bin convert "$@"; }
convert qcow2 "$q/v3-512" -o cluster_size=512
convert qcow2 "$q/v2-4k" -o compat=0.10,cluster_size=4k
convert qcow2 "$q/zlib-4k" -c -o cluster_size=4k
convert qcow2 "$q/zlib-v2-512" -c -o compat=0.10,cluster_size=512
convert qcow2 "$q/zstd-4k" -c -o cluster_size=4k,compression_type=zstd
convert_small qcow2 "$q/extended-16k" -o cluster_size=16k,extended_l2=on
convert qcow2 "$q/lazy-2k" -o cluster_size=2k,lazy_refcounts=on,refcount_bits=1

qemu-img create -q -f qcow2 -o cluster_size=512 "$q/empty" 1M
qemu-img create -q -f qcow2 -o cluster_size=512,preallocation=metadata "$q/metadata" 32K
cp "$q/zlib-4k" "$q/resized"
qemu-img resize -q "$q/resized" 70M
cp "$q/v3-512" "$q/snapshot"
qemu-img snapshot -c s "$q/snapshot"
qemu-io >/dev/null -c 'write -P 7 1000 5000' -c 'write -z 60k 8k' "$q/snapshot"
cp "$q/extended-16k" "$q/subclusters"
qemu-io >/dev/null -c 'write -P 5 20k 1k' -c 'write -z 33k 3k' -c 'discard 48k 8k' "$q/subclusters"
cp "$raw" "$work/base"
(cd "$work" && qemu-img create -q -f qcow2 -F raw -b base -o cluster_size=512 backed)
qemu-io >/dev/null -c 'write -P 9 3k 2k' "$work/backed"
cp "$work/backed" "$q/backed"
qemu-img create -q -f qcow2 -o cluster_size=4k,data_file="$work/data",data_file_raw=on "$q/data-file" 64K

convert_small vmdk "$v/sparse" -o subformat=monolithicSparse
convert_small vmdk "$v/stream" -o subformat=streamOptimized
convert_small vmdk "$v/flat" -o subformat=monolithicFlat && rm -f seeds/vmdk_open/*-flat* # its descriptor alone
qemu-img create -q -f vmdk "$v/empty" 1M
qemu-img create -q -f vmdk -o subformat=streamOptimized "$v/empty-stream" 1M

# Their blocks are MiBs: only small ones, and what `fuzz/vhd-seeds.py` builds with blocks of a few KiB.
convert_small vpc seeds/vhd/fixed -o subformat=fixed
convert_small vpc seeds/vhd/fixed-size -o subformat=fixed,force_size=on
qemu-img create -q -f vpc -o force_size=on seeds/vhd/empty 40M
qemu-img create -q -f vdi seeds/vdi/empty 9M
python3 vhd-seeds.py
o=seeds/qcow_open
convert_small qcow "$o/plain"
convert_small qcow "$o/zlib" -c || test -s "$o/zlib" # QEMU 10 ends with 1 after it wrote it
qemu-img create -q -f qcow "$o/empty" 1M
cp "$raw" "$work/base"
(cd "$work" && qemu-img create -q -f qcow -F raw -b base qbacked)
qemu-io >/dev/null -f qcow -c 'write -P 9 3k 2k' "$work/qbacked"
cp "$work/qbacked" "$o/backed"

p=seeds/parallels_open
convert_small parallels "$p/4k" -o cluster_size=4k
convert_small parallels "$p/64k" -o cluster_size=64k
qemu-img create -q -f parallels -o cluster_size=4k "$p/empty" 1M
qemu-img create -q -f parallels -o cluster_size=4k "$p/rewritten" 64k
qemu-io >/dev/null -f parallels -c 'write -P 9 40k 9k' -c 'write -P 7 3k 2k' "$p/rewritten"
{ printf WithoutFreeSpace; tail -c +17 "$p/4k"; } >"$p/old"

# ESX extents by themselves, and descriptors in front of the one file that all their extents are.
python3 - seeds <<'PY'
import struct, sys
home = sys.argv[1]
text = lambda kind, *lines: (f'# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n'
    f'createType="{kind}"\n' + ''.join(line + '\n' for line in lines)).encode() + b'\0'
grain = lambda n, size: bytes((n * 7 + i // 9) % 256 for i in range(size))
cowd = bytearray(5 * 512)
cowd[:44] = struct.pack('<4s10I', b'COWD', 1, 3, 40, 1, 4, 1, 0, 20, 16, 63)
struct.pack_into('<I', cowd, 4 * 512, 5)
table = bytearray(32 * 512)
for n, at in ((0, 38), (3, 37), (39, 39)):
    struct.pack_into('<I', table, 4 * n, at)
cowd += table + grain(1, 3 * 512)
open(f'{home}/vmdk_open/cowd', 'wb').write(cowd)
se = bytearray((2 + 1 + 64) * 512)
for at, word in ((0, 0xcafebabe), (8, 0x200000001), (16, 96), (24, 8), (32, 64), (80, 1), (88, 1), (128, 2), (136, 1),
                 (144, 3), (152, 64), (192, 67), (512, 0xcafecafe), (1024, 1 << 60), (1536, 3 << 60),
                 (1536 + 16, 1 << 60), (1536 + 24, 2 << 60), (1536 + 40, 3 << 60 | 1 << 48)):
    struct.pack_into('<Q', se, at, word)
se += grain(2, 2 * 4096)
open(f'{home}/vmdk_files/sesparse', 'wb').write(text('seSparse', 'RW 96 SESPARSE "a b"') + se)
open(f'{home}/vmdk_files/cowd', 'wb').write(text('vmfsSparse', 'RW 40 VMFSSPARSE "a"', 'RW 7 ZERO', 'RW 40 SPARSE "b"') + cowd)
open(f'{home}/vmdk_files/flat', 'wb').write(
    text('custom', 'RW 3 FLAT "a" 2', 'RDONLY 2 VMFS "a"', 'NOACCESS 9 FLAT "a" 0', 'RW 5 FLAT "b" 0') + grain(3, 2600))
open(f'{home}/vmdk_files/parents', 'wb').write(
    text('vmfsSparse', 'RW 40 VMFSSPARSE "a"').replace(b'parentCID=ffffffff', b'parentCID=12345678\nparentFileNameHint="b"') + cowd)
sparse = open(f'{home}/vmdk_open/sparse', 'rb').read()
open(f'{home}/vmdk_files/sparse', 'wb').write(text('twoGbMaxExtentSparse', 'RW 129 SPARSE "a"') + sparse)
stream = open(f'{home}/vmdk_open/stream', 'rb').read()
open(f'{home}/vmdk_files/stream', 'wb').write(text('custom', 'RW 129 SPARSE "a"', 'RW 9 ZERO', 'RW 1 FLAT "a" 3') + stream)
PY

s=seeds/stream
gzip -9 <"$raw" >"$s/gz"
{ gzip -1 <"$raw"; printf '\x1f\x8b\x08\x1e\0\0\0\0\0\x03\x02\0xyname\0comment\0'; } >"$s/gz-fields"
xz -9 <"$raw" >"$s/xz"
xz -0 -T2 --block-size=20000 <"$raw" >"$s/xz-blocks"
{ xz --x86 --lzma2=dict=4096 --check=sha256 <"$raw"; printf '\0\0\0\0'; xz -1 --check=none <"$raw"; } >"$s/xz-two"
zstd -q -19 <"$raw" >"$s/zst"
{ printf '\x51\x2a\x4d\x18\x02\0\0\0ab'; zstd -q -1 --no-check <"$raw"; zstd -q --long=27 <"$raw"; } >"$s/zst-frames"
bzip2 -1 <"$raw" >"$s/bz2"
{ bzip2 -9 <"$raw"; printf 'small' | bzip2 -1; } >"$s/bz2-two"
python3 bz2-seeds.py "$s/bz2-marks" 4
mkdir -p seeds/nbd_replies
python3 nbd-seeds.py seeds/nbd_replies

ln -s qcow2_open seeds/qcow2_forward
ln -s vmdk_open seeds/vmdk_forward
ln -s qcow_open seeds/qcow_forward
ln -s parallels_open seeds/parallels_forward
for image in "$q"/* "$v"/* "$o"/* "$p"/*; do
  ln -s "../$(basename "$(dirname "$image")")/$(basename "$image")" "seeds/agree/$(basename "$(dirname "$image")" _open)-$(basename "$image")"
done
# VHDX files are mostly zeros: the test that compares these with what it builds writes them, too.
LONGSHORE_WRITE_SEEDS=1 cargo test --quiet --manifest-path ../Cargo.toml -p longshore-image --test vhdx seeds
du -ah --apparent-size seeds | sort -h
