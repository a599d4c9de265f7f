"""PyTorch as sides of the comparison, eager and compiled. Noise is drawn and classes are counted on the device.

PyTorch is imported only inside functions.
"""

import time

from .networks import MEAN, SIGMA, STD, Network
from .sides import Program, Side

# Arguments of torch.compile, by the name of an option.
COMPILERS = {
    "default": {},
    "reduce-overhead": {"mode": "reduce-overhead"},
    "max-autotune-no-cudagraphs": {"mode": "max-autotune-no-cudagraphs"},
    "graph alone": {"backend": "eager"},
}


def device_of(kind: str = "cuda"):
    """(PyTorch's device, None), or (None, the reason why there is none)."""
    try:
        import torch
    except ImportError:
        return None, "PyTorch is not installed: ours alone is timed"
    if kind == "cuda" and not torch.cuda.is_available():
        return None, f"torch {torch.__version__} sees no CUDA: ours alone is timed"
    if kind == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return torch.device(kind), None


def free() -> None:
    """Frees the memory that PyTorch caches."""
    import gc
    import sys

    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


def eager(network: Network, device, name: str, dtype: str, **axes) -> Side:
    """PyTorch eager, with weights in the memory format that is fastest for its convolutions.

    dtype: "float32", with products in TF32 on a GPU, or "bfloat16": by autocast, or with the weights rounded.
    """
    usual = {"batch": network.batches, "weights": ("autocast", "bfloat16") if dtype == "bfloat16" else ("float32",)}

    def build(batch, weights="float32", folded=False):
        return sampler(network, device, batch, weights, folded, None)

    return Side(name, {**usual, **axes}, build)


def compiled(network: Network, device, name: str, dtype: str, **axes) -> Side:
    """torch.compile of noise, network and counting together."""
    usual = {
        "compiler": ("default", "reduce-overhead", "max-autotune-no-cudagraphs"),
        "batch": network.batches,
        "weights": ("bfloat16", "autocast") if dtype == "bfloat16" else ("float32",),
        "folded": (True, False),
    }

    def build(batch, compiler="default", weights="float32", folded=False):
        return sampler(network, device, batch, weights, folded, COMPILERS[compiler])

    return Side(name, {**usual, **axes}, build)


def sampler(network: Network, device, batch: int, weights: str, folded: bool, compiler: dict | None) -> Program:
    """Counts noisy copies, `batch` in a forward pass.

    weights: "float32"; "autocast", which rounds to bfloat16 on the way; or "bfloat16".
    folded: whether batch normalisation is folded into the convolutions.
    compiler: name of arguments of torch.compile; None for eager.
    """
    import torch

    started = time.perf_counter()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    net = network.torch()
    if folded:
        fold(net)
    dtype = torch.bfloat16 if weights == "bfloat16" else torch.float32
    net = net.to(device, dtype, memory_format=torch.channels_last)
    image = torch.from_numpy(network.image()).permute(2, 0, 1).to(device)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
    classes, (height, width, channels) = torch.arange(network.classes, device=device), network.shape

    def votes():
        noise = torch.randn(batch, height, width, channels, device=device).permute(0, 3, 1, 2)
        with torch.autocast(device.type, torch.bfloat16, enabled=weights == "autocast"):
            chosen = net(((image + SIGMA * noise - mean) / std).to(dtype)).argmax(1)
        return (chosen[:, None] == classes).sum(0)

    if compiler is not None:
        import torch._dynamo

        for limit in ("recompile_limit", "cache_size_limit"):  # each Program counts as another network for the compiler
            if hasattr(torch._dynamo.config, limit):
                setattr(torch._dynamo.config, limit, 256)
        votes = torch.compile(votes, dynamic=False, **compiler)

    def run(copies):
        began = time.perf_counter()
        with torch.no_grad():
            counts = torch.zeros(network.classes, dtype=torch.int64, device=device)
            for _ in range(-(-copies // batch)):
                if compiler is not None:
                    torch.compiler.cudagraph_mark_step_begin()
                counts += votes()
            counts.cpu()  # waits
        return time.perf_counter() - began

    for _ in range(3 if compiler else 1):  # graphs are recorded at the second call
        run(batch)
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return Program(run, batch, time.perf_counter() - started, memory)


def fold(net) -> None:
    """Folds the batch normalisation after each convolution of `net` into it, in place."""
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in list(net.modules()):
        children = dict(module.named_children())
        pairs = [(name, name.replace("conv", "bn")) for name in children if name.startswith("conv")]
        if isinstance(module, torch.nn.Sequential):
            pairs.append(("0", "1"))
        for conv, norm in pairs:
            if isinstance(children.get(conv), torch.nn.Conv2d) and isinstance(children.get(norm), torch.nn.BatchNorm2d):
                setattr(module, conv, fuse_conv_bn_eval(children[conv], children[norm]))
                setattr(module, norm, torch.nn.Identity())
