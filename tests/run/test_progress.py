"""What the progress bar says while a run goes on."""

import numpy as np

from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands import demo
from qcrs_jax.experiments.run.progress import Lines
from qcrs_jax.results.metrics import average_certified_radius, columns
from qcrs_jax.results.records import read_run


def test_the_bar_shows_the_acr_of_the_images_so_far_also_after_a_stop(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(Lines, "set_postfix_str", lambda bar, text: shown.append(text))  # no terminal here
    words = f"--dataset npz --data_dir {demo.IMAGES} --sigma 0.25 --method cohen --skip 20 --N 100 --N0 20".split()
    words += ["--seed", "0"]
    for end in ("60", "100"):
        assert cli.main(["certify", str(demo.CHECKPOINT), str(tmp_path / "r.tsv"), *words, "--max", end]) == 0
    correct, radius = columns(read_run(tmp_path / "r.tsv"))
    acrs = [average_certified_radius(correct[:m], radius[:m]) for m in range(1, 6)]
    assert shown == [f"ACR {acr:.4f}" for acr in acrs] and len(np.unique(shown)) > 2
