"""The request of a run: typed settings. Commands make their flags from these fields; sidecars record them.

`Network`, `Data`, `Images` and `Noise` decide results. `Program` decides where and how fast they are computed.
"""

import dataclasses
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qcrs_jax.data.sources import SOURCES
from qcrs_jax.errors import SettingError
from qcrs_jax.results.sidecar import LARGEST_BATCH

PYTHON = "python:"  # before the name of a function in a file, in place of a checkpoint
IN_MEMORY = "memory:"  # prefix of the name of a classifier in memory, in the place of a checkpoint


def setting(default: Any = dataclasses.MISSING, help: str = "", **flag) -> Any:
    """A field of settings, with the description of its flag.

    Args:
        default: its default; a field without one is required.
        help: help of the flag. A field without help has no flag.
        flag: further properties of the flag: choices, metavar, nargs, type, action, `aliases` (its other names), and
            `positional` (an argument without a name).
    """
    return dataclasses.field(default=default, metadata={"help": help, **flag})


def share(text: str) -> float:
    """The number written as 1% or 0.01."""
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def part(text: str) -> tuple[int, int]:
    """(i, n) of "i/n", with 1 <= i <= n.

    Raises:
        SettingError: anything else.
    """
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise SettingError(f"{text!r} is not I/N, with I from 1 to N")
    return int(i), int(n)


def pixels(text: str) -> int:
    """The number of pixels written in `text`.

    Raises:
        SettingError: it is no number of pixels.
    """
    if not text.isdecimal() or not int(text):
        raise SettingError(f"{text!r} is no number of pixels; give other arguments before {{image_size}}")
    return int(text)


def number_or(word: str, meaning: Any):
    """A parser of texts: returns the whole number, or `meaning` for `word`."""

    def parse(text: str):
        return meaning if text == word else int(text)

    parse.__name__ = f"whole number or {word}"  # as argparse calls it
    return parse


NORMALIZATION = (
    "how images are normalised after the noise: cifar10, cifar100, imagenet, none, or MEAN,.../STD,... per channel "
    "(default: the one stored with the weights, or implied by the file's layout. Cohen: cifar10 or cifar100, or "
    "imagenet with its stem; MACER: none; DDRS and ANCER: cifar10 for their networks of CIFAR-10; torchvision, timm "
    "and Idelbayev: imagenet). If two are possible, this flag is required"
)


