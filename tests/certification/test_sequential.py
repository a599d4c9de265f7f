"""Sequential estimation: exact errors by dynamic programming, and certificates that stop when they know."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import at_distance, linear
from scipy import special, stats

from qcrs_jax import Fixed, GoldenSection, Sequential, Soft, Tolerance, certify, sample_counts
from qcrs_jax.bounds import certified_radius, clopper_pearson_lower, randomised_lower
from qcrs_jax.certification.certificate import check_request
from qcrs_jax.certification.estimates import estimate_of
from qcrs_jax.certification.proportions import BOUNDS
from qcrs_jax.certification.sequential import MARGIN, SEQUENCES, betting_lower, outcome, tables, walk
from qcrs_jax.certification.verdict import make_certificate
from qcrs_jax.sampling.streams import ESTIMATION, UNIFORM

KEY = jax.random.key(5)
N, ALPHA = 2000, 0.01


def exact_error(sequential, p, side):
    """The probability that some bound of the sequence, at any look, lies beyond p; every count at every look exact."""
    looks = sequential.looks(N)
    bound = {"lower": sequential.lower, "upper": sequential.upper}[side]
    beyond = {"lower": np.greater, "upper": np.less}[side]

    def fails(look, counts):
        return beyond(bound(look, counts, N, ALPHA), p)

    ended = walk(looks, fails, p)
    return sum(float(chances[fails(look, np.arange(chances.size))].sum()) for look, chances in enumerate(ended))


@pytest.mark.slow_for("0.5", "0.9", "0.977", "0.999", "0.3-betting", "0.8413-betting")
@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("p", [0.3, 0.5, 0.8413, 0.9, 0.977, 0.999])
def test_all_bounds_of_a_sequence_hold_at_once_with_its_probability(sequence, p):
    sequential = Sequential(decide=1.0, sequence=sequence, alpha_upper=0.03, look_every=10)
    assert exact_error(sequential, p, "lower") <= ALPHA
    assert exact_error(sequential, p, "upper") <= 0.03
    if sequence == "fixed":
        k = np.arange(N + 1)
        lower = clopper_pearson_lower(k, N, ALPHA)
        assert exact_error(sequential, p, "lower") == pytest.approx(
            stats.binom.pmf(k, N, p)[lower > p].sum(), abs=1e-14
        )


def test_the_walk_is_the_one_of_every_path():
    looks, p = (2, 3, 6), 0.7
    stops = lambda look, k: [(k == 2), (k == 0) | (k == 2), None][look] if look < 2 else k < 0  # noqa: E731
    expected = [np.zeros(n + 1) for n in looks]
    for path in np.ndindex((2,) * 6):
        for look, n in enumerate(looks):
            k = sum(path[:n])
            if look == 2 or stops(look, np.array([k]))[0]:
                expected[look][k] += p ** sum(path) * (1 - p) ** (6 - sum(path))
                break
    for ended, known in zip(walk(looks, stops, p), expected):
        np.testing.assert_allclose(ended, known, atol=1e-15)


def test_the_wealth_of_the_gambler_is_the_mean_likelihood_ratio():
    thetas = special.betaincinv(0.5, 0.5, (np.arange(200_000) + 0.5) / 200_000)
    for k, n in [(1, 1), (7, 9), (60, 60), (55, 60), (3, 60)]:
        bound = betting_lower(k, n, ALPHA)
        above = thetas[thetas > bound]
        wealth = np.mean((above / bound) ** k * ((1 - above) / (1 - bound)) ** (n - k))
        assert wealth == pytest.approx(1 / ALPHA, rel=1e-3), (k, n)
    assert betting_lower(0, 10, ALPHA) == 0
    assert np.all(np.diff(betting_lower(np.arange(501), 500, ALPHA)) > 0)


@pytest.mark.slow_for("betting")
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_claims_are_wrong_with_at_most_their_probabilities_and_sampling_stops_early(sequence):
    """`outcome` walks through the very tables that the compiled program looks up."""
    n, alpha, beta, r = 20_000, 0.01, 0.02, 1.0
    sequential = Sequential(decide=r, sequence=sequence, alpha_upper=beta)
    for z in (-0.5, 0.5, 0.9, 0.98, 1.0, 1.02, 1.1, 1.5, 3.0):
        p = float(special.ndtr(z))
        result = outcome(sequential, n, alpha, p)
        assert result.exceeds <= alpha
        assert result.robust <= alpha if z <= r else result.not_robust <= beta
        assert result.samples <= n + 1e-6
        if abs(z - r) > 0.3:
            assert result.robust + result.not_robust > 0.999999
            assert sequence == "fixed" or result.samples < n / 20


def test_the_radius_is_known_as_precisely_as_was_asked():
    sequential, n = Sequential(precision=0.1), 100_000
    for z in (0.6, 1.0, 2.0, 2.9):
        result = outcome(sequential, n, 0.001, float(special.ndtr(z)))
        assert result.samples < 0.7 * n and result.radius > 0.93 * z and result.exceeds <= 0.001
    most = certified_radius(clopper_pearson_lower(n, n, 0.001), 1.0)
    assert outcome(sequential, n, 0.001, 1 - 1e-7).radius > 0.98 * most  # what needs all samples loses little
    assert outcome(sequential, n, 0.001, 0.3).samples < 200


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_tables_are_the_bounds_on_the_safe_side(sequence):
    sequential, n = Sequential(precision=0.05, sequence=sequence), 3000
    looks = tables(sequential, n, ALPHA)
    for look, (m, start, offset) in enumerate(zip(looks.n, looks.start, looks.offset)):
        k = np.arange(start, m + 1)
        lower = special.ndtri(sequential.lower(look, k, n, ALPHA)) - looks.lower[offset:][: len(k)]
        assert np.all((lower > 0) & (lower < 2 * MARGIN))
        upper = looks.upper[offset:][: len(k) - 1] - special.ndtri(sequential.upper(look, k[:-1], n, ALPHA))
        assert np.all((upper > 0) & (upper < 2 * MARGIN)) and looks.upper[offset + len(k) - 1] == np.inf
        assert np.all(sequential.upper(look, np.arange(start), n, ALPHA) <= 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "settings"),
    [
        (None, {"decide": 0.3}),
        (None, {"precision": 0.2}),
        (GoldenSection(0.1, 0.5, search_n=200), {"decide": 0.3, "look_every": 200}),
    ],
)
def test_certify_stops_when_it_knows(search, settings):
    sequential = Sequential(**settings)
    distances = [-0.2, 0.05, 0.25, 0.29, 0.3, 0.31, 0.4, 0.8]
    images = jnp.stack([at_distance(d) for d in distances])
    arguments = dict(key=KEY, n=20_000, alpha=0.01, search=search)
    several = certify(linear, images, 0.25, estimate=sequential, **arguments, batch_size=64)
    devices = jax.devices()[:2]
    for i, image in enumerate(images[:2]):  # whatever the batch size and the devices
        alone = {**arguments, "key": jax.random.fold_in(KEY, i), "batch_size": 17, "devices": devices}
        one = certify(linear, image, 0.25, estimate=sequential, **alone)
        np.testing.assert_array_equal(one.counts, several.counts[i])
        assert one.n == several.n[i] and one.radius == several.radius[i]
    looks, selected = sequential.looks(20_000), several.counts0.argmax(axis=-1)
    assert set(several.n) <= set(looks) and np.array_equal(several.counts.sum(axis=-1), several.n)
    assert np.all(several.radius <= np.abs(distances)) and np.all(several.radius_upper >= np.abs(distances))
    full = certify(linear, images, 0.25, **arguments)  # the same noise, and more of it
    assert np.all(several.counts <= full.counts) and np.median(several.n) < 10_000
    stream = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, 2), ESTIMATION), 0)
    again = sample_counts(linear, images[2], several.sigma[2], stream, several.n[2])
    np.testing.assert_array_equal(several.counts[2], again)
    successes = several.counts[np.arange(len(images)), selected]
    for k, n, radius, upper, sigma in zip(
        successes, several.n, several.radius, several.radius_upper, several.sigma.astype(float)
    ):
        look = looks.index(n)
        assert radius == certified_radius(sequential.lower(look, k, 20_000, 0.01), sigma)
        if n < 20_000 and sequential.precision:
            assert radius >= 0.8 * upper
    if sequential.decide:
        stopped = several.n < 20_000
        np.testing.assert_array_equal(several.robust[stopped] == 1, np.abs(distances)[stopped] > 0.3)
        assert np.all(several.robust[stopped] != -1) and set(several.robust) >= {0, 1}


@pytest.mark.slow
def test_the_randomised_bound_covers_with_exactly_its_probability():
    for n, alpha in [(1, 0.05), (7, 0.2), (40, 0.05), (500, 0.001)]:
        k = np.arange(n + 1)
        for p in (0.01, 0.3, 0.77, 0.95, 0.9999):
            pmf = stats.binom.pmf(k, n, p)
            beyond = stats.binom.sf(k, n, p)
            # The bound falls in u: it is at most p from the u on at which P(K > k) + u P(K = k) = alpha.
            threshold = np.clip((alpha - beyond) / np.maximum(pmf, 1e-300), 0, 1)
            inside = (threshold > 1e-9) & (threshold < 1 - 1e-9)
            for u, holds in ((threshold - 1e-9, False), (threshold + 1e-9, True)):
                at = randomised_lower(k, n, alpha, np.clip(u, 0, 1))
                assert np.all(((at <= p) == holds)[inside]), (n, p)
            assert np.all(randomised_lower(k, n, alpha, 1.0)[threshold == 0] <= p)
            assert (pmf * (1 - threshold)).sum() == pytest.approx(1 - alpha, abs=1e-12)
        u = np.linspace(1e-6, 1, 50)[:, None]
        bound, plain = randomised_lower(k, n, alpha, u), clopper_pearson_lower(k, n, alpha)
        assert np.all(bound >= plain) and np.all(np.diff(bound, axis=0) <= 0)
        np.testing.assert_allclose(bound[-1], plain, rtol=1e-10)  # each is rounded down by itself
        assert np.all(bound[:, :-1] <= clopper_pearson_lower(k[1:], n, alpha) * (1 + 1e-10))


@pytest.mark.slow
def test_the_uniform_number_is_of_the_image_and_its_stream():
    images = jnp.stack([at_distance(0.3), at_distance(0.5)])
    arguments = dict(key=KEY, n=400, alpha=0.01)
    ours, plain = (
        certify(linear, images, 0.25, **arguments, estimate=Fixed(b)) for b in ("randomised", "clopper-pearson")
    )
    np.testing.assert_array_equal(ours.counts, plain.counts)
    assert plain.u is None and np.all((ours.u > 0) & (ours.u <= 1)) and ours.u[0] != ours.u[1]
    assert np.all(ours.pa_lower > plain.pa_lower)
    successes = ours.counts[:, 0]
    np.testing.assert_array_equal(ours.pa_lower, randomised_lower(successes, 400, 0.01, ours.u))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, 1), UNIFORM), 0)
    high, low = (int(word) for word in jax.random.key_data(key))
    assert ours.u[1] == ((high * 2**32 + low) // 2**11 + 1) / 2**53
    assert (
        certify(
            linear, images[0], 0.25, **{**arguments, "key": jax.random.fold_in(KEY, 0)}, estimate=Fixed("randomised")
        ).u
        == ours.u[0]
    )


def test_an_infinite_radius_is_never_certified():
    lower = functools.partial(BOUNDS["randomised"].lower, n=50, alpha=0.01, u=np.array([0.009]))
    made = make_certificate([[9, 0]], [[50, 0]], [0.25], 50, 0.01, lower)
    assert randomised_lower(50, 50, 0.01, 0.009) == 1 and made.pa_lower[0] == clopper_pearson_lower(50, 50, 0.01)


def test_impossible_sequential_estimates_are_refused():
    with pytest.raises(ValueError, match="certify at most a radius of"):
        certify(linear, at_distance(0.3), 0.25, key=KEY, n=1000, estimate=Sequential(decide=2.0))
    with pytest.raises(ValueError, match="unknown bound"):
        Fixed("wilson")


@pytest.mark.parametrize(
    "estimate", [Fixed(), Fixed("randomised"), Tolerance(0.1), Sequential(precision=0.1, look_every=20), Soft(2.0)]
)
def test_an_estimate_is_read_back_from_its_record(estimate):
    assert estimate_of(json.loads(json.dumps(estimate.recorded()))) == estimate


@pytest.mark.parametrize(
    "settings",
    [{}, {"decide": 1.0, "precision": 0.1}, {"decide": -1.0}, {"precision": 1.0}, {"decide": 1.0, "sequence": "x"}]
    + [{"decide": 1.0, "look_every": 0}, {"decide": 1.0, "alpha_upper": 0.0}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError):
        Sequential(**settings)


@pytest.mark.parametrize("estimate", [Sequential(decide=0.1), Fixed("randomised")])
def test_estimates_of_the_host_are_refused_inside_jit(estimate):
    def radius(image):
        return certify(linear, image, 0.25, key=KEY, n=100, estimate=estimate).radius

    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(radius)(at_distance(0.3))


def test_published_schemes_keep_their_errors_and_take_the_samples_that_they_draw():
    from qcrs_jax.experiments.report.sequential import published

    threshold, n, alpha = float(special.ndtr(1.0)), 10_000, 0.01
    schemes = published(threshold, n, alpha)
    for name, scheme in schemes.items():
        samples, robust, _ = scheme(threshold)
        assert robust <= alpha, name
        assert scheme(threshold + 1e-9)[2] <= alpha, name
        assert samples <= n + (1100 if "stages" in name else 0) + 1e-6, name
        assert scheme(0.99)[1] > 0.99 and scheme(0.5)[2] > 0.99, name
    assert schemes["fixed N"](0.9)[0] == pytest.approx(n)
    stages = schemes["Horvath et al., three stages"]
    p = 0.95  # the first stage, of 100, decides or not; the second, of 1000 new ones, then does for certain
    k = np.arange(101)
    undecided = (stats.binom.sf(k - 1, 100, threshold) >= alpha / 3) & (stats.binom.cdf(k, 100, threshold) >= alpha / 2)
    expected = 100 + 1000 * stats.binom.pmf(k, 100, p)[undecided].sum()
    assert stages(p)[0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_the_command_tables_the_mean_samples(tmp_path, capsys):
    from qcrs_jax.experiments import cli

    words = "sequential --decide 0.5 --precision 0.3 --N 500 --alpha 0.05 --format markdown".split()
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in text.splitlines() if line.startswith("|")}
    expected = outcome(Sequential(decide=0.5), 500, 0.05, float(special.ndtr(-0.5))).samples
    assert float(rows["ours, union"][0].replace(",", "")) == pytest.approx(expected, abs=0.5)
    assert float(rows["fixed N"][3].replace(",", "")) == 500 and "within 0.3" in rows
    assert cli.main([*words, "--decide", "3.5"]) == 2
    assert "certify at most a radius of" in capsys.readouterr().err


@pytest.mark.parametrize("alpha", [1e-12, 1e-15])
@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("n", [60, 1000])
def test_tables_of_very_small_alphas_stay_on_the_safe_side(alpha, sequence, n):
    sequential = Sequential(precision=0.1, sequence=sequence)
    looks = tables(sequential, n, alpha)
    for look, m in enumerate(looks.n.tolist()):
        k = np.arange(looks.start[look], m + 1)
        entries = looks.offset[look] + k - looks.start[look]
        assert np.all(looks.lower[entries] <= special.ndtri(sequential.lower(look, k, n, alpha)))
        assert np.all(looks.upper[entries] >= special.ndtri(sequential.upper(look, k, n, alpha)))


def test_alphas_too_small_for_the_tables_are_refused():
    for sequential, alpha in ((Sequential(decide=0.5), 1e-16), (Sequential(precision=0.1, alpha_upper=1e-300), 0.001)):
        with pytest.raises(ValueError, match="of a sequential estimation must be at least 1e-15"):
            check_request(0.25, 10, 10_000, alpha, sequential)
