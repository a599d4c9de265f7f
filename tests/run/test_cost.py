"""The announced cost of a run: samples, time by forward passes, memory; and dry runs."""

import json

import jax
import numpy as np
import pytest
from classifiers import SHAPE, by_sign
from requests_made import certificates

from qcrs_jax import DDRS, Bayesian, GoldenSection
from qcrs_jax.certification import certificate
from qcrs_jax.certification.estimates import Fixed, Sequential, Soft, Tolerance
from qcrs_jax.certification.procedure import with_samples
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands.demo import IMAGES
from qcrs_jax.experiments.presets import PRESETS
from qcrs_jax.experiments.run import cost
from qcrs_jax.experiments.run.cost import NOTHING, Cost, Draws, Estimates, Rate, Work, duration, measure, size
from qcrs_jax.results.records import RecordsError, read_run
from qcrs_jax.results.writer import Preview, Writer
from qcrs_jax.sampling.devices import first_call

ZOO = "zoo:fashion_mnist-lenet-sigma0.25"
SMALL = f"--dataset npz --data_dir {IMAGES} --sigma 0.25 --N 200 --N0 20 --gradient_n 50 --seed 0".split()
THREE = ["--max", "3", "--images", "1"]

compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **more: compiled.append(event) if event.endswith("backend_compile_duration") else None
)


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """No test waits for a measurement."""
    monkeypatch.setattr(cost, "MEASURED", 0.0)
    monkeypatch.setattr(cost, "THOROUGH", 0.0)


def run(*words, status=0):
    assert cli.main([*map(str, words)]) == status


# What is drawn


def test_work_is_in_whole_passes_of_the_longest_image():
    one, other = Draws((500, 500, 100, 10_000)), Draws((500, 500, 100, 20), at_most=True)
    assert one.samples == 11_100 and Draws((5,), differentiated=7).samples == 12
    alone = Work.of(lambda index: one, range(3), 1)
    assert (alone.images, alone.samples, alone.at_most) == (3, 33_300, False)
    assert alone.passes(32) == 3 * (16 + 16 + 4 + 313) and alone.passes(10**6) == 12
    steps = Work.of([one, other, other].__getitem__, range(3), 2)
    assert (steps.images, steps.samples, steps.at_most) == (3, 11_100 + 2 * 1_120, True)
    assert steps.passes(100) == (5 + 5 + 1 + 100) + (5 + 5 + 1 + 1)
    assert (Work().images, Work().samples, Work().passes(8)) == (0, 0, 0)


def test_time_is_that_of_passes_and_of_what_each_group_takes_besides():
    work = Work.of(lambda index: Draws((100, 1000), differentiated=300), range(4), 2)
    assert work.seconds(Rate(fixed=3.0, turn=0.5, copies=100)) == 2 * 3 + 0.5 * 2 * 11
    # By the measurement of another run the ascent, which it had not, takes what so many copies take.
    expected = 0.5 * (2 * 11 + cost.DIFFERENTIATED * 2 * 300 / 100)
    assert work.seconds(Rate(fixed=3.0, turn=0.5, copies=100).for_another()) == expected


IMAGE = np.full(SHAPE, 0.5, np.float32)
KEY = jax.random.key(0)
CALLS = {
    "cohen": {},
    "golden": {"search": GoldenSection(0.1, 0.9, search_n=50)},
    "bayesian": {"search": Bayesian(0.1, 0.9, search_n=50, max_evaluations=6)},
    "ddrs": {"search": DDRS(0.1, 0.9, steps=3, draws=5)},
    "tolerance": {"estimate": Tolerance(0.1)},
    "sequential": {"estimate": Sequential(decide=0.1)},
    "soft": {"estimate": Soft()},
    "labels": {"labels": 1},
}


def start(options, together=1):
    image = IMAGE if together == 1 else np.stack([IMAGE] * together)
    if "labels" in options and together > 1:
        options = {**options, "labels": np.full(together, options["labels"])}
    return certificate.draw(
        by_sign, image, 0.25, key=KEY, n0=20, n=200, batch_size=8, devices=jax.devices()[:1], **options
    )