@dataclasses.dataclass(frozen=True)
class Network:
    """A classifier: its file, the answers to what a PyTorch file leaves open, and the number format of its passes."""

    checkpoint: Path = setting(
        help="PyTorch file, converted directory, .pt2, zoo:NAME, or python:FILE.py:FUNCTION, which is run",
        positional=True,
    )
    denoiser: Path | None = setting(
        None,
        "denoiser before the classifier, of `qcrs-jax train DENOISER --method denoiser` or zoo:NAME. It receives the "
        "sigma of each noisy image",
        metavar="DENOISER",
    )
    normalization: str | None = setting(None, NORMALIZATION)
    field: str | None = setting(None, "field of the file that holds the weights (default: the only possible one)")
    prefix: str | None = setting(None, "beginning of the network's names; tensors without it are left out")
    leave_out: tuple[str, ...] = setting(
        (),
        "leave out tensors whose names begin with PREFIX: they do not belong to the network. May be repeated",
        metavar="PREFIX",
        action="append",
    )
    image_size: tuple[int, ...] | None = setting(
        None,
        "size of the images, H or H W, for a network that takes any size (default: 32, or 224 with ImageNet's stem)",
        metavar="PIXELS",
        nargs="+",
        type=pixels,
    )
    max_pool: bool | None = setting(
        None, "whether a max pool follows the stem (default: only behind a 7x7 stem)", action="boolean"
    )
    stages: tuple[str, ...] = setting(
        (),
        "networks of the stages after the first, in their order (default: one for all)",
        metavar="CHECKPOINT",
        nargs="+",
    )
    macer: bool = setting(False, "the checkpoint is MACER's: images are not normalised")
    dtype: str = setting(
        "float32",
        "number format in which the network computes; noise, sums and counts keep theirs",
        choices=("float32", "bfloat16"),
    )

    def __post_init__(self):
        if self.macer and self.normalization not in (None, "none"):
            raise SettingError("{macer} means that images are not normalised; it does not go with {normalization}")
        if any(stage.startswith(PYTHON) for stage in self.stages):
            raise SettingError("{stages} are files of networks, not functions of a program")
        if self.image_size is not None and len(self.image_size) > 2:
            raise SettingError(f"{{image_size}} takes H or H W, not {len(self.image_size)} numbers")


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, and how its files are read.

    tfds: permissions of TensorFlow Datasets, as for `load_dataset`.
    """

    dataset: str | None = setting(
        None,
        f"{', '.join(SOURCES)} (default: the one in DATA_DIR, else cifar10)",
        choices=SOURCES,
        metavar="NAME",
    )
    data_dir: Path | None = setting(None, "its place (default: ./data, ./dataset_cache, ., TFDS)", metavar="DIR")
    split: str = setting("test", "part of the data set; val only if it has one", choices=("train", "test", "val"))
    class_order: str | Sequence[str] | None = setting(
        None,
        "order of the classes, which have the labels 0, 1, ...: by the numbers in the names of the class folders, by "
        "their text, or as in FILE, with the name of a class on each line. Required if the names do not determine it "
        "(default: by text)",
        metavar="number|text|FILE",
        type=str,
    )
    resize: int | None = setting(
        None,
        "resize the short side of each image to S and crop its centre to the network's size, as for ImageNet (S = 256 "
        "for 224) (default: images must have the right size)",
        metavar="S",
    )
    memory_limit: float | None = setting(
        None,
        "largest memory of the arrays of the data set, or of one image; larger files are refused before they are read "
        "(default: 4, or half of the memory that this process may use if that is less)",
        metavar="GIB",
    )
    on_error: str = setting(
        "stop",
        "what happens at an image or a label that does not fit: stop, or report it and continue without the image",
        choices=("stop", "skip"),
    )
    tfds: str = "prepare"


@dataclasses.dataclass(frozen=True)
class Images:
    """Which images of a data set."""

    skip: int = setting(1, "only images 0, K, 2K, ... (default: 1, all)", metavar="K")
    stop: int = setting(-1, "stop before image M (default: -1, the end)", metavar="M", aliases=("--max",))
    shard: tuple[int, int] | None = setting(
        None,
        "only every Nth of the images, from the Ith. N independent machines, 1/N to N/N, together certify a data set; "
        "tables and plots read their files as one run",
        metavar="I/N",
        type=part,
    )

    def __post_init__(self):
        if self.skip < 1:
            raise SettingError(f"{{skip}} must be at least 1, not {self.skip}")

    def of(self, count: int) -> tuple[range, range]:
        """The images of this shard, and of the whole run, for a data set of `count` images.

        Raises:
            SettingError: no images are left.
        """
        whole = range(0, count if self.stop < 0 else min(self.stop, count), self.skip)
        if not whole:
            raise SettingError(f"{{stop}} {self.stop} leaves no image")
        part, of = self.shard or (1, 1)
        if not whole[part - 1 :: of]:
            raise SettingError(f"{{shard}} {part}/{of}: leaves no image")
        return whole[part - 1 :: of], whole

    def recorded_shard(self, images: int) -> dict:
        """The record of the shard in a request, for a run over this number of images; {} for a whole run."""
        return {"shard": {"part": self.shard[0], "of": self.shard[1], "images": images}} if self.shard else {}

    def extended(self, count: int, indices: range) -> range:
        """The images that the file of a run over `indices` may have. A run that is no shard may be extended."""
        return indices if self.shard else range(0, count, self.skip)


@dataclasses.dataclass(frozen=True)
class Noise:
    """The source of all noise.

    seed: a number that the user chose. None commits the noise to the run: its seed is the hash of the whole request.
    """

    seed: int | None = setting(
        None,
        "seed of all noise, chosen by you, for tests; tables and verify report that you chose it (default: the hash of "
        "the request, the weights, the data and the images)",
    )
    prng: str = setting(
        "threefry",
        "generator of the noise: threefry, or XLA's own rbg, whose numbers depend on the platform and on jaxlib's "
        "version",
        choices=("threefry", "rbg"),
    )

    def __post_init__(self):
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise SettingError(f"{{seed}} must lie in [0, 2**32), not {self.seed}")


@dataclasses.dataclass(frozen=True)
class Program:
    """Where and how fast a run is computed. None of it changes a count."""

    batch_size: int | str | None = setting(
        None,
        "noisy copies per forward pass, or auto: the fastest of a few, measured (default: by the kind of device)",
        metavar="B",
        aliases=("--batch",),
        type=number_or("auto", "auto"),
    )
    devices: int | None = setting(
        None,
        "number of devices of this machine, or of each host, that share the work (default: all; each core of a CPU is "
        "one device, in a container up to its quota of CPUs)",
        metavar="all|K",
        type=number_or("all", None),
    )
    images: int | None = setting(
        None,
        "images that share each forward pass: the few samples of a selection or a search then fill it too (default: 1 "
        "on a CPU; elsewhere by the number of devices and the size of the images)",
        metavar="K",
    )
    distributed: bool = setting(
        False,
        "share the noisy copies with all processes that were started with the same command. JAX finds them under "
        "Slurm, MPI, Kubernetes and on TPU pods. The first one writes RESULTS",
    )
    coordinator: str | None = setting(
        None, "address of the first process, if JAX cannot find the others", metavar="HOST:PORT"
    )
    process: tuple[int, int] | None = setting(
        None, "this is process I of N, counted from 1; goes with --coordinator", metavar="I/N", type=part
    )

    def __post_init__(self):
        if self.batch_size not in (None, "auto"):
            if self.batch_size < 1:
                raise SettingError(f"{{batch_size}} must be at least 1, not {self.batch_size}")
            if self.batch_size > LARGEST_BATCH:
                raise SettingError(f"{{batch_size}} is at most {LARGEST_BATCH}, not {self.batch_size}")
        if self.batch_size == "auto" and self.distributed:
            raise SettingError("{batch_size} auto measures one machine; give all hosts of {distributed} one number")
        for name in ("devices", "images"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise SettingError(f"{{{name}}} must be at least 1, not {getattr(self, name)}")
        if (self.coordinator or self.process) and not self.distributed:
            raise SettingError("{coordinator} and {process} go with {distributed}; give it too")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One task over many images: the classifier, the data set, its images, their noise, and the program.

    results: the results file, if there is one.
    dry_run: whether only the cost is estimated, or the object that estimates it (`cost.Estimates`).
    """

    network: Network
    data: Data = Data()
    images: Images = Images()
    noise: Noise = Noise()
    program: Program = Program()
    results: Path = Path()
    dry_run: Any = False

    def recorded(self) -> dict:
        """Its record in a sidecar: the settings that decide results, without defaults that are None."""
        kinds = {"network": self.network, "data": self.data, "images": self.images, "noise": self.noise}
        return {name: _plain(settings) for name, settings in kinds.items()}

    @classmethod
    def of(cls, recorded: dict) -> "Sweep":
        """The sweep that `recorded` describes, on this machine.

        Raises:
            SettingError: one of its settings has another type.
        """
        kinds = {"network": Network, "data": Data, "images": Images, "noise": Noise}
        return cls(**{name: typed(kind, recorded.get(name, {})) for name, kind in kinds.items()})


