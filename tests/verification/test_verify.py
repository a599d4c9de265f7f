"""Results files that are as they were computed, and such as were changed afterwards."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import ROOT, SHARED

from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands import demo
from qcrs_jax.experiments.verification import nudge
from qcrs_jax.experiments.verification.inputs import recorded_sweep
from qcrs_jax.experiments.verification.lines import recomputed_fields
from qcrs_jax.experiments.verification.trusted_paths import Where
from qcrs_jax.machine import usable_cpus
from qcrs_jax.results.records import checksum, read_run, read_sidecar, sidecar_checksum

COMMAND = "zoo:fashion_mnist-lenet-sigma0.25"
DATA = f"--dataset npz --data_dir {demo.IMAGES} --sigma 0.25 --skip 100 --max 300 --N 300".split()
KINDS = {
    "golden": "certify --left 0.1 --right 0.6 --epsilon 0.2 --gradient_n 60",
    "budget": "certify --method cohen --budget 200 --stop_when_wrong",
    "tolerance": "certify --method cohen --tolerance 5% --simultaneous",
    "randomised": "certify --method cohen --bound randomised",
    "classes": "certify --search golden --left 0.1 --right 0.6 --epsilon 0.2 --gradient_n 60 --bound classes",
    "decide": "certify --method cohen --decide 0.3 --alpha 0.01",
    "soft": "certify --method cohen --certificate soft",
    "ddrs": "certify --method ddrs --ddrs_steps 2 --ddrs_draws 20",
    "bfloat16": "certify --search bayesian --gradient_n 30 --evaluations 3 --dtype bfloat16 --prng rbg",
    "shard": "certify --method cohen --shard 1/2",
    "predict": "predict --seed 0",
    "curve": "curve --sigmas 0.1 0.5 3 --curve_n 50",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A function of a kind: the files of a run of it, which is made once."""

    @functools.cache
    def files(kind):
        folder = tmp_path_factory.mktemp(kind)
        command, *flags = KINDS[kind].split()
        data = DATA[:-2] if command == "curve" else DATA
        words = [command, COMMAND, str(folder / f"{kind}.tsv"), *data]
        if kind == "predict":  # and is extended below
            assert cli.main([*words, "--seed", "0", "--max", "200"]) == 0
        assert cli.main([*words, *flags]) == 0
        return list(folder.iterdir())

    return files


class Copies:
    """A folder of results: a run is made and copied into it when one of its files is asked for."""

    def __init__(self, runs, folder):
        self.runs, self.folder, self.copied = runs, folder, set()

    def __truediv__(self, name):
        kind = name.partition(".")[0]
        if kind in KINDS and kind not in self.copied:
            self.copied.add(kind)
            for file in self.runs(kind):
                (self.folder / file.name).write_bytes(file.read_bytes())
        return self.folder / name


@pytest.fixture
def copies(runs, tmp_path):
    return Copies(runs, tmp_path)


def verify(path, capsys, *flags):
    """The exit status and what was said."""
    status = cli.main(["verify", str(path), *map(str, flags)])
    said = capsys.readouterr()
    return status, said.out + said.err


def sum_up(path: Path, **changes):
    """Writes the hashes of the changed file and sidecar, as a forger would."""
    sidecar = path.with_name(path.name + ".json")
    content = {**json.loads(sidecar.read_text()), **changes, "sha256": checksum(path)}
    sidecar.write_text(json.dumps({**content, "sidecar_sha256": sidecar_checksum(content)}))


@pytest.mark.slow_for("budget", "curve", "classes", "decide", "soft", "ddrs", "bfloat16", "tolerance")
@pytest.mark.parametrize("name", KINDS)
def test_unchanged_files_are_verified_and_edited_ones_refused(copies, capsys, name):
    path = copies / f"{name}.tsv"
    status, text = verify(path, capsys, "--recount", 1)
    assert status == 0 and "drawn again" in text and "verified" not in text
    missed = "50%" if name == "shard" else "66.7%"
    assert f"is missed with probability {missed}" in text.splitlines()[-1] and "consistent: " in text
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
        assert status == 2, (columns[column], text)  # at least the hash differs


