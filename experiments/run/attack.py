"""Attacks every image of a finished run: the nearest image that is answered otherwise, one line each."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qcrs_jax.analysis.attack import (
    Attack,
    Attacked,
    CascadeRule,
    FrozenRule,
    Nearest,
    Smoothed,
    begin,
    check_attack,
    share_of,
    unchanged,
)
from qcrs_jax.certification.verdict import make_prediction
from qcrs_jax.data.load import digest as digest_of
from qcrs_jax.errors import SettingError, UserError, quoted
from qcrs_jax.files import read_regular
from qcrs_jax.results.attacks import AttackRecord, is_attack, read_attack_records
from qcrs_jax.results.records import (
    Record,
    Run,
    checksum,
    differences,
    is_cascade,
    is_soft,
    read_run,
    read_sidecar,
    sidecar_path,
)
from qcrs_jax.sampling.smoothing import Noise, recorded_noise

from .cascade import CascadeRequest
from .cost import Draws
from .inputs import Inputs, digest, digest_of_all, open_inputs
from .request import Request
from .runner import Task, run_over_images
from .settings import Sweep

_FEWEST = Attack(attempts=1, restarts=1, steps=1, draws=1, looks=1)


def _predicted(request, counts):
    return int(make_prediction(counts, request.n, request.share).prediction)


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a run's images are attacked by one method.

    attacked: (request of the attack, sigma of the image's certificate) -> the classifier that is attacked.
    recorded: the part of the run's request on which that classifier depends.
    check: raises UserError for the request of a run to which the method does not apply.
    answer: (request of the attack, counts of a check) -> the class that they show, or ABSTAIN.
    samples: the number of samples of a check, at most.
    """

    attacked: Callable[["AttackRequest", float], Attacked]
    recorded: Callable[[Request], dict] = lambda asked: {}
    check: Callable[[Request | CascadeRequest], None] = lambda asked: None
    answer: Callable[["AttackRequest", np.ndarray], int] = _predicted
    samples: Callable[["AttackRequest"], int] = lambda request: request.n


def _check_cohen(asked):
    if isinstance(asked, CascadeRequest):
        raise UserError("is a run of a cascade: attack it with {method} cascade")


def _check_cascade(asked):
    if not isinstance(asked, CascadeRequest):
        raise UserError("is no run of a cascade: attack it with {method} cohen or frozen")


def _check_frozen(asked):
    _check_cohen(asked)
    if asked.search.keeps_sigma:
        raise UserError("has one sigma for all images, and no rule that chooses it: attack it with {method} cohen")


def _frozen(request, sigma):
    asked = request.asked
    return FrozenRule(asked.sigma, asked.search, asked.n, asked.alpha, asked.estimate)


def _of_cascade(request, counts):
    cascade, asked = request.asked.cascade, request.asked
    if len(counts) % (2 * len(cascade.sigmas)):
        raise ValueError(f"{len(counts)} numbers are not the counts of {len(cascade.sigmas)} stages")
    counts0, counts = counts.reshape(2, len(cascade.sigmas), -1)
    return int(cascade.certificate(counts0, counts, asked.n0, request.n, request.share, request.noise).prediction)


METHODS: dict[str, Rule] = {
    "cohen": Rule(lambda request, sigma: Smoothed(sigma), check=_check_cohen),
    "frozen": Rule(
        _frozen,
        lambda asked: {"search": asked.search.recorded(), "estimate": asked.estimate.recorded()},
        _check_frozen,
    ),
    "cascade": Rule(
        lambda request, sigma: CascadeRule(request.asked.cascade, request.asked.n0),
        lambda asked: {"search": asked.cascade.recorded(), "estimate": {"name": "cascade"}, "n0": asked.n0},
        _check_cascade,
        _of_cascade,
        lambda request: len(request.asked.cascade.sigmas) * (request.asked.n0 + request.n),
    ),
}
"""The classifiers that can be attacked, by the names of methods."""


