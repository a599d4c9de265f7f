"""Convert a PyTorch checkpoint to a Flax classifier (a directory with one file). Needs no PyTorch.

Reads files of torch.save, old and new, and .safetensors, in the layouts of Cohen's RS, QCRS, SmoothAdv, MACER, DDRS,
ANCER, torchvision, timm and Idelbayev's ResNets. The network is recognised by its tensors. The weights are written with
their metadata: architecture, classes, normalisation, SHA-256. Every tensor must be used and every variable filled.
--check measures accuracy, which shows whether the normalisation is right.
"""

from pathlib import Path

from qcrs_jax.printable import printable_lines

from ..run.settings import Data, Images, Network
from .flags import OPENING, Parser, add_settings, settings_of


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", type=Path, help=".pth, .pth.tar, .th, .pt or .safetensors, or zoo:NAME")
    add("out_dir", metavar="OUT_DIR", type=Path, help="directory to write")
    add("--overwrite", action="store_true", help="replace a classifier that OUT_DIR already holds")
    add_settings(parser.add_argument_group("facts that a PyTorch file does not state"), Network, OPENING)
    check = parser.add_argument_group("check of its accuracy")
    check.add_argument("--check", dest="dataset", metavar="DATASET", help="measure clean and noisy accuracy on DATASET")
    add_settings(check, Data, "data_dir split class_order resize memory_limit")
    add_settings(check, Images, "")
    check.add_argument("--skip", type=int, default=10, metavar="K", help="images 0, K, 2K, ... (default: 10)")
    check.add_argument("--sigma", type=float, default=0.25, help="noise level (default: 0.25)")


def run(args) -> None:
    from qcrs_jax.convert.check import check_fit
    from qcrs_jax.convert.conversion import accuracies, convertible, described
    from qcrs_jax.convert.load import convert_file
    from qcrs_jax.data.image_files import resized
    from qcrs_jax.files import writing
    from qcrs_jax.models.checkpoint import CheckpointError, save_classifier

    from ..run.data_sets import open_dataset
    from ..run.inputs import opening_of, print_notes

    network, data = settings_of(Network, args), settings_of(Data, args)
    classifier = convert_file(convertible(network.checkpoint), opening_of(network))
    dataset = None
    if data.dataset:
        images, dataset = settings_of(Images, args), open_dataset(data)
        check_fit(classifier.spec, dataset, network.checkpoint)
        if data.resize is not None:
            dataset = resized(dataset, data.resize, *classifier.spec.image_shape[:2])
    with writing(args.out_dir, CheckpointError):
        save_classifier(classifier, args.out_dir, overwrite=args.overwrite)
    print(printable_lines(described(classifier, network.checkpoint, args.out_dir)))
    print_notes(network.checkpoint, classifier)
    if dataset:
        print(printable_lines(accuracies(classifier, dataset, range(0, len(dataset), images.skip), args.sigma)))
