"""The collapse of a run's classifier, measured before the run on images that are not certified, and its record.

The measurement decides no certificate. It may decide where the bracket of a search ends; that end is then a number of
the request like any other. It is fixed before an image is certified, and a certificate is valid for any bracket, so
nothing of alpha is spent.

The figures are those of counts that depend on the classifier, the images, the sigmas and the noise alone. Their key is
one for all runs, which no run's noise has. So all shards of a run find the same, and a record may be kept: beside the
checkpoint, as CHECKPOINT.collapse.json.
"""

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path

import jax
import numpy as np

from qcrs_jax.analysis.collapse import collapse_grid, measure_collapse
from qcrs_jax.checks import LARGEST_SIGMA
from qcrs_jax.errors import SettingError, UserError
from qcrs_jax.files import read_regular, replacing
from qcrs_jax.printable import printable
from qcrs_jax.results.collapse import Collapse
from qcrs_jax.results.records import read_sidecar
from qcrs_jax.results.sidecar import Unfit, check_collapse
from qcrs_jax.sampling.smoothing import Noise
from qcrs_jax.sampling.streams import collapse_key

from .inputs import Inputs
from .request import Request
from .settings import Images, Sweep

IMAGES = 100
COPIES = 5
FEWEST = 20
"""The fewest images on which collapse is measured: fewer say nothing about accuracy."""
FARTHER = 4
"""How many times beyond the usual end of the bracket its end is looked for."""
MOST_KEPT = 32  # records in a file beside a checkpoint
LARGEST = 2**20  # bytes of it


_measured: dict[str, dict] = {}
"""The records that this process measured, by their keys, for runs of networks beside which no file is kept."""


def with_collapse(request: Request, sweep: Sweep, inputs: Inputs) -> tuple[Request, Inputs]:
    """The request with the end of its bracket, and inputs whose provenance has the record of collapse.

    It is measured, unless the results file or the checkpoint's own file has the record. A run that goes on keeps the
    record that it was begun with, or none. A run of too few images has none.

    Raises:
        SettingError: the bracket is to end where accuracy is lost, and that cannot be measured, or lies below sigma.
    """
    alone = jax.process_count() == 1  # several hosts compute together, and may have different files
    begun = _begun(sweep.results) if alone else None
    if not request.to_collapse and (begun is not None or sweep.dry_run):
        return request, inputs
    sigmas = _sigmas(request)
    asked = _asked(inputs, request.noise, sigmas)
    record = _fitting((begun or {}).get("collapse"), asked) or _record(
        request.noise, sigmas, asked, sweep, inputs, alone
    )
    if record is None:
        if request.to_collapse:
            raise SettingError(
                f"{{sigma_upper}} auto: collapse is measured on {FEWEST} images or more, and {inputs.dataset.name} has "
                "fewer that can be read; give {sigma_upper} a number"
            )
        return request, inputs
    collapse = Collapse.of(record)
    print(f"collapse: {described(collapse, record['other_images'])}", flush=True)
    record = {**record, "ends_bracket": request.to_collapse and collapse.lost_at is not None}
    if request.to_collapse:
        request = _ended(request, collapse)
    return request, dataclasses.replace(inputs, provenance={**inputs.provenance, "collapse": record})


def _sigmas(request):
    """The sigmas at which a run measures: those of its bracket, and of what lies beyond where the end is looked for."""
    search, sigma = request.search, request.sigma
    reach = FARTHER * search.sigma_upper if request.to_collapse else search.reach
    upper = min(reach, request.noise.largest_sigma, LARGEST_SIGMA)
    return collapse_grid(min(search.sigma_lower, sigma), sigma, max(upper, sigma))


def _record(noise, sigmas, asked, sweep, inputs, alone):
    """The record that was kept, or a new one, which is kept; None where there are too few images."""
    chosen, apart = choose(inputs.dataset, sweep.images)
    key, file = _sum([asked, chosen]), _kept_in(sweep) if alone else None
    kept = _read(file) if file else _measured if alone else {}
    if record := _fitting(kept.get(key), asked):
        return record
    if len(chosen) >= FEWEST:
        copies = f"{len(chosen) * COPIES} noisy copies of {len(chosen)} {'other images' if apart else 'images'}"
        print(f"collapse: first {copies} at each of {len(sigmas)} sigmas", flush=True)
    collapse = measure(inputs, chosen, sigmas, COPIES, noise)
    if collapse is None:
        return None
    record = {**collapse.recorded(), "other_images": apart, "measured": asked}
    if file and not sweep.dry_run:
        _keep(file, key, record)
    elif alone and len(_measured) < MOST_KEPT:
        _measured[key] = record
    return record


