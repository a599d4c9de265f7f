"""Fixtures that several modules share."""

import io
import os
import tarfile
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from places import SHARED

OUT_OF_TIME = "the time of --until has come"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks as `slow` the parameters of a test that its mark `slow_for` names, by their id or a part of it."""
    for item in items:
        for mark in item.iter_markers("slow_for"):
            if {item.callspec.id, *item.callspec._idlist} & set(mark.args):
                item.add_marker("slow")


def pytest_addoption(parser):
    parser.addoption(
        "--until",
        type=float,
        metavar="SECONDS",
        help="skip the tests that would start after this time, in seconds since 1970, and say so at the end",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    until = item.config.getoption("--until")
    if until is not None and time.time() > until:
        pytest.skip(OUT_OF_TIME)


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Compiles the same program once during this session of tests, also for commands in processes of their own."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    for setting, value in (("compilation_cache_dir", folder), ("persistent_cache_min_compile_time_secs", 0.1)):
        os.environ[f"JAX_{setting}".upper()] = str(value)
        jax.config.update(f"jax_{setting}", value)


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Forgets compiled programs after a file of tests, before they are so many that the system can map no more."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 20_000:  # Linux allows 65 530
        jax.clear_caches()


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
    """A function of a text of counts. It is printed after all tests, also for tests in other processes."""
    return lambda text: request.node.user_properties.append(("counted", text))


def pytest_terminal_summary(terminalreporter):
    late = [r for r in terminalreporter.stats.get("skipped", ()) if OUT_OF_TIME in str(r.longrepr)]
    if late:
        terminalreporter.section("time")
        terminalreporter.write_line(f"{len(late)} tests were not run, because the time of --until had come")
    reports = [report for some in terminalreporter.stats.values() for report in some]
    texts = [text for report in reports for name, text in getattr(report, "user_properties", ()) if name == "counted"]
    if texts:
        terminalreporter.section("attacks")
    for text in dict.fromkeys(texts):
        terminalreporter.write_line(text)
