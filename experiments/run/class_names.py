"""The names of the classes that a network knows, compared with those of a data set."""

import re
from collections.abc import Sequence

from qcrs_jax.convert import zoo
from qcrs_jax.data import sources


def known_classes(classifier, checkpoint) -> Sequence[str] | None:
    """The names of a network's classes in the order of its logits, if its file or the zoo has them; else None."""
    if names := getattr(classifier.spec, "class_names", None):
        return names
    entry = zoo.entries().get(str(checkpoint).removeprefix(zoo.PREFIX)) if str(checkpoint).startswith("zoo:") else None
    return sources.known_classes(entry["dataset"]) if entry else None


def order_warning(known: Sequence[str] | None, found: Sequence[str], whose: str) -> str | None:
    """A warning if classes of a data set have other places than the same names in `whose` file; else None.

    Names are compared without case, spaces and punctuation. Names that only one of the two has are ignored.
    """
    if not known:
        return None
    theirs, ours = ([re.sub(r"[\W_]+", "", name.casefold()) for name in names] for names in (known, found))
    if len(set(theirs)) < len(theirs) or len(set(ours)) < len(ours):  # names that occur twice
        return None
    place = {name: i for i, name in enumerate(theirs)}
    moved = [(found[i], place[name], i) for i, name in enumerate(ours) if place.get(name, i) != i]
    if not moved:
        return None
    told = ", ".join(f"{name} ({its} there, {our} here)" for name, its, our in moved[:5])
    more = ", ..." if len(moved) > 5 else ""
    return (
        f"{whose} has its classes in another order than the data set: {told}{more}. Labels are likely wrong; give the "
        "order of the network by --class_order FILE, with the name of a class on each line"
    )
