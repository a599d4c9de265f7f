"""Attacks on the program: what is damaged, killed, made to fail, simulated and forged by the hundred. All are slow."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if "attacks" in item.path.parts:
            item.add_marker("slow")
