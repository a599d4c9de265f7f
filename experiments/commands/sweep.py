"""The flags of a run over images: the classifier, the data set, its images, the noise, and the program."""

import argparse
from pathlib import Path

from ..run.settings import PYTHON, Data, Images, Network, Noise, Program, Sweep
from .flags import OPENING, Parser, add_settings, refuse, settings_of

PARTS = {"network": Network, "data": Data, "images": Images, "noise": Noise, "program": Program}


def declare_sweep(parser: Parser) -> None:
    """Gives parsed arguments every setting of a Sweep. Without a flag it has its default."""
    for kind in PARTS.values():
        add_settings(parser, kind, "")
    parser.set_defaults(results=Path(), dry_run=False)


def add_sweep(parser: Parser) -> None:
    """Adds the flags of a Sweep with a results file."""
    declare_sweep(parser)
    add_settings(parser, Network, "checkpoint")
    parser.add_argument("results", metavar="RESULTS", type=Path, help="results file to write or resume")
    data = parser.add_argument_group("data")
    add_settings(data, Data, "dataset data_dir")
    add_settings(data, Images, "skip stop")
    program = parser.add_argument_group("program")
    add_settings(program, Program, "batch_size")
    program.add_argument(
        "--dry_run", action="store_true", help="only estimate the images, samples, time and memory that are left"
    )
    files = parser.screen("files", "files: a denoiser before the network, and facts that files do not state")
    add_settings(files, Network, f"denoiser {OPENING} macer")
    add_settings(files, Data, "split class_order resize memory_limit on_error")
    cluster = parser.screen("cluster", "cluster: many images, many machines; changes no count")
    add_settings(cluster, Program, "devices images distributed coordinator process")
    add_settings(cluster, Images, "shard")
    numbers = parser.screen("numbers", "numbers: the seed, its generator, and the number format")
    add_settings(numbers, Noise, "seed prng")
    add_settings(numbers, Network, "dtype")


def add_inputs(parser: Parser, **defaults) -> None:
    """Adds the flags of a Sweep for a command that writes no results file. `defaults` replace those of Network."""
    declare_sweep(parser)
    add_settings(parser, Network, "checkpoint denoiser")
    add_settings(parser.add_argument_group("data"), Data, "dataset data_dir class_order memory_limit resize split")
    program = parser.add_argument_group("program")
    add_settings(program, Program, "batch_size devices")
    program.add_argument("--seed", type=int, default=0, help="seed of all noise (default: 0)")
    add_settings(program, Noise, "prng")
    add_settings(program, Network, "dtype macer", **defaults)
    add_settings(parser.add_argument_group("facts that a PyTorch file does not state"), Network, OPENING)


def sweep_of(args: argparse.Namespace) -> Sweep:
    """The Sweep of parsed arguments.

    Raises:
        UserError: a setting out of its range.
    """
    if str(args.checkpoint).startswith(PYTHON) and not args.stages:  # whose files these settings describe
        names = [name for name in OPENING.split() if name != "image_size"] + ["macer"] * args.macer
        refuse(args, names, "describes a file of weights; a function returns the whole classifier, so leave it out")
    settings = {name: settings_of(kind, args) for name, kind in PARTS.items()}
    return Sweep(**settings, results=args.results, dry_run=args.dry_run)
