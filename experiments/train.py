"""Train a base classifier under Gaussian noise: Cohen's augmentation, or MACER. Resumes when given again.

OUT_DIR becomes a classifier that `certify` and `export` open; its folder `training` holds the state after the last
epoch, the log and its curve. Defaults are the papers'; `--schedule onecycle` is a short run for small machines.

  qcrs-jax train OUT_DIR --arch cifar_resnet110 --dataset cifar10 --sigma 0.25
  qcrs-jax train OUT_DIR --arch cifar_resnet20 --dataset cifar10 --sigma 0.25 --schedule onecycle
  qcrs-jax train OUT_DIR --arch lenet --dataset mnist --sigma 0.25 --method macer
  qcrs-jax train OUT_DIR --init models/noise_0.25.pth.tar --dataset cifar10 --sigma 0.50 --epochs 10 --lr 0.01
"""

import dataclasses
import json
import time
from pathlib import Path

from qcrs_jax.convert.flags import add_opening_arguments

from qcrs_jax.errors import UserError
from qcrs_jax.extras import needed_for
from qcrs_jax.files import is_partial, lock, replacing, writing

from .arguments import add_data_arguments

# (epochs, batch, learning rate, weight decay): of Cohen et al. and MACER on CIFAR-10, and of short runs.
DEFAULTS = {
    ("gaussian", "step"): (90, 256, 0.1, 1e-4),
    ("macer", "step"): (440, 64, 0.01, 5e-4),
    ("gaussian", "onecycle"): (14, 128, 0.2, 5e-4),
    ("macer", "onecycle"): (6, 64, 0.05, 5e-4),
}
MILESTONES = {"gaussian": (1 / 3, 2 / 3), "macer": (200 / 440, 400 / 440)}
COLUMNS = ("epoch", "learning_rate", "loss", "train_accuracy", "clean_accuracy", "noisy_accuracy", "seconds")
IN_MEMORY = 8 * 2**30  # bytes of images above which they are read anew in every epoch


def add_arguments(parser):
    parser.add_argument("out_dir", metavar="OUT_DIR", type=Path, help="directory to write or to resume")
    add_data_arguments(parser)
    group = parser.add_argument_group("classifier")
    add = group.add_argument
    add("--arch", help="cifar_resnet20, ..., resnet50, lenet, ... (default: that of --init, else cifar_resnet20)")
    add("--init", metavar="CHECKPOINT", help="start from the weights of what certify opens")
    add(
        "--normalization",
        help="cifar10, imagenet, none, or MEAN,.../STD,... (default: cifar10 for CIFAR ResNets under method gaussian, "
        "imagenet for those of ImageNet, else none, as the papers have it)",
    )
    add_opening_arguments(parser, normalization=None)
    group = parser.add_argument_group("method")
    add = group.add_argument
    add("--method", choices=["gaussian", "macer"], default="gaussian", help="default: gaussian")
    add("--sigma", type=float, required=True, help="standard deviation of the noise, pixels in [0, 1]")
    add("--copies", type=int, default=16, help="MACER: noisy copies of an image, k (default: 16)")
    add("--lbd", type=float, help="MACER: weight of the robustness loss (default: 12 below sigma 0.5, else 4)")
    add("--gamma", type=float, default=8.0, help="MACER: hinge on the gap (default: 8)")
    add("--beta", type=float, default=16.0, help="MACER: inverse temperature (default: 16)")
    group = parser.add_argument_group("optimisation")
    add = group.add_argument
    add(
        "--schedule",
        choices=["step", "onecycle"],
        default="step",
        help="learning rate: divided by 10 at 1/3 and 2/3 of the epochs (MACER: 5/11 and 10/11), or one cycle "
        "(default: step)",
    )
    add("--epochs", type=int, help="default: 90, MACER 440; with onecycle 14, MACER 6")
    add(
        "--batch", type=int, help="images of a step, on all devices together (default: 256, MACER 64; onecycle 128, 64)"
    )
    add("--lr", type=float, help="learning rate, or its peak (default: 0.1, MACER 0.01; onecycle 0.2, 0.05)")
    add("--momentum", type=float, default=0.9, help="default: 0.9")
    add("--weight_decay", type=float, help="default: 1e-4, MACER and onecycle 5e-4")
    add("--augment", choices=["crop_flip", "none"], help="default: crop_flip for images of 3 channels, else none")
    add("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the passes (default: float32)")
    add("--seed", type=int, default=0, help="of weights, order, augmentation and noise (default: 0)")
    add("--test_skip", type=int, default=1, metavar="K", help="test on images 0, K, 2K, ... (default: 1, all)")


