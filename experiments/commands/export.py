"""Export a classifier to a PyTorch file in the layout of Cohen's programs (MACER's for LeNet, DDRS's for its networks).
Needs no PyTorch.

`torch.load` and those programs open the file. Converting it again gives the same classifier. PyTorch files do not store
how images are normalised. Ours have the field `normalization` for it, `sigma` for the noise of the training,
`sigma_range` for its range and `class_names` if these are known, `image_shape`, and `max_pool` if it is unusual. Other
programs ignore these fields.
"""

from pathlib import Path

from ..run.settings import Network
from .flags import OPENING, Parser, add_settings, settings_of


def add_arguments(parser: Parser) -> None:
    parser.add_argument("classifier", metavar="DIR", type=Path, help="converted directory (or a PyTorch file)")
    parser.add_argument("file", metavar="FILE", type=Path, help="PyTorch file to write, usually .pth.tar")
    add_settings(parser.add_argument_group("facts that a PyTorch file does not state"), Network, OPENING)


def run(args) -> None:
    from qcrs_jax.convert.export import export_file
    from qcrs_jax.convert.load import open_classifier
    from qcrs_jax.errors import UserError
    from qcrs_jax.files import writing

    from ..run.inputs import opening_of, print_notes

    network = settings_of(Network, args, checkpoint=args.classifier)
    with writing(args.file):
        if args.file.exists():
            raise UserError(f"{args.file}: already exists; choose another file or move it away")
    classifier = open_classifier(network.checkpoint, opening_of(network))
    print_notes(network.checkpoint, classifier)
    export_file(classifier, args.file)
    print(f"{network.checkpoint} -> {args.file}: {classifier.spec.arch}, {classifier.spec.num_classes} classes")
