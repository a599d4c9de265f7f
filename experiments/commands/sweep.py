"""The flags of a run over images: the classifier, the data set, its images, the noise, and the program."""

import argparse
import dataclasses
from pathlib import Path

from ..run.settings import Data, Images, Network, Noise, Program, Sweep
from .flags import OPENING, Parser, add_settings, settings_of


def add_sweep(parser: Parser) -> None:
    """Adds the flags of a Sweep with a results file."""
    add_settings(parser, Network, "checkpoint denoiser")
    parser.add_argument("results", metavar="RESULTS", type=Path, help="results file to write or resume")
    data = parser.add_argument_group("data")
    add_settings(data, Data, "dataset data_dir split")
    add_settings(data, Images, "skip stop")
    program = parser.add_argument_group("program")
    add_settings(program, Program, "batch_size")
    add_settings(program, Noise, "seed")
    program.add_argument(
        "--dry_run",
        action="store_true",
        help="only print the work that is left: images, samples, and estimates of time and memory from a measurement "
        "of some seconds. Nothing is written",
    )
    files = parser.screen("files", "files: facts that the files do not state")
    add_settings(files, Network, f"{OPENING} macer")
    add_settings(files, Data, "class_order resize memory_limit on_error")
    cluster = parser.screen("cluster", "many images, many machines: none of these changes a count")
    add_settings(cluster, Program, "devices images distributed coordinator process")
    add_settings(cluster, Images, "shard")
    numbers = parser.screen("cluster", "numbers")
    add_settings(numbers, Network, "dtype")
    add_settings(numbers, Noise, "prng")


def add_inputs(parser: Parser, noise: bool = True, **defaults) -> None:
    """Adds the flags of a Sweep for a command that writes no results file; `noise` adds those of Noise and Program."""
    add_settings(parser, Network, "checkpoint denoiser")
    add_settings(parser.add_argument_group("data"), Data, "dataset data_dir class_order memory_limit resize split")
    program = parser.add_argument_group("program")
    add_settings(program, Program, "batch_size devices" if noise else "batch_size")
    if noise:
        program.add_argument("--seed", type=int, default=0, help="seed of all noise (default: 0)")
        add_settings(program, Noise, "prng")
    add_settings(program, Network, "dtype macer", **defaults)
    add_settings(parser.add_argument_group("facts that a PyTorch file does not state"), Network, OPENING)


def sweep_of(args: argparse.Namespace) -> Sweep:
    """The Sweep of parsed arguments.

    Raises:
        UserError: a setting out of its range.
    """
    kinds = {"network": Network, "data": Data, "noise": Noise}
    settings = {name: settings_of(kind, args) for name, kind in kinds.items()}
    program = {field.name: field.default for field in dataclasses.fields(Program) if not hasattr(args, field.name)}
    return Sweep(
        **settings,
        images=settings_of(Images, args),
        program=settings_of(Program, args, **program),
        results=getattr(args, "results", Path()),
        dry_run=getattr(args, "dry_run", False),
    )
