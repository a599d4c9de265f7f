"""What the commands over a data set share: flags, the classifier and its images, results that a rerun continues."""

import argparse
import contextlib
import dataclasses
import operator
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from qcrs_jax.convert.command import NORMALIZATION_HELP

from qcrs_jax.errors import UserError

from .arguments import add_data_arguments
from .pipeline import Launcher, Stopped, groups, in_turn, read_ahead, stopping


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


def add_program_arguments(parser, sweep=True, seed=True):
    """Adds the flags of the program; with `seed` those of a run of it, with `sweep` also those of one over images."""
    add = parser.add_argument_group("program").add_argument
    auto = ", or auto: the fastest of a few, measured in some seconds at the start; changes no count" if seed else ""
    add(
        "--batch",
        type=(lambda text: text if text == "auto" else int(text)) if seed else int,
        metavar="B",
        help=f"noisy copies per forward pass of a device{auto} (default: 16 on a CPU, 500 elsewhere)",
    )
    parser.set_defaults(devices=None, images=None, shard=None, distributed=False, coordinator=None, process=None)
    if seed:
        add(
            "--devices",
            type=lambda text: None if text == "all" else int(text),
            metavar="all|K",
            help="how many devices of this machine, or of each host, share the work (default: all; a CPU gives one a "
            "core)",
        )
        add("--seed", type=int, default=0, help="seed of all noise (default: 0)")
        add(
            "--prng",
            choices=["threefry", "rbg"],
            default="threefry",
            help="generator of the noise: threefry, or rbg, XLA's own, whose numbers depend on the platform and on "
            "jaxlib's version (default: threefry)",
        )
    add(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="in which the network computes; noise, sums and counts stay as they are (default: %(default)s)",
    )
    add("--macer", action="store_true", help="the checkpoint is MACER's: images are not normalised")
    add("--normalization", help=NORMALIZATION_HELP)
    if sweep and seed:
        _add_fleet_arguments(parser)


def _add_fleet_arguments(parser):
    add = parser.add_argument_group("many images, many machines; none of these changes a count").add_argument
    add(
        "--images",
        type=int,
        metavar="K",
        help="images that share each forward pass, so that the few samples of a selection or a search fill it as well "
        "(default: 1 on a CPU; elsewhere by the number of devices and the size of the images)",
    )
    add(
        "--shard",
        type=part,
        metavar="I/N",
        help="only every Nth of the images, from the Ith: N machines certify a data set, 1/N to N/N, without knowing "
        "of each other; tables and plots read their files as one run",
    )
    add(
        "--distributed",
        action="store_true",
        help="share the noisy copies with all processes that were started alike: under Slurm, MPI, Kubernetes and on "
        "TPU pods JAX finds them; the first one writes RESULTS",
    )
    add("--coordinator", metavar="HOST:PORT", help="where JAX does not find them: the address of the first process")
    add("--process", type=part, metavar="I/N", help="and which of how many this one is; the first is 1/N")


def part(text: str) -> tuple[int, int]:
    """(i, n) of "i/n", with 1 <= i <= n."""
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, with I from 1 to N")
    return int(i), int(n)


