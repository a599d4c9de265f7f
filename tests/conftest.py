"""Fixtures that several modules share."""

import io
import os
import sys
import tarfile
import tempfile

import numpy as np
import pytest
from PIL import Image
from places import SHARED

CACHE = {"persistent_cache_min_compile_time_secs": 0.0, "persistent_cache_min_entry_size_bytes": -1}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks `slow` what `slow_for` names: the parameters of that id, or of one of its parts, of a test that has it."""
    for item in items:
        for mark in item.iter_markers("slow_for"):
            if {item.callspec.id, *item.callspec._idlist} & set(mark.args):
                item.add_marker("slow")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """All processes of this session of tests, and of it alone, share what they compile."""
    if not hasattr(config, "workerinput"):  # the workers have the folder of the process that started them
        compiled = tempfile.TemporaryDirectory(prefix="compiled-")
        config.add_cleanup(compiled.cleanup)
        for option, value in {**CACHE, "compilation_cache_dir": compiled.name}.items():
            os.environ["JAX_" + option.upper()] = str(value)
            if jax := sys.modules.get("jax"):  # of tests in this process, where a plugin may have imported it
                jax.config.update("jax_" + option, value)


@pytest.fixture(scope="session")
def real_images():
    """Every 40th test image of CIFAR-10 (250 of them, 25 a class) in [0, 1], and its label."""
    archive = SHARED / "data" / "cifar10-imagefolder.tar.xz"
    if not archive.exists():
        pytest.skip("needs the CIFAR-10 images")
    x, names = [], []
    with tarfile.open(archive, "r|xz") as members:
        for member in members:
            if member.isfile() and int(member.name[-8:-4]) % 40 == 0:  # test/airplane/0040.jpg
                with Image.open(io.BytesIO(members.extractfile(member).read())) as image:
                    x.append(np.asarray(image, np.float32) / 255)
                names.append(member.name.split("/")[1])
            if len(x) == 250:
                break
    return np.stack(x), np.unique(names, return_inverse=True)[1]


@pytest.fixture
def counted(request):
    """A function of a text of counts, which is printed when all tests are done; also of tests in other processes."""
    return lambda text: request.node.user_properties.append(("counted", text))


def pytest_terminal_summary(terminalreporter):
    reports = [report for some in terminalreporter.stats.values() for report in some]
    texts = [text for report in reports for name, text in getattr(report, "user_properties", ()) if name == "counted"]
    if texts:
        terminalreporter.section("attacks")
    for text in dict.fromkeys(texts):
        terminalreporter.write_line(text)
