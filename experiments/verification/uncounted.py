"""The checks that are possible for a log without counts, which other programs write."""

import math

from scipy.special import ndtri

from qcrs_jax.errors import UserError
from qcrs_jax.results.records import read_texts


def check_uncounted(path, run, numbers: dict, troubles: list):
    """Yields a line for each check, and for each check that is not possible. Errors are appended to `troubles`.

    Args:
        numbers: "sigma", "n" and "alpha" of the run; None for unknown ones.
    """
    texts = read_texts(path)
    yield f"{len(run.records)} lines: correct follows from predict and label, and abstentions have no radius"
    for record in run.records:
        if record.predict == -1 and (record.radius or 0) > 0:
            troubles.append(f"image {record.idx}: abstains, with a radius of {record.radius:g}")
    unchecked = ["the counts: the log has none, so nothing can be computed again from them"]
    if run.predicts:
        yield f"not checked: {unchecked[0]}"
        return
    sigmas = {record.idx: record.sigma or numbers["sigma"] for record in run.records}
    known = all(sigmas.values())
    hard = not any(record.pb_upper is not None for record in run.records)
    if any(record.pa_lower is None for record in run.records) or not hard:
        unchecked.append("the radius against pABar: the log has no pABar of a hard certificate")
    else:
        for record, row in zip(run.records, texts):
            troubles += [f"image {record.idx}: {t}" for t in _bound_troubles(record, row, sigmas[record.idx])]
        if known:
            yield "radii, compared with sigma and pABar, and abstentions with pABar"
        else:
            yield "abstentions, compared with pABar"
            unchecked.append("the radius against pABar: the log has no column of sigmas; give --sigma")
    missing = [flag for name, flag in (("n", "--N"), ("alpha", "--alpha")) if numbers[name] is None]
    missing += [] if known else ["--sigma"]
    if missing or not hard:
        unchecked.append(
            "the largest radius that N allows" + (f": give {', '.join(missing)}" if hard else ", of a soft certificate")
        )
    else:
        highest = _largest(numbers)
        for record, row in zip(run.records, texts):
            if record.radius > (most := highest * sigmas[record.idx]) * (1 + 1e-6) + _unit(row["radius"]):
                troubles.append(
                    f"image {record.idx}: the radius {record.radius:g} is more than {most:.6g}, the largest that "
                    f"N = {numbers['n']} and alpha = {numbers['alpha']:g} allow"
                )
        yield f"radii, compared with the largest that N = {numbers['n']} and alpha = {numbers['alpha']:g} allow"
    yield "not checked: " + "; ".join(unchecked)


def _largest(numbers):
    """The largest radius in units of sigma: all n samples in one class."""
    if not 0 < numbers["alpha"] < 1 or numbers["n"] < 1:
        raise UserError(
            f"--N {numbers['n']} and --alpha {numbers['alpha']}: N counts samples, and alpha lies in (0, 1)"
        )
    return max(float(ndtri(numbers["alpha"] ** (1 / numbers["n"]))), 0.0)


def _bound_troubles(record, row, sigma):
    """The lines in which class, radius and pABar do not fit, beyond the rounding of the written numbers."""
    slack = _unit(row["pABar"])
    if not 0 <= record.pa_lower <= 1:
        yield f"pABar is {record.pa_lower:g}"
        return
    if record.predict != -1 and record.pa_lower + slack < 0.5:
        yield f"predicts class {record.predict}, with a pABar of {record.pa_lower:g}"
    if record.predict == -1 or not sigma:
        return
    low, high = (sigma * float(ndtri(min(max(record.pa_lower + d, 0.5), 1))) for d in (-slack, slack))
    rounding = _unit(row["radius"]) + 1e-6 * sigma
    if not low - rounding <= record.radius <= high + rounding and not math.isclose(low, record.radius, rel_tol=1e-6):
        yield f"the radius is {record.radius:g}, and {sigma * float(ndtri(record.pa_lower)):.6g} by sigma and pABar"


def _unit(text):
    """One unit in the last place of a written number."""
    mantissa, _, exponent = text.lower().partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
