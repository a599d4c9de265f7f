"""Benchmark: samples per second of our jitted sampler, PyTorch eager and ONNX Runtime, in one run on this machine.

All sides draw noise, add it, normalise, run the same ResNet and count classes. Ours is converted from PyTorch's
weights; ONNX Runtime's graph is exported from PyTorch's network. A second row is the network as a program of
torch.export (.pt2). ONNX Runtime gets its noise from PyTorch, whose generator is faster than NumPy's. Each side runs at
its best batch size. PyTorch also runs in its better memory format, and ONNX Runtime with its threads spinning or not.
Turns alternate, and medians count.

It also prints the time from the checkpoint file to the first certificate by QCRS, and the number of programs of the
network that were compiled on the way. --python adds a row for the JAX of each of these interpreters, all timed in one
run. Needs PyTorch: pip install 'qcrs_jax[bench]'. ONNX Runtime is shown as "-" where it is not installed.

If JAX finds a GPU, the sides run on that GPU: our sampler in float32 (with TF32, and with full precision) and in
bfloat16, PyTorch eager, and torch.compile. Each is timed at the best of several options: batch size, images in step,
joined columns, blocks unrolled or not, the layout of convolutions; compilers and number formats of PyTorch. It also
prints the share of noise and counting, compilation time, memory, and the time from the file to the first certificate.
If PyTorch sees no CUDA, only ours is timed.

With --tpu nothing is timed. The sampler is compiled for a TPU v5e, which need not be there, and the compiler's own cost
model predicts its time, step by step.
"""

import importlib.util
import sys
from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.extras import needed_for


def add_arguments(parser):
    add = parser.add_argument
    add("--depths", type=int, nargs="+", default=[20, 110], help="on a CPU: CIFAR ResNets to time (default: 20 110)")
    add("--batches", type=int, nargs="+", help="batch sizes to try (default: 8 to 256 on a CPU)")
    add("--seconds", type=float, default=3.0, help="approximate length of a turn (default: 3)")
    add("--turns", type=int, default=7, help="turns of each side at its best batch size (default: 7)")
    add(
        "--python",
        nargs="+",
        default=[sys.executable],
        metavar="FILE",
        help="on a CPU: interpreters with qcrs_jax and some version of JAX, one row each (default: this one)",
    )
    add("--minutes", type=float, help="on a GPU: time limit; omitted parts are reported (default: no limit)")
    add(
        "--try",
        dest="tries",
        nargs="+",
        metavar="OPTION=VALUES",
        help="on a GPU: values of an option to try, such as joined=none,2x2 unrolled=no,yes images=1,4 "
        "layout=free,nhwc compiler=default (default: all known ones)",
    )
    add("--tpu", type=Path, metavar="FOLDER", help="predict for a TPU v5e instead, with the libtpu in FOLDER")
    add(
        "--networks",
        nargs="+",
        default=["cifar_resnet110", "resnet50"],
        choices=["cifar_resnet110", "resnet50"],
        help="with --tpu, and on a GPU: networks to run (default: both)",
    )


def run(args):
    if importlib.util.find_spec("qcrs_jax.experiments.bench") is None:
        raise UserError("benchmark needs a checkout of qcrs_jax: run it there, after pip install -e '.[cli,bench]'")

    from ..bench.speed import Turns, compare, onnx_runtime

    if args.tpu:
        from ..bench.tpu_prediction import run

        return run(args.tpu, args.networks)
    from ..bench import gpu

    gpu.share_the_card()
    from qcrs_jax.sampling.devices import choose_devices

    if choose_devices()[0].platform == "gpu":
        return gpu.run(args.networks, args.tries or [], args.batches, args.seconds, args.turns, args.minutes)
    batches = args.batches or [8, 16, 32, 64, 128, 256]
    asked = Turns(args.seconds, args.turns, tuple(batches), tuple(args.python))
    with needed_for("the benchmark"):
        import torch
    onnxruntime = onnx_runtime()
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
        for cells in compare(depth, asked):
            print("".join(cell.rjust(width) for cell, (_, width) in zip(cells, columns)), flush=True)
