"""Certify a data set: the L2 radius of every image, by QCRS or at a fixed sigma.

CHECKPOINT is a directory that `qcrs-jax convert` wrote or a PyTorch file. RESULTS is a tab-separated file, one line
an image, with a sidecar RESULTS.json. A run that was stopped goes on when the same command is given again.

  qcrs-jax certify models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar cifar_exp --sigma 0.25 \\
      --left 0.08 --right 0.9 --epsilon 0.03
"""

import concurrent.futures
import dataclasses
import itertools
import os
import time
from pathlib import Path

from qcrs_jax.convert.command import NORMALIZATION_HELP

from qcrs_jax.errors import UserError

# Marks what noise a (seed, image, stage, sample) stands for. Another way of drawing it needs another mark.
NOISE = "threefry fold_in(seed, image, stage, draw, sample), jax.random.normal float32"


def add_arguments(parser):
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", type=Path, help="converted directory or PyTorch file")
    add("results", metavar="RESULTS", type=Path, help="results file to write or to resume")
    group = parser.add_argument_group("data")
    add = group.add_argument
    add(
        "--dataset",
        default="cifar10",
        choices=["cifar10", "cifar100", "mnist", "fashion_mnist", "svhn_cropped", "imagenet", "folder", "npz"],
        help="a known data set from its original files or TFDS, a folder of CLASS/IMAGE, or an .npz with x, y "
        "and perhaps class_names "
        "(default: cifar10)",
    )
    add("--data_dir", type=Path, help="where the data set is (default: ./data, ./dataset_cache, ., then TFDS)")
    add(
        "--on_error",
        choices=["stop", "skip"],
        default="stop",
        help="what to do about an image that cannot be read: stop, or say so and go on without it (default: stop)",
    )
    add("--split", choices=["train", "test"], default="test", help="default: test")
    add("--skip", type=int, default=1, metavar="K", help="certify images 0, K, 2K, ... (default: 1, all)")
    add("--max", type=int, default=-1, metavar="M", help="stop before image M (default: -1, the end)")
    group = parser.add_argument_group("method")
    add = group.add_argument
    add("--method", choices=["cohen", "qcrs"], default="qcrs", help="fixed sigma, or sigma per input (default: qcrs)")
    add("--sigma", type=float, required=True, help="noise level that the classifier was trained at")
    add(
        "--search",
        choices=["golden", "bisection", "shrinking", "grid"],
        default="golden",
        help="QCRS: golden section with common random numbers, bisection as published, the published program's ascent "
        "by shrinking strides, or all sigmas EPSILON apart (default: golden)",
    )
    add("--left", type=float, help="QCRS: lower end of the bracket of sigmas (default: 0.25 SIGMA)")
    add("--right", type=float, help="QCRS: upper end (default: 3.5 SIGMA)")
    add("--epsilon", type=float, help="QCRS: width of the bracket at which to stop (default: 0.1 SIGMA)")
    add(
        "--epsilon_step",
        type=float,
        default=0.4,
        help="QCRS bisection and shrinking: the central difference steps EPSILON / EPSILON_STEP to either side "
        "(default: 0.4)",
    )
    add("--gradient_n", type=int, default=500, help="QCRS: samples for each evaluation of the search (default: 500)")
    add("--N0", type=int, default=100, help="samples that select the class (default: 100)")
    add("--N", type=int, default=100_000, help="samples that certify it (default: 100000)")
    add("--alpha", type=float, default=0.001, help="failure probability of each certificate (default: 0.001)")
    group = parser.add_argument_group("program")
    add = group.add_argument
    add("--batch", type=int, help="noisy copies per forward pass of a device (default: 16 on a CPU, 500 elsewhere)")
    add("--seed", type=int, default=0, help="seed of all noise (default: 0)")
    add("--macer", action="store_true", help="the checkpoint is MACER's: images are not normalised")
    add("--normalization", help=NORMALIZATION_HELP)


def run(args):
    from . import table

    request = check(args)  # before anything slow is imported or read
    path = certify_dataset(request, args)
    print()
    table.print_tables([path])


_FLAGS = {"sigma_lower": "--left", "sigma_upper": "--right", "tolerance": "--epsilon", "search_n": "--gradient_n"}


@dataclasses.dataclass(frozen=True)
class Request:
    """The numbers of a run, checked."""

    method: str
    sigma: float
    n0: int
    n: int
    alpha: float
    seed: int
    skip: int
    max: int
    qcrs: object  # a sigma.QCRS, or None


def check(args) -> Request:
    """The checked request of the command's arguments.

    Raises:
        UserError: an impossible request; says which and what would be possible.
    """
    from qcrs_jax.certificate import check_request
    from qcrs_jax.sigma import QCRS

    if args.skip < 1:
        raise UserError(f"--skip must be at least 1, not {args.skip}")
    if args.batch is not None and args.batch < 1:
        raise UserError(f"--batch must be at least 1, not {args.batch}")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed must lie in [0, 2**32), not {args.seed}")
    if args.macer and args.normalization not in (None, "none"):
        raise UserError("--macer says that images are not normalised; it does not go with --normalization")
    try:
        check_request(args.sigma, args.N0, args.N, args.alpha)
        qcrs = None
        if args.method == "qcrs":
            qcrs = QCRS(
                sigma_lower=0.25 * args.sigma if args.left is None else args.left,
                sigma_upper=3.5 * args.sigma if args.right is None else args.right,
                tolerance=0.1 * args.sigma if args.epsilon is None else args.epsilon,
                search=args.search,
                search_n=args.gradient_n,
                epsilon_step=args.epsilon_step,
                alpha=args.alpha,
            )
    except ValueError as error:
        message = str(error)
        for name, flag in _FLAGS.items():
            message = message.replace(name, flag)
        raise UserError(f"impossible request: {message}") from error
    return Request(args.method, args.sigma, args.N0, args.N, args.alpha, args.seed, args.skip, args.max, qcrs)


