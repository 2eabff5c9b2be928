#!/usr/bin/env python3
"""Replies of an NBD server for the target nbd_replies: writes the files into the directory named."""

import struct
import sys

AT, READ, CONTEXT = 1 << 20, 4096, 9


def chunk(done, kind, handle, data=b""):
    return struct.pack(">IHHQI", 0x668E33EF, done, kind, handle, len(data)) + data


def data(handle, at, len_):
    return struct.pack(">Q", AT + READ * handle + at) + b"d" * len_


def hole(handle, at, len_):
    return struct.pack(">QI", AT + READ * handle + at, len_)


def status(*extents):
    return struct.pack(">I", CONTEXT) + b"".join(struct.pack(">II", *e) for e in extents)


def simple(error, handle, payload=b""):
    return struct.pack(">IIQ", 0x67446698, error, handle) + payload


seeds = {
    "chunks": chunk(0, 1, 2, data(2, 0, 4000)) + chunk(1, 2, 2, hole(2, 4000, 96))
    + chunk(1, 5, 5, status((4096, 0), (512, 3), (1 << 31, 2))),
    "backwards": chunk(0, 1, 1, data(1, 4000, 96)) + chunk(0, 2, 1, hole(1, 100, 3900))
    + chunk(0, 1, 1, data(1, 0, 100)) + chunk(1, 0, 1),
    "errors": chunk(0, 1, 3, data(3, 0, 10)) + chunk(0, 0x8002, 3, struct.pack(">IH", 5, 3) + b"bad" + bytes(8))
    + chunk(1, 0, 3) + chunk(1, 0x8001, 6, struct.pack(">IH", 22, 0)) + simple(5, 4),
    "simple": simple(0, 1, bytes(READ)) + simple(28, 2) + simple(0, 4, b"x" * READ),
}
for name, content in seeds.items():
    with open(f"{sys.argv[1]}/{name}", "wb") as file:
        file.write(content)