def check_arguments(args) -> None:
    """Raises UserError for a flag of these out of its range, before anything slow is imported or read."""
    if args.skip < 1:
        raise UserError(f"--skip must be at least 1, not {args.skip}")
    if args.batch not in (None, "auto") and args.batch < 1:
        raise UserError(f"--batch must be at least 1, not {args.batch}")
    if args.batch == "auto" and args.distributed:
        raise UserError("--batch auto measures one machine; give all hosts of --distributed one number")
    for flag in ("devices", "images"):
        if getattr(args, flag) is not None and getattr(args, flag) < 1:
            raise UserError(f"--{flag} must be at least 1, not {getattr(args, flag)}")
    if (args.coordinator or args.process) and not args.distributed:
        raise UserError("--coordinator and --process tell where --distributed finds the others; give it too")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed must lie in [0, 2**32), not {args.seed}")
    if args.macer and args.normalization not in (None, "none"):
        raise UserError("--macer says that images are not normalised; it does not go with --normalization")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """An opened classifier and data set, on the devices of the run.

    batch: noisy copies per forward pass of a device.
    circumstances: what decides the results beside a task's own numbers.
    provenance: where and with what the run was started; a rerun may differ.
    """

    classifier: object
    dataset: object
    classify: Callable
    batch: int
    devices: list
    circumstances: dict
    provenance: dict
    checkpoint: Path
    seed: int
    prng: str

    @property
    def program(self) -> dict:
        """What `certify` is told of one image at a time."""
        return {"batch_size": self.batch, "devices": self.devices}

    def read(self, index: int):
        """Image and label at `index`. Raises UserError where it cannot be read or has another shape."""
        from qcrs_jax.convert.check import fit_image

        image, label = self.dataset[index]
        return fit_image(self.classifier.spec, self.dataset, index, image, self.checkpoint), label

    def keys(self, indices):
        """The keys of all noise of the images at `indices`."""
        import jax
        import numpy as np

        from qcrs_jax.noise import IMPLEMENTATIONS

        seed = jax.random.key(self.seed, impl=IMPLEMENTATIONS[self.prng])
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(seed, np.asarray(indices, np.uint32))


def open_inputs(args) -> Inputs:
    """The checkpoint and the data set that `args` name; prints which classifier it is.

    Raises:
        UserError: one of them cannot be opened, or they do not fit.
    """
    import jax
    from qcrs_jax.convert.check import check_fit

    from qcrs_jax import load_classifier
    from qcrs_jax.data import load_dataset
    from qcrs_jax.image_files import resized
    from qcrs_jax.parallel import choose_devices, join_hosts, place
    from qcrs_jax.sampling import default_batch_size

    from .batch_size import fastest_batch

    if args.distributed:
        join_hosts(args.coordinator, args.process)
    devices = choose_devices(args.devices)  # before anything touches them
    if jax.process_index() > 0:
        sys.stdout = open(os.devnull, "w")  # the first one tells
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
    classify = place(classifier.inference(dtype=args.dtype), devices)
    if args.batch == "auto":
        batch = fastest_batch(classify, spec.image_shape, devices)
    else:
        batch = args.batch or default_batch_size()
    return Inputs(
        classifier=classifier,
        dataset=dataset,
        classify=classify,
        batch=batch,
        devices=devices,
        circumstances=_circumstances(classifier, dataset, args),
        provenance=_provenance(args, dataset, batch, devices),
        checkpoint=args.checkpoint,
        seed=args.seed,
        prng=args.prng,
    )


def default_images(devices, image_shape) -> int:
    """Images that share a forward pass when none is asked for.

    On a CPU one. Elsewhere so many that all devices have a share in a query of 500 samples, or, if the images are
    small, in one of 100; a device's share of a batch is a batch's part of each image.
    """
    if devices[0].platform == "cpu":
        return 1
    return min((5 if image_shape[0] * image_shape[1] <= 64 * 64 else 1) * len(devices), 32)


