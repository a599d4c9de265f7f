"""R(sigma), curve by curve: files of class counts against sigma, confidence bands, and whether a curve is quasiconcave.

    CURVES         one line for each image and sigma: idx label sigma counts
    CURVES.json    the request and where it ran, as beside a results file

p(sigma) is the probability, under noise of standard deviation sigma, of the class that an image has at the original
sigma. R(sigma) = sigma * ndtri(p(sigma)), 0 where p <= 1/2. Within this radius the classifier smoothed with sigma keeps
that class.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtri

from ..bounds import UnitRadius, certified_radius, clopper_pearson_lower, clopper_pearson_upper
from ..results.records import RecordsError, Run, read_rows, read_sidecar
from ..results.rows import Row
from ..results.shards import join
from ..sampling.smoothing import Noise, noise_of

MOST_SAMPLES = 2**31  # at each sigma
MOST_SIGMAS = 10_001
MOST_COUNTS = 2**27  # in a file


@dataclasses.dataclass(frozen=True)
class Point(Row):
    """The class counts of one image at one sigma; one line of a file of curves."""

    idx: int
    label: int
    sigma: float
    counts: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Curves:
    """Class counts of m images at s sigmas.

    Attributes:
        idx, labels: index in the data set, and true class, (m,).
        sigmas: noise levels, (s,), ascending. The original one is among them.
        original: position of the original sigma, at which the classifier was trained.
        counts: class counts of n noisy copies each, (m, s, num_classes).
        n: number of copies.
        request: the request in the sidecar.
    """

    idx: Int[np.ndarray, "m"]
    labels: Int[np.ndarray, "m"]
    sigmas: Float[np.ndarray, "s"]
    original: int
    counts: Int[np.ndarray, "m s num_classes"]
    n: int
    request: dict

    @property
    def classes(self) -> Int[np.ndarray, "m"]:
        """The class of each image at the original sigma, (m,). Its curve shows the radius of this class."""
        return self.counts[:, self.original].argmax(axis=-1)

    @property
    def noise(self) -> Noise:
        """The noise that was added to the images."""
        return noise_of(self.request)

    @property
    def successes(self) -> Int[np.ndarray, "m s"]:
        """The number of copies that fell into that class at each sigma, (m, s)."""
        return np.take_along_axis(self.counts, self.classes[:, None, None], axis=-1)[..., 0]


def sigma_grid(lower: float, upper: float, count: int, sigma: float) -> list[float]:
    """`count` sigmas evenly spaced in log sigma, both ends included, and the original `sigma`; ascending float32."""
    return sorted(set(np.array([*np.geomspace(lower, upper, count), sigma], np.float32).tolist()))


def read_points(path: str | Path) -> list[Point]:
    """The lines of a file of curves.

    Raises:
        RecordsError: names the file and the line.
    """
    points = read_rows(Path(path), set(Point.columns()), Point.of, "file of curves")
    seen = set()
    for number, point in enumerate(points, start=2):
        if (point.idx, point.sigma) in seen:
            raise RecordsError(f"{path}, line {number}: image {point.idx} is listed twice at sigma {point.sigma:g}")
        seen.add((point.idx, point.sigma))
    return points


def read_curves(path: str | Path) -> Curves:
    """Reads the curves in a file of `qcrs-jax curve`. An unfinished image is left out.

    Args:
        path: the file; its sidecar lies beside it.

    Returns:
        `Curves`, with attributes idx and labels (m,), sigmas (s,), original, counts (m, s, num_classes), n and request.

    Raises:
        RecordsError: the file or its sidecar is missing, damaged or of another kind, or no image is finished.
    """
    return _curves(_finished(path))


def read_all_curves(paths: Sequence[str | Path]) -> list[tuple[Path, Curves]]:
    """The curves of each run in files of `qcrs-jax curve`, with its file. The shards of a run are put together.

    Raises:
        RecordsError: as for `read_curves`, or shards overlap, are missing or not finished; names the files.
    """
    return [(run.path, _curves(run)) for run in join([_finished(path) for path in paths])]


def _finished(path):
    """The run in a file of curves, with the points of those images that have all of them."""
    path = Path(path)
    points, sidecar = read_points(path), read_sidecar(path)
    if not {"sigma", "sigmas", "n"} <= set(sidecar.get("request", {})):
        raise RecordsError(
            f"{path}: has no sidecar {path.name}.json of `qcrs-jax curve`, which records its sigmas and n"
        )
    if trouble := _trouble(sidecar["request"], points):
        raise RecordsError(f"{path}: not a whole file of curves: {trouble}; measure them again")
    images = {}
    for point in points:
        images.setdefault(point.idx, set()).add(point.sigma)
    whole = {idx for idx, at in images.items() if at == set(sidecar["request"]["sigmas"])}
    return Run(path, [point for point in points if point.idx in whole], sidecar)


def _trouble(request, points):
    """The reason why a request and its points cannot be measured curves; None if they can."""
    n, sigma, sigmas = (request[name] for name in ("n", "sigma", "sigmas"))
    if type(n) is not int or not 0 < n <= MOST_SAMPLES:
        return f"n is {str(n)[:40]}, not a number of samples"
    if not isinstance(sigmas, list) or not all(type(s) in (int, float) and 0 < s < math.inf for s in [*sigmas, sigma]):
        return "its sigmas are not positive numbers"
    if len(sigmas) > MOST_SIGMAS or any(a >= b for a, b in zip(sigmas, sigmas[1:])):
        return f"its sigmas do not ascend, or are more than {MOST_SIGMAS}"
    if float(np.float32(sigma)) not in sigmas:
        return f"sigma {sigma} is not among its sigmas"
    classes = len(points[0].counts) if points else 0
    if len(points) * classes > MOST_COUNTS:
        return f"it has {len(points)} lines of {classes} counts, more than can be kept in memory"
    for point in points:
        where = f"image {point.idx} at sigma {point.sigma:g}"
        if len(point.counts) != classes:
            return f"{where} has {len(point.counts)} classes, and the first line has {classes}"
        if min(point.counts) < 0 or sum(point.counts) > n:
            return f"the counts of {where} are not those of {n} samples"
        if not (0 <= point.idx < 2**63 and 0 <= point.label < 2**31):
            return f"{where} is no image with a label"
    return None


def _curves(run):
    sigmas, images = run.request["sigmas"], {}
    for point in run.records:
        images.setdefault((point.idx, point.label), {})[point.sigma] = point.counts
    if not images:
        raise RecordsError(f"{run.path}: holds no finished image yet")
    return Curves(
        idx=np.array([idx for idx, _ in images]),
        labels=np.array([label for _, label in images]),
        sigmas=np.array(sigmas, float),
        original=sigmas.index(float(np.float32(run.request["sigma"]))),
        counts=np.array([[at[sigma] for sigma in sigmas] for at in images.values()]),
        n=run.request["n"],
        request=run.request,
    )


class Band(NamedTuple):
    """Bounds of R(sigma) at each sigma; `upper` is infinite where all copies agree."""

    lower: Float[np.ndarray, "*m s"]
    upper: Float[np.ndarray, "*m s"]


def radius_band(
    successes: Int[np.ndarray, "*m s"],
    n: int,
    sigmas: Float[np.ndarray, "s"],
    alpha: float = 0.001,
    unit_radius: UnitRadius = ndtri,
) -> Band:
    r"""A confidence band of each image's R(sigma): two-sided Clopper-Pearson at alpha / s for each of the s sigmas.

    With probability at least 1 - alpha the whole curve of an image lies in its band, whether or not the sigmas share
    their noise. If the class was chosen by the same counts, this holds for each class that could have been chosen.
    """
    sigmas = np.asarray(sigmas, float)
    side = alpha / len(sigmas) / 2
    return Band(
        certified_radius(clopper_pearson_lower(successes, n, side), sigmas, unit_radius),
        certified_radius(clopper_pearson_upper(successes, n, side), sigmas, unit_radius),
    )


class Dips(NamedTuple):
    """The deepest dip of each curve: how far it certainly falls below both an earlier and a later sigma.

    depth: lower bound of the dip. A curve is consistent with quasiconcavity where it is not positive.
    triple: positions of the three sigmas: before, at, and behind the dip. Meaningless where there is no dip.
    """

    depth: Float[np.ndarray, "*m"] | np.floating
    triple: Int[np.ndarray, "*m 3"]

    @property
    def consistent(self) -> Bool[np.ndarray, "*m"] | np.bool_:
        return self.depth <= 0


def dips(band: Band) -> Dips:
    """The deepest dip of each band: the largest min(lower(s1), lower(s3)) - upper(s2) over sigmas s1 <= s2 <= s3.

    Some quasiconcave function fits into a band exactly when no dip is positive. "Consistent" therefore means that these
    samples show no dip, not that there is none.
    """
    before = np.maximum.accumulate(band.lower, axis=-1)
    behind = np.maximum.accumulate(band.lower[..., ::-1], axis=-1)[..., ::-1]
    depths = np.minimum(before, behind) - band.upper
    at = depths.argmax(axis=-1)
    position = np.arange(band.lower.shape[-1])
    first = np.where(position <= at[..., None], band.lower, -1).argmax(axis=-1)
    last = np.where(position >= at[..., None], band.lower, -1).argmax(axis=-1)
    return Dips(depths.max(axis=-1), np.stack([first, at, last], axis=-1))


class Oracle(NamedTuple):
    """The best sigma of each curve, and the radius there: a bound of the search, not a certificate."""

    sigma: Float[np.ndarray, "*m"] | np.floating
    radius: Float[np.ndarray, "*m"] | np.floating


def oracle(
    successes: Int[np.ndarray, "*m s"],
    n: int,
    sigmas: Float[np.ndarray, "s"],
    alpha: float = 0.001,
    unit_radius: UnitRadius = ndtri,
) -> Oracle:
    """The sigma with the largest radius that n samples certify at alpha, among `sigmas`, and that radius.

    It is the largest of several radii, so it is somewhat too large to be certified. Of ties the smallest sigma is
    taken.
    """
    sigmas = np.asarray(sigmas, float)
    radii = certified_radius(clopper_pearson_lower(successes, n, alpha), sigmas, unit_radius)
    return Oracle(sigmas[radii.argmax(axis=-1)], radii.max(axis=-1))
