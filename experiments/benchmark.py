"""Benchmark: samples a second of the jitted sampler beside PyTorch eager and ONNX Runtime, in one run, on this machine.

All draw noise, add it, normalise, run the same ResNet (ours is converted from PyTorch's weights, ONNX Runtime's graph
exported from PyTorch's network), and count classes. ONNX Runtime gets its noise from PyTorch, whose generator is faster
than NumPy's. Each side runs at its best batch size, PyTorch also in its better memory format and ONNX Runtime with its
threads spinning or not; turns alternate, and medians count. Also told: the time from the checkpoint file to the first
certificate by QCRS, and how many programs of the network were compiled on the way. With --python there is a row for the
JAX of each of these interpreters, all timed in one run. Needs PyTorch: pip install 'qcrs_jax[bench]'. ONNX Runtime is
left out, as "-", where it is not installed.

Where JAX finds a GPU, the sides are on that GPU: our sampler in float32 (with TF32, and with full precision) and in
bfloat16, PyTorch eager, and torch.compile. Each is timed at the best of several options: batch size, images in
step, joined columns, blocks unrolled or not, the layout of convolutions; compilers and number formats of PyTorch. Also
told: the share of noise and counting, compilation time, memory, and the time from the file to the first certificate.
Where PyTorch sees no CUDA, ours alone is timed.

With --tpu nothing is timed: the sampler is compiled for a TPU v5e, which need not be there, and the compiler's own cost
model tells what it would do, step by step.
"""

import sys
from pathlib import Path

from qcrs_jax.extras import needed_for


def add_arguments(parser):
    add = parser.add_argument
    add("--depths", type=int, nargs="+", default=[20, 110], help="on a CPU: CIFAR ResNets to time (default: 20 110)")
    add("--batches", type=int, nargs="+", help="batch sizes to try (default: 8 to 256 on a CPU)")
    add("--seconds", type=float, default=3.0, help="length of a turn, roughly (default: 3)")
    add("--turns", type=int, default=7, help="turns of each side at its best batch size (default: 7)")
    add(
        "--python",
        nargs="+",
        default=[sys.executable],
        metavar="FILE",
        help="on a CPU: interpreters with qcrs_jax and some version of JAX, a row for each (default: this one)",
    )
    add("--minutes", type=float, help="on a GPU: when it has to be done; what is left out is said (default: no end)")
    add(
        "--try",
        dest="tries",
        nargs="+",
        metavar="OPTION=VALUES",
        help="on a GPU: values to try of an option, as joined=none,2x2 unrolled=no,yes images=1,4 layout=free,nhwc "
        "compiler=default (default: all that are known)",
    )
    add("--tpu", type=Path, metavar="FOLDER", help="predict for a TPU v5e instead, by the libtpu in FOLDER")
    add(
        "--networks",
        nargs="+",
        default=["cifar_resnet110", "resnet50"],
        choices=["cifar_resnet110", "resnet50"],
        help="with --tpu, and on a GPU: which networks (default: both)",
    )


def run(args):
    if args.tpu:
        from .tpu_benchmark import run

        return run(args.tpu, args.networks)
    from .bench import gpu

    gpu.share_the_card()
    from qcrs_jax.sampling.devices import choose_devices

    if choose_devices()[0].platform == "gpu":
        return gpu.run(args)
    args.batches = args.batches or [8, 16, 32, 64, 128, 256]
    with needed_for("the benchmark"):
        import torch
    onnxruntime = _onnxruntime()
    on_cpu = f"torch {torch.__version__}" + (f" and onnxruntime {onnxruntime.__version__}" if onnxruntime else "")
    print(
        f"{on_cpu}, {torch.get_num_threads()} threads; float32.\nSamples a second, noise and counting included, @ "
        "batch size (ours: of each device), and the ratios of ours to theirs\n"
    )
    columns = (
        ("network", 12),
        ("JAX", 10),
        ("PyTorch", 14),
        ("ONNX Runtime", 14),
        ("qcrs_jax", 14),
        ("to PyTorch", 12),
        ("to ONNX", 9),
        ("first result", 13),
        ("compilations", 13),
    )
    print("".join(name.rjust(width) for name, width in columns), flush=True)
    for depth in args.depths:
        for cells in _compare(depth, args):
            print("".join(cell.rjust(width) for cell, (_, width) in zip(cells, columns)), flush=True)


def _compare(depth, args):
    """The cells of the rows of a network, one row for each version of JAX."""
    import contextlib
    import functools
    import statistics
    import tempfile

    from .bench.jax_sampler import JaxSampler

    with contextlib.ExitStack() as stack:
        checkpoint = _checkpoint(depth, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        ours = [stack.enter_context(contextlib.closing(JaxSampler(python, checkpoint))) for python in args.python]
        # Of each side, what takes (batch, seconds) and gives a rate.
        sides = {
            "torch": [functools.partial(rate, sampler) for sampler in _torch_samplers(depth)],
            "onnx": [functools.partial(rate, sampler) for sampler in _onnx_samplers(depth)],
            **{sampler: [sampler.rate] for sampler in ours},
        }
        best = {}
        for side, meters in sides.items():
            trials = {(meter, batch): meter(batch, args.seconds / 3) for meter in meters for batch in args.batches}
            if trials:
                best[side] = max(trials, key=trials.get)
        rates = {side: [] for side in best}
        for _ in range(args.turns):
            for side, (meter, batch) in best.items():
                rates[side].append(meter(batch, args.seconds))
    median = {side: statistics.median(values) for side, values in rates.items()}
    for sampler in ours:
        shown = [f"{median[s]:,.0f} @{best[s][1]}" if s in best else "-" for s in ("torch", "onnx", sampler)]
        ratios = [f"{median[sampler] / median[s]:.2f}" if s in best else "-" for s in ("torch", "onnx")]
        yield f"ResNet-{depth}", sampler.jax, *shown, *ratios, f"{sampler.first:.2f} s", str(sampler.compilations)


def _checkpoint(depth, folder):
    """A file of PyTorch's weights."""
    import torch

    from .torch_nets import CifarResNet, randomise

    weights = {f"1.{k}": v for k, v in randomise(CifarResNet(depth)).state_dict().items()}
    torch.save({"arch": f"cifar_resnet{depth}", "state_dict": weights}, folder / "checkpoint.pth.tar")
    return folder / "checkpoint.pth.tar"


def rate(sampler, batch: int, seconds: float) -> float:
    """Samples a second over about so many seconds; the first calls, which may compile, do not count."""
    import time

    sampler(batch, batch)
    started = time.perf_counter()
    sampler(batch, 4 * batch)
    n = max(1, round(4 * seconds / (time.perf_counter() - started))) * batch
    started = time.perf_counter()
    sampler(batch, n)
    return n / (time.perf_counter() - started)


def _torch_samplers(depth):
    import torch

    from .torch_nets import noisy_cifar_resnet

    formats = (torch.contiguous_format, torch.channels_last)
    return [_sampler(noisy_cifar_resnet(depth).to(memory_format=format)) for format in formats]


def _onnx_samplers(depth):
    """Samplers of ONNX Runtime whose threads spin and do not; none where it is not installed."""
    if _onnxruntime() is None:
        return []
    from .torch_nets import noisy_cifar_resnet

    model = export_onnx(noisy_cifar_resnet(depth))
    return [_sampler(onnx_function(model, spinning)) for spinning in (True, False)]


def _onnxruntime():
    """The module, or None where it or the exporter is not installed."""
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

    # It warns of networks that are not installed, and of what it calls in PyTorch itself.
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
