"""Damages files of data in bulk and reads them, in a process of its own with a limit on its memory.

    python tests/helpers/mutate.py FOLDER COUNT

reads COUNT damaged copies of each data set that `make` writes into FOLDER, and prints a JSON object with counts: of
each kind how many were "refused", opened "equal" to the whole one, or opened as "other" images or labels, which a run
records by the fingerprint of its data. Any other exception ends the process, and so do 60 seconds for one file.
"""

import faulthandler
import gzip
import io
import json
import pickle
import random
import resource
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import scipy.io
from damage import damage_bytes, memory
from PIL import Image

from qcrs_jax.data.load import load_dataset
from qcrs_jax.errors import UserError

MEMORY = 768 * 2**20
X = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2])


def make(folder: Path) -> dict[str, tuple[str, Path, Path]]:
    """Small data sets of every kind below `folder`: name of the source, where it is, and the file to be damaged."""
    made = {}
    for name, save in (("npz", np.savez), ("compressed npz", np.savez_compressed)):
        path = folder / f"{name}.npz"
        save(path, x=X, y=Y, class_names=["a", "b", "c"])
        made[name] = "npz", path, path
    for packed in (False, True):
        root = folder / ("idx gz" if packed else "idx")
        root.mkdir()
        ending = ".gz" if packed else ""
        x = struct.pack(">4I", 0x803, 6, 28, 28) + bytes(6 * 28 * 28)
        y = struct.pack(">2I", 0x801, 6) + Y.astype(np.uint8).tobytes()
        for file, content in (("t10k-images-idx3-ubyte", x), ("t10k-labels-idx1-ubyte", y)):
            (root / (file + ending)).write_bytes(gzip.compress(content, mtime=0) if packed else content)
        made[root.name] = "mnist", root, root / f"t10k-images-idx3-ubyte{ending}"
    root = folder / "cifar" / "cifar-10-batches-py"
    root.mkdir(parents=True)
    content = {b"data": np.resize(X, (6, 3072)), b"labels": Y.tolist()}
    (root / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    made["cifar10 pickle"] = "cifar10", folder / "cifar", root / "test_batch"
    root = folder / "svhn"
    root.mkdir()
    arrays = {"X": np.resize(X, (32, 32, 3, 6)), "y": Y[:, None] + 1}
    scipy.io.savemat(root / "test_32x32.mat", arrays, do_compression=True)
    made["svhn mat"] = "svhn_cropped", root, root / "test_32x32.mat"
    for ending, kind in (("png", "PNG"), ("jpg", "JPEG"), ("bmp", "BMP"), ("gif", "GIF")):
        root = folder / f"{ending} images"
        for label in range(3):
            (root / "abc"[label]).mkdir(parents=True)
            stream = io.BytesIO()
            Image.fromarray(np.resize(X[label], (32, 32))).convert("RGB").save(stream, kind)
            (root / "abc"[label] / f"0.{ending}").write_bytes(stream.getvalue())
        made[root.name] = "folder", root, root / "a" / f"0.{ending}"
    return made


def content_of(source: str, where: Path):
    """All images and labels of a data set, or the UserError that refuses it."""
    try:
        dataset = load_dataset(source, where, memory_limit=0.25, tfds="leave")
        found = [dataset[index] for index in range(len(dataset))]
    except UserError as error:
        assert len(str(error)) < 3000, str(error)[:4000]
        return error
    return [(image.tobytes(), image.shape, label) for image, label in found], tuple(dataset.class_names)


def main(folder: Path, count: int) -> None:
    warnings.simplefilter("ignore")
    made, counts = make(folder), {}
    whole = {name: content_of(source, where) for name, (source, where, _) in made.items()}
    for name, content in whole.items():
        assert not isinstance(content, Exception), f"{name}: {content}"
    limit = memory("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for name, (source, where, file) in made.items():
        data, found = file.read_bytes(), {"refused": 0, "equal": 0, "other": 0}
        for seed in range(count):
            faulthandler.dump_traceback_later(60, exit=True)
            file.write_bytes(damage_bytes(data, random.Random(seed)))
            content = content_of(source, where)
            kind = "refused" if isinstance(content, Exception) else "equal" if content == whole[name] else "other"
            found[kind] += 1
        file.write_bytes(data)
        counts[name] = found
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
