"""Measures R(sigma) of every image of a data set: class counts at many sigmas, with the same noise at all of them."""

import dataclasses

from qcrs_jax import sample_curve
from qcrs_jax.analysis.curves import Point, read_points, sigma_grid
from qcrs_jax.certification.certificate import MAX_N
from qcrs_jax.checks import check_sigma
from qcrs_jax.errors import SettingError
from qcrs_jax.sampling.smoothing import GAUSSIAN, Noise, check_largest, noise_of, recorded_noise

from .cost import Draws
from .runner import Task


@dataclasses.dataclass(frozen=True)
class Curve:
    """The request for each image: n samples at each of `sigmas`, which ascend and include `sigma`."""

    sigma: float
    sigmas: tuple[float, ...]
    n: int
    noise: Noise = GAUSSIAN

    @classmethod
    def over(
        cls, sigma: float, wanted, n: int, bracket: tuple[float, float] | None = None, noise: Noise = GAUSSIAN
    ) -> "Curve":
        """The curve at the COUNT sigmas from LO to HI in `wanted`; by default at 24 over the bracket.

        Raises:
            SettingError: an impossible number.
        """
        lower, upper, count = wanted or (*(bracket or (0.25 * sigma, 3.5 * sigma)), 24)
        if not 0 < lower < upper < float("inf"):
            raise SettingError(f"{{sigmas}}: needs 0 < LO < HI, both finite, not {lower:g} and {upper:g}")
        check_sigma(sigma)
        check_sigma(upper, name="sigmas")
        check_largest(noise, max(sigma, upper), "sigmas")
        if count != int(count) or not 3 <= count <= 10_000:
            raise SettingError(f"{{sigmas}}: COUNT must be a whole number from 3 to 10000, not {count:g}")
        if not 1 <= n <= MAX_N:
            raise SettingError(f"{{curve_n}} must lie between 1 and {MAX_N}, not {n}")
        return cls(sigma, tuple(sigma_grid(lower, upper, int(count), sigma)), n, noise)

    def check(self) -> None:
        """Raises SettingError where the noise cannot be drawn at one of the sigmas."""
        check_largest(self.noise, self.sigmas[-1], "sigmas")

    def recorded(self) -> dict:
        """Its record in a sidecar."""
        return {
            "kind": "curves",
            "sigma": self.sigma,
            "sigmas": list(self.sigmas),
            "n": self.n,
            **recorded_noise(self.noise),
        }

    @classmethod
    def of(cls, recorded: dict) -> "Curve":
        """The request that a sidecar records."""
        return cls(recorded["sigma"], tuple(recorded["sigmas"]), recorded["n"], noise_of(recorded))


def task(request: Curve) -> Task:
    """The task at each image."""
    sigmas = list(request.sigmas)
    written = set()

    def start(classify, images, **program):
        counts = sample_curve(classify, images, sigmas, n=request.n, noise=request.noise, **program)
        return lambda: counts

    def lines(index, label, seconds, counts):
        points = [Point(index, label, sigma, tuple(row)) for sigma, row in zip(sigmas, counts.tolist())]
        return [point for point in points if (index, point.sigma) not in written]

    def done(points):
        written.update((point.idx, point.sigma) for point in points)
        return {index for index, _ in written if all((index, sigma) in written for sigma in sigmas)}

    file = {"columns": Point.columns(), "read": read_points}
    draws = Draws((request.n,) * len(sigmas))
    return Task(request.recorded(), start, lines, lambda index: draws, file=file, done=done)
