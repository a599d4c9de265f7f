"""`qcrs-jax certify` with each way to spend samples."""

import json

import numpy as np
import pytest
from kill_runs import cut, lines
from program import SMALL, assert_certificates, qcrs_jax, refused, unwrapped
from scipy import stats
from with_torch import torch

from qcrs_jax.bounds import gap_radius, randomised_lower, soft_bounds
from qcrs_jax.certification.estimates import estimate_of
from qcrs_jax.results.records import read_run


@pytest.mark.slow
def test_a_budget_is_kept_and_continues_where_it_was_cut(here):
    words = ["certify", "lenet.pth", "r.tsv", *SMALL, "--search", "bayesian", "--budget", 300, "--max", 6]
    qcrs_jax(*words, cwd=here)
    whole, pilot = lines(here / "r.tsv"), (here / "r.tsv.pilot").read_text()
    run = read_run(here / "r.tsv")
    assert len(run.records) == 6 and run.request["budget"] == {"mean": 300, "stop": 6}
    assert np.mean([r.n for r in run.records]) <= 300 and all(r.search_samples > 0 for r in run.records)
    for record in run.records:
        k = record.counts[int(np.argmax(record.counts0))]
        assert sum(record.counts) == record.n
        assert record.pa_lower == pytest.approx(stats.beta.ppf(0.001, k, record.n - k + 1) if k else 0)
    cut(here / "r.tsv", "".join((here / "r.tsv").read_text().splitlines(keepends=True)[:3]))
    cut(here / "r.tsv.pilot", pilot[: pilot.rindex("\n", 0, -1) + 9])  # its last line is torn
    qcrs_jax(*words, cwd=here)
    assert lines(here / "r.tsv") == whole


def test_an_image_of_a_wrong_class_takes_no_certification_samples(here):
    words = ["certify", "lenet.pth", "r.tsv", *SMALL, "--method", "cohen", "--max", 8]
    qcrs_jax(*words, cwd=here)
    full = read_run(here / "r.tsv")
    words[2] = "stopped.tsv"
    qcrs_jax(*words, "--stop_when_wrong", cwd=here)
    stopped = read_run(here / "stopped.tsv")
    assert stopped.request["stop_when_wrong"] is True
    wrong = 0
    for a, b in zip(full.records, stopped.records):
        if int(np.argmax(b.counts0)) == b.label:
            assert (a.predict, a.radius, a.counts, 200) == (b.predict, b.radius, b.counts, b.n)
        else:
            wrong += 1
            assert (b.predict, b.radius, b.n, sum(b.counts), b.correct) == (-1, 0, 0, 0, False)
            assert a.correct is False
    assert 0 < wrong


@pytest.mark.slow
def test_a_tolerance_spends_as_many_samples_as_an_image_needs(here):
    words = ["certify", "lenet.pth", "r.tsv", *SMALL, "--method", "cohen", "--N", 4000, "--tolerance", "5%"]
    qcrs_jax(*words, "--max", 2, cwd=here)
    first = (here / "r.tsv").read_text()
    text = qcrs_jax(*words, "--max", 4, cwd=here).stdout
    assert (here / "r.tsv").read_text().startswith(first) and "2 of 4 images are done" in text
    run = read_run(here / "r.tsv")
    assert run.request["estimate"]["tolerance"] == 0.05 and all(sum(r.counts) == r.n <= 4000 for r in run.records)
    assert min(r.n for r in run.records) < 4000
    for record in run.records:
        k = record.counts[int(np.argmax(record.counts0))]
        assert record.pa_lower == pytest.approx(stats.beta.ppf(0.001, k, record.n - k + 1) if k else 0)
    assert "r.tsv: holds results of another configuration" in refused(*words[:-2], cwd=here)


@pytest.mark.slow
def test_a_run_decides_a_radius_with_all_its_decisions_right_at_once(here):
    words = [
        "certify",
        "lenet.pth",
        "r.tsv",
        *SMALL,
        "--method",
        "cohen",
        "--N",
        3000,
        "--decide",
        0.01,
        "--simultaneous",
    ]
    qcrs_jax(*words, "--max", 4, cwd=here)
    text = unwrapped(qcrs_jax(*words, "--max", 4, cwd=here).stdout)
    assert "4 of 4 images are done" in text
    run, sidecar = read_run(here / "r.tsv"), json.loads((here / "r.tsv.json").read_text())
    assert run.request["alpha"] == 0.001 / 4 and run.request["simultaneous"] == {"alpha": 0.001, "images": 4}
    at_once = "all certificates of these 4 images hold at once with probability at least 0.999"
    assert at_once in sidecar["account"] and at_once in text
    sequential = estimate_of(run.request["estimate"])
    for record in run.records:
        look, k = sequential.looks(3000).index(record.n), record.counts[int(np.argmax(record.counts0))]
        assert record.pa_lower == sequential.lower(look, k, 3000, 0.001 / 4) and sum(record.counts) == record.n
        claim = 1 if record.radius > 0.01 else 0 if record.radius_upper < 0.01 else -1
        assert record.robust == claim and (claim != -1 or record.n == 3000)
    claims = [record.robust for record in run.records]
    assert f"{claims.count(1)} robust at 0.01, {claims.count(0)} not, {claims.count(-1)} undecided" in text
    assert min(record.n for record in run.records) < 3000
    assert "simultaneous.images: 4 in the file, 3 now" in refused(*words, "--max", 3, cwd=here)
    text = refused(*words[:-1], "--max", 10**6, "--N", 10, cwd=here)
    assert "certify at most a radius of" in text


