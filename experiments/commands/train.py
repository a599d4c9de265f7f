"""Train a base classifier under Gaussian noise, by one of six methods, or a denoiser before it.

Resumes when the command is repeated.

OUT_DIR becomes a classifier that `certify` and `export` open. Its folder `training` holds the state after the last
epoch, the log and its curve. Defaults are the papers'. `--schedule onecycle` is a short run for small machines.

  qcrs-jax train OUT_DIR --arch cifar_resnet110 --dataset cifar10 --sigma 0.25
  qcrs-jax train OUT_DIR --arch cifar_resnet20 --dataset cifar10 --sigma 0.25 --schedule onecycle
  qcrs-jax train OUT_DIR --arch lenet --dataset mnist --sigma 0.25 --method macer
  qcrs-jax train OUT_DIR --arch lenet --dataset fashion_mnist --sigma_range 0.2,1 --schedule onecycle
  qcrs-jax train OUT_DIR --arch cifar_resnet20 --dataset cifar10 --sigma 0.25 --method catrs --teacher OTHER_DIR
  qcrs-jax train OUT_DIR --method denoiser --dataset cifar10 --sigma_range 0.1,1 --schedule onecycle
  qcrs-jax train OUT_DIR --init models/noise_0.25.pth.tar --dataset cifar10 --sigma 0.50 --epochs 10 --lr 0.01
"""

import dataclasses
from pathlib import Path

from ..run.settings import Data, Network
from ..run.training_settings import Training
from .flags import OPENING, Parser, add_object, add_settings, described, given_fields, settings_of


def add_arguments(parser: Parser) -> None:
    parser.add_argument("out_dir", metavar="OUT_DIR", type=Path, help="directory to write or resume")
    add_settings(parser.add_argument_group("data"), Data, "dataset data_dir class_order memory_limit")
    classifier = parser.add_argument_group("classifier")
    add_settings(classifier, Training, "arch init denoiser")
    classifier.add_argument(
        "--normalization",
        help="how images are normalised: cifar10, imagenet, none, or MEAN,.../STD,... (default, as in the papers: "
        "none for macer and for images of one channel; else cifar10 for CIFAR ResNets, imagenet for other networks)",
    )
    group = parser.add_argument_group("facts that a PyTorch file does not state")
    add_settings(group, Network, OPENING.removeprefix("normalization "))
    add_settings(parser.add_argument_group("method"), Training, "method sigma sigma_range teacher teacher_samples")
    own = parser.screen("method", "settings of the methods (default: as published)")
    parser.late(lambda _: _add_method(own))
    add_settings(parser.add_argument_group("denoiser, of --method denoiser"), Training, "classifier width")
    names = "schedule epochs batch lr momentum weight_decay augment dtype seed test_skip"
    add_settings(parser.add_argument_group("optimisation"), Training, names)


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
    from qcrs_jax.errors import SettingError
    from qcrs_jax.training import METHODS

    from ..run.denoiser_training import train_denoiser
    from ..run.training import train

    network, trains_denoiser = None, args.method == "denoiser"
    if args.init is not None and not trains_denoiser:
        network = settings_of(Network, args, checkpoint=Path(args.init), dtype="float32")
    elif given := [name for name in OPENING.split()[1:] if getattr(args, name) not in (None, ())]:
        if trains_denoiser:
            raise SettingError(f"{{method}} denoiser has no {{{given[0]}}}")
        raise SettingError(f"{{{given[0]}}} describes the file of {{init}}; give {{init}} too")
    given = {name: value for kind in METHODS.values() for name, value in given_fields(kind, args).items()}
    given.pop("sigma", None)
    training, data = settings_of(Training, args, settings=given), settings_of(Data, args)
    if trains_denoiser:
        if args.normalization is not None:
            raise SettingError("{method} denoiser has no {normalization}")
        train_denoiser(args.out_dir, training, data)
    else:
        train(args.out_dir, training, data, network, args.normalization)
