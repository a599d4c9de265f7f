"""A training run of a denoiser."""

import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from qcrs_jax.checks import check_sigma
from qcrs_jax.convert.load import Opening, load_denoiser, open_classifier
from qcrs_jax.errors import SettingError
from qcrs_jax.files import writing
from qcrs_jax.models.checkpoint import write_denoiser
from qcrs_jax.models.denoiser import DenoiserSpec
from qcrs_jax.sampling.classifiers import NoiseConditional
from qcrs_jax.sampling.devices import replicated
from qcrs_jax.training import DenoiserTrainer, Denoising, LogUniform, adam, crop_and_flip

from ..report.training_curve import DenoiserEpoch, plot_denoiser_log
from .inputs import open_devices, print_notes
from .settings import Data
from .training import (
    TrainingFolder,
    batches_of,
    check_packages,
    one_epoch,
    open_batches,
    print_epoch,
    reader,
    schedule_of,
)
from .training_settings import Training

MILESTONES = (1 / 3, 2 / 3)
"""Shares of the epochs after which the schedule of steps divides the learning rate by 10."""
WIDTH = 32
_OF_CLASSIFIERS = ("sigma", "arch", "teacher", "teacher_samples", "denoiser")


def completed(training: Training) -> tuple[Training, LogUniform | float]:
    """The training with the defaults of its schedule, and its noise levels; both checked.

    Raises:
        SettingError: a setting is unknown to denoisers, or out of its range.
    """
    if training.sigma is None and training.sigma_range is None:
        raise SettingError("one of these is required: {sigma}, the noise level, or {sigma_range}, a range of levels")
    levels = training.sigma if training.sigma_range is None else LogUniform(*training.sigma_range)
    for name in _OF_CLASSIFIERS if training.sigma_range else _OF_CLASSIFIERS[1:]:
        if getattr(training, name) is not None:
            with_range = " with {sigma_range}" if name == "sigma" else ""
            raise SettingError(f"{{method}} denoiser has no {{{name}}}{with_range}")
    for name in training.settings:
        raise SettingError(f"{{{name}}} is no setting of {{method}} denoiser")
    check_sigma(training.sigma if training.sigma is not None else levels.middle)
    recipe = Denoising(levels).recipe(training.schedule)._asdict()
    missing = {name: value for name, value in recipe.items() if getattr(training, name) is None}
    filled = dataclasses.replace(training, **missing)
    for name in ("epochs", "batch", "lr", "test_skip", *(() if filled.width is None else ("width",))):
        if not 0 < getattr(filled, name) < float("inf"):
            raise SettingError(f"{{{name}}} must be positive, not {getattr(filled, name)}")
    if not 0 <= filled.momentum < 1 or not 0 <= filled.weight_decay < 1:
        raise SettingError("{momentum} and {weight_decay} must lie in [0, 1)")
    return filled, levels


def spec_of(training: Training, dataset, start) -> DenoiserSpec:
    """The description of the denoiser to train.

    Raises:
        SettingError: the denoiser from which it starts is for other images, or has another width.
    """
    shape = tuple(dataset[0][0].shape)
    if start is None:
        return DenoiserSpec(shape, training.width or WIDTH)
    if tuple(start.spec.image_shape) != shape:
        raise SettingError(
            f"{{init}} {training.init}: is for images of shape {tuple(start.spec.image_shape)}; {dataset.source} has "
            f"{shape}"
        )
    if training.width not in (None, start.spec.width):
        raise SettingError(f"{{init}} {training.init}: has width {start.spec.width}, not {{width}} {training.width}")
    return dataclasses.replace(start.spec, source={})


def classifier_of(training: Training, shape):
    """The classifier of the stability objective, or None.

    Raises:
        UserError: it cannot be opened, takes other images, or knows the noise.
    """
    if training.classifier is None:
        return None
    classifier = open_classifier(training.classifier, Opening())
    print_notes(training.classifier, classifier)
    if tuple(classifier.spec.image_shape) != tuple(shape):
        raise SettingError(
            f"{{classifier}} {training.classifier}: takes images of shape {tuple(classifier.spec.image_shape)}; those "
            f"of the data set have {tuple(shape)}"
        )
    if isinstance(classifier.classify, NoiseConditional):
        raise SettingError(f"{{classifier}} {training.classifier}: knows the noise, and cannot stand behind a denoiser")
    return classifier


