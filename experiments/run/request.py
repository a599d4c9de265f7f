"""The request of a certification: its numbers, its search and its estimate, as its sidecar records them."""

import dataclasses

import numpy as np

from qcrs_jax.certification.certificate import check_request, check_search
from qcrs_jax.certification.estimates import Estimate, estimate_of
from qcrs_jax.errors import SettingError, UserError, quoted, setting
from qcrs_jax.sampling.smoothing import GAUSSIAN, Noise, check_largest, noise_of, recorded_noise
from qcrs_jax.search import Search, search_of


def shared(request, images: int):
    """The request for each of a run's images: with its part of alpha, if all certificates are to hold at once.

    Raises:
        SettingError: with alpha shared among this number of images, nothing could be certified.
    """
    if not request.at_once:
        return request
    together = {"alpha": request.alpha, "images": images}
    each = dataclasses.replace(request, alpha=request.alpha / images, at_once=False, simultaneous=together)
    try:
        each.check()
    except SettingError as error:  # alpha here is the share of one image, not the flag
        raise SettingError(f"{{simultaneous}}, {images} images: {error}") from error
    return each


@dataclasses.dataclass(frozen=True)
class Request:
    """The request for each image of a run.

    sigma: noise level that the classifier was trained at.
    n0, n: number of samples that select the class; largest number of samples that certify it.
    alpha: failure probability of each certificate; with `at_once`, of all certificates of the run together.
    search: object that chooses sigma.
    estimate: object that decides how many of the n samples an image gets, and what they certify.
    noise: noise that is added to images.
    stop_when_wrong: whether images whose selected class is not their label get no certification samples.
    budget: the "mean" number of certification samples per image, over the images up to "stop".
    at_once: whether alpha is still to be shared among the images of the run.
    simultaneous: the "alpha" of all "images" together, of which each has its part.
    to_collapse: whether the bracket of the search is still to be ended where accuracy under noise is lost.
    """

    sigma: float
    n0: int
    n: int
    alpha: float
    search: Search
    estimate: Estimate
    noise: Noise = GAUSSIAN
    stop_when_wrong: bool = False
    budget: dict | None = None
    at_once: bool = False
    simultaneous: dict | None = None
    to_collapse: bool = False

    def check(self) -> None:
        """Raises SettingError for a request that cannot be met; the message states what would be possible."""
        try:
            check_request(self.sigma, self.n0, self.n, self.alpha, self.estimate, self.stop_when_wrong)
            if self.search.keeps_sigma:
                self.estimate.check_reach(self.sigma, self.n, self.alpha, self.noise)
        except SettingError as error:
            if not self.budget:
                raise
            raise SettingError(error.text.replace(setting("n"), setting("budget"))) from error
        check_largest(self.noise, self.sigma)
        check_search(self.search, self.sigma, noise=self.noise)
        if self.budget:
            try:
                self.estimate.check(self.n0, np.array([self.n]), self.alpha, self.stop_when_wrong)
            except SettingError as error:
                raise SettingError(
                    "{budget} decides an image's samples; it goes with hard certificates of these samples alone"
                ) from error

    @property
    def plans_n(self) -> bool:
        """Whether an image's number of samples is decided before they are drawn, outside the estimate."""
        return bool(self.budget) or self.stop_when_wrong

    def of_each(self, images: int) -> "Request":
        """The request for each of a run's images.

        Raises:
            UserError: with alpha shared among this number of images, nothing could be certified.
        """
        return shared(self, images)

    def recorded(self) -> dict:
        """Its record in a sidecar, without settings that were not used."""
        numbers = {name: getattr(self, name) for name in ("sigma", "n0", "n", "alpha")}
        more = {name: getattr(self, name) for name in ("stop_when_wrong", "budget", "simultaneous")}
        found = {"kind": "certificates", "search": self.search.recorded(), "estimate": self.estimate.recorded()}
        found |= recorded_noise(self.noise)
        return {**found, **numbers, **{name: value for name, value in more.items() if value}}

    @classmethod
    def of(cls, recorded: dict) -> "Request":
        """The request that a sidecar records.

        Raises:
            UserError: no request of this version has this form.
        """
        names = ("sigma", "n0", "n", "alpha", "stop_when_wrong", "budget", "simultaneous")
        try:
            numbers = {name: recorded[name] for name in names if name in recorded}
            objects = {"search": search_of(recorded["search"]), "estimate": estimate_of(recorded["estimate"])}
            request = cls(**numbers, **objects, noise=noise_of(recorded))
            request.check()
        except (ValueError, TypeError, KeyError, ArithmeticError) as error:
            raise UserError(f"its request is not one of this version: {quoted(error)}") from error
        return request
