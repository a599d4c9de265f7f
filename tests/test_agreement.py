"""The comparison of two number formats, copy by copy."""

import jax
import jax.numpy as jnp
import numpy as np
from classifiers import SHAPE, by_sign
from qcrs_jax.experiments import cli, demo
from qcrs_jax.experiments.agreement import pair_of_classes, summary

from qcrs_jax import sample_counts
from qcrs_jax.bounds import certified_radius, clopper_pearson_lower

KEY = jax.random.key(3)


def shifted(images):
    """`by_sign` of slightly darker images; of the darkest it knows nothing."""
    return jnp.where((images[:, 2, 2, 2] > -0.5)[:, None], by_sign(images - 0.05), jnp.inf)


def test_pairs_are_counted_on_the_same_noise():
    image = jnp.zeros(SHAPE)
    joint, *alone = (
        np.asarray(sample_counts(f, image, 0.3, KEY, 500))
        for f in (lambda x: pair_of_classes(by_sign, shifted, x), by_sign, shifted)
    )
    joint = joint.reshape(4, 4)
    np.testing.assert_array_equal(joint.sum(0), alone[1])  # that of the darkest is no class in either
    assert np.all(joint.sum(1) <= alone[0]) and joint.sum() == alone[1].sum() < 500
    assert np.all(np.triu(joint) <= np.diag(np.diag(joint)))  # darker: no sign can become positive


def test_what_is_told_follows_from_the_pairs():
    joint = np.array([[[900, 30, 0], [20, 50, 0], [0, 0, 0]], [[0, 0, 0], [0, 400, 200], [0, 100, 300]]])
    header, cells = summary(joint, 0.5, 1000, 0.001)
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


def test_the_command_compares_a_network_with_itself_in_bfloat16(tmp_path, capsys):
    words = f"--dataset npz --data_dir {demo.IMAGES} --sigma 0.25 --skip 250 --N 300 --out {tmp_path / 'table.md'}"
    assert cli.main(["agreement", "zoo:fashion_mnist-lenet-sigma0.25", *words.split()]) == 0
    row = (tmp_path / "table.md").read_text().splitlines()[-1].split("|")
    assert row[1:4] == [" zoo:fashion_mnist-lenet-sigma0.25 ", " 2 ", " 300 "]
    assert 0 <= float(row[4].strip(" %")) < 5 and "of another class" in capsys.readouterr().out
