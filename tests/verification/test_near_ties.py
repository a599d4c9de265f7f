"""The rule for copies that another program or device puts into another class: honest lines pass, gains do not."""

import dataclasses

import pytest

from qcrs_jax.analysis.curves import Point
from qcrs_jax.certification.verdict import make_certificate
from qcrs_jax.experiments.verification.near_ties import (
    BFLOAT16,
    OTHER_DEVICE,
    SAME_ARITHMETIC,
    allowed,
    compare_certificates,
    compare_pilots,
    compare_points,
    leaning,
    moved,
    of_fewer_samples,
    reached,
    rule_for,
)
from qcrs_jax.results.records import Record

REQUEST = {"n0": 100, "n": 10_000}


def record(counts, counts0=(95, 5, 0), sigma=0.25, n=10_000, alpha=0.001, **changes):
    made = make_certificate(counts0, counts, sigma, n, alpha)
    fields = {"predict": int(made.prediction), "radius": float(made.radius), "pa_lower": float(made.pa_lower)}
    fields |= {"sigma": sigma, "counts0": counts0, "counts": counts} | changes
    return Record(0, 0, correct=fields["predict"] == 0, **fields)


def never():
    raise AssertionError("the sigma is the same")


def test_copies_that_moved():
    assert moved((5, 3, 2), (5, 3, 2), 10) == 0
    assert moved((5, 3, 2), (4, 4, 2), 10) == 1
    assert moved((5, 3, 2), (5, 3, 0), 10) == 2  # into no class
    assert moved((5, 3, 2), (2, 3, 5), 10) == moved((2, 3, 5), (5, 3, 2), 10) == 3
    assert [allowed(n) for n in (50, 100, 300, 100_000)] == [0, 1, 2, 2]


@pytest.mark.parametrize("ours", [(9_998, 2, 0), (10_000, 0, 0), (9_999, 0, 0), (9_997, 2, 1)])
def test_a_copy_or_two_pass_whatever_they_do_to_the_radius(ours):
    result = compare_certificates(record(ours), record((9_999, 1, 0)), never, (), REQUEST)
    assert not result.troubles and 1 <= result.moved <= 2 and result.drawn == 10_100
    assert str(result).startswith(f"{result.moved} of 10100 copies in another class than in the file")


def test_more_copies_pass_where_the_radius_stays():
    assert not compare_certificates(record((7_010, 2_990, 0)), record((7_000, 3_000, 0)), never, (), REQUEST).troubles
    troubles = compare_certificates(record((7_011, 2_989, 0)), record((7_000, 3_000, 0)), never, (), REQUEST).troubles
    assert troubles == ["that is more than near ties"]
    (trouble,) = compare_certificates(record((9_999, 1, 0)), record((9_990, 10, 0)), never, (), REQUEST).troubles
    assert "the radius is" in trouble  # nine copies more are worth much at the top


def test_more_copies_may_move_between_devices():
    few, many, here = (record((k, 10_000 - k, 0)) for k in (7_030, 7_050, 7_000))
    assert compare_certificates(few, here, never, (), REQUEST).troubles == ["that is more than near ties"]
    assert not compare_certificates(few, here, never, (), REQUEST, OTHER_DEVICE).troubles
    (trouble,) = compare_certificates(many, here, never, (), REQUEST, OTHER_DEVICE).troubles
    assert "the radius is" in trouble
    assert not compare_certificates(many, here, never, (), REQUEST, BFLOAT16).troubles
    curve, other = (Point(0, 0, 0.25, counts) for counts in ((995, 5), (999, 1)))
    assert compare_points([curve], [other], 1000).troubles
    assert not compare_points([curve], [other], 1000, OTHER_DEVICE).troubles


def test_near_radius_0_a_radius_is_compared_with_sigma():
    ours, here = record((5_180, 4_820, 0)), record((5_172, 4_828, 0))
    assert 0 < here.radius < 0.9 * ours.radius
    assert not compare_certificates(ours, here, never, (), REQUEST).troubles


@pytest.mark.parametrize(
    "platform, dtype, devices, rule",
    [
        ("gpu, matmul precision None", "float32", "1 x gpu NVIDIA H200", SAME_ARITHMETIC),
        ("gpu, matmul precision None", "bfloat16", "1 x gpu NVIDIA H200", SAME_ARITHMETIC),
        ("gpu, matmul precision None", "bfloat16", "1 x gpu NVIDIA H100", BFLOAT16),
        ("cpu, matmul precision None", "float32", "2 x cpu cpu", OTHER_DEVICE),
        ("cpu, matmul precision None", "bfloat16", "2 x cpu cpu", BFLOAT16),
        ("tpu, matmul precision None", "float32", "8 x tpu TPU v5 lite", BFLOAT16),
        ("tpu, matmul precision highest", "float32", "8 x tpu TPU v5 lite", OTHER_DEVICE),
    ],
)
def test_the_rule_of_a_file(platform, dtype, devices, rule):
    here = {"devices": "1 x gpu NVIDIA H200", "versions": {"jaxlib": "0.11.2"}}
    there = {"devices": devices, "versions": {"jaxlib": "0.11.2"}}
    assert (
        rule_for({"platform": platform, "dtype": dtype}, there, {"platform": "gpu, matmul precision None"}, here)
        == rule
    )


def test_few_samples_have_no_copies_to_spare():
    small = {"n0": 100, "n": 50}
    result = compare_certificates(record((50, 0, 0), n=50), record((49, 1, 0), n=50), never, (), small)
    assert result.troubles


