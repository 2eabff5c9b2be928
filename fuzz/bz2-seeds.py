"""A bzip2 stream whose one block has the marks of blocks and ends in its bits (as `image/tests/stream/blocks.rs`
makes them): argument 1 is where it goes, argument 2 how many marks."""
import subprocess
import sys

BLOCK, END = 0x314159265359, 0x177245385090


def put(value, n):
    return [value >> at & 1 for at in reversed(range(n))]


def packed(bits):
    bits = bits + [0] * (-len(bits) % 8)
    return bytes(int("".join(map(str, bits[at : at + 8])), 2) for at in range(0, len(bits), 8))


def crc_of(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc ^ 0xFFFFFFFF


def stream(marks, crc):
    bits = [bit for byte in b"BZh9" for bit in put(byte, 8)]
    bits += put(BLOCK, 48) + put(crc, 32) + [0] + put(3, 24)
    # All bytes but the last occur, so that there are 257 symbols: 255 codes of 8 bits, two of 9.
    bits += put(0xFFFF, 16) + 15 * put(0xFFFF, 16) + put(0xFFFE, 16)
    data = []
    for n in range(marks):
        data += (END if n % 3 == 2 else BLOCK).to_bytes(6, "big")
        data += [3 + (n + at) % 200 for at in range(14)]
    data += [2 + n * 7 % 250 for n in range(100)]
    groups = (len(data) + 1 + 49) // 50
    bits += put(2, 3) + put(groups, 15) + [0] * groups
    for _ in range(2):
        bits += put(8, 5) + [0] * 255 + [1, 0, 0] + [0]
    for byte in data:
        bits += put(byte, 8)
    bits += put(0x1FF, 9) + put(END, 48) + put(crc, 32)
    return packed(bits), data


def content(data):
    """What comes of the symbols: the front of the list, then the chain, then runs."""
    front, last = list(range(255)), []
    for symbol in data:
        byte = front.pop(symbol - 1)
        front.insert(0, byte)
        last.append(byte)
    order = sorted(range(len(last)), key=lambda at: (last[at], at))
    out, at, run, before = bytearray(), order[3], 0, None
    for _ in last:
        byte = last[at]
        at = order[at]
        if run == 4:
            out += bytes([before]) * byte
            run = 0
            continue
        run = run + 1 if run and byte == before else 1
        before = byte
        out.append(byte)
    return bytes(out)


path, marks = sys.argv[1], int(sys.argv[2])
_, data = stream(marks, 0)
whole = content(data)
seed, _ = stream(marks, crc_of(whole))
assert subprocess.run(["bzip2", "-dc"], input=seed, stdout=subprocess.PIPE, check=True).stdout == whole
with open(path, "wb") as file:
    file.write(seed)
