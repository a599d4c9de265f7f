"""Prepare a data set of TFDS on disk from image files: ArrayRecord files, with no network and no TensorFlow.

    qcrs-jax prepare-tfds cifar10 IMAGES DATA_DIR

IMAGES is a folder [test/]CLASS/IMAGE, with or without train/ next to test/, or a tar file of such a folder. For
imagenet2012 it may also be the flat folder of validation images. CLASS is the name of a class, or its number. PNG and
JPEG files are stored as they are, others as PNG. The data set is then read by its name, `--dataset cifar10 --data_dir
DATA_DIR`, and by tfds.data_source("cifar10", data_dir=DATA_DIR).
"""

import tempfile
from pathlib import Path

from .flags import Parser


def add_arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="cifar10, cifar100, mnist, ... or imagenet2012, as TFDS calls it")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="a folder of classes, or a tar file of one")
    parser.add_argument("data_dir", type=Path, metavar="DATA_DIR", help="where TFDS keeps its data sets")


def run(args) -> None:
    from qcrs_jax.data.load import load_dataset
    from qcrs_jax.data.tfds_files import GENERATORS
    from qcrs_jax.errors import UserError
    from qcrs_jax.files import reading, writing

    from ..run.tfds_images import listings, prepare, unpacked

    if args.name not in GENERATORS:
        raise UserError(f"NAME is {args.name!r}; known are {', '.join(GENERATORS)}")
    with tempfile.TemporaryDirectory() as scratch:
        with reading(args.images):
            splits = listings(args.name, unpacked(args.images, Path(scratch)))
        with reading(args.images), reading(scratch), writing(args.data_dir):
            folder = prepare(args.name, splits, args.data_dir)
    for split in splits:
        dataset = load_dataset(args.name, args.data_dir, split)
        print(f"{folder}: {split}, {len(dataset)} images of {len(dataset.class_names)} classes")