def _plain(settings) -> dict:
    """Settings in the types of JSON."""
    found = {name: value for name, value in vars(settings).items() if value is not None and name != "tfds"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}


def typed(kind: type, recorded: dict) -> Any:
    """Settings of `kind` from their JSON record. Names that `kind` does not know are of later versions.

    Raises:
        SettingError: a value has another type, or is none of the choices.
    """
    hints, values = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        if field.name not in recorded:
            continue
        value, choices = recorded[field.name], field.metadata.get("choices")
        value = tuple(value) if isinstance(value, list) else value
        value = Path(value) if isinstance(value, str) and Path in _members(hints[field.name]) else value
        if not any(_fits(value, member) for member in _members(hints[field.name])) or choices and value not in choices:
            raise SettingError(f"{{{field.name}}} cannot be {str(value)[:60]!r}")
        values[field.name] = value
    try:
        return kind(**values)
    except TypeError as error:
        raise SettingError(f"settings of {kind.__name__} are missing: {error}") from error


def _members(hint):
    """The types that a hint unites."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _fits(value, kind):
    origin = typing.get_origin(kind)
    if origin in (tuple, Sequence):
        inner = [arg for arg in typing.get_args(kind) if arg is not Ellipsis]
        return isinstance(value, tuple) and all(_fits(each, inner[0]) for each in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
