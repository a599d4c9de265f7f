"""The flags of every command that opens a PyTorch file: what the file itself does not tell."""

import argparse
from pathlib import Path

from qcrs_jax.printable import printable

NORMALIZATION_HELP = (
    "how images are normalised after the noise: cifar10, cifar100, imagenet, none, or MEAN,.../STD,... per channel; by "
    "default what the file's layout implies (Cohen: cifar10 or cifar100, or imagenet with its stem; MACER: none; DDRS "
    "and ANCER: cifar10 for their networks of CIFAR-10; torchvision, timm and Idelbayev: imagenet) or the weights "
    "bring along; where two are possible it is asked for"
)
NAMES = ("field", "prefix", "leave_out", "image_size", "max_pool")


def pixels(text: str) -> int:
    """The number of pixels that `text` stands for."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pixels; give other arguments before --image_size")
    return int(text)


def add_opening_arguments(parser, normalization: str | None = NORMALIZATION_HELP) -> None:
    """Adds the flags to `parser`; `normalization` is the help of that flag, None if the command has its own."""
    add = parser.add_argument_group("a PyTorch file, where it does not tell").add_argument
    if normalization:
        add("--normalization", help=normalization)
    add("--field", help="the field of the file that holds the weights (default: the only one that can be meant)")
    add("--prefix", help="what the names of the network begin with; tensors without it are left out")
    add(
        "--leave_out",
        action="append",
        metavar="PREFIX",
        help="leave out tensors whose names begin so, as they are not of the network; may be given again",
    )
    add(
        "--image_size",
        type=pixels,
        nargs="+",
        metavar="PIXELS",
        help="size of the images, H or H W, for a network that takes any (default: 32, or 224 with ImageNet's stem)",
    )
    add(
        "--max_pool",
        action=argparse.BooleanOptionalAction,
        help="whether a max pool follows the stem (default: a 7x7 stem alone has one)",
    )


def opening_of(args, normalization: str | None):
    """The Opening that the flags in `args` say, with this normalisation; flags that a command lacks say nothing."""
    from qcrs_jax.models.checkpoint import CheckpointError

    from .load import Opening

    said = {name: getattr(args, name, None) for name in NAMES}
    size = said["image_size"]
    if size is not None:
        if len(size) > 2:
            raise CheckpointError(f"--image_size takes H or H W, not {len(size)} numbers")
        said["image_size"] = size[0] if len(size) == 1 else tuple(size)
    return Opening(normalization, **{**said, "leave_out": tuple(said["leave_out"] or ())})


def print_notes(path: str | Path, classifier) -> None:
    """Prints what was assumed of the classifier when it was opened or converted."""
    for note in classifier.spec.source.get("notes", ()):
        print(printable(f"{path}: note: {note}"))
