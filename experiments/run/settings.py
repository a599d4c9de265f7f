"""What a run is asked: typed settings. Commands make their flags of these fields; sidecars record them.

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

IN_MEMORY = "memory:"  # before the name of a classifier that a program gave, in place of a checkpoint


def setting(default: Any = dataclasses.MISSING, help: str = "", **flag) -> Any:
    """A field of settings, with what a command says of its flag.

    Args:
        default: its default; a field without one has to be given.
        help: what the flag's help says. A field without help has no flag.
        flag: more of the flag: choices, metavar, nargs, type, action, `aliases`, its other names, and `positional`, of
            one that is an argument without a name.
    """
    return dataclasses.field(default=default, metadata={"help": help, **flag})


def share(text: str) -> float:
    """The number that 1% or 0.01 stands for."""
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
    """The number of pixels that `text` stands for.

    Raises:
        SettingError: it is none.
    """
    if not text.isdecimal() or not int(text):
        raise SettingError(f"{text!r} is no number of pixels; give other arguments before {{image_size}}")
    return int(text)


def number_or(word: str, meaning: Any):
    """A function of texts: the whole number of one, or `meaning` of `word`."""

    def parse(text: str):
        return meaning if text == word else int(text)

    parse.__name__ = f"whole number or {word}"  # as argparse calls it
    return parse


NORMALIZATION = (
    "how images are normalised after the noise: cifar10, cifar100, imagenet, none, or MEAN,.../STD,... per channel; by "
    "default what the file's layout implies (Cohen: cifar10 or cifar100, or imagenet with its stem; MACER: none; DDRS "
    "and ANCER: cifar10 for their networks of CIFAR-10; torchvision, timm and Idelbayev: imagenet) or the weights "
    "bring along; where two are possible it is asked for"
)


@dataclasses.dataclass(frozen=True)
class Network:
    """A classifier: its file, what is said of a PyTorch file that does not tell it, and the numbers it computes in."""

    checkpoint: Path = setting(
        help="converted directory, PyTorch file, zoo:NAME, or python:FILE.py:FUNCTION, which runs that file: its "
        "function takes no arguments and returns the classifier",
        positional=True,
    )
    normalization: str | None = setting(None, NORMALIZATION)
    field: str | None = setting(
        None, "the field of the file that holds the weights (default: the only one that can be meant)"
    )
    prefix: str | None = setting(None, "what the names of the network begin with; tensors without it are left out")
    leave_out: tuple[str, ...] = setting(
        (),
        "leave out tensors whose names begin so, as they are not of the network; may be given again",
        metavar="PREFIX",
        action="append",
    )
    image_size: tuple[int, ...] | None = setting(
        None,
        "size of the images, H or H W, for a network that takes any (default: 32, or 224 with ImageNet's stem)",
        metavar="PIXELS",
        nargs="+",
        type=pixels,
    )
    max_pool: bool | None = setting(
        None, "whether a max pool follows the stem (default: a 7x7 stem alone has one)", action="boolean"
    )
    macer: bool = setting(False, "the checkpoint is MACER's: images are not normalised")
    dtype: str = setting(
        "float32",
        "in which the network computes; noise, sums and counts stay as they are",
        choices=("float32", "bfloat16"),
    )

    def __post_init__(self):
        if self.macer and self.normalization not in (None, "none"):
            raise SettingError("{macer} says that images are not normalised; it does not go with {normalization}")
        if self.image_size is not None and len(self.image_size) > 2:
            raise SettingError(f"{{image_size}} takes H or H W, not {len(self.image_size)} numbers")


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, and how its files are read.

    tfds: what TensorFlow Datasets may do, as `load_dataset` has it.
    """

    dataset: str | None = setting(
        None,
        "a known data set from its original files or TFDS, a folder of CLASS/IMAGE, or an .npz with x, y and perhaps "
        "class_names (default: what DATA_DIR holds; else cifar10)",
        choices=SOURCES,
    )
    data_dir: Path | None = setting(None, "where the data set is (default: ./data, ./dataset_cache, ., then TFDS)")
    split: str = setting("test", "val where there is one", choices=("train", "test", "val"))
    class_order: str | Sequence[str] | None = setting(
        None,
        "which class has label 0, 1, ...: by the numbers in the names of the class folders, by their text, or as in "
        "FILE, with the name of a class on each line; needed where the names do not tell it (default: by text)",
        metavar="number|text|FILE",
        type=str,
    )
    resize: int | None = setting(
        None,
        "resize the short side of each image to S and cut what the network takes from its centre, as is done with "
        "ImageNet (S = 256 for 224); by default images have the right size already",
        metavar="S",
    )
    memory_limit: float | None = setting(
        None,
        "what the arrays of the data set, or one image, may take in memory; larger files are refused before they are "
        "read (default: 4, or half of the memory that this process may use if that is less)",
        metavar="GIB",
    )
    on_error: str = setting(
        "stop",
        "what to do about an image or a label that does not fit: stop, or say so and go on without the image",
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
        "only every Nth of the images, from the Ith: N machines certify a data set, 1/N to N/N, without knowing of "
        "each other; tables and plots read their files as one run",
        metavar="I/N",
        type=part,
    )

    def __post_init__(self):
        if self.skip < 1:
            raise SettingError(f"{{skip}} must be at least 1, not {self.skip}")

    def of(self, count: int) -> tuple[range, range]:
        """The images of this shard, and of the whole run, of a data set of so many.

        Raises:
            SettingError: there are none.
        """
        whole = range(0, count if self.stop < 0 else min(self.stop, count), self.skip)
        if not whole:
            raise SettingError(f"{{stop}} {self.stop} leaves no image")
        part, of = self.shard or (1, 1)
        if not whole[part - 1 :: of]:
            raise SettingError(f"{{shard}} {part}/{of}: leaves no image")
        return whole[part - 1 :: of], whole

    def recorded_shard(self, images: int) -> dict:
        """What a request says of the shard, of a run over so many images; {} of a whole run."""
        return {"shard": {"part": self.shard[0], "of": self.shard[1], "images": images}} if self.shard else {}

    def extended(self, count: int, indices: range) -> range:
        """The images that the file of a run over `indices` may have: a run that is no shard may be extended."""
        return indices if self.shard else range(0, count, self.skip)


