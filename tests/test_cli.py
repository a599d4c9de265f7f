"""Every command as a user runs it, on small real inputs, bad ones included."""

import contextlib
import csv
import hashlib
import io
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from format_1 import as_format_1
from kill_runs import cut, kill_runs, lines
from PIL import Image
from scipy import stats
from with_torch import CifarResNet, LeNet, randomise, torch

from qcrs_jax.bounds import randomised_lower, soft_bounds, soft_radius
from qcrs_jax.certification.sequential import Sequential
from qcrs_jax.convert.zoo import resolve
from qcrs_jax.data.load import DATASETS, name_of
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands import demo
from qcrs_jax.experiments.commands.method import request_of
from qcrs_jax.experiments.commands.sweep import sweep_of
from qcrs_jax.experiments.run import batch_size, pipeline
from qcrs_jax.results.records import INPUT_SPECIFIC, read_run
from qcrs_jax.results.sidecar import present
from qcrs_jax.search.ddrs import DDRS, PRESETS

PROGRAM = str(Path(sys.executable).with_name("qcrs-jax"))
SMALL = "--dataset npz --data_dir data.npz --sigma 0.25 --N 200 --N0 20 --gradient_n 50".split()
PUBLISHED = {
    "cohen": "./models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar cifar_exp --sigma 0.25 --epsilon 0.03 "
    + "--left 0.08 --right 0.9 --epsilon_step 0.4 --skip 1",
    "macer": "./weights/0.50.pth macer_exp --sigma 0.50 --epsilon 0.03 --left 0.12 --right 1.9 "
    + "--epsilon_step 0.2 --macer --skip 20",
}


def qcrs_jax(*words, cwd, ok=True):
    done = subprocess.run([PROGRAM, *map(str, words)], cwd=cwd, capture_output=True, text=True)
    assert not ok or done.returncode == 0, done.stderr
    return done


def refused(*words, cwd):
    """The one message of a command that must exit with status 2. Run in this process, which saves a start each."""
    messages = io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(messages):
        try:
            status = cli.main([*map(str, words)])
        except SystemExit as stop:  # argparse's
            status = stop.code
    text = messages.getvalue()
    assert status == 2, text
    assert text.count("error:") == 1
    return text


def assert_certificates(path, n=200, alpha=0.001):
    """Everything in a results file follows from its raw counts."""
    for record in read_run(path).records:
        assert sum(record.counts) == n
        selected = int(np.argmax(record.counts0))
        k = record.counts[selected]
        pa_lower = stats.beta.ppf(alpha, k, n - k + 1) if k else 0.0
        assert record.pa_lower == pytest.approx(pa_lower, rel=1e-9)
        if pa_lower < 0.5:
            assert (record.predict, record.radius) == (-1, 0.0)
        else:
            assert record.predict == selected
            radius = float(np.float32(record.sigma)) * stats.norm.ppf(pa_lower)
            assert record.radius == pytest.approx(radius, rel=1e-9)


@pytest.fixture(scope="module")
def inputs():
    """A random LeNet in MACER's layout, and six random images."""
    torch.manual_seed(0)
    stream = io.BytesIO()
    torch.save({"net": LeNet().state_dict(), "epoch": 1}, stream)
    x = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    return stream.getvalue(), x


@pytest.fixture
def here(tmp_path, inputs):
    return fill(tmp_path, inputs)


@pytest.fixture(scope="module")
def certified(tmp_path_factory, inputs):
    """Results of three images by each method."""
    root = fill(tmp_path_factory.mktemp("certified"), inputs)
    methods = {
        "cohen": ["--method", "cohen"],
        **{s: ["--search", s] for s in ("golden", "bisection", "shrinking", "grid", "bayesian")},
        "ddrs": "--method ddrs --ddrs_steps 4 --ddrs_draws 10 --ddrs_step_size 0.1".split(),
    }
    for name, flags in methods.items():
        extra = ["--epsilon", "0.1", "--objective", "lcb"] if name == "grid" else []
        done = qcrs_jax("certify", "lenet.pth", f"{name}.tsv", *SMALL, *flags, *extra, "--max", 3, cwd=root)
        (root / f"{name}.out").write_text(done.stdout)
    return root


def fill(root, inputs):
    weights, x = inputs
    (root / "lenet.pth").write_bytes(weights)
    np.savez(root / "data.npz", x=x, y=[4, 1, 4, 3, 4, 5], class_names=[str(i) for i in range(10)])
    return root


REFERENCE_FLAGS = (
    "--skip --max --split --N0 --N --alpha --batch --sigma --left --right --epsilon --epsilon_step"
    + " --gradient_n --macer"
)