def run(args):
    """Trains until the last epoch; every epoch is saved.

    Raises:
        UserError: impossible settings, a data set that does not fit, or OUT_DIR holds a run of other settings, or one
            that is still going on.
    """
    from .inputs import open_devices

    devices = open_devices()  # before anything touches them

    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    with needed_for("training"):  # all of it, before hours of work
        import matplotlib  # noqa: F401
        import optax  # noqa: F401
        import orbax.checkpoint  # noqa: F401
        from tqdm import tqdm

    from qcrs_jax.models.checkpoint import write_classifier
    from qcrs_jax.sampling.devices import replicated
    from qcrs_jax.training import Trainer, crop_and_flip

    from .data_sets import open_train_and_test

    _fill_defaults(args)
    if args.batch % len(devices):
        raise UserError(f"--batch {args.batch} is no multiple of the {len(devices)} devices that share it")
    train, test = open_train_and_test(args)
    steps = len(train) // args.batch
    if steps == 0:
        raise UserError(f"--batch {args.batch} is more than the {len(train)} images of {train.source}")
    start = _start(args)
    spec = _spec(args, train, start)
    schedule = _schedule(args, steps)
    trainer = Trainer(
        spec,
        _method(args),
        _optimizer(args, schedule),
        augment=crop_and_flip() if args.augment == "crop_flip" else None,
        dtype=jnp.dtype(args.dtype),
    )
    request = _describe(args, spec, train, test) | ({"init": start.fingerprint()} if start else {})
    with _Run(args.out_dir, request) as saved:
        everywhere = replicated(devices)
        shared = NamedSharding(everywhere.mesh, PartitionSpec("devices"))
        state = jax.device_put(trainer.init(args.seed, start), everywhere)
        first, state, rows = saved.restore(state)
        if first:
            print(f"{args.out_dir}: {first} of {args.epochs} epochs are done; going on behind them")
        what = f"{spec.arch}, {args.method}, sigma {args.sigma:g}"
        print(f"{what}: {len(train)} images of {train.source}, {len(devices)} devices")
        key = jax.random.key(args.seed, impl="threefry2x32")
        key_train, key_test = jax.random.split(key)
        if first < args.epochs:
            read_train, read_test = _reader(train, "reading training images"), _reader(test, "reading test images")
        for epoch in range(first, args.epochs):
            started = time.perf_counter()
            order = np.random.default_rng([args.seed, epoch]).permutation(len(train))[: steps * args.batch]
            batches = _read_ahead(read_train, order.reshape(steps, args.batch))
            totals = []
            progress = tqdm(batches, total=steps, desc=f"epoch {epoch + 1}/{args.epochs}", unit="step", leave=False)
            for batch in progress:
                state, loss, hits = trainer.step(state, *jax.device_put(batch, shared), key_train)
                totals.append((loss, hits))
                if len(totals) % 20 == 0:
                    progress.set_postfix_str(f"loss {float(loss):.3f}")
            loss, train_accuracy = np.mean(jax.device_get(totals), axis=0)
            if not np.isfinite(loss):
                raise UserError(f"the loss of epoch {epoch + 1} is {loss}; choose a smaller --lr than {args.lr:g}")
            clean, noisy = (
                _accuracy(trainer, state, read_test, range(0, len(test), args.test_skip), sigma, key_test, shared)
                for sigma in (0.0, args.sigma)
            )
            rate = float(schedule((epoch + 1) * steps - 1))
            seconds = time.perf_counter() - started
            rows.append((epoch + 1, rate, float(loss), float(train_accuracy), clean, noisy, seconds))
            saved.save(state, rows)
            left = (args.epochs - epoch - 1) * seconds
            print(
                f"epoch {epoch + 1}/{args.epochs}: loss {loss:.4f}, accuracy {clean:.4f} clean, "
                f"{noisy:.4f} under noise, {seconds:.0f} s; about {left / 60:.0f} min left",
                flush=True,
            )
        source = {"trained_by": "qcrs_jax", "sigma": args.sigma, **request}
        with writing(args.out_dir):
            write_classifier(trainer.classifier(state, source), args.out_dir)
            plot_log(rows, args.out_dir / "training" / "curve.png", what)
    print(f"{args.out_dir}: ready for `qcrs-jax certify {args.out_dir} RESULTS --sigma {args.sigma:g} ...`")


