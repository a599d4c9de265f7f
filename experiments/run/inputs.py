"""The classifier and the data set of a run, opened on its devices, and the description of both in a sidecar."""

import dataclasses
import datetime
import hashlib
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from qcrs_jax.convert.check import check_fit, fit_image
from qcrs_jax.convert.load import Opening, load_denoiser, open_classifier
from qcrs_jax.data.image_files import resized
from qcrs_jax.errors import SettingError, UserError, setting, text_of
from qcrs_jax.machine import cores, cpu_quota, usable_cpus
from qcrs_jax.models.denoised import Denoised
from qcrs_jax.printable import printable
from qcrs_jax.results.seeds import committed
from qcrs_jax.sampling.counts import default_batch_size
from qcrs_jax.sampling.devices import choose_devices, join_hosts, place
from qcrs_jax.sampling.noise import IMPLEMENTATIONS
from qcrs_jax.sampling.smoothing import noise_of
from qcrs_jax.version import version

from .batch_size import fastest_batch
from .class_names import known_classes, order_warning
from .data_sets import open_dataset
from .full_card import no_room
from .python_classifier import is_python, open_python
from .settings import Images, Network, Noise, Sweep


@dataclasses.dataclass(frozen=True)
class Inputs:
    """An opened classifier and data set, on the devices of the run.

    classify: the classifier, or those of all stages of a cascade.
    name: name of the classifier in messages.
    batch: noisy copies per forward pass of a device.
    common_request: the part of a request that is the same for every task: platform, network and data set.
    provenance: where and how the run was started; a rerun may differ in it.
    seed: seed of the noise, as a request records it; None until a committed one is known, see `seeded`.
    """

    classifier: object
    dataset: object
    classify: Callable | tuple[Callable, ...]
    noise: Noise
    batch: int
    devices: list
    common_request: dict
    provenance: dict
    name: str | Path
    seed: int | dict | None = None

    @classmethod
    def on(
        cls, devices: list, classifier, dataset, network: Network, noise: Noise, batch: int | str | None, others=()
    ) -> "Inputs":
        """A classifier and a data set on these devices; `others` are the classifiers of a cascade's other stages."""
        shape = classifier.spec.image_shape
        classify = place(classifier.inference(dtype=network.dtype), devices)
        batch = fastest_batch(classify, shape, devices) if batch == "auto" else batch or default_batch_size(shape)
        if others:
            classify = (classify, *(place(other.inference(dtype=network.dtype), devices) for other in others))
        return cls(
            classifier=classifier,
            dataset=dataset,
            classify=classify,
            noise=noise,
            batch=batch,
            devices=devices,
            common_request=_common_request(classifier, dataset, network, others),
            provenance=_provenance(network, dataset, batch, devices),
            name=network.checkpoint,
            seed=noise.seed,
        )

    @property
    def program(self) -> dict:
        """The arguments of `certify` for one image at a time."""
        return {"batch_size": self.batch, "devices": self.devices}

    def read(self, index: int):
        """Image and label at `index`. Raises UserError if it cannot be read or has another shape."""
        image, label = self.dataset[index]
        return fit_image(self.classifier.spec, self.dataset, index, image, self.name), label

    def readable(self, indices) -> tuple[list, list[int], list[int]]:
        """Images, labels and indices of those at `indices` that can be read. The run reports the others."""
        images, labels, read = [], [], []
        for index in indices:
            try:
                image, label = self.read(index)
            except UserError:
                continue
            images.append(image)
            labels.append(label)
            read.append(index)
        return images, labels, read

    def keys(self, indices):
        """The keys of all noise of the images at `indices`."""
        root = root_key(self.seed, IMPLEMENTATIONS[self.noise.prng])
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(root, np.asarray(indices, np.uint32))

    def request(self, of_task: dict, images: Images, whole: int) -> dict:
        """The whole request: everything that decides the results of a task on these `images` of a run over `whole`."""
        seed, draws = self.noise.seed, noise_of(of_task).draws(self.noise.prng)
        own = {"seed": seed, "skip": images.skip, "noise": draws}
        asked = {**of_task, **own, **self.common_request, **images.recorded_shard(whole)}
        return {**asked, "seed": committed(asked, whole) if seed is None else seed}

    def seeded(self, request: dict) -> "Inputs":
        """These inputs, with the seed of the whole `request`."""
        return dataclasses.replace(self, seed=request["seed"])

    def warn_of_sigma(self, sigma: float | None) -> None:
        """Prints a warning if the classifier was trained at another sigma, or on a range without this one."""
        if levels := other_levels(self.classifier, sigma):
            trained = "denoiser" if isinstance(self.classifier, Denoised) else "network"
            print(f"warning: the {trained} was trained at sigma {levels}, but --sigma is {sigma:g}")

    def note_levels(self, request: dict) -> None:
        """Prints a note if the run of `request` may use a denoiser at levels at which it was not trained."""
        if not isinstance(self.classifier, Denoised) or self.classifier.denoiser.spec.levels is None:
            return
        search, (low, high) = request.get("search", {}), self.classifier.denoiser.spec.levels
        asked = [*search.get("sigmas", ()), *request.get("sigmas", ())]
        asked += [search[end] for end in ("sigma_lower", "sigma_upper") if end in search]
        if asked and not low <= min(asked) <= max(asked) <= high:
            print(
                f"note: the denoiser was trained at sigma {low:g} to {high:g}, and this run may use it from "
                f"{min(asked):g} to {max(asked):g}"
            )


