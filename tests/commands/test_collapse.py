"""`qcrs-jax collapse`, and its record in runs: `certify --right auto`, tables, comparisons, reports, `verify`."""

import csv
import io
import json
import os
import shutil

import numpy as np
import pytest
from classifiers import DIRECTION
from kill_runs import lines
from program import qcrs_jax, refused, unwrapped

from qcrs_jax.convert.zoo import resolve
from qcrs_jax.experiments.presets import IMAGES
from qcrs_jax.experiments.run import collapse
from qcrs_jax.results.collapse import beyond, record_of
from qcrs_jax.results.records import read_run, sidecar_path

NETWORK = """
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

DIRECTION = np.load("direction.npy")


def apply(direction, images):
    score = jnp.einsum("bhwc,hwc->b", images - 0.5, direction)
    far = jnp.sqrt(((images - 0.5) ** 2).mean((1, 2, 3))) > {end}
    zero = jnp.where(far, 1.0, score)
    return jnp.stack([zero, -zero], axis=-1)


def load():
    return Partial(apply, jnp.asarray(DIRECTION, jnp.float32))
"""
"""Half spaces, of which the first class answers all images with much noise."""
DATA = "--dataset npz --data_dir data.npz --sigma 0.25 --N 300 --N0 20 --gradient_n 100 --seed 0".split()
NET = "python:net.py:load"
RUN = [*DATA, "--skip", 12]
"""Five of sixty images."""


def fill(tmp_path):
    (tmp_path / "net.py").write_text(NETWORK.format(end=0.8))
    np.save(tmp_path / "direction.npy", DIRECTION)
    labels = np.arange(60) % 2
    distances = (1 - 2 * labels) * np.linspace(0.3, 0.6, 60)
    x = (0.5 + distances[:, None, None, None] * DIRECTION).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=np.clip(x, 0, 1), y=labels, class_names=["zero", "one"])
    return tmp_path


@pytest.fixture
def here(tmp_path):
    return fill(tmp_path)


METHODS = {
    "cohen": ["--method", "cohen"],
    "bayesian": ["--search", "bayesian"],
    "ended": ["--search", "bayesian", "--right", "auto"],
    "golden": ["--right", "auto"],
    "plain": ["--no-collapse"],
}


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """Five images by several methods, and what the commands said."""
    root = fill(tmp_path_factory.mktemp("collapse"))
    for name, flags in METHODS.items():
        (root / f"{name}.out").write_text(qcrs_jax("certify", NET, f"{name}.tsv", *RUN, *flags, cwd=root).stdout)
    return root


@pytest.fixture
def ran(once, tmp_path):
    """A copy of it."""
    shutil.copytree(once, tmp_path / "ran")
    return tmp_path / "ran"


def recorded(path):
    return json.loads(sidecar_path(path).read_text())["provenance"].get("collapse")


def test_the_command_has_a_line_for_each_sigma_and_the_sigma_at_which_accuracy_is_lost(here):
    words = "--dataset npz --data_dir data.npz --sigma 0.25 --sigmas 0.1 3 8 --plot c.svg --out c.md --format markdown"
    done = qcrs_jax("collapse", NET, *words.split(), cwd=here)
    text = (here / "c.md").read_text()
    rows = [row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith("| 0") or row.startswith("| 3")]
    assert [row[0] for row in rows][:1] == ["0.1"] and len(rows) >= 7 and "0.25" in [row[0] for row in rows]
    assert float(rows[0][1]) == 1.0 and rows[0][2] == "2.0" and rows[-1][2:] == ["1.0", "zero", "100%"]
    assert "60 images of data (test), 5 noisy copies of each; one answer for all images is right for 50%" in text
    assert "Accuracy under noise is lost at sigma 0." in text and "c.svg" in done.stdout
    picture = (here / "c.svg").read_text()
    assert picture.startswith("<?xml") and "<svg" in picture


def test_impossible_measurements_are_refused(here):
    words = ["collapse", NET, *"--dataset npz --data_dir data.npz --sigma 0.25".split()]
    assert "has fewer than 20 images" in refused(*words, "--image_count", 3, cwd=here)
    assert "--image_count must be at least 1, not 0" in refused(*words, "--image_count", 0, cwd=here)
    assert "--copies must be at least 1" in refused(*words, "--copies", 0, cwd=here)
    assert "--sigmas: needs 0 < LO < HI" in refused(*words, "--sigmas", 1, 0.5, 8, cwd=here)
    assert "c.gif" in refused(*words, "--plot", "c.gif", cwd=here)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["golden", "ended"])
