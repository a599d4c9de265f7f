"""Searches of QCRS by name, for tests of all of them."""

import dataclasses

from qcrs_jax.search import SEARCHES as EVERY

SEARCHES = {name: kind for name, kind in EVERY.items() if kind.method == "qcrs"}


def search(name, lower=0.08, upper=0.9, **settings):
    """The search of this name, with those of the settings that it has."""
    own = {field.name for field in dataclasses.fields(SEARCHES[name])}
    return SEARCHES[name](lower, upper, **{key: value for key, value in settings.items() if key in own})
