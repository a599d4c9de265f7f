"""The request of a run of the cascade, and its task at each image."""

import dataclasses

import numpy as np

from qcrs_jax.certification.cascade import Cascade, conclude_cascade, draw_cascade
from qcrs_jax.certification.verdict import fields_of
from qcrs_jax.errors import UserError, quoted
from qcrs_jax.results.records import CASCADE_COLUMNS, PREDICT_COLUMNS, Record
from qcrs_jax.sampling.smoothing import GAUSSIAN, Noise, noise_of, recorded_noise

from .answers import one_record
from .cost import Draws
from .request import shared
from .runner import Task

PREDICTED = (*PREDICT_COLUMNS, *CASCADE_COLUMNS)
"""The columns of predictions of a cascade."""


@dataclasses.dataclass(frozen=True)
class CascadeRequest:
    """The request for each image of a run of the cascade.

    cascade: noise levels and thresholds of the stages.
    n0, n: number of samples of every stage that select, and that certify.
    alpha: failure probability of each certificate; with `at_once`, of all certificates of the run together.
    noise: noise that is added to images.
    predicts: whether only the class is asked for, and no radius.
    at_once, simultaneous: as for `Request`.
    """

    cascade: Cascade
    n0: int
    n: int
    alpha: float
    noise: Noise = GAUSSIAN
    at_once: bool = False
    simultaneous: dict | None = None
    predicts: bool = False

    @property
    def sigma(self) -> float:
        """The noise level of the first stage."""
        return self.cascade.sigmas[0]

    def check(self) -> None:
        """Raises SettingError for a request that cannot be met; the message states what would be possible."""
        self.cascade.check(self.n0, self.n, self.alpha, self.noise)

    def of_each(self, images: int) -> "CascadeRequest":
        """The request for each of a run's images. Raises SettingError if nothing could be certified."""
        return shared(self, images)

    def recorded(self) -> dict:
        """Its record in a sidecar. Its sigma is that of the first stage."""
        numbers = {"sigma": self.sigma, "n0": self.n0, "n": self.n, "alpha": self.alpha}
        more = {"simultaneous": self.simultaneous} if self.simultaneous else {}
        kind = "predictions" if self.predicts else "certificates"
        found = {"kind": kind, "search": self.cascade.recorded(), "estimate": {"name": "cascade"}}
        return {**found, **recorded_noise(self.noise), **numbers, **more}

    @classmethod
    def of(cls, recorded: dict) -> "CascadeRequest":
        """The request that a sidecar records.

        Raises:
            UserError: no request of this version has this form.
        """
        try:
            numbers = {name: recorded[name] for name in ("n0", "n", "alpha")}
            more = {"simultaneous": recorded.get("simultaneous"), "predicts": recorded["kind"] == "predictions"}
            request = cls(cascade_of(recorded), **numbers, noise=noise_of(recorded), **more)
            request.check()
        except (ValueError, TypeError, KeyError, ArithmeticError) as error:
            raise UserError(f"its request is not one of this version: {quoted(error)}") from error
        return request

    def fields(self, certificate) -> dict:
        """A certificate as fields of a Record, in Python numbers. Samples of other stages count as a search's."""
        of_all = {
            "counts": tuple(certificate.counts.tolist()),
            "stage": int(certificate.stage),
            "stages0": tuple(certificate.stages.counts0.ravel().tolist()),
            "stages": tuple(certificate.stages.counts.ravel().tolist()),
        }
        if self.predicts:
            return {"predict": int(certificate.prediction), **of_all}
        drawn = self.n0 * len(self.cascade.sigmas) + int(certificate.stages.n.sum())
        return {
            **fields_of(certificate),
            "sigma": float(certificate.sigma),
            "search_samples": drawn - self.n0 - self.n,
            "counts0": tuple(certificate.counts0.tolist()),
            **of_all,
        }

    def again(self, record: Record) -> dict:
        """The fields of a line of a results file that follow from the counts of all stages.

        Raises:
            ValueError: these are not the counts of all stages.
        """
        counts0, counts = (_by_stage(numbers, self.cascade) for numbers in (record.stages0, record.stages))
        made = self.cascade.certificate(counts0, counts, self.n0, self.n, self.alpha, self.noise)
        for each, most in ((counts0, self.n0), (counts, made.stages.n)):
            if (each < 0).any() or (each.sum(axis=-1) > most).any():
                raise ValueError(f"a stage has {each.sum(axis=-1).max()} samples, and should have {most}")
        return self.fields(made)


def cascade_of(recorded: dict) -> Cascade:
    """The cascade that the request of a sidecar describes."""
    search = recorded["search"]
    return Cascade(tuple(search["sigmas"]), tuple(search["tau"]))


def task(request: CascadeRequest) -> Task:
    """The task at each image."""

    def start(classify, images, **program):
        numbers = {"n0": request.n0, "n": request.n, "alpha": request.alpha, "noise": request.noise}
        drawn = draw_cascade(classify, images, request.cascade, **numbers, **program)
        return lambda: conclude_cascade(drawn)

    def records(index, label, seconds, certificate):
        return one_record(index, label, seconds, {"radius": None, **request.fields(certificate)})

    stages = len(request.cascade.sigmas)
    draws = Draws((request.n0,) * stages + (request.n,) * stages, at_most=stages > 1)
    file = {"columns": PREDICTED if request.predicts else Record.columns(CASCADE_COLUMNS)}
    score = ("ACR", lambda record: record.correct * record.radius)
    if request.predicts:
        score = ("accuracy", lambda record: record.correct)
    return Task(request.recorded(), start, records, lambda index: draws, score, file=file, equal_cost=stages == 1)


def _by_stage(numbers, cascade):
    if not numbers or len(numbers) % len(cascade.sigmas):
        raise ValueError(f"the counts of {len(cascade.sigmas)} stages are not there")
    return np.array(numbers, np.int64).reshape(len(cascade.sigmas), -1)
