"""The families of networks, and their architectures by name."""

from collections.abc import Callable

from flax import nnx

from ..errors import SettingError
from .family import Family
from .lenet import LENET
from .resnet import RESNET
from .wide_resnet import WIDE_RESNET

FAMILIES: dict[str, Family] = {
    "lenet": LENET,
    "wide_resnet": WIDE_RESNET,
    "resnet": RESNET,
}
"""Each family by a name of its own. A PyTorch file is of the first that recognises it."""

ARCHITECTURES = {arch: make for family in FAMILIES.values() for arch, make in family.architectures.items()}
"""A function for each listed architecture that makes a network; `architecture` knows more."""


def family_of(arch: str) -> Family:
    """The family of the architecture `arch`.

    Raises:
        SettingError: no such architecture.
    """
    for family in FAMILIES.values():
        if isinstance(arch, str) and family.make(arch):
            return family
    families = FAMILIES.values()
    known = ", ".join(arch for family in families for arch in family.architectures)
    others = "".join(f", and {family.others}" for family in families if family.others)
    raise SettingError(f"unknown architecture {arch!r}; {{arch}} takes {known}{others}")


def architecture(name: str) -> Callable[..., nnx.Module]:
    """The function that makes a network of the architecture `name`.

    Raises:
        SettingError: no such architecture.
    """
    made = family_of(name).make(name)
    assert made is not None  # as `family_of` found it
    return made
