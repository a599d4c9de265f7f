"""Layouts: the programs that write such a file, and how they normalise images.

These are for all families. Each family has its own in addition.
"""

import re

from qcrs_jax.models.family import Family, Layout, Network, Wrapping

_NORMALISES = re.compile(r"(data_?)?(mean|std|mu|sd|norm|normali[sz]|preprocess|transform)\w*", re.IGNORECASE)
_SETTINGS = ("args", "config", "hparams", "hyper_parameters", "opt", "cfg")


def beside(content: dict, field: str | None) -> tuple[str, ...]:
    """The names of further entries in the file that may describe how images are normalised."""
    if field is None:
        return ()
    return tuple(name for name in content if isinstance(name, str) and _NORMALISES.fullmatch(name))


def _named(content, name):
    """The text of the entry `name`, or of that entry in the settings that a training program stores; "" if none."""
    places = [content, *(content[key] for key in _SETTINGS if isinstance(content.get(key), dict))]
    return next((place[name] for place in places if type(place.get(name)) is str), "")


def layout_of(file: Wrapping, family: Family, network: Network) -> tuple[Layout, dict[str, str]]:
    """The layout, with a normalisation only if every program that writes such files normalises in this way.

    It also returns the normalisations that such files may need, with who needs them, if there are several.
    """
    num_classes, imagenet, channels = network.num_classes, network.image_shape[0] == 224, network.image_shape[-1]
    layout = _by_the_program(file, family, network)
    if layout.normalization == "none":
        return layout, {}
    if channels != 3:
        single = {"none": "most programs for such images", "0.1307/0.3081": "many for MNIST"} if channels == 1 else {}
        return layout._replace(normalization=None), single
    named = " ".join(filter(None, (_named(file.entries, name) for name in ("arch", "dataset")))).lower()
    if layout.normalization == "cifar10":
        if re.search(r"cifar[-_]?100", named):
            return layout._replace(normalization="cifar100"), {}
        if num_classes != 10 or re.search(r"svhn|gtsrb|stl|tiny|mnist|imagenet|cinic|celeba", named):
            known = {"cifar100": "networks of CIFAR-100"} if num_classes == 100 else {}
            known["cifar10"] = f"{layout.name}'s own networks of CIFAR-10, and programs that left it as it was"
            return layout._replace(normalization=None), known
    if layout.normalization == "imagenet" and imagenet and num_classes != 1000:
        known = {"imagenet": "networks of ImageNet, and those trained on from them"}
        known |= {"cifar10": "networks of CIFAR-10 with this stem"} if num_classes == 10 else {}
        known |= {"cifar100": "networks of CIFAR-100 with this stem"} if num_classes == 100 else {}
        return layout._replace(normalization=None), known
    return layout, {} if layout.normalization else family.possible_normalizations(network)


def _by_the_program(file, family, network):
    """The layout, with the normalisation of the programs that give it its name."""
    if file.entries.get("normalize_input") is False:
        return Layout("RST", "none")
    if file.prefix in ("1.", "1.module.") and file.field == "state_dict":
        return Layout("Cohen", "imagenet" if network.image_shape[0] == 224 else "cifar10")
    if own := family.layout(file, network):
        return own
    if file.field == "net":
        return Layout("net", None)  # Kuangliu's programs and their many relatives
    if file.field == "state_dict" and "optimizer_param" in file.entries:
        return Layout("DDRS", None)
    return Layout("state_dict", None)