@pytest.mark.slow_for(
    "labels-1",
    "bayesian-1",
    "ddrs-1",
    "tolerance-1",
    "soft-1",
    "golden-2",
    "sequential-2",
    "labels-2",
    "golden-1",
    "sequential-1",
)
@pytest.mark.parametrize(
    ("name", "together"), [*((name, 1) for name in CALLS), ("golden", 2), ("sequential", 2), ("labels", 2)]
)
def test_the_program_that_is_measured_is_the_run_s_and_is_compiled_once(name, together):
    call = first_call(lambda: start(CALLS[name], together))
    before = len(compiled)
    assert call.memory() > 0 and len(compiled) > before
    before = len(compiled)
    for n in (0, 24):
        smaller, queries = with_samples(call, n)
        selected, estimated = (np.asarray(votes.counts) for votes in smaller()[:2])
        assert queries == 1 and np.all(selected.sum(-1) == n) and np.all(estimated == 0)
    jax.block_until_ready(start(CALLS[name], together))
    assert len(compiled) == before


@pytest.mark.parametrize("sigmas", [None, [0.1, 0.2, 0.4]])
def test_predictions_and_curves_are_measured_by_their_own_program(sigmas):
    execution = {"key": KEY, "n": 200, "batch_size": 8, "devices": jax.devices()[:1]}

    def start():
        if sigmas is None:
            return certificate.draw_counts(by_sign, IMAGE, 0.25, **execution)
        return certificate.sample_curve(by_sign, IMAGE, sigmas, **execution)

    call = first_call(start)
    assert call.memory() > 0
    before = len(compiled)
    smaller, queries = with_samples(call, 24)
    counts = np.asarray(smaller())
    assert queries == (len(sigmas) if sigmas else 1) and counts.sum() == 24 * queries
    assert np.all(np.asarray(start()).sum(-1) == 200) and len(compiled) == before


def test_first_call_refuses_a_function_that_calls_no_program():
    with pytest.raises(ValueError, match="no program"):
        first_call(lambda: None)
    with pytest.raises(ZeroDivisionError):
        first_call(lambda: 1 / 0)
    assert start({}).n == 200  # and calls are made again


def test_a_rate_is_the_difference_that_passes_make(monkeypatch):
    """Of a call that takes 1 s without samples, 5 s the first time, and 0.1 s for each pass of 8 copies."""
    asked = []

    def seconds_of(call, n):
        asked.append(n)
        return (5.0 if len(asked) == 1 else 1.0) + 0.1 * n / 8 * call, call

    monkeypatch.setattr(cost, "seconds_of", seconds_of)
    rate = measure(1, 8, 1.5, 1000, lambda more: more)
    assert asked == [0, 0, 8, 32, 128]
    assert (rate.fixed, rate.copies, rate.clear) == (1.0, 8, True) and rate.turn == pytest.approx(0.1)
    asked.clear()
    assert measure(1, 8, 1.5, 3, lambda more: more).turn == pytest.approx(0.1)
    assert asked == [0, 0, 8]  # no more passes than a share of the run
    asked.clear()
    assert measure(4, 8, 1.5, 1000, lambda more: more).turn == pytest.approx(0.1)  # a curve of 4 sigmas
    assert asked == [0, 0, 8, 32]
    asked.clear()
    assert measure(1, 8, 1.5, 1000, lambda more: False).turn == pytest.approx(0.1)  # the first host has enough
    asked[:] = [0]
    assert cost.measure_ascent(0, 8, 40) == Rate(1.0, 8 / (cost.DIFFERENTIATED * 40), 8)


def test_a_pass_that_takes_no_time_by_the_clock_makes_no_rate_without_bounds(monkeypatch):
    for whole in (1.0, 0.8):  # a pass that is lost in the rest of the call
        monkeypatch.setattr(cost, "seconds_of", lambda call, n, whole=whole: (whole if n else 1.0, 1))
        found = measure(1, 8, 1.5, 3, lambda more: more)
        assert found.turn == pytest.approx(cost.DROWNED * whole) and not found.clear


