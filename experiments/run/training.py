"""A training run: its settings and network, its images, and the folder from which it resumes."""

import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from qcrs_jax.checks import check_sigma
from qcrs_jax.convert.load import Opening, load_denoiser, open_classifier
from qcrs_jax.convert.normalization import NORMALIZATIONS, parse_normalization
from qcrs_jax.errors import SettingError, UserError, quoted, setting, text_of
from qcrs_jax.extras import needed_for
from qcrs_jax.files import is_partial, lock, replacing, writing
from qcrs_jax.models import Spec, build
from qcrs_jax.models.checkpoint import write_classifier
from qcrs_jax.models.denoised import check_shapes
from qcrs_jax.results.records import differences
from qcrs_jax.results.rows import Row
from qcrs_jax.sampling.devices import replicated
from qcrs_jax.training import METHODS, LogUniform, Method, Trainer, crop_and_flip, sgd

from ..report.training_curve import Epoch, plot_log, read_log
from .class_names import known_classes, order_warning
from .data_sets import open_train_and_test
from .inputs import open_devices, opening_of, other_levels, print_notes
from .pipeline import read_ahead
from .progress import progress
from .settings import Data, Network
from .training_settings import Training

PUBLISHED_SAMPLES = 10_000
"""Noisy copies of each training image from which CAT-RS's programs take a prediction of the teacher."""
IN_MEMORY = 8 * 2**30  # bytes of images above which they are read anew in every epoch


def completed(training: Training) -> tuple[Training, Method]:
    """The training with the published defaults of its method and schedule, and the method; both checked.

    Raises:
        SettingError: a setting is unknown or out of its range.
    """
    if training.sigma is None and training.sigma_range is None:
        raise SettingError("one of these is required: {sigma}, the noise level, or {sigma_range}, a range of levels")
    levels = training.sigma if training.sigma_range is None else LogUniform(*training.sigma_range)
    sigma = levels.middle if training.sigma is None else training.sigma
    check_sigma(sigma)
    method = _method(training, levels, sigma)
    recipe = method.recipe(training.schedule)._asdict()
    defaults = recipe | ({"teacher_samples": PUBLISHED_SAMPLES} if method.teacher else {})
    missing = {name: value for name, value in defaults.items() if getattr(training, name) is None}
    filled = dataclasses.replace(training, sigma=sigma, **missing)
    for name in ("epochs", "batch", "lr", "test_skip", *(("teacher_samples",) if method.teacher else ())):
        if not 0 < getattr(filled, name) < float("inf"):
            raise SettingError(f"{{{name}}} must be positive, not {getattr(filled, name)}")
    if not 0 <= filled.momentum < 1 or not 0 <= filled.weight_decay < 1:
        raise SettingError("{momentum} and {weight_decay} must lie in [0, 1)")
    return filled, method


def _method(training, levels, sigma):
    kind = METHODS.get(training.method)
    if kind is None:
        raise SettingError(f"{{method}} {training.method!r} is not known; known are {', '.join(METHODS)}, denoiser")
    for name in training.settings:
        if name not in (field.name for field in dataclasses.fields(kind)):
            raise SettingError(f"{{{name}}} is no setting of {{method}} {kind.name}")
    if kind.teacher and training.teacher is None:
        raise SettingError(f"{{method}} {kind.name} needs {{teacher}}: a classifier trained under the same noise")
    others = ("denoiser",) if kind.teacher else ("teacher", "teacher_samples")
    for name in ("classifier", "width", *others):
        if getattr(training, name) is not None:
            raise SettingError(f"{{method}} {kind.name} has no {{{name}}}")
    return kind(**{"sigma": levels} | kind.published(sigma) | training.settings)


def schedule_of(training: Training, milestones, steps: int):
    """The learning rate by step, with `steps` steps in an epoch. `milestones` are shares of the epochs."""
    with needed_for("training"):
        import optax

    if training.schedule == "onecycle":
        return optax.cosine_onecycle_schedule(training.epochs * steps, training.lr)
    boundaries = [round(share * training.epochs) * steps for share in milestones]
    return optax.piecewise_constant_schedule(training.lr, dict.fromkeys(boundaries, 0.1))


def start_of(training: Training, network: Network | None):
    """The classifier from which a training starts, or None.

    network: settings for opening its file.

    Raises:
        UserError: it cannot be opened, or has another architecture than requested.
    """
    if network is None:
        return None
    start = open_classifier(network.checkpoint, opening_of(network))
    print_notes(network.checkpoint, start)
    if training.arch not in (None, start.spec.arch):
        raise SettingError(f"{{init}} {training.init}: holds a {start.spec.arch}, not {{arch}} {training.arch}")
    return start


