from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from qcrs_jax.errors import UserError
from qcrs_jax.experiments.report.compare import comparison
from qcrs_jax.experiments.report.gains import extremes, gains, reference_of
from qcrs_jax.results.metrics import paired_gain
from qcrs_jax.results.records import Record, Run


def run(name, radii, sigmas, search_samples, first=0):
    records = [
        Record(first + i, 1, 1, radius, True, sigma, 0.9, 1.0, search_samples, (1, 9), (100, 900))
        for i, (radius, sigma) in enumerate(zip(radii, sigmas))
    ]
    return Run(Path(name), records, {})


def test_a_comparison_gives_gain_share_cost_regret_and_ratios():
    cohen = run("cohen.tsv", [0.4, 0.5, 0.6], [0.25, 0.25, 0.25], 0)
    qcrs = run("qcrs.tsv", [0.6, 0.4, 0.8], [0.5, 0.25, 0.75], 70)
    lines = comparison(cohen, [qcrs], "markdown").splitlines()
    assert "| cohen.tsv | yes | 0.5000 |" in lines[2] and " 0.0% " in lines[2]
    cells = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    assert cells[:3] == ["qcrs.tsv", "no", "0.6000"] and cells[3].startswith("+0.1000 (-0.1000 to +0.2000)")
    assert cells[4:] == ["120.0%", "7.0%", "0.0333", "1.50 / 2.00 / 2.50"]


def test_runs_over_other_images_are_refused():
    with pytest.raises(UserError, match="b.tsv: is not over the images of a.tsv"):
        comparison(run("a.tsv", [0.1], [0.2], 0), [run("b.tsv", [0.1], [0.2], 0, first=3)])


def test_a_run_beside_itself_has_no_interval():
    cohen, again = (run("cohen.tsv", [0.4, 0.5, 0.6], [0.25, 0.25, 0.25], 0) for _ in range(2))
    assert " +0.0000 (no interval) " in comparison(cohen, [again], "markdown")


def test_the_interval_is_scipys_paired_bootstrap():
    rng = np.random.default_rng(3)
    base = rng.exponential(1.0, 40)
    ours, sure = base + rng.exponential(0.3, 40), np.ones(40, bool)
    gain, low, high = paired_gain((sure, ours), (sure, base))
    expected = stats.bootstrap(
        (ours, base),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        paired=True,
        method="BCa",
        random_state=np.random.default_rng(7),
    ).confidence_interval
    np.testing.assert_allclose((low, high), expected, atol=0.01)
    assert paired_gain((sure, ours), (sure, base)) == (gain, low, high), "the same each time"
    assert high - gain > gain - low, "skewed to the right, which percentiles alone follow less"


def test_the_interval_covers_the_gain_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        base = rng.exponential(1.0, 80)
        ours = base + rng.normal(0.1, 0.3, 80)
        sure = np.ones(80, bool)
        gain, low, high = paired_gain((sure, ours), (sure, base), resamples=500, seed=seed)
        assert low <= gain <= high
        covered += low <= 0.1 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_images_that_gain_and_lose_most():
    cohen = run("cohen.tsv", [0.4, 0.5, 0.6, 0.7], [0.25] * 4, 0)
    qcrs = run("qcrs.tsv", [0.6, 0.4, 0.9, 0.7], [0.5, 0.25, 0.75, 0.25], 70)
    qcrs.records[1] = Record(1, 1, 0, 3.0, False, 0.25)  # a wrong answer has no radius that counts
    text = comparison(cohen, [qcrs], "markdown", names=["base", "ours"], top=2)
    gained, lost = text.index("ours: the 2 images that gained most"), text.index("ours: the 1 images that lost most")
    assert [line.split("|")[1].strip() for line in text[gained:lost].splitlines()[4:6]] == ["2", "0"]
    assert "| 1 | 1 | 0.5000 | 3.0000 for 0 | -0.5000 | 0.25 |" in text[lost:] and "| base | yes | 0.5500 |" in text
    assert "gained most" not in comparison(cohen, [qcrs], "markdown")


def test_gains_sum_up_to_the_gain_in_acr():
    cohen = run("cohen.tsv", [0.4, 0.5, 0.6], [0.25] * 3, 0)
    qcrs = run("qcrs.tsv", [0.6, 0.4, 0.9], [0.5, 0.25, 0.75], 70)
    from qcrs_jax.results.metrics import columns

    assert gains(cohen, qcrs).mean() == pytest.approx(paired_gain(columns(qcrs), columns(cohen))[0])
    assert extremes(cohen, qcrs, 5) == ([2, 0], [1])
    assert reference_of([qcrs, cohen]) is cohen and reference_of([qcrs]) is None
