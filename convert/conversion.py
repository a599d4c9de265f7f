"""The conversion of a PyTorch file to a directory: the files that it takes, and the description of the classifier."""

from pathlib import Path

from qcrs_jax.data.load import Dataset
from qcrs_jax.files import reading
from qcrs_jax.models import Classifier
from qcrs_jax.models.checkpoint import CheckpointError, is_classifier

from .check import accuracy
from .files.stand_ins import unpacked
from .fill import count_parameters
from .pt2.classifier import ExportedClassifier
from .zoo import resolve


def convertible(checkpoint: str | Path) -> Path:
    """The file of `checkpoint`, a path or zoo:NAME.

    Raises:
        CheckpointError: there is no such file, or it is a folder, or a converted classifier already.
        UserError: the zoo has no such name.
    """
    file = resolve(checkpoint)
    with reading(file, CheckpointError):
        if is_classifier(file):
            raise CheckpointError(f"{file}: is a converted classifier already; open it as it is, or copy it")
        if file.is_dir():
            raise CheckpointError(f"{file}: {unpacked(file)}")
        if not file.is_file():
            raise CheckpointError(f"{file}: no such file")
    return file


def described(classifier: Classifier, checkpoint: str | Path, out_dir: Path) -> str:
    """Three lines that describe `classifier`, converted from `checkpoint` to `out_dir`."""
    spec = classifier.spec
    exported = isinstance(classifier, ExportedClassifier)
    count = classifier.count_parameters() if exported else count_parameters(classifier.model)
    options = "".join(f", {name} {value}" for name, value in spec.options.items())
    return (
        f"{checkpoint} ({spec.source['layout']} layout) -> {out_dir}\n"
        f"  {spec.arch}{options}: {count:,} parameters, {spec.num_classes} classes\n"
        f"  images {spec.image_shape}, normalisation {spec.source['normalization']}: {spec.mean} / {spec.std}"
    )


def accuracies(classifier: Classifier, dataset: Dataset, indices: range, sigma: float) -> str:
    """Two lines with its accuracy at the images `indices`, clean and under Gaussian noise of `sigma`.

    Raises:
        UserError: an image cannot be read, or has another shape.
    """
    clean, noisy = (accuracy(classifier, dataset, indices, level) for level in (0.0, sigma))
    return (
        f"  accuracy on {len(indices)} images of {dataset.name} ({dataset.source}): {clean:.4f} clean\n"
        f"  and {noisy:.4f} under noise of {sigma:g}"
    )
