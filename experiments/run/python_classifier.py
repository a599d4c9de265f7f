"""Classifiers of your own: `python:FILE.py:FUNCTION` in the place of a checkpoint.

The function takes no arguments, and returns the classifier. That is a jit-compatible function of images (batch, h, w,
c) in [0, 1] to logits (batch, classes), with the normalisation inside and its weights bound by `jax.tree_util.Partial`:

    def load():
        weights = read_my_weights("weights.npz")
        return Partial(apply, weights)

Only the prefix allows the file to be run. No other name of a checkpoint runs anything. A run records the hashes of the
file and of all arrays of the classifier. It records no hash of other files that this file imports.
"""

import hashlib
import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from qcrs_jax.errors import UserError, setting
from qcrs_jax.models import Classifier, Spec
from qcrs_jax.sampling.classifiers import apply, as_pytree, num_classes

from .settings import PYTHON


def is_python(checkpoint) -> bool:
    """Whether the name of a checkpoint stands for a function in a Python file."""
    return str(checkpoint).startswith(PYTHON)


class PythonSpec(Spec):
    """The record of such a classifier in a run. Its `arch` is the file and the function."""

    def __post_init__(self):
        pass  # its architecture is not one of the registry


class PythonClassifier(Classifier):
    """A classifier that a Python function returned, with the attributes of `models.Classifier` that a run needs."""

    def __init__(self, spec: PythonSpec, classify):
        self.spec, self.classify = spec, classify

    def inference(self, platform=None, dtype="float32"):
        """The function as it is."""
        if dtype != "float32":
            raise UserError(
                f"{self.spec.arch}: computes as it is written; {setting('dtype')} {dtype} is for checkpoints"
            )
        return self.classify

    def fingerprint(self) -> str:
        """SHA-256 of all arrays that the function holds, bound or captured, in the order of its program."""
        leaves, _ = jax.tree.flatten(self.classify)
        sha = hashlib.sha256()
        for array in (*leaves, *_constants(self.classify, self.spec.image_shape)):
            array = np.asarray(array)
            sha.update(repr((array.dtype.name, array.shape)).encode())
            sha.update(array.tobytes())
        return sha.hexdigest()


def open_python(checkpoint, image_shape: tuple[int, int, int]) -> PythonClassifier:
    """The classifier of `python:FILE.py:FUNCTION`, for images of this shape. Runs the file.

    Raises:
        UserError: there is no such file or function, it fails, or it returns no classifier of such images.
    """
    file, _, name = str(checkpoint).removeprefix(PYTHON).rpartition(":")
    path = Path(file)
    if not file.endswith(".py") or not name.isidentifier():
        raise UserError(f"{checkpoint}: write python:FILE.py:FUNCTION, as python:my_net.py:load")
    if not path.is_file():
        raise UserError(f"{checkpoint}: there is no file {path}")
    function = getattr(_module(path, checkpoint), name, None)
    if not callable(function):
        raise UserError(f"{checkpoint}: {path} has no function {name}")
    try:
        classify = function()
    except Exception as error:
        raise UserError(f"{checkpoint}: {name}() failed: {type(error).__name__}: {error}") from error
    if not callable(classify):
        raise UserError(
            f"{checkpoint}: {name}() returned a {type(classify).__name__}; it should return the classifier, a function "
            "of images to logits"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return given_classifier(
        classify, image_shape, f"{path.name}:{name}", {"file_sha256": digest}, f"{checkpoint}: what {name}() returned"
    )


def given_classifier(
    classify, image_shape: tuple[int, int, int], name: str, source: dict | None = None, called: str = "classify"
) -> PythonClassifier:
    """The classifier of a function of images to logits.

    Args:
        image_shape: shape of its images.
        name, source: its record in a run.
        called: its name in a message.

    Raises:
        UserError: it is no function of such images.
    """
    if not callable(classify):
        raise UserError(f"{called} is a {type(classify).__name__}, and should be a function of images to logits")
    classify = as_pytree(classify)
    try:
        classes = num_classes(classify, image_shape)
    except Exception as error:
        raise UserError(
            f"{called} takes no images of shape {(1, *image_shape)}, which the data set has: "
            f"{type(error).__name__}: {error}"
        ) from error
    return PythonClassifier(PythonSpec(name, classes, tuple(image_shape), (0.0,), (1.0,), source or {}), classify)


def _module(path, checkpoint):
    """The file as a module. It can import other files beside it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{checkpoint}: {path} cannot be run: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    return module


def _constants(classify, image_shape):
    """The arrays that are not leaves of `classify`, which are constants of its program."""
    program = jax.make_jaxpr(apply)(
        classify, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    )
    return list(_of_program(program))


def _of_program(program):
    """Constants of a program, and of the programs inside it."""
    yield from getattr(program, "consts", ())
    inner = getattr(program, "jaxpr", program)
    for equation in inner.eqns:
        yield from (v.val for v in equation.invars if hasattr(v, "val") and getattr(v.val, "ndim", 0))
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                yield from _of_program(value)