def spec_of(training: Training, method: Method, normalization: str | None, dataset, start) -> Spec:
    """The Spec of the network to train.

    Raises:
        UserError: it does not fit the data set.
    """
    shape, names = dataset[0][0].shape, tuple(dataset.class_names)
    if start is not None:
        if (start.spec.image_shape, start.spec.num_classes) != (shape, len(names)):
            raise SettingError(
                f"{{init}} {training.init}: is for {start.spec.num_classes} classes and images of shape "
                f"{start.spec.image_shape}; {dataset.source} has {len(names)} and {shape}"
            )
        return dataclasses.replace(start.spec, source={}, class_names=names)
    arch = training.arch or "cifar_resnet20"
    if normalization is None:
        name = "cifar10" if arch.startswith("cifar_") else "imagenet"
        normalization = name if method.normalises and shape[-1] == 3 else "none"
    mean, std = NORMALIZATIONS.get(normalization) or parse_normalization(normalization)
    try:
        spec = Spec(arch, len(names), shape, mean, std, class_names=names)
    except ValueError as error:
        raise UserError(f"impossible request: {text_of(error)}") from error
    try:
        nnx.eval_shape(lambda: build(spec)(jnp.zeros((1, *shape))))
    except TypeError as error:
        raise SettingError(
            f"{{arch}} {arch} does not take images of shape {shape}, which {dataset.source} has; choose another"
        ) from error
    return spec


def described(training: Training, method: Method, spec: Spec, train, test) -> dict:
    """All settings that decide the result."""
    names = "method sigma schedule epochs batch lr momentum weight_decay augment dtype seed test_skip".split()
    names += ["sigma_range"] if training.sigma_range is not None else []
    data = {"name": train.name, "train_fingerprint": train.fingerprint, "test_fingerprint": test.fingerprint}
    request = {"arch": spec.arch, **{name: getattr(training, name) for name in names}, **method.recorded()}
    return {**request, "mean": list(spec.mean), "std": list(spec.std), "dataset": data}


def reader(dataset, what):
    """A function of indices that returns images (batch, h, w, c) in [0, 1] and labels. Images are kept if they fit."""
    pool = ThreadPoolExecutor()

    def fetch(index):
        image, label = dataset[index]
        if image.shape != shape:
            raise UserError(f"{dataset.source}: image {index} has shape {image.shape}, image 0 has {shape}")
        return image, label

    shape = dataset[0][0].shape
    bytes_raw = len(dataset) * dataset.read(0).nbytes
    if bytes_raw > IN_MEMORY:

        def read(indices):
            images, labels = zip(*pool.map(fetch, indices))
            return np.stack(images), np.array(labels, np.int32)

        return read
    bar = progress(pool.map(fetch, range(len(dataset))), total=len(dataset), desc=what, leave=False)
    if dataset.read(0).dtype != np.uint8:
        kept = np.stack([image for image, _ in bar])
        return lambda indices: (kept[indices], dataset.labels[indices].astype(np.int32))
    kept = np.stack([np.rint(255 * image).astype(np.uint8) for image, _ in bar])  # the bytes that were read
    return lambda indices: (
        kept[indices].astype(np.float32) / np.float32(255),
        dataset.labels[indices].astype(np.int32),
    )