@pytest.mark.slow
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
    assert status == 2 and "image 0: counts is" in text and "when drawn again" in text


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("randomised", {"u": "1e-09"}, "image 0: u is 1e-09, but "),
        ("randomised", {"best_sigma": "0.5"}, "image 0: sigma is 0.5, but 0.25 by"),
        pytest.param("budget", None, "image 0: is missing", marks=pytest.mark.slow),
        pytest.param("budget", {"n": "99999"}, "image 0: n is 99999, but ", marks=pytest.mark.slow),
        pytest.param("curve", None, "image 0: has 3 lines, but 4 when", marks=pytest.mark.slow),
        pytest.param("curve", {"idx": "77777"}, "image 77777: is not an image of the run", marks=pytest.mark.slow),
        pytest.param(
            "budget.tsv.pilot", {"mean": "3.5"}, "budget.tsv.pilot: image 0: mean is 3.5, but ", marks=pytest.mark.slow
        ),
    ],
)
def test_edits_that_the_counts_do_not_show_are_found(copies, capsys, name, changes, message):
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
        ("request", "seed", 1, "seed: 1 in the sidecar, 'committed, "),
        ("request", "classifier", {"weights_sha256": "0"}, "classifier.weights_sha256: '0' in the sidecar"),
        ("request", "noise", "coins", "noise: 'coins' in the sidecar"),
        ("account", None, "No certificate ever fails.", "its sentences on the guarantee"),
        ("guarantee", None, "It holds for any perturbation.", "its sentences on the guarantee"),
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
    assert status == 2 and "randomised.tsv.json was changed after the run was finished" in text
    del content["sha256"]
    sidecar.write_text(json.dumps(content))
    status, text = verify(copies / "randomised.tsv", capsys, "--recount", 0)
    assert status == 2 and "randomised.tsv.json: sha256 was taken out" in text


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
    flags = f"--dataset folder --data_dir {tmp_path / 'images'} --sigma 0.25 --N 300 --method cohen --seed 0".split()
    command = ["certify", COMMAND, str(path), *flags, "--max"]
    assert cli.main([*command, "1"]) == cli.main([*command, "2"]) == 0
    assert verify(path, capsys)[0] == 0
    content = path.read_bytes(), path.with_name("r.tsv.json").read_bytes()
    first.write_bytes((tmp_path / "images" / "0" / "2.png").read_bytes())
    status, text = verify(path, capsys)
    assert status == 2 and "the hash of their pixels differs" in text
    assert cli.main([*command, "3"]) == 2
    assert "r.tsv: the pixels of its 2 images have changed since" in capsys.readouterr().err
    assert content == (path.read_bytes(), path.with_name("r.tsv.json").read_bytes())
    first.write_bytes(bytes(first.stat().st_size))
    status, text = verify(path, capsys)
    assert status == 2 and "an image of the run cannot be read" in text and "0.png" in text


def test_a_memory_based_file_is_made_again(copies, capsys):
    path, source = copies / "memory.tsv", copies / "randomised.tsv"
    assert cli.main(["memory", str(source), "--out", str(path), *DATA[:4]]) == 0
    status, text = verify(path, capsys, "--recount", 1)
    assert status == 0 and "randomised.tsv: image" in text and "the result of `qcrs-jax memory` on randomised" in text
    before = path.read_text()
    path.write_text(before.replace("\t0.", "\t1.", 1))
    status, text = verify(path, capsys)
    assert status == 2 and "it differs from the result of `qcrs-jax memory` on randomised.tsv" in text
    path.write_text(before)
    sidecar = path.with_name("memory.tsv.json")
    sidecar.write_text(sidecar.read_text().replace('"alpha": 0.001', '"alpha": 0.002'))
    assert verify(path, capsys)[0] == 2
    source.write_text(source.read_text() + "\n")
    status, text = verify(path, capsys)
    assert status == 2 and "randomised.tsv is not the file that it was made from" in text
    source.unlink()
    assert "memory.tsv: was made from randomised.tsv, which is missing" in verify(path, capsys)[1]


