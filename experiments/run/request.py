"""What a certificate's guarantee is spent on: the flags of sequential estimation, of the bound, and of alpha."""

import dataclasses

from qcrs_jax.certification.certificate import check_request
from qcrs_jax.errors import UserError


def shared_alpha(request, images: int):
    """The request of each of `images` images whose certificates are to hold at once: alpha / images.

    Raises:
        UserError: nothing could be certified so.
    """

    alpha = request.alpha / images
    try:
        check_request(request.sigma, request.n0, request.n, alpha, request.estimate)
        if request.search.keeps_sigma:
            request.estimate.check_reach(request.sigma, request.n, alpha)
    except ValueError as error:
        raise UserError(f"--simultaneous, {images} images: {error}") from error
    return dataclasses.replace(request, alpha=alpha, simultaneous={"alpha": request.alpha, "images": images})


# Marks what a soft vote is, as `sampling.soft_votes` defines it. Another definition needs another mark.
VOTES = "softmax(beta logits) in units of 2**-15, logits in steps of 2**-10"


@dataclasses.dataclass(frozen=True)
class Request:
    """The numbers of a run, checked."""

    method: str
    sigma: float
    n0: int
    n: int
    alpha: float
    seed: int
    skip: int
    search: object  # what chooses sigma: one of `qcrs_jax.search`
    estimate: (
        object  # how many of the n samples an image gets, and what follows: one of `qcrs_jax.certification.estimates`
    )
    simultaneous: dict | None = None  # the "alpha" of all "images" together, of which each has its part
    budget: dict | None = None  # how many certification samples an image has in the "mean", up to image "max"
    stop_when_wrong: bool = False

    @property
    def own_n(self) -> bool:
        """Whether an image's number of samples is decided before they are drawn, outside the estimate."""
        return bool(self.budget) or self.stop_when_wrong


def request_of(request: Request, images: int, args) -> Request:
    """The request of each of the run's images."""
    return shared_alpha(request, images) if args.simultaneous else request


def recorded_numbers(request: Request) -> dict:
    """The request as a sidecar has it: without what was not asked."""
    own = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    search, estimate = own.pop("search"), own.pop("estimate")
    numbers = {**own, "qcrs": None, "ddrs": None, **search.recorded(), **estimate.recorded()}
    return {name: v for name, v in numbers.items() if v or name not in ("simultaneous", "budget", "stop_when_wrong")}
