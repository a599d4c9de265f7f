"""How many lines are drawn again, and how surely that finds a forged one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from qcrs_jax.experiments.verification.choice import Choice, duration, forged_lines, found, lines_needed, percent


@given(st.data())
def test_the_probability_is_that_of_drawing_without_replacement(data):
    of = data.draw(st.integers(1, 60))
    drawn, forged = data.draw(st.integers(0, of)), data.draw(st.integers(1, of))
    assert found(of, drawn, forged) == pytest.approx(1 - hypergeom.pmf(0, of, forged, drawn), abs=1e-9)


@pytest.mark.parametrize(
    "of, share, confidence", [(20, 0.05, 0.95), (500, 0.05, 0.95), (10_000, 0.01, 0.99), (7, 1, 1)]
)
def test_the_fewest_lines_that_are_enough(of, share, confidence):
    forged = forged_lines(of, share)
    k = lines_needed(of, forged, confidence)
    assert found(of, k, forged) >= confidence - 1e-9 and (k == 0 or found(of, k - 1, forged) < confidence)


def test_forged_lines_are_at_least_one_and_rounded_up():
    assert [forged_lines(20, share) for share in (0.001, 0.05, 0.051, 1)] == [1, 1, 2, 20]


def test_the_power_in_words():
    assert Choice(2).power(20) == "2 of 20 lines drawn again: a single forged line would be found with probability 10%"
    assert (
        Choice(float("inf"))
        .power(3)
        .endswith("3 of 3 lines drawn again: a single forged line would be found with probability 100%")
    )
    assert Choice(2, 0.95, 0.05).power(500).endswith("one of 25 (0.05 of the lines) with probability 95.2%")
    assert percent(0.99999) == "99.9%" and percent(1 / 3) == "33.3%"  # never more than it is


def test_the_choice_is_fresh_unless_its_seed_is_given():
    one, other = Choice(5).choose(range(1000)), Choice(5).choose(range(1000))
    assert one != other and len(one[0]) == 5 and one[0] == sorted(set(one[0]))
    assert Choice(5, seed=one[1]).choose(range(1000)) == one
    assert Choice(5, seed=3).choose([3, 1, 2]) == ([1, 2, 3], 3)


def test_times_in_words():
    assert [duration(s) for s in (0.26, 40.0, 90.0, 150.0, 7200.0, 400_000.0, 1e7)] == [
        "0.26 s", "40 s", "90 s", "2.5 min", "2 h", "4.6 days", "120 days"
    ]  # fmt: skip
