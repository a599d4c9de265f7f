"""Bounds over all classes: what they certify, that they fail seldom enough, and that searches aim at them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import SHAPE, at_distance, by_sign, linear
from scipy import special, stats

from qcrs_jax import ABSTAIN, Bayesian, Fixed, Gaussian, GoldenSection, Tolerance, Uniform, certify
from qcrs_jax.certification import classes
from qcrs_jax.certification.classes import certificate_over_classes, numbers_alone, ranks
from qcrs_jax.certification.proportions import BOUNDS
from qcrs_jax.sampling.smoothing import GAUSSIAN, GridGaussian
from qcrs_jax.search import Aim
from qcrs_jax.search.aim import largest_rival

KEY = jax.random.key(5)


def outcomes(n, num_classes):
    """All counts of n samples in num_classes classes."""
    bars = itertools.combinations(range(n + num_classes - 1), num_classes - 1)
    return np.array([np.diff((-1, *bar, n + num_classes - 1)) - 1 for bar in bars])


def true_radius(p, selected, noise):
    """The radius at sigma = 1 that shares p give the selected class; not above 0 where it is not the largest."""
    return (noise.unit_radius(p[selected]) - noise.unit_radius(np.delete(p, selected).max())) / 2


@pytest.mark.slow
@pytest.mark.parametrize("noise", [GAUSSIAN, Uniform()], ids=["gaussian", "uniform"])
@pytest.mark.parametrize(
    "p",
    [
        (0.5, 0.3, 0.2),
        (0.502, 0.249, 0.249),  # runners-up that are level
        (0.4, 0.3, 0.3),  # below one half
        (0.9, 0.06, 0.04),
        (0.34, 0.33, 0.33),
        (0.45, 0.44, 0.11),
        (0.7, 0.3, 0.0),
    ],
)
def test_it_fails_with_probability_at_most_alpha_summed_over_all_counts(p, noise):
    n0, n, alpha, p = 12, 90, 0.05, np.array(p)
    selections, counts = outcomes(n0, 3), outcomes(n, 3)
    weights = stats.multinomial.pmf(counts, n, p)
    over_classes = 0
    for counts0 in selections:
        made = certificate_over_classes(np.broadcast_to(counts0, counts.shape), counts, 1.0, n, alpha, noise)
        selected = counts0.argmax()
        too_large = (made.prediction != ABSTAIN) & (made.radius > max(true_radius(p, selected, noise), 0) + 1e-12)
        assert weights[too_large].sum() <= alpha
        over_classes += (made.pa_lower + made.pb_upper < 1 - 1e-9).any()
        # The choice follows from the selection samples: alpha is that of one bound of the two, not of the better one.
        assert len(np.unique(made.pa_lower[counts[:, selected] == n // 2])) == 1
    assert 0 < over_classes < len(selections)


@pytest.mark.slow_for("4", "1000")
@pytest.mark.parametrize("num_classes", [4, 10, 1000])
def test_the_bounds_that_share_alpha_fail_with_at_most_alpha_in_all(num_classes):
    """Summed exactly for each bound, over selections that are drawn. Shares that fall off slowly; some are level."""
    rng, n, alpha = np.random.default_rng(num_classes), 3000, 0.05
    rest = 1 / np.arange(2, num_classes + 1) ** 0.8
    rest[1] = rest[0]
    numbers = set()
    for top in (0.3, 0.5, 0.8):
        p = np.append(top, (1 - top) * rest / rest.sum())
        for counts0 in rng.multinomial(100, p, size=20):
            # What is certified where the counts are those that the shares give.
            counts = np.round(n * p).astype(int)
            counts[0] += n - counts.sum()
            bounds = classes._Exact(n, alpha, GAUSSIAN, numbers_alone(num_classes))
            choice = classes.best_choice(np, counts0, bounds)
            numbers.add(int(choice))
            if choice == 0:
                continue
            alone = ranks(np, counts0) < classes.ALONE[choice - 1]
            shares = [*p[alone], p[~alone].sum() - p[counts0.argmax()]]
            k = np.arange(n + 1)
            fails = [stats.binom.pmf(k[bounds.half(k).lower > p[counts0.argmax()]], n, p[counts0.argmax()]).sum()]
            lower = bounds.outside(k, np.full(n + 1, choice - 1)).lower
            fails += [stats.binom.pmf(k[lower > 1 - share], n, 1 - share).sum() for share in shares]
            assert len(shares) == classes.ALONE[choice - 1] + 1 and sum(shares) + p[counts0.argmax()] == pytest.approx(
                1
            )
            assert 0.3 * alpha < sum(fails) <= alpha
    assert len(numbers) > 1


def test_with_two_classes_it_is_clopper_and_pearson_s_bound():
    counts = np.stack([np.arange(501), 500 - np.arange(501)], axis=-1)
    counts0 = np.broadcast_to([70, 30], counts.shape)
    exact = BOUNDS["clopper-pearson"].certificate(counts0, counts, 0.5, 500, 0.001, GAUSSIAN)
    ours = BOUNDS["classes"].certificate(counts0, counts, 0.5, 500, 0.001, GAUSSIAN)
    for name in ("prediction", "radius", "pa_lower", "n"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(exact, name))
    np.testing.assert_array_equal(ours.pb_upper, 1 - exact.pa_lower)


def test_the_radius_is_that_of_the_formula():
    counts0, counts = np.array([5, 45, 20, 16, 14]), np.array([300, 4400, 1800, 1900, 1600])
    made = certificate_over_classes(counts0, counts, 0.5, 10_000, 0.001, GAUSSIAN)
    # Two or more alone: of 10 000 samples 4 400 are in class 1, and the largest rival has 1 900.
    alone = ranks(np, counts0) < 2
    assert alone.tolist() == [False, False, True, True, False]
    lower = special.betaincinv(4400, 5601, 0.0005)
    upper = special.betaincinv(1901, 8100, 1 - 0.0005 / 3)  # 300 and 1 600 in the bucket of the rest: 1 900 as well
    assert made.pa_lower == pytest.approx(lower) and made.pb_upper == pytest.approx(upper)
    assert made.radius == pytest.approx(0.25 * (special.ndtri(lower) - special.ndtri(upper)))
    assert made.prediction == 1 and made.pa_lower < 0.5


def test_samples_in_no_class_count_for_every_rival():
    counts0, counts = np.array([60, 14, 13, 13]), np.array([5000, 1600, 1500, 1400])
    whole = certificate_over_classes(counts0, counts + [0, 500, 0, 0], 1.0, 10_000, 0.001, GAUSSIAN)
    spoilt = certificate_over_classes(counts0, counts, 1.0, 10_000, 0.001, GAUSSIAN)
    assert spoilt.pb_upper >= whole.pb_upper and 0 < spoilt.radius <= whole.radius
    in_each = [
        certificate_over_classes(counts0, counts + 500 * np.eye(4, dtype=int)[c], 1.0, 10_000, 0.001, GAUSSIAN).radius
        for c in (1, 2, 3)
    ]
    assert spoilt.radius <= min(in_each)


def test_what_the_noise_loses_is_taken_off_both_bounds():
    counts0, counts = np.array([60, 20, 20]), np.array([6000, 2000, 2000])
    exact, grid = (
        certificate_over_classes(counts0, counts, 0.5, 10_000, 0.001, n) for n in (Gaussian(), GridGaussian())
    )
    lost = GridGaussian().lost
    assert grid.pa_lower == exact.pa_lower - lost and grid.pb_upper == pytest.approx(exact.pb_upper + lost, abs=1e-15)
    assert grid.radius < exact.radius


@pytest.mark.slow_for("40")
@pytest.mark.parametrize("num_classes", [2, 3, 10, 40])
def test_inside_jit_it_never_overstates(num_classes):
    rng, n = np.random.default_rng(0), 1000
    p = rng.dirichlet(np.full(num_classes, 0.4), size=300)
    counts0, counts = rng.multinomial(100, p), rng.multinomial(n, p)
    counts[:2] = n * np.eye(num_classes, dtype=int)[counts0[:2].argmax(axis=-1)]  # all agree
    counts[2] = np.roll(counts[0], 1)  # none does
    sigma = rng.uniform(0.1, 1, 300).astype(np.float32)
    host = certificate_over_classes(counts0, counts, sigma, n, 0.001, GAUSSIAN)
    inside = jax.jit(lambda *a: certificate_over_classes(*a, n, 0.001, GAUSSIAN)[:3])(counts0, counts, sigma)
    prediction, radius, pa_lower = (np.asarray(a, float) for a in inside)
    assert (radius <= host.radius).all() and (pa_lower <= host.pa_lower).all()
    np.testing.assert_allclose(radius, host.radius, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(prediction, host.prediction)


@pytest.mark.slow
def test_inside_jit_a_sum_of_opposite_signs_is_rounded_down_too():
    rest = [51139, 2146, *[1459] * 31, *[8] * 166]
    counts = np.array([*rest, 100_000 - sum(rest)])
    counts0 = np.round(counts / 100).astype(int)
    counts0[0] += 2
    sigma = np.float32(0.9985636)
    host = certificate_over_classes(counts0, counts, sigma, 100_000, 0.001, GAUSSIAN)
    inside = jax.jit(lambda *a: certificate_over_classes(*a, 100_000, 0.001, GAUSSIAN).radius)(counts0, counts, sigma)
    assert host.radius * (1 - 1e-6) < float(inside) <= host.radius


@pytest.mark.parametrize("sigma", [np.nan, np.inf, -np.inf, -1.0, 0.0])
def test_inside_jit_nothing_is_certified_at_a_sigma_that_is_none(sigma):
    for counts in ([50, 30, 20], [40, 40, 20]):
        made = jax.jit(lambda *a: certificate_over_classes(*a, 100, 0.001, GAUSSIAN)[:2])
        prediction, radius = made(np.array([60, 25, 15]), np.array(counts), np.float32(sigma))
        assert not np.isnan(radius) and (prediction == ABSTAIN) == (radius == 0)


def corner(x, y):
    """An image with these values of the two pixels whose signs decide, and 0 elsewhere."""
    return jnp.zeros(SHAPE).at[0, 0, 0].set(x).at[1, 1, 1].set(y)


def test_it_holds_and_certifies_below_one_half():
    """Four quadrants: each class has a product of two normal probabilities, and changes at the nearer axis."""
    arguments = {"key": KEY, "n0": 200, "n": 5000, "value_range": None}
    for x, y in ((0.1, 0.1), (0.2, 0.4), (0.15, 0.05)):
        usual, ours = (
            certify(by_sign, corner(x, y), 0.25, **arguments, estimate=Fixed(bound))
            for bound in ("clopper-pearson", "classes")
        )
        np.testing.assert_array_equal(ours.counts, usual.counts)  # the same samples
        assert usual.radius <= ours.radius <= min(x, y) and ours.radius > 0
    assert usual.prediction == ABSTAIN and ours.pa_lower < 0.5 and ours.prediction == 3


@pytest.mark.slow
def test_it_goes_with_jit_with_several_images_and_with_a_tolerance():
    images, estimate = jnp.stack([corner(0.1, 0.1), corner(0.2, 0.3)]), Fixed("classes")
    arguments = {"key": KEY, "n0": 100, "n": 2000, "value_range": None}
    host = certify(by_sign, images, 0.25, **arguments, estimate=estimate)
    inside = jax.jit(lambda images: certify(by_sign, images, 0.25, **arguments, estimate=estimate))(images)
    np.testing.assert_allclose(inside.radius, host.radius, rtol=1e-5)
    np.testing.assert_allclose(inside.pb_upper, host.pb_upper, rtol=1e-5)
    fewer = certify(by_sign, images, 0.25, **arguments, estimate=Tolerance(0.1, bound="classes"))
    assert (fewer.n <= 2000).all() and fewer.pb_upper.shape == (2,)
    alone = certify(linear, at_distance(0.3), 0.25, key=KEY, n=500, estimate=estimate)
    assert alone.radius == certify(linear, at_distance(0.3), 0.25, key=KEY, n=500).radius


def test_a_search_compares_what_will_be_certified():
    counts = jnp.array([400, 60, 30, 10])
    assert largest_rival(counts, 0) == 60 and largest_rival(counts, 1) == 400
    plain, aimed = (Aim(10_000, 0.001, buckets=buckets).predictive(500) for buckets in (None, 4))
    np.testing.assert_array_equal(plain.alone, aimed.alone)
    assert aimed.of_counts(counts, 0) > plain.of_counts(counts, 0)
    # Near the bound itself at counts of 10 000 in these shares: 500 samples leave a standard deviation of .03 in z.
    made = certificate_over_classes(
        np.array([80, 12, 6, 2]), np.array([8000, 1200, 600, 200]), 1, 10_000, 0.001, GAUSSIAN
    )
    assert float(aimed.of_counts(counts, 0)) == pytest.approx(made.radius, abs=0.02)
    two = jnp.array([400, 100, 0, 0])  # one rival alone: nothing to gain
    assert float(aimed.of_counts(two, 0)) == pytest.approx(float(plain.of_counts(two, 0)), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("search", [GoldenSection(0.1, 2.0), Bayesian(0.1, 2.0)], ids=["golden", "bayesian"])
def test_sigma_is_larger_where_the_mistakes_are_spread(search):
    """In a corner between four quadrants a larger sigma pays, as three rivals share what the class loses."""
    arguments = {"key": KEY, "n": 10_000, "value_range": None, "search": search}
    usual, ours = (
        certify(by_sign, corner(0.5, 0.5), 0.3, **arguments, estimate=Fixed(bound))
        for bound in ("clopper-pearson", "classes")
    )
    assert ours.sigma > usual.sigma and usual.radius < ours.radius < 0.5
