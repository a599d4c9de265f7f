"""MATLAB files: their size once they are decompressed."""

import struct
import zlib
from pathlib import Path

from .limits import Limit


def check_mat(file: Path, limit: Limit) -> None:
    """Raises DataError if a MATLAB file takes more than `limit` once it is decompressed. Nothing of it is kept."""
    content = limit.read(file)
    total, at = len(content), 128
    while at + 8 <= len(content) and content[126:128] in (b"IM", b"MI"):
        kind, size = struct.unpack("<II" if content[126:128] == b"IM" else ">II", content[at : at + 8])
        if kind == 15:  # compressed
            stream = zlib.decompressobj()
            for start in range(at + 8, min(at + 8 + size, len(content)), 2**16):
                rest = content[start : min(start + 2**16, at + 8 + size)]
                while rest:
                    total += len(stream.decompress(rest, 2**20))
                    rest = stream.unconsumed_tail
                    limit.check(total, file)
        at += 8 + size
