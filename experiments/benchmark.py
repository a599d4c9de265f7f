"""Benchmark: samples a second of the jitted sampler beside a PyTorch eager loop, in one run, on this machine.

Both draw noise, add it, normalise, run the same ResNet (ours is converted from PyTorch's weights), and count classes.
Each side runs at its best batch size (PyTorch also in its better memory format); turns alternate, and medians count.
Also told: the time from the checkpoint file to the first certificate by QCRS, and how many programs of the network were
compiled on the way. Needs PyTorch: pip install 'qcrs_jax[test]'.

With --tpu nothing is timed: the sampler is compiled for a TPU v5e, which need not be there, and the compiler's own cost
model tells what it would do, step by step.
"""

from pathlib import Path

from qcrs_jax.errors import UserError


def add_arguments(parser):
    add = parser.add_argument
    add("--depths", type=int, nargs="+", default=[20, 110], help="CIFAR ResNets to time (default: 20 110)")
    add("--batches", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256], help="batch sizes to try")
    add("--seconds", type=float, default=3.0, help="length of a turn, roughly (default: 3)")
    add("--turns", type=int, default=7, help="turns of each side at its best batch size (default: 7)")
    add("--tpu", type=Path, metavar="FOLDER", help="predict for a TPU v5e instead, by the libtpu in FOLDER")
    add(
        "--networks",
        nargs="+",
        default=["cifar_resnet110", "resnet50"],
        choices=["cifar_resnet110", "resnet50"],
        help="with --tpu: which to predict (default: both)",
    )


def run(args):
    if args.tpu:
        from .tpu_benchmark import run

        return run(args.tpu, args.networks)
    try:
        import torch
    except ImportError as error:
        raise UserError("the benchmark needs PyTorch: pip install 'qcrs_jax[test]'") from error
    import jax

    from qcrs_jax.parallel import choose_devices

    devices = choose_devices()
    print(
        f"jax {jax.__version__} on {len(devices)} x {devices[0].device_kind}; torch {torch.__version__} on its CPU, "
        f"{torch.get_num_threads()} threads; float32.\nSamples a second, noise and counting included, @ batch size "
        "(ours: of each device)\n"
    )
    columns = (
        ("network", 12),
        ("PyTorch", 14),
        ("qcrs_jax", 14),
        ("ratio", 6),
        ("first result", 13),
        ("compilations", 13),
    )
    print("".join(name.rjust(width) for name, width in columns), flush=True)
    for depth in args.depths:
        cells = _compare(depth, devices, args)
        print("".join(cell.rjust(width) for cell, (_, width) in zip(cells, columns)), flush=True)


def _compare(depth, devices, args):
    import statistics

    ours, first, compilations = _jax_sampler(depth, devices)
    torch_samplers = [_torch_sampler(depth, channels_last) for channels_last in (False, True)]
    sides = {"torch": torch_samplers, "jax": [ours]}
    best = {}
    for name, samplers in sides.items():
        trials = {(s, batch): _rate(s, batch, args.seconds / 3) for s in samplers for batch in args.batches}
        best[name] = max(trials, key=trials.get)
    rates = {name: [] for name in sides}
    for _ in range(args.turns):
        for name, choice in best.items():
            rates[name].append(_rate(*choice, args.seconds))
    median = {name: statistics.median(values) for name, values in rates.items()}
    shown = [f"{median[name]:,.0f} @{best[name][1]}" for name in ("torch", "jax")]
    return f"ResNet-{depth}", *shown, f"{median['jax'] / median['torch']:.2f}", f"{first:.2f} s", str(compilations)


def _rate(sampler, batch, seconds):
    """Samples a second over about so many seconds; the first calls, which may compile, do not count."""
    import time

    sampler(batch, batch)
    started = time.perf_counter()
    sampler(batch, 4 * batch)
    n = max(1, round(4 * seconds / (time.perf_counter() - started))) * batch
    started = time.perf_counter()
    sampler(batch, n)
    return n / (time.perf_counter() - started)


def _torch_sampler(depth, channels_last):
    import torch

    from .torch_nets import CifarResNet, randomise

    net = randomise(CifarResNet(depth))
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    mean = torch.tensor([0.4914, 0.4822, 0.4465])[:, None, None]
    std = torch.tensor([0.2023, 0.1994, 0.2010])[:, None, None]
    image = torch.rand(3, 32, 32)

    def sample(batch, n):
        counts = torch.zeros(10, dtype=torch.int64)
        with torch.inference_mode():
            for _ in range(n // batch):
                noisy = image + 0.25 * torch.randn(batch, 3, 32, 32)
                counts += torch.bincount(net((noisy - mean) / std).argmax(1), minlength=10)
        return counts

    return sample


def _jax_sampler(depth, devices):
    """Our sampler, the seconds to its first certificate, and the programs compiled for that."""
    import tempfile
    import time

    import jax
    import numpy as np
    import torch

    from qcrs_jax import QCRS, certify, load_classifier

    from .torch_nets import CifarResNet, randomise

    image = np.random.default_rng(0).uniform(size=(32, 32, 3)).astype(np.float32)
    key, options = jax.random.key(0), {"n": 100, "devices": devices, "search": QCRS(0.08, 0.9)}
    # What is compiled once for every classifier, such as the folding of keys, is not the network's.
    certify(lambda x: x.mean((1, 2)), image, 0.25, key=key, **options)
    compilations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compilations.append(name) if name.endswith("backend_compile_duration") else None
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pth.tar"
        weights = {f"1.{k}": v for k, v in randomise(CifarResNet(depth)).state_dict().items()}
        torch.save({"arch": f"cifar_resnet{depth}", "state_dict": weights}, file)
        started = time.perf_counter()
        classify = load_classifier(file).classify
        before = len(compilations)
        certify(classify, image, 0.25, key=key, **options)
        first = time.perf_counter() - started

    def sample(batch, n):
        return certify(classify, image, 0.25, key=key, n0=1, n=max(n, 10), batch_size=batch, devices=devices).counts

    return sample, first, len(compilations) - before