def accuracy(trainer, state, read, indices, sigma, key, sharding, batch=256):
    """The share of the test images at `indices` that are classified right, with one noisy copy of each at `sigma`."""
    batch = -(-batch // sharding.mesh.size) * sharding.mesh.size
    right = 0
    for i in range(0, len(indices), batch):
        images, labels = read(np.array(indices[i : i + batch]))
        short = batch - len(labels)
        images, labels = (
            np.pad(images, ((0, short), (0, 0), (0, 0), (0, 0))),
            np.pad(labels, (0, short), constant_values=-1),
        )
        images, labels = jax.device_put((images, labels), sharding)
        right += trainer.hits(state, images, labels, sigma, jax.random.fold_in(key, i))
    return int(right) / len(indices)


def teacher_of(training: Training, dataset):
    """The classifier whose predictions a method needs.

    Raises:
        UserError: it cannot be opened, or does not fit the data set.
    """
    teacher = open_classifier(Path(training.teacher), Opening())
    print_notes(training.teacher, teacher)
    shape, count = dataset[0][0].shape, len(dataset.class_names)
    if (teacher.spec.image_shape, teacher.spec.num_classes) != (shape, count):
        raise SettingError(
            f"{{teacher}} {training.teacher}: is for {teacher.spec.num_classes} classes and images of shape "
            f"{teacher.spec.image_shape}; {dataset.source} has {count} and {shape}"
        )
    if said := order_warning(known_classes(teacher, training.teacher), dataset.class_names, str(training.teacher)):
        raise SettingError(f"{{teacher}}: {said}")
    if levels := other_levels(teacher, training.sigma):
        print(f"warning: the teacher was trained at sigma {levels}, but the noise is {training.sigma:g}")
    return teacher


def denoiser_of(training: Training, spec: Spec):
    """The denoiser before the network to train, or None.

    Raises:
        UserError: it cannot be opened, or is for other images.
    """
    if training.denoiser is None:
        return None
    denoiser = load_denoiser(training.denoiser)
    try:
        check_shapes(spec, denoiser.spec)
    except UserError as error:
        raise SettingError(f"{{denoiser}} {training.denoiser}: {error}") from error
    return denoiser


def predictions(teacher, read, count: int, sigma: float, samples: int, key, sharding, batch=256):
    """The share of `samples` noisy copies that `teacher` gives each class, float32 (count, num_classes)."""
    batch = -(-batch // sharding.mesh.size) * sharding.mesh.size
    classes = teacher.spec.num_classes

    @jax.jit
    def votes(images, key):
        def once(i, counts):
            noisy = images + sigma * jax.random.normal(jax.random.fold_in(key, i), images.shape)
            return counts + jax.nn.one_hot(teacher.classify(noisy).argmax(axis=-1), classes)

        return jax.lax.fori_loop(0, samples, once, jnp.zeros((len(images), classes))) / samples

    made = np.zeros((count, classes), np.float32)
    for i in progress(range(0, count, batch), desc="predictions of the teacher", unit="batches", leave=False):
        images, labels = read(np.arange(i, min(i + batch, count)))
        padded = np.pad(images, ((0, batch - len(labels)), (0, 0), (0, 0), (0, 0)))
        found = votes(jax.device_put(padded, sharding), jax.random.fold_in(key, i))
        made[i : i + batch] = np.asarray(found)[: len(labels)]
    return made


def with_predictions(read, predictions):
    """`read`, with the predictions of the images it reads as a third array."""
    return lambda indices: (*read(indices), predictions[indices])


class TrainingFolder:
    """The folder `training` of OUT_DIR: request.json, log.tsv, and Orbax's checkpoints, one per epoch.

    Only one process can use it: the file lock is locked until the process ends.

    rows: the kind of the lines of log.tsv.
    """

    def __init__(self, out_dir, request, rows: type[Row] = Epoch):
        self.folder, self.rows = out_dir / "training", rows
        with writing(out_dir):
            if not (self.folder / "request.json").exists() and not self._is_free(out_dir):
                raise UserError(f"{out_dir}: is not empty and holds no training run; choose another directory")
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = open(self.folder / "lock", "a")
        try:
            with writing(out_dir):
                lock(self.lock, f"{out_dir}: another run is training there; wait for it, or choose another directory")
                self._begin(out_dir, request)
        except BaseException:
            self.lock.close()
            raise

    def _is_free(self, out_dir):
        """Whether OUT_DIR is empty, or holds only files of a run that has not begun yet."""
        here = {file for file in (out_dir, self.folder) if file.is_dir() for file in file.iterdir()}
        here = {file for file in here if not is_partial(file.name)}
        return here <= {self.folder, self.folder / "lock", self.folder / "request.json.tmp"}

    def _begin(self, out_dir, request):
        """Compares `request` with that of the run in the folder, or records it.

        Raises:
            UserError: the requests differ.
        """
        file = self.folder / "request.json"
        request = json.loads(json.dumps(request))
        if file.exists():
            try:
                before = json.loads(file.read_text())
            except ValueError as error:
                raise UserError(f"{file}: is damaged ({quoted(error)}); move {out_dir} away to start again") from error
            if changed := differences(before, request):
                raise UserError(
                    f"{out_dir}: holds a training run of other settings; choose another directory or move it away. "
                    "Different are\n  " + "\n  ".join(changed)
                )
        else:
            with replacing(file) as stream:
                stream.write((json.dumps(request, indent=2) + "\n").encode())

    def __enter__(self):
        with needed_for("the state of training"):
            import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        self.manager = ocp.CheckpointManager((self.folder / "epochs").absolute(), options=options)
        return self

    def __exit__(self, *_):
        self.manager.close()
        self.lock.close()

    def restore(self, fresh):
        """(epochs done, the state after them, their rows of the log); (0, fresh, []) for a new run."""
        with needed_for("the state of training"):
            import orbax.checkpoint as ocp

        epoch = self.manager.latest_step()
        if epoch is None:
            return 0, fresh, []
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, fresh)
        state = self.manager.restore(epoch, args=ocp.args.StandardRestore(target))
        return epoch, state, read_log(self.folder / "log.tsv", self.rows)[:epoch]

    def predictions(self, teacher, read, count, training, sharding):
        """The predictions of the training images by the teacher, from predictions.npy, or made and written there."""
        file = self.folder / "predictions.npy"
        if not file.exists():
            key = jax.random.fold_in(jax.random.key(training.seed, impl="threefry2x32"), 2)
            made = predictions(teacher, read, count, training.sigma, training.teacher_samples, key, sharding)
            with writing(self.folder, again="give the same command again"), replacing(file) as stream:
                np.save(stream, made)
        return np.load(file)

    def save(self, state, rows):
        """Saves the state after the last of `rows`. The log is written first, so it never lacks an epoch."""
        with needed_for("the state of training"):
            import orbax.checkpoint as ocp

        text = "\t".join(self.rows.columns()) + "\n" + "".join(row.line() for row in rows)
        with writing(self.folder, again="give the same command again: it continues after the last whole epoch"):
            with replacing(self.folder / "log.tsv") as file:
                file.write(text.encode())
        self.manager.save(len(rows), args=ocp.args.StandardSave(state))
        self.manager.wait_until_finished()


def batches_of(read, training: Training, epoch: int, count: int):
    """An iterator of the batches of an epoch, and their number: whole batches of `count` images, in a new order."""
    steps = count // training.batch
    order = np.random.default_rng([training.seed, epoch]).permutation(count)[: steps * training.batch]
    return (batch() for _, batch in read_ahead(read, order.reshape(steps, training.batch))), steps


def one_epoch(state, step, batches, training: Training, epoch: int, sharding) -> tuple[Any, float, float]:
    """The state after the steps of an epoch, the mean of their losses, and that of the other number they return.

    step: (state, images, labels, ...) -> (state, loss, number).

    Raises:
        UserError: the loss is not finite.
    """
    (batches, steps), totals = batches, []
    bar = progress(batches, total=steps, desc=f"epoch {epoch + 1}/{training.epochs}", unit="steps", leave=False)
    for batch in bar:
        state, loss, number = step(state, *jax.device_put(batch, sharding))
        totals.append((loss, number))
        if len(totals) % 20 == 0:
            bar.set_postfix_str(f"loss {float(loss):.3f}")
    loss, number = map(float, np.mean(jax.device_get(totals), axis=0))
    if not np.isfinite(loss):
        raise UserError(
            f"the loss of epoch {epoch + 1} is {loss}; choose a smaller {setting('lr')} than {training.lr:g}"
        )
    return state, loss, number


def print_epoch(training: Training, rows, tests: str) -> None:
    """Prints the last of `rows`, what was found in its `tests`, and the time that is left."""
    last = rows[-1]
    left = (training.epochs - last.epoch) * last.seconds / 60
    print(
        f"epoch {last.epoch}/{training.epochs}: loss {last.loss:.4f}, {tests}, {last.seconds:.0f} s; about {left:.0f} "
        "min left",
        flush=True,
    )


def check_packages() -> None:
    """Raises MissingPackage if a package of training is missing, before hours of work."""
    with needed_for("training"):
        import matplotlib  # noqa: F401
        import optax  # noqa: F401
        import orbax.checkpoint  # noqa: F401


def open_batches(training: Training, data: Data, devices):
    """The training images, the test images, and the number of steps of an epoch.

    Raises:
        UserError: the data set cannot be opened, or the batches do not fit it or the devices.
    """
    if training.batch % len(devices):
        raise SettingError(f"{{batch}} {training.batch} is not a multiple of the {len(devices)} devices that share it")
    train_set, test_set = open_train_and_test(data)
    steps = len(train_set) // training.batch
    if steps == 0:
        raise SettingError(f"{{batch}} {training.batch} is more than the {len(train_set)} images of {train_set.source}")
    return train_set, test_set, steps


def train(out_dir: Path, training: Training, data: Data, network: Network | None, normalization: str | None) -> None:
    """Trains until the last epoch. Every epoch is saved.

    Args:
        network: classifier to start from, and how its file is opened; None for fresh weights.
        normalization: normalisation for fresh weights; None for the method's own.

    Raises:
        UserError: the settings are impossible, the data set does not fit, or OUT_DIR holds a run with other settings,
            or one that is still running.
    """
    check_packages()
    devices = open_devices()  # before JAX uses any device
    training, method = completed(training)
    warmup = method.recorded().get("warmup", 0)
    if warmup > training.epochs:
        print(f"warning: the warm-up takes {warmup} epochs and the training {training.epochs}, so it never ends")
    train_set, test_set, steps = open_batches(training, data, devices)
    start = start_of(training, network)
    teacher = teacher_of(training, train_set) if method.teacher else None
    spec = spec_of(training, method, normalization, train_set, start)
    denoiser = denoiser_of(training, spec)
    augment = training.augment or ("crop_flip" if spec.image_shape[-1] == 3 else "none")
    training = dataclasses.replace(training, augment=augment)
    schedule = schedule_of(training, method.milestones, steps)
    trainer = Trainer(
        spec,
        method,
        sgd(schedule, training.momentum, training.weight_decay),
        augment=crop_and_flip() if augment == "crop_flip" else None,
        dtype=jnp.dtype(training.dtype),
        steps_per_epoch=steps,
        denoiser=denoiser,
    )
    request = described(training, method, spec, train_set, test_set)
    request |= {"init": start.fingerprint()} if start else {}
    request |= {"teacher": teacher.fingerprint(), "teacher_samples": training.teacher_samples} if teacher else {}
    request |= {"denoiser": denoiser.fingerprint()} if denoiser else {}
    with TrainingFolder(out_dir, request) as saved:
        everywhere = replicated(devices)
        shared = NamedSharding(everywhere.mesh, PartitionSpec("devices"))
        state = jax.device_put(trainer.init(training.seed, start), everywhere)
        first, state, rows = saved.restore(state)
        if first:
            print(f"{out_dir}: {first} of {training.epochs} epochs are done; continuing with the next")
        levels = f"{method.sigma:g}" if training.sigma_range is None else str(method.sigma)
        what = f"{spec.arch}, {method.name}, sigma {levels}" + (", behind a denoiser" if denoiser else "")
        print(f"{what}: {len(train_set)} images of {train_set.source}, {len(devices)} devices")
        key = jax.random.key(training.seed, impl="threefry2x32")
        key_train, key_test = jax.random.split(key)
        if first < training.epochs:
            read_train, read_test = (
                reader(train_set, "reading training images"),
                reader(test_set, "reading test images"),
            )
            tested = range(0, len(test_set), training.test_skip)
        if first < training.epochs and teacher is not None:
            read_train = with_predictions(
                read_train, saved.predictions(teacher, read_train, len(train_set), training, shared)
            )

        def step(state, images, labels, *predictions):
            return trainer.step(state, images, labels, key_train, *predictions)

        for epoch in range(first, training.epochs):
            started = time.perf_counter()
            batches = batches_of(read_train, training, epoch, len(train_set))
            state, loss, train_accuracy = one_epoch(state, step, batches, training, epoch, shared)
            clean, noisy = (
                accuracy(trainer, state, read_test, tested, sigma, key_test, shared) for sigma in (0.0, training.sigma)
            )
            rate = float(schedule((epoch + 1) * steps - 1))
            seconds = time.perf_counter() - started
            rows.append(Epoch(epoch + 1, rate, loss, train_accuracy, clean, noisy, seconds))
            saved.save(state, rows)
            print_epoch(training, rows, f"accuracy {clean:.4f} clean, {noisy:.4f} under noise")
        source = {"trained_by": "qcrs_jax", "sigma": training.sigma, **request}
        with writing(out_dir):
            write_classifier(trainer.classifier(state, source), out_dir)
            plot_log(rows, out_dir / "training" / "curve.png", what)
    before = "" if denoiser is None else f" --denoiser {training.denoiser}"
    print(f"{out_dir}: ready for `qcrs-jax certify {out_dir} RESULTS{before} --sigma {training.sigma:g} ...`")