def _fill_defaults(args):
    epochs, batch, rate, decay = DEFAULTS[args.method, args.schedule]
    args.epochs = epochs if args.epochs is None else args.epochs
    args.batch = batch if args.batch is None else args.batch
    args.lr = rate if args.lr is None else args.lr
    args.weight_decay = decay if args.weight_decay is None else args.weight_decay
    args.lbd = (12.0 if args.sigma < 0.5 else 4.0) if args.lbd is None else args.lbd
    for name in ("epochs", "batch", "lr", "test_skip"):
        if not 0 < getattr(args, name) < float("inf"):
            raise UserError(f"--{name} must be positive, not {getattr(args, name)}")
    if not 0 <= args.momentum < 1 or not 0 <= args.weight_decay < 1:
        raise UserError("--momentum and --weight_decay must lie in [0, 1)")


def _method(args):
    from qcrs_jax.training import Gaussian, Macer

    try:
        if args.method == "gaussian":
            return Gaussian(args.sigma)
        return Macer(args.sigma, args.copies, args.lbd, args.gamma, args.beta)
    except ValueError as error:
        raise UserError(f"impossible request: {str(error).replace('weight', '--lbd')}") from error


def _schedule(args, steps):
    with needed_for("training"):
        import optax

    if args.schedule == "onecycle":
        return optax.cosine_onecycle_schedule(args.epochs * steps, args.lr)
    boundaries = [round(share * args.epochs) * steps for share in MILESTONES[args.method]]
    return optax.piecewise_constant_schedule(args.lr, dict.fromkeys(boundaries, 0.1))


def _optimizer(args, schedule):
    from qcrs_jax.training import sgd

    return sgd(schedule, args.momentum, args.weight_decay)


def _refuse_opening(args):
    """Raises UserError for flags of a PyTorch file where none is opened."""
    from qcrs_jax.convert.flags import NAMES

    if given := [f"--{name}" for name in NAMES if getattr(args, name, None) is not None]:
        raise UserError(f"{given[0]} tells of the file of --init; give --init with it")


def _start(args):
    """The classifier that --init names, or None."""
    if args.init is None:
        args.arch = args.arch or "cifar_resnet20"
        _refuse_opening(args)
        return None
    from qcrs_jax.convert.flags import opening_of, print_notes
    from qcrs_jax.convert.load import open_classifier

    start = open_classifier(args.init, opening_of(args, args.normalization))
    print_notes(args.init, start)
    if args.arch not in (None, start.spec.arch):
        raise UserError(f"--init {args.init}: holds a {start.spec.arch}, not --arch {args.arch}")
    args.arch = start.spec.arch
    return start


def _spec(args, dataset, start):
    import jax.numpy as jnp
    from flax import nnx
    from qcrs_jax.convert.layouts import NORMALIZATIONS
    from qcrs_jax.convert.load import parse_normalization

    from qcrs_jax.models import Spec, build

    shape = dataset[0][0].shape
    args.augment = args.augment or ("crop_flip" if shape[-1] == 3 else "none")
    if start is not None:
        if (start.spec.image_shape, start.spec.num_classes) != (shape, len(dataset.class_names)):
            raise UserError(
                f"--init {args.init}: is for {start.spec.num_classes} classes and images of shape "
                f"{start.spec.image_shape}; {dataset.source} has {len(dataset.class_names)} and {shape}"
            )
        return dataclasses.replace(start.spec, source={}, class_names=tuple(dataset.class_names))
    if args.normalization is None:
        name = "cifar10" if args.arch.startswith("cifar_") else "imagenet"
        args.normalization = name if args.method == "gaussian" and shape[-1] == 3 else "none"
    mean, std = NORMALIZATIONS.get(args.normalization) or parse_normalization(args.normalization)
    try:
        names = tuple(dataset.class_names)
        spec = Spec(args.arch, len(names), shape, mean, std, class_names=names)
    except ValueError as error:
        raise UserError(f"impossible request: {error}") from error
    try:
        nnx.eval_shape(lambda: build(spec)(jnp.zeros((1, *shape))))
    except TypeError as error:
        raise UserError(
            f"--arch {args.arch} does not take images of shape {shape}, which {dataset.source} has; choose another"
        ) from error
    return spec


def _describe(args, spec, train, test):
    """Everything that decides the result."""
    names = "arch method sigma schedule epochs batch lr momentum weight_decay augment dtype seed test_skip".split()
    names += "copies lbd gamma beta".split() if args.method == "macer" else []
    data = {"name": train.name, "train_fingerprint": train.fingerprint, "test_fingerprint": test.fingerprint}
    request = {name: getattr(args, name) for name in names}
    return {**request, "mean": list(spec.mean), "std": list(spec.std), "dataset": data}


