"""The samples drawn for the certificate of an image, and their form in a line of a results file."""

from qcrs_jax import draw
from qcrs_jax.certification.estimates import estimate_of
from qcrs_jax.certification.verdict import fields_of
from qcrs_jax.results.records import CASCADE_COLUMNS, Record, is_cascade

from .cost import Draws
from .request import Request


def one_record(index, label, seconds, fields) -> list:
    """The one line of an image: a Record with the `fields` of its answer."""
    return [Record(idx=index, label=label, correct=fields["predict"] == label, seconds=seconds, **fields)]


def draws_of(request: Request, planned: int | None = None) -> Draws:
    """The noisy copies that an image gets. An image with a planned number of samples was searched before."""
    search = request.search
    counted = (search.search_n,) * search.evaluations
    early = request.estimate.may_end_early or request.stop_when_wrong
    if planned is not None:
        return Draws((request.n0, planned), at_most=early)
    return Draws(
        (*counted, request.n0, *request.estimate.queries(request.n)),
        search.samples - sum(counted),
        early or search.may_end_early,
    )


def recorded_fields(request: dict) -> set[str]:
    """The additional fields that each line of a run of this request has."""
    if is_cascade(request):
        return set(CASCADE_COLUMNS)
    plans_n = {"budget", "stop_when_wrong"} & set(request)
    return {*estimate_of(request["estimate"]).columns, *(["n"] if plans_n else [])}


def draw_image(request: Request, classify, image, **program):
    """The samples drawn for the certificate of one image, or of several. `program` has the other arguments of `draw`.

    If it has sigma, sigma was searched before.
    """
    numbers = {"sigma": request.sigma, "n0": request.n0, "n": request.n, "alpha": request.alpha}
    numbers |= {"estimate": request.estimate, "noise": request.noise}
    if "sigma" in program:  # a search may widen its bracket beyond the sigmas that are accepted as arguments
        numbers |= {"value_range": None}
    else:
        numbers |= {"search": request.search}
    return draw(classify, image, **{**numbers, **program})


def search_samples(request: Request, trace) -> int:
    """The number of noisy copies spent on the choice of sigma. For DDRS these are the differentiated ones."""
    return 0 if trace is None else request.search.spent(trace)


def fields(request: Request, certificate) -> dict:
    """A certificate as fields of a Record, in Python numbers."""
    found = {
        **fields_of(certificate),
        "sigma": float(certificate.sigma),
        "search_samples": search_samples(request, certificate.search),
        "counts0": tuple(certificate.counts0.tolist()),
        "counts": tuple(certificate.counts.tolist()),
    }
    if request.plans_n:
        found["n"] = int(certificate.n)
    return found | request.estimate.fields(certificate)