def certify_dataset(request: Request, args) -> Path:
    """Certifies the data set image by image, each line flushed; returns the results file.

    Raises:
        UserError: the checkpoint, the data set or the results file do not fit; lines already written stay.
    """
    import jax
    from tqdm import tqdm

    devices = local_devices()  # before anything touches them

    from qcrs_jax.convert.check import check_fit, check_image

    from qcrs_jax import certify, load_classifier
    from qcrs_jax.certificate import replicated
    from qcrs_jax.data import load_dataset
    from qcrs_jax.records import Record, Writer
    from qcrs_jax.sampling import default_batch_size

    classifier = load_classifier(args.checkpoint, "none" if args.macer else args.normalization)
    dataset = load_dataset(args.dataset, args.data_dir, args.split)
    check_fit(classifier.spec, dataset, args.checkpoint)
    end = len(dataset) if request.max < 0 else min(request.max, len(dataset))
    indices = range(0, end, request.skip)
    if not indices:
        raise UserError(f"--max {request.max} leaves no image to certify")
    classify = jax.device_put(classifier.classify, replicated(devices))
    batch_size = args.batch or default_batch_size()
    key = jax.random.key(request.seed, impl="threefry2x32")
    spec = classifier.spec
    print(f"{args.checkpoint}: {spec.arch}, {spec.num_classes} classes, normalisation {spec.mean} / {spec.std}")
    if args.macer and spec.source.get("layout") not in ("MACER", None):
        print(f"warning: its layout is {spec.source['layout']}'s, not MACER's; is --macer right?")
    if spec.source.get("sigma", request.sigma) != request.sigma:
        print(f"warning: it was trained at sigma {spec.source['sigma']:g}, and --sigma is {request.sigma:g}")
    provenance = _provenance(args, dataset, batch_size, devices)
    with Writer(args.results, _describe(request, classifier, dataset), provenance) as writer:
        done = {record.idx for record in writer.done}
        total = sum(record.correct * record.radius for record in writer.done)
        if done:
            print(f"{args.results}: {len(done)} of {len(indices)} images are done; going on behind them")
        todo = [index for index in indices if index not in done]
        progress = tqdm(
            _read_ahead(dataset, todo), initial=len(done), total=len(indices), unit="img", dynamic_ncols=True
        )
        for index, read in progress:
            started = time.perf_counter()
            try:
                image, label = read()
                check_image(spec, dataset, index, image, args.checkpoint)
            except UserError as error:
                if args.on_error == "stop":
                    raise
                progress.write(f"image {index} is left out: {error}")
                continue
            result = certify(
                classify,
                image,
                request.sigma,
                key=jax.random.fold_in(key, index),
                n0=request.n0,
                n=request.n,
                alpha=request.alpha,
                qcrs=request.qcrs,
                batch_size=batch_size,
                devices=devices,
            )
            record = Record(
                idx=index,
                label=label,
                predict=int(result.prediction),
                radius=float(result.radius),
                correct=int(result.prediction) == label,
                sigma=float(result.sigma),
                pa_lower=float(result.pa_lower),
                seconds=time.perf_counter() - started,
                search_samples=int(result.search.evaluations) * request.qcrs.search_n if request.qcrs else 0,
                counts0=tuple(result.counts0.tolist()),
                counts=tuple(result.counts.tolist()),
            )
            writer.write(record)
            done.add(index)
            total += record.correct * record.radius
            progress.set_postfix_str(f"ACR {total / len(done):.4f}")
    return args.results


def _read_ahead(dataset, indices):
    """Yields (index, a function that returns image and label); the next is read while this one is certified."""
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        upcoming = None
        for index, following in itertools.zip_longest(indices, indices[1:]):
            current = upcoming or reader.submit(dataset.__getitem__, index)
            upcoming = reader.submit(dataset.__getitem__, following) if following is not None else None
            yield index, current.result


def local_devices():
    """All devices of this machine; a CPU gives one for each core, which is faster than one of many threads."""
    import jax

    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        try:
            jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
        except (RuntimeError, AttributeError):  # JAX is running already, or no such system call on this platform
            pass
    return jax.local_devices()


def _describe(request, classifier, dataset):
    """Everything that decides the results."""
    import jax

    numbers = dataclasses.asdict(request)
    del numbers["max"]  # decides how many lines there are, and none of them
    spec = classifier.spec
    return {
        **numbers,
        "noise": f"{NOISE}, jax_threefry_partitionable={jax.config.jax_threefry_partitionable}",
        "platform": f"{jax.default_backend()}, matmul precision {jax.config.jax_default_matmul_precision}",
        "classifier": {
            "arch": spec.arch,
            "options": spec.options,
            "mean": spec.mean,
            "std": spec.std,
            "weights_sha256": classifier.fingerprint(),
        },
        "dataset": {
            "name": dataset.name,
            "split": dataset.split,
            "fingerprint": dataset.fingerprint,
            "class_names": dataset.class_names,
        },
    }


def _provenance(args, dataset, batch_size, devices):
    """Where and with what the run was started; a rerun may differ."""
    import datetime
    import importlib.metadata
    import platform

    return {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "checkpoint": str(args.checkpoint),
        "data": dataset.source,
        "batch": batch_size,
        "devices": f"{len(devices)} x {devices[0].platform} {devices[0].device_kind}",
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("qcrs_jax", "jax", "jaxlib", "flax", "numpy")},
        },
    }
