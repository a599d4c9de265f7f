"""Flags and help of all commands."""

import dataclasses
import re
import subprocess
import sys

import pytest
from program import PUBLISHED, qcrs_jax, refused

from qcrs_jax.data.load import DATASETS, name_of
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands.method import print_unused, request_of
from qcrs_jax.experiments.commands.sweep import sweep_of
from qcrs_jax.search.ddrs import DDRS, PRESETS

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
    monkeypatch.setenv("COLUMNS", "80")
    text = qcrs_jax("certify", "--help", cwd=tmp_path).stdout
    assert len(text.splitlines()) <= 55 and text.count("\n    qcrs-jax certify CHECKPOINT") == 3
    assert max(map(len, text.splitlines())) <= 80 and len(re.findall("^  --(?!help)", text, re.M)) == 12
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


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_flags_without_a_default_are_required(command):
    parser = cli.parser_of(command).complete()
    assert [action.dest for action in parser._actions if action.default is dataclasses.MISSING] == []


def test_a_command_without_its_sigma_says_so(here):
    for words in (["certify", "c", "r"], ["predict", "c", "r"], ["curve", "c", "r"], ["train", "out"]):
        assert "required: --sigma" in refused(*words, cwd=here)


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


@pytest.mark.parametrize("name", ["cohen", "macer"])
def test_published_flags_keep_their_meaning(name):
    parser = cli.parser_of("certify")
    args = parser.parse_args(PUBLISHED[name].split())
    request, sweep = request_of(args), sweep_of(args)
    assert (request.n0, request.n, request.alpha) == (100, 100_000, 0.001)
    assert (sweep.data.split, request.search.method, sweep.images.stop) == ("test", "qcrs", -1)
    assert name_of(args.data_dir) == "cifar10" and args.dataset is None  # of nothing that is named
    left, right, step, skip = {"cohen": (0.08, 0.9, 0.4, 1), "macer": (0.12, 1.9, 0.2, 20)}[name]
    assert (request.search.sigma_lower, request.search.sigma_upper, request.search.epsilon) == (left, right, 0.03)
    assert (args.epsilon_step, request.search.search_n, request.search.alpha) == (step, 500, 0.001)
    assert request.sigma == {"cohen": 0.25, "macer": 0.5}[name]
    assert sweep.images.skip == skip and sweep.network.macer == (name == "macer")


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


@pytest.mark.parametrize(
    "words, said",
    [
        ("--search bisection --evaluations 20", "because bisection has no such setting: --evaluations"),
        (
            "--search bayesian --epsilon 0.03 --ddrs_steps 3",
            "because bayesian has no such setting: --epsilon, --ddrs",
        ),
        ("--method cohen --left 0.1 --epsilon 0.03", "because cohen has no such setting: --epsilon"),
        ("--method ddrs --ddrs_steps 3 --gradient_n 50", "because ddrs has no such setting: --gradient_n"),
        ("--search golden --gradient_n 50 --right 0.9", ""),
    ],
)
def test_a_flag_of_another_search_is_noted(capsys, words, said):
    args = cli.arguments_of("certify", ["net.pth", "results.tsv", "--sigma", "0.25", *words.split()])
    print_unused(args, request_of(args).search)
    printed = capsys.readouterr().out
    assert said in printed and bool(said) == bool(printed)
