"""A classifier as a PyTorch file in the layout of Cohen's programs (MACER's for LeNet, DDRS's for its networks)."""

from collections import OrderedDict
from pathlib import Path

from qcrs_jax.files import writing
from qcrs_jax.models import Classifier, family_of

from .files.torch_writer import save
from .fill import to_state_dict


def export_file(classifier: Classifier, path: Path) -> None:
    """Writes `classifier` to the PyTorch file `path`.

    Raises:
        UserError: the file cannot be written, or the classifier is an exported program.
    """
    named_weights = to_state_dict(classifier)
    spec, family = classifier.spec, family_of(classifier.spec.arch)
    field, prefix = family.exported(spec.options, spec.image_shape)
    weights = OrderedDict((prefix + key, value) for key, value in named_weights.items())
    normalization = "/".join(",".join(map(repr, values)) for values in (spec.mean, spec.std))
    named = {"arch": spec.arch} if field == "state_dict" else {}
    content = {"epoch": 0, **named, field: weights, "normalization": normalization}
    if "sigma" in spec.source:
        content["sigma"] = float(spec.source["sigma"])
    if "sigma_range" in spec.source:
        content["sigma_range"] = [float(level) for level in spec.source["sigma_range"]]
    if family.one_size is None:
        content["image_shape"] = list(spec.image_shape)
    if "max_pool" in spec.options:
        content["max_pool"] = bool(spec.options["max_pool"])
    if spec.class_names is not None:
        content["class_names"] = list(spec.class_names)
    with writing(path):
        save(content, path)
