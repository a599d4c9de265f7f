"""Train a base classifier under Gaussian noise: Cohen's augmentation, or MACER. Resumes when given again.

OUT_DIR becomes a classifier that `certify` and `export` open; its folder `training` holds the state after the last
epoch, the log and its curve. Defaults are the papers'; `--schedule onecycle` is a short run for small machines.

  qcrs-jax train OUT_DIR --arch cifar_resnet110 --dataset cifar10 --sigma 0.25
  qcrs-jax train OUT_DIR --arch cifar_resnet20 --dataset cifar10 --sigma 0.25 --schedule onecycle
  qcrs-jax train OUT_DIR --arch lenet --dataset mnist --sigma 0.25 --method macer
  qcrs-jax train OUT_DIR --init models/noise_0.25.pth.tar --dataset cifar10 --sigma 0.50 --epochs 10 --lr 0.01
"""

import time
from pathlib import Path

from qcrs_jax.convert.flags import add_opening_arguments

from qcrs_jax.errors import UserError
from qcrs_jax.files import writing

from ..report.training_curve import plot_log
from ..run.training import (
    _accuracy,
    _describe,
    _fill_defaults,
    _method,
    _optimizer,
    _read_ahead,
    _reader,
    _Run,
    _schedule,
    _spec,
    _start,
)
from .flags import add_data_arguments


def add_arguments(parser):
    parser.add_argument("out_dir", metavar="OUT_DIR", type=Path, help="directory to write or to resume")
    add_data_arguments(parser)
    group = parser.add_argument_group("classifier")
    add = group.add_argument
    add("--arch", help="cifar_resnet20, ..., resnet50, lenet, ... (default: that of --init, else cifar_resnet20)")
    add("--init", metavar="CHECKPOINT", help="start from the weights of what certify opens")
    add(
        "--normalization",
        help="cifar10, imagenet, none, or MEAN,.../STD,... (default: cifar10 for CIFAR ResNets under method gaussian, "
        "imagenet for those of ImageNet, else none, as the papers have it)",
    )
    add_opening_arguments(parser, normalization=None)
    group = parser.add_argument_group("method")
    add = group.add_argument
    add("--method", choices=["gaussian", "macer"], default="gaussian", help="default: gaussian")
    add("--sigma", type=float, required=True, help="standard deviation of the noise, pixels in [0, 1]")
    add("--copies", type=int, default=16, help="MACER: noisy copies of an image, k (default: 16)")
    add("--lbd", type=float, help="MACER: weight of the robustness loss (default: 12 below sigma 0.5, else 4)")
    add("--gamma", type=float, default=8.0, help="MACER: hinge on the gap (default: 8)")
    add("--beta", type=float, default=16.0, help="MACER: inverse temperature (default: 16)")
    group = parser.add_argument_group("optimisation")
    add = group.add_argument
    add(
        "--schedule",
        choices=["step", "onecycle"],
        default="step",
        help="learning rate: divided by 10 at 1/3 and 2/3 of the epochs (MACER: 5/11 and 10/11), or one cycle "
        "(default: step)",
    )
    add("--epochs", type=int, help="default: 90, MACER 440; with onecycle 14, MACER 6")
    add(
        "--batch", type=int, help="images of a step, on all devices together (default: 256, MACER 64; onecycle 128, 64)"
    )
    add("--lr", type=float, help="learning rate, or its peak (default: 0.1, MACER 0.01; onecycle 0.2, 0.05)")
    add("--momentum", type=float, default=0.9, help="default: 0.9")
    add("--weight_decay", type=float, help="default: 1e-4, MACER and onecycle 5e-4")
    add("--augment", choices=["crop_flip", "none"], help="default: crop_flip for images of 3 channels, else none")
    add("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the passes (default: float32)")
    add("--seed", type=int, default=0, help="of weights, order, augmentation and noise (default: 0)")
    add("--test_skip", type=int, default=1, metavar="K", help="test on images 0, K, 2K, ... (default: 1, all)")