def test_a_search_up_to_the_sigma_at_which_accuracy_is_lost(ran, name):
    run, record, said = read_run(ran / f"{name}.tsv"), recorded(ran / f"{name}.tsv"), (ran / f"{name}.out").read_text()
    end = record["lost_at"]
    assert run.request["search"]["sigma_upper"] == end and record["ends_bracket"] and record["other_images"]
    assert 0.25 < end < 1 and record_of(run).lost_at == end and record["images"] == 55
    assert run.request["search"].get("widen_above") == (False if name == "ended" else None)
    assert beyond(run, end) is None and "a sigma beyond" not in unwrapped(said)
    assert f"accuracy under noise is lost at sigma {end:g}" in said
    assert name == "golden" or f"to {end:g} was widened" in said and "and above it for 0 of 5 images" in said


@pytest.mark.slow
@pytest.mark.slow
def test_the_end_by_hand_gives_the_same_file(ran):
    end, before = recorded(ran / "ended.tsv")["lost_at"], lines(ran / "ended.tsv")
    words = ["--search", "bayesian", "--right", end, "--no-widen_above", "--no-collapse"]
    qcrs_jax("certify", NET, "b.tsv", *RUN, *words, cwd=ran)
    assert lines(ran / "b.tsv") == before and recorded(ran / "b.tsv") is None
    assert read_run(ran / "b.tsv").request == read_run(ran / "ended.tsv").request
    # And the same command finds it again.
    done = qcrs_jax("certify", NET, "ended.tsv", *RUN, *METHODS["ended"], cwd=ran)
    assert "5 of 5 images are done" in done.stdout and "collapse: first" not in done.stdout


@pytest.mark.slow
def test_without_the_end_images_lie_beyond_and_all_tables_say_so(ran):
    run = read_run(ran / "bayesian.tsv")
    far = beyond(run, recorded(ran / "bayesian.tsv")["lost_at"])
    assert recorded(ran / "cohen.tsv") is None and not recorded(ran / "bayesian.tsv")["ends_bracket"]
    assert far.answered == {0: len(far.places)} and far.right > 0
    said = f"{len(far.places)} of 5 images have a sigma beyond {far.limit:g}, where accuracy under noise is lost. They "
    said += f"are answered zero ({len(far.places)}). They carry {far.share:.1%} of the ACR"
    table = qcrs_jax("table", "bayesian.tsv", "cohen.tsv", cwd=ran).stdout
    assert said in unwrapped((ran / "bayesian.out").read_text()) and said in unwrapped(table)
    assert f"{far.acr_without:.4f} where they count as 0" in unwrapped(table)
    assert "the less its certificates say" in unwrapped(table)
    assert said in unwrapped(qcrs_jax("table", "bayesian.tsv", "--classes", cwd=ran).stdout)
    text = qcrs_jax("table", "bayesian.tsv", "cohen.tsv", "--format", "csv", cwd=ran).stdout
    ours, theirs = csv.DictReader(io.StringIO(text))
    assert (float(ours["sigma_limit"]), ours["beyond_limit"]) == (far.limit, str(len(far.places)))
    assert float(ours["acr_without_beyond"]) == pytest.approx(far.acr_without) and theirs["sigma_limit"] == ""
    compared = unwrapped(qcrs_jax("compare", "cohen.tsv", "bayesian.tsv", cwd=ran).stdout)
    pairs = zip(run.records, read_run(ran / "cohen.tsv").records)
    gain = [a.correct * a.radius - b.correct * b.radius for a, b in pairs]
    part = sum(gain[place] for place in far.places) / sum(gain)
    assert said in compared and f"They carry {part:.1%} of the gain over the reference." in compared
    page = html(ran, "cohen.tsv", "bayesian.tsv")
    assert '<section id="collapse"' in page and '<a href="#collapse">' in page and said in page
    assert "Accuracy and commonest answer over sigma" in page
    assert '<section id="collapse"' not in html(ran, "cohen.tsv")
    assert "a sigma beyond" not in qcrs_jax("table", "cohen.tsv", "ended.tsv", cwd=ran).stdout
    text = qcrs_jax("table", "cohen.tsv", "ended.tsv", "--format", "csv", cwd=ran).stdout
    assert "sigma_limit" not in text


def html(folder, *files):
    qcrs_jax("report", *files, "--out", "other.html", cwd=folder)
    return (folder / "other.html").read_text()


