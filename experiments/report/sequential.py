"""Exact mean numbers of samples for a decision, or for a radius to a given precision; without a network."""

from pathlib import Path

import numpy as np
from scipy import special, stats
from scipy.special import ndtr, ndtri

from qcrs_jax.certification.sequential import Sequential, outcome, walk
from qcrs_jax.errors import UserError
from qcrs_jax.results.records import read_run

DISTANCES = (
    -1.0,
    -0.5,
    -0.2,
    -0.05,
    0.0,
    0.05,
    0.2,
    0.5,
    1.0,
    2.0,
)  # of the true radius from the radius that is decided
RADII = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)


def probits(path: Path) -> list[float]:
    """z = ndtri(p) of each image of a results file, with p estimated from its certification samples.

    Raises:
        UserError: the file cannot be read, has no counts, or its radii are not of L2.
    """
    run = read_run(path)
    records = run.records
    if run.norm != "L2":
        raise UserError(
            f"{path}: has radii of {run.norm}, and the tables are of normal noise; give a run with radii of L2"
        )
    if not records or not all(record.counts and record.counts0 for record in records):
        raise UserError(f"{path}: has no class counts of selection and certification")
    selected = [max(range(len(record.counts0)), key=record.counts0.__getitem__) for record in records]
    return [
        float(ndtri((record.counts[top] + 0.5) / (sum(record.counts) + 1))) for record, top in zip(records, selected)
    ]


def decisions(layout, radius: float, n: int, alpha: float, images=None) -> list[str]:
    """A heading, and a table of the mean samples of a decision at `radius` by each scheme, at sigma = 1.

    `images`: the z of each of some images, whose mean has a column.
    """
    zs = [*(radius + distance for distance in DISTANCES), *(images or ())]
    threshold = float(ndtr(radius))
    rows = []
    for name, scheme in published(threshold, n, alpha).items():
        rows.append((name, [scheme(float(ndtr(z))) for z in zs]))
    for name in ("stages", "union", "betting"):
        ours = Sequential(decide=radius, sequence=name)
        results = [outcome(ours, n, alpha, float(ndtr(z))) for z in zs]
        rows.append((f"ours, {name}", [(result.samples, result.robust, result.not_robust) for result in results]))
    at = DISTANCES.index(0.0)
    cells = [
        [
            name,
            *(f"{samples:,.0f}" for samples, _, _ in results[: len(DISTANCES)]),
            *([f"{np.mean([samples for samples, _, _ in results[len(DISTANCES) :]]):,.0f}"] if images else []),
            f"{results[at][1]:.1e}",
            f"{results[at][2]:.1e}",
        ]
        for name, results in rows
    ]
    header = ["mean samples where z =", *(f"{z:g}" for z in zs[: len(DISTANCES)])]
    header += [*(["the images"] if images else []), "says robust at z = r", "says not"]
    heading = f"Decision at r = {radius:g} sigma, N = {n:,}, both errors at most {alpha:g}:"
    return [heading, layout(header, [[(cell, None) for cell in row] for row in cells])]


def published(threshold: float, n: int, alpha: float) -> dict:
    """Schemes to compare with, by name: p -> (mean samples, probabilities of the claims p > and p <= `threshold`).

    Horvath et al. have 1000, 10 000 and 125 000 samples in their stages; here n / 100, n / 10 and n.
    """

    def binomial(shares):
        """Rejects p <= q if k or more successes have a probability below the look's share of alpha; exact."""

        def rejects(look, k, m, q):
            return (k > 0) & (special.betainc(np.maximum(k, 1), m - k + 1, q) < alpha * shares[look])

        return rejects

    def wealthy(look, k, m, q):
        """Rejects p <= q if the wealth under the whole of Jeffreys' prior reaches 1 / alpha."""
        wealth = special.betaln(k + 0.5, m - k + 0.5) - special.betaln(0.5, 0.5)
        wealth -= special.xlogy(k, q) + special.xlog1py(m - k, -q)
        return (k > m * q) & (wealth >= -np.log(alpha))

    def scheme(looks, rejects, rejects_more=None, fresh=False):
        return lambda p: _claims(looks, rejects, rejects_more or rejects, threshold, p, fresh)

    geometric = [m for m in sorted({int(np.ceil(1.1**k)) for k in range(11, 300)}) if m < n] + [n]
    counted = np.arange(1, len(geometric) + 1)
    stages = [max(n // 100, 1), max(n // 10, 1), n]
    return {
        "fixed N": scheme([n], binomial([1.0])),
        "Horvath et al., three stages": scheme(
            stages, binomial([1 / 3] * 3), binomial([1 / 2, 1 / 2, 0.0]), fresh=True
        ),
        "Voracek, union bound": scheme(geometric, binomial(5 / ((counted + 4) * (counted + 5)))),
        "Voracek, betting (KT)": scheme(geometric, wealthy),
    }


def _claims(looks, rejects, rejects_more, threshold, p, fresh):
    """Mean samples, and probabilities of the claims that p is more and not more than `threshold`; exact.

    rejects: (look, k, m, q) -> whether k of m samples reject that their probability is at most q.
    rejects_more: the same, applied to failures, for the other claim.
    fresh: whether each look draws all its samples anew, as Horvath et al. do.
    """

    def more(look, k):
        return rejects(look, k, looks[look], threshold)

    def less(look, k):
        return rejects_more(look, looks[look] - k, looks[look], 1 - threshold)

    if not fresh:
        ended, drawn = walk(looks, lambda look, k: more(look, k) | less(look, k), p), looks
    else:
        ended, drawn, going = [], np.cumsum(looks), 1.0
        for look, m in enumerate(looks):
            k = np.arange(m + 1)
            chances = going * stats.binom.pmf(k, m, p)
            stops = more(look, k) | less(look, k) | (look == len(looks) - 1)
            ended.append(np.where(stops, chances, 0.0))
            going = chances[~stops].sum()
    totals = np.zeros(3)
    for look, chances in enumerate(ended):
        k = np.arange(chances.size)
        totals += drawn[look] * chances.sum(), chances[more(look, k)].sum(), chances[less(look, k)].sum()
    return totals


def precisions(layout, shares, n: int, alpha: float) -> list[str]:
    """A heading, and a table of mean samples and mean certified radius for each precision, at sigma = 1."""
    settings = {f"N = {n:,}": Sequential(precision=0.5, sequence="fixed")}
    settings |= {f"within {share:.3g}": Sequential(precision=share) for share in shares}
    rows = []
    for name, sequential in settings.items():
        results = [outcome(sequential, n, alpha, float(ndtr(z))) for z in RADII]
        cells = [f"{result.radius:.2f} for {result.samples:,.0f}" for result in results]
        rows.append([(cell, None) for cell in (name, *cells)])
    heading = f"Mean certified radius / sigma, for mean samples, of a true radius of z sigma; alpha = {alpha:g}:"
    return [heading, layout(["z =", *(f"{z:g}" for z in RADII)], rows)]