def test_durations_and_sizes_in_words():
    assert [duration(s) for s in (0.001, 7.4, 89.0, 90.0, 1300.0, 5399.0, 5400.0, 4e4, 172_800.0, 4e6)] == [
        *("1 s", "7 s", "89 s", "1.5 min", "22 min", "90 min", "1.5 h", "11 h", "2.0 days", "46 days"),
    ]
    assert [size(b) for b in (1000, 2**20, 5 * 2**30)] == ["0.0 MiB", "1.0 MiB", "5.0 GiB"]


def test_costs_add_up():
    one = Cost(2, 100, seconds=3.0, on_device=2**20, on_host=5, devices="the device")
    other = Cost(3, 200, at_most=True, seconds=4.0, on_device=2**21, on_host=2)
    assert sum([one, other], NOTHING) == Cost(5, 300, True, 7.0, None, 2**21, 5, "the device")
    assert (one + Cost(1, 1, why="later")).seconds is None
    assert str(NOTHING) == "nothing is left to do"
    assert str(one + other) == (
        "5 images to do, at most 300 samples; at most about 7 s; memory: 2.0 MiB on the device, 0.0 MiB of images on "
        "the host"
    )


# Runs


def said(capsys):
    """The line of the cost in what was printed, and the number of samples in it."""
    (line,) = [line for line in capsys.readouterr().out.splitlines() if " to do, " in line]
    return line, int(line.split(" samples")[0].split(" ")[-1].replace(",", ""))


METHODS = {
    "cohen": "--method cohen",
    **{search: f"--search {search} --epsilon 0.1" for search in ("golden", "bisection", "shrinking")},
    "grid": "--search grid --epsilon 0.1 --objective lcb",
    "bayesian": "--search bayesian --evaluations 6",
    "ddrs": "--method ddrs --ddrs_steps 4 --ddrs_draws 10",
    "tolerance": "--method cohen --tolerance 5%",
    "sequential": "--method cohen --decide 0.1",
    "soft": "--method cohen --certificate soft",
    "wrong": "--method cohen --stop_when_wrong",
}


@pytest.mark.slow_for(
    "bisection", "shrinking", "grid", "bayesian", "ddrs", "soft", "sequential", "wrong", "golden", "tolerance"
)
@pytest.mark.parametrize("name", METHODS)
def test_a_run_draws_the_announced_samples_and_a_dry_run_announces_the_same(name, tmp_path, capsys):
    words = ["certify", ZOO, tmp_path / "new" / "r.tsv", *SMALL, *THREE, *METHODS[name].split()]
    run(*words, "--dry_run")
    dry, samples = said(capsys)
    assert list(tmp_path.iterdir()) == []
    assert dry.startswith("3 images to do") and " about " in dry and "memory: " in dry and " on the host" in dry
    run(*words)
    line, ordinary = said(capsys)
    records = read_run(tmp_path / "new" / "r.tsv").records
    drawn = sum(r.search_samples + 20 + (200 if r.n is None else r.n) for r in records)
    assert ordinary == samples and line.split(" samples")[0] == dry.split(" samples")[0]
    if name in ("bayesian", "tolerance", "sequential", "wrong"):
        assert drawn <= samples and "at most" in line
    else:
        assert drawn == samples and "at most" not in line


@pytest.mark.slow
def test_an_ascent_is_not_done_twice_and_its_time_is_printed_after_the_first_images(tmp_path, capsys):
    run("certify", ZOO, tmp_path / "r.tsv", *SMALL, *THREE, *METHODS["ddrs"].split())
    out = capsys.readouterr().out
    assert "time: printed after the first images" in out and "for the other 2 images, judging by the first 1" in out
    assert out.count("by the first") == 1


@pytest.mark.slow
def test_predictions_and_curves_are_costed_too(tmp_path, capsys):
    words = [ZOO, tmp_path / "r.tsv", "--dataset", "npz", "--data_dir", IMAGES, "--sigma", 0.25, *THREE]
    run("predict", *words, "--N", 300, "--dry_run")
    assert said(capsys)[1] == 900
    run("curve", *words, "--sigmas", 0.1, 0.5, 4, "--curve_n", 30, "--dry_run")
    assert said(capsys)[1] == 3 * 5 * 30
    assert list(tmp_path.iterdir()) == []