def one_record(index, label, seconds, fields) -> list:
    """The one line of an image: a Record of `fields`, which are those of its answer."""
    from qcrs_jax.records import Record

    return [Record(idx=index, label=label, correct=fields["predict"] == label, seconds=seconds, **fields)]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is done at every image.

    request: the numbers that decide the results, for the sidecar.
    start: (classify, images, key=, batch_size=, devices=) -> a function that waits for what is found out about the
        images, as arrays: of one image (h, w, c), or with an axis in front for several.
    score: the name of the figure that the progress bar shows, and what each record adds to its mean.
    records: (index, label, seconds, what was found out) -> the lines that an image gives.
    file: how `Writer` writes and reads these lines, where they are not those of results.
    done: records -> indices of the images that need nothing more.
    own: (indices, labels) -> further arguments of `start`, arrays of one value for each image.
    even: whether all images take equally many samples. Others are answered one at a time, unless asked: together they
        take as long as the one that takes most.
    """

    request: dict
    start: Callable
    records: Callable
    score: tuple[str, Callable] | None = None
    file: dict = dataclasses.field(default_factory=dict)
    done: Callable = lambda records: {record.idx for record in records}
    own: Callable = lambda indices, labels: {}
    even: bool = True


def run_over_images(task: Task | Callable[[int], Task], args) -> Path | None:
    """Answers all images, some at a time, the lines of each flushed; returns the results file.

    Of several hosts all compute; the first one writes, and the others get None. A task that depends on the number of
    images is given as a function of it.

    Raises:
        UserError: the checkpoint, the data set or the results file do not fit; lines already written stay.
        Stopped: by a signal; lines already written stay.
    """
    import jax
    from qcrs_jax.convert.check import class_names
    from tqdm import tqdm

    from qcrs_jax.parallel import hosts_agree, word_of_the_first
    from qcrs_jax.records import Writer, without_class

    inputs = open_inputs(args)
    data, devices = inputs.dataset, inputs.devices
    indices, whole = indices_of(args, data)
    if callable(task):
        task = task(len(whole))
    request = {**task.request, **inputs.circumstances}
    if args.shard:
        request["shard"] = {"part": args.shard[0], "of": args.shard[1], "images": len(whole)}
    if args.on_error == "stop":  # before there is a results file
        inputs.read(indices[0])
    together = args.images or (default_images(devices, inputs.classifier.spec.image_shape) if task.even else 1)
    hosts_agree((request, indices, inputs.batch, together), devices)
    first = jax.process_index() == 0
    print(f"{data.name} ({data.source}): {len(indices)} of {len(data)} images; classes {class_names(data)}")
    name, score = task.score or ("", lambda record: 0)
    left_out = []
    provenance = {**inputs.provenance, "images": together}
    with Writer(args.results, request, provenance, **task.file) if first else contextlib.nullcontext() as writer:
        before = writer.done if first else []
        _check_records(before, indices if args.shard else range(0, len(data), args.skip), data.labels, args.results)
        done, scores = task.done(before), [score(record) for record in before]
        done = {i for i, is_done in zip(indices, word_of_the_first([i in done for i in indices])) if is_done}
        if done:
            print(f"{args.results}: {len(done)} of {len(indices)} images are done; going on behind them")
        todo = [index for index in indices if index not in done]
        progress = tqdm(initial=len(done), total=len(indices), unit="img", dynamic_ncols=True, disable=not first)

        def leave_out(index, error):
            progress.write(f"image {index} is left out: {error}")
            left_out.append(index)

        calls = groups(
            read_ahead(inputs.read, todo, together), together, leave_out if args.on_error == "skip" else None
        )
        launch = Launcher(starter(task, inputs, todo, together), -(-inputs.batch // together), progress.write)
        try:
            with progress, stopping():
                started = time.perf_counter()
                for call, answers in in_turn(calls, launch):
                    ended = time.perf_counter()
                    seconds, started = (ended - started) / len(call), ended
                    records = [
                        record
                        for (index, _, label), answer in zip(call, answers)
                        for record in task.records(index, label, seconds, answer)
                    ]
                    if first:
                        writer.write(*records)
                    for index, _, _ in call:
                        spoilt, copies = without_class([r for r in records if r.idx == index], request)
                        if spoilt:
                            why = "count for no class: a logit is not finite"
                            progress.write(f"image {index}: {spoilt} of {copies} noisy copies {why}")
                    done |= {index for index, _, _ in call}
                    scores += map(score, records)
                    if task.score:
                        progress.set_postfix_str(f"{name} {sum(scores) / len(scores):.4f}")
                    progress.update(len(call))
        except (UserError, Stopped) as error:
            number = f"{len(done)} " if isinstance(error, UserError) else ""  # a signal comes at any moment
            so_far = f"The {number}results so far stay in {args.results}; the same command goes on there"
            error.args = (f"{error}\n{so_far}",)
            raise
        if first:
            writer.finish(left_out)
    if not done:
        raise UserError(f"all {len(left_out)} images were left out; {args.results} holds no results")
    if left_out:
        print(f"{len(left_out)} of {len(indices)} images were left out; the figures are over the other {len(done)}")
    return args.results if first else None


def indices_of(args, dataset) -> tuple[range, range]:
    """The images that `args` ask for, of this shard and of the whole run.

    Raises:
        UserError: there are none.
    """
    whole = range(0, len(dataset) if args.max < 0 else min(args.max, len(dataset)), args.skip)
    if not whole:
        raise UserError(f"--max {args.max} leaves no image")
    part, of = args.shard or (1, 1)
    if not whole[part - 1 :: of]:
        raise UserError(f"--shard {part}/{of}: leaves no image")
    return whole[part - 1 :: of], whole


def starter(task, inputs, todo, together):
    """How a group of images is launched: (group, copies) -> a function that waits for the answers of its images."""
    import jax
    import numpy as np

    from qcrs_jax.parallel import agreement

    keys = inputs.keys(todo)
    data, impl = np.asarray(jax.random.key_data(keys)), jax.random.key_impl(keys)
    place_of = {index: place for place, index in enumerate(todo)}

    def start(call, copies):
        padded = call + [call[-1]] * (together - len(call))  # a program for fewer would have to be compiled
        images = np.stack([image for _, image, _ in padded])
        indices, labels = [index for index, _, _ in padded], np.array([label for _, _, label in padded])
        keys = data[[place_of[index] for index in indices]]
        own = task.own(indices, labels)
        agreed = agreement((images, keys), inputs.devices)
        if together == 1:
            images, keys, own = jax.tree.map(operator.itemgetter(0), (images, keys, own))
        waiting = task.start(
            inputs.classify,
            images,
            key=jax.random.wrap_key_data(keys, impl=impl),
            **own,
            batch_size=copies,
            devices=inputs.devices,
        )

        def conclude():
            agreed()
            answers = jax.tree.map(np.asarray, waiting())
            if together == 1:
                return [answers]
            return [jax.tree.map(operator.itemgetter(i), answers) for i in range(len(call))]

        return conclude

    return start


def _check_records(records, indices, labels, path):
    """Raises UserError for records that are not of the images at `indices`, which have these labels."""
    for record in records:
        if record.idx not in indices or record.label != labels[record.idx]:
            raise UserError(
                f"{path}: its line of image {record.idx}, label {record.label}, is of none of this run's images; "
                "mend the line, or delete it, and the same command computes what is missing"
            )


def _circumstances(classifier, dataset, args):
    """What decides the results beside the task's own numbers."""
    import jax

    from qcrs_jax.noise import recorded

    spec = classifier.spec
    return {
        "noise": recorded(args.prng),
        "platform": f"{jax.default_backend()}, matmul precision {jax.config.jax_default_matmul_precision}",
        "dtype": args.dtype,
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
        "arguments": {name: _plain(value) for name, value in vars(args).items() if name not in ("run", "results")},
        "checkpoint": str(args.checkpoint),
        "data": dataset.source,
        "batch": batch_size,
        "devices": f"{len(devices)} x {devices[0].platform} {devices[0].device_kind}",
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("qcrs_jax", "jax", "jaxlib", "flax", "numpy")},
        },
    }


def _plain(value):
    return str(value) if isinstance(value, Path) else value


# Flags that tell where a run is computed, not what.
_WHEREABOUTS = {"devices": None, "batch": None, "images": None, "distributed": False, "coordinator": None}


def recorded_arguments(results: Path):
    """The arguments that the run of a results file was started with, for this machine.

    Raises:
        UserError: its sidecar does not tell them.
    """
    from qcrs_jax.records import read_sidecar, sidecar_path

    recorded = read_sidecar(results).get("provenance", {}).get("arguments")
    if not recorded:
        raise UserError(
            f"{sidecar_path(results)}: does not tell how the run was started, as of versions before 0.2; --recount 0 "
            "checks its bounds"
        )
    args = argparse.Namespace(**{**recorded, **_WHEREABOUTS, "results": results})
    for name in ("checkpoint", "data_dir"):
        value = getattr(args, name)
        setattr(args, name, None if value is None else Path(value))
    return args
