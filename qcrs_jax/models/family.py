"""A family of networks: everything that the program knows about it. A new one is one file here, and one line in
registry.py.

The tables of names list where a PyTorch file has each layer. They are data: this package reads no such file.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

from flax import nnx


class Leaf(NamedTuple):
    """A variable of a layer in PyTorch: its name, and its axes by name, in PyTorch's order and in ours."""

    name: str
    theirs: str
    ours: str


CONV = {"kernel": Leaf("weight", "out in h w", "h w in out"), "bias": Leaf("bias", "out", "out")}
LINEAR = {"kernel": Leaf("weight", "out in", "in out"), "bias": Leaf("bias", "out", "out")}
NORM = {
    "scale": Leaf("weight", "channel", "channel"),
    "bias": Leaf("bias", "channel", "channel"),
    "mean": Leaf("running_mean", "channel", "channel"),
    "var": Leaf("running_var", "channel", "channel"),
}
"""The variables of a layer of each kind by our names, in PyTorch's order."""


class Part(NamedTuple):
    """A layer of a network.

    ours: its path among our modules, with slashes.
    theirs: its name in PyTorch.
    leaves: its variables: CONV, LINEAR, NORM, or another such table.

    A `*` in both names stands for each block of a `Stage`. Theirs are numbered from 0. Ours are `first` and, stacked
    along a leading axis, `rest`.
    """

    ours: str
    theirs: str
    leaves: Mapping[str, Leaf]


class Network(NamedTuple):
    """The fields of a Spec that follow from the names and shapes of the weights."""

    arch: str
    num_classes: int
    image_shape: tuple[int, int, int]
    options: dict


class Wrapping(NamedTuple):
    """The place of a network in a PyTorch file.

    field: dictionary of its tensors; None for the file as a whole.
    prefix: beginning of their names.
    entries: content of the file, by name; {} if it is no dictionary.
    tensors: tensors of the network, by name, without the prefix.
    """

    field: str | None
    prefix: str
    entries: Mapping
    tensors: Mapping


class Layout(NamedTuple):
    """The layout of a file, by the programs that write it.

    name: name of these programs.
    normalization: normalisation that all of them use, a name that `parse_normalization` knows; None if it is open.
    """

    name: str
    normalization: str | None


class Family:
    """Networks of one kind. `architectures`, `parts` and `recognise` are required; the rest is for special cases.

    Attributes:
        title: name of the networks in messages, in the plural.
        architectures: name -> function of (channels, num_classes, *, rngs, **options) that makes a network.
        others: description of the names that `make` knows beside these.
        parts: every layer, in PyTorch's order.
        stem: tensor in PyTorch by which a network is found among others: a weight of its first layer.
        spellings: word in PyTorch's names -> another that some programs use for it.
        never_run: modules that some programs store and never run, and for each the module that it copies.
        arch_names: regular expression of all names that programs have for architectures of this family.
        one_size: reason why a network takes images of one size only; None if it takes any.
    """

    title: ClassVar[str]
    architectures: ClassVar[Mapping[str, Callable[..., nnx.Module]]]
    others: ClassVar[str] = ""
    parts: ClassVar[tuple[Part, ...]]
    stem: ClassVar[str] = "conv1.weight"
    spellings: ClassVar[Mapping[str, str]] = {}
    never_run: ClassVar[Mapping[str, str]] = {}
    arch_names: ClassVar[str] = r"(?!)"
    one_size: ClassVar[str | None] = None

    def make(self, arch: str) -> Callable[..., nnx.Module] | None:
        """The function that makes a network of the architecture `arch`; None if `arch` is not of this family."""
        return self.architectures.get(arch)

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> Network | None:
        """The network whose PyTorch tensors have these names and shapes; None if it is not of this family.

        Every tensor is compared later, so a few of them suffice here.

        Raises:
            KeyError, ValueError: it looks like one of this family, but is not; the message says why.
        """
        raise NotImplementedError

    def names_of(self, arch: str) -> tuple[str, ...]:
        """The names that files have for the architecture `arch`."""
        return (arch,)

    def max_pool(self, arch: str, options: Mapping) -> bool | None:
        """Whether a max pool follows the stem; None if that is no choice."""
        return None

    def layout(self, file: Wrapping, network: Network) -> Layout | None:
        """The layout of a file that only networks of this family have; None for the layouts that all have."""
        return None

    def possible_normalizations(self, network: Network) -> dict[str, str]:
        """The normalisations that such networks may need if the layout leaves it open, and who needs them."""
        return {}

    def exported(self, options: dict, image_shape: tuple[int, int, int]) -> tuple[str, str]:
        """The field and the prefix of the weights in an exported file, as the programs for such networks have them."""
        return "state_dict", "1."