@dataclasses.dataclass(frozen=True)
class AttackRequest:
    """The request for each image.

    method: name of the classifier that is attacked, of METHODS.
    asked: the request of the run that is attacked.
    n, alpha: samples of each check; failure probability of all checks of an image together.
    settings: the settings of the attack.
    source, source_sha256: name and hash of the results file.
    """

    method: str
    asked: Request | CascadeRequest
    n: int
    alpha: float
    settings: Attack
    source: str
    source_sha256: str

    def answer(self, counts: np.ndarray) -> int:
        """The class that the counts of a check show, or ABSTAIN."""
        return METHODS[self.method].answer(self, counts)

    @property
    def samples(self) -> int:
        """The number of samples of a check, at most."""
        return METHODS[self.method].samples(self)

    @property
    def sigma(self) -> float:
        """A sigma of the run."""
        return self.asked.sigma

    @property
    def noise(self) -> Noise:
        return self.asked.noise

    def attacked(self, sigma: float) -> Attacked:
        """The classifier that is attacked at an image whose certificate has this sigma."""
        return METHODS[self.method].attacked(self, sigma)

    @property
    def parts(self) -> int:
        """The number of smoothed classifiers that are attacked at each image."""
        return len(self.attacked(self.asked.sigma).parts(None))

    @property
    def share(self) -> float:
        """The failure probability of each check."""
        return share_of(self.alpha, self.settings, self.parts)

    def check(self) -> None:
        """Raises SettingError for a request that cannot be met; the message states what would be possible."""
        check_attack(self.attacked(self.asked.sigma), self.settings, self.n, self.alpha, self.noise)

    def recorded(self) -> dict:
        """Its record in a sidecar."""
        of = {"method": self.method, "source": self.source, "source_sha256": self.source_sha256}
        of |= dataclasses.asdict(self.settings)
        rule = METHODS[self.method].recorded(self.asked)
        if rule:
            of |= {"rule_n": self.asked.n, "rule_alpha": self.asked.alpha}
        numbers = {"sigma": self.asked.sigma, "n": self.n, "alpha": self.alpha}
        return {"kind": "attacks", "attack": of, **rule, **numbers, **recorded_noise(self.noise)}


def request_of(
    results: Path,
    method: str | None = None,
    settings: Attack = Attack(),  # noqa: B008
    n: int | None = None,
    alpha: float | None = None,
) -> tuple[AttackRequest, Run]:
    """The checked request of an attack on the run in `results`, and that run.

    Args:
        method: None takes the classifier that the certificates are about.
        n, alpha: None takes those of the run.

    Raises:
        UserError: the file is no finished run of certificates in L2 of our program, or the method does not apply to it.
    """
    run = _attackable(results)
    try:
        asked = CascadeRequest.of(run.request) if is_cascade(run.request) else Request.of(run.request)
    except UserError as error:
        raise UserError(f"{results}: cannot be attacked: {error}") from error
    if method is None:
        method = "cascade" if isinstance(asked, CascadeRequest) else "cohen"
    if method not in METHODS:
        raise SettingError(f"{{method}} {method!r} is not known; known are {', '.join(METHODS)}")
    try:
        METHODS[method].check(asked)
    except UserError as error:
        raise SettingError(f"{results}: {error}") from error
    request = AttackRequest(
        method=method,
        asked=asked,
        n=asked.n if n is None else n,
        alpha=asked.alpha if alpha is None else alpha,
        settings=settings,
        source=results.name,
        source_sha256=digest_of(read_regular(results)),
    )
    request.check()
    return request, run


def _attackable(results) -> Run:
    """The run in a results file. Raises UserError where its certificates cannot be attacked."""
    run = read_run(results)
    request = run.request
    if request.get("kind") != "certificates" or "settings" not in run.sidecar.get("provenance", {}):
        raise UserError(
            f"{results}: has no sidecar that records its network, its images and its certificates; give a results file "
            "of `qcrs-jax certify`"
        )
    if "stored_balls" in request:
        raise UserError(f"{results}: was made by `qcrs-jax memory`; give the run that it was made of")
    if is_soft(request):
        raise UserError(
            f"{results}: has soft certificates, which are about mean soft votes; an attack is checked by classes. Give "
            "a run of hard certificates"
        )
    if run.norm != "L2":
        raise UserError(f"{results}: has radii of {run.norm}, and an attack moves images in L2; give a run with L2")
    if run.left_out is None or not run.records:
        raise UserError(f"{results}: is not finished; finish it with the command that began it")
    if run.sidecar.get("sha256") not in (None, checksum(results)):
        raise UserError(f"{results}: its hash differs: it was changed after the run; take the file as it was written")
    return run


def attack_dataset(request: AttackRequest, run: Run, sweep: Sweep, inputs: Inputs | None = None) -> Path | None:
    """Attacks the images of a run. Returns the file of attacks; errors as for `run_over_images`.

    Args:
        sweep: the settings of the run, with the file of attacks as its results.

    Raises:
        UserError: the classifier or the data set is not that of the run, or the file has results.
    """
    if sweep.results.resolve() in (run.path.resolve(), sidecar_path(run.path).resolve()):
        raise UserError(f"{sweep.results}: is the file that is attacked; choose another file for the attacks")
    inputs = open_inputs(sweep) if inputs is None else inputs
    check_inputs_of(run, inputs)
    return run_over_images(task(request, run.records, run.left_out or ()), sweep, inputs)


