"""Data sets as files, and their expected content."""

import pickle
import struct

import numpy as np


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class Python2Pickler(pickle._Pickler):
    """Writes bytes and str as Python 2 wrote its strings, as in the original files of CIFAR-10."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, obj):
        data = obj if isinstance(obj, bytes) else obj.encode("ascii")
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(obj)

    dispatch[bytes] = dispatch[str] = save_string


def assert_holds(dataset, images, labels):
    assert len(dataset) == len(images)
    for i, (expected, label) in enumerate(zip(images, labels, strict=True)):
        image, found = dataset[i]
        assert image.dtype == np.float32 and image.shape == expected.shape
        np.testing.assert_array_equal(image, expected.astype(np.float32) / np.float32(255))
        assert found == label and type(found) is int
