"""The meaning of alpha over a data set, in words: per image, in expectation, and for all images at once."""

import bisect
import math

RHO = 0.001  # with which `most_wrong` may fail


def most_wrong(m: int, alpha: float, rho: float = RHO) -> int:
    """The number k of m certificates that may be wrong: with probability at least 1 - rho no more are.

    It is the smallest k with P(Binomial(m, alpha) > k) <= rho. A certificate fails with probability at most alpha,
    whatever the others do, because each image has its own noise. Compare each failure with an event of probability
    exactly alpha that contains it, and let the events of different images be independent. Their number is Binomial(m,
    alpha), and never less than the number of failures. For certificates that all fail with probability alpha no smaller
    k holds.

    Args:
        m: number of certificates, of different images.
        alpha: largest failure probability of each.
        rho: probability with which the number may be exceeded.
    """
    from scipy.special import bdtrc

    return bisect.bisect_left(range(m), True, key=lambda k: bool(bdtrc(k, m, alpha) <= rho))


def wrong_share(m: int, alpha: float, rho: float = RHO) -> float:
    """`most_wrong` as a share of the m certificates."""
    return most_wrong(m, alpha, rho) / m


def account(request: dict, images: int | None = None) -> str:
    """The meaning of the failure probabilities of a run's request for the results of `images`; None if not yet known.

    It is about certificates or, in a run of PREDICT, about predictions. With "simultaneous" in the request, alpha is
    the part of one of its "images".
    """
    what = "prediction" if request.get("kind") == "predictions" else "certificate"
    alpha, together = request["alpha"], request.get("simultaneous")
    text = f"Each {what} fails with probability at most alpha = {alpha:.6g}"
    if together:
        return (
            f"{text}, that is {together['alpha']:g} / {together['images']}: all {what}s of these {together['images']} "
            f"images hold at once with probability at least {_probability(1 - together['alpha'])}, and so do all "
            "shares counted from them." + _bounds(request) + _claims(request)
        )
    if images is None:
        return (
            f"{text}. Of M images expect up to {alpha:g} M wrong ones; all M hold at once with probability at least "
            f"1 - {alpha:g} M." + _bounds(request) + _claims(request)
        )
    at_once = f"all hold at once with probability at least {_probability(1 - images * alpha)}"
    if images * alpha >= 0.5:
        at_once = "of all at once nothing is said (the setting simultaneous shares alpha among them)"
    text += f"; over {images} images expect up to {images * alpha:.2g} wrong ones, and {at_once}."
    most = most_wrong(images, alpha)
    if 1 < images > most:  # one certificate was described above
        wrong = f"At most {most} of these {images} {what}s {'is' if most == 1 else 'are'} wrong"
        text += f" {wrong if most else f'None of these {images} {what}s is wrong'}, with probability {1 - RHO:g}"
        if what == "certificate":
            less = f" less {_share_rounded_up(most, images)}" if most else ""
            text += f": at all radii the true certified accuracy of these images is at least what is shown{less}"
        text += "."
    return text + _bounds(request) + _claims(request)


def _bounds(request):
    """How the bounds of a certificate share its alpha, where there are several."""
    if (request.get("estimate") or {}).get("bound") != "classes":
        return ""
    return (
        " Within a certificate one half of alpha is for the bound of its own class, and the bounds of the other "
        "classes have equal parts of the other half. Where the selection samples chose Clopper and Pearson's bound "
        "alone, that has all of it."
    )


def _claims(request):
    """The meaning of a decision's claims."""
    estimate = request.get("estimate") or {}
    if estimate.get("decide") is None:
        return ""
    beta = request["alpha"] if estimate.get("alpha_upper") is None else estimate["alpha_upper"]
    return (
        f" Asked was whether the radius of the selected class exceeds {estimate['decide']:g}: robust = 1 is claimed "
        f"wrongly with probability at most {request['alpha']:.6g} an image, robust = 0 with at most {beta:.6g}; -1 is "
        "undecided."
    )


def _probability(value):
    return f"{math.floor(value * 1e6) / 1e6:g}"


def _share_rounded_up(k, m):
    return f"{-(-k * 10**4 // m) / 1e4:g}"
