"""Programs of `torch.export` for the tests, and their evaluation with our reader."""

import warnings

import jax
import numpy as np
from with_torch import torch

from qcrs_jax.convert.pt2 import refusals
from qcrs_jax.convert.pt2.archive import ExportArchive
from qcrs_jax.convert.pt2.interpreter import Interpreter
from qcrs_jax.convert.pt2.preparation import prepared
from qcrs_jax.convert.pt2.schema import read_program

FORMS = ("as exported", "functional", "core")


def in_form(program, form):
    """A program as `torch.export.export` gives it, without operations in place, or in core ATen."""
    if form == "as exported":
        return program
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program.run_decompositions({}) if form == "functional" else program.run_decompositions()


def exported(model, examples, batch="any"):
    """The program of a model; batch is "any" number, "auto" as PyTorch finds it, or None for that of the examples."""
    size = {"any": lambda: torch.export.Dim("batch"), "auto": lambda: torch.export.Dim.AUTO, None: lambda: None}[
        batch
    ]()
    shapes = None if size is None else tuple({0: size} for _ in examples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(model, tuple(examples), dynamic_shapes=shapes)


def save(program, path, **extra):
    """Writes a program; `extra` are the user's extra files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path, extra_files={name.replace("__", "."): text for name, text in extra.items()})
    return path


def export(model, examples, path, form="functional", batch="any", **extra):
    """Exports a model in evaluation mode to `path`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return save(in_form(exported(model.eval(), examples, batch), form), path, **extra)


class Read:
    """An exported program, read by our reader: a function of its inputs, in the layout of PyTorch."""

    def __init__(self, path, platform=None, beside=None):
        archive = ExportArchive(path)
        self.program = read_program(archive.document)
        refusals.check(self.program.graph, self.program.images)
        kinds = {kind: archive.tensors(kind) for kind in ("weights", "constants")}
        self.weights = {name: kinds[kind][fqn] for name, (kind, fqn) in self.program.weights.items()}
        self.graph = self.program.graph
        if platform is not None:
            self.graph, self.weights = prepared(self.graph, self.weights, platform, beside)

    def __call__(self, *inputs):
        """The outputs, computed in one compiled program."""
        interpret, constants = Interpreter(self.graph), self.program.constants

        @jax.jit
        def outputs(weights, inputs):
            return interpret({**constants, **weights, **dict(zip(self.program.images, inputs))})

        return outputs(self.weights, inputs)


def array(tensor):
    """A tensor as an array of JAX's, bfloat16 too."""
    if tensor.dtype == torch.bfloat16:
        return jax.numpy.asarray(tensor.float().numpy()).astype(jax.numpy.bfloat16)
    return tensor.numpy()


def numbers(value):
    """An array or a tensor in float64."""
    if isinstance(value, torch.Tensor):
        value = value.detach().float() if value.dtype == torch.bfloat16 else value.detach()
    return np.asarray(
        np.asarray(value, np.float32) if getattr(value, "dtype", None) == jax.numpy.bfloat16 else value, float
    )
