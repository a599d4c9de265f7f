"""What alpha amounts to over a data set, in words: per image, in expectation, and for all images at once."""

import math

RHO = 0.001  # with which `wrong_share` may fail


def wrong_share(m: int, alpha: float, rho: float = RHO) -> float:
    """The share of m certificates that may be wrong: with probability at least 1 - rho no more are.

    Each fails with probability at most alpha, independently: the noise must not be shared between images. Bernstein's
    inequality, as in the analysis of Cohen et al. 2019, whose program lacks the factor 2 under the root: then the bound
    does not hold.
    """
    log = math.log(1 / rho)
    return alpha + math.sqrt(2 * alpha * (1 - alpha) * log / m) + log / (3 * m)


def account(request: dict, images: int | None = None) -> str:
    """What the failure probabilities of a run's request say, of the results of `images`; None where not yet known.

    Certificates are meant, or, in a run of PREDICT, predictions. With "simultaneous" in the request, alpha is the
    share that one of its "images" has.
    """
    what = "prediction" if request.get("method") == "predict" else "certificate"
    alpha, together = request["alpha"], request.get("simultaneous")
    text = f"Each {what} fails with probability at most alpha = {alpha:.6g}"
    if together:
        return (
            f"{text}, that is {together['alpha']:g} / {together['images']}: all {what}s of these {together['images']} "
            f"images hold at once with probability at least {_probability(1 - together['alpha'])}, and so do all "
            "shares counted from them." + _claims(request)
        )
    if images is None:
        return (
            f"{text}. Of M images expect up to {alpha:g} M wrong ones; all M hold at once with probability at least "
            f"1 - {alpha:g} M." + _claims(request)
        )
    at_once = f"all hold at once with probability at least {_probability(1 - images * alpha)}"
    if images * alpha >= 0.5:
        at_once = "of all at once nothing is said (certify --simultaneous does)"
    share = wrong_share(images, alpha)
    text += f"; over {images} images expect up to {images * alpha:.2g} wrong ones, and {at_once}."
    if share < 0.5 and what == "certificate":
        text += (
            f" With probability at least {_probability(1 - RHO)} at most a share of {_rounded_up(share)} is wrong: at "
            "all radii the true certified accuracy is at least what is shown less that."
        )
    return text + _claims(request)


def _claims(request):
    """What a decision's claims say."""
    sequential = request.get("sequential") or {}
    if sequential.get("decide") is None:
        return ""
    beta = request["alpha"] if sequential.get("beta") is None else sequential["beta"]
    return (
        f" Asked was whether the radius of the selected class exceeds {sequential['decide']:g}: robust = 1 is claimed "
        f"wrongly with probability at most {request['alpha']:.6g} an image, robust = 0 with at most {beta:.6g}; -1 is "
        "undecided."
    )


def _probability(value):
    return f"{math.floor(value * 1e6) / 1e6:g}"


def _rounded_up(share):
    return f"{math.ceil(share * 1e4) / 1e4:g}"