def described(collapse: Collapse, other_images: bool = True) -> str:
    """The finding, in a sentence or two."""
    first, last = collapse.levels[0].sigma, collapse.levels[-1].sigma
    whose = "" if other_images else " These images are certified too; the noise of their certificates is another."
    if collapse.reference is None:
        return (
            f"at no sigma from {first:.3g} to {last:.3g} are {collapse.images} images answered clearly better than by "
            f"one class for all.{whose}"
        )
    if collapse.lost_at is None:
        return f"accuracy under noise is kept up to sigma {last:.3g}, by {collapse.images} images.{whose}"
    return (
        f"accuracy under noise is lost at sigma {collapse.lost_at:g}, by {collapse.images} images: beyond, it is "
        f"nearer to that of one answer for all images than to the best.{whose}"
    )


def _ended(request, collapse):
    """The request whose bracket ends where accuracy is lost."""
    if collapse.reference is None:
        raise SettingError(
            "{sigma_upper} auto: at no sigma is this classifier clearly better than one answer for all images. Are "
            "data set, order of classes and normalisation those of this network? If so, give {sigma_upper} a number"
        )
    if collapse.lost_at is None:  # the bracket ends where it usually does
        return dataclasses.replace(request, to_collapse=False)
    if collapse.lost_at < request.sigma:
        raise SettingError(
            f"{{sigma_upper}} auto: accuracy under noise is lost at {collapse.lost_at:g}, below {{sigma}} = "
            f"{request.sigma:g}. Was this network trained with such noise? If so, give {{sigma_upper}} a number"
        )
    ended = dataclasses.replace(request, search=request.search.ending_at(collapse.lost_at), to_collapse=False)
    ended.check()
    return ended


def measure(inputs: Inputs, chosen: list[int], sigmas, copies: int, noise: Noise) -> Collapse | None:
    """The collapse on those images at `chosen` that can be read; None where these are fewer than `FEWEST`."""
    images, labels, readable = inputs.readable(chosen)
    if len(images) < FEWEST:
        return None
    devices = inputs.devices if jax.process_count() > 1 else inputs.devices[:copies]
    return measure_collapse(
        inputs.classify,
        np.stack(images),
        sigmas,
        np.array(labels),
        key=jax.vmap(jax.random.fold_in, in_axes=(None, 0))(collapse_key(), np.array(readable, np.uint32)),
        copies=copies,
        noise=noise,
        batch_size=inputs.batch,
        devices=devices,
    )


def choose(dataset, images: Images | None, number: int = IMAGES) -> tuple[list[int], bool]:
    """Images at random, and whether none of them is one of the run, which certifies `images`.

    Each class has its share of them, as exactly as whole numbers allow. They are the same for all shards of a run. If
    there are fewer than `FEWEST` other images, or no run, all images may be chosen.
    """
    usable = [index for index in range(len(dataset)) if index not in dataset.problems]
    whole = range(len(dataset)) if images is None else dataclasses.replace(images, shard=None).of(len(dataset))[1]
    images = images or Images()
    others = [index for index in usable if index not in whole and (images.skip == 1 or index % images.skip)]
    apart = len(others) >= FEWEST
    pool = np.random.default_rng(0).permutation(np.array(others if apart else usable, int))
    pool = pool[np.argsort(np.asarray(dataset.labels)[pool], kind="stable")]
    number = min(number, len(pool))
    return sorted(pool[(2 * np.arange(number) + 1) * len(pool) // (2 * number)].tolist()) if number else [], apart


def _begun(results):
    """The provenance in the sidecar of a results file that was begun; None where there is none to be read."""
    try:
        return read_sidecar(results).get("provenance")
    except UserError:  # the run itself will say it
        return None


def _asked(inputs, noise, sigmas):
    """A hash of everything that decides the figures, but for the images."""
    asked = [inputs.common_request, noise.recorded(), noise.draws("threefry"), list(sigmas), IMAGES, COPIES]
    return _sum(asked)


def _sum(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _kept_in(sweep):
    """The file in which records are kept: beside the checkpoint, if that is a file or a directory of the user's."""
    checkpoint = Path(sweep.network.checkpoint)
    with contextlib.suppress(OSError):
        if checkpoint.exists():
            return checkpoint.with_name(f"{checkpoint.resolve().name}.collapse.json")
    return None


def _read(file) -> dict:
    """The records in a file, by their keys; {} for a missing or a damaged one."""
    if file is None:
        return {}
    try:
        content = json.loads(read_regular(file, most=LARGEST))
    except (UserError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _fitting(record, asked):
    """A record, if it is whole and of what is `asked`; else None."""
    try:
        check_collapse(record)
        fits = record["measured"] == asked and record["levels"] and "other_images" in record
        return record if fits and Collapse.of(record).lost_at == record.get("lost_at") else None
    except (Unfit, KeyError, TypeError):
        return None


def _keep(file, key, record):
    """Adds a record to a file. A folder that cannot be written to costs a measurement at the next run, and no more."""
    if file is None:
        return
    kept = {name: known for name, known in _read(file).items() if name != key}
    kept = {**dict(list(kept.items())[1 - MOST_KEPT :]), key: record}
    try:
        with replacing(file) as out:
            out.write((json.dumps(kept, indent=1) + "\n").encode())
    except OSError as error:
        print(printable(f"collapse: not kept for the next run: {file}: {error.strerror}"))
