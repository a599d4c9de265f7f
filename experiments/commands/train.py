"""Train a base classifier under Gaussian noise, by one of six methods, or a denoiser before it.

OUT_DIR becomes a classifier that `certify` and `export` open. Its folder `training` holds the state after the last
epoch, the log and its curve. A stopped training continues when the command is repeated. Defaults are the papers'.

  As Cohen et al.:
    qcrs-jax train OUT_DIR --arch cifar_resnet110 --dataset cifar10 --sigma 0.25
  A short training, for a small machine:
    qcrs-jax train OUT_DIR --dataset cifar10 --sigma 0.25 --schedule onecycle
  From weights that exist, by another method:
    qcrs-jax train OUT_DIR --init OTHER_DIR --sigma 0.5 --method smoothadv
  A denoiser, which `certify --denoiser` puts before any classifier:
    qcrs-jax train OUT_DIR --method denoiser --dataset cifar10 --sigma_range 0.1,1 --schedule onecycle
"""

import dataclasses
from pathlib import Path

from ..run.settings import Data, Network
from ..run.training_settings import Training
from .flags import OPENING, Parser, add_object, add_settings, described, given_fields, refuse, settings_of


def add_arguments(parser: Parser) -> None:
    parser.add_argument("out_dir", metavar="OUT_DIR", type=Path, help="directory to write or resume")
    add_settings(parser.add_argument_group("data"), Data, "dataset data_dir")
    add_settings(parser.add_argument_group("classifier"), Training, "arch init")
    files = parser.screen("files", "files: the normalisation, and facts that files do not state")
    files.add_argument(
        "--normalization",
        help="how images are normalised: cifar10, imagenet, none, or MEAN,.../STD,... (default, as in the papers: "
        "none for macer and for images of one channel; else cifar10 for CIFAR ResNets, imagenet for other networks)",
    )
    add_settings(files, Network, OPENING.removeprefix("normalization "))
    add_settings(files, Data, "class_order memory_limit")
    add_settings(parser.add_argument_group("method"), Training, "method sigma sigma_range teacher")
    own = parser.screen("method", "methods: settings of each --method (default: as published)")
    add_settings(own, Training, "teacher_samples")
    parser.late(lambda _: _add_method(own), "method")
    denoiser = parser.screen("denoiser", "denoiser: settings of --method denoiser, and a classifier behind one")
    add_settings(denoiser, Training, "denoiser classifier width")
    add_settings(parser.add_argument_group("optimisation"), Training, "schedule epochs seed")
    steps = parser.screen("steps", "steps: learning rate, batches, augmentation and number format")
    add_settings(steps, Training, "batch lr momentum weight_decay augment dtype test_skip")


def _add_method(group):
    from qcrs_jax.extras import MissingPackage

    try:
        from qcrs_jax.training import METHODS
    except MissingPackage:  # which `run` raises
        return
    add_object(group, METHODS.values(), {}, _help(METHODS), without=("sigma",))


def _help(methods):
    """The help of each setting: its text and its default in each method that has it."""
    helps: dict[str, dict[str, list[str]]] = {}
    for kind in methods.values():
        texts, by_sigma = described(kind), kind.published(1.0)
        for field in dataclasses.fields(kind):
            default = "default by sigma" if field.name in by_sigma else f"default {field.default}"
            owners = helps.setdefault(field.name, {}).setdefault(texts[field.name].rstrip("."), [])
            owners.append(f"{kind.name} ({default})")
    return {
        name: "; ".join(f"{', '.join(who)}: {text}" for text, who in found.items()) for name, found in helps.items()
    }


def run(args) -> None:
    from qcrs_jax.training import METHODS

    from ..run.denoiser_training import train_denoiser
    from ..run.training import train

    network, trains_denoiser = None, args.method == "denoiser"
    if args.init is not None and not trains_denoiser:
        network = settings_of(Network, args, checkpoint=Path(args.init), dtype="float32")
    else:
        of_init = "describes the file of {init}; give {init} too"
        refuse(args, OPENING.split()[1:], "is no setting of {method} denoiser" if trains_denoiser else of_init)
    given = {}
    for kind in METHODS.values():
        given |= given_fields(kind, args, without=("sigma",))
    training, data = settings_of(Training, args, settings=given), settings_of(Data, args)
    if trains_denoiser:
        refuse(args, ["normalization"], "is no setting of {method} denoiser")
        train_denoiser(args.out_dir, training, data)
    else:
        train(args.out_dir, training, data, network, args.normalization)
