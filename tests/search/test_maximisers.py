"""Searches on functions with a known maximum, and the published bisection against a plain transcription."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import SHAPE, slab
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from qcrs_jax import certify
from qcrs_jax.errors import SettingError
from qcrs_jax.search import QCRS, SEARCHES, GoldenSection, maximisers, search_of
from qcrs_jax.search.maximisers import bisection, golden_section, grid, maximise, run, shrinking
from qcrs_jax.search.qcrs import Tables

BRACKETS = [(0.0, 1.0), (0.08, 0.9), (5.0, 9.0), (-3.0, -1.0)]


def make(name, lower, upper, tolerance, start):
    if name in ("bisection", "shrinking"):
        search = {"bisection": bisection, "shrinking": shrinking}[name]
        return search(lower, upper, tolerance, start, step=tolerance / 4, floor=-10.0)
    return {"golden": golden_section, "grid": grid}[name](lower, upper, tolerance, start)


@functools.partial(jax.jit, static_argnames=("name", "function"))
def answer_of(name, lower, upper, tolerance, start, function, given):
    """What the search finds for the function (s, given) -> value. Numbers are arguments: all share one program."""
    return maximise(make(name, lower, upper, tolerance, start), lambda s: function(s, given))


def peak(s, top):
    """A quasiconcave function that is not symmetric, with its maximum at `top`."""
    return -jnp.where(s < top, top - s, 0.3 * (s - top))


def parabola(s, top):
    return -((s - top) ** 2)


@pytest.mark.parametrize("name", ["golden", "bisection", "shrinking", "grid"])
@pytest.mark.parametrize(("lower", "upper"), BRACKETS)
@pytest.mark.parametrize("at", [0.03, 0.37, 0.5, 0.81, 0.99])
def test_finds_the_maximum_wherever_the_bracket_lies(name, lower, upper, at):
    top, tolerance = lower + at * (upper - lower), 0.02 * (upper - lower)
    promised = 4 / 3 if name == "shrinking" else 1
    found = float(answer_of(name, lower, upper, tolerance, lower, peak, top))
    assert abs(found - top) <= promised * tolerance * 1.01


@jax.jit
def closely(lower, upper, tolerance, start, top):
    return maximise(shrinking(lower, upper, tolerance, start, 1e-3, 0.0), lambda s: peak(s, top))


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.003, 0.9))
def test_shrinking_strides_reach_every_point_of_the_bracket_from_everywhere(at, start, tolerance):
    found = float(closely(2.0, 3.0, tolerance, 2 + start, 2 + at))
    # The point reached, or the start where that is no worse.
    assert abs(found - 2 - at) <= 4 / 3 * tolerance + 2e-3 or found == np.float32(2 + start)
    assert 2 <= found <= 3


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(["golden", "grid"]), st.floats(0.1, 0.9), st.floats(-4, 4))
def test_shifting_the_bracket_shifts_the_answer(name, at, shift):
    answers = [
        float(answer_of(name, shift_, 1 + shift_, 0.01, shift_, parabola, at + shift_)) for shift_ in (0.0, shift)
    ]
    assert answers[1] - answers[0] == pytest.approx(shift, abs=0.011)


def wild(s, seed):
    return jax.random.normal(jax.random.fold_in(jax.random.key(seed), (s * 1e6).astype(jnp.int32)))


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.sampled_from(["golden", "bisection", "shrinking", "grid"]), st.integers(0, 10_000))
def test_the_answer_lies_in_the_bracket_whatever_the_function(name, seed):
    answer = float(answer_of(name, 0.2, 0.9, 0.05, 0.5, wild, seed))
    assert 0.2 - 1e-6 <= answer <= 0.9 + 1e-6


POINTS = []  # which `noting` was asked for


def noting(s, top):
    jax.debug.callback(lambda s: POINTS.append(float(s)), s, ordered=True)
    return parabola(s, top)


@pytest.mark.parametrize("name", ["golden", "bisection", "shrinking", "grid"])
@pytest.mark.parametrize(
    ("lower", "upper", "tolerance"),
    [(0.08, 0.9, 0.03), (0.12, 1.7, 0.03), (0.0, 1.0, 2.0), (0.0, 1.0, 0.1), (0.0, 1.0, 0.375)],
)
def test_evaluates_as_often_as_announced(name, lower, upper, tolerance):
    POINTS.clear()
    jax.block_until_ready(answer_of(name, lower, upper, tolerance, 0.25, noting, 0.4))
    jax.effects_barrier()
    assert len(POINTS) == getattr(maximisers, f"{name}_evaluations")(lower, upper, tolerance)
    assert POINTS[0] == 0.25


def test_the_published_setting_costs_7500_samples():
    # Six differences of two evaluations, the pilot, and the closing comparison, of 500 samples each.
    assert 500 * maximisers.bisection_evaluations(0.12, 1.7, 0.03) == 7500
    assert 500 * maximisers.bisection_evaluations(0.08, 0.9, 0.03) == 6500


def test_golden_section_needs_one_evaluation_a_step():
    # Two interior points and the start, then one evaluation for each narrowing by .618.
    steps = math.ceil(math.log(0.82 / 0.03) / math.log((1 + math.sqrt(5)) / 2))
    assert maximisers.golden_evaluations(0.08, 0.9, 0.03) == 2 + steps


def test_golden_section_computes_no_product():
    # A compiler may join a product and a sum into one operation, whose rounding is another.
    def step(lower, upper, strides, value):
        search = golden_section(lower, upper, 0.03, 0.25, strides)
        return search.tell(search.init, value), search.ask(search.init)

    step_by_step = str(jax.make_jaxpr(step)(0.08, 0.9, maximisers.golden_strides(0.08, 0.9), 0.5))
    assert " sub " in step_by_step and step_by_step.count(" mul ") == 1  # the finest tolerance


@pytest.mark.parametrize("top", [0.1, 0.3])
def test_golden_section_leaves_a_plateau_towards_the_start(top):
    # Zero but near the start: on the plateau both interior values tie.
    function = lambda s: jnp.maximum(0.0, 0.15 - jnp.abs(s - top))  # noqa: E731
    assert float(maximise(golden_section(0.0, 4.0, 0.01, top + 0.05), function)) == pytest.approx(top, abs=0.011)
    assert float(maximise(golden_section(0.0, 4.0, 0.01, top), lambda s: 0.0 * s)) == pytest.approx(top)


def published_bisection(lower, upper, tolerance, start, step, floor, function):
    """The published loop in plain Python, its negative sigma raised to the floor. Returns answer and points."""
    points = []

    def value(s):
        s = max(s, floor)
        points.append(s)
        return function(s, len(points) - 1)

    value(start)
    last = 0
    first = True
    while first or upper - lower > tolerance:
        middle = (lower + upper) / 2
        low = value(middle - step)
        slope = value(middle + step) - low
        if slope > 0:
            go = 1
        elif slope < 0:
            go = -1
        else:
            go = -1 if first or last > 0 else 1
        lower, upper, last, first = (middle, upper, go, False) if go > 0 else (lower, middle, go, False)
    middle = (lower + upper) / 2
    original = value(start)
    return (middle if value(middle) > original else start), points


def published_shrinking(lower, upper, tolerance, start, step, floor, function):
    """The published ascent in plain Python, its first stride half the bracket, kept within it and above the floor."""
    points = []

    def value(s):
        s = max(s, floor)
        points.append(s)
        return function(s, len(points) - 1)

    value(start)
    at, stride, last = min(max(start, lower), upper), (upper - lower) / 2, 0
    while not last or stride > tolerance:
        low = value(at - step)
        slope = value(at + step) - low
        if slope > 0:
            last = 1
        elif slope < 0:
            last = -1
        else:
            last = -1 if last > 0 else 1
        at = min(max(at + last * stride, lower), upper)
        stride *= 0.75
    original = value(start)
    return (at if value(at) > original else start), points


def rounded(s, i, noise, top, xp):
    return xp.round(10 * xp.maximum(0.3 - xp.abs(s - top) + noise[i], 0)) / 10


@functools.partial(jax.jit, static_argnums=0)
def steps_of(kind, lower, upper, step, noise, top):
    """The answer, the number of points, and the points, of which 64 have a place."""
    search = kind(lower, upper, 0.03, 0.25, step, 0.01)
    recording = search._replace(  # a search whose state also holds the points in order
        init=(search.init, jnp.int32(0), jnp.zeros(64)),
        ask=lambda s: (search.ask(s[0]), s[1]),
        tell=lambda s, v: (search.tell(s[0], v), s[1] + 1, s[2].at[s[1]].set(search.ask(s[0]))),
        done=lambda s: search.done(s[0]),
    )
    final, count, trace = run(recording, lambda asked: rounded(*asked, noise, top, jnp))
    return search.best(final), count, trace


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("lower", "upper", "step"), [(0.08, 0.9, 0.075), (0.12, 1.7, 0.15), (0.15, 0.4, 0.0125)])
@pytest.mark.parametrize(
    ("ours", "published"),
    [(bisection, published_bisection), (shrinking, published_shrinking)],
    ids=["bisection", "shrinking"],
)
def test_takes_the_published_steps(seed, lower, upper, step, ours, published):
    # Noisy and coarsely rounded values, so that ties and both answers of the closing comparison occur.
    noise = np.random.default_rng(seed).normal(0, 0.05, 100).astype(np.float32)
    top = np.random.default_rng(seed + 100).uniform(lower, upper)

    def value(s, i):
        return float(rounded(s, i, noise, top, np))

    expected, points = published(lower, upper, 0.03, 0.25, step, 0.01, value)
    best, count, trace = steps_of(ours, lower, upper, step, noise, top)
    np.testing.assert_allclose(np.asarray(trace)[: int(count)], points, atol=1e-5)
    assert float(best) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["golden", "bisection", "shrinking"])
@pytest.mark.parametrize(("lower", "upper"), [(0.08, 0.9), (1.09, 1.87)])
def test_ends_where_float32_can_narrow_no_further(name, lower, upper):
    top = lower + 0.37 * (upper - lower)
    answer = float(answer_of(name, lower, upper, 1e-12, lower, peak, top))
    assert lower - 1e-6 <= answer <= upper
    assert name != "golden" or answer == pytest.approx(top, abs=1e-4)  # the others' step is nothing here


def test_works_under_vmap():
    tops = jnp.linspace(0.1, 0.9, 7)
    found = jax.vmap(lambda top: maximise(golden_section(0.0, 1.0, 0.01, 0.5), lambda s: -((s - top) ** 2)))(tops)
    np.testing.assert_allclose(found, tops, atol=0.011)


@dataclasses.dataclass(frozen=True)
class Middle(QCRS):
    """A search of one's own: the original sigma, or the geometric mean of the bracket."""

    name = "middle"

    @property
    def evaluations(self):
        return 3

    def maximiser(self, sigma, tables, num_classes):
        return grid(sigma, jnp.sqrt(self.sigma_lower * self.sigma_upper), 10.0, sigma)

    def tables(self, aim):
        return Tables(aim.predictive(self.search_n))


@pytest.mark.slow
def test_a_search_of_one_s_own_is_one_class():
    found = certify(Partial(slab, 1.2), jnp.zeros(SHAPE), 0.2, key=jax.random.key(0), n=500, search=Middle(0.1, 1.6))
    assert found.search.evaluations == 3 and np.any(np.isclose(found.search.sigmas, 0.4))
    assert found.sigma in found.search.sigmas and Middle(0.1, 1.6).recorded()["name"] == "middle"


def test_each_search_is_read_back_from_its_record():
    for name, kind in SEARCHES.items():
        made = kind(*((0.1, 0.9) if dataclasses.fields(kind) else ()))
        assert made.name == name and search_of(json.loads(json.dumps(made.recorded()))) == made
    for wrong in ({"name": "fastest", "method": "qcrs"}, {"name": "golden", "method": "ddrs"}, {}):
        with pytest.raises(SettingError) as caught:
            search_of(wrong)
        assert caught.value.settings == ("search",)
    with pytest.raises(SettingError, match="other settings"):
        search_of({**GoldenSection(0.1, 0.9).recorded(), "steps": 3})