def other_levels(classifier, sigma: float | None) -> str | None:
    """The noise levels that a classifier was trained at, if they are known and `sigma` is not among them; else None."""
    source = classifier.spec.source
    trained = source.get("sigma", sigma)
    low, high = source.get("sigma_range", (trained, trained))
    if sigma is None or low <= sigma <= high:
        return None
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def root_key(seed: int | dict, implementation: str):
    """The key of all noise for a seed that a request records. For a committed seed it is the first bits of its hash.

    Threefry's key takes 64 bits, rbg's 128. A chosen seed has 32.
    """
    if isinstance(seed, int):
        return jax.random.key(seed, impl=implementation)
    size = jax.random.key_data(jax.random.key(0, impl=implementation)).size
    words = np.frombuffer(bytes.fromhex(seed["sha256"]), ">u4").astype(np.uint32)
    return jax.random.wrap_key_data(words[:size], impl=implementation)


def digest(image) -> str:
    """SHA-256 of the pixels of an image (h, w, c), float32."""
    return hashlib.sha256(np.asarray(image, "<f4").tobytes()).hexdigest()


def digest_of_all(digests: dict[int, str]) -> str:
    """One hash over the digests of images by their indices."""
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()


def open_inputs(sweep: Sweep) -> Inputs:
    """Opens the classifier and the data set of a sweep. Prints a line on the classifier."""
    network, data, program = sweep.network, sweep.data, sweep.program
    if program.distributed:
        join_hosts(program.coordinator, program.process)
    devices = open_devices(program.devices, program.distributed)  # before JAX uses any device
    if jax.process_index() > 0:
        sys.stdout = open(os.devnull, "w")  # only the first process prints
    file = network.checkpoint
    if is_python(file):
        dataset = open_dataset(data)
        classifier = open_python(file, _shape_of(dataset, network.image_size))
    else:
        classifier = open_classifier(file, opening_of(network))
        dataset = open_dataset(data)
    classifier = behind(network.denoiser, classifier)
    spec = classifier.spec
    check_fit(spec, dataset, file)
    if data.resize is not None:
        dataset = resized(dataset, data.resize, *spec.image_shape[:2])
    print(printable(f"{file}: {spec.arch}, {spec.num_classes} classes, normalisation {spec.mean} / {spec.std}"))
    print_notes(file, classifier)
    if said := other_denoiser(classifier):
        print(printable(f"warning: {file}: {said}"))
    if said := order_warning(known_classes(classifier, file), dataset.class_names, f"{file}"):
        print(printable(f"warning: {said}"))
    if network.macer and spec.source.get("layout") not in ("MACER", None):
        print(printable(f"warning: its layout is {spec.source['layout']}'s, not MACER's; is --macer right?"))
    others = [_open_stage(stage, network, classifier, dataset) for stage in network.stages]
    return Inputs.on(devices, classifier, dataset, network, sweep.noise, program.batch_size, others)


def _open_stage(file: str, network: Network, first, dataset):
    """The classifier of a later stage of a cascade. Raises UserError if it takes other images than the first."""
    stage = behind(network.denoiser, open_classifier(Path(file), opening_of(network)))
    check_fit(stage.spec, dataset, Path(file))
    if tuple(stage.spec.image_shape) != tuple(first.spec.image_shape):
        raise UserError(
            f"{file}: takes images of shape {tuple(stage.spec.image_shape)}, and the network of the first stage "
            f"{tuple(first.spec.image_shape)}"
        )
    print(printable(f"{file}: {stage.spec.arch}, normalisation {stage.spec.mean} / {stage.spec.std}"))
    print_notes(file, stage)
    return stage


