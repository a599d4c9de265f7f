"""Zip archives as torch.save writes them: records in one piece, not compressed, each with its CRC-32.

Stricter than common zip readers, which look for an archive in whatever they get: the directory has to end where the
file's last records begin, and records may neither share names nor bytes. So nothing is inflated, and to read all
records is to read no byte twice.
"""

import mmap
import struct
import zlib
from typing import NamedTuple

from qcrs_jax.models.checkpoint import CheckpointError

from .unpickle import LIMIT


class Record(NamedTuple):
    start: int
    size: int
    crc: int


class Archive:
    """The records of the zip archive `data`, by name.

    Raises:
        CheckpointError: truncated, damaged, compressed, encrypted, or of more than LIMIT bytes of names.
    """

    def __init__(self, data: mmap.mmap):
        self.data = data
        try:
            self.records = _directory(data)
        except (struct.error, UnicodeDecodeError, StopIteration) as error:
            raise CheckpointError("truncated or damaged zip archive (its directory); copy it again") from error

    def read(self, name: str) -> memoryview:
        """The bytes of the record `name`, in the file, once their checksum has been found right."""
        if name not in self.records:
            raise CheckpointError(f"truncated or damaged zip archive: it has no record {name[:100]!r}; copy it again")
        start, size, crc = self.records[name]
        content = memoryview(self.data)[start : start + size]
        if zlib.crc32(content) != crc:
            raise CheckpointError(
                f"the record {name[:100]!r} is damaged: its checksum is wrong; copy the file again. (If it was saved "
                "with torch.serialization.set_crc32_options(False), save it again with checksums)"
            )
        return content


def _directory(data):
    """Every record, from the central directory: that of zip64 if there is one."""
    end = len(data) - 22
    magic, count, size, start, comment = struct.unpack_from("<4s6xH2IH", data, max(end, 0))
    if magic != b"PK\x05\x06" or comment:
        raise CheckpointError("truncated or damaged zip archive: it does not end as one; copy it again")
    if data[end - 20 : end - 16] == b"PK\x06\x07":
        end -= 20 + 56
        magic, count, size, start = struct.unpack_from("<4s28x3Q", data, max(end, 0))
    if magic not in (b"PK\x05\x06", b"PK\x06\x06") or start + size != end or size > LIMIT:
        raise CheckpointError(
            f"truncated or damaged zip archive, or one whose directory is longer than {LIMIT >> 20} MiB; copy it again"
        )
    records, position = {}, start
    while position < end:
        name, record, position = _entry(data, position, start)
        if name in records:
            raise CheckpointError(f"damaged zip archive: two records {name[:100]!r}; copy it again")
        records[name] = record
    spans = sorted((start, start + size) for start, size, _ in records.values())
    if len(records) != count or any(after[0] < before[1] for before, after in zip(spans, spans[1:])):
        raise CheckpointError("damaged zip archive: records are missing, or share bytes; copy it again")
    return records


def _entry(data, position, directory):
    """Name and Record of the directory's entry at `position`, and where the next one is."""
    magic, flags, method, crc, *sizes, name_size, extra_size, comment_size, disk, header = struct.unpack_from(
        "<4s4x2H4x3I4H6xI", data, position
    )
    name = data[position + 46 : position + 46 + name_size]
    extra = data[position + 46 + name_size : position + 46 + name_size + extra_size]
    packed, size, header = _wide(extra, *sizes, header)
    if flags & 1 or method or packed != size:
        raise CheckpointError(
            "a compressed or encrypted zip archive; torch.save writes neither: unpack it first, or, if it is a "
            "TorchScript archive of torch.jit.save, save the model's state_dict with torch.save instead"
        )
    local, local_method, local_name_size, local_extra_size = struct.unpack_from("<4s4xH16x2H", data, header)
    start = header + 30 + local_name_size + local_extra_size
    same = local == b"PK\x03\x04" and not local_method and data[header + 30 : header + 30 + local_name_size] == name
    if magic != b"PK\x01\x02" or disk or not same or start + size > directory:
        raise CheckpointError(
            f"damaged zip archive: the record {name.decode()[:100]!r} is not where it should be; copy it again"
        )
    return name.decode(), Record(start, size, crc), position + 46 + name_size + extra_size + comment_size


def _wide(extra, packed, size, header):
    """The three numbers, with those that do not fit in 32 bits from the extra field of zip64."""
    wide = iter(())
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, 4))
        extra = extra[4 + length :]
    full = 0xFFFFFFFF
    size = next(wide) if size == full else size
    packed = next(wide) if packed == full else packed
    return packed, size, next(wide) if header == full else header
