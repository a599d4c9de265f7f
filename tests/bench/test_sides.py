"""The comparison of sides: trials, rates, the time limit, and the sides themselves."""

import itertools

import jax
import numpy as np
import pytest
from with_torch import torch

from qcrs_jax.experiments.bench import gpu, ours, theirs
from qcrs_jax.experiments.bench.networks import Network
from qcrs_jax.experiments.bench.sides import Clock, Program, Result, Side, Trial, climb, compare

SMALL = Network("cifar_resnet8", 10, (32, 32, 3), (8,))


def walked(axes, rate_of):
    """The options that are tried, in order, and the best."""
    climbing, tried = climb(axes), []
    options = next(climbing)
    while True:
        tried.append(options)
        try:
            options = climbing.send(rate_of(options))
        except StopIteration:
            return tried, max(tried, key=rate_of)


def test_one_option_after_another_is_tried_from_the_best_so_far():
    rates = {(False, "a"): 1, (True, "a"): 2, (True, "b"): 3}
    tried, best = walked({"flag": (False, True), "word": ("a", "b")}, lambda o: rates[o["flag"], o["word"]])
    assert [tuple(options.values()) for options in tried] == list(rates)
    assert best == {"flag": True, "word": "b"}


@pytest.mark.parametrize(
    ("peak", "expected"), [(8, [2, 4, 8, 16]), (2, [2, 4, 1]), (1, [2, 4, 1]), (16, [2, 4, 8, 16])]
)
def test_numbers_are_tried_upwards_while_they_help_and_else_downwards(peak, expected):
    tried, best = walked({"batch": (2, 4, 8, 16, 1)}, lambda options: 1 / (1 + abs(options["batch"] - peak)))
    assert [options["batch"] for options in tried] == expected
    assert best["batch"] == peak


def side(name, rate_of, built=None):
    """A side whose programs take no time, by their own account."""

    def build(**options):
        if built is not None:
            built.append((name, options))
        if isinstance(rate_of(options), Exception):
            raise rate_of(options)
        return Program(lambda copies: copies / rate_of(options), 10, 0.5, 2**30)

    return Side(name, {"batch": (1, 2)}, build)


def test_sides_take_turns_and_a_trial_that_fails_is_recorded():
    built = []
    full = RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand more")
    sides = [
        side("a", lambda o: 1000.0 * o["batch"], built),
        side("b", lambda o: full if o["batch"] == 2 else 500.0, built),
        side("c", lambda o: full, built),
    ]
    a, b, c = compare(sides, seconds=0.1, turns=3)
    assert [(name, options["batch"]) for name, options in built] == list(itertools.product("abc", (1,))) + list(
        itertools.product("abc", (2,))
    )
    assert a.rate == pytest.approx(2000) and len(a.rates) == 3 and a.best.options == {"batch": 2}
    assert b.rate == pytest.approx(500) and b.trials[1].error == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    assert c.best is None and len(c.trials) == 2
    page = gpu.table([a, b, c])
    assert "| a | 2,000 | 2,000 to 2,000 | batch 2 | 0.5 s | 1.00 GiB | 2 |" in page
    assert "| c | left out: RuntimeError: RESOURCE_EXHAUSTED: out of memory |" in page


def test_sides_without_time_are_reported_as_left_out():
    first, second = compare(
        [side("a", lambda o: 10.0), side("b", lambda o: 10.0)], seconds=0.01, turns=1, clock=Clock(5.0)
    )
    assert first.best is not None and second.left_out == "no time" and second.trials == []
    assert "| b | left out: no time |" in gpu.table([first, second])
    nothing = compare([side("a", lambda o: 10.0)], seconds=0.01, turns=1, clock=Clock(0.0))
    assert nothing[0].left_out == "no time"


def test_ratios_are_of_ours_to_theirs_in_one_format():
    names = {"qcrs_jax, bfloat16": 30.0, "torch.compile, bfloat16": 20.0, "PyTorch eager, float32 (TF32)": 5.0}
    results = [Result(name, [], Trial({}), None, [rate]) for name, rate in names.items()]
    said = gpu.ratios(results)
    assert "qcrs_jax, bfloat16 / torch.compile, bfloat16: 1.50" in said and "float32 /" not in said


@pytest.mark.slow
def test_both_sides_run_one_network_folded_or_not():
    x = np.random.default_rng(0).uniform(size=(3, 32, 32, 3)).astype(np.float32)
    mean, std = (np.array(v, np.float32) for v in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))
    mine = np.asarray(SMALL.classifier().classify(jax.numpy.asarray(x)))
    for folded in (False, True):
        net = SMALL.torch()
        if folded:
            theirs.fold(net)
            assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
        with torch.no_grad():
            other = net(torch.from_numpy(((x - mean) / std).transpose(0, 3, 1, 2))).numpy()
        np.testing.assert_allclose(mine, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("weights", "compiler"), [("autocast", None), ("bfloat16", {"backend": "eager"})])
@pytest.mark.slow_for("bfloat16-compiler1")
def test_pytorch_counts_every_copy(weights, compiler):
    program = theirs.sampler(SMALL, torch.device("cpu"), 4, weights, True, compiler)
    assert program.copies == 4 and program.run(8) > 0


@pytest.mark.slow
def test_our_sampler_counts_with_several_images_in_step():
    program = ours.sampler(ours.cheap(10), SMALL, jax.devices()[0], 8, images=2)
    assert program.copies == 8 and program.run(16) > 0 and program.memory > 0
    with pytest.raises(ValueError, match="3 images do not share a batch of 8"):
        ours.sampler(ours.cheap(10), SMALL, jax.devices()[0], 8, images=3)


def test_without_cuda_ours_alone_is_timed():
    device, said = theirs.device_of("cuda")
    assert device is None and said == f"torch {torch.__version__} sees no CUDA: ours alone is timed"
    sides = gpu.sides_of(SMALL, jax.devices()[0], None)
    assert [side.name for side in sides] == ["qcrs_jax, bfloat16", "qcrs_jax, float32", "qcrs_jax, float32, highest"]


def test_on_a_gpu_the_command_compares_there(monkeypatch, capsys):
    """The devices are made up: only which way the command goes."""
    import qcrs_jax.sampling.devices
    from qcrs_jax.experiments import cli

    called = []
    monkeypatch.setattr(qcrs_jax.sampling.devices, "choose_devices", lambda: [type("Device", (), {"platform": "gpu"})])
    monkeypatch.setattr(gpu, "measure", lambda network, seconds, turns, **o: called.append(network.arch) or ["a table"])
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    assert cli.main(["benchmark", "--minutes", "5"]) == 0
    assert called == ["cifar_resnet110", "resnet50"] and capsys.readouterr().out == "a table\n" * 2


@pytest.mark.parametrize("word", ["size=3", "batch=many", "unrolled=perhaps", "compiler=best", "joined"])
def test_options_that_are_not_known_are_refused(word, capsys):
    from qcrs_jax.errors import UserError

    with pytest.raises(UserError, match=f"--try {word}: cannot be parsed"):
        gpu.axes_of(["batch=8,16", word])
    assert gpu.axes_of(["batch=8,16", "folded=yes", "layout=free"]) == {
        "batch": (8, 16),
        "folded": (True,),
        "layout": ("free",),
    }