DDRS_FLAGS = "--ddrs_preset --ddrs_steps --ddrs_draws --ddrs_step_size --ddrs_decay --ddrs_start --ddrs_clamp"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "certify",
            f"CHECKPOINT RESULTS --dataset --data_dir --method --search --certificate --beta --seed {REFERENCE_FLAGS} "
            + DDRS_FLAGS,
        ),
        ("memory", "RESULTS --out --dataset --data_dir --split"),
        ("predict", "CHECKPOINT RESULTS --dataset --sigma --N --alpha --skip --max --split --batch --seed --macer"),
        ("convert", "CHECKPOINT OUT_DIR --normalization --overwrite"),
        ("table", "RESULTS --format --radii --classes --out terminal markdown latex csv"),
        ("plot", "RESULTS --out --title --names png pdf svg"),
        ("visualize", "CHECKPOINT --index --out --sigmas --curve_n --dataset --search --N --seed --macer"),
        ("curve", "CHECKPOINT RESULTS --sigma --sigmas --curve_n --dataset --skip --max --on_error --batch"),
        ("agreement", "CHECKPOINT --sigma --N --dataset --skip --max --out --dtype"),
        ("quasiconcavity", "CURVES --alpha --out --report"),
        ("demo", "--out"),
        ("benchmark", ""),
    ],
)
def test_help_is_complete_and_imports_nothing_slow(command, words, tmp_path):
    code = (
        "import sys\nfrom qcrs_jax.experiments.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "slow = {'jax', 'flax', 'torch', 'tensorflow', 'tensorflow_datasets', 'scipy', 'matplotlib'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == qcrs_jax(command, "--help", cwd=tmp_path).stdout
    parser = cli.parser_of(command).complete()
    screens = [done.stdout, *map(parser.format_help, parser.screens)]
    assert all(f"--help-{name}" in done.stdout for name in parser.screens)
    text = "\n".join(screens)
    assert [w for w in words.split() if not re.search(rf"(?<![\w-]){w}(?![\w-])", text)] == []


def test_the_help_of_certify_is_one_screen_and_the_rest_stands_on_others(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    text = qcrs_jax("certify", "--help", cwd=tmp_path).stdout
    assert len(text.splitlines()) < 60 and text.count("qcrs-jax certify checkpoint") == 3
    assert "--ddrs_steps" not in text and "--help-search" in text and "--help-cluster" in text
    for screen, flag in (("search", "--ddrs_steps"), ("guarantee", "--tolerance"), ("cluster", "--shard")):
        assert flag in qcrs_jax("certify", f"--help-{screen}", cwd=tmp_path).stdout


def test_flags_are_spelled_in_full_with_either_dash(here):
    words = ["certify", "lenet.pth", "r.tsv", "--sigma", 0.25]
    message = refused(*words, "--gradient", 50, cwd=here)
    assert "unknown flag --gradient; do you mean --gradient_n" in message and "qcrs-jax certify" in message
    assert "unknown flag --data-dri; do you mean --data_dir" in refused(*words, "--data-dri", "x", cwd=here)
    assert "nowhere" in refused(*words, "--dataset", "npz", "--data-dir=nowhere", cwd=here)
    for typed in ("--left", "--sigma_lower", "--sigma-lower"):
        message = refused(*words, typed, 2, cwd=here)
        assert f"0 < {typed.replace('sigma-', 'sigma_')} < --sigma_upper" in message


def test_version(tmp_path):
    from qcrs_jax.version import version

    assert qcrs_jax("--version", cwd=tmp_path).stdout == f"qcrs_jax {version('qcrs_jax')}\n"


def test_help_lists_every_command(tmp_path):
    text = qcrs_jax("--help", cwd=tmp_path).stdout
    assert set(cli.COMMANDS) >= {"certify", "convert", "table", "plot", "demo"}
    for command, module in cli.COMMANDS.items():
        assert re.search(rf"^ +{command}\b", text, re.MULTILINE), command
        assert module.__doc__.strip().split()[0] in text
    assert "COMMAND" in refused(cwd=tmp_path)
    assert "'certificate'" in refused("certificate", cwd=tmp_path)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_flag_is_explained(command):
    parser = cli.parser_of(command).complete()
    assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize("name", ["cohen", "golden", "bisection", "shrinking", "grid", "bayesian", "ddrs"])
def test_certify(certified, name):
    path = certified / f"{name}.tsv"
    header = path.read_text().split("\n")[0].split("\t")
    assert header[:8] == "idx label predict radius correct best_sigma pABar time".split()
    run = read_run(path)
    assert [(r.idx, r.label) for r in run.records] == [(0, 4), (1, 1), (2, 4)]
    assert_certificates(path)
    assert any(r.radius > 0 for r in run.records)
    for record in run.records:
        assert sum(record.counts0) == 20
        if name == "cohen":
            assert record.sigma == 0.25 and record.search_samples == 0
        else:
            reach = 4.001 if name == "bayesian" else 1
            assert record.sigma == 0.25 or 0.25 / 4 / reach <= record.sigma <= 3.5 * 0.25 * reach + 1e-6
            assert record.search_samples == 40 if name == "ddrs" else record.search_samples % 50 == 0
            assert record.search_samples > 0
    if name != "cohen":
        assert len({r.sigma for r in run.records}) > 1 and run.input_specific
    if name == "ddrs":
        assert run.request["search"]["method"] == "ddrs" and run.request["search"]["draws"] == 10
        text = (certified / "ddrs.out").read_text()
        assert "DDRS, sigma 0.25 (ddrs.tsv)" in text and "Samples of DDRS's search are differentiated" in text
    elif name != "cohen":
        assert run.request["search"]["name"] == name
    if name == "bayesian":
        above = sum(r.sigma > 3.5 * 0.25 + 1e-6 for r in run.records)
        assert f"above it for {above} of 3 images" in (certified / "bayesian.out").read_text()


def test_certify_ends_with_the_table(certified):
    acr = np.mean([r.correct * r.radius for r in read_run(certified / "golden.tsv").records])
    text = (certified / "golden.out").read_text()
    assert f"{acr:.4f}" in text and "QCRS golden, sigma 0.25 (golden.tsv)" in text


def test_the_same_seed_gives_the_same_file_and_another_another(certified):
    flags = [*SMALL, "--method", "cohen", "--max", 3]
    qcrs_jax("certify", "lenet.pth", "same.tsv", *flags, cwd=certified)
    assert lines(certified / "same.tsv") == lines(certified / "cohen.tsv")
    qcrs_jax("certify", "lenet.pth", "other.tsv", *flags, "--seed", 1, cwd=certified)
    ours, theirs = (read_run(certified / f"{name}.tsv").records for name in ("cohen", "other"))
    assert [r.counts for r in ours] != [r.counts for r in theirs]


def test_another_batch_size_gives_the_same_counts(certified):
    for size, name in ((7, "batch"), ("auto", "auto")):
        flags = [*SMALL, "--method", "cohen", "--max", 3, "--batch", size]
        done = qcrs_jax("certify", "lenet.pth", f"{name}.tsv", *flags, cwd=certified)
        ours, theirs = (read_run(certified / f"{file}.tsv").records for file in ("cohen", name))
        for a, b in zip(ours, theirs, strict=True):
            # A sample whose two best logits tie within rounding may fall to either side.
            assert np.abs(np.subtract(a.counts, b.counts)).sum() <= 2
            assert np.abs(np.subtract(a.counts0, b.counts0)).sum() <= 2
    chosen = re.search(r"--batch auto: (\d+); samples a second: .* at \1\b", done.stdout)[1]
    assert json.loads((certified / "auto.tsv.json").read_text())["provenance"]["batch"] == int(chosen)


def test_of_batch_sizes_as_fast_as_each_other_the_smallest_is_taken():
    assert batch_size.choose({8: 50.0, 16: 98.0, 32: 100.0, 64: 99.0}) == 16
    assert batch_size.choose({}) == 1


def test_images_have_noise_of_their_own(certified):
    # The same image at three places: only the noise tells them apart.
    x = np.load(certified / "data.npz")["x"]
    np.savez(certified / "same.npz", x=x[[0, 0, 0]], y=[4, 4, 4], class_names=[str(i) for i in range(10)])
    flags = [*SMALL, "--method", "cohen", "--data_dir", "same.npz", "--N", 400]
    qcrs_jax("certify", "lenet.pth", "noise.tsv", *flags, cwd=certified)
    assert len({r.counts for r in read_run(certified / "noise.tsv").records}) > 1


def test_skip_and_max(here):
    flags = [*SMALL, "--method", "cohen", "--skip", 2, "--max", 4]
    qcrs_jax("certify", "lenet.pth", "r.tsv", *flags, cwd=here)
    assert [r.idx for r in read_run(here / "r.tsv").records] == [0, 2]
    # An image's result does not depend on which others are certified.
    qcrs_jax("certify", "lenet.pth", "one.tsv", *SMALL, "--method", "cohen", "--skip", 2, "--max", 1, cwd=here)
    assert lines(here / "one.tsv") == lines(here / "r.tsv")[:2]


def test_a_killed_run_ends_as_an_unbroken_one(here):
    words = [PROGRAM, "certify", "lenet.pth", *map(str, SMALL), "--method", "cohen", "--N", "4000"]
    kill_runs(3, words, here)
    path = here / "killed.tsv"
    cut(path, path.read_text()[:-9])  # as if it had died within a write
    again = subprocess.run([*words, "killed.tsv"], cwd=here, capture_output=True, text=True)
    assert "killed.tsv: 5 of 6 images are done" in again.stdout
    assert lines(path) == lines(here / "whole.tsv")


def test_a_machine_that_is_taken_away_leaves_its_results_and_says_how_to_go_on(here):
    words = [PROGRAM, "certify", "lenet.pth", "r.tsv", *map(str, SMALL), "--method", "cohen", "--N", "30000"]
    with subprocess.Popen(words, cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not (here / "r.tsv").exists() or (here / "r.tsv").read_bytes().count(b"\n") < 2:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        message = process.communicate()[1]
    assert process.returncode == 143 and 1 <= len(read_run(here / "r.tsv").records) < 6, message
    assert "qcrs-jax: stopped by SIGTERM\nThe results so far stay in r.tsv; the same command goes on there" in message
    assert "Traceback" not in message


def test_images_in_step_and_shards_are_the_run_of_one_image_at_a_time(certified):
    flags = [*SMALL, "--search", "golden", "--max", 3]
    qcrs_jax("certify", "lenet.pth", "step.tsv", *flags, "--images", 2, "--devices", 3, cwd=certified)
    assert lines(certified / "step.tsv") == lines(certified / "golden.tsv")
    assert read_run(certified / "step.tsv").sidecar["provenance"]["images"] == 2
    for i in (1, 2):
        done = qcrs_jax("certify", "lenet.pth", f"part{i}.tsv", *flags, "--shard", f"{i}/2", cwd=certified)
        assert f"{3 - i} of 6 images" in done.stdout and f"shard {i}/2" in done.stdout
    table = qcrs_jax("table", "golden.tsv", "part1.tsv", "part2.tsv", cwd=certified).stdout
    ours, theirs = (next(line for line in table.splitlines() if name in line) for name in ("golden.tsv", "part*.tsv"))
    assert ours.split(")")[1].split()[:-1] == theirs.split(")")[1].split()[:-1]
    assert "part1.tsv: of the 2 shards of this run, number 2 is missing" in refused("table", "part1.tsv", cwd=certified)
    cut(certified / "step.tsv", (certified / "step.tsv").read_text().replace("\n2\t", "\n77\t"))
    message = refused("certify", "lenet.pth", "step.tsv", *flags, cwd=certified)
    assert "step.tsv: its line of image 77" in message and "delete it" in message


def start_hosts(folder, flags, slurm=False):
    """Two processes that share a run, with pipes for what they say; with `slurm` told of each other as Slurm does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [PROGRAM, "certify", "lenet.pth", "hosts.tsv", *map(str, flags), "--distributed"]
    pipes = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    if not slurm:
        words += ["--coordinator", address]
        return [subprocess.Popen([*words, "--process", f"{i}/2"], **pipes) for i in (1, 2)]
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    own = [{"SLURM_PROCID": task, "SLURM_LOCALID": task, "CUDA_VISIBLE_DEVICES": task} for task in "01"]
    tasks = [{**os.environ, **job, **variables} for variables in own]  # each task sees a card of its own, if any
    return [subprocess.Popen(words, env=task, **pipes) for task in tasks]


@pytest.mark.parametrize("slurm", [False, True])
def test_two_hosts_share_a_run(certified, slurm):
    for file in certified.glob("hosts.tsv*"):
        file.unlink()
    devices = [] if slurm else ["--devices", 2]
    hosts = start_hosts(certified, [*SMALL, "--search", "golden", "--max", 3, *devices], slurm)
    first, second = [host.communicate(timeout=300) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], first[1] + second[1]
    assert lines(certified / "hosts.tsv") == lines(certified / "golden.tsv")
    assert "(hosts.tsv)" in first[0] and "images" not in second[0]
    assert slurm or read_run(certified / "hosts.tsv").sidecar["provenance"]["devices"].startswith("4 x cpu")


def test_a_host_that_dies_ends_the_run_of_the_others(here):
    flags, path = [*SMALL, "--method", "cohen", "--N", 20000, "--devices", 1], here / "hosts.tsv"
    first, second = start_hosts(here, flags)
    while not path.exists() or path.read_bytes().count(b"\n") < 2:
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    second.kill()
    message = first.communicate(timeout=60)[1]
    assert first.returncode == 75 and "the hosts lost each other; start all of them again" in message
    assert "The results so far stay in hosts.tsv" in message and "Traceback" not in message
    assert 1 <= len(read_run(path).records) < 6
    second.communicate()
    qcrs_jax("certify", "lenet.pth", "hosts.tsv", *flags, cwd=here)
    qcrs_jax("certify", "lenet.pth", "whole.tsv", *flags, cwd=here)
    assert lines(path) == lines(here / "whole.tsv")


def test_a_changed_configuration_is_refused_and_changes_nothing(certified):
    before = (certified / "cohen.tsv").read_bytes()
    for flags, named in (
        (["--N", 201], "--N: 200 in the file, 201 now"),
        (["--seed", 1], "seed: 0 in the file, 1 now"),
        (["--sigma", 0.5], "sigma: 0.25 in the file, 0.5 now"),
        (["--normalization", "0.5/0.5"], "classifier"),
        (["--dtype", "bfloat16"], "dtype: 'float32' in the file, 'bfloat16' now"),
        (["--prng", "rbg"], "noise: "),
    ):
        words = [*SMALL, "--method", "cohen", "--max", 3, *flags]
        assert named in refused("certify", "lenet.pth", "cohen.tsv", *words, cwd=certified)
    assert (certified / "cohen.tsv").read_bytes() == before


def test_a_file_of_another_program_is_not_appended_to(here):
    (here / "r.tsv").write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n")
    assert "sidecar" in refused("certify", "lenet.pth", "r.tsv", *SMALL, cwd=here)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--alpha", "0"], "alpha"),
        (["--alpha", "1"], "alpha"),
        (["--left", "0.9", "--right", "0.9"], "0.9"),
        (["--left", "0.9", "--right", "0.1"], "0.9 and 0.1"),
        (["--left", "-0.1"], "-0.1"),
        (["--sigma", "0"], "sigma"),
        (["--sigma", "-0.25"], "sigma"),
        (["--sigma", "nan"], "sigma"),
        (["--N", "9"], "smallest n that could is 10"),
        (["--gradient_n", "9", "--objective", "lcb"], "is 10"),
        (["--gradient_n", "0"], "--gradient_n must be at least 1"),
        (["--search", "bayesian", "--evaluations", "1"], "--evaluations must be at least 2"),
        (["--N0", "0"], "n0 = 0"),
        (["--N", "3000000000"], "at most 1073741824"),
        (["--epsilon", "0"], "positive"),
        (["--search", "bisection", "--epsilon_step", "0"], "--epsilon_step must be"),
        (["--skip", "0"], "--skip"),
        (["--batch", "0"], "--batch"),
        (["--seed", "-1"], "--seed"),
        (["--macer", "--normalization", "cifar10"], "--macer"),
        (["--search", "newton"], "newton"),
        (["--tolerance", "150%"], "tolerance is a share of the radius and must lie in (0, 1), not 1.5"),
        (["--tolerance", "1%", "--certificate", "soft"], "--certificate soft are different ways to certify"),
        (["--budget", "500", "--tolerance", "1%"], "--budget decides an image's samples"),
        (["--budget", "5"], "The smallest n that could is 10"),
        (["--stop_when_wrong", "--certificate", "soft"], "does not stop where the class is wrong"),
        (["--decide", "1", "--precision", "5%"], "not both"),
        (["--look_every", "10"], "give one"),
        (["--beta", "4"], "--certificate soft"),
        (["--certificate", "soft", "--N", "39"], "smallest n that could is 40"),
        (["--certificate", "soft", "--batch", "40000"], "--batch 40000"),
        (["--method", "ddrs", "--ddrs_steps", "0"], "--ddrs_steps must be at least 1 and"),
        (["--method", "ddrs", "--ddrs_draws", "0"], "--ddrs_draws must be"),
        (["--method", "ddrs", "--ddrs_step_size", "-1"], "--ddrs_step_size must be"),
        (["--method", "ddrs", "--ddrs_start", "5"], "--ddrs_start must lie between --sigma_lower"),
        (["--method", "ddrs", "--ddrs_clamp", "0.5"], "--ddrs_clamp must be"),
        (["--method", "ddrs", "--left", "0"], "--left"),
        (["--method", "ddrs", "--ddrs_preset", "best"], "best"),
    ],
)
def test_impossible_numbers_are_refused_before_the_checkpoint_is_read(tmp_path, flags, message):
    # Neither the checkpoint nor the data exist: a message about them would come too early.
    words = ["certify", "no.pth", "new/r.tsv", *SMALL, *flags]
    text = refused(*words, cwd=tmp_path)
    assert message in text and "no.pth" not in text
    assert not (tmp_path / "new").exists()


def test_a_budget_is_kept_and_goes_on_where_it_was_cut(here):
    words = ["certify", "lenet.pth", "r.tsv", *SMALL, "--search", "bayesian", "--budget", 300, "--max", 6]
    qcrs_jax(*words, cwd=here)
    whole, pilot = lines(here / "r.tsv"), (here / "r.tsv.pilot").read_text()
    run = read_run(here / "r.tsv")
    assert len(run.records) == 6 and run.request["budget"] == {"mean": 300, "max": 6}
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
    sequential = Sequential(**run.request["sequential"])
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


def test_missing_and_unfitting_files_are_named(here):
    x = np.zeros((2, 28, 28), np.uint8)
    names = [str(i) for i in range(10)]
    np.savez(here / "classes.npz", x=x, y=[0, 1])
    np.savez(here / "shape.npz", x=np.zeros((2, 32, 32, 3), np.uint8), y=[0, 1], class_names=names)
    (here / "text.pth").write_text("no checkpoint")
    for checkpoint, data, parts in (
        ("no.pth", "data.npz", ["no.pth: no such file"]),
        ("text.pth", "data.npz", ["text.pth"]),
        ("lenet.pth", "no.npz", ["no.npz: no such file", "--data_dir"]),
        ("lenet.pth", "lenet.pth", ["lenet.pth: needs arrays x and y"]),
        ("lenet.pth", "classes.npz", ["lenet.pth", "10 classes", "has 2"]),
        ("lenet.pth", "shape.npz", ["lenet.pth", "(28, 28, 1)", "(32, 32, 3)"]),
    ):
        message = refused("certify", checkpoint, "r.tsv", *SMALL, "--data_dir", data, cwd=here)
        assert all(part in message for part in parts), message
    assert not (here / "r.tsv").exists()


def test_no_images_to_certify(here):
    done = qcrs_jax("certify", "lenet.pth", "r.tsv", *SMALL, "--max", 0, cwd=here, ok=False)
    assert "Traceback" not in done.stderr and done.returncode == 2


def test_a_results_file_that_cannot_be_written(here):
    (here / "file").write_text("not a folder")
    assert "file" in refused("certify", "lenet.pth", "file/r.tsv", *SMALL, "--max", 1, cwd=here)


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
        assert r.radius == soft_radius(*bounds, r.sigma)
    assert any(r.radius > 0 for r in run.records)
    assert "Cohen, sigma 0.25, soft, beta 500 (soft.tsv)" in done.stdout and "mean softmax" in unwrapped(done.stdout)
    assert "3 of 3 images are done" in qcrs_jax("certify", "lenet.pth", "soft.tsv", *words, cwd=certified).stdout
    message = refused("certify", "lenet.pth", "soft.tsv", *SMALL, "--method", "cohen", "--alpha", 0.05, cwd=certified)
    assert "certificate: 'soft' in the file" in message and "beta: 500.0 in the file" in message


PREDICT = "--dataset npz --data_dir data.npz --sigma 0.25".split()


@pytest.fixture(scope="module")
def predicted(certified):
    """Predictions for the images of `certified`, with several N."""
    for n in (11, 60, 200):
        words = ["lenet.pth", f"p{n}.tsv", *PREDICT, "--N", n, "--max", 3]
        (certified / f"p{n}.out").write_text(qcrs_jax("predict", *words, cwd=certified).stdout)
    return certified


def test_predict(predicted):
    nested = np.zeros((3, 10), int)
    for n in (11, 60, 200):
        path = predicted / f"p{n}.tsv"
        assert path.read_text().split("\n")[0].split("\t") == "idx label predict correct time counts".split()
        run = read_run(path)
        assert [(r.idx, r.label) for r in run.records] == [(0, 4), (1, 1), (2, 4)]
        counts = np.array([r.counts for r in run.records])
        assert np.all(counts.sum(1) == n) and np.all(counts >= nested)
        nested = counts
        for record in run.records:
            second, top = sorted(record.counts)[-2:]
            p = stats.binomtest(top, top + second, 0.5).pvalue
            assert record.predict == (-1 if p > 0.001 else np.argmax(record.counts))
            assert record.correct == (record.predict == record.label) and record.radius is None
    assert {-1} < {r.predict for n in (11, 200) for r in read_run(predicted / f"p{n}.tsv").records}
    # The same seed, sigma and N: the samples that certify draws.
    assert [r.counts for r in run.records] == [r.counts for r in read_run(predicted / "cohen.tsv").records]
    assert "PREDICT, sigma 0.25 (p200.tsv)" in (predicted / "p200.out").read_text()


def test_samples_of_no_class_are_told_of(here):
    content = torch.load(here / "lenet.pth")
    for name, tensor in content["net"].items():  # some of the largest logits of a copy leave the range of float32
        tensor *= {"fc1": 1e20, "fc2": 1e20 * 0.545}.get(name[:3], 1) if name != "fc2.bias" else 0
    torch.save(content, here / "lenet.pth")
    flags = "--method cohen --dataset npz --data_dir data.npz --sigma 0.25 --N 200 --N0 20 --max 2".split()
    done = qcrs_jax("certify", "lenet.pth", "r.tsv", *flags, cwd=here)
    missing = [220 - sum(r.counts0) - sum(r.counts) for r in read_run(here / "r.tsv").records]
    assert min(missing) > 20 and max(missing) < 200
    for image, count in enumerate(missing):
        assert f"image {image}: {count} of 220 noisy copies count for no class" in done.stderr + done.stdout
    told = f"(r.tsv): {sum(missing)} noisy copies of 2 images, {max(missing)} of one at most"
    assert told in " ".join(done.stdout.split())


def test_predict_goes_on_where_it_stopped_and_nothing_is_mixed(predicted):
    words = [*PREDICT, "--N", 60, "--max", 3]
    path = predicted / "stopped.tsv"
    qcrs_jax("predict", "lenet.pth", "stopped.tsv", *PREDICT, "--N", 60, "--max", 2, cwd=predicted)
    cut(path, path.read_text() + "2\t4\t")
    assert "2 of 3 images are done" in qcrs_jax("predict", "lenet.pth", "stopped.tsv", *words, cwd=predicted).stdout
    assert lines(path) == lines(predicted / "p60.tsv")
    before = path.read_bytes()
    assert "n: 60 in the file, 61 now" in refused(
        "predict", "lenet.pth", "stopped.tsv", *PREDICT, "--N", 61, cwd=predicted
    )
    assert "method: 'predict' in the file" in refused("certify", "lenet.pth", "stopped.tsv", *SMALL, cwd=predicted)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--N", 10], "smallest n that could is 11"),
        (["--sigma", 0], "sigma"),
        (["--skip", 0], "--skip"),
    ],
)
def test_impossible_predictions_are_refused_before_the_checkpoint_is_read(tmp_path, flags, message):
    text = refused("predict", "no.pth", "new/r.tsv", *PREDICT, *flags, cwd=tmp_path)
    assert message in text and "no.pth" not in text
    assert not (tmp_path / "new").exists()


def test_the_table_of_predictions_is_that_of_agreement(predicted):
    text = qcrs_jax("table", "p11.tsv", "p60.tsv", "cohen.tsv", "--format", "csv", cwd=predicted).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [r["n"] for r in rows] == ["11", "60", "200"]
    top = [int(np.argmax(r.counts)) for r in read_run(predicted / "cohen.tsv").records]
    for n, row in zip((11, 60), rows):
        answers = [r.predict for r in read_run(predicted / f"p{n}.tsv").records]
        assert float(row["abstention"]) == np.mean([a == -1 for a in answers])
        assert float(row["agrees"]) == np.mean([a == t for a, t in zip(answers, top)])
    assert "predictions, which have no radii" in refused("plot", "p11.tsv", "--out", "p.png", cwd=predicted)
    assert "--radii" in refused("table", "p11.tsv", *RADII, cwd=predicted)
    words = ["--out", "m.tsv", "--dataset", "npz", "--data_dir", "data.npz"]
    assert "predictions, which have no radii" in refused("memory", "p11.tsv", *words, cwd=predicted)
    assert "another sigma for each input" in refused("table", "p11.tsv", "golden.tsv", cwd=predicted)


def test_convert_gives_what_certify_takes(certified):
    qcrs_jax("convert", "lenet.pth", "converted", cwd=certified)
    flags = [*SMALL, "--method", "cohen", "--max", 3]
    qcrs_jax("certify", "converted", "from_converted.tsv", *flags, cwd=certified)
    assert lines(certified / "from_converted.tsv") == lines(certified / "cohen.tsv")
    # The same weights: the file may be continued with either.
    qcrs_jax("certify", "converted", "cohen.tsv", *flags, cwd=certified)
    assert "converted" in refused("convert", "lenet.pth", "converted", cwd=certified)
    assert "no.pth: no such file" in refused("convert", "no.pth", "out", cwd=certified)
    qcrs_jax("convert", "zoo:fashion_mnist-lenet-sigma0.25", "of_the_zoo", cwd=certified)
    assert "zoo:lenet: not in the zoo" in refused("convert", "zoo:lenet", "out", cwd=certified)


@pytest.mark.parametrize("name", ["cohen", "macer"])
def test_published_flags_mean_what_they_meant(name):
    parser = cli.parser_of("certify")
    args = parser.parse_args(PUBLISHED[name].split())
    request, sweep = request_of(args), sweep_of(args)
    assert (request.n0, request.n, request.alpha) == (100, 100_000, 0.001)
    assert (sweep.data.split, request.search.method, sweep.images.stop) == ("test", "qcrs", -1)
    assert name_of(args.data_dir) == "cifar10" and args.dataset is None  # of nothing that is named
    left, right, step, skip = {"cohen": (0.08, 0.9, 0.4, 1), "macer": (0.12, 1.9, 0.2, 20)}[name]
    assert (request.search.sigma_lower, request.search.sigma_upper, request.search.epsilon) == (left, right, 0.03)
    assert (request.search.epsilon_step, request.search.search_n, request.search.alpha) == (step, 500, 0.001)
    assert request.sigma == {"cohen": 0.25, "macer": 0.5}[name]
    assert sweep.images.skip == skip and sweep.network.macer == (name == "macer")


@pytest.mark.parametrize("name", ["cohen", "macer"])
def test_published_commands_work(tmp_path, name):
    torch.manual_seed(0)
    state_dict = randomise(CifarResNet(110)).state_dict()
    if name == "cohen":
        content = {
            "epoch": 90,
            "arch": "cifar_resnet110",
            "state_dict": {f"1.{key}": value for key, value in state_dict.items()},
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.001, "params": [0]}]},
        }
    else:
        content = {"net": state_dict, "epoch": 440}
    words = PUBLISHED[name].split()
    checkpoint = tmp_path / words[0]
    checkpoint.parent.mkdir(parents=True)
    torch.save(content, checkpoint)
    data = np.random.default_rng(0).integers(0, 256, (1, 3072), dtype=np.uint8)
    batches = tmp_path / "data/cifar-10-batches-py"
    batches.mkdir(parents=True)
    (batches / "test_batch").write_bytes(cifar10_pickle(data, [3]))
    small = "--N 64 --N0 16 --gradient_n 32 --batch 16".split()
    qcrs_jax("certify", *words, *small, cwd=tmp_path)
    path = tmp_path / words[1]
    assert_certificates(path, n=64)
    run = read_run(path)
    (record,) = run.records
    assert (record.idx, record.label) == (0, 3)
    mean = {"cohen": [0.4914, 0.4822, 0.4465], "macer": [0.0]}[name]
    classifier = run.request["classifier"]
    assert classifier["arch"] == "cifar_resnet110"
    np.testing.assert_allclose(np.broadcast_to(classifier["mean"], 3), np.broadcast_to(mean, 3))


def cifar10_pickle(data, labels):
    """A batch in the opcodes of Python 2, which has no bytes: the arrays' buffers are its strings."""

    class Python2Pickler(pickle._Pickler):
        dispatch = dict(pickle._Pickler.dispatch)

        def save_string(self, obj):
            text = obj if isinstance(obj, bytes) else obj.encode("ascii")
            self.write(pickle.BINSTRING + len(text).to_bytes(4, "little") + text)
            self.memoize(obj)

        dispatch[bytes] = dispatch[str] = save_string

    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump({b"data": data, b"labels": labels})
    return stream.getvalue()


COHEN_FORMAT = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n{}"
QCRS_FORMAT = "idx\tlabel\tpredict\tradius\tcorrect\tbest_sigma\tpABar\ttime\n{}"


@pytest.fixture
def results(tmp_path):
    """Runs of Cohen's and QCRS's programs over the same two images, and one over others."""
    lines = "0\t3\t3\t0.2\t1\t1.5\n1\t8\t8\t0.3\t1\t1.5\n"
    (tmp_path / "cohen_a.tsv").write_text(COHEN_FORMAT.format(lines))
    lines = "0\t3\t3\t0.9\t1\t0.4\t0.9\t0:00:05\n1\t8\t-1\t0.0\t0\t0.5\t0.4\t0:00:06\n"
    (tmp_path / "qcrs.tsv").write_text(QCRS_FORMAT.format(lines))
    (tmp_path / "others.tsv").write_text(COHEN_FORMAT.format("0\t3\t3\t0.2\t1\t1.5\n2\t1\t1\t2.0\t1\t1.5\n"))
    return tmp_path


def unwrapped(text):
    return " ".join(text.split())


RADII = ["--radii", "0", "0.25", "0.5"]


def test_table_on_the_terminal(results):
    lines = qcrs_jax("table", "cohen_a.tsv", "qcrs.tsv", *RADII, cwd=results).stdout.splitlines()
    assert lines[0] == "2 images, 0 to 1"
    header, cohen, qcrs = lines[2], lines[4], lines[6]  # below each its intervals
    assert re.split("  +", header)[:5] == ["run", "ACR", "r = 0", "r = 0.25", "r = 0.5"]
    # ACR .25 and .45; accuracy at 0: 1 and .5; at .25: .5 both; at .5: 0 and .5
    assert cohen.split() == ["cohen_a.tsv", "0.2500", "*1.000", "*0.500", "0.000", "0.000", "-", "1.50"]
    assert qcrs.split() == ["qcrs.tsv", "*0.4500", "0.500", "*0.500", "*0.500", "0.500", "-", "5.50"]


def test_table_in_markdown(results):
    lines = qcrs_jax("table", "cohen_a.tsv", "qcrs.tsv", *RADII, "--format", "markdown", cwd=results).stdout
    assert "| run | ACR | r = 0 | r = 0.25 | r = 0.5 | abstains | samples | median s |\n| --- | ---: |" in lines
    assert "| cohen_a.tsv | 0.2500 | **1.000** | **0.500** | 0.000 | 0.000 | - | 1.50 |\n" in lines
    assert "| qcrs.tsv | **0.4500** | 0.500 | **0.500** | **0.500** | 0.500 | - | 5.50 |\n" in lines


def test_table_in_latex(results):
    text = qcrs_jax("table", "cohen_a.tsv", "qcrs.tsv", *RADII, "--format", "latex", cwd=results).stdout
    assert r"run & ACR & $r = 0$ & $r = 0.25$ & $r = 0.5$ & abstains & samples & median s \\" in text
    assert r"cohen\_a.tsv & 0.2500 & \textbf{1.000} & \textbf{0.500} & 0.000 & 0.000 & - & 1.50 \\" in text
    assert r"qcrs.tsv & \textbf{0.4500} & 0.500" in text
    begin, end = text.index(r"\begin{tabular}"), text.index(r"\end{tabular}") + len(r"\end{tabular}")
    outside = (text[:begin] + text[end:]).splitlines()
    assert all(line.startswith("%") for line in outside if line), "everything else is a comment"


def test_table_in_csv(results):
    text = qcrs_jax("table", "cohen_a.tsv", "qcrs.tsv", "others.tsv", *RADII, "--format", "csv", cwd=results).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(r["run"], r["image_set"]) for r in rows] == [
        ("cohen_a.tsv", "1"),
        ("qcrs.tsv", "1"),
        ("others.tsv", "2"),
    ]
    assert float(rows[1]["acr"]) == 0.45 and float(rows[1]["certified_accuracy_0.5"]) == 0.5
    assert rows[1]["samples"] == "nan" and float(rows[1]["seconds"]) == 5.5
    assert rows[1]["acr_low"] == "nan" and float(rows[1]["certified_accuracy_0.5_low"]) < 0.5
    assert [r["guarantee"] for r in rows] == ["", INPUT_SPECIFIC, ""]


def test_a_single_run_has_nothing_marked(results):
    assert "*" not in qcrs_jax("table", "qcrs.tsv", cwd=results).stdout


@pytest.mark.parametrize("format", ["terminal", "markdown", "latex"])
def test_different_images_are_kept_apart_with_a_warning(results, format):
    words = ["table", "cohen_a.tsv", "others.tsv", "qcrs.tsv", "--format", format]
    text = qcrs_jax(*words, cwd=results).stdout
    assert "2 different sets of images" in text and "do not compare figures" in unwrapped(text)
    assert text.index("cohen") < text.index("qcrs.tsv") < text.index("others.tsv")
    first, second = text.index("2 images, 0 to 1"), text.index("2 images, 0 to 2")
    assert first < text.index("qcrs.tsv") < second < text.index("others.tsv")
    text = qcrs_jax("table", "cohen_a.tsv", "qcrs.tsv", "--format", format, cwd=results).stdout
    assert "different sets" not in text


def test_the_guarantee_is_stated_where_sigma_is_chosen_per_input(results, certified):
    held_fixed = "certificate holds for the classifier smoothed with that input's sigma"
    assert held_fixed in unwrapped(qcrs_jax("table", "qcrs.tsv", "cohen_a.tsv", cwd=results).stdout)
    assert held_fixed not in unwrapped(qcrs_jax("table", "cohen_a.tsv", cwd=results).stdout)
    text = unwrapped(qcrs_jax("table", "golden.tsv", "cohen.tsv", cwd=certified).stdout)
    assert held_fixed in text and "alpha = 0.001; over 3 images expect up to 0.003 wrong ones" in text
    text = unwrapped(qcrs_jax("table", "cohen.tsv", cwd=certified).stdout)
    assert held_fixed not in text and "alpha = 0.001" in text


def test_table_of_classes(certified):
    text = qcrs_jax("table", "golden.tsv", "--classes", cwd=certified).stdout
    assert re.findall(r"^(\w+) +(\d+) ", text, re.MULTILINE)[-3:] == [("1", "1"), ("4", "2"), ("all", "3")]


def test_table_writes_a_file(results):
    printed = qcrs_jax("table", "qcrs.tsv", cwd=results).stdout
    assert qcrs_jax("table", "qcrs.tsv", "--out", "t.txt", cwd=results).stdout == ""
    assert (results / "t.txt").read_text() == printed
    assert "nowhere" in refused("table", "qcrs.tsv", "--out", "nowhere/t.txt", cwd=results)
    before = (results / "qcrs.tsv").read_bytes()
    assert "would replace" in refused("table", "qcrs.tsv", "--out", "qcrs.tsv", cwd=results)
    (results / "cohen_a.tsv.json").write_text("{}")
    assert "would replace" in refused("table", "qcrs.tsv", "--out", "cohen_a.tsv", cwd=results)
    assert (results / "qcrs.tsv").read_bytes() == before


@pytest.mark.parametrize("command", [["table"], ["plot", "--out", "p.png"]])
def test_results_that_cannot_be_read_are_named(results, command):
    (results / "empty.tsv").write_text(COHEN_FORMAT.format(""))
    (results / "bad.tsv").write_text(COHEN_FORMAT.format("0\t3\t3\t0.2\t0\t1.5\n"))
    assert "none.tsv" in refused(*command, "none.tsv", cwd=results)
    assert "bad.tsv, line 2: " in refused(*command, "bad.tsv", cwd=results)
    assert "empty.tsv: holds no results yet" in refused(*command, "empty.tsv", cwd=results)


def test_the_table_of_a_results_file_computes_nothing(results):
    code = (
        "import sys\nfrom qcrs_jax.experiments.cli import main\n"
        "assert main(['table', 'cohen_a.tsv', 'qcrs.tsv']) == 0\n"
        "assert main(['plot', 'cohen_a.tsv', 'qcrs.tsv', '--out', 'p.svg']) == 0\n"
        "found = [m for m in sys.modules if m.split('.')[0] in ('jaxlib', 'flax', 'torch')]\n"
        "assert not found and 'qcrs_jax.certification.certificate' not in sys.modules, found"
    )
    subprocess.run([sys.executable, "-c", code], cwd=results, check=True, capture_output=True)


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG\r\n"), ("pdf", b"%PDF-"), ("svg", b"<?xml")])
def test_plot(results, ending, magic):
    done = qcrs_jax("plot", "cohen_a.tsv", "qcrs.tsv", "--out", f"p.{ending}", cwd=results)
    content = (results / f"p.{ending}").read_bytes()
    assert content.startswith(magic) and len(content) > 3000
    assert done.stdout.strip() == f"p.{ending}"


def test_plot_writes_the_acr_and_warns_of_different_images(results, monkeypatch):
    import matplotlib

    from qcrs_jax.experiments.report import plot

    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text stays text
    paths = [results / "cohen_a.tsv", results / "qcrs.tsv"]
    plot.plot(paths, results / "p.svg", names=["first name", "second name"])
    text = (results / "p.svg").read_text()
    assert "first name: ACR 0.2500" in text and "second name: ACR 0.4500" in text
    assert "not comparable" not in text
    plot.plot([*paths, results / "others.tsv"], results / "p.svg")
    assert "not comparable" in (results / "p.svg").read_text()


def test_impossible_plots_are_refused(results):
    for name in ("p.jpeg", "p"):
        assert ".png, .pdf or .svg" in refused("plot", "qcrs.tsv", "--out", name, cwd=results)
    assert "--names has 2 entries for 1" in refused(
        "plot", "qcrs.tsv", "--out", "p.png", "--names", "a", "b", cwd=results
    )
    assert "nowhere" in refused("plot", "qcrs.tsv", "--out", "nowhere/p.png", cwd=results)
    assert not list(results.glob("p*"))


def test_demo(tmp_path, monkeypatch, capsys):
    small = "--dataset npz --sigma 0.25 --N 100 --N0 20 --gradient_n 20 --skip 250 --macer".split()
    monkeypatch.setattr(demo, "COMMON", small)
    assert cli.main(["demo", "--out", str(tmp_path / "demo")]) == 0
    text = capsys.readouterr().out
    runs = [read_run(tmp_path / "demo" / f"{name}.tsv") for name in ("cohen", "bisection", "bayesian")]
    for run in runs:
        assert [r.idx for r in run.records] == [0, 250]
        assert_certificates(run.path, n=100)
    assert runs[0].images == runs[1].images
    assert {r.sigma for r in runs[0].records} == {0.25} and runs[1].input_specific
    assert "Cohen, sigma 0.25 (cohen.tsv)" in text and "QCRS bayesian, sigma 0.25 (bayesian.tsv)" in text
    assert (tmp_path / "demo/certified_accuracy.png").read_bytes().startswith(b"\x89PNG")
    # The printed commands are commands of this program.
    printed = [line.split()[1:] for line in text.splitlines() if line.startswith("qcrs-jax ")]
    assert [words[0] for words in printed] == ["certify"] * 3
    assert cli.main(printed[0]) == 0
    assert "2 of 2 images are done" in capsys.readouterr().out


def test_the_demo_as_it_ships_parses():
    parser = cli.parser_of("certify")
    for flags in demo.RUNS.values():
        args = parser.parse_args([demo.CHECKPOINT, "r.tsv", "--data_dir", str(demo.IMAGES), *demo.COMMON, *flags])
        assert request_of(args).n == 10_000
        assert resolve(args.checkpoint).is_file() and args.data_dir.is_file()


def test_every_data_set_can_be_asked_for():
    parser = cli.parser_of("certify")
    for name in DATASETS:
        words = f"c r --sigma 0.5 --dataset {name}".split()
        assert sweep_of(parser.parse_args(words)).data.dataset == name


def test_every_preset_of_ddrs_can_be_asked_for_and_changed():
    parser = cli.parser_of("certify")
    (action,) = [a for a in parser.complete()._actions if a.dest == "ddrs_preset"]
    assert sorted(action.choices) == sorted(PRESETS)
    words = "c r --method ddrs --sigma 0.5 --left 0.1 --ddrs_preset paper --ddrs_draws 8 --ddrs_decay".split()
    request = request_of(parser.parse_args(words))
    assert request.search == DDRS(0.1, 1.75, 900, 8, 1e-4, True, clamp=0.02)


@pytest.mark.parametrize("name", ["cohen", "golden", "bayesian", "ddrs"])
def test_a_run_of_format_1_goes_on_and_is_finished_in_format_2(certified, name):
    old = certified / f"old_{name}.tsv"
    old.write_bytes((certified / f"{name}.tsv").read_bytes())
    content = json.loads((certified / f"{name}.tsv.json").read_text())
    before = as_format_1(content)
    sidecar = old.with_name(f"{old.name}.json")
    sidecar.write_text(json.dumps(before))
    assert present(before)["request"] == content["request"] and "format" not in before
    ascent = "--method ddrs --ddrs_steps 4 --ddrs_draws 10 --ddrs_step_size 0.1".split()
    flags = {"cohen": ["--method", "cohen"], "ddrs": ascent}.get(name, ["--search", name])
    words = ["certify", "lenet.pth", old.name, *SMALL, *flags]
    assert "3 of 3 images are done" in qcrs_jax(*words, "--max", 3, cwd=certified).stdout
    finished = json.loads(sidecar.read_text())
    assert finished["format"] == 2 and finished["request"] == content["request"]
    assert "alpha" in refused(*words, "--max", 3, "--alpha", 0.1, cwd=certified)


def test_another_ascent_is_another_configuration(certified):
    words = [*SMALL, *"--method ddrs --ddrs_steps 5 --ddrs_draws 10 --ddrs_step_size 0.1 --max 3".split()]
    assert "--ddrs_steps (search.steps): 4 in the file, 5 now" in refused(
        "certify", "lenet.pth", "ddrs.tsv", *words, cwd=certified
    )


DATA = ["--dataset", "npz", "--data_dir", "data.npz"]


@pytest.fixture
def crowded(tmp_path):
    """A run over six images a step of a grey level apart, whose balls overlap; Cohen's columns alone."""
    x = np.zeros((6, 4, 4), np.uint8)
    x[:, 0, 0] = np.arange(6) * 51  # 0.2 apart
    np.savez(tmp_path / "data.npz", x=x, y=[0, 1, 1, 0, 1, 0])
    rows = ["0 0 0 0.3", "1 1 1 0.2", "2 1 1 0.3", "3 0 0 0.15", "4 1 -1 0.0", "5 0 0 0.05"]
    lines = ["\t".join([*row.split(), str(int(row.split()[1] == row.split()[2])), "1.5"]) + "\n" for row in rows]
    (tmp_path / "run.tsv").write_text(COHEN_FORMAT.format("".join(lines)))
    return tmp_path


def test_memory_trims_a_run_and_leaves_it_as_it_is(crowded):
    before = (crowded / "run.tsv").read_bytes()
    text = qcrs_jax("memory", "run.tsv", *DATA, "--out", "new/memory.tsv", cwd=crowded).stdout
    assert "of 6 images 1 took the class of an earlier ball, 2 others were trimmed" in text
    assert "Memory-based: inside a ball that it has stored" in unwrapped(text)
    run = read_run(crowded / "new/memory.tsv")
    assert [r.predict for r in run.records] == [0, 0, 1, 0, -1, 0]
    np.testing.assert_allclose([r.radius for r in run.records], [0.3, 0.1, 0.1, 0.1, 0, 0.05], rtol=1e-6)
    assert [r.correct for r in run.records] == [True, False, True, True, False, True]
    assert run.records[0].seconds == 1.5 and run.records[0].counts is None and run.records[0].sigma is None
    source = run.request["stored_balls"]
    assert (source["source"], source["source_sha256"]) == ("run.tsv", hashlib.sha256(before).hexdigest())
    assert (crowded / "run.tsv").read_bytes() == before
    text = qcrs_jax("table", "run.tsv", "new/memory.tsv", cwd=crowded).stdout
    assert "memory-based (memory.tsv)" in text and "different sets" not in text
    qcrs_jax("plot", "run.tsv", "new/memory.tsv", "--out", "p.svg", cwd=crowded)


def test_memory_keeps_all_that_a_run_of_ours_has(certified):
    before = read_run(certified / "ddrs.tsv")
    text = qcrs_jax("memory", "ddrs.tsv", *DATA, "--out", "ddrs_memory.tsv", cwd=certified).stdout
    after = read_run(certified / "ddrs_memory.tsv")
    assert after.records == before.records  # random images are far apart
    assert {k: v for k, v in after.request.items() if k != "stored_balls"} == before.request
    assert "DDRS, sigma 0.25, memory-based (ddrs_memory.tsv)" in text
    assert after.sidecar["provenance"]["devices"] == before.sidecar["provenance"]["devices"]
    # It is no run of certify to go on with, and none to replace.
    words = [*SMALL, *"--method ddrs --ddrs_steps 4 --ddrs_draws 10 --ddrs_step_size 0.1 --max 3".split()]
    assert "memory" in refused("certify", "lenet.pth", "ddrs_memory.tsv", *words, cwd=certified)
    content = (certified / "ddrs_memory.tsv").read_bytes()
    for out in ("ddrs_memory.tsv", "ddrs.tsv"):
        assert "exists" in refused("memory", "golden.tsv", *DATA, "--out", out, cwd=certified)
    assert (certified / "ddrs_memory.tsv").read_bytes() == content
    again = refused("memory", "ddrs_memory.tsv", *DATA, "--out", "again.tsv", cwd=certified)
    assert "memory-based already" in again and not (certified / "again.tsv").exists()


def test_memory_refuses_another_data_set(crowded, certified):
    message = refused(
        "memory", "run.tsv", "--dataset", "npz", "--data_dir", certified / "data.npz", "--out", "m.tsv", cwd=crowded
    )
    assert "image 0 has label 0" in message and "label 4" in message
    message = refused("memory", certified / "cohen.tsv", *DATA, "--out", "m.tsv", cwd=crowded)
    assert "cohen.tsv: was made of another data set" in message
    (crowded / "predictions.tsv").write_text("idx\tlabel\tpredict\tcorrect\ttime\n0\t0\t0\t1\t1.5\n")
    assert "have no radii" in refused("memory", "predictions.tsv", *DATA, "--out", "m.tsv", cwd=crowded)
    (crowded / "long.tsv").write_text(COHEN_FORMAT.format("6\t0\t0\t0.1\t1\t1.5\n"))
    assert "there is none" in refused("memory", "long.tsv", *DATA, "--out", "m.tsv", cwd=crowded)
    (crowded / "empty.tsv").write_text(COHEN_FORMAT.format(""))
    assert "holds no results yet" in refused("memory", "empty.tsv", *DATA, "--out", "m.tsv", cwd=crowded)
    assert not list(crowded.glob("m.tsv*"))


@pytest.fixture
def folder(here):
    """Ten grey images, one in each class, and the words that certify the first three."""
    for i in range(10):
        (here / "images" / f"class{i}").mkdir(parents=True)
        Image.fromarray(np.full((28, 28), 20 * i, np.uint8)).save(here / "images" / f"class{i}" / "0.png")
    words = ["certify", "lenet.pth", "r.tsv", "--dataset", "folder", "--data_dir", "images", "--max", "3"]
    return here / "images", [*words, *"--macer --method cohen --sigma 0.25 --N 50 --N0 5".split()]


@pytest.mark.parametrize("damage", ["cut", "small"])
def test_an_image_that_cannot_be_read_stops_the_run_or_is_left_out(here, folder, damage):
    images, words = folder
    bad = images / "class1" / "0.png"
    if damage == "cut":
        bad.write_bytes(bad.read_bytes()[:40])
    else:
        Image.fromarray(np.zeros((20, 28), np.uint8)).save(bad)
    message = refused(*words, cwd=here)
    assert "image 1" in message and "class1/0.png" in message and "1 results so far stay in r.tsv" in message
    assert [r.idx for r in read_run(here / "r.tsv").records] == [0]
    result = qcrs_jax(*words, "--on_error", "skip", cwd=here)
    assert "image 1 is left out" in result.stdout + result.stderr
    assert "1 of 3 images were left out; the figures are over the other 2" in result.stdout
    assert [r.idx for r in read_run(here / "r.tsv").records] == [0, 2]
    assert len(read_run(here / "r.tsv").request["dataset"]["class_names"]) == 10


def test_the_first_image_may_be_the_damaged_one(here, folder):
    images, words = folder
    sound = (images / "class0" / "0.png").read_bytes()
    (images / "class0" / "0.png").write_bytes(bytes(len(sound)))
    assert "class0/0.png: not an image" in refused(*words, cwd=here)
    assert not (here / "r.tsv").exists()
    qcrs_jax(*words, "--on_error", "skip", cwd=here)
    assert [r.idx for r in read_run(here / "r.tsv").records] == [1, 2]
    words = [*words, "--on_error", "skip"]
    budget = [*words[:2], "budget.tsv", *words[3:], "--budget", 300]
    qcrs_jax(*budget, cwd=here)
    whole = lines(here / "budget.tsv")
    (images / "class0" / "0.png").write_bytes(sound)  # too late: the budget is shared
    cut(here / "budget.tsv", "".join((here / "budget.tsv").read_text().splitlines(keepends=True)[:2]))
    assert "1 of 3 images were left out" in qcrs_jax(*budget, cwd=here).stdout
    assert lines(here / "budget.tsv") == whole and len(whole) == 3
    for i in range(3):
        (images / f"class{i}" / "0.png").write_bytes(b"damaged")
    words[2] = "none.tsv"
    assert "all 3 images were left out" in refused(*words, cwd=here)


def test_labels_that_do_not_fit_stop_the_run_before_it_starts_or_are_left_out(here):
    x = np.load(here / "data.npz")["x"]
    np.savez(here / "data.npz", x=x, y=[4, 10, 4, 3, 4, 5], class_names=[str(i) for i in range(10)])
    words = ["certify", "lenet.pth", "r.tsv", *SMALL, "--method", "cohen", "--max", 3]
    assert "data.npz: image 1 has label 10" in refused(*words, cwd=here)
    assert not (here / "r.tsv").exists()
    qcrs_jax(*words, "--on_error", "skip", cwd=here)
    assert [r.idx for r in read_run(here / "r.tsv").records] == [0, 2]


def test_images_of_other_sizes_are_resized_and_cut(here, folder):
    images, words = folder
    Image.fromarray(np.full((70, 56), 20, np.uint8)).save(images / "class1" / "0.png")
    result = qcrs_jax(*words, "--resize", 28, cwd=here)
    assert len(read_run(here / "r.tsv").records) == 3
    assert "folder (images): 3 of 10 images; classes class0, class1, class2" in result.stdout
    assert "--resize 20: must be at least 28" in refused(*words[:2], "other.tsv", *words[3:], "--resize", 20, cwd=here)
    result = qcrs_jax(
        "convert", "lenet.pth", "out", "--check", "folder", "--data_dir", "images", "--resize", 28, cwd=here
    )
    assert "on 1 images of folder" in result.stdout


def test_grey_images_among_those_of_a_network_that_takes_colours():
    from qcrs_jax.convert.check import fit_image
    from qcrs_jax.data.load import Dataset
    from qcrs_jax.errors import UserError
    from qcrs_jax.models import Spec

    spec = Spec("cifar_resnet20", 10, (32, 32, 3), (0.0,), (1.0,))
    dataset = Dataset("d", "test", "here", ["c"], np.zeros(1, int), np.zeros, "", files=[Path("c/0.png")])
    grey = np.random.default_rng(0).random((32, 32, 1)).astype(np.float32)
    np.testing.assert_array_equal(fit_image(spec, dataset, 0, grey, "net.pth"), np.concatenate([grey] * 3, axis=-1))
    with pytest.raises(
        UserError, match=r"net\.pth takes images of shape \(32, 32, 3\), but c/0\.png has shape \(31, 32, 1\)"
    ):
        fit_image(spec, dataset, 0, grey[1:], "net.pth")


def test_the_next_image_is_read_while_one_is_certified():
    import threading

    reading = [threading.Event() for _ in range(3)]

    class Images:
        def __getitem__(self, index):
            reading[index].set()
            return index

    for index, read in pipeline.read_ahead(Images().__getitem__, range(3)):
        assert read() == index
        # The body of the loop, where an image is certified: the reader is at the next one already.
        assert index == 2 or reading[index + 1].wait(10)
