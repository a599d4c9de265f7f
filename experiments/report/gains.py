"""The gain of each image over a reference run, and the images that gain and lose most."""

import numpy as np

from qcrs_jax.results.metrics import columns

from .styles import method_of


def reference_of(runs):
    """The run of one sigma among runs over the same images; None if there is none, or no other run."""
    plain = [run for run in runs if "stored_balls" not in run.request and not run.input_specific]
    known = [run for run in plain if method_of(run) in ("cohen", None)]
    return known[0] if known and len(runs) > 1 else None


def gains(reference, run) -> np.ndarray:
    """The gain in certified radius of each image. An image without a right answer counts as radius 0.

    Their mean is the gain in ACR. The runs are over the same images.
    """
    (right, radius), (reference_right, reference_radius) = columns(run), columns(reference)
    return right * radius - reference_right * reference_radius


def extremes(reference, run, top: int) -> tuple[list[int], list[int]]:
    """The places of the images that gain most and of those that lose most, at most `top` of each, the largest first."""
    gain = gains(reference, run)
    order = np.argsort(-gain, kind="stable").tolist()
    return [i for i in order if gain[i] > 0][:top], [i for i in reversed(order) if gain[i] < 0][:top]
