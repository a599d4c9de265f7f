"""Step functions of a run: certified accuracy over the radius, and the distribution of p_A."""

import numpy as np

from qcrs_jax.results.metrics import certified_accuracy


def steps_of(correct, radius, end: int | float, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Certified accuracy as a step function (r, share): share[i] holds for radii in (r[i - 1], r[i]].

    Args:
        correct, radius: the columns of a run.
        end: the last r.
        most: largest number of steps. If there are more, each share is one that holds for its whole interval.
    """
    at = np.unique(np.concatenate([[0.0], radius[correct & (radius < end)], [end]]))
    if most is not None and len(at) > most:
        at = np.linspace(0, end, most)
    return at, np.concatenate(
        [certified_accuracy(correct, radius, part) for part in np.array_split(at, 1 + len(at) // 500)]
    )


def probabilities(run) -> np.ndarray | None:
    """p_A of each image: the lower bound of its class's probability, 0 for an image that is not classified correctly.

    None where the file does not have it.
    """
    if any(record.pa_lower is None for record in run.records):
        return None
    return np.array([record.pa_lower if record.correct else 0.0 for record in run.records])


def distribution(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The share of `values` that are at most each of `at`: their empirical distribution function (ECDF)."""
    return np.searchsorted(np.sort(values), at, side="right") / len(values)