def check_inputs_of(run: Run, inputs: Inputs) -> None:
    """Raises UserError unless classifier, data set and pixels are those of the run."""
    names = ("classifier", "stages", "dataset", "dtype")
    now = json.loads(json.dumps(inputs.common_request))
    then, now = ({name: of.get(name) for name in names} for of in (run.request, now))
    if changed := differences(then, now, (f"in {run.path}", "now")):
        raise UserError(
            f"{run.path}: is of another classifier or data set; name its own. The differences are\n  "
            + "\n  ".join(changed)
        )
    if whole := run.sidecar.get("pixels_sha256"):
        if digest_of_all({record.idx: digest(inputs.read(record.idx)[0]) for record in run.records}) != whole:
            raise UserError(f"{run.path}: the pixels of its images have changed since: their hash differs")


def task(request: AttackRequest, records: list[Record], leave=()) -> Task:
    """The task at each image. `records` are those of the run that is attacked."""
    certified = {record.idx: record for record in records}
    fewest = dataclasses.replace(_FEWEST, inside=request.settings.inside)

    def one(classify, image, record, **program):
        settings, attacks = request.settings, record.predict == record.label
        if not attacks:  # one pass, so that the cost of the run can be measured at any image
            settings = fewest
        finish = begin(
            classify,
            image,
            record.label,
            request.attacked(record.sigma),
            radius=record.radius,
            settings=settings,
            n=request.n,
            alpha=request.alpha,
            noise=request.noise,
            **program,
        )
        return finish if attacks else lambda: unchanged(image, len(record.counts or (0, 0)))

    def start(classify, images, key, index, **program):
        if images.ndim == 3:
            return one(classify, images, certified[int(index)], key=key, **program)
        waiting = [
            one(classify, image, certified[int(i)], key=own, **program) for image, own, i in zip(images, key, index)
        ]
        return lambda: Nearest(*map(np.stack, zip(*(finish() for finish in waiting))))

    def lines(index, label, seconds, found):
        record = certified[index]
        line = AttackRecord(index, label, record.predict, record.radius, record.sigma, seconds=seconds)
        line = dataclasses.replace(line, checks=int(found.checks), failed=float(found.failed))
        if not np.isfinite(found.distance):
            return [line]
        shown = {
            "distance": float(found.distance),
            "answer": int(found.prediction),
            "answer_sigma": float(found.sigma),
            "counts": tuple(found.counts.tolist()),
            "image_sha256": digest(found.image),
        }
        return [dataclasses.replace(line, **shown)]

    settings, checks = request.settings, request.settings.attempts * request.parts
    draws = Draws((request.samples,) * checks, settings.samples * request.parts, at_most=True)
    none = Draws((), 1, at_most=True)
    attacks = {record.idx for record in records if record.predict == record.label}
    return Task(
        request.recorded(),
        start,
        lines,
        lambda index: draws if index in attacks else none,
        file={"columns": AttackRecord.columns(), "read": read_attack_records},
        own=lambda indices, labels: {"index": np.array(indices)},
        knows=lambda index: index in certified,
        equal_cost=False,
        leave=tuple(leave),
    )


def again(path: Path) -> tuple[AttackRequest, Run]:
    """The request of a finished file of attacks, and the run beside it that was attacked.

    Raises:
        UserError: that run is missing, or is another one; or no request of this version has this form.
    """
    if not is_attack(path):
        raise UserError(f"{path}: is no file of attacks")
    whole = read_sidecar(path)["request"]
    request = whole.get("attack", {})
    if missing := {"method", "source", "source_sha256"} - set(request):
        raise UserError(f"{path}: its sidecar lacks request.attack.{sorted(missing)[0]}")
    source = path.with_name(request["source"])
    if not source.exists():
        raise UserError(f"{path}: attacked {source.name}, which is missing; put it in the same folder")
    if checksum(source) != request["source_sha256"]:
        raise UserError(f"{path}: {source.name} is not the file that was attacked: its hash differs")
    names = [field.name for field in dataclasses.fields(Attack)]
    try:
        settings = Attack(**{name: request[name] for name in names})
        return request_of(source, request["method"], settings, whole["n"], whole["alpha"])
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: its request is not one of this version: {quoted(error)}") from error