def _reader(dataset, what):
    """A function of indices that gives images (batch, h, w, c) in [0, 1] and labels; keeps the images if they fit."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    with needed_for("a bar of progress"):
        from tqdm import tqdm

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
    progress = tqdm(pool.map(fetch, range(len(dataset))), total=len(dataset), desc=what, leave=False)
    if dataset.read(0).dtype != np.uint8:
        kept = np.stack([image for image, _ in progress])
        return lambda indices: (kept[indices], dataset.labels[indices].astype(np.int32))
    kept = np.stack([np.rint(255 * image).astype(np.uint8) for image, _ in progress])  # the bytes that were read
    return lambda indices: (
        kept[indices].astype(np.float32) / np.float32(255),
        dataset.labels[indices].astype(np.int32),
    )


def _read_ahead(read, batches):
    """Yields read(batch) for every batch; the next is read while this one is used."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(read, batches[0])
        for following in batches[1:]:
            current, upcoming = upcoming, pool.submit(read, following)
            yield current.result()
        yield upcoming.result()


def _accuracy(trainer, state, read, indices, sigma, key, sharding, batch=256):
    """Share of the test images at `indices` that are classified right, one copy of each with noise of `sigma`."""
    import jax
    import numpy as np

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


class _Run:
    """The folder `training` of OUT_DIR: request.json, log.tsv, and Orbax's checkpoints, one an epoch.

    One process has it at a time: the file lock is locked until the run ends, however it does.
    """

    def __init__(self, out_dir, request):
        self.folder = out_dir / "training"
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
        """Whether OUT_DIR has nothing, or no more than a run has made that did not begin yet."""
        here = {file for file in (out_dir, self.folder) if file.is_dir() for file in file.iterdir()}
        here = {file for file in here if not is_partial(file.name)}
        return here <= {self.folder, self.folder / "lock", self.folder / "request.json.tmp"}

    def _begin(self, out_dir, request):
        """Compares `request` with that of the run that the folder holds, or notes it.

        Raises:
            UserError: it is another.
        """
        from qcrs_jax.results.records import differences

        file = self.folder / "request.json"
        request = json.loads(json.dumps(request))
        if file.exists():
            try:
                before = json.loads(file.read_text())
            except ValueError as error:
                raise UserError(f"{file}: is damaged ({error}); move {out_dir} away to start again") from error
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
        import jax
        with needed_for("the state of training"):
            import orbax.checkpoint as ocp

        epoch = self.manager.latest_step()
        if epoch is None:
            return 0, fresh, []
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, fresh)
        state = self.manager.restore(epoch, args=ocp.args.StandardRestore(target))
        return epoch, state, read_log(self.folder / "log.tsv")[:epoch]

    def save(self, state, rows):
        """Saves the state after the last of `rows`; the log goes first, so that it never lacks an epoch."""
        with needed_for("the state of training"):
            import orbax.checkpoint as ocp

        lines = ["\t".join(COLUMNS), *("\t".join(map(repr, row)) for row in rows)]
        with writing(self.folder, again="give the same command again: it goes on behind the last whole epoch"):
            with replacing(self.folder / "log.tsv") as file:
                file.write(("\n".join(lines) + "\n").encode())
        self.manager.save(len(rows), args=ocp.args.StandardSave(state))
        self.manager.wait_until_finished()


def read_log(path) -> list[tuple]:
    """The rows of a training log, one an epoch, in the order of COLUMNS."""
    lines = path.read_text().splitlines()[1:]
    return [(int(epoch), *map(float, rest)) for epoch, *rest in (line.split("\t") for line in lines)]


def plot_log(rows, out, title) -> None:
    """Draws loss and accuracies of a training log against the epoch to the file `out`."""
    from .figures import pyplot, save, tidy

    columns = dict(zip(COLUMNS, zip(*rows)))
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.plot(columns["epoch"], columns["loss"], linewidth=1.8)
    left.set(xlabel="epoch", ylabel="training loss")
    names = {"clean_accuracy": "test, clean", "noisy_accuracy": "test, under noise", "train_accuracy": "training"}
    for column, name in names.items():
        right.plot(columns["epoch"], columns[column], linewidth=1.8, label=f"{name}: {columns[column][-1]:.3f}")
    right.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1))
    right.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        tidy(axes)
    figure.suptitle(title, fontsize=11)
    save(figure, out)
