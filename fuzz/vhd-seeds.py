"""Small VHDs and VDIs of the kinds that qemu-img does not write: blocks of a few KiB, bitmaps, parents,
damaged footers. Called by make-seeds.sh."""
import struct

text = b"the quick brown fox " * 200
BLOCK = 4096


def sealed(data, field):
    total = ~(sum(data) - sum(data[field : field + 4])) & 0xFFFFFFFF
    return data[:field] + struct.pack(">I", total) + data[field + 4 :]


def footer(kind, size, creator=b"win ", geometry=(9, 1, 3)):
    offset = 512 if kind != 2 else 2**64 - 1
    head = b"conectix" + struct.pack(">IIQI", 2, 0x10000, offset, 0) + creator + bytes(8)
    head += struct.pack(">QQHBBI", size, size, *geometry, kind)
    return sealed((head + bytes(4) + b"\7" * 16).ljust(512, b"\0"), 64)


def vhd(kind, blocks, size=9 * BLOCK, locator=b"", **rest):
    entries = -(-size // BLOCK)
    bat = [0xFFFFFFFF] * entries
    name = "base.vhd".encode("utf-16-be").ljust(512, b"\0")
    header = b"cxsparse" + struct.pack(">QQIIII", 2**64 - 1, 1536, 0x10000, entries, BLOCK, 0)
    header += b"\7" * 16 + bytes(8) + name
    if locator:
        header += b"W2ru" + struct.pack(">IIIQ", 1, len(locator), 0, 2048)
    data = b""
    start = 5 if locator else 4
    for number, bits in blocks:
        bat[number] = start + len(data) // 512
        data += bits.ljust(512, b"\0") + text[number : number + BLOCK].ljust(BLOCK, b"\0")
    table = b"".join(struct.pack(">I", entry) for entry in bat).ljust(512, b"\xff")
    extra = locator.ljust(512, b"\0") if locator else b""
    foot = footer(kind, size, **rest)
    return foot + sealed(header.ljust(1024, b"\0"), 36) + table + extra + data + foot


def vdi(entries, kind=1, size=9 * BLOCK, gap=0):
    head = b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0")
    head += struct.pack("<IIIII", 0xBEDA107F, 0x10001, 400, kind, 0) + bytes(256)
    head += struct.pack("<IIIIIII", 512, 512 + 4 * len(entries) + gap, 0, 0, 0, 512, 0)
    head += struct.pack("<QIIII", size, BLOCK, 0, len(entries), 3) + b"\7" * 32
    blocks = 1 + max([e for e in entries if e < 0xFFFFFFFE], default=-1)
    table = b"".join(struct.pack("<I", entry) for entry in entries)
    return head.ljust(512, b"\0") + table + bytes(gap) + (text * 10)[: blocks * BLOCK]


def save(path, data):
    with open("seeds/" + path, "wb") as file:
        file.write(data)


FULL = [(3, b"\xff"), (0, b"\xff"), (8, b"\xff")]
save("vhd/dynamic", vhd(3, FULL))
save("vhd/geometry", vhd(3, FULL, creator=b"vpc "))
save("vhd/differencing", vhd(4, [(3, b"\xa5"), (0, b"\x0f"), (8, b"\xff")]))
save("vhd/locator", vhd(4, [(1, b"\x81")], locator=".\\a\\b.vhd".encode("utf-16-le")))
save("vhd/no-front", bytes(512) + vhd(3, FULL)[512:])
save("vhd/no-end", vhd(3, FULL)[:-512])
save("vhd/small-fixed", text[:2560] + footer(2, 2560))
save("vhd/cut-fixed", text[:2560] + footer(2, 2560, b"vpc ", (3, 1, 1)))
save("vhd/old-fixed", text[:2560] + footer(2, 2560)[:511])
save("vhd/raw", text[:2560] + footer(2, 4096))
NO, ZERO = 0xFFFFFFFF, 0xFFFFFFFE
save("vdi/dynamic", vdi([1, NO, ZERO, 0, NO, NO, 2, NO, 3]))
save("vdi/static", vdi(list(range(9)), kind=2))
save("vdi/unaligned", vdi([0, 0, NO, 1, 1, 2, NO, NO, ZERO], gap=100))
save("vdi/odd", vdi([2, 1, 0], size=5000))
