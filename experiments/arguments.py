"""Arguments that several commands share."""

import argparse
from pathlib import Path

from qcrs_jax.convert.flags import add_opening_arguments

from qcrs_jax.data.sources import SOURCES
from qcrs_jax.errors import UserError
from qcrs_jax.results.sidecar import LARGEST_BATCH


def share(text: str) -> float:
    """The number that 1% or 0.01 stands for."""
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def add_data_arguments(parser):
    """Adds --dataset, --data_dir and --class_order to `parser`; returns the group, for more of its kind."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset",
        choices=list(SOURCES),
        help="a known data set from its original files or TFDS, a folder of CLASS/IMAGE, or an .npz with x, y "
        "and perhaps class_names (default: what DATA_DIR holds; else cifar10)",
    )
    group.add_argument(
        "--class_order",
        metavar="number|text|FILE",
        help="which class has label 0, 1, ...: by the numbers in the names of the class folders, by their text, or as "
        "in FILE, with the name of a class on each line; needed where the names do not tell it (default: by text)",
    )
    group.add_argument(
        "--data_dir", type=Path, help="where the data set is (default: ./data, ./dataset_cache, ., then TFDS)"
    )
    group.add_argument(
        "--memory_limit",
        type=float,
        metavar="GIB",
        help="what the arrays of the data set, or one image, may take in memory; larger files are refused before they "
        "are read (default: 4, or half of the memory that this process may use if that is less)",
    )
    return group


CHECKPOINT_HELP = (
    "converted directory, PyTorch file, zoo:NAME, or python:FILE.py:FUNCTION, which runs that file: its function takes "
    "no arguments and returns the classifier"
)


def add_input_arguments(parser, sweep=True):
    """Adds the flags of checkpoint and data set; with `sweep`, also those of a results file over its images."""
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", type=Path, help=CHECKPOINT_HELP)
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
    add("--split", choices=["train", "test", "val"], default="test", help="val where there is one (default: test)")
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
    add(
        "--dry_run",
        action="store_true",
        help="only print what is left to do: images, samples, an estimate of time from a measurement of some seconds, "
        "and of memory; nothing is written",
    )


def add_program_arguments(parser, sweep=True, seed=True):
    """Adds the flags of the program; with `seed` those of a run of it, with `sweep` also those of one over images."""
    add = parser.add_argument_group("program").add_argument
    auto = ", or auto: the fastest of a few, measured in some seconds at the start; changes no count" if seed else ""
    add(
        "--batch",
        type=(lambda text: text if text == "auto" else int(text)) if seed else int,
        metavar="B",
        help=f"noisy copies per forward pass of a device{auto} (default: 16 on a CPU; on a "
        "GPU 2048, of large images 512; on a TPU 512 and 128)",
    )
    parser.set_defaults(devices=None, images=None, shard=None, distributed=False, coordinator=None, process=None)
    if seed:
        add(
            "--devices",
            type=lambda text: None if text == "all" else int(text),
            metavar="all|K",
            help="how many devices of this machine, or of each host, share the work (default: all; a CPU gives one a "
            "core, in a container no more than its quota of CPUs)",
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
    add_opening_arguments(parser)
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
    if args.batch not in (None, "auto") and args.batch > LARGEST_BATCH:
        raise UserError(f"--batch is at most {LARGEST_BATCH}, not {args.batch}")
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
