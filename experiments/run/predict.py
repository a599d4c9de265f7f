"""Predicts a data set: the smoothed classifier's class of every image, or an abstention (PREDICT of Cohen et al.)."""

import dataclasses

from qcrs_jax import decide, draw_counts
from qcrs_jax.certification.certificate import check_prediction
from qcrs_jax.results.records import PREDICT_COLUMNS
from qcrs_jax.sampling.smoothing import GAUSSIAN, Noise, check_largest, noise_of, recorded_noise

from .answers import one_record
from .cost import Draws
from .runner import Task


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The request for each image of a run of PREDICT: n samples at sigma, and alpha of its answer."""

    sigma: float
    n: int
    alpha: float
    noise: Noise = GAUSSIAN

    def check(self) -> None:
        """Raises SettingError for a request that cannot be met; the message states what would be possible."""
        check_prediction(self.sigma, self.n, self.alpha)
        check_largest(self.noise, self.sigma)

    def recorded(self) -> dict:
        """Its record in a sidecar."""
        numbers = {name: getattr(self, name) for name in ("sigma", "n", "alpha")}
        return {"kind": "predictions", **numbers, **recorded_noise(self.noise)}

    @classmethod
    def of(cls, recorded: dict) -> "Prediction":
        """The request that a sidecar records."""
        return cls(*(recorded[name] for name in ("sigma", "n", "alpha")), noise_of(recorded))


def task(request: Prediction) -> Task:
    """The task at each image."""

    def start(classify, images, **program):
        counts = draw_counts(classify, images, request.sigma, n=request.n, noise=request.noise, **program)
        return lambda: decide(counts, request.n, request.alpha)

    def records(index, label, seconds, answer):
        fields = {"predict": int(answer.prediction), "radius": None, "counts": tuple(answer.counts.tolist())}
        return one_record(index, label, seconds, fields)

    score = ("accuracy", lambda record: record.correct)
    draws = Draws((request.n,))
    return Task(request.recorded(), start, records, lambda index: draws, score, file={"columns": PREDICT_COLUMNS})
