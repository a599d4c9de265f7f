"""The loop of a run: order, failures and full memory."""

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import jax
import pytest

from qcrs_jax.errors import UserError
from qcrs_jax.experiments.run.pipeline import Launcher, Stopped, groups, in_turn, read_ahead, stopping
from qcrs_jax.experiments.run.runner import default_images
from qcrs_jax.sampling.counts import default_batch_size


def reads(values):
    """(index, a function that returns (image, label)); an error among the values is raised."""

    def read(value):
        if isinstance(value, Exception):
            raise value
        return value, 0

    return [(index, lambda value=value: read(value)) for index, value in enumerate(values)]


def test_images_are_grouped_and_unreadable_ones_left_out():
    told = []
    values = ["a", UserError("cut"), "b", "c", UserError("small"), "d"]
    found = list(groups(reads(values), 2, lambda index, error: told.append((index, str(error)))))
    assert found == [[(0, "a", 0), (2, "b", 0)], [(3, "c", 0), (5, "d", 0)]]
    assert told == [(1, "cut"), (4, "small")]


def test_an_unreadable_image_stops_behind_those_before_it():
    iterator = groups(reads(["a", "b", "c", UserError("cut"), "d"]), 2, None)
    assert [next(iterator), next(iterator)] == [[(0, "a", 0), (1, "b", 0)], [(2, "c", 0)]]
    with pytest.raises(UserError, match="image 3: cut"):
        next(iterator)


@pytest.mark.parametrize("ahead", [1, 3, 9])
def test_everything_is_read_in_order(ahead):
    assert [(index, read()) for index, read in read_ahead(lambda i: -i, range(5), ahead)] == [(i, -i) for i in range(5)]


def test_the_next_call_is_launched_before_the_last_is_waited_for():
    log = []

    def launch(call):
        log.append(f"launch {call}")
        return lambda: log.append(f"wait {call}") or 10 * call

    results = []
    for call, result in in_turn([1, 2, 3], launch):
        log.append(f"got {call}")
        results.append(result)
    assert results == [10, 20, 30]
    assert log == [f"{what} {n}" for what, n in zip(
        ["launch", "launch", "wait", "got", "launch", "wait", "got", "wait", "got"], [1, 2, 1, 1, 3, 2, 2, 3, 3]
    )]  # fmt: skip


@pytest.mark.parametrize("where", ["iterator", "launch", "wait"])
def test_results_before_a_failure_are_kept(where):
    def calls():
        yield from [1, 2]
        if where == "iterator":
            raise UserError("third")
        yield 3

    def launch(call):
        if where == "launch" and call == 3:
            raise UserError("third")

        def wait():
            if where == "wait" and call == 3:
                raise UserError("third")
            return call

        return wait

    got = []
    with pytest.raises(UserError, match="third"):
        for call, _ in in_turn(calls(), launch):
            got.append(call)
    assert got == [1, 2]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("told", ["RESOURCE_EXHAUSTED: Out of memory", "INTERNAL: YNNPACK operation failed: error"])
def test_full_memory_halves_the_copies_and_the_run_continues(late, told):
    said, sizes = [], []

    def start(call, copies):
        """Memory holds 10 copies; told at once, or when the result is waited for."""
        sizes.append((call, copies))

        def wait():
            if copies > 10:
                raise jax.errors.JaxRuntimeError(told)
            return call, copies

        if not late:
            wait()
        return wait

    results = [result for _, result in in_turn("abc", Launcher(start, 64, said.append))]
    assert results == [(call, 8) for call in "abc"]
    assert len(said) == 3 and "does not hold 64 noisy copies" in said[0] and "continuing with 8" in said[2]


STARVED = """
import resource, sys
import jax, jax.numpy as jnp, numpy as np
from qcrs_jax import conclude, draw
from qcrs_jax.experiments.run.pipeline import Launcher

def classify(images):  # sorts in memory of its own, which XLA allocates
    middle = jnp.sort(images.reshape(len(images), -1))[:, 22:26]
    return jnp.stack([middle.sum(axis=1) > 0.1, middle.sum(axis=1) <= 0.1], axis=1).astype(jnp.float32)

def start(image, copies):
    drawn = draw(classify, image, 0.25, key=jax.random.key(0), n=500, batch_size=copies)
    return lambda: conclude(drawn)

image = np.full((4, 4, 3), 0.05, np.float32)
expected = start(image, 16)().counts.tolist()
(size,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize")]
resource.setrlimit(resource.RLIMIT_AS, (1024 * int(size) + 2**29, -1))
assert Launcher(start, 2**23, print)(image)().counts.tolist() == expected
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own memory as Linux can")
@pytest.mark.slow
def test_memory_that_is_full_in_truth():
    done = subprocess.run([sys.executable, "-c", STARVED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"does not hold {2**23} noisy copies of an image" in done.stdout


def test_memory_for_less_than_one_copy_and_other_errors_are_raised():
    def start(call, copies):
        raise jax.errors.JaxRuntimeError(call)

    with pytest.raises(UserError, match="does not hold a single copy of each image; give images 1") as error:
        list(in_turn(["RESOURCE_EXHAUSTED: Out of memory"], Launcher(start, 4, lambda text: None)))
    assert error.value.settings == ("images",)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        list(in_turn(["INTERNAL: a defect"], Launcher(start, 4, lambda text: None)))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_stop_the_loop_while_it_waits(number, status):
    before = signal.getsignal(number)
    release = threading.Event()

    def launch(call):
        if call == "second":
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        return lambda: call == "first" or release.wait(60)

    got = []
    with pytest.raises(Stopped) as stop, stopping():
        for call, _ in in_turn(["first", "second"], launch):
            got.append(call)
    release.set()
    assert got == ["first"] and stop.value.status == status and signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("platform", "shape", "devices", "images", "copies"),
    [
        ("cpu", (32, 32, 3), 2, 1, 16),
        ("gpu", (32, 32, 3), 1, 16, 128),
        ("gpu", (224, 224, 3), 1, 4, 128),
        ("gpu", (224, 224, 3), 100, 32, 16),
        ("tpu", (28, 28, 1), 4, 16, 32),
        ("tpu", (224, 224, 3), 4, 4, 32),
    ],
)
def test_images_in_step_share_a_pass(platform, shape, devices, images, copies):
    chips = [SimpleNamespace(platform=platform)] * devices
    assert default_images(chips, shape) == images
    assert default_batch_size((images, *shape), platform) == copies
