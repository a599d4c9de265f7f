"""Tensors of ours against PyTorch's."""

from collections import OrderedDict

import numpy as np
from with_torch import torch

from qcrs_jax.convert.files.tensor import Tensor
from qcrs_jax.convert.files.unpickle import ODD_KEYS, Unused


def assert_equal(ours, theirs, seen=None):
    """Asserts that `ours` equals the result of torch.load, tensor by tensor and container by container."""
    seen = {} if seen is None else seen  # containers may hold themselves
    if isinstance(ours, Unused):  # neither a tensor nor a plain container
        assert not isinstance(theirs, torch.Tensor) and type(theirs) not in (dict, OrderedDict, list, tuple)
        return
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, Tensor)
        assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
        values, expected = ours.numpy(), theirs.detach()
        if expected.dtype == torch.bfloat16:  # NumPy has none of its own: its bits
            values, expected = values.view(np.int16), expected.view(torch.int16)
        np.testing.assert_array_equal(values, expected.numpy(), strict=True)
    elif isinstance(theirs, dict | list | tuple):
        if id(theirs) in seen:
            assert seen[id(theirs)] == id(ours) or type(theirs) is tuple
            return
        seen[id(theirs)] = id(ours)
        if isinstance(theirs, dict):
            assert type(ours) is type(theirs)
            if ODD_KEYS in ours:  # items whose keys are odd are dropped, and this marks it
                ours = {key: value for key, value in ours.items() if key is not ODD_KEYS}
                theirs = {key: value for key, value in theirs.items() if type(key) in (str, int, float) and key in ours}
            assert list(ours) == list(theirs)
        assert len(ours) == len(theirs)
        for key in theirs if isinstance(theirs, dict) else range(len(theirs)):
            assert_equal(ours[key], theirs[key], seen)
    elif isinstance(theirs, int | float | str | bytes | bytearray | None):
        assert type(ours) is type(theirs)
        assert ours == theirs or ours != ours
    else:  # only damaged files hold functions and storages as such
        assert callable(theirs) or "Storage" in type(theirs).__name__
