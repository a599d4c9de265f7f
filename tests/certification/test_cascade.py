"""The cascade: its radius is that of one classifier for all inputs, and it fails seldom enough."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import SHAPE, at_distance, linear
from scipy import special, stats

from qcrs_jax import (
    ABSTAIN,
    Cascade,
    GridGaussian,
    Uniform,
    certify,
    certify_cascade,
    conclude_cascade,
    draw_cascade,
    predict_cascade,
)
from qcrs_jax.certification import cascade as module
from qcrs_jax.errors import SettingError
from qcrs_jax.sampling.smoothing import GAUSSIAN

KEY = jax.random.key(5)


class OnALine:
    """A classifier of numbers that is constant between ends, smoothed at several sigmas; every u is known exactly."""

    def __init__(self, rng, sigmas, num_classes=3):
        self.sigmas, self.num_classes = np.asarray(sigmas), num_classes
        self.ends = [np.sort(rng.normal(0, 1.5, 6)) for _ in sigmas]
        self.classes = [rng.integers(0, num_classes, 7) for _ in sigmas]

    def shares(self, x):
        """The probability of each class at each stage, (*x, stages, num_classes)."""
        found = np.zeros((*np.shape(x), len(self.sigmas), self.num_classes))
        for stage, (sigma, ends, classes) in enumerate(zip(self.sigmas, self.ends, self.classes)):
            below = special.ndtr((np.append(ends, np.inf) - np.asarray(x)[..., None]) / sigma)
            parts = np.diff(below, axis=-1, prepend=0)
            for c in range(self.num_classes):
                found[..., stage, c] = parts[..., classes == c].sum(axis=-1)
        return found

    def answers(self, x, tau):
        """The cascade's answer at x; ABSTAIN after the last stage."""
        passes = self.sigmas[:, None] * special.ndtri(self.shares(x)) > np.asarray(tau)[:, None]
        answers = np.where(passes.any(axis=-1), passes.argmax(axis=-1), ABSTAIN)
        first = passes.any(axis=-1).argmax(axis=-1)
        return np.take_along_axis(answers, first[..., None], axis=-1)[..., 0]


def nearly_exact(line, x, cascade):
    """The certificate of counts that have the shares themselves, of so many samples that the bounds are them."""
    n = 2**30
    shares = line.shares(x)
    counts = np.floor(shares * n).astype(np.int64)
    counts[..., 0] += n - counts.sum(axis=-1)
    counts0 = np.round(shares * 1000).astype(np.int64)
    counts0[..., 0] += 1000 - counts0.sum(axis=-1)
    return cascade.certificate(np.maximum(counts0, 0), counts, 1000, n, 0.01)


SIGMAS = (1.0, 0.5, 0.25)


