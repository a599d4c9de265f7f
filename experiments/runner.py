"""What the commands over a data set share: flags, the classifier and its images, results that a rerun continues."""

import concurrent.futures
import dataclasses
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

from qcrs_jax.convert.command import NORMALIZATION_HELP

from qcrs_jax.errors import UserError

from .arguments import add_data_arguments


def add_input_arguments(parser, sweep=True):
    """Adds the flags of checkpoint and data set; with `sweep`, also those of a results file over its images."""
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", type=Path, help="converted directory or PyTorch file")
    if sweep:
        add("results", metavar="RESULTS", type=Path, help="results file to write or to resume")
    add = add_data_arguments(parser).add_argument
    add(
        "--resize",
        type=int,
        metavar="S",
        help="resize the short side of each image to S and cut what the network takes from its centre, as is done with "
        "ImageNet (S = 256 for 224); by default images have the right size already",
    )
    add("--split", choices=["train", "test"], default="test", help="default: test")
    if not sweep:
        parser.set_defaults(skip=1, max=-1, on_error="stop")
        return
    add(
        "--on_error",
        choices=["stop", "skip"],
        default="stop",
        help="what to do about an image or a label that does not fit: stop, or say so and go on without the image "
        "(default: stop)",
    )
    add("--skip", type=int, default=1, metavar="K", help="only images 0, K, 2K, ... (default: 1, all)")
    add("--max", type=int, default=-1, metavar="M", help="stop before image M (default: -1, the end)")


def add_program_arguments(parser, seed=True):
    add = parser.add_argument_group("program").add_argument
    add("--batch", type=int, help="noisy copies per forward pass of a device (default: 16 on a CPU, 500 elsewhere)")
    if seed:
        add("--seed", type=int, default=0, help="seed of all noise (default: 0)")
        add(
            "--prng",
            choices=["threefry", "rbg"],
            default="threefry",
            help="generator of the noise: threefry, or rbg, XLA's own, whose numbers depend on the platform and on "
            "jaxlib's version (default: threefry)",
        )
    add("--macer", action="store_true", help="the checkpoint is MACER's: images are not normalised")
    add("--normalization", help=NORMALIZATION_HELP)


def check_arguments(args) -> None:
    """Raises UserError for a flag of these out of its range, before anything slow is imported or read."""
    if args.skip < 1:
        raise UserError(f"--skip must be at least 1, not {args.skip}")
    if args.batch is not None and args.batch < 1:
        raise UserError(f"--batch must be at least 1, not {args.batch}")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed must lie in [0, 2**32), not {args.seed}")
    if args.macer and args.normalization not in (None, "none"):
        raise UserError("--macer says that images are not normalised; it does not go with --normalization")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """An opened classifier and data set, on the devices of this machine.

    program: batch_size and devices, as `certify` takes them.
    circumstances: what decides the results beside a task's own numbers.
    provenance: where and with what the run was started; a rerun may differ.
    """

    classifier: object
    dataset: object
    classify: Callable
    program: dict
    circumstances: dict
    provenance: dict
    checkpoint: Path
    seed: int
    prng: str

    def read(self, index: int):
        """Image and label at `index`. Raises UserError where it cannot be read or has another shape."""
        from qcrs_jax.convert.check import fit_image

        image, label = self.dataset[index]
        return fit_image(self.classifier.spec, self.dataset, index, image, self.checkpoint), label

    def key(self, index: int):
        """The key of all noise of the image at `index`."""
        import jax

        from qcrs_jax.noise import IMPLEMENTATIONS

        return jax.random.fold_in(jax.random.key(self.seed, impl=IMPLEMENTATIONS[self.prng]), index)


def open_inputs(args) -> Inputs:
    """The checkpoint and the data set that `args` name; prints which classifier it is.

    Raises:
        UserError: one of them cannot be opened, or they do not fit.
    """
    import jax

    devices = local_devices()  # before anything touches them

    from qcrs_jax.convert.check import check_fit

    from qcrs_jax import load_classifier
    from qcrs_jax.certificate import replicated
    from qcrs_jax.data import load_dataset
    from qcrs_jax.image_files import resized
    from qcrs_jax.sampling import default_batch_size

    classifier = load_classifier(args.checkpoint, "none" if args.macer else args.normalization)
    dataset = load_dataset(args.dataset, args.data_dir, args.split, args.on_error)
    check_fit(classifier.spec, dataset, args.checkpoint)
    spec = classifier.spec
    if args.resize is not None:
        dataset = resized(dataset, args.resize, *spec.image_shape[:2])
    print(f"{args.checkpoint}: {spec.arch}, {spec.num_classes} classes, normalisation {spec.mean} / {spec.std}")
    if args.macer and spec.source.get("layout") not in ("MACER", None):
        print(f"warning: its layout is {spec.source['layout']}'s, not MACER's; is --macer right?")
    if spec.source.get("sigma", args.sigma) != args.sigma:
        print(f"warning: it was trained at sigma {spec.source['sigma']:g}, and --sigma is {args.sigma:g}")
    batch_size = args.batch or default_batch_size()
    return Inputs(
        classifier=classifier,
        dataset=dataset,
        classify=jax.device_put(classifier.classify, replicated(devices)),
        program={"batch_size": batch_size, "devices": devices},
        circumstances=_circumstances(classifier, dataset, args.prng),
        provenance=_provenance(args, dataset, batch_size, devices),
        checkpoint=args.checkpoint,
        seed=args.seed,
        prng=args.prng,
    )