def test_another_class_never_passes_and_an_abstention_may_by_two_copies():
    flipped = compare_certificates(
        record((0, 9_999, 1), (49, 51, 0)), record((9_999, 1, 0), (51, 49, 0)), never, (), REQUEST
    )
    assert any("the class is 1 in the file and 0 here" in trouble for trouble in flipped.troubles)
    level = [next(k for k in range(5_000, 6_000) if record((k, 10_000 - k, 0)).predict == 0) - d for d in (0, 1)]
    ours, theirs = (record((k, 10_000 - k, 0)) for k in level)
    assert (ours.predict, theirs.predict) == (0, -1)
    assert not compare_certificates(ours, theirs, never, (), REQUEST).troubles
    assert not compare_certificates(theirs, ours, never, (), REQUEST).troubles


def test_a_search_that_went_another_way():
    ours, here = record((9_900, 100, 0), sigma=0.30), record((9_880, 120, 0), sigma=0.302)
    result = compare_certificates(ours, here, lambda: record((9_901, 99, 0), sigma=0.30), (), REQUEST)
    assert not result.troubles and result.moved == 1 and "its sigma differs from the one chosen here" in result.remark
    forged = compare_certificates(ours, here, lambda: record((9_700, 300, 0), sigma=0.30), (), REQUEST)
    assert "that is more than near ties" in forged.troubles
    better = record((9_900, 100, 0), sigma=0.4)
    for nearby, found in (((), 1), ([here] * 3, 1), ([here, record((9_890, 110, 0), sigma=0.41)], 0)):
        result = compare_certificates(better, here, lambda: better, nearby, REQUEST)
        assert sum("the radius is" in trouble for trouble in result.troubles) == found, nearby


def test_the_radii_that_a_search_reaches():
    drawn = []

    def nearby(*radii):
        for radius in radii:
            drawn.append(radius)
            yield record((9_900, 100, 0), radius=radius)

    assert reached(0.51, 0.5, nearby(0.7)) and not drawn  # within 3%, nothing more is drawn
    assert reached(0.6, 0.5, nearby(0.49, 0.7, 0.8)) and drawn == [0.49, 0.7]  # between two of them
    assert not reached(0.6, 0.5, nearby(0.49, 0.55)) and not reached(0.4, 0.5, nearby(0.49, 0.45))


def test_a_search_that_ended_after_another_number_of_samples():
    ours, here = (record((9_900, 100, 0), search_samples=samples) for samples in (5_000, 4_500))
    for numbers, found in (((), 1), ([4_500, 4_000], 1), ([4_500, 5_500, 6_000], 0)):
        nearby = iter([record((9_900, 100, 0), search_samples=samples) for samples in numbers])
        result = compare_certificates(ours, here, never, nearby, REQUEST)
        assert len(result.troubles) == found and "its search took 5000 samples, and 4500 here" in result.remark
    for search_n, found in ((500, 0), (250, 0), (100, 1), (400, 1)):
        for name, troubles in (("bayesian", found), ("golden", 1), ("ddrs", 1)):
            asked = {**REQUEST, "search": {"name": name, "search_n": search_n}}
            assert len(compare_certificates(ours, here, never, (), asked).troubles) == troubles


def test_a_sigma_that_was_rounded_otherwise_is_the_same():
    ours, here = (record((9_900, 100, 0), sigma=sigma) for sigma in (0.48196602, 0.48196605))
    assert not compare_certificates(ours, here, never, (), REQUEST).remark


def test_near_ties_change_no_other_field():
    ours = record((9_999, 1, 0))
    for change in ({"label": 1, "correct": False}, {"u": 0.5}, {"search_samples": 7}):
        assert compare_certificates(dataclasses.replace(ours, **change), ours, never, (), REQUEST).troubles
    robust = (dataclasses.replace(ours, robust=1), dataclasses.replace(ours, robust=0))
    assert compare_certificates(*robust, never, (), REQUEST).troubles == ["robust differs"]


def test_lines_that_lean_to_one_side_are_refused():
    assert leaning([1, -1, 2, 1, 1, 1, -1, 1]) is None and leaning([0] * 50) is None and leaning([1] * 6) is None
    assert (
        "of 7 lines with other counts, 7 have more copies in the certified class, or a larger radius, in the file"
        in leaning([0, *[2] * 7])
    )
    assert leaning([-1] * 20) is None  # that gains nothing


def test_curves_and_pilots():
    ours, here = (Point(0, 0, 0.25, counts) for counts in ((998, 2), (999, 1)))
    assert not compare_points([ours], [here], 1000).troubles
    assert compare_points([ours], [Point(0, 0, 0.25, (990, 10))], 1000).troubles
    assert compare_points([ours], [Point(0, 0, 0.26, (998, 2))], 1000).troubles
    from qcrs_jax.experiments.run.pilot import Pilot

    pilot = Pilot(0, 3, 3, 0.25, 2.0, 0.2, 500, 1.0)
    assert not compare_pilots(pilot, dataclasses.replace(pilot, mean=2.01)).troubles
    assert compare_pilots(pilot, dataclasses.replace(pilot, mean=2.3)).troubles
    assert compare_pilots(pilot, dataclasses.replace(pilot, selected=4)).troubles


def test_lines_of_fewer_samples_than_the_sidecar_says():
    request = {"n0": 101, "n": 10_000}
    one, there = record((9_999, 1, 0)), record((9_999, 1, 0), counts0=(96, 5, 0))
    result = compare_certificates(one, there, never, (), request)
    assert result.missing == 1 and not result.troubles  # of one line that may be
    assert "fewer samples were drawn than the sidecar says" in of_fewer_samples([1, 2, 1])
    assert of_fewer_samples([1, 0, 1]) is None and of_fewer_samples([]) is None and of_fewer_samples([-1, -2]) is None
    points = [Point(0, 0, 0.25, (990, 10))], [Point(0, 0, 0.25, (991, 10))]
    assert compare_points(*points, 1001).missing == 1
