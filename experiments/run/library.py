"""`run`, `verify` and `read_results` of the library: the program for a classifier in memory."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from qcrs_jax.certification.cascade import Cascade
from qcrs_jax.certification.estimates import Estimate, Fixed
from qcrs_jax.data.dataset import Dataset, digest
from qcrs_jax.errors import SettingError, UserError
from qcrs_jax.models import Classifier
from qcrs_jax.results.records import Run, read_run
from qcrs_jax.sampling import smoothing
from qcrs_jax.search import FixedSigma, Search

from .cascade import CascadeRequest
from .certify import certify_cascade_dataset, certify_dataset
from .inputs import Inputs, open_devices
from .noise_of_data import with_noise_of_data
from .python_classifier import given_classifier
from .request import Request
from .settings import IN_MEMORY, Images, Network, Noise, Program, Sweep
from .stopped import Stopped

Pairs = tuple[Float[np.ndarray, "m h w c"], Int[np.ndarray, "labels"]]


def run(
    classify: Callable | Classifier,
    dataset: Dataset | Pairs,
    results: str | Path,
    sigma: float | Cascade,
    *,
    search: Search | None = None,
    estimate: Estimate = Fixed(),  # noqa: B008
    noise: smoothing.Noise | None = None,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    simultaneous: bool = False,
    stop_when_wrong: bool = False,
    seed: int | None = None,
    skip: int = 1,
    stop: int = -1,
    shard: tuple[int, int] | None = None,
    batch_size: int | str | None = None,
    devices: int | None = None,
    images: int | None = None,
    name: str = "classify",
    collapse: bool = False,
) -> Run:
    """Certifies a data set into a results file, as `qcrs-jax certify` does. Returns the content of the file.

    A file that already has some of the images is continued. A file of another request is refused. Beside it stands a
    sidecar with everything that decides the results, including the hashes of the weights and of the data. `qcrs-jax
    table`, `plot` and `compare` read the file, and `verify` draws lines of it again. The cost is printed first, then
    the progress.

    Without `seed` the noise is committed to the run: its key is the first 64 bits of a hash of everything that the
    sidecar's request asks. The sidecar records that hash as `request["seed"]["sha256"]`. A run over other images has
    another hash, so the run cannot be extended. With `seed` the counts are those of `certify` with key
    `fold_in(jax.random.key(seed), index)`. Tables then state that the user chose the seed.

    Args:
        classify: jit-compatible function of images (batch, h, w, c) in [0, 1] to logits (batch, classes), its weights
            bound by `jax.tree_util.Partial`; or a classifier from `load_classifier`.
        dataset: a data set from `load_dataset`, or a pair of images (m, h, w, c) in [0, 1] and integer labels (m,).
        results: path of the results file.
        sigma, search, estimate, n0, n, alpha: as for `certify`. A `Cascade` in the place of sigma is certified as by
            `certify_cascade`.
        noise: as for `certify`. None takes `GridGaussian()` for a data set whose images have 8 bits a channel, and
            `Gaussian()` for any other; a file that is continued keeps its noise.
        simultaneous: whether alpha is the failure probability of all certificates of the run together.
        stop_when_wrong: whether an image whose selected class is not its label draws no certification samples.
        seed: seed of all noise, from 0 to 2**32 - 1; None commits the seed to the request.
        skip, stop: only images 0, skip, 2 skip, ..., before image `stop`, are certified; stop = -1 is the end.
        shard: (i, m): only every mth of these images, from the ith.
        batch_size, devices, images: noisy copies per forward pass of a device, number of devices, and images in step.
            They change no count.
        name: name of the classifier in messages and in the sidecar.
        collapse: whether the sigma at which accuracy under noise is lost is measured first, on a hundred other images,
            and recorded. Tables then state how many images lie beyond it.

    Raises:
        UserError: the request cannot be met, or the file, the classifier and the data set do not fit.
    """
    sweep = Sweep(
        Network(Path(f"{IN_MEMORY}{name}")),
        images=Images(skip, stop, shard),
        noise=Noise(seed),
        program=Program(batch_size=batch_size, devices=devices, images=images),
        results=Path(results),
    )
    if isinstance(sigma, Cascade):
        if search is not None or estimate != Fixed() or stop_when_wrong or collapse:
            raise SettingError("a cascade takes no {search}, no {estimate}, no {stop_when_wrong} and no {collapse}")
        asked = CascadeRequest(sigma, n0, n, alpha, noise or smoothing.GAUSSIAN, simultaneous)
        return _run(asked, noise, certify_cascade_dataset, classify, dataset, sweep)
    request = Request(
        sigma=sigma,
        n0=n0,
        n=n,
        alpha=alpha,
        search=FixedSigma() if search is None else search,
        estimate=estimate,
        noise=noise or smoothing.GAUSSIAN,
        stop_when_wrong=stop_when_wrong,
        at_once=simultaneous,
    )
    return _run(request, noise, functools.partial(certify_dataset, collapse=collapse), classify, dataset, sweep)


def _run(request, noise, certify, classify, dataset, sweep) -> Run:
    """The run that `certify(request, sweep, inputs)` writes. `noise` is None where the data set decides it."""
    request.check()
    inputs = opened(classify, dataset, sweep)
    if noise is None:
        request, inputs = with_noise_of_data(request, sweep, inputs)
    try:
        certify(request, sweep, inputs)
    except Stopped as error:
        raise (KeyboardInterrupt if error.status == 130 else SystemExit(error.status)) from error
    return read_run(sweep.results)


def opened(classify: Callable | Classifier, dataset: Dataset | Pairs, sweep: Sweep) -> Inputs:
    """A classifier and a data set in memory, as the inputs of a run.

    Raises:
        UserError: they do not fit.
    """
    name = str(sweep.network.checkpoint).removeprefix(IN_MEMORY)
    dataset = dataset if isinstance(dataset, Dataset) else _of_arrays(*dataset)
    if not isinstance(classify, Classifier):
        classify = given_classifier(classify, dataset[0][0].shape, name)
    classes = classify.spec.num_classes
    if classes < len(dataset.class_names):
        raise UserError(f"{name} has {classes} classes, but {dataset.name} has {len(dataset.class_names)}")
    devices = open_devices(sweep.program.devices)
    return Inputs.on(devices, classify, dataset, sweep.network, sweep.noise, sweep.program.batch_size)


def _of_arrays(images, labels) -> Dataset:
    """A data set of images and labels in memory."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or labels.shape != images.shape[:1] or not len(labels) or labels.dtype.kind not in "iu":
        raise UserError(
            f"dataset must be images (m, h, w, c) and integer labels (m,), not arrays of shapes {images.shape} and "
            f"{labels.shape} and of {images.dtype} and {labels.dtype}"
        )
    if labels.min() < 0:
        raise UserError("labels must count from 0; one is negative")
    names = [str(label) for label in range(int(labels.max()) + 1)]
    fingerprint = digest(
        repr((images.dtype.str, images.shape)).encode(), np.ascontiguousarray(images).data, labels.tobytes()
    )
    return Dataset("arrays", "test", "memory", names, labels, images.__getitem__, fingerprint, held=images.nbytes)


