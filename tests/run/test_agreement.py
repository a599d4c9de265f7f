"""The comparison of two number formats, copy by copy."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import SHAPE, by_sign
from copy_pairs import KEY, pairs, shifted
from places import HELPERS

from qcrs_jax import sample_counts, sample_curve
from qcrs_jax.bounds import certified_radius, clopper_pearson_lower
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands import demo
from qcrs_jax.experiments.run import copies
from qcrs_jax.experiments.run.agreement import count_agreement, summary
from qcrs_jax.sampling.streams import CURVE


@pytest.mark.slow
def test_pairs_are_those_of_the_same_noise():
    image = jnp.zeros(SHAPE)
    (found,) = pairs(by_sign, shifted, image=image, sigma=0.3, n=500)
    assert found.shape == (500, 2)
    of_a_class = found[found[:, 0] >= 0]
    joint = np.zeros((4, 4), int)
    np.add.at(joint, tuple(of_a_class.T), 1)
    alone = [np.asarray(sample_curve(f, image, [0.3], key=KEY, n=500))[0] for f in (by_sign, shifted)]
    np.testing.assert_array_equal(joint.sum(0), alone[1])  # that of the darkest is no class in either
    assert np.all(joint.sum(1) <= alone[0]) and joint.sum() == alone[1].sum() < 500
    assert np.all(np.triu(joint) <= np.diag(np.diag(joint)))  # darker: no sign can become positive
    np.testing.assert_array_equal(found[found[:, 0] < 0], -1)
    # In the order of the samples: those of a smaller n are the first.
    stream = jax.random.fold_in(jax.random.fold_in(KEY, CURVE), 0)
    (first,) = pairs(by_sign, by_sign, image=image, sigma=0.3, n=7)
    one = sample_counts(by_sign, image, 0.3, stream, 7)
    np.testing.assert_array_equal(np.bincount(first[:, 0], minlength=4), one)


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "at_once"), [(7, 2**14), (16, 64), (3, 1)])
def test_pairs_are_the_same_whatever_the_batch(monkeypatch, batch_size, at_once):
    image = jnp.zeros(SHAPE)
    (expected,) = pairs(by_sign, shifted, image=image, sigma=0.3, n=100)
    monkeypatch.setattr(copies, "AT_ONCE", at_once)
    found = pairs(by_sign, shifted, image=image, sigma=0.3, n=100, batch_size=batch_size)
    assert (len(found) > 1) == (at_once < 100)
    np.testing.assert_array_equal(np.concatenate(found), expected)


DEVICES = """
import sys
sys.path.insert(0, sys.argv[1])
import jax, numpy as np
from classifiers import SHAPE, by_sign
from copy_pairs import pairs, shifted
one, three = (
    np.concatenate(pairs(by_sign, shifted, image=np.zeros(SHAPE), sigma=0.3, n=100, devices=devices))
    for devices in (1, 3)
)
np.testing.assert_array_equal(one, three)
print(len(jax.devices()))
"""


@pytest.mark.slow
def test_pairs_are_the_same_whatever_the_devices():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=3", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", DEVICES, str(HELPERS)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["3"]


def test_the_summary_follows_from_the_pairs():
    joint = np.array([[[900, 30, 0], [20, 50, 0], [0, 0, 0]], [[0, 0, 0], [0, 400, 200], [0, 100, 300]]])
    compared = []
    for counts in joint:
        copies_ = np.repeat(np.argwhere(counts >= 0), counts.ravel(), axis=0)
        np.random.default_rng(0).shuffle(copies_)
        compared.append(count_agreement(np.array_split(copies_, 3), 3))
    assert compared == [(930, 920, 950), (600, 500, 700)]
    header, cells = summary(np.array(compared), 0.5, 1000, 0.001)
    told = dict(zip(header, cells))
    assert (told["images"], told["copies each"]) == ("2", "1,000")
    assert (told["of another class"], told["most of an image"]) == ("17.500%", "30.00%")
    pa = clopper_pearson_lower(np.array([[930, 600], [920, 500]]), 1000, 0.001)
    radius = np.where(pa < 0.5, 0, certified_radius(pa, 0.5))
    assert radius[0].all() and not radius[1, 1]
    means, largest = [[f(gap[1] - gap[0]) for gap in (pa, radius)] for f in (np.mean, lambda gap: abs(gap).max())]
    assert cells[4:] == [
        *(text for mean, most in zip(means, largest) for text in (f"{mean:+.5f}", f"{most:.4f}")),
        f"{radius[0].mean():.4f}",
    ]


def test_copies_of_no_class_count_for_nothing():
    assert count_agreement([np.array([[-1, -1], [2, 2], [2, 1]]), np.array([[-1, -1]])], 3) == (2, 1, 1)
    assert count_agreement([np.array([[-1, -1]])], 3) == (0, 0, 0)


def test_a_thousand_classes_need_no_more_than_their_number():
    """No array of the compiled program, nor what it yields, has an axis of the pairs of classes."""
    classes = 1000
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(np.prod(SHAPE), classes)), jnp.float32)

    def network(images):
        return images.reshape(len(images), -1) @ weights

    (found,) = pairs(network, network, image=np.zeros(SHAPE), sigma=1.0, n=64)
    assert found.nbytes == 64 * 2 * 4 and len(np.unique(found[:, 0])) > 30
    assert count_agreement([found], classes)[2] == 64
    both = jax.tree_util.Partial(copies._both, copies.as_pytree(network), copies.as_pytree(network))
    places = np.arange(64, dtype=np.int32).reshape(4, 1, 16)
    jaxpr = str(
        jax.make_jaxpr(
            lambda *args: copies._draw.program(*args, batch_size=16, devices=tuple(jax.devices()[:1])),
        )(both, np.zeros(SHAPE, np.float32), (KEY,), np.float32(1), places)
    )
    assert "16,1000]" in jaxpr and str(classes**2) not in jaxpr


@pytest.mark.slow
def test_the_command_compares_a_network_with_itself_in_bfloat16(tmp_path, capsys):
    words = f"--dataset npz --data_dir {demo.IMAGES} --sigma 0.25 --skip 250 --N 300 --out {tmp_path / 'table.md'}"
    assert cli.main(["agreement", "zoo:fashion_mnist-lenet-sigma0.25", *words.split()]) == 0
    row = (tmp_path / "table.md").read_text().splitlines()[-1].split("|")
    assert row[1:4] == [" zoo:fashion_mnist-lenet-sigma0.25 ", " 2 ", " 300 "]
    assert 0 <= float(row[4].strip(" %")) < 5 and "of another class" in capsys.readouterr().out
