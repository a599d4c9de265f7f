"""certify --budget: every image is first searched and sampled. Then each gets the samples that are worth most.

The findings are kept in RESULTS.pilot, so a run that is killed resumes there as in RESULTS. Once RESULTS.pilot is
finished, it and the samples of each image stay as they are. Images that were left out of it are left out for good.
"""

import dataclasses
from collections.abc import Container
from pathlib import Path

import numpy as np

from qcrs_jax import conclude
from qcrs_jax.analysis.outlook import Outlook, allocate, outlook
from qcrs_jax.errors import SettingError
from qcrs_jax.results.records import read_rows, read_sidecar
from qcrs_jax.results.rows import Row, Seconds, column

from .answers import draw_image, draws_of, search_samples
from .cost import Draws
from .inputs import Inputs
from .request import Request
from .runner import Sweep, Task, run_over_images


@dataclasses.dataclass(frozen=True)
class Pilot(Row):
    """The knowledge about an image before its certification samples are drawn; one line of RESULTS.pilot.

    Attributes:
        selected: class selected by its n0 samples.
        sigma: noise level of its certificate.
        mean, deviation: those of z = ndtri(p) at sigma, as in `outlook.Outlook`.
        search_samples, seconds: samples and time of the search.
        n: number of certification samples that it gets; 0 before that is known.
    """

    idx: int
    label: int
    selected: int
    sigma: float
    mean: float
    deviation: float
    search_samples: int
    seconds: Seconds = column(name="time")
    n: int = column(0, where="never")


def pilot_path(results: Path) -> Path:
    return results.with_name(results.name + ".pilot")


def left_out(results: Path) -> list[int]:
    """The images without a share of the budget: those that could not be read for a finished RESULTS.pilot."""
    return read_sidecar(pilot_path(results)).get("left_out", [])


def plan(request: Request, sweep: Sweep, inputs: Inputs | None = None) -> Container:
    """The findings about each image of the run, and the samples that it gets: Pilots by index, in a dry run stand-ins.

    Raises:
        UserError: several hosts share the run, or an error of `run_over_images`.
    """
    if sweep.program.distributed:
        raise SettingError(
            "{budget}: several hosts each take a part of the images: give {shard} I/N, not {distributed}"
        )
    path = pilot_path(sweep.results)
    print(f"first of two passes: the value of samples for each image, into {path}")
    requests, leave = [], left_out(sweep.results)

    def task(images):
        requests.append(request.of_each(images))
        return dataclasses.replace(pilot_task(requests[0]), leave=leave)

    pilots = run_over_images(task, dataclasses.replace(sweep, results=path), inputs)
    print("second pass: the certificates")
    if sweep.dry_run and not read_sidecar(path).keys() >= {"sha256"}:
        return Unplanned(requests[0])
    return planned(requests[0], path if sweep.dry_run else pilots)


class Unplanned:
    """Stands for plans that are not made yet, by index: each image gets the mean, at the original sigma."""

    def __init__(self, request):
        self._request = request

    def __getitem__(self, index):
        mean = self._request.budget["mean"]
        return Pilot(index, 0, 0, self._request.sigma, 0.0, 0.0, search_samples=0, seconds=0.0, n=mean)

    def __contains__(self, index):
        return True


def planned(request, path: Path) -> dict[int, Pilot]:
    """The images of a finished pilot, by index, with the samples that each gets.

    The numbers follow from the pilot alone, which is independent of the certification samples.
    """
    pilots, mean = read_pilots(path), request.budget["mean"]
    paying = [pilot for pilot in pilots if not request.stop_when_wrong or pilot.selected == pilot.label]
    samples = {}
    if paying:
        outlook = Outlook(*(np.array([getattr(pilot, name) for pilot in paying]) for name in Outlook._fields))
        chosen = allocate(outlook, mean * len(pilots) // len(paying), request.alpha, request.noise.unit_radius)
        samples = {pilot.idx: int(n) for pilot, n in zip(paying, chosen)}
    return {pilot.idx: dataclasses.replace(pilot, n=samples.get(pilot.idx, mean)) for pilot in pilots}


def pilot_task(request) -> Task:
    """The first task at each image."""

    def start(classify, images, **program):
        nobody = np.int32(-1) if images.ndim == 3 else np.full(len(images), -1, np.int32)
        drawn = draw_image(request, classify, images, labels=nobody, **program)
        return lambda: conclude(drawn)

    def records(index, label, seconds, found):
        selected = int(np.argmax(found.counts0))
        sigmas, successes, n = [float(found.sigma)], [int(found.counts0[selected])], [request.n0]
        if request.search.evaluations:
            evaluations = int(found.search.evaluations)
            sigmas += found.search.sigmas[:evaluations].tolist()
            successes += found.search.counts[:evaluations, selected].tolist()
            n += [request.search.search_n] * evaluations
        seen = outlook(float(found.sigma), sigmas, successes, n, request.sigma)
        spent = search_samples(request, found.search)
        return [Pilot(index, label, selected, *map(float, seen), spent, seconds)]

    numbers, draws = {**request.recorded(), "kind": "pilot"}, pilot_draws(request)
    return Task(numbers, start, records, lambda index: draws, file={"columns": Pilot.columns(), "read": read_pilots})


def pilot_draws(request) -> Draws:
    """The noisy copies that an image gets first: all but those that certify."""
    whole = draws_of(request)
    searched = whole.queries[: len(whole.queries) - len(request.estimate.queries(request.n))]
    return dataclasses.replace(whole, queries=searched, at_most=request.search.may_end_early)


def read_pilots(path) -> list[Pilot]:
    """The lines of RESULTS.pilot. Raises RecordsError for another file."""
    return read_rows(Path(path), set(Pilot.columns()), Pilot.of, "pilot of a run with --budget")