def verify(
    results: str | Path,
    classify: Callable | Classifier | None = None,
    dataset: Dataset | Pairs | None = None,
    *,
    recount: int | float = 2,
    recount_seed: int | None = None,
) -> list[str]:
    """Checks a results file as `qcrs-jax verify` does. Returns the findings, one line each.

    Args:
        results: path of the results file.
        classify, dataset: classifier and data set of the run, if they were in memory; None opens those that the sidecar
            names.
        recount: number of images that are drawn again; `math.inf` for all, 0 for none.
        recount_seed: seed that chooses these images; None takes a fresh one.

    Raises:
        UserError: the file is not what was computed, or an input that a check needs is missing.
    """
    from ..verification.check import Checks, Found
    from ..verification.choice import Choice
    from ..verification.trusted_paths import Where

    if (classify is None) != (dataset is None):
        raise UserError("give both classify and dataset, those of the run, or neither")
    open_given = None if classify is None else lambda sweep: opened(classify, dataset, sweep)
    checks = Checks(Choice(recount, seed=recount_seed), asked=recount > 0, where=Where(inputs=open_given))
    found, path = Found(), Path(results)
    lines = list(checks.verify(path, found))
    if found.troubles:
        raise UserError("\n  ".join([f"{path}: is not what was computed:", *found.troubles]))
    return [*lines, found.verdict()]


def read_results(path: str | Path) -> Run:
    """Reads a results file: one of ours, or a log of Cohen's, QCRS's or MACER's program. Returns a `Run`.

    Args:
        path: the file; its sidecar, if it has one, lies beside it.

    Raises:
        UserError: the file cannot be read; the message names the file and the line.
    """
    return read_run(path)
