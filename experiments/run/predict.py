"""A data set predicted: the smoothed classifier's class of every image, or an abstention (PREDICT of Cohen et al.)."""

import dataclasses

from qcrs_jax import decide, draw_counts
from qcrs_jax.certification.certificate import check_prediction
from qcrs_jax.results.records import PREDICT_COLUMNS

from .answers import one_record
from .cost import Draws
from .runner import Task


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What is asked of each image of a run of PREDICT: n samples at sigma, and alpha of its answer."""

    sigma: float
    n: int
    alpha: float

    def check(self) -> None:
        """Raises SettingError for a request that cannot be met; says what would be possible."""
        check_prediction(self.sigma, self.n, self.alpha)

    def recorded(self) -> dict:
        """What a sidecar says of it."""
        return {"kind": "predictions", **vars(self)}

    @classmethod
    def of(cls, recorded: dict) -> "Prediction":
        """The request that a sidecar tells of."""
        return cls(*(recorded[field.name] for field in dataclasses.fields(cls)))


def task(request: Prediction) -> Task:
    """What is done at each image."""

    def start(classify, images, **program):
        counts = draw_counts(classify, images, request.sigma, n=request.n, **program)
        return lambda: decide(counts, request.n, request.alpha)

    def records(index, label, seconds, answer):
        fields = {"predict": int(answer.prediction), "radius": None, "counts": tuple(answer.counts.tolist())}
        return one_record(index, label, seconds, fields)

    score = ("accuracy", lambda record: record.correct)
    draws = Draws((request.n,))
    return Task(request.recorded(), start, records, lambda index: draws, score, file={"columns": PREDICT_COLUMNS})
