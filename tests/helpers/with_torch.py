"""PyTorch and the bench's networks of it. Where it is not installed, a test is skipped as soon as it uses them."""

import pytest

REASON = "needs PyTorch"


class Missing:
    """Stands for a package that is not installed, and for all in it. A call skips the test, or the module at import."""

    def __getattr__(self, name):
        if name == "__version__":
            return self()
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args, **kwargs):
        pytest.skip(REASON, allow_module_level=True)

    def __mro_entries__(self, bases):
        return ()


try:
    import torch
    from safetensors.torch import load_file, save_file

    from qcrs_jax.experiments.bench import torch_nets
except ModuleNotFoundError as missing:
    if missing.name != "torch":
        raise
    torch = torch_nets = load_file = save_file = Missing()


def __getattr__(name):
    """A network of `torch_nets`."""
    return getattr(torch_nets, name)
