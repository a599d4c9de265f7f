"""Our sampler, PyTorch eager and ONNX Runtime on a CPU, in alternating turns."""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Turns:
    """The settings of the timing: seconds of a turn, turns of each side, batch sizes, interpreters for our rows."""

    seconds: float
    turns: int
    batches: tuple[int, ...]
    python: tuple[str, ...]


def compare(depth: int, asked: Turns):
    """The rows of a network: for each version of JAX one for our network, and one for it as a `.pt2`."""
    import contextlib
    import functools
    import statistics
    import tempfile

    from .jax_sampler import JaxSampler
    from .rate import rate

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        net = _network(depth)
        files = {f"ResNet-{depth}": _checkpoint(net, depth, folder), "  as .pt2": _program(net, folder)}
        ours = {
            stack.enter_context(contextlib.closing(JaxSampler(python, file))): name
            for python in asked.python
            for name, file in files.items()
        }
        # For each side, a function of (batch, seconds) that returns a rate.
        sides = {
            "torch": [functools.partial(rate, sampler) for sampler in _torch_samplers(depth)],
            "onnx": [functools.partial(rate, sampler) for sampler in _onnx_samplers(depth)],
            **{sampler: [sampler.rate] for sampler in ours},
        }
        best = {}
        for side, meters in sides.items():
            trials = {(meter, batch): meter(batch, asked.seconds / 3) for meter in meters for batch in asked.batches}
            if trials:
                best[side] = max(trials, key=trials.get)
        rates = {side: [] for side in best}
        for _ in range(asked.turns):
            for side, (meter, batch) in best.items():
                rates[side].append(meter(batch, asked.seconds))
    median = {side: statistics.median(values) for side, values in rates.items()}
    for sampler, name in ours.items():
        shown = [f"{median[s]:,.0f} @{best[s][1]}" if s in best else "-" for s in ("torch", "onnx", sampler)]
        ratios = [f"{median[sampler] / median[s]:.2f}" if s in best else "-" for s in ("torch", "onnx")]
        yield name, sampler.jax, *shown, *ratios, f"{sampler.first:.2f} s", str(sampler.compilations)


def _network(depth):
    """The network in PyTorch."""
    from .torch_nets import CifarResNet, randomise

    return randomise(CifarResNet(depth))


def _checkpoint(net, depth, folder):
    """A file of the weights in PyTorch."""
    import torch

    weights = {f"1.{k}": v for k, v in net.state_dict().items()}
    torch.save({"arch": f"cifar_resnet{depth}", "state_dict": weights}, folder / "checkpoint.pth.tar")
    return folder / "checkpoint.pth.tar"


def _program(net, folder):
    """The network as a program of torch.export."""
    import warnings

    import torch

    from .torch_nets import Noisy

    model = Noisy(net, torch.zeros(3, 1, 1), 1.0).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns about its own calls
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(model, (torch.rand(2, 3, 32, 32),), dynamic_shapes=shapes)
        torch.export.save(program.run_decompositions({}), folder / "program.pt2")
    return folder / "program.pt2"


def _torch_samplers(depth):
    import torch

    from .torch_nets import noisy_cifar_resnet

    formats = (torch.contiguous_format, torch.channels_last)
    return [_sampler(noisy_cifar_resnet(depth).to(memory_format=format)) for format in formats]


def _onnx_samplers(depth):
    """Samplers of ONNX Runtime, with spinning threads and without; none if it is not installed."""
    if onnx_runtime() is None:
        return []
    from .torch_nets import noisy_cifar_resnet

    model = export_onnx(noisy_cifar_resnet(depth))
    return [_sampler(onnx_function(model, spinning)) for spinning in (True, False)]


def onnx_runtime():
    """The module; None if it or the exporter is not installed."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        return None
    return onnxruntime


def export_onnx(net):
    """The ONNX file, as bytes, of a network in PyTorch on batches of any size of (3, 32, 32)."""
    import logging
    import warnings

    import torch

    # It warns about packages that are not installed, and about its own calls of PyTorch.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net,
            (torch.zeros(2, 3, 32, 32),),
            dynamo=True,
            verbose=False,
            input_names=["x"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    return program.model_proto.SerializeToString()


def onnx_function(model, spinning):
    """A function of float32 tensors: `model` by ONNX Runtime on the CPU, with as many threads as PyTorch has."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def _sampler(logits):
    """Class counts by a function of standard normal noise in PyTorch."""
    import torch

    def sample(batch, n):
        counts = torch.zeros(10, dtype=torch.int64)
        with torch.inference_mode():
            for _ in range(n // batch):
                counts += torch.bincount(logits(torch.randn(batch, 3, 32, 32)).argmax(1), minlength=10)
        return counts

    return sample
