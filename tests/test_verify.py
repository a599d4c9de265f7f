"""Results files that are as they were computed, and such as were changed afterwards."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qcrs_jax.experiments import cli, demo

from qcrs_jax.records import checksum, sidecar_checksum

COMMAND = "zoo:fashion_mnist-lenet-sigma0.25"
DATA = f"--dataset npz --data_dir {demo.IMAGES} --sigma 0.25 --skip 100 --max 300 --N 300".split()
KINDS = {
    "golden": "certify --left 0.1 --right 0.6 --epsilon 0.2 --gradient_n 60",
    "budget": "certify --method cohen --budget 200 --stop_when_wrong",
    "tolerance": "certify --method cohen --tolerance 5% --simultaneous",
    "randomised": "certify --method cohen --bound randomised",
    "decide": "certify --method cohen --decide 0.3 --alpha 0.01",
    "soft": "certify --method cohen --certificate soft",
    "ddrs": "certify --method ddrs --ddrs_steps 2 --ddrs_draws 20",
    "bfloat16": "certify --search bayesian --gradient_n 30 --evaluations 3 --dtype bfloat16 --prng rbg",
    "shard": "certify --method cohen --shard 1/2",
    "predict": "predict",
    "curve": "curve --sigmas 0.1 0.5 3 --curve_n 50",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name, words in KINDS.items():
        command, *flags = words.split()
        data = DATA[:-2] if command == "curve" else DATA
        if name == "predict":  # and is extended below
            assert cli.main([command, COMMAND, str(root / f"{name}.tsv"), *data, "--max", "200"]) == 0
        assert cli.main([command, COMMAND, str(root / f"{name}.tsv"), *data, *flags]) == 0
    return root


@pytest.fixture
def copies(runs, tmp_path):
    for file in runs.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def verify(path, capsys, *flags):
    """The exit status and what was said."""
    status = cli.main(["verify", str(path), *map(str, flags)])
    said = capsys.readouterr()
    return status, said.out + said.err


def sum_up(path: Path, **changes):
    """Writes the present sums, as somebody might who changes a file and its sidecar."""
    sidecar = path.with_name(path.name + ".json")
    content = {**json.loads(sidecar.read_text()), **changes, "sha256": checksum(path)}
    sidecar.write_text(json.dumps({**content, "sidecar_sha256": sidecar_checksum(content)}))


@pytest.mark.parametrize("name", KINDS)
def test_what_was_computed_is_verified_and_no_edit_is(runs, copies, capsys, name):
    path = copies / f"{name}.tsv"
    status, text = verify(path, capsys, "--recount", 1)
    assert status == 0 and "drawn again" in text and text.rstrip().endswith("verified")
    lines = path.read_text().splitlines()
    columns, row = lines[0].split("\t"), lines[2].split("\t")
    for column, field in enumerate(row):
        if columns[column] == "time":
            continue
        changed = [*row]
        head, *rest = field.split(",")
        other = "0.5" if "." in head or head == "inf" else str(int(head) + 1)
        changed[column] = ",".join([other, *rest])
        path.write_text("\n".join([*lines[:2], "\t".join(changed), *lines[3:]]) + "\n")
        status, text = verify(path, capsys, "--recount", 0)
        assert status == 2, (columns[column], text)  # at the least the sum differs


def test_an_edit_that_mends_the_sum_shows_in_the_bounds_or_when_all_is_drawn_again(copies, capsys):
    path = copies / "golden.tsv"
    before = path.read_text()
    lines = [line.split("\t") for line in before.splitlines()]
    column = lines[0].index("radius")
    lines[1][column] = repr(float(lines[1][column]) + 0.01)
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    sum_up(path)
    status, text = verify(path, capsys, "--recount", 0)
    assert status == 2 and "image 0: radius is" in text and "by its counts" in text

    lines = [line.split("\t") for line in before.splitlines()]  # the line of another image, which is sound in itself
    for name in ("predict", "radius", "correct", "best_sigma", "pABar", "counts0", "counts"):
        lines[1][lines[0].index(name)] = lines[2][lines[0].index(name)]
    lines[1][lines[0].index("correct")] = str(int(lines[1][2] == lines[1][1]))
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    sum_up(path)
    assert verify(path, capsys, "--recount", 0)[0] == 0
    status, text = verify(path, capsys, "--recount", "all")
    assert status == 2 and "image 0: counts is" in text and "when it is drawn again" in text


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("randomised", {"u": "1e-09"}, "image 0: u is 1e-09, and "),
        ("randomised", {"best_sigma": "0.5"}, "image 0: sigma is 0.5, and 0.25 by"),
        ("budget", None, "image 0: is missing"),
        ("budget", {"n": "99999"}, "image 0: n is 99999, and "),
        ("curve", None, "image 0: has 3 lines, and 4 when"),
        ("curve", {"idx": "77777"}, "image 77777: is not one of the run's"),
        ("budget.tsv.pilot", {"mean": "3.5"}, "budget.tsv.pilot: image 0: mean is 3.5, and "),
    ],
)
def test_what_no_count_tells(copies, capsys, name, changes, message):
    path = copies / (f"{name}.tsv" if "." not in name else name)
    columns, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    rows[0] = [(changes or {}).get(column, field) for column, field in zip(columns, rows[0])]
    path.write_text("".join("\t".join(row) + "\n" for row in [columns, *(rows if changes else rows[1:])]))
    sum_up(path)
    flags = ("--recount", "all") if path.suffix == ".pilot" or name == "curve" else ("--recount", 1)
    status, text = verify(copies / path.name.removesuffix(".pilot"), capsys, *flags)
    assert status == 2 and message in text


@pytest.mark.parametrize(
    "part, key, value, message",
    [
        ("request", "alpha", 0.01, "by its counts"),
        ("request", "seed", 1, "seed: 1 in the sidecar, 0 by the inputs"),
        ("request", "classifier", {"weights_sha256": "0"}, "classifier.weights_sha256: '0' in the sidecar"),
        ("request", "noise", "coins", "noise: 'coins' in the sidecar"),
        ("account", None, "No certificate ever fails.", "what it says of the guarantee"),
        ("guarantee", None, "It holds for any perturbation.", "what it says of the guarantee"),
    ],
)
def test_a_changed_sidecar(copies, capsys, part, key, value, message):
    sidecar = copies / "randomised.tsv.json"
    content = json.loads(sidecar.read_text())
    changed = {part: {**content[part], key: value} if key else value}
    sum_up(copies / "randomised.tsv", **changed)
    status, text = verify(copies / "randomised.tsv", capsys, "--recount", 1)
    assert status == 2 and message in text
    sidecar.write_text(json.dumps({**content, "provenance": {**content["provenance"], "started": "yesterday"}}))
    status, text = verify(copies / "randomised.tsv", capsys, "--recount", 0)
    assert status == 2 and "randomised.tsv.json is not the one that was finished" in text
    del content["sha256"]
    sidecar.write_text(json.dumps(content))
    status, text = verify(copies / "randomised.tsv", capsys, "--recount", 0)
    assert status == 2 and "randomised.tsv.json: sha256 was taken out of it" in text


def test_a_shard_that_says_another_and_an_image_that_the_pilot_lacks(copies, capsys):
    sidecar = copies / "shard.tsv.json"
    content = json.loads(sidecar.read_text())
    content["request"]["shard"]["images"] = 2
    sidecar.write_text(json.dumps(content))
    status, text = verify(copies / "shard.tsv", capsys)
    assert status == 2 and "shard.images: 2 in the sidecar, 3 by the inputs" in text
    pilot = copies / "budget.tsv.pilot"
    lines = pilot.read_text().splitlines(keepends=True)
    pilot.write_text("".join([lines[0], *lines[2:]]))
    status, text = verify(copies / "budget.tsv", capsys)
    assert status == 2 and "image 0: is not in the pilot" in text and "budget.tsv.pilot: image 0: is missing" in text


def test_inputs_that_are_elsewhere(copies, capsys, tmp_path):
    status, text = verify(copies / "predict.tsv", capsys, "--data_dir", tmp_path / "no.npz")
    assert status == 2 and "--recount 0" in text and "no.npz" in text
    moved = tmp_path / demo.IMAGES.name
    moved.write_bytes(demo.IMAGES.read_bytes())
    sidecar = copies / "predict.tsv.json"
    content = json.loads(sidecar.read_text())
    content["provenance"]["arguments"] |= {"distributed": True, "coordinator": "there:1", "process": [1, 2]}
    content["provenance"]["batch"] = 7  # of all this only the rounding could depend on it
    sum_up(copies / "predict.tsv", **content)
    assert verify(copies / "predict.tsv", capsys, "--data_dir", moved)[0] == 0


def test_an_image_that_was_replaced_by_one_of_the_same_size(tmp_path, capsys):
    for name in range(10):
        (tmp_path / "images" / str(name)).mkdir(parents=True)
    for level in range(3):
        image = Image.fromarray(np.full((28, 28), 80 * level, np.uint8))
        image.save(tmp_path / "images" / "0" / f"{level}.png", compress_level=0)
    path, first = tmp_path / "r.tsv", tmp_path / "images" / "0" / "0.png"
    flags = f"--dataset folder --data_dir {tmp_path / 'images'} --sigma 0.25 --N 300 --method cohen".split()
    command = ["certify", COMMAND, str(path), *flags, "--max"]
    assert cli.main([*command, "1"]) == cli.main([*command, "2"]) == 0
    assert verify(path, capsys)[0] == 0
    content = path.read_bytes(), path.with_name("r.tsv.json").read_bytes()
    first.write_bytes((tmp_path / "images" / "0" / "2.png").read_bytes())
    status, text = verify(path, capsys)
    assert status == 2 and "the sum of their pixels is another" in text
    assert cli.main([*command, "3"]) == 2
    assert "r.tsv: its 2 images are no longer those that it was made of" in capsys.readouterr().err
    assert content == (path.read_bytes(), path.with_name("r.tsv.json").read_bytes())
    first.write_bytes(bytes(first.stat().st_size))
    status, text = verify(path, capsys)
    assert status == 2 and "an image of the run cannot be read" in text and "0.png" in text


def test_a_memory_based_file_is_made_again(copies, capsys):
    path, source = copies / "memory.tsv", copies / "randomised.tsv"
    assert cli.main(["memory", str(source), "--out", str(path), *DATA[:4]]) == 0
    status, text = verify(path, capsys, "--recount", 1)
    assert status == 0 and "randomised.tsv: image" in text and "what `qcrs-jax memory` makes of randomised" in text
    before = path.read_text()
    path.write_text(before.replace("\t0.", "\t1.", 1))
    status, text = verify(path, capsys)
    assert status == 2 and "it is not what `qcrs-jax memory` makes of randomised.tsv" in text
    path.write_text(before)
    sidecar = path.with_name("memory.tsv.json")
    sidecar.write_text(sidecar.read_text().replace('"alpha": 0.001', '"alpha": 0.002'))
    assert verify(path, capsys)[0] == 2
    source.write_text(source.read_text() + "\n")
    status, text = verify(path, capsys)
    assert status == 2 and "randomised.tsv is not the file that it was made of" in text
    source.unlink()
    assert "memory.tsv: was made of randomised.tsv; put that beside it" in verify(path, capsys)[1]


def test_files_that_nothing_can_be_computed_from(tmp_path, capsys):
    path = tmp_path / "log"
    path.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.5\t1\t0:00:01\n")
    status, text = verify(path, capsys)
    assert status == 2 and "has no counts" in text