def test_the_cost_of_a_stopped_run_is_that_of_the_rest(tmp_path, capsys):
    path = tmp_path / "r.tsv"
    words = ["certify", ZOO, path, *SMALL, "--method", "cohen", "--images", 1]
    run(*words, "--max", 3)
    capsys.readouterr()
    run(*words, "--max", 5, "--dry_run")
    assert said(capsys)[0].startswith("2 images to do, 440 samples")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    run(*words, "--max", 3, "--dry_run")
    out = capsys.readouterr().out
    assert "3 of 3 images are done" in out and out.endswith("nothing is left to do\n")
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    sidecar = path.with_name("r.tsv.json")
    unfinished = {name: v for name, v in json.loads(sidecar.read_text()).items() if not name.endswith("sha256")}
    sidecar.write_text(json.dumps(unfinished))
    torn = path.read_bytes()[:-9]
    path.write_bytes(torn)  # as if it had died within a write
    run(*words, "--max", 3, "--dry_run")
    assert said(capsys)[0].startswith("1 image to do, 220 samples") and path.read_bytes() == torn


@pytest.mark.slow
def test_a_dry_run_of_a_budget_has_two_passes(tmp_path, capsys):
    words = ["certify", ZOO, tmp_path / "r.tsv", *SMALL, *THREE, "--budget", 300, "--epsilon", 0.1]
    run(*words, "--dry_run")
    lines = [line for line in capsys.readouterr().out.splitlines() if "to do" in line]
    evaluations = GoldenSection(0.25 / 4, 0.25 * 3.5, epsilon=0.1).evaluations
    assert [line.split(" samples")[0] for line in lines] == [
        f"3 images to do, {3 * (50 * evaluations + 20):,}",
        f"3 images to do, {3 * (20 + 300)}",
    ]
    assert list(tmp_path.iterdir()) == []
    run(*words)
    (tmp_path / "r.tsv").unlink()
    (tmp_path / "r.tsv.json").unlink()
    capsys.readouterr()
    run(*words, "--dry_run")  # the first pass is done: what each image gets is known
    line, samples = said(capsys)
    assert line.startswith("3 images to do") and samples <= 960


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--alpha", 0], "alpha"),
        (["--data_dir", "nowhere.npz"], "nowhere.npz"),
        (["--max", 0], "leaves no image"),
        (["--seed", 1], "seed: 0 in the file, 1 now"),
        (["--data_dir", "colours.npz"], "takes images of shape (28, 28, 1)"),
        (["--data_dir", "few.npz"], "has 10 classes"),
    ],
)
def test_a_dry_run_is_refused_as_the_run_is(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    path, x = tmp_path / "r.tsv", np.zeros((2, 32, 32, 3), np.uint8)
    np.savez("colours.npz", x=x, y=[0, 1], class_names=[str(i) for i in range(10)])
    np.savez("few.npz", x=x[:, :28, :28, 0], y=[0, 1], class_names=["a", "b"])
    Writer(path, certificates() | {"seed": 0}, {}).__exit__()
    words = ["certify", ZOO, path, *SMALL, "--max", 1, *flags]
    path.write_text(path.read_text() + "a line\n")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    run(*words, status=2)
    wrong = capsys.readouterr().err
    run(*words, "--dry_run", status=2)
    assert message in wrong and capsys.readouterr().err == wrong
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_preview_refuses_and_finds_the_same_as_a_writer(tmp_path):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    (tmp_path / "theirs").write_text("idx\tlabel\n1\t2\n")
    Writer(tmp_path / "new.tsv", {"seed": 1}, {}).__exit__()
    for name in ("file/r.tsv", "file/deeper/r.tsv", "folder", "theirs", "x" * 300):
        messages = []
        for opened in (Preview, Writer):
            with pytest.raises(RecordsError) as error:
                opened(tmp_path / name, {"seed": 1}, {})
            messages.append(str(error.value))
        assert messages[0] == messages[1], name
    for name in ("new.tsv", "none/yet.tsv"):
        with Preview(tmp_path / name, {"seed": 1}, {}) as preview:
            assert (preview.done, preview.finished) == ([], {})
    with pytest.raises(RecordsError, match="cannot be recorded"):
        Preview(tmp_path / "r.tsv", {"dataset": {"name": 3}}, {})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder", "new.tsv", "new.tsv.json", "theirs"]


def test_memory_that_is_full_leaves_the_time_open_and_the_run_continues(tmp_path, capsys, monkeypatch):
    def full(*args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(cost, "measure", full)
    run("certify", ZOO, tmp_path / "r.tsv", *SMALL, *THREE, "--method", "cohen")
    out = capsys.readouterr().out
    assert "time: not measured: memory does not hold 16 noisy copies" in out
    assert "for the other 2 images" in out and len(read_run(tmp_path / "r.tsv").records) == 3


# Experiments


def test_an_experiment_says_its_runs_and_their_sum(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("experiment", "frontier", "--quick", "--out", "new", "--dry_run")
    assert list(tmp_path.iterdir()) == []
    out = capsys.readouterr().out
    runs = [line for line in out.splitlines() if line.startswith("qcrs-jax certify")]
    each = [line for line in out.splitlines() if line.startswith("  3 images to do")]
    assert len(runs) == len(each) == 8 and all(" about " in line and "memory: " in line for line in each)
    samples = sum(int(line.split(" samples")[0].split(" ")[-1].replace(",", "")) for line in each)
    assert f"8 runs, in sum: 24 images to do, at most {samples:,} samples; at most about" in out


def test_runs_of_one_network_share_a_measurement(tmp_path, capsys, monkeypatch):
    measured = []
    monkeypatch.setattr(cost, "measure", lambda *args: measured.append(args) or Rate(1.0, 0.1, 16))
    run("experiment", "acr", "--quick", "--out", tmp_path / "new", "--dry_run")
    out = capsys.readouterr().out
    assert len(measured) == 1 and out.count("\nqcrs-jax certify") == 12 and "12 runs, in sum: 36 images" in out
    # Only the run that was measured takes what it took besides its passes.
    assert "3 images to do, 660 samples; about" in out


@pytest.mark.slow
def test_an_experiment_says_its_sum_before_it_starts(tmp_path, capsys, monkeypatch):
    commands = tuple(f"certify {ZOO} {name}.tsv {' '.join(SMALL)} --skip 2 --method cohen" for name in ("one", "two"))
    preset = PRESETS["regret"]
    monkeypatch.setitem(PRESETS, "regret", type(preset)("a", "b", "c", "d", (*commands, "table one.tsv two.tsv")))
    words = ("experiment", "regret", "--quick", "--out", tmp_path)
    run(*words)
    out = capsys.readouterr().out
    assert out.index("2 runs, in sum: 6 images to do, 1,320 samples") < out.index("qcrs-jax certify")
    run(*words)
    assert "2 runs, in sum: nothing is left to do" in capsys.readouterr().out
    run("experiment", "regret", "--quick", "--out", tmp_path, "--dry_run")
    out = capsys.readouterr().out
    assert out.count("  nothing is left to do") == 2 and "table" not in out


def test_an_experiment_whose_second_run_cannot_be_opened_is_refused_at_once(tmp_path, capsys, monkeypatch):
    commands = (f"certify {ZOO} one.tsv {' '.join(SMALL)}", f"certify no.pth two.tsv {' '.join(SMALL)}")
    monkeypatch.setitem(PRESETS, "regret", type(PRESETS["regret"])("a", "b", "c", "d", commands))
    run("experiment", "regret", "--quick", "--out", tmp_path / "new", status=2)
    assert "no.pth" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_estimates_are_brief_before_a_run_and_thorough_in_its_place(monkeypatch):
    monkeypatch.setattr(cost, "MEASURED", 3.0)
    monkeypatch.setattr(cost, "THOROUGH", 9.0)
    assert cost.estimates_of(False) == Estimates(3.0) and cost.estimates_of(True) == Estimates(9.0, waits=False)
    shared = Estimates(shared=True)
    assert cost.estimates_of(shared) is shared


def test_queries_of_estimates():
    assert Fixed().queries(100) == Tolerance(0.1).queries(100) == Soft().queries(100) == (100,)
    sequential = Sequential(decide=0.5)
    assert np.cumsum(sequential.queries(1000)).tolist() == list(sequential.looks(1000))
    assert sequential.may_end_early and Tolerance(0.1).may_end_early and not Fixed().may_end_early