def move(path: Path, idx: int, copies: int, stretch: float = 1.0):
    """Moves copies of an image into the class that the file certifies, and makes all anew that follows from it."""
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    column = lines[0].index
    (row,) = (line for line in lines[1:] if line[0] == str(idx))
    row[column("best_sigma")] = repr(float(np.float32(float(row[column("best_sigma")]) * stretch)))
    counts, top = [int(v) for v in row[column("counts")].split(",")], int(row[column("predict")])
    other = max((k for k in range(10) if k != top), key=lambda k: counts[k] * (1 if copies > 0 else -1))
    counts[top], counts[other] = counts[top] + copies, counts[other] - copies
    row[column("counts")] = ",".join(map(str, counts))
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    request = json.loads(path.with_name(path.name + ".json").read_text())["request"]
    record = next(record for record in read_run(path).records if record.idx == idx)
    for name, value in recomputed_fields(record, request).items():
        if (name := {"pa_lower": "pABar", "sigma": "best_sigma"}.get(name, name)) in lines[0]:
            row[column(name)] = repr(value)
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    sum_up(path)


def a_line_that_can_lose(path):
    """An image whose certified class has less than all copies."""
    return next(r.idx for r in read_run(path).records if 3 <= sorted(r.counts)[-2] and r.predict != -1)


@pytest.mark.parametrize("copies, status", [(1, 0), (-2, 0), (3, 2), (-30, 2)])
def test_near_ties_are_judged_by_the_rule_and_gains_are_found(copies, status, runs, tmp_path, capsys):
    path = Copies(runs, tmp_path) / "shard.tsv"
    idx = a_line_that_can_lose(path)
    move(path, idx, copies)
    found, text = verify(path, capsys, "--recount", "all")
    assert found == status, text
    assert f"image {idx} drawn again: {abs(copies)} of 400 copies in another class than in the file" in text
    assert "rule for near ties" in text
    if status:
        assert f"image {idx}: counts is" in text and "that is more than near ties" in text
    else:
        assert text.rstrip().endswith("all 2 lines were drawn again, 1 of them by the rule for near ties, and verified")


