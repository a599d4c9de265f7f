"""Budgets of samples: their gain, that they are kept, and that the certificates under them hold."""

import itertools

import numpy as np
import pytest
from places import SHARED
from scipy import special

from qcrs_jax.analysis.outlook import Outlook, allocate, expected_radii, outlook
from qcrs_jax.bounds import clopper_pearson_lower, expected_radius
from qcrs_jax.results.records import read_run


def known(z, sigma=0.25, deviation=0.0):
    z = np.asarray(z, float)
    return Outlook(np.broadcast_to(sigma, z.shape), z, np.broadcast_to(deviation, z.shape))


def seen(rng, z, sigma=0.25, n=(100, 500)):
    """Outlooks after n samples each at `sigma`, of images of known z there."""
    rows = [outlook(sigma, [sigma] * len(n), rng.binomial(n, special.ndtr(one)), n, 0.25) for one in z]
    return Outlook(*map(np.array, zip(*rows)))


def test_expected_radii_are_means_over_the_unknown_probability():
    nodes = np.random.default_rng(0).normal(1.0, 0.5, 4000)
    mean = 0.3 * expected_radius(nodes, 1000, 0.001, 40).mean()
    assert expected_radii(known([1.0], 0.3, 0.5), [1000], 0.001)[0, 0] == pytest.approx(mean, rel=0.03)
    radii = expected_radii(known([0.0, 1.0, 3.0]), [100, 1000, 10_000], 0.001)
    assert radii.shape == (3, 3) and np.all(np.diff(radii, axis=1) >= 0)


def test_no_allocation_of_the_budget_has_a_larger_sum():
    images, mean = known([-1.0, 0.5, 1.5, 3.5]), 200
    chosen = allocate(images, mean, 0.001)
    total = lambda ns: sum(expected_radii(images, [int(n)], 0.001)[i, 0] for i, n in enumerate(ns))  # noqa: E731
    assert chosen.mean() <= mean and chosen[0] < 20  # nothing for the hopeless
    ns = [round(mean * 2 ** (i / 2)) for i in range(-8, 5)]
    table = expected_radii(images, ns, 0.001)
    best = max(
        sum(table[i, j] for i, j in enumerate(at))
        for at in itertools.product(range(len(ns)), repeat=4)
        if sum(ns[j] for j in at) <= 4 * mean
    )
    assert total(chosen) > 0.97 * best and total(chosen) > 1.02 * total([mean] * 4)


def test_alike_images_share_the_whole_budget():
    chosen = allocate(known(np.full(40, 2.0)), 1000, 0.001)
    assert 0.97 * 1000 < chosen.mean() <= 1000


def test_counts_at_other_sigmas_improve_the_outlook():
    near = outlook(0.25, [0.2, 0.25, 0.3], [500, 499, 498], [500] * 3, 0.25)
    alone = outlook(0.25, [0.25], [499], [500], 0.25)
    assert near.deviation < alone.deviation and near.mean > 2
    assert outlook(0.25, [0.001, 0.25, 40.0], [500, 250, 0], [500] * 3, 0.25).mean == pytest.approx(0, abs=0.15)


@pytest.mark.slow
def test_certificates_of_a_budget_fail_no_more_often_than_alpha():
    rng = np.random.default_rng(1)
    alpha, failures, certificates = 0.05, 0, 0
    z = np.tile([0.1, 0.4, 1.0, 2.0, 3.2], 40)
    for _ in range(5):
        ns = allocate(seen(rng, z, n=(30, 60)), 300, alpha)
        assert len(set(ns)) > 3
        bounds = clopper_pearson_lower(rng.binomial(np.tile(ns, (20, 1)), special.ndtr(z)), ns, alpha)
        failures += (bounds > special.ndtr(z)).sum()
        certificates += bounds.size
    assert failures / certificates < alpha + 3 * np.sqrt(alpha / certificates)
    assert failures > 0


@pytest.mark.parametrize(
    "log, half, third",
    [("cohen_cifar10_resnet110_sigma0.50", 0.996, 0.986), ("cohen_imagenet_resnet50_sigma0.50", 0.994, 0.974)],
)
@pytest.mark.slow
def test_published_logs_keep_nearly_all_of_their_acr_with_half_the_samples(log, half, third):
    path = SHARED / "results" / f"{log}.tsv"
    if not path.exists():
        pytest.skip("needs the published logs")
    records, n = read_run(path).records, 100_000
    z = np.array([r.radius / 0.5 for r in records])
    correct = np.array([r.correct for r in records])
    images = seen(np.random.default_rng(0), z, 0.5, n=(100,))
    acr = lambda ns: np.mean(correct * 0.5 * [expected_radius(a, int(b), 0.001, 40) for a, b in zip(z, ns)])  # noqa: E731
    whole = acr(np.full(len(z), n))
    assert acr(allocate(images, n // 2, 0.001)) > half * whole > acr(np.full(len(z), n // 2))
    assert acr(allocate(images, 3 * n // 10, 0.001)) > third * whole
    assert acr(allocate(images, n, 0.001)) > 1.004 * whole