@dataclasses.dataclass(frozen=True)
class Noise:
    """What all noise is drawn from.

    seed: a number that the user chose. None commits the noise to the run: its seed is the hash of all that it asks.
    """

    seed: int | None = setting(
        None,
        "a seed of all noise that you choose, for tests; tables and verify say so (default: the hash of the request, "
        "the weights, the data and the images)",
    )
    prng: str = setting(
        "threefry",
        "generator of the noise: threefry, or rbg, XLA's own, whose numbers depend on the platform and on jaxlib's "
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
        "noisy copies per forward pass of a device, or auto: the fastest of a few, measured in some seconds at the "
        "start; changes no count (default: 16 on a CPU; on a GPU 2048, of large images 512; on a TPU 512 and 128)",
        metavar="B",
        aliases=("--batch",),
        type=number_or("auto", "auto"),
    )
    devices: int | None = setting(
        None,
        "how many devices of this machine, or of each host, share the work (default: all; a CPU gives one a core, in "
        "a container no more than its quota of CPUs)",
        metavar="all|K",
        type=number_or("all", None),
    )
    images: int | None = setting(
        None,
        "images that share each forward pass, so that the few samples of a selection or a search fill it as well "
        "(default: 1 on a CPU; elsewhere by the number of devices and the size of the images)",
        metavar="K",
    )
    distributed: bool = setting(
        False,
        "share the noisy copies with all processes that were started alike: under Slurm, MPI, Kubernetes and on TPU "
        "pods JAX finds them; the first one writes RESULTS",
    )
    coordinator: str | None = setting(
        None, "where JAX does not find them: the address of the first process", metavar="HOST:PORT"
    )
    process: tuple[int, int] | None = setting(
        None, "and which of how many this one is; the first is 1/N", metavar="I/N", type=part
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
            raise SettingError("{coordinator} and {process} tell where {distributed} finds the others; give it too")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One task at many images: the classifier, the data set, which of its images, their noise, and the program.

    results: the results file, where there is one.
    dry_run: whether only the cost is estimated, or what estimates it (`cost.Estimates`).
    """

    network: Network
    data: Data = Data()
    images: Images = Images()
    noise: Noise = Noise()
    program: Program = Program()
    results: Path = Path()
    dry_run: Any = False

    def recorded(self) -> dict:
        """What a sidecar says of it: the settings that decide results, without defaults that are None."""
        kinds = {"network": self.network, "data": self.data, "images": self.images, "noise": self.noise}
        return {name: _plain(settings) for name, settings in kinds.items()}

    @classmethod
    def of(cls, recorded: dict) -> "Sweep":
        """The sweep that `recorded` tells of, on this machine.

        Raises:
            SettingError: a setting of it has another type.
        """
        kinds = {"network": Network, "data": Data, "images": Images, "noise": Noise}
        return cls(**{name: typed(kind, recorded.get(name, {})) for name, kind in kinds.items()})


def _plain(settings) -> dict:
    """Settings as JSON has them."""
    found = {name: value for name, value in vars(settings).items() if value is not None and name != "tfds"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}


def typed(kind: type, recorded: dict) -> Any:
    """Settings of `kind` from what JSON has of them; names that it does not have are of later versions.

    Raises:
        SettingError: a value that is of another type, or no choice.
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