@pytest.mark.parametrize("tau", [(0.0, 0.0, 0.0), (0.3, 0.1, 0.0)], ids=["majority", "thresholds"])
def test_within_the_radius_no_input_has_another_answer(tau):
    rng, cascade = np.random.default_rng(0), Cascade(SIGMAS, tau)
    frozen_fails = certified = sharp = 0
    steps = np.concatenate([-np.geomspace(1e-3, 6, 800)[::-1], [0], np.geomspace(1e-3, 6, 800)])
    for _ in range(120):
        line, x = OnALine(rng, SIGMAS), rng.normal(0, 1)
        answers = line.answers(x + steps, tau)
        answer = answers[len(steps) // 2]
        changed = np.abs(steps[answers != answer]).min(initial=np.inf)
        made = nearly_exact(line, x, cascade)
        if made.prediction != ABSTAIN:
            assert made.prediction == answer and made.radius <= changed
            certified += 1
            sharp += made.radius > 0.9 * changed
        # The largest radius at a sigma of its own, taken for one classifier's, does not pass this test.
        u = (np.array(SIGMAS)[:, None] * special.ndtri(line.shares(x))).max()
        frozen_fails += u > changed
    assert certified > 40 and sharp > 5 and frozen_fails > 15


def test_no_move_of_the_limits_within_the_radius_changes_the_decision():
    """The proof needs no more than that each u moves by at most the distance. At the radius itself one corner does."""
    rng, beyond = np.random.default_rng(1), 0
    for _ in range(300):
        stages, classes = rng.integers(1, 5), rng.integers(2, 5)
        u, tau = rng.normal(0, 1, (stages, classes)), rng.uniform(0, 0.3, stages)
        for row in u:  # at most one class has a majority
            top = row.argmax()
            row[np.arange(classes) != top] = -np.abs(row[np.arange(classes) != top])
        radius, answer = radius_by_definition(u, tau)
        if radius <= 0:
            continue
        moves = radius * rng.uniform(-1, 1, (200, stages, classes)) * (1 - 1e-9)
        assert all(decided(u + move, tau, answer) == answer for move in moves)
        worst = np.where(np.arange(classes) == answer, -1, 1) * radius * (1 + 1e-6)
        beyond += decided(u + worst, tau, answer) != answer
    assert beyond > 20


def radius_by_definition(u, tau):
    """The largest R_c over the classes, and its class, term by term."""
    found = []
    for c in range(u.shape[1]):
        of_stages = [
            min([u[d, c] - tau[d], *(tau[k] - u[k, y] for k in range(d) for y in range(u.shape[1]) if y != c)])
            for d in range(len(u))
        ]
        found.append((max(of_stages), c))
    return max(found)


def decided(u, tau, answer):
    """The cascade's answer. Of shares only one class can pass; of moved limits it is `answer`, if that passes."""
    for row, threshold in zip(u, tau):
        if (row > threshold).any():
            return answer if row[answer] > threshold else row.argmax()
    return ABSTAIN


def true_limit(shares, sigmas, tau, c):
    """R_c for the shares themselves."""
    u = np.asarray(sigmas)[:, None] * special.ndtri(shares)
    return max(
        min([u[d, c] - tau[d], *(tau[k] - np.delete(u[k], c).max() for k in range(d))]) for d in range(len(sigmas))
    )


def outcomes(n, num_classes):
    """All counts of n samples in num_classes classes."""
    bars = itertools.combinations(range(n + num_classes - 1), num_classes - 1)
    return np.array([np.diff((-1, *bar, n + num_classes - 1)) - 1 for bar in bars])


@pytest.mark.slow
@pytest.mark.parametrize(
    "shares",
    [
        [(0.5, 0.3, 0.2), (0.9, 0.06, 0.04)],  # one half at the first stage
        [(0.45, 0.48, 0.07), (0.8, 0.1, 0.1)],  # a rival that is ahead there
        [(0.4, 0.3, 0.3), (0.6, 0.4, 0.0)],
        [(0.7, 0.2, 0.1), (0.7, 0.3, 0.0)],
    ],
)
def test_it_fails_with_probability_at_most_alpha_summed_over_all_counts(shares):
    n0, n, alpha, cascade = 30, 16, 0.1, Cascade((1.0, 0.5))
    each = outcomes(n, 3)
    weights = [stats.multinomial.pmf(each, n, np.array(p)) for p in shares]
    counts = np.stack([np.repeat(each, len(each), axis=0), np.tile(each, (len(each), 1))], axis=1)
    weights = np.repeat(weights[0], len(each)) * np.tile(weights[1], len(each))
    rng, lasts, certified = np.random.default_rng(0), set(), 0.0
    for _ in range(8):
        counts0 = np.stack([rng.multinomial(n0, p) for p in shares])
        last, _ = module.last_stage(np, counts0, *module._tables(cascade, n0, n, alpha, GAUSSIAN))
        lasts.add(int(last))
        drawn = np.where(np.arange(2)[:, None] <= last, counts, 0)
        made = cascade.certificate(np.broadcast_to(counts0, counts.shape), drawn, n0, n, alpha)
        limits = np.array([true_limit(np.array(shares), cascade.sigmas, cascade.tau, c) for c in range(3)])
        too_large = (made.prediction != ABSTAIN) & (made.radius > limits[made.prediction] + 1e-12)
        assert weights[too_large].sum() <= alpha
        certified += weights[made.prediction != ABSTAIN].sum()
    assert lasts == {0, 1} and certified > 0.01


@pytest.mark.parametrize("shared", [False, True], ids=["noise of its own", "the same noise at every stage"])
def test_it_fails_seldom_with_shared_and_with_separate_noise(shared):
    rng, alpha, n, trials = np.random.default_rng(3), 0.05, 1500, 1000
    cascade = Cascade((1.0, 0.7, 0.5))
    shares = np.array([(0.5, 0.42, 0.04, 0.04), (0.62, 0.3, 0.04, 0.04), (0.8, 0.1, 0.05, 0.05)])
    u = rng.uniform(size=(trials, 1 if shared else 3, n))
    classes = (u[..., None] > np.cumsum(shares, axis=-1)[None, :, None, :]).sum(axis=-1)
    counts = np.stack([(classes == c).sum(axis=-1) for c in range(4)], axis=-1)
    counts0 = np.stack([rng.multinomial(100, p, size=trials) for p in shares], axis=1)
    made = cascade.certificate(counts0, counts, 100, n, alpha)
    limits = np.array([true_limit(shares, cascade.sigmas, cascade.tau, c) for c in range(4)])
    failed = ((made.prediction != ABSTAIN) & (made.radius > limits[made.prediction])).mean()
    assert failed <= alpha + 3 * np.sqrt(alpha / trials)
    assert (made.prediction != ABSTAIN).mean() > 0.5


@pytest.mark.slow
def test_one_stage_is_cohens_certificate_bit_for_bit():
    w = jax.random.normal(jax.random.key(3), (12, 4))
    classify = lambda x: x.reshape(len(x), -1) @ w  # noqa: E731
    images = jax.random.uniform(jax.random.key(1), (5, 2, 2, 3))
    one = certify_cascade(classify, images, Cascade((0.5,)), key=KEY, n=2000)
    cohen = certify(classify, images, 0.5, key=KEY, n=2000)
    for name in ("prediction", "radius", "pa_lower", "sigma", "counts", "counts0", "n"):
        np.testing.assert_array_equal(getattr(one, name), getattr(cohen, name))
        assert getattr(one, name).dtype == getattr(cohen, name).dtype
    assert set(one.stage) <= {0, -1}


@pytest.mark.slow_for("grid")
@pytest.mark.parametrize("noise", [GAUSSIAN, GridGaussian(), Uniform()], ids=["gaussian", "grid", "uniform"])
def test_it_is_below_the_distance_of_a_linear_classifier_and_near_it(noise):
    image = np.round(at_distance(0.3) * 255) / 255
    made = certify_cascade(linear, image, Cascade((0.5, 0.25)), key=KEY, n=20_000, noise=noise)
    assert made.prediction != ABSTAIN and made.radius > 0
    if noise.norm == "L2":
        assert 0.8 * 0.3 < made.radius < 0.31


def by_mean(images):
    """Three classes by the mean of an image: the middle one lies between two others."""
    mean = images.mean(axis=(1, 2, 3))
    return jnp.stack([-jnp.abs(mean - centre) for centre in (0.4, 0.5, 0.6)], axis=-1)


def test_a_later_stage_certifies_where_the_first_has_no_majority():
    image = np.full(SHAPE, 0.5, np.float32)
    spread = 0.06 * np.sqrt(np.prod(SHAPE))  # at which the middle class has few copies, and no other has more than half
    cascade = Cascade((3 * spread, 0.5 * spread))
    made = certify_cascade(by_mean, image, cascade, key=KEY, n=5000)
    assert made.prediction == 1 and made.stage == 1 and made.sigma == np.float32(cascade.sigmas[1])
    assert made.n == 5000 and made.stages.n.tolist() == [5000, 5000]
    first = certify(by_mean, image, cascade.sigmas[0], key=KEY, n=5000)
    assert first.prediction == ABSTAIN
    # The bound of the first stage limits the radius: its largest other class must not have a majority.
    others = np.delete(made.stages.counts[0], 1).max()
    assert made.radius <= cascade.sigmas[0] * special.ndtri(1 - others / 5000)


def test_stages_that_promise_nothing_are_not_sampled():
    made = certify_cascade(linear, at_distance(0.3), Cascade(SIGMAS), key=KEY, n=3000)
    assert made.stage == 0 and made.stages.n.tolist() == [3000, 0, 0] and not made.stages.counts[1:].any()
    # All of alpha is then the first stage's: the radius is Cohen's there.
    assert made.radius == certify(linear, at_distance(0.3), 1.0, key=KEY, n=3000).radius


def test_the_plan_is_the_same_on_the_device_and_on_the_host():
    rng, cascade = np.random.default_rng(4), Cascade(SIGMAS, (0.1, 0.0, 0.05))
    counts0 = rng.multinomial(50, rng.dirichlet(np.full(6, 0.4), size=(400, 3)))
    tables = module._tables(cascade, 50, 1000, 0.001, GAUSSIAN)
    host = module.last_stage(np, counts0, *tables)
    device = jax.jit(lambda counts0: module.last_stage(jnp, counts0, *tables))(counts0)
    np.testing.assert_array_equal(host[0], device[0])
    np.testing.assert_array_equal(host[1], device[1])
    assert set(host[0]) == {0, 1, 2}


def test_copies_without_a_class_count_against_the_certificate():
    cascade, counts0 = Cascade((1.0, 0.5)), np.array([[45, 35, 20], [95, 3, 2]])
    counts = np.array([[450, 350, 200], [950, 30, 20]])
    whole = cascade.certificate(counts0, counts, 100, 1000, 0.001)
    first = cascade.certificate(counts0, counts - [[0, 50, 50], [0, 0, 0]], 100, 1000, 0.001)
    second = cascade.certificate(counts0, counts - [[0, 0, 0], [0, 30, 20]], 100, 1000, 0.001)
    assert whole.stage == 1 and first.radius <= whole.radius and second.radius <= whole.radius
    spoilt = cascade.certificate(counts0, counts - [[0, 350, 200], [0, 0, 0]], 100, 1000, 0.001)
    assert spoilt.prediction == ABSTAIN  # all 550 may belong to one other class


def test_two_classes_and_a_thousand():
    for classes in (2, 1000):
        counts0 = np.zeros((2, classes), int)
        counts0[0, :2], counts0[1, :2] = (49, 51), (98, 2)
        counts = 100 * counts0
        counts[0, :2] = 5200, 4800
        made = Cascade((1.0, 0.5)).certificate(counts0, counts, 100, 10_000, 0.001)
        assert made.prediction in (0, ABSTAIN) and np.isfinite(made.radius)
        if made.prediction == 0:
            assert made.radius <= special.ndtri(0.52) + 1e-9


def test_each_stage_may_have_a_network_of_its_own():
    other = lambda images: -linear(images)  # noqa: E731
    made = certify_cascade([linear, linear], at_distance(0.3), Cascade((0.5, 0.25)), key=KEY, n=500)
    same = certify_cascade(linear, at_distance(0.3), Cascade((0.5, 0.25)), key=KEY, n=500)
    np.testing.assert_array_equal(made.stages.counts0, same.stages.counts0)
    mixed = certify_cascade([linear, other], at_distance(0.3), Cascade((0.5, 0.25)), key=KEY, n=500)
    np.testing.assert_array_equal(mixed.stages.counts0[1], same.stages.counts0[1][::-1])
    with pytest.raises(SettingError, match="3 classifiers for 2 stages"):
        certify_cascade([linear] * 3, at_distance(0.3), Cascade((0.5, 0.25)), key=KEY)
    with pytest.raises(SettingError, match="must have the same"):
        certify_cascade([linear, by_mean], at_distance(0.3), Cascade((0.5, 0.25)), key=KEY)


@pytest.mark.slow
def test_counts_do_not_depend_on_the_batch_or_on_the_images_in_step():
    images = np.stack([at_distance(0.3), at_distance(0.05), np.full(SHAPE, 0.5, np.float32)])
    together = certify_cascade(by_mean, images, Cascade(SIGMAS), key=KEY, n=300, batch_size=7)
    for place, image in enumerate(images):
        alone = certify_cascade(
            by_mean, image, Cascade(SIGMAS), key=jax.random.fold_in(KEY, place), n=300, batch_size=64
        )
        np.testing.assert_array_equal(alone.stages.counts0, together.stages.counts0[place])
        np.testing.assert_array_equal(alone.stages.counts, together.stages.counts[place])
        assert alone.radius == together.radius[place]


def test_it_is_drawn_inside_jit_and_concluded_outside():
    drawn = jax.jit(lambda image: draw_cascade(linear, image, Cascade((0.5, 0.25)), key=KEY, n=400))(at_distance(0.3))
    made = conclude_cascade(drawn)
    assert made.radius == certify_cascade(linear, at_distance(0.3), Cascade((0.5, 0.25)), key=KEY, n=400).radius


def test_predictions_are_those_of_the_certificates():
    found = predict_cascade(linear, at_distance(0.3), Cascade((0.5, 0.25)), key=KEY, n=400)
    made = certify_cascade(linear, at_distance(0.3), Cascade((0.5, 0.25)), key=KEY, n=400)
    assert found.prediction == made.prediction
    np.testing.assert_array_equal(found.counts, made.stages.counts)


@pytest.mark.parametrize(
    ("sigmas", "tau", "why"),
    [
        ((), 0.0, "1 to 20"),
        ((0.25, 0.5), 0.0, "largest first"),
        ((0.5, 0.0), 0.0, "positive"),
        ((float("inf"), 0.5), 0.0, "positive"),
        ((0.5, 0.25), -0.1, "at least 0"),
        ((0.5, 0.25), (0.1, 0.1, 0.1), "one for each of the 2 stages"),
        ((0.5,), float("nan"), "at least 0"),
    ],
)
def test_impossible_cascades_are_refused(sigmas, tau, why):
    with pytest.raises(SettingError, match=why):
        Cascade(sigmas, tau)


def test_impossible_requests_are_refused():
    image = at_distance(0.3)
    with pytest.raises(SettingError, match="smallest n"):
        certify_cascade(linear, image, Cascade((0.5,)), key=KEY, n=5)
    with pytest.raises(TypeError, match="Cascade"):
        certify_cascade(linear, image, (0.5, 0.25), key=KEY)
    with pytest.raises(SettingError, match="can be drawn up to"):
        certify_cascade(linear, image, Cascade((9.0, 0.5)), key=KEY, noise=GridGaussian(), value_range=None)