def one_record(index, label, seconds, fields) -> list:
    """The one line of an image: a Record of `fields`, which are those of its answer."""
    from qcrs_jax.records import Record

    return [Record(idx=index, label=label, correct=fields["predict"] == label, seconds=seconds, **fields)]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is done at every image.

    request: the numbers that decide the results, for the sidecar.
    answer: (classify, image, key=, batch_size=, devices=) -> what is found out about the image.
    score: the name of the figure that the progress bar shows, and what each record adds to its mean.
    records: (index, label, seconds, answer) -> the lines that it gives.
    file: how `Writer` writes and reads these lines, where they are not those of results.
    done: records -> indices of the images that need nothing more.
    """

    request: dict
    answer: Callable
    score: tuple[str, Callable] | None = None
    records: Callable = one_record
    file: dict = dataclasses.field(default_factory=dict)
    done: Callable = lambda records: {record.idx for record in records}


def run_over_images(task: Task | Callable[[int], Task], args) -> Path:
    """Answers image by image, the lines of each flushed; returns the results file.

    Raises:
        UserError: the checkpoint, the data set or the results file do not fit; lines already written stay.
    """
    from qcrs_jax.convert.check import class_names
    from tqdm import tqdm

    from qcrs_jax.records import Writer

    inputs = open_inputs(args)
    data = inputs.dataset
    end = len(data) if args.max < 0 else min(args.max, len(data))
    indices = range(0, end, args.skip)
    if not indices:
        raise UserError(f"--max {args.max} leaves no image")
    if args.on_error == "stop":  # before there is a results file
        inputs.read(0)
    print(f"{data.name} ({data.source}): {len(indices)} of {len(data)} images; classes {class_names(data)}")
    if callable(task):  # it depends on the number of images
        task = task(len(indices))
    request = {**task.request, **inputs.circumstances}
    name, score = task.score or ("", lambda record: 0)
    with Writer(args.results, request, inputs.provenance, **task.file) as writer:
        scores = [score(record) for record in writer.done]
        done, left_out = task.done(writer.done), 0
        if done:
            print(f"{args.results}: {len(done)} of {len(indices)} images are done; going on behind them")
        todo = [index for index in indices if index not in done]
        progress = tqdm(
            _read_ahead(inputs.read, todo), initial=len(done), total=len(indices), unit="img", dynamic_ncols=True
        )
        for index, read in progress:
            started = time.perf_counter()
            try:
                image, label = read()
            except UserError as error:
                if args.on_error == "stop":
                    raise UserError(
                        f"image {index}: {error}\nThe {len(done)} results so far stay in {args.results}; the same "
                        "command goes on there, and leaves such images out with --on_error skip"
                    ) from error
                progress.write(f"image {index} is left out: {error}")
                left_out += 1
                continue
            answer = task.answer(inputs.classify, image, key=inputs.key(index), **inputs.program)
            records = task.records(index, label, time.perf_counter() - started, answer)
            writer.write(*records)
            done.add(index)
            scores += map(score, records)
            if task.score:
                progress.set_postfix_str(f"{name} {sum(scores) / len(scores):.4f}")
    if not done:
        raise UserError(f"all {left_out} images were left out; {args.results} holds no results")
    if left_out:
        print(f"{left_out} of {len(indices)} images were left out; the figures are over the other {len(done)}")
    return args.results


def _read_ahead(read, indices):
    """Yields (index, a function that returns what `read` gives there); the next is read while this one is answered."""
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        upcoming = None
        for index, following in itertools.zip_longest(indices, indices[1:]):
            current = upcoming or reader.submit(read, index)
            upcoming = reader.submit(read, following) if following is not None else None
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


def _circumstances(classifier, dataset, prng):
    """What decides the results beside the task's own numbers."""
    import jax

    from qcrs_jax.noise import recorded

    spec = classifier.spec
    return {
        "noise": recorded(prng),
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