def run(args):
    """Trains until the last epoch; every epoch is saved.

    Raises:
        UserError: impossible settings, a data set that does not fit, or OUT_DIR holds a run of other settings, or one
            that is still going on.
    """
    from ..run.inputs import open_devices

    devices = open_devices()  # before anything touches them

    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec
    from tqdm import tqdm

    from qcrs_jax.models.checkpoint import write_classifier
    from qcrs_jax.sampling.devices import replicated
    from qcrs_jax.training import Trainer, crop_and_flip

    from ..run.data_sets import open_train_and_test

    _fill_defaults(args)
    if args.batch % len(devices):
        raise UserError(f"--batch {args.batch} is no multiple of the {len(devices)} devices that share it")
    train, test = open_train_and_test(args)
    steps = len(train) // args.batch
    if steps == 0:
        raise UserError(f"--batch {args.batch} is more than the {len(train)} images of {train.source}")
    start = _start(args)
    spec = _spec(args, train, start)
    schedule = _schedule(args, steps)
    trainer = Trainer(
        spec,
        _method(args),
        _optimizer(args, schedule),
        augment=crop_and_flip() if args.augment == "crop_flip" else None,
        dtype=jnp.dtype(args.dtype),
    )
    request = _describe(args, spec, train, test) | ({"init": start.fingerprint()} if start else {})
    with _Run(args.out_dir, request) as saved:
        everywhere = replicated(devices)
        shared = NamedSharding(everywhere.mesh, PartitionSpec("devices"))
        state = jax.device_put(trainer.init(args.seed, start), everywhere)
        first, state, rows = saved.restore(state)
        if first:
            print(f"{args.out_dir}: {first} of {args.epochs} epochs are done; going on behind them")
        what = f"{spec.arch}, {args.method}, sigma {args.sigma:g}"
        print(f"{what}: {len(train)} images of {train.source}, {len(devices)} devices")
        key = jax.random.key(args.seed, impl="threefry2x32")
        key_train, key_test = jax.random.split(key)
        if first < args.epochs:
            read_train, read_test = _reader(train, "reading training images"), _reader(test, "reading test images")
        for epoch in range(first, args.epochs):
            started = time.perf_counter()
            order = np.random.default_rng([args.seed, epoch]).permutation(len(train))[: steps * args.batch]
            batches = _read_ahead(read_train, order.reshape(steps, args.batch))
            totals = []
            progress = tqdm(batches, total=steps, desc=f"epoch {epoch + 1}/{args.epochs}", unit="step", leave=False)
            for batch in progress:
                state, loss, hits = trainer.step(state, *jax.device_put(batch, shared), key_train)
                totals.append((loss, hits))
                if len(totals) % 20 == 0:
                    progress.set_postfix_str(f"loss {float(loss):.3f}")
            loss, train_accuracy = np.mean(jax.device_get(totals), axis=0)
            if not np.isfinite(loss):
                raise UserError(f"the loss of epoch {epoch + 1} is {loss}; choose a smaller --lr than {args.lr:g}")
            clean, noisy = (
                _accuracy(trainer, state, read_test, range(0, len(test), args.test_skip), sigma, key_test, shared)
                for sigma in (0.0, args.sigma)
            )
            rate = float(schedule((epoch + 1) * steps - 1))
            seconds = time.perf_counter() - started
            rows.append((epoch + 1, rate, float(loss), float(train_accuracy), clean, noisy, seconds))
            saved.save(state, rows)
            left = (args.epochs - epoch - 1) * seconds
            print(
                f"epoch {epoch + 1}/{args.epochs}: loss {loss:.4f}, accuracy {clean:.4f} clean, "
                f"{noisy:.4f} under noise, {seconds:.0f} s; about {left / 60:.0f} min left",
                flush=True,
            )
        source = {"trained_by": "qcrs_jax", "sigma": args.sigma, **request}
        with writing(args.out_dir):
            write_classifier(trainer.classifier(state, source), args.out_dir)
            plot_log(rows, args.out_dir / "training" / "curve.png", what)
    print(f"{args.out_dir}: ready for `qcrs-jax certify {args.out_dir} RESULTS --sigma {args.sigma:g} ...`")
