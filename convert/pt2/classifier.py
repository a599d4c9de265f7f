"""Exported programs as classifiers: `load_classifier("model.pt2")`."""

import dataclasses
import hashlib
import io
import json
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from qcrs_jax.errors import setting, text_of
from qcrs_jax.models import Classifier, Spec
from qcrs_jax.models.checkpoint import EXPORTED, CheckpointError
from qcrs_jax.printable import printable
from qcrs_jax.sampling.classifiers import NoiseConditional, apply

from . import refusals
from .archive import AGAIN, ExportArchive
from .channels_last import Last
from .interpreter import Interpreter, check_weight
from .preparation import prepared
from .schema import Graph, Program, read_program

ARCH = "torch.export"
_OURS = "qcrs_jax.json"  # the extra file with the metadata of a converted program
_NAMES = ("class_names", "classes", "labels")  # of extra files with the names of the classes
RECIPE = (
    'b = torch.export.Dim("batch"); program = torch.export.export(model, (examples,), dynamic_shapes=({0: b},)) with '
    "at least two examples"
)


class ExportedSpec(Spec):
    """The metadata of an exported program. Its normalisation is within it."""

    def __post_init__(self):
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names has {len(self.class_names)} names for {self.num_classes} classes")


class ExportedClassifier(Classifier):
    """A classifier that an exported program computes.

    Attributes:
        spec: the metadata; `arch` is ARCH, and `options` are empty.
        classify: `inference()`.
        weights: the parameters, buffers and constants by their names in the graph; tied ones are one array.
    """

    def __init__(self, spec: ExportedSpec, program: Program, weights: dict[str, np.ndarray], batch: "Batch"):
        self.spec, self.program, self.weights, self._batch = spec, program, weights, batch
        self.classify = self.inference()

    @property
    def model(self):
        """Always an error: a graph is no network of this package.

        Raises:
            CheckpointError: always.
        """
        raise CheckpointError(
            f"{self.spec.source.get('file', ARCH)}: is an exported program, not a network of ours; it can be certified "
            "and converted, but not trained further or exported as weights"
        )

    def inference(self, platform: str | None = None, dtype="float32") -> Partial | NoiseConditional:
        """Images (batch, h, w, c) in [0, 1] to logits (batch, num_classes), both float32.

        For a program with a second input, sigma (batch,), it is a `NoiseConditional`.

        Batch normalisation is folded into convolutions where the graph allows it, and the form is one that is fast on
        `platform`, by default the one JAX would run it on. Jit-compatible; the weights are leaves of the pytree.

        Raises:
            CheckpointError: `dtype` is not float32; a program computes in the number formats of its export.
        """
        if jnp.dtype(dtype) != jnp.float32:
            raise CheckpointError(
                f"{self.spec.source.get('file', ARCH)}: computes in the number formats of its export; for "
                f"{setting('dtype')} {jnp.dtype(dtype).name} export the model in that format"
            )
        graph, weights = prepared(self.program.graph, self.weights, platform or jax.default_backend())
        arrays, names = _shared(weights)
        run = Partial(_Run(self.program, graph, names, self._batch), jax.tree.map(jnp.asarray, arrays))
        return run if len(self.program.images) == 1 else NoiseConditional(run)

    def fingerprint(self) -> str:
        """SHA-256 of the graph, without the exporter's metadata, and of every weight with its name."""
        sha = hashlib.sha256(self.program.digest.encode())
        for name, array in sorted(self.weights.items()):
            sha.update(repr((name, array.dtype.name, array.shape)).encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    def count_parameters(self) -> int:
        """The number of parameters."""
        kinds = self.program.parameters
        arrays = {id(array): array.size for name, array in self.weights.items() if name in kinds}
        return sum(arrays.values())

    def packed(self) -> tuple[str, bytes]:
        """The name and the bytes of the file of a converted program: its graph without metadata, and its weights."""
        arrays, names = _shared(self.weights)
        configs = {"weights": {}, "constants": {}}
        for name, array in self.weights.items():
            kind, fqn = self.program.weights[name]
            configs[kind][fqn] = _payload(names[name], array, self._codes[array.dtype.name])
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

            def write(name, content):
                archive.writestr(zipfile.ZipInfo(f"classifier/{name}"), content)

            write("models/model.json", json.dumps(self.program.stripped))
            for kind, config in configs.items():
                write(f"data/{kind}/model_{kind}_config.json", json.dumps({"config": config}))
                for path in {payload["path_name"] for payload in config.values()}:
                    write(f"data/{kind}/{path}", np.ascontiguousarray(arrays[path]).tobytes())
            write("byteorder", "little")
            described = {"source": self.spec.source, "class_names": self.spec.class_names}
            write(f"extra/{_OURS}", json.dumps({**described, "image_shape": self.spec.image_shape}))
        return EXPORTED, file.getvalue()

    _codes = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "float16": 6, "float32": 7, "complex64": 10, "bool": 12}
    _codes |= {"bfloat16": 13}


