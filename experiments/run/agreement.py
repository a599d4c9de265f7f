"""Compares a network in bfloat16 with itself in float32, copy by copy on the same noise: classes and radii."""

import numpy as np

from qcrs_jax.bounds import certified_radius, clopper_pearson_lower

from .copies import pairs_of_classes


def compare(inputs, index: int, sigma: float, n: int) -> tuple[int, int, int]:
    """`count_agreement` for n copies of an image: the network in float32 and in the number format of the inputs."""
    image, _ = inputs.read(index)
    networks = inputs.classifier.classify, inputs.classify
    pairs = pairs_of_classes(*networks, image, sigma, key=inputs.keys([index])[0], n=n, **inputs.program)
    return count_agreement(pairs, inputs.classifier.spec.num_classes)


def count_agreement(pairs, num_classes: int) -> tuple[int, int, int]:
    """(copies that the first network puts into its top class, copies that the second puts there, copies that agree).

    Args:
        pairs: arrays (copies, 2) of `copies.pairs_of_classes`. Copies of no class, -1, are not counted.
    """
    counts, same = np.zeros((2, num_classes), int), 0
    for some in pairs:
        some = some[some[:, 0] >= 0]
        counts += [np.bincount(column, minlength=num_classes) for column in some.T]
        same += int((some[:, 0] == some[:, 1]).sum())
    top = counts[0].argmax()
    return int(counts[0, top]), int(counts[1, top]), same


def summary(compared, sigma: float, n: int, alpha: float):
    """Header and cells of a table. `compared` has the `count_agreement` of n copies of each image, (images, 3)."""
    pa_lower = clopper_pearson_lower(compared[:, :2].T, n, alpha)
    radius = np.where(pa_lower < 0.5, 0.0, certified_radius(pa_lower, sigma))
    differs = 1 - compared[:, 2] / n
    gaps = {"pa_lower": pa_lower[1] - pa_lower[0], "radius": radius[1] - radius[0]}
    header = ["images", "copies each", "of another class", "most of an image"]
    cells = [f"{len(compared)}", f"{n:,}", f"{differs.mean():.3%}", f"{differs.max():.2%}"]
    for name, gap in gaps.items():
        header += [f"{name} higher by, mean", "at most apart"]
        cells += [f"{gap.mean():+.5f}", f"{abs(gap).max():.4f}"]
    return [*header, "mean radius"], [*cells, f"{radius[0].mean():.4f}"]
