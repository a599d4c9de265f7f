"""The checksums of TFRecord files, against their definition and published values."""

import random

import pytest

from qcrs_jax.data.crc32c import crc32c, masked_crc32c


def by_definition(data):
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_published_values():  # of RFC 3720, B.4
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(bytes(range(31, -1, -1))) == 0x113FDB5C


@pytest.mark.parametrize("length", [*range(9), 255, 256, 257, 511, 512, 513, 1024, 1025, 5000])
def test_any_length(length):
    data = random.Random(length).randbytes(length)
    assert crc32c(data) == by_definition(data)


def test_the_masked_one():
    crc = crc32c(b"record")
    assert masked_crc32c(b"record") == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