def test_a_randomised_bound_is_recorded_with_its_number(here):
    words = ["certify", "lenet.pth", "r.tsv", *SMALL, "--method", "cohen", "--N", 500, "--max", 2]
    text = unwrapped(qcrs_jax(*words, "--bound", "randomised", cwd=here).stdout)
    assert "over 2 images expect up to 0.002 wrong ones, and all hold at once with probability at least 0.998" in text
    run = read_run(here / "r.tsv")
    assert run.request["estimate"]["bound"] == "randomised" and "1 - 0.001 M" in (here / "r.tsv.json").read_text()
    for record in run.records:
        k = record.counts[int(np.argmax(record.counts0))]
        assert 0 < record.u <= 1 and record.pa_lower == randomised_lower(k, 500, 0.001, record.u)
    assert "holds results of another configuration" in refused(*words, cwd=here)


def test_ten_samples_can_certify(here):
    qcrs_jax("certify", "lenet.pth", "r.tsv", *SMALL, "--method", "cohen", "--N", 10, "--max", 1, cwd=here)
    assert_certificates(here / "r.tsv", n=10)


@pytest.mark.slow
def test_certify_soft(certified):
    words = [*SMALL, "--method", "cohen", "--certificate", "soft", "--beta", 500, "--alpha", 0.05, "--max", 3]
    done = qcrs_jax("certify", "lenet.pth", "soft.tsv", *words, cwd=certified)
    run = read_run(certified / "soft.tsv")
    assert (run.request["estimate"]["name"], run.request["estimate"]["beta"]) == ("soft", 500.0)
    hard = read_run(certified / "cohen.tsv")
    assert hard.request["estimate"] == {"name": "fixed", "bound": "clopper-pearson"}
    assert [r.counts for r in run.records] == [r.counts for r in hard.records]
    for r in run.records:  # the certificate follows from the file alone
        selected, spoilt = np.argmax(r.sums0), run.request["n"] - sum(r.counts)
        bounds = soft_bounds(selected, r.sums, r.squares, spoilt, run.request["n"], run.request["alpha"], 2**15)
        assert (r.pa_lower, r.pb_upper) == bounds and r.predict == (selected if bounds[0] > bounds[1] else -1)
        assert r.radius == gap_radius(*bounds, r.sigma)
    assert any(r.radius > 0 for r in run.records)
    assert "Cohen, sigma 0.25, soft, beta 500 (soft.tsv)" in done.stdout and "mean softmax" in unwrapped(done.stdout)
    assert "3 of 3 images are done" in qcrs_jax("certify", "lenet.pth", "soft.tsv", *words, cwd=certified).stdout
    message = refused("certify", "lenet.pth", "soft.tsv", *SMALL, "--method", "cohen", "--alpha", 0.05, cwd=certified)
    assert "estimate.name: 'soft' in the file" in message and "--beta (estimate.beta): 500.0 in the file" in message


def test_samples_without_a_class_are_reported(here):
    content = torch.load(here / "lenet.pth")
    for name, tensor in content["net"].items():  # some of the largest logits of a copy leave the range of float32
        tensor *= {"fc1": 1e20, "fc2": 1e20 * 0.545}.get(name[:3], 1) if name != "fc2.bias" else 0
    torch.save(content, here / "lenet.pth")
    flags = "--method cohen --dataset npz --data_dir data.npz --sigma 0.25 --N 200 --N0 20 --max 2 --seed 0".split()
    done = qcrs_jax("certify", "lenet.pth", "r.tsv", *flags, cwd=here)
    missing = [220 - sum(r.counts0) - sum(r.counts) for r in read_run(here / "r.tsv").records]
    assert 0 < min(missing) and max(missing) < 220  # their number depends on the rounding of this machine
    for image, count in enumerate(missing):
        assert f"image {image}: {count} of 220 noisy copies count for no class" in done.stderr + done.stdout
    told = f"(r.tsv): {sum(missing)} noisy copies of 2 images, {max(missing)} of one at most"
    assert told in " ".join(done.stdout.split())
