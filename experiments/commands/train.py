"""Train a base classifier under Gaussian noise: Cohen's augmentation, or MACER. Resumes when the command is repeated.

OUT_DIR becomes a classifier that `certify` and `export` open. Its folder `training` holds the state after the last
epoch, the log and its curve. Defaults are the papers'. `--schedule onecycle` is a short run for small machines.

  qcrs-jax train OUT_DIR --arch cifar_resnet110 --dataset cifar10 --sigma 0.25
  qcrs-jax train OUT_DIR --arch cifar_resnet20 --dataset cifar10 --sigma 0.25 --schedule onecycle
  qcrs-jax train OUT_DIR --arch lenet --dataset mnist --sigma 0.25 --method macer
  qcrs-jax train OUT_DIR --arch lenet --dataset fashion_mnist --sigma_range 0.2,1 --schedule onecycle
  qcrs-jax train OUT_DIR --init models/noise_0.25.pth.tar --dataset cifar10 --sigma 0.50 --epochs 10 --lr 0.01
"""

from pathlib import Path

from ..run.settings import Data, Network
from ..run.training_settings import Training
from .flags import OPENING, Parser, add_settings, settings_of


def add_arguments(parser: Parser) -> None:
    parser.add_argument("out_dir", metavar="OUT_DIR", type=Path, help="directory to write or resume")
    add_settings(parser.add_argument_group("data"), Data, "dataset data_dir class_order memory_limit")
    classifier = parser.add_argument_group("classifier")
    add_settings(classifier, Training, "arch init")
    classifier.add_argument(
        "--normalization",
        help="how images are normalised: cifar10, imagenet, none, or MEAN,.../STD,... (default, as in the papers: "
        "cifar10 for CIFAR ResNets with method gaussian, imagenet for ResNets of ImageNet, else none)",
    )
    group = parser.add_argument_group("facts that a PyTorch file does not state")
    add_settings(group, Network, OPENING.removeprefix("normalization "))
    add_settings(parser.add_argument_group("method"), Training, "method sigma sigma_range copies lbd gamma beta")
    names = "schedule epochs batch lr momentum weight_decay augment dtype seed test_skip"
    add_settings(parser.add_argument_group("optimisation"), Training, names)


def run(args) -> None:
    from qcrs_jax.errors import SettingError

    from ..run.training import train

    network = None
    if args.init is not None:
        network = settings_of(Network, args, checkpoint=Path(args.init), dtype="float32")
    elif given := [name for name in OPENING.split()[1:] if getattr(args, name) not in (None, ())]:
        raise SettingError(f"{{{given[0]}}} describes the file of {{init}}; give {{init}} too")
    train(args.out_dir, settings_of(Training, args), settings_of(Data, args), network, args.normalization)