@pytest.mark.slow
def test_a_limit_by_hand_is_for_files_without_a_record(ran):
    assert recorded(ran / "plain.tsv") is None
    assert "a sigma beyond" not in unwrapped(qcrs_jax("table", "plain.tsv", cwd=ran).stdout)
    said = "beyond 0.1, as given. They are answered"
    assert said in unwrapped(qcrs_jax("table", "plain.tsv", "--beyond", 0.1, cwd=ran).stdout)
    assert said in unwrapped(qcrs_jax("compare", "plain.tsv", "ended.tsv", "--beyond", 0.1, cwd=ran).stdout)
    assert '<section id="collapse"' not in html(ran, "plain.tsv") and said in html(ran, "plain.tsv", "--beyond", 0.1)
    for number in ("0", "-1", "nan", "inf", "x"):
        assert "invalid positive number value" in refused("table", "plain.tsv", f"--beyond={number}", cwd=ran)


@pytest.mark.slow
@pytest.mark.slow
def test_shards_find_the_same_end_and_are_read_as_one_run(ran):
    for part in (1, 2):
        qcrs_jax("certify", NET, f"s{part}.tsv", *RUN, *METHODS["golden"], "--shard", f"{part}/2", cwd=ran)
    assert recorded(ran / "s1.tsv") == recorded(ran / "s2.tsv") == recorded(ran / "golden.tsv")
    table = qcrs_jax("table", "s1.tsv", "s2.tsv", "golden.tsv", cwd=ran).stdout
    ours, theirs = (next(line for line in table.splitlines() if name in line) for name in ("s*.tsv", "golden.tsv"))
    assert ours.split(")")[1].split()[:-1] == theirs.split(")")[1].split()[:-1]


@pytest.mark.slow
@pytest.mark.slow
def test_verify_accepts_the_end_and_compares_the_record_with_itself(ran):
    done = qcrs_jax("verify", "ended.tsv", "--checkpoint", NET, "--recount", "all", cwd=ran).stdout
    assert (
        "all 5 lines were drawn again and verified" in done and "its record of collapse, compared with itself" in done
    )
    whole = json.loads(sidecar_path(ran / "ended.tsv").read_text())
    for change, named in (
        ({"lost_at": 0.9}, "says that accuracy is lost at 0.9, and by its levels"),
        ({"levels": whole["provenance"]["collapse"]["levels"][:5]}, "and by its levels it is lost at None"),
    ):
        forged = json.loads(json.dumps(whole))
        forged["provenance"]["collapse"] |= change
        sidecar_path(ran / "ended.tsv").write_text(json.dumps(forged))
        assert named in unwrapped(refused("verify", "ended.tsv", "--recount", 0, cwd=ran))
    whole["request"]["search"]["sigma_upper"] = 0.8
    sidecar_path(ran / "ended.tsv").write_text(json.dumps(whole))
    assert "its bracket ends at 0.8" in unwrapped(refused("verify", "ended.tsv", "--recount", 0, cwd=ran))
    whole["provenance"]["collapse"]["levels"] = "many"
    sidecar_path(ran / "ended.tsv").write_text(json.dumps(whole))
    assert "collapse.levels is 'many'" in refused("table", "ended.tsv", cwd=ran)


@pytest.mark.slow
def test_an_end_that_cannot_be_found_is_refused(here):
    auto = ["--right", "auto"]
    message = refused("certify", NET, "a.tsv", *RUN, *auto, "--no-collapse", cwd=here)
    assert "--right auto measures collapse" in message
    (here / "net.py").write_text(NETWORK.format(end=0.2))
    message = refused("certify", NET, "a.tsv", *RUN, *auto, "--left", 0.05, cwd=here)
    assert "--right auto: accuracy under noise is lost at 0.1" in message and "below --sigma = 0.25" in message
    (here / "net.py").write_text(NETWORK.format(end=0.0))
    message = unwrapped(refused("certify", NET, "a.tsv", *RUN, *auto, cwd=here))
    assert "at no sigma is this classifier clearly better than one answer for all images" in message
    with np.load(here / "data.npz") as data:
        np.savez(here / "few.npz", x=data["x"][:19], y=data["y"][:19], class_names=data["class_names"])
    few = ["certify", NET, "a.tsv", *RUN, "--data_dir", "few.npz"]
    assert "--right auto: collapse is measured on 20 images or more" in refused(*few, *auto, cwd=here)
    assert not (here / "a.tsv").exists()
    done = qcrs_jax(*few, cwd=here)
    assert "collapse" not in done.stdout and recorded(here / "a.tsv") is None, "and without the end nothing is measured"
    message = refused("visualize", NET, *DATA, *auto, "--index", 0, "--out", "a.png", cwd=here)
    assert "invalid number value: 'auto'" in message


@pytest.mark.slow
def test_where_no_other_images_are_left_those_of_the_run_are_looked_at(here):
    done = qcrs_jax("certify", NET, "a.tsv", *DATA, "--max", 45, cwd=here)
    assert not recorded(here / "a.tsv")["other_images"] and "These images are certified too" in done.stdout


