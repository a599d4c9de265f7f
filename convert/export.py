"""Export a classifier to a PyTorch file in the layout of Cohen's programs (MACER's for LeNet, DDRS's for its networks).
Needs no PyTorch.

`torch.load` and those programs open the file; converting it again gives the same classifier. PyTorch files do not store
how images are normalised; ours have a field `normalization` for it, `sigma` for the noise of the training and
`class_names` where these are known, `image_shape`, and `max_pool` where it is unusual. Other programs pass over these.
"""

from collections import OrderedDict
from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.files import writing

from .flags import add_opening_arguments, opening_of, print_notes


def add_arguments(parser):
    parser.add_argument("classifier", metavar="DIR", type=Path, help="converted directory (or a PyTorch file)")
    parser.add_argument("file", metavar="FILE", type=Path, help="PyTorch file to write, usually .pth.tar")
    add_opening_arguments(parser)


def run(args):
    from .load import open_classifier

    with writing(args.file):
        if args.file.exists():
            raise UserError(f"{args.file}: already exists; choose another file or move it away")
    classifier = open_classifier(args.classifier, opening_of(args, args.normalization))
    print_notes(args.classifier, classifier)
    export_file(classifier, args.file)
    print(f"{args.classifier} -> {args.file}: {classifier.spec.arch}, {classifier.spec.num_classes} classes")


def export_file(classifier, path: Path) -> None:
    """Writes `classifier` to the PyTorch file `path`."""
    from qcrs_jax.models import family_of

    from .files.torch_writer import save
    from .fill import to_state_dict

    spec, family = classifier.spec, family_of(classifier.spec.arch)
    field, prefix = family.exported(spec)
    weights = OrderedDict((prefix + key, value) for key, value in to_state_dict(classifier).items())
    normalization = "/".join(",".join(map(repr, values)) for values in (spec.mean, spec.std))
    named = {"arch": spec.arch} if field == "state_dict" else {}
    content = {"epoch": 0, **named, field: weights, "normalization": normalization}
    if "sigma" in spec.source:
        content["sigma"] = float(spec.source["sigma"])
    if family.one_size is None:
        content["image_shape"] = list(spec.image_shape)
    if "max_pool" in spec.options:
        content["max_pool"] = bool(spec.options["max_pool"])
    if spec.class_names is not None:
        content["class_names"] = list(spec.class_names)
    with writing(path):
        save(content, path)
