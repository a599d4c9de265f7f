"""Versions of packages in records, where this one is installed and where it is not."""

import importlib.metadata

import jax

from qcrs_jax.version import version


def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)


def test_versions_are_those_of_the_installed_packages():
    assert version("jax") == jax.__version__
    assert version("no-such-package") == "unknown"


def test_a_checkout_has_the_version_of_its_project(monkeypatch):
    installed = version("qcrs_jax")
    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert version("qcrs_jax") == installed
    assert version("jax") == "unknown"