@pytest.mark.slow
def test_a_dry_run_measures_only_where_it_decides_the_request_and_writes_nothing(here):
    before = sorted(os.listdir(here))
    done = qcrs_jax("certify", NET, "a.tsv", *RUN, "--dry_run", cwd=here)
    assert "collapse" not in done.stdout
    done = qcrs_jax("certify", NET, "a.tsv", *RUN, "--dry_run", "--right", "auto", cwd=here)
    assert "accuracy under noise is lost at sigma" in done.stdout
    assert [name for name in sorted(os.listdir(here)) if name != "__pycache__"] == before


@pytest.mark.slow
def test_a_file_that_was_begun_without_a_record_goes_on_without(ran):
    before = lines(ran / "plain.tsv")
    (ran / "plain.tsv").write_text("\n".join((ran / "plain.tsv").read_text().split("\n")[:3]) + "\n")
    sidecar = json.loads(sidecar_path(ran / "plain.tsv").read_text())
    sidecar = {name: value for name, value in sidecar.items() if "sha256" not in name and name != "left_out"}
    sidecar_path(ran / "plain.tsv").write_text(json.dumps(sidecar))
    done = qcrs_jax("certify", NET, "plain.tsv", *RUN, cwd=ran)
    assert "collapse" not in done.stdout and lines(ran / "plain.tsv") == before and recorded(ran / "plain.tsv") is None


@pytest.mark.slow
def test_a_budget_s_pilot_has_the_end_too(here):
    words = ["certify", NET, "a.tsv", *RUN, "--budget", 300, "--right", "auto"]
    qcrs_jax(*words, cwd=here)
    ends = [read_run(here / "a.tsv").request["search"]["sigma_upper"]]
    ends += [json.loads((here / "a.tsv.pilot.json").read_text())["request"]["search"]["sigma_upper"]]
    assert ends == [recorded(here / "a.tsv")["lost_at"]] * 2
    assert "verified" in qcrs_jax("verify", "a.tsv", "--checkpoint", NET, "--recount", "all", cwd=here).stdout


@pytest.fixture
def lenet(tmp_path):
    """A network of the zoo as a user's directory, and words that certify one image with few samples."""
    source = resolve("zoo:fashion_mnist-lenet-sigma0.25")
    copy = shutil.copytree if source.is_dir() else shutil.copy
    copy(source, tmp_path / source.name)
    words = f"--dataset npz --data_dir {IMAGES} --sigma 0.25 --N 60 --N0 5 --gradient_n 20 --max 1 --seed 0".split()
    return tmp_path, source.name, words


@pytest.mark.slow
def test_a_record_is_kept_beside_the_checkpoint(lenet):
    folder, name, words = lenet
    kept = folder / f"{name}.collapse.json"
    first = qcrs_jax("certify", name, "a.tsv", *words, cwd=folder).stdout
    assert "collapse: first 500 noisy copies of 100 other images at each of" in first
    (record,) = json.loads(kept.read_text()).values()
    again = qcrs_jax("certify", name, "b.tsv", *words, cwd=folder).stdout
    assert "collapse: first" not in again and recorded(folder / "b.tsv") == recorded(folder / "a.tsv")
    # Other settings have a record of their own.
    qcrs_jax("certify", name, "c.tsv", *words, "--right", 0.5, cwd=folder)
    assert len(json.loads(kept.read_text())) == 2
    # One that was changed by hand is measured again.
    kept.write_text(json.dumps({key: {**record, "lost_at": 0.1} for key in json.loads(kept.read_text())}))
    text = qcrs_jax("certify", name, "d.tsv", *words, cwd=folder).stdout
    assert "collapse: first" in text and recorded(folder / "d.tsv") == recorded(folder / "a.tsv")


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"a": 1}', "[" * 10**5, "\udc80", None])
def test_a_damaged_file_of_records_is_empty(tmp_path, damage):
    file = tmp_path / "a.collapse.json"
    if damage is None:
        file.mkdir()
    else:
        file.write_text(damage, errors="surrogateescape")
    assert collapse._fitting(collapse._read(file).get("a"), "key") is None
    collapse._keep(file, "b", {"is": "kept"})
    assert damage is None or collapse._read(file)["b"] == {"is": "kept"}


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_fails_no_run(lenet, monkeypatch):
    folder, name, words = lenet

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(collapse, "replacing", full)
    done = qcrs_jax("certify", name, "a.tsv", *words, cwd=folder)
    assert "not kept for the next run" in done.stdout and "No space left" in done.stdout
    assert recorded(folder / "a.tsv")["images"] == 100
