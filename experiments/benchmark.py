"""Benchmark: samples a second of the jitted sampler beside a PyTorch eager loop, in one run, on this machine.

Both draw noise, add it, normalise, run the same ResNet (our half is converted from PyTorch's weights), and count
classes. Each side runs at its best batch size; turns alternate, and the best of the turns counts. Prints rates,
ratios, the time to the first result, and the number of compilations. Needs PyTorch (`pip install qcrs_jax[test]`).
"""

from pathlib import Path

from qcrs_jax.errors import UserError


def add_arguments(parser):
    add = parser.add_argument
    add("--depths", type=int, nargs="+", default=[20, 110], help="CIFAR ResNets to time (default: 20 110)")
    add("--batches", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256], help="batch sizes to try")
    add("--seconds", type=float, default=4.0, help="length of a turn, roughly (default: 4)")
    add("--turns", type=int, default=3, help="turns of each side at its best batch size (default: 3)")


def run(args):
    try:
        import torch
    except ImportError as error:
        raise UserError("the benchmark needs PyTorch: pip install 'qcrs_jax[test]'") from error
    import jax

    print(
        f"jax {jax.__version__} on {jax.devices()[0].device_kind}; torch {torch.__version__}, CPU, "
        f"{torch.get_num_threads()} threads; float32; samples a second, noise and counting included\n"
    )
    header = (
        f"{'network':<12} {'PyTorch':>14} {'qcrs_jax':>14} {'ratio':>6}   {'first result':>12} {'compilations':>12}"
    )
    print(header + "\n" + "-" * len(header))
    for depth in args.depths:
        print(_compare(depth, args), flush=True)


def _compare(depth, args):
    theirs = _torch_sampler(depth)
    ours, first, compilations = _jax_sampler(depth)
    rates = {}
    for name, sampler in (("torch", theirs), ("jax", ours)):
        trial = {batch: _rate(sampler, batch, args.seconds / 2) for batch in args.batches}
        rates[name] = max(trial, key=trial.get), 0.0
    for _ in range(args.turns):
        for name, sampler in (("torch", theirs), ("jax", ours)):
            batch, best = rates[name]
            rates[name] = batch, max(best, _rate(sampler, batch, args.seconds))
    (torch_batch, torch_rate), (jax_batch, jax_rate) = rates["torch"], rates["jax"]
    cells = [f"{rate:,.0f} @{batch}" for rate, batch in ((torch_rate, torch_batch), (jax_rate, jax_batch))]
    return (
        f"{f'ResNet-{depth}':<12} {cells[0]:>14} {cells[1]:>14} {jax_rate / torch_rate:>6.2f}   "
        f"{first:>10.2f} s {compilations():>12}"
    )


def _rate(sampler, batch, seconds):
    """Samples a second; the first call (compilation) does not count."""
    import time

    sampler(batch, batch)
    started = time.perf_counter()
    sampler(batch, 2 * batch)
    n = max(2, int(seconds / (time.perf_counter() - started) * 2)) * batch
    started = time.perf_counter()
    sampler(batch, n)
    return n / (time.perf_counter() - started)


def _torch_sampler(depth):
    import torch

    from .torch_nets import CifarResNet, randomise

    torch.manual_seed(0)
    net = randomise(CifarResNet(depth)).to(memory_format=torch.channels_last)
    mean = torch.tensor([0.4914, 0.4822, 0.4465])[:, None, None]
    std = torch.tensor([0.2023, 0.1994, 0.2010])[:, None, None]
    image = torch.rand(3, 32, 32)

    def sample(batch, n):
        counts = torch.zeros(10, dtype=torch.int64)
        with torch.inference_mode():
            for _ in range(n // batch):
                x = image.expand(batch, -1, -1, -1)
                noisy = x + 0.25 * torch.randn(x.shape)
                counts += torch.bincount(net((noisy - mean) / std).argmax(1), minlength=10)
        return counts

    return sample


def _jax_sampler(depth):
    import tempfile
    import time

    import jax
    import numpy as np
    import torch

    from qcrs_jax import QCRS, certify, load_classifier, sample_counts

    from .torch_nets import CifarResNet, randomise

    compilations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compilations.append(name) if name.endswith("backend_compile_duration") else None
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pth.tar"
        weights = {f"1.{k}": v for k, v in randomise(CifarResNet(depth)).state_dict().items()}
        torch.save({"arch": f"cifar_resnet{depth}", "state_dict": weights}, file)
        classify = load_classifier(file).classify
    image = np.random.default_rng(0).uniform(size=(32, 32, 3)).astype(np.float32)
    key = jax.random.key(0)
    sampler = jax.jit(sample_counts, static_argnames="batch_size")
    before = len(compilations)
    started = time.perf_counter()
    certify(classify, image, 0.25, key=key, n=100, qcrs=QCRS(0.08, 0.9, search_n=32), batch_size=32)
    first, during = time.perf_counter() - started, len(compilations) - before
    return (
        lambda batch, n: sampler(classify, image, 0.25, key, n, batch_size=batch).block_until_ready(),
        first,
        (lambda: during),
    )