def behind(denoiser: Path | None, classifier):
    """The classifier behind the denoiser in a file, or as it is if there is none. Prints a line on the denoiser.

    Raises:
        UserError: the denoiser cannot be opened, or takes other images than the classifier.
    """
    if denoiser is None:
        return classifier
    opened = load_denoiser(denoiser)
    try:
        made = Denoised(classifier, opened)
    except UserError as error:
        raise UserError(f"{setting('denoiser')} {denoiser}: {text_of(error)}") from error
    levels = "" if opened.spec.levels is None else ", trained at sigma {:g} to {:g}".format(*opened.spec.levels)
    print(printable(f"{denoiser}: denoiser, {opened.spec.arch} of width {opened.spec.width}{levels}"))
    return made


def other_denoiser(classifier) -> str | None:
    """A warning if a classifier was trained behind another denoiser than that before it now; else None."""
    trained = classifier.spec.source.get("denoiser")
    if trained is None or isinstance(classifier, Denoised) and classifier.denoiser.fingerprint() == trained:
        return None
    found = "another one stands before it" if isinstance(classifier, Denoised) else "none stands before it"
    return f"it was trained behind the denoiser of SHA-256 {trained[:12]}..., and {found}; give that as --denoiser"


def opening_of(network: Network) -> Opening:
    """The answers to what the file of a network leaves open, from its settings."""
    size = network.image_size
    return Opening(
        normalization="none" if network.macer else network.normalization,
        field=network.field,
        prefix=network.prefix,
        leave_out=network.leave_out,
        image_size=size[0] if size is not None and len(size) == 1 else size,
        max_pool=network.max_pool,
    )


def print_notes(path: str | Path, classifier) -> None:
    """Prints the assumptions made about the classifier when it was opened or converted."""
    for note in classifier.spec.source.get("notes", ()):
        print(printable(f"{path}: note: {note}"))


def _shape_of(dataset, image_size) -> tuple[int, int, int]:
    """The shape of the images for a classifier of your own: that of the first image, or the one in image_size."""
    shape = dataset[0][0].shape
    size = image_size or shape[:2]
    return (size[0], size[-1], shape[2])


def open_devices(count: int | None = None, distributed: bool = False) -> list:
    """The devices of `choose_devices`. Prints why there are fewer than the CPU's cores.

    Raises:
        UserError: this host has fewer than `count`, or a process of several finds no device of its own.
    """
    try:
        devices = choose_devices(count)
    except RuntimeError as error:
        if not distributed or (no_room(error) and "no supported devices" not in str(error)):
            raise
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise SettingError(
            f"{{distributed}}: this process could not open a device (CUDA_VISIBLE_DEVICES is {seen}). Start as many "
            "processes on a host as it has cards, each of which sees its own card or all of them. JAX said: "
            f"{first[:200]}"
        ) from error
    own = [device for device in devices if device.process_index == jax.process_index()]
    if count is None and own[0].platform == "cpu" and len(own) == usable_cpus() < cores():
        print(
            f"this container may use {cpu_quota():.3g} CPUs' time on {cores()} cores: "
            f"{len(own)} CPU device{'s' * (len(own) > 1)} instead of {cores()}"
        )
    return devices


def _common_request(classifier, dataset, network, others=()):
    """The part of a request that is the same for every task: platform, networks and data set."""
    return {
        "platform": f"{jax.default_backend()}, matmul precision {jax.config.jax_default_matmul_precision}",
        "dtype": network.dtype,
        "classifier": _recorded(classifier),
        **({"stages": [_recorded(other) for other in others]} if others else {}),
        "dataset": {
            "name": dataset.name,
            "split": dataset.split,
            "fingerprint": dataset.fingerprint,
            "class_names": dataset.class_names,
        },
    }


def _recorded(classifier):
    """The description of a network in a request. The hash of its weights is that of the classifier alone."""
    if isinstance(classifier, Denoised):
        spec = classifier.denoiser.spec
        own = {"arch": spec.arch, "width": spec.width, "weights_sha256": classifier.denoiser.fingerprint()}
        return {**_recorded(classifier.classifier), "denoiser": own}
    spec = classifier.spec
    return {
        "arch": spec.arch,
        "options": spec.options,
        "mean": spec.mean,
        "std": spec.std,
        "weights_sha256": classifier.fingerprint(),
        **({"image_shape": spec.image_shape} if "image_size" in spec.source else {}),
    }


def _provenance(network, dataset, batch_size, devices):
    """Where and how the run was started; a rerun may differ in it."""
    return {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "checkpoint": str(network.checkpoint),
        "data": dataset.source,
        "batch": batch_size,
        "devices": f"{len(devices)} x {devices[0].platform} {devices[0].device_kind}",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("qcrs_jax", "jax", "jaxlib", "flax", "numpy")},
        },
    }
