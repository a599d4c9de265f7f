"""Each operation of `.pt2` programs beside PyTorch: in float32 and bfloat16, in all three forms, at odd sizes.

After each operation the reader compares shape and number format with what the file records, so that these are
compared here too.
"""

import jax
import numpy as np
import pytest
from pt2_files import FORMS, Read, array, export, exported, in_form, numbers, save
from pt2_operations import TABLES, Many, layers
from with_torch import torch

from qcrs_jax.convert.pt2.channels_last import beside, last, plain
from qcrs_jax.convert.pt2.interpreter import compute
from qcrs_jax.convert.pt2.registry import OPERATIONS

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}


def model_of(name, dtype):
    """(model, what each of its outputs is)."""
    if name != "layers":
        return Many(TABLES[name]).eval(), list(TABLES[name])
    modules = layers()
    return Many({}, modules).to(dtype).eval(), [str(module) for module in modules]


def example(n, dtype):
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 4, 7, 9, generator=generator).to(dtype)


def assert_equal_outputs(read, model, names, x, tolerance):
    with torch.no_grad():
        wanted = model(x)
    for name, w, g in zip(names, wanted, read(array(x)), strict=True):
        w, g = numbers(w), numbers(g)
        assert w.shape == g.shape, name
        finite = np.isfinite(w)
        np.testing.assert_array_equal(finite, np.isfinite(g), name)
        assert np.abs(w - g)[finite].max(initial=0) <= tolerance * max(np.abs(w[finite]).max(initial=0), 1e-9), name


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", [*TABLES, "layers"])
def test_operations_are_pytorch_s(name, dtype, tmp_path):
    torch.manual_seed(0)
    model, names = model_of(name, getattr(torch, dtype))
    tolerance = 5e-2 if (name, dtype) == ("layers", "bfloat16") else TOLERANCE[dtype]
    program = exported(model, (example(3, getattr(torch, dtype)),))
    for form in FORMS:
        path = save(in_form(program, form), tmp_path / f"{form}.pt2")
        for platform in ("cpu", None):  # prepared for a platform, and as the file has it
            for n in (3, 5):
                x = example(n, getattr(torch, dtype))
                assert_equal_outputs(Read(path, platform), model, names, x, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["layers"])
def test_some_are_pytorch_s(name, tmp_path):
    """A quick look; all are compared by the slow tests."""
    model, names = model_of(name, torch.float32)
    path = export(model, (example(3, torch.float32),), tmp_path / "model.pt2")
    assert_equal_outputs(Read(path, "cpu"), model, names, example(2, torch.float32), 1e-5)


def test_enough_operations_are_known():
    assert len([name for name in OPERATIONS if not name.startswith(("_operator", "torch.", "ours."))]) >= 240


LASTING = {
    "slice": lambda x: {"self": x, "dim": 1, "start": 1, "end": 3},
    "cat": lambda x: {"tensors": [x, x], "dim": -3},
    "split": lambda x: {"self": x, "split_size": 2, "dim": 1},
    "pad": lambda x: {"self": x, "pad": [1, 0, -1, 2, 0, 1]},
    "permute": lambda x: {"self": x, "dims": [0, 3, 1, 2]},
    "mean": lambda x: {"self": x, "dim": [-1, -2]},
    "amax": lambda x: {"self": x, "dim": [2, 3], "keepdim": True},
    "sum": lambda x: {"self": x, "dim": [1]},
    "group_norm": lambda x: {"input": x, "num_groups": 2},
    "max_pool2d": lambda x: {"self": x, "kernel_size": [2, 2]},
    "add": lambda x: {"self": x, "other": np.arange(32.0, dtype=np.float32).reshape(4, 8, 1)},
    "mul": lambda x: {"self": x, "other": x},
    "sub": lambda x: {"self": x, "other": 2.0, "alpha": 3},
    "div": lambda x: {"self": x, "other": last(np.full((2, 4, 8, 10), 3, np.float32))},
    "batch_norm": lambda x: {
        "input": x,
        "weight": None,
        "bias": np.arange(4.0, dtype=np.float32),
        "running_mean": np.ones(4, np.float32),
        "running_var": np.arange(1.0, 5.0, dtype=np.float32),
        "training": False,
        "momentum": 0.1,
        "eps": 1e-5,
        "cudnn_enabled": False,
    },
    "view": lambda x: {"self": x, "size": [2, -1]},
    "sym_size": lambda x: {"self": x, "dim": 1},
}


@pytest.mark.parametrize("form", [last, lambda x: beside(x, 2)], ids=["last", "beside"])
@pytest.mark.parametrize("name", LASTING)
def test_images_in_another_order_give_the_same(name, form):
    x = np.random.default_rng(0).normal(size=(2, 4, 8, 10)).astype(np.float32)
    results = [compute(name, LASTING[name](image)) for image in (x, form(x))]
    for plainly, otherwise in zip(*(jax.tree.leaves(plain(result)) for result in results), strict=True):
        np.testing.assert_allclose(otherwise, plainly, rtol=1e-5, atol=1e-6)
    image = form(x)
    assert (image.shape, image.size, image.dtype) == (x.shape, x.size, x.dtype)
    np.testing.assert_array_equal(image.astype("float16").plain(), x.astype("float16"))


@pytest.mark.parametrize(
    ("change", "breaks"),
    [
        ({"alpha": 1}, "add alpha"),
        ({"dilation": 1}, "max dilation"),
        ({"ceil_mode": False}, "max ceil"),
    ],
)
def test_the_comparison_finds_a_missing_argument(change, breaks, tmp_path, monkeypatch):
    """A wrong default is seen: the tables reach it."""
    table = next(table for table in TABLES.values() if breaks in table)
    path = export(Many({breaks: table[breaks]}), (example(3, torch.float32),), tmp_path / "one.pt2")
    read = Read(path)
    (argument,) = change
    nodes = [node for node in read.graph.nodes if argument in node.arguments]
    assert nodes
    for node in nodes:
        node.arguments.pop(argument)
    with pytest.raises((AssertionError, ValueError)):
        assert_equal_outputs(read, Many({breaks: table[breaks]}), [breaks], example(3, torch.float32), 1e-5)
