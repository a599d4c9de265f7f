"""Export a classifier to a PyTorch file in the layout of Cohen's programs (MACER's for LeNet, DDRS's for its networks).
Needs no PyTorch.

`torch.load` and those programs open the file; converting it again gives the same classifier. PyTorch files do not store
how images are normalised; ours have a field `normalization` for it, `sigma` for the noise of the training and
`class_names` where these are known, `image_shape`, and `max_pool` where it is unusual. Other programs pass over these.
"""

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

from qcrs_jax.errors import UserError
from qcrs_jax.files import output, writing

from .flags import add_opening_arguments, opening_of, print_notes


def add_arguments(parser):
    parser.add_argument("classifier", metavar="DIR", type=Path, help="converted directory (or a PyTorch file)")
    parser.add_argument("file", metavar="FILE", type=Path, help="PyTorch file to write, usually .pth.tar")
    add_opening_arguments(parser)


def run(args):
    from .load import open_classifier

    with writing(args.file):
        if args.file.exists():
            raise UserError(f"{args.file}: already exists; choose another file or move it away")
    classifier = open_classifier(args.classifier, opening_of(args, args.normalization))
    print_notes(args.classifier, classifier)
    export_file(classifier, args.file)
    print(f"{args.classifier} -> {args.file}: {classifier.spec.arch}, {classifier.spec.num_classes} classes")


def export_file(classifier, path: Path) -> None:
    """Writes `classifier` to the PyTorch file `path`."""
    from .layouts import to_state_dict

    spec = classifier.spec
    weights = to_state_dict(classifier)
    normalization = "/".join(",".join(map(repr, values)) for values in (spec.mean, spec.std))
    if spec.arch == "lenet":
        content = {"net": weights, "epoch": 0, "normalization": normalization}
    else:
        ddrs = spec.arch == "cifar_wide_resnet" or not spec.options.get("stem_norm", True)
        prefix = "" if ddrs else "1.module." if spec.image_shape[0] == 224 else "1."
        weights = OrderedDict((prefix + key, value) for key, value in weights.items())
        content = {"epoch": 0, "arch": spec.arch, "state_dict": weights, "normalization": normalization}
    if "sigma" in spec.source:
        content["sigma"] = float(spec.source["sigma"])
    if spec.arch != "lenet":
        content["image_shape"] = list(spec.image_shape)
    if "max_pool" in spec.options:
        content["max_pool"] = bool(spec.options["max_pool"])
    if spec.class_names is not None:
        content["class_names"] = list(spec.class_names)
    with writing(path):
        save(content, path)


def save(content, path: Path) -> None:
    """Writes what `torch.load` reads as `content`, with a tensor for every NumPy array (float32 or int64)."""
    storages, stream = [], io.BytesIO()
    _Pickler(stream, storages).dump(content)
    root = path.name.split(".")[0].encode(errors="replace").decode() or "archive"
    with output(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{root}/data.pkl", stream.getvalue())
        archive.writestr(f"{root}/byteorder", sys.byteorder)
        for key, array in enumerate(storages):
            archive.writestr(f"{root}/data/{key}", array.tobytes())
        archive.writestr(f"{root}/version", "3\n")


_STORAGES = {np.dtype(np.float32): "FloatStorage", np.dtype(np.int64): "LongStorage"}


class _Global:
    """A name in PyTorch, written as such without importing it."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        """Never called: what is pickled as a constructor has to look like one."""


_REBUILD = _Global("torch._utils", "_rebuild_tensor_v2")


class _Storage:
    def __init__(self, kind, key, size):
        self.kind, self.key, self.size = kind, key, size


class _Pickler(pickle._Pickler):
    """Python's own pickler, so that names of PyTorch can be written where it is not installed."""

    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, file, storages):
        super().__init__(file, protocol=2)
        self.storages = storages

    def persistent_id(self, obj):
        if isinstance(obj, _Storage):
            return "storage", _Global("torch", obj.kind), str(obj.key), "cpu", obj.size
        return None

    def reducer_override(self, obj):
        if not isinstance(obj, np.ndarray):
            return NotImplemented
        array = np.ascontiguousarray(obj)
        self.storages.append(array)
        storage = _Storage(_STORAGES[array.dtype], len(self.storages) - 1, array.size)
        strides = tuple(stride // array.itemsize for stride in array.strides)
        return _REBUILD, (storage, 0, array.shape, strides, False, OrderedDict())

    def save_torch_name(self, obj):
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

    dispatch[_Global] = save_torch_name
