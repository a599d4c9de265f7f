"""CRC-32C, and the masked one of TFRecord files, in NumPy.

A register of 32 bits changes linearly, modulo 2, with the bytes that it takes. The sum is therefore the exclusive or
of a table's entry for each byte at its place in a block; blocks are joined by the linear map of the zeros between.
"""

import functools

import numpy as np

BLOCK = 256  # bytes
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected


def masked_crc32c(data: bytes) -> int:
    """The checksum that a TFRecord file has for `data`."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of `data`: that of b"123456789" is 0xE3069283."""
    if len(data) < 4:
        table, crc = _byte_table().tolist(), 0xFFFFFFFF
        for byte in data:
            crc = table[(crc ^ byte) & 255] ^ crc >> 8
        return crc ^ 0xFFFFFFFF
    count = 1 << max(0, (len(data) - 1) // BLOCK).bit_length()  # blocks, with zeros before, which change nothing
    padded = np.zeros(count * BLOCK, np.uint8)
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 255  # as if the register began with ones
    entries = _block_table()[np.arange(BLOCK), padded.reshape(count, BLOCK)]
    blocks = np.bitwise_xor.reduce(entries, axis=1)
    power = BLOCK.bit_length() - 1
    while len(blocks) > 1:
        blocks = _apply(_zeros(power), blocks[0::2]) ^ blocks[1::2]
        power += 1
    return int(blocks[0]) ^ 0xFFFFFFFF


@functools.cache
def _byte_table():
    """(256,): the register after a byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


@functools.cache
def _block_table():
    """(BLOCK, 256): the register after a block that is 0 but for one byte, by the place and the value of that byte."""
    table = np.empty((BLOCK, 256), np.uint32)
    table[-1] = _byte_table()
    for place in range(BLOCK - 2, -1, -1):
        table[place] = _byte_table()[table[place + 1] & 255] ^ table[place + 1] >> 8
    return table


@functools.cache
def _zeros(power):
    """(4, 256): the register after 2**power zero bytes, by the place and the value of the only byte it had."""
    values = np.arange(256, dtype=np.uint32)[None] << np.arange(0, 32, 8, dtype=np.uint32)[:, None]
    if power == 0:
        return _byte_table()[values & 255] ^ values >> 8
    return _apply(_zeros(power - 1), _zeros(power - 1))


def _apply(table, registers):
    return functools.reduce(np.bitwise_xor, (table[i][registers >> 8 * i & 255] for i in range(4)))