def _payload(path, array, code):
    """The entry of an array in the configuration of an archive."""
    strides = [int(np.prod(array.shape[axis + 1 :], dtype=np.int64)) for axis in range(array.ndim)]
    return {
        "path_name": path,
        "use_pickle": False,
        "tensor_meta": {
            "dtype": code,
            "sizes": [{"as_int": size} for size in array.shape],
            "strides": [{"as_int": stride} for stride in strides],
            "storage_offset": {"as_int": 0},
            "layout": 7,
        },
    }


def _shared(weights):
    """({key: array}, {name: key}), with tied arrays stored once."""
    keys, arrays, names = {}, {}, {}
    for name, array in weights.items():
        key = keys.setdefault(id(array), f"weight_{len(keys)}")
        arrays[key], names[name] = array, key
    return arrays, names


@dataclasses.dataclass(frozen=True)
class Batch:
    """The number of images that a program accepts.

    one: whether it accepts exactly one; several are computed by vmap.
    least, most: smallest and largest number; None for no limit.
    """

    one: bool
    least: int = 1
    most: int | None = None


class _Run:
    """The function of one graph; equal for equal graphs, so that compiled programs are reused."""

    def __init__(self, program: Program, graph: Graph, names: dict[str, str], batch: Batch):
        self._interpret = Interpreter(graph)
        self._inputs, self._names, self._batch = program.images, names, batch
        self._constants = program.constants
        self._key = (program.digest, tuple(node.target for node in graph.nodes), tuple(sorted(names.items())), batch)

    def __call__(self, weights, images: Float[Array | np.ndarray, "batch h w c"], *sigma) -> Array:
        given = {**self._constants, **{name: weights[key] for name, key in self._names.items()}}

        def logits(images, *sigma):
            inputs = dict(zip(self._inputs, (Last(images), *sigma)))
            (result,) = self._interpret({**given, **inputs})
            return result

        inputs = tuple(map(jnp.asarray, (images, *sigma)))
        if self._batch.one:
            return jax.vmap(lambda *each: logits(*(a[None] for a in each))[0])(*inputs).astype(jnp.float32)
        return self._batch_of(logits, inputs).astype(jnp.float32)

    def _batch_of(self, logits, inputs):
        """The logits, computed in as many calls as the range of batches requires."""
        count, least, most = inputs[0].shape[0], self._batch.least, self._batch.most
        if most is None and (not isinstance(count, int) or count >= least):
            return logits(*inputs)
        if not isinstance(count, int):
            raise CheckpointError(
                f"was exported for batches of {least} to {most} images, and not for any number; {RECIPE}"
            )
        if count == 0:
            return logits(*(jnp.zeros((least, *a.shape[1:]), a.dtype) for a in inputs))[:0]
        calls = -(-count // most) if most else 1
        size = max(-(-count // calls), least)
        short = calls * size - count
        inputs = [jnp.concatenate([a, jnp.broadcast_to(a[-1:], (short, *a.shape[1:]))]) for a in inputs]
        if calls == 1:
            return logits(*inputs)[:count]
        parts = jax.lax.map(lambda each: logits(*each), [a.reshape(calls, size, *a.shape[1:]) for a in inputs])
        return jnp.reshape(parts, (calls * size, *parts.shape[2:]))[:count]

    def __eq__(self, other):
        return isinstance(other, _Run) and self._key == other._key

    def __hash__(self):
        return hash(self._key)


def open_exported(path: Path, image_size: tuple[int, int] | None = None) -> ExportedClassifier:
    """The classifier in the exported program `path`.

    Args:
        image_size: height and width of the images in pixels, where the program takes any.

    Raises:
        CheckpointError: damaged, of another version, or no classifier of images; names the file and the remedy.
    """
    try:
        return _opened(path, image_size)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {text_of(error)}") from error
    except OSError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        words = printable(f"{type(error).__name__}: {str(error)[:200]}")
        raise CheckpointError(f"{path}: damaged, or no graph of torch.export ({words}); {AGAIN}") from error


def _opened(path, image_size):
    archive = ExportArchive(path)
    program = read_program(archive.document)
    refusals.check(program.graph, program.images)
    kinds = {kind: archive.tensors(kind) for kind in ("weights", "constants")}
    weights = {name: kinds[kind][fqn] for name, (kind, fqn) in program.weights.items()}
    for name, array in weights.items():
        check_weight(name, array, program.graph.values.get(name))
    extra = archive.extra()
    ours = _ours(extra.pop(_OURS, None))
    shape, batch = _images(program, image_size or ours.get("image_shape", (None, None))[:2])
    spec = ExportedSpec(ARCH, 1, shape, (0.0,), (1.0,), source=ours.get("source") or _source(path, program, extra))
    classifier = ExportedClassifier(spec, program, weights, batch)
    classes = _classes(classifier, shape, batch)
    names = ours.get("class_names") or _class_names(extra, classes)
    try:
        classifier.spec = dataclasses.replace(spec, num_classes=classes, class_names=names and tuple(names))
    except ValueError as error:
        raise CheckpointError(f"damaged: {error}") from error
    return classifier


def _images(program, image_size):
    """((h, w, c), Batch) of the images that the program takes."""
    if not 1 <= len(program.images) <= 2 or not set(program.images) <= set(program.graph.values):
        raise CheckpointError(
            f"takes {len(program.images)} inputs; a classifier takes a batch of images, and optionally one of their "
            "noise levels"
        )
    meta = program.graph.values[program.images[0]]
    if len(meta.shape) != 4 or not isinstance(meta.shape[1], int) or not jnp.issubdtype(meta.dtype, jnp.floating):
        raise CheckpointError(
            f"its input {program.images[0]} is no batch of images: numbers of the shape (batch, channels, height, "
            f"width), but {meta.dtype.name} of the shape {meta.shape}"
        )
    batch, channels, *sides = meta.shape
    for name in program.images[1:]:
        second = program.graph.values[name]
        if second.shape != (batch,) or not jnp.issubdtype(second.dtype, jnp.floating):
            raise CheckpointError(
                f"its second input {name} is no batch of noise levels: numbers of the shape ({batch},), but "
                f"{second.dtype.name} of the shape {second.shape}; export it with a sigma for each image"
            )
    found = []
    for side, given in zip(sides, image_size):
        if isinstance(side, int) and given is not None and given != side:
            raise CheckpointError(f"takes images of {sides[0]} x {sides[1]}, not {setting('image_size')} {image_size}")
        if not isinstance(side, int) and given is None:
            raise CheckpointError(f"takes images of any size; give the size by {setting('image_size')}")
        found.append(side if isinstance(side, int) else given)
        least, most = program.ranges.get(side, (0, None)) if isinstance(side, str) else (0, None)
        if found[-1] < least or most is not None and found[-1] > most:
            raise CheckpointError(f"takes images of {least} to {most} pixels, not of {found[-1]}")
    if min((*found, channels)) < 1:
        raise CheckpointError(f"its images of the shape {meta.shape} have no pixels")
    return (*found, channels), _batch(program, batch)


def _batch(program, size):
    if isinstance(size, int):
        if size != 1:
            raise CheckpointError(
                f"was exported for batches of exactly {size} images; export it for any number: {RECIPE}"
            )
        return Batch(one=True)
    least, most = program.ranges.get(size, (1, None))
    if most is not None and most < max(least, 1):
        raise CheckpointError("damaged: the range of its batches has no number")
    return Batch(False, max(least, 1), most)


def _classes(classifier, shape, batch):
    """The number of classes, from an abstract evaluation of the whole graph."""
    images = jax.ShapeDtypeStruct((max(batch.least, 2), *shape), jnp.float32)
    outputs = classifier.program.graph.outputs
    if len(classifier.program.outputs) != 1:
        raise CheckpointError(
            f"gives {len(outputs)} results; a classifier gives logits alone: export a module that returns them"
        )
    logits = jax.eval_shape(apply, classifier.classify, images, jax.ShapeDtypeStruct((), jnp.float32))
    if logits.ndim != 2 or logits.shape[0] != images.shape[0] or not logits.shape[1]:
        raise CheckpointError(
            f"gives numbers of the shape {('batch', *logits.shape[1:])} for a batch of images; a classifier gives "
            "logits (batch, classes)"
        )
    return logits.shape[1]


def _source(path, program, extra):
    """The origin of a program, with notes for the user."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    source = {"file": path.name, "sha256": digest, "layout": "torch.export", "normalization": "within the program"}
    if "sigma" in extra or "sigma.txt" in extra:
        try:
            sigma = float(extra.get("sigma", extra.get("sigma.txt")))
        except ValueError:
            sigma = np.nan
        if not 0 <= sigma < np.inf:
            raise CheckpointError("its extra file sigma has no noise level")
        source["sigma"] = sigma
    if any(meta.dtype == np.float64 for meta in program.graph.values.values()):
        source["notes"] = ["Its numbers of 64 bits are computed in 32 bits."]
    return source


def _class_names(extra, classes):
    """The names of the classes in the user's extra files, or None."""
    for name in _NAMES:
        for file in (f"{name}.json", f"{name}.txt", name):
            if file not in extra:
                continue
            names = _texts(extra[file])
            if names is None or len(names) != classes:
                raise CheckpointError(
                    f"its extra file {file} does not name its {classes} classes: a list of texts in JSON, or a name on "
                    "each line"
                )
            return names
    return None


def _texts(text):
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(found, dict):
        found = [found.get(str(i)) for i in range(len(found))]
    return found if isinstance(found, list) and all(isinstance(name, str) for name in found) else None


def _ours(text):
    """The metadata of a converted program; {} for any other program."""
    if text is None:
        return {}
    try:
        found = json.loads(text)
        shape, names, source = found["image_shape"], found["class_names"], found["source"]
        whole = all(type(side) is int for side in shape) and len(shape) == 3 and isinstance(source, dict)
        notes = source.get("notes", [])
        if not whole or not isinstance(source.get("sigma", 0.0), int | float) or not isinstance(notes, list):
            raise ValueError
        if names is not None and not all(isinstance(name, str) for name in names):
            raise ValueError
        return {**found, "source": {**source, "notes": list(map(str, notes))} if notes else source}
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise CheckpointError("damaged: its metadata are not as they were written; convert it again") from error