@pytest.mark.parametrize("stretch, status", [(1 + 1e-6, 0), (1.2, 2)])
def test_a_search_that_ends_at_another_sigma_is_judged_at_the_file_s_own(
    stretch, status, runs, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(nudge, "TURNS", 3)
    path = Copies(runs, tmp_path) / "golden.tsv"
    move(path, a_line_that_can_lose(path), 0, stretch)
    found, text = verify(path, capsys, "--recount", "all")
    assert found == status and "its sigma differs from the one chosen here" in text, text


@pytest.mark.slow
def test_another_platform_is_reported_and_another_noise_refused(copies, capsys):
    for name, status in (("shard", 0), ("bfloat16", 2)):  # whose noise is rbg's
        sidecar = copies / f"{name}.tsv.json"
        content = json.loads(sidecar.read_text())
        request = {**content["request"], "platform": "gpu, matmul precision None"}
        sum_up(copies / f"{name}.tsv", request=request)
        found, text = verify(copies / f"{name}.tsv", capsys, "--recount", 1)
        assert found == status and "gpu, matmul precision None" in text
        assert ("near ties may fall into other classes" in text) == (status == 0)


def test_the_batch_of_another_kind_of_device_is_not_taken(runs, tmp_path):
    path = Copies(runs, tmp_path) / "golden.tsv"
    content = read_sidecar(path)
    assert recorded_sweep(path, Where()).program.batch_size == content["provenance"]["batch"]
    sum_up(path, request={**content["request"], "platform": "gpu, matmul precision None"})
    assert recorded_sweep(path, Where()).program.batch_size is None


@pytest.mark.slow
def test_verify_uses_a_device_for_each_core(runs, tmp_path):
    path = Copies(runs, tmp_path) / "golden.tsv"
    code = f"""
from pathlib import Path
import jax
from qcrs_jax.experiments.verification.inputs import recorded_sweep
from qcrs_jax.experiments.verification.trusted_paths import Where
recorded_sweep(Path({str(path)!r}), Where())
print(jax.local_device_count())
"""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(found.stdout) == usable_cpus()


def test_the_output_states_the_probability_of_finding_a_forged_line(copies, capsys):
    path = copies / "golden.tsv"
    status, text = verify(path, capsys, "--recount", 1, "--recount_seed", 7)
    assert (
        status == 0 and "1 of 3 lines drawn again: a single forged line would be found with probability 33.3%" in text
    )
    assert (
        "chosen by seed 7 (given) of --recount_seed" in text and "not so if the maker of the file knew the seed" in text
    )
    assert "QCRS golden, sigma 0.25 in a bracket of 0.1 to 0.6, N0 = 100, N = 300, alpha = 0.001" in text
    assert "images 0, 100, ... of fashion_mnist_test_500 (test), committed seed " in text
    assert (
        "--recount all takes about" in text
        and "consistent: its 3 lines agree with their counts; 1 of them were drawn again; a single forged" in text
    )
    chosen = next(line for line in text.splitlines() if "drawn again: the same" in line)
    assert chosen in verify(path, capsys, "--recount", 1, "--recount_seed", 7)[1]
    assert "chosen by seed" in verify(path, capsys, "--recount", 1)[1]
    status, text = verify(path, capsys, "--recount", 0)
    assert status == 0 and "verified" not in text and "forged counts would not be found" in text
    assert text.rstrip().endswith(
        "consistent: its 3 lines agree with their counts; nothing was opened or drawn again; a single forged line is "
        "missed with probability 100%"
    )
    assert "--recount all takes about" in text and "by the times in the file" in text


def test_confidence_sets_the_number_of_lines_drawn_again(copies, capsys):
    path = copies / "shard.tsv"
    status, text = verify(path, capsys, "--confidence", "95%", "--forged", "0.05")
    assert status == 0 and "2 of 2 lines drawn again" in text and "all 2 lines were drawn again and verified" in text
    for flags, message in (
        (("--confidence", "95%"), "--confidence and --forged go together"),
        (("--confidence", "95%", "--forged", "5%", "--recount", 1), "give one of them"),
        (("--confidence", "95", "--forged", "5"), "both must be above 0 and at most 1"),
    ):
        assert message in verify(path, capsys, *flags)[1]


def test_a_folder_is_its_results_files(copies, capsys):
    files = [copies / f"{kind}.tsv" for kind in ("golden", "budget", "curve")]
    folder = files[0].parent
    (copies / "log.md").write_text("| a table |")
    (copies / ".hidden.tsv").write_bytes((copies / "curve.tsv").read_bytes())
    status, text = verify(folder, capsys, "--recount", 0)
    assert status == 0 and text.count("consistent: ") == 3 and "3 of 3 files passed" in text
    (copies / "golden.tsv").write_text((copies / "golden.tsv").read_text().replace("0:00", "0:01"))
    status, text = verify(folder, capsys, "--recount", 0)
    assert status == 2 and text.count("consistent: ") == 2 and "1 of 3 files did not pass: " in text
    (copies / "golden.tsv").write_text("damaged\n" + (copies / "golden.tsv").read_text())
    status, text = verify(folder, capsys, "--recount", 0)
    assert status == 2 and "1 of 3 files did not pass: " in text and "golden.tsv" in text
    (copies / "empty").mkdir()
    assert "empty: has no results files" in verify(copies / "empty", capsys)[1]


def test_a_first_line_that_is_not_the_run_s(copies, capsys):
    path = copies / "randomised.tsv"
    path.write_text(path.read_text().replace("\tu\n", "\tv\n"))
    sum_up(path)
    status, text = verify(path, capsys, "--recount", 1)
    assert status == 2 and "Traceback" not in text


SHIPPED = ROOT / "experiments" / "results"
EARLIER = Path(__file__).parent / "earlier"


def test_a_file_of_an_earlier_version_is_marked(capsys):
    for name in ("gaussian-golden.tsv", "curves.tsv"):
        status, text = verify(EARLIER / name, capsys, "--recount", 0)
        assert status == 0 and "no hashes are recorded, as in all files of that version" in text
        assert (
            "The noise of that version (threefry fold_in(seed, image, stage, draw, sample), jax.random.normal" in text
        )
        assert "not finished" not in text and "verified" not in text and "consistent" not in text
        assert "not proved: its " in text and "nothing shows that these were ever drawn" in text
        status, text = verify(EARLIER / name, capsys, "--recount", 1)
        assert (
            status == 2 and "no line can be drawn again: it is of an earlier version" in text and "--recount 0" in text
        )


def test_a_shipped_file_is_drawn_again(capsys, monkeypatch):
    monkeypatch.chdir(SHIPPED.parents[1])  # from where it was written
    status, text = verify(Path("experiments/results/fashion_mnist_frontier/cohen.tsv"), capsys, "--recount", 1)
    assert status == 0
    assert "1 of 250 lines drawn again: a single forged line would be found with probability 0.4%" in text


HEADER = "idx\tlabel\tpredict\tradius\tcorrect\tbest_sigma\tpABar\n"


@pytest.mark.parametrize(
    "line, flags, message",
    [
        ("0\t3\t3\t0.5\t1\t0.25\t0.9772499", (), None),
        ("0\t3\t3\t0.5\t1\t0.25\t0.977", (), None),  # rounded
        ("0\t3\t3\t0.600\t1\t0.25\t0.9772499", (), "image 0: the radius is 0.6, and 0.5 by sigma and pABar"),
        ("0\t3\t3\t0.1\t1\t0.25\t0.40", (), "predicts class 3, with a pABar of 0.4"),
        ("0\t3\t-1\t0.1\t0\t0.25\t0.4", (), "image 0: abstains, with a radius of 0.1"),
        ("0\t3\t-2\t-1.0\t0\t0.25\t0.4", (), None),
        ("0\t3\t3\t0.5\t1\t0.25\t0.9772499", ("--N", 1000, "--alpha", 0.001), None),
        ("0\t3\t3\t0.500\t1\t0.25\t0.9772499", ("--N", 100, "--alpha", 0.001), "more than 0.375119, the largest"),
    ],
)
def test_a_log_without_counts_is_checked_as_far_as_it_can_be(tmp_path, capsys, line, flags, message):
    path = tmp_path / "log"
    path.write_text(HEADER + line + "\n")
    status, text = verify(path, capsys, *flags)
    assert status == (2 if message else 0) and (message or "consistent") in text and "verified" not in text
    assert "not checked: the counts: the log has none" in text
    assert ("give --N, --alpha" in text) == (not flags)


def test_a_log_without_sigma_or_radius_lists_what_was_not_checked(tmp_path, capsys):
    path = tmp_path / "log"
    path.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.500\t1\t0:00:01\n")
    status, text = verify(path, capsys)
    assert (
        status == 0
        and "the radius against pABar: the log has no pABar" in text
        and "give --N, --alpha, --sigma" in text
    )
    status, text = verify(path, capsys, "--sigma", 0.12, "--N", 100_000, "--alpha", 0.001)
    assert status == 2 and "the radius 0.5 is more than 0.457" in text
    path.write_text("idx\tlabel\tpredict\tcorrect\ttime\n0\t3\t3\t1\t0:00:01\n")
    assert verify(path, capsys)[0] == 0
    status, text = verify(path, capsys, "--recount", 1)
    assert status == 2 and "no line can be drawn again" in text


@pytest.mark.slow_for("qcrs_cifar10_resnet110_sigma0.50-flags0-0")
@pytest.mark.parametrize(
    "name, flags, expected",
    [
        ("qcrs_cifar10_resnet110_sigma0.50", ("--alpha", 0.001), 0),
        ("cohen_cifar10_resnet110_sigma0.25", ("--alpha", 0.01, "--sigma", 0.25), 0),
        ("cohen_cifar10_resnet110_sigma0.25", ("--alpha", 0.001, "--sigma", 0.25), 2),  # 0.978 of at most 0.953
    ],
)
def test_the_published_logs(name, flags, expected, capsys):
    path = SHARED / "results" / f"{name}.tsv"
    if not path.exists():
        pytest.skip("the published results are not here")
    status, text = verify(path, capsys, "--N", 100_000, *flags)
    assert status == expected and f"the largest that N = 100000 and alpha = {flags[1]:g} allow" in text


def test_the_output_of_memory_for_a_log_without_counts(tmp_path, capsys):
    log, path = tmp_path / "log.tsv", tmp_path / "memory.tsv"
    label = int(np.load(demo.IMAGES)["y"][0])
    log.write_text(f"idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t{label}\t{label}\t0.5\t1\t0:00:01\n")
    assert cli.main(["memory", str(log), "--out", str(path), *DATA[:4]]) == 0
    status, text = verify(path, capsys)
    assert status == 0 and "its own lines were not checked; log.tsv is consistent" in text


def test_another_jax_and_device_are_named(copies, capsys):
    content = json.loads((copies / "shard.tsv.json").read_text())
    content["provenance"] |= {"versions": {"jax": "0.8.0", "qcrs_jax": "0.1.0"}, "devices": "1 x gpu H100"}
    sum_up(copies / "shard.tsv", **content)
    status, text = verify(copies / "shard.tsv", capsys, "--recount", 1)
    assert (
        status == 0
        and "written by qcrs_jax 0.1.0, jax 0.8.0 on 1 x gpu H100" in text
        and "this machine has jax 0" in text
    )
