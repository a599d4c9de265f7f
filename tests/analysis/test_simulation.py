"""Searches on curves without a network: known ones, and measured ones where they are at hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import searches
from classifiers import SHAPE, slab, slab_probability
from jax.tree_util import Partial
from places import SHARED
from scipy import special

from qcrs_jax import Bayesian, Cascade, Fixed, GoldenSection, certify_cascade, search_sigma
from qcrs_jax.analysis.curves import Curves, Point
from qcrs_jax.analysis.simulation import best_radius, drawn_radius, radius_at, simulate_cascade
from qcrs_jax.analysis.simulation import simulate as simulate_searches
from qcrs_jax.bounds import PROBITS, expected_radius_table
from qcrs_jax.errors import SettingError
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.run import simulate
from qcrs_jax.results.writer import Writer

SIGMAS = np.geomspace(0.06, 1.2, 40)
N = 100_000


def falling(middles, steepness=4.0):
    """Curves of two classes, the second of which takes over at `middles`."""
    p = special.ndtr(-steepness * np.log(SIGMAS / np.asarray(middles)[:, None]))
    counts = np.round(N * np.stack([p, 1 - p], axis=-1)).astype(int)
    m = len(counts)
    return Curves(np.arange(m), np.zeros(m, int), SIGMAS, int(np.argmin(abs(SIGMAS - 0.25))), counts, N, {})


def measured():
    """The curves of a Fashion-MNIST network at sigma 0.5 that lie beside the repository."""
    path = SHARED / "curves" / "fashion_mnist.npz"
    if not path.exists():
        pytest.skip("needs the measured curves")
    file = np.load(path)
    order = np.argsort(file["sig"])
    original = int(np.flatnonzero(order == len(order) - 1)[0])
    return Curves(
        file["ids"], file["label"], file["sig"][order], original, file["counts"][:, order], int(file["n"]), {}
    )


def test_the_radius_is_that_of_the_share():
    curves = falling([0.3, 0.5])
    sigma = SIGMAS[[10, 20]]
    z = special.ndtri(curves.counts[[0, 1], [10, 20], 0] / N)
    expected = sigma * np.interp(z, PROBITS, expected_radius_table(N, 0.001))
    np.testing.assert_allclose(radius_at(curves, sigma, np.zeros(2, int)), expected, rtol=1e-6)
    assert np.all(radius_at(curves, sigma, np.ones(2, int)) == 0)
    beyond = radius_at(curves, np.full(2, 100.0), np.zeros(2, int))  # no credit beyond the curve's end
    np.testing.assert_allclose(beyond, radius_at(curves, np.full(2, 1.2), np.zeros(2, int)))


def test_drawn_certificates_have_the_radius_to_be_expected():
    curves, sigma = falling([0.3, 0.5]), SIGMAS[[10, 20]]
    settings = {"n": 5000, "alpha": 0.001}
    expected = radius_at(curves, sigma, np.zeros(2, int), **settings)
    drawn = drawn_radius(curves, sigma, np.zeros(2, int), Fixed(), key=jax.random.key(0), draws=200, **settings)
    np.testing.assert_allclose(drawn, expected, rtol=0.01)
    other = drawn_radius(curves, sigma, np.ones(2, int), Fixed(), key=jax.random.key(0), **settings)
    assert np.all(other == 0)  # another class was selected
    far = [
        drawn_radius(curves, np.full(2, s), np.zeros(2, int), Fixed("classes"), key=jax.random.key(0), **settings)
        for s in (1.2, 100.0)
    ]
    np.testing.assert_array_equal(*far)  # no credit beyond the curve's end


@pytest.mark.slow
@pytest.mark.parametrize("search", ["golden", "bisection", "grid", "bayesian"])
def test_a_search_finds_the_best_sigma(search):
    curves = falling([0.3, 0.5, 0.8])
    best = best_radius(curves, 0.08, 0.9)
    settings = searches.search(search, search_n=2000)
    found = simulate_searches(curves, settings, key=jax.random.key(0), repeats=3)
    assert found.sigma.shape == found.radius.shape == (3, 3) and np.all(found.prediction == 0)
    assert np.all(found.samples <= settings.samples) and np.all(found.samples % 2000 == 0)
    assert np.all(found.radius <= best * 1.001) and found.radius.mean() > 0.9 * best.mean()


@pytest.mark.slow
def test_the_class_is_that_of_the_original_sigma():
    curves = falling([0.1])  # at 0.25 the second class is on top
    found = simulate_searches(curves, GoldenSection(0.08, 0.9), key=jax.random.key(0), repeats=2)
    assert np.all(found.prediction == 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["golden", "bisection", "bayesian"])
def test_simulated_searches_are_real_ones(name):
    # At the middle of a slab the class shares are known, and a sample changes its class at most once in sigma, as a
    # simulated one does: chosen sigmas, and so regrets, have one distribution.
    width, original, repeats = 1.2, 0.25, 300
    search = searches.search(name, 0.1, 2.0, epsilon=0.03, search_n=50, max_evaluations=8)
    sigmas = np.sort(np.append(np.geomspace(0.02, 9, 400), original))
    p = slab_probability(width, sigmas)
    counts = np.round(1e9 * np.stack([p, 1 - p], axis=-1)).astype(int)[None]
    curves = Curves(
        np.zeros(1, int), np.zeros(1, int), sigmas, int(np.argmin(abs(sigmas - original))), counts, 10**9, {}
    )
    simulated = simulate_searches(curves, search, key=jax.random.key(2), repeats=repeats)
    images = jnp.zeros((repeats, *SHAPE))
    real = search_sigma(Partial(slab, width), images, original, search, key=jax.random.key(3))
    real = radius_at(curves, np.asarray(real.sigma, float)[:, None], np.zeros((repeats, 1), int))
    regrets = [1 - radius[:, 0] / best_radius(curves, 0.1, 2.0) for radius in (simulated.radius, real)]
    error = np.hypot(*(regret.std() / repeats**0.5 for regret in regrets))
    assert abs(regrets[0].mean() - regrets[1].mean()) < 4 * error and error < 0.02, [r.mean() for r in regrets]


@pytest.mark.slow
def test_common_random_numbers_are_common_in_simulations_too():
    # Golden section sees one set of samples at every sigma: where the class falls off, fewer of them stay in it.
    curves = falling([0.3])
    asked, policy_of = {}, GoldenSection.policy

    def spy(*args):
        policy = policy_of(*args)

        def tell(state, counts):
            jax.debug.callback(lambda s, c: asked.update({float(s): int(c)}), policy.ask(state).sigma, counts[0])
            return policy.tell(state, counts)

        return policy._replace(tell=tell)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GoldenSection, "policy", spy)
        simulate_searches(curves, GoldenSection(0.1, 1.0, search_n=60), key=jax.random.key(5), repeats=1)
    jax.effects_barrier()
    by_sigma = [count for _, count in sorted(asked.items())]
    assert len(by_sigma) > 5 and by_sigma == sorted(by_sigma, reverse=True)


@pytest.mark.slow
def test_the_bayesian_search_beats_the_published_one_on_measured_curves():
    curves = measured()
    best = best_radius(curves, 0.12, 1.7).mean()

    def radius(name, **settings):
        search = searches.search(name, 0.12, 1.7, epsilon=0.03, epsilon_step=0.2, **settings)
        return simulate_searches(curves, search, key=jax.random.key(1), repeats=1).radius.mean()

    published = radius("bisection")  # 7 500 samples
    assert radius("golden") > published  # golden section of expected radii
    for evaluations, n, gain, share in ((15, 500, 1.03, 0.975), (20, 100, 1.02, 0.965), (10, 100, 1.0, 0.955)):
        ours = radius("bayesian", search_n=n, max_evaluations=evaluations)
        assert ours > gain * published and ours > share * best


@pytest.mark.slow
def test_a_bound_over_classes_gains_on_measured_curves():
    curves, search = measured(), Bayesian(0.12, 1.7)
    arguments = {"key": jax.random.key(1), "n": 10_000, "repeats": 2, "draws": 20}
    usual, classes = (
        simulate_searches(curves, search, estimate=Fixed(bound), **arguments)
        for bound in ("clopper-pearson", "classes")
    )
    assert classes.radius.mean() > usual.radius.mean() and classes.samples.mean() < 1.05 * usual.samples.mean()


@pytest.mark.slow
def test_the_command_distinguishes_searches(tmp_path, capsys):
    curves, path = falling([0.3, 0.5, 0.8]), tmp_path / "curves.tsv"
    sigmas = curves.sigmas.tolist()
    request = {"kind": "curves", "sigma": sigmas[curves.original], "sigmas": sigmas, "n": N}
    request["sigmas"][curves.original] = float(np.float32(request["sigma"]))
    with Writer(path, request, {}, columns=Point.columns(), read=lambda path: []) as writer:
        for i in range(3):
            writer.write(*(Point(i, 0, s, tuple(c.tolist())) for s, c in zip(request["sigmas"], curves.counts[i])))
    assert cli.main(["simulate", str(path), "--repeats", "2", "--left", "0.08", "--right", "0.9"]) == 0
    out = capsys.readouterr().out
    assert "3 images, 100,000 samples" in out and out.count("golden section") == 2 and "bayesian, 20 x 100" in out
    assert cli.main(["simulate", str(path), "--left", "2"]) == 2
    assert "0 < --left < --sigma_upper" in capsys.readouterr().err
    assert cli.main(["simulate", str(path), "--repeats", "0"]) == 2
    assert simulate.__doc__


@pytest.fixture
def two_searches(monkeypatch):
    """The command compares the first and the last of its searches alone: each is compiled."""
    every = simulate.searches

    def two(sigma, asked):
        first, *_, last = every(sigma, asked).items()
        return dict([first, last])

    monkeypatch.setattr(simulate, "searches", two)


@pytest.mark.slow
def test_the_command_compares_searches(tmp_path, capsys, two_searches):
    assert hostile(tmp_path) == 0
    out = capsys.readouterr().out
    assert "1 images, 100,000 samples" in out and "bisection, as published" in out and "grid of expected" in out


@pytest.mark.slow
def test_the_command_compares_searches_that_aim_at_another_bound(tmp_path, capsys, two_searches):
    assert hostile(tmp_path, flags=["--bound", "classes"]) == 0
    out = capsys.readouterr().out
    assert out.count("bisection, as published") == 1 and "regret" not in out
    assert "gain by the bound" in out and "gain over bisection" in out
    for bound, words in (("clases", "unknown --bound 'clases'"), ("randomised", "needs random numbers")):
        assert cli.main(["simulate", "curves.tsv", "--bound", bound]) == 2
        assert words in capsys.readouterr().err


def hostile(tmp_path, lines=None, flags=(), **changed):
    """What `qcrs-jax simulate` says of a file of curves with other lines or another request."""
    path = tmp_path / "curves.tsv"
    curves = falling([0.3])
    sigmas = [0.125, 0.25, 0.5]
    request = {"kind": "curves", "sigma": 0.25, "sigmas": sigmas, "n": N}
    with Writer(path, request, {}, columns=Point.columns(), read=lambda path: []) as writer:
        for sigma, counts in zip(sigmas, curves.counts[0]):
            writer.write(Point(0, 0, sigma, tuple(counts.tolist())))
    sidecar = path.with_name(path.name + ".json")
    content = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**content, "request": {**content["request"], **changed}}))
    if lines:
        path.write_text("\t".join(Point.columns()) + "\n" + "".join(line + "\n" for line in lines))
    return cli.main(["simulate", str(path), "--repeats", "1", *flags])


@pytest.mark.parametrize(
    "lines, changed, message",
    [
        (None, {"n": 10.5}, "request.n is 10.5: it should be a whole number"),
        (None, {"n": 10**30}, "request.n is a number of 100 bits"),
        (None, {"n": float("nan")}, "request.n is NaN"),
        (None, {"n": 10}, "are not those of 10 samples"),
        (None, {"sigma": float("nan")}, "request.sigma is NaN: it should be a number above 0"),
        (None, {"sigma": "0.25"}, "request.sigma is '0.25': it should be a number above 0"),
        (None, {"sigmas": [0.125, float("nan"), 0.5]}, "request.sigmas is NaN: it should be a number above 0"),
        (None, {"sigmas": [0.125, float("inf")]}, "request.sigmas is Infinity: it should be a number above 0"),
        (None, {"sigmas": [0.5, 0.25, 0.125]}, "do not ascend"),
        (None, {"sigmas": list(range(1, 20_000))}, "should be a list of at most"),
        (None, {"sigmas": 3}, "request.sigmas is 3, and should be a list"),
        (None, {"sigma": 0.3}, "sigma 0.3 is not among its sigmas"),
        (["0\t0\t0.125\t1,2,3", "0\t0\t0.25\t1,2"], {}, "has 2 classes, and the first line has 3"),
        (["0\t0\t0.125\t1,-2"], {}, "are not those of 100000 samples"),
        (["0\t0\t0.125\t1," + "9" * 400], {}, "a count of more than 63 bits"),
        ([f"{10**30}\t0\t0.125\t1,2"], {}, "a number of more than 63 bits"),
        (["0\t0\t0.25\t1,2"], {"sigmas": [0.25]}, "the one sigma 0.25"),
    ],
)
def test_hostile_curves_are_refused_in_a_line(tmp_path, capsys, lines, changed, message):
    assert hostile(tmp_path, lines, **changed) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


@pytest.mark.slow
def test_simulations_that_would_take_for_ever(tmp_path, capsys, two_searches):
    path = tmp_path / "curves.tsv"
    for words, message in (
        ("--repeats 1000000", "at most 1000"),
        ("--N 10000000000", "must be at most"),
        ("--alpha 1e-320", "must be at least 1e-300"),
        ("--alpha nan", "must lie in (0, 1)"),
    ):
        assert cli.main(["simulate", str(path), *words.split()]) == 2
        assert message in capsys.readouterr().err
    assert hostile(tmp_path, sigmas=[0.125, 0.25, 0.5]) == 0
    capsys.readouterr()
    assert cli.main(["simulate", str(path), "--epsilon", "1e-6"]) == 2
    assert "impossible request" in capsys.readouterr().err


def test_a_cascade_of_one_stage_has_the_radius_to_be_expected_at_its_sigma():
    curves = falling([0.3, 0.5, 0.9])
    key = jax.random.key(0)
    made = simulate_cascade(curves, Cascade((0.25,)), key=key, n=10_000, draws=40)
    expected = radius_at(curves, np.full(3, 0.25), np.zeros(3, int), 10_000)
    np.testing.assert_allclose(made.radius, expected, rtol=0.02)
    assert (made.samples == 10_100).all()


@pytest.mark.slow
def test_a_simulated_cascade_and_a_real_one_agree():
    """On a slab, whose shares are known at every sigma."""
    width, sigmas = 0.8, (0.6, 0.3)
    classify = Partial(slab, width)
    shares = slab_probability(width, SIGMAS)
    counts = np.round(N * np.stack([shares, 1 - shares], axis=-1)).astype(int)[None]
    curves = Curves(np.arange(1), np.zeros(1, int), SIGMAS, 18, counts, N, {})
    simulated = simulate_cascade(curves, Cascade(sigmas), key=jax.random.key(1), n=2000, draws=30)
    images, keys = np.zeros((8, *SHAPE), np.float32), jax.random.split(jax.random.key(2), 8)
    real = certify_cascade(classify, images, Cascade(sigmas), key=keys, n=2000)
    np.testing.assert_allclose(simulated.radius[0], real.radius.mean(), rtol=0.05)
    assert simulated.samples[0] == pytest.approx((200 + real.stages.n.sum(axis=-1)).mean(), rel=0.1)


def test_ladders_are_compared_and_lie_within_the_curves():
    curves = falling([0.3, 0.5])
    asked = simulate.Simulation(n=1000, sigmas=((0.5, 0.25), (0.25,)))
    lines = simulate.cascades(curves, asked).splitlines()
    assert lines[2].startswith("sigma ") and "the best one" in lines[2]
    assert lines[3].startswith("cascade 0.5, 0.25 ") and lines[4].startswith("cascade 0.25 ")
    with pytest.raises(SettingError, match="the curves reach from 0.06 to 1.2"):
        simulate_cascade(curves, Cascade((2.0, 0.5)), key=jax.random.key(0))