def errors(trainer, state, read, indices, sigma, key, sharding, batch=256) -> float:
    """The mean squared error of a pixel over the test images at `indices`, with one noisy copy of each at `sigma`."""
    batch = -(-batch // sharding.mesh.size) * sharding.mesh.size
    total = 0.0
    for i in range(0, len(indices), batch):
        images, _ = read(np.array(indices[i : i + batch]))
        padded = np.pad(images, ((0, batch - len(images)), (0, 0), (0, 0), (0, 0)))
        found = trainer.errors(state, jax.device_put(padded, sharding), sigma, jax.random.fold_in(key, i))
        total += float(np.asarray(found, np.float64)[: len(images)].sum())
    return total / len(indices)


def described(training: Training, spec: DenoiserSpec, train, test) -> dict:
    """All settings that decide the result."""
    names = "method schedule epochs batch lr momentum weight_decay augment dtype seed test_skip".split()
    names += ["sigma"] if training.sigma_range is None else ["sigma_range"]
    data = {"name": train.name, "train_fingerprint": train.fingerprint, "test_fingerprint": test.fingerprint}
    shape = {"arch": spec.arch, "width": spec.width}
    return {**shape, **{name: getattr(training, name) for name in names}, "dataset": data}


def train_denoiser(out_dir: Path, training: Training, data: Data) -> None:
    """Trains a denoiser until the last epoch. Every epoch is saved.

    Raises:
        UserError: the settings are impossible, the data set does not fit, or OUT_DIR holds a run with other settings,
            or one that is still running.
    """
    check_packages()
    devices = open_devices()  # before JAX uses any device
    training, levels = completed(training)
    train_set, test_set, steps = open_batches(training, data, devices)
    start = None if training.init is None else load_denoiser(training.init)
    spec = spec_of(training, train_set, start)
    classifier = classifier_of(training, spec.image_shape)
    method = Denoising(levels, None if classifier is None else classifier.classify)
    augment = training.augment or ("crop_flip" if spec.image_shape[-1] == 3 else "none")
    training = dataclasses.replace(training, augment=augment)
    schedule = schedule_of(training, MILESTONES, steps)
    trainer = DenoiserTrainer(
        spec,
        method,
        adam(schedule, training.momentum, training.weight_decay),
        augment=crop_and_flip() if augment == "crop_flip" else None,
        dtype=jnp.dtype(training.dtype),
    )
    request = described(training, spec, train_set, test_set)
    request |= {"init": start.fingerprint()} if start else {}
    request |= {"classifier": classifier.fingerprint()} if classifier else {}
    with TrainingFolder(out_dir, request, DenoiserEpoch) as saved:
        everywhere = replicated(devices)
        shared = NamedSharding(everywhere.mesh, PartitionSpec("devices"))
        state = jax.device_put(trainer.init(training.seed, start), everywhere)
        first, state, rows = saved.restore(state)
        if first:
            print(f"{out_dir}: {first} of {training.epochs} epochs are done; continuing with the next")
        range_of = f"{levels:g}" if training.sigma_range is None else str(levels)
        what = f"denoiser of width {spec.width}, {'stability' if classifier else 'squared error'}, sigma {range_of}"
        print(f"{what}: {len(train_set)} images of {train_set.source}, {len(devices)} devices")
        key_train, key_test = jax.random.split(jax.random.key(training.seed, impl="threefry2x32"))
        if first < training.epochs:
            read_train, read_test = (
                reader(train_set, "reading training images"),
                reader(test_set, "reading test images"),
            )
            tested = range(0, len(test_set), training.test_skip)
        for epoch in range(first, training.epochs):
            started = time.perf_counter()
            batches = batches_of(read_train, training, epoch, len(train_set))
            state, loss, error = one_epoch(
                state, lambda state, images, _: trainer.step(state, images, key_train), batches, training, epoch, shared
            )
            found = {
                sigma: errors(trainer, state, read_test, tested, sigma, key_test, shared)
                for sigma in dict.fromkeys(method.levels)
            }
            rate, at_levels = float(schedule((epoch + 1) * steps - 1)), (found[sigma] for sigma in method.levels)
            rows.append(DenoiserEpoch(epoch + 1, rate, loss, error, *at_levels, time.perf_counter() - started))
            saved.save(state, rows)
            at = (f"{e:.5f} at sigma {sigma:.3g} ({e / sigma**2:.1%} of the noise's)" for sigma, e in found.items())
            print_epoch(training, rows, f"squared error of a pixel {', '.join(at)}")
        source = {"trained_by": "qcrs_jax", **request}
        with writing(out_dir):
            write_denoiser(trainer.denoiser(state, source), out_dir)
            plot_denoiser_log(rows, method.levels, out_dir / "training" / "curve.png", what)
    print(f"{out_dir}: ready for `qcrs-jax certify CLASSIFIER RESULTS --denoiser {out_dir} ...`")
