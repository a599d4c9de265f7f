"""`qcrs-jax certify --method cascade`: its file, resumed, verified, compared; and requests that cannot be met."""

import json
import re

import numpy as np
import pytest
from classifiers import linear
from program import qcrs_jax, refused

import qcrs_jax as library
from qcrs_jax import Cascade, certify_cascade, read_results
from qcrs_jax.experiments.commands import demo
from qcrs_jax.results.records import CASCADE

NETWORK = "zoo:fashion_mnist-lenet-sigma0.25"
METHOD = ["--method", "cascade", "--sigmas", "0.5,0.25", "--n", "300", "--seed", "0"]
DATA = ["--dataset", "npz", "--data_dir", demo.IMAGES, "--skip", "125", "--noise", "gaussian"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run of a cascade over four images."""
    folder = tmp_path_factory.mktemp("cascade")
    qcrs_jax("certify", NETWORK, "a.tsv", *METHOD, *DATA, cwd=folder)
    return folder


def test_the_file_has_the_certificates_of_the_library(folder):
    import jax

    run = read_results(folder / "a.tsv")
    classify = library.load_classifier(NETWORK).classify
    images = library.load_dataset("npz", demo.IMAGES)
    cascade = Cascade((0.5, 0.25))
    assert [record.idx for record in run.records] == [0, 125, 250, 375]
    for record in run.records[:2]:
        key = jax.random.fold_in(jax.random.key(0), record.idx)
        made = certify_cascade(classify, images[record.idx][0], cascade, key=key, n=300)
        assert record.radius == made.radius and record.predict == made.prediction and record.stage == made.stage
        assert record.stages == tuple(made.stages.counts.ravel())
        assert record.stages0 == tuple(made.stages.counts0.ravel())
        assert record.samples == made.stages.counts.sum() + made.stages.counts0.sum()
    assert run.request["search"] == {"method": "cascade", "name": "cascade", "sigmas": [0.5, 0.25], "tau": [0.0, 0.0]}
    assert run.sidecar["said"]["guarantee"] == CASCADE and run.one_classifier and not run.input_specific


def test_a_run_is_continued_and_verified(folder):
    text = (folder / "a.tsv").read_text()
    lines = text.splitlines(keepends=True)
    (folder / "b.tsv").write_text("".join(lines[:3]))
    sidecar = json.loads((folder / "a.tsv.json").read_text())
    for name in ("left_out", "sha256", "pixels_sha256", "sidecar_sha256"):
        del sidecar[name]
    (folder / "b.tsv.json").write_text(json.dumps(sidecar))
    qcrs_jax("certify", NETWORK, "b.tsv", *METHOD, *DATA, cwd=folder)
    without_time = lambda text: re.sub(r"\d:\d\d:\d\d[.\d]*", "", text)  # noqa: E731
    assert without_time((folder / "b.tsv").read_text()) == without_time(text)
    said = qcrs_jax("verify", "b.tsv", "--recount", "all", cwd=folder).stdout
    assert "a cascade of 2 stages" in said and "all 4 lines were drawn again and verified" in said
    words = ["certify", NETWORK, "b.tsv", "--method", "cascade", "--sigmas", "0.5,0.2", "--n", "300", "--seed", "0"]
    assert "search.sigmas" in refused(*words, *DATA, cwd=folder)


@pytest.mark.parametrize("column", ["radius", "best_sigma", "stage", "stages", "counts"])
def test_verify_finds_a_line_that_does_not_follow_from_its_counts(folder, column):
    lines = (folder / "a.tsv").read_text().splitlines()
    place = lines[0].split("\t").index(column)
    changed = lines[1].split("\t")
    if column in ("stages", "counts"):  # two counts exchanged
        counts = changed[place].split(",")
        full = np.argsort([-int(count) for count in counts], kind="stable")[:2]
        counts[full[0]], counts[full[1]] = str(int(counts[full[0]]) - 5), str(int(counts[full[1]]) + 5)
        changed[place] = ",".join(counts)
    else:
        changed[place] = {"radius": "0.77", "best_sigma": "0.3", "stage": "-1"}[column]
    (folder / "c.tsv").write_text("\n".join([lines[0], "\t".join(changed), *lines[2:]]) + "\n")
    (folder / "c.tsv.json").write_text((folder / "a.tsv.json").read_text())
    assert "image 0: " in refused("verify", "c.tsv", "--recount", "0", cwd=folder)


@pytest.mark.slow
def test_tables_and_comparisons_say_which_runs_are_sound_for_one_classifier(folder):
    words = ["--sigma", "0.25", "--n", "300", "--seed", "0", "--search", "grid", "--epsilon", "0.4", "--search_n", "20"]
    qcrs_jax("certify", NETWORK, "grid.tsv", *words, "--no-collapse", *DATA, cwd=folder)
    for command in ("table", "compare"):
        text = qcrs_jax(command, "a.tsv", "grid.tsv", "--format", "markdown", cwd=folder).stdout
        rows = [line.split(" | ") for line in text.splitlines() if "tsv)" in line and line.startswith("|")]
        assert rows[0][0] == "| cascade 0.5, 0.25 (a.tsv)" and [row[1] for row in rows[:2]] == ["yes", "no"]
        assert "one classifier for all inputs" in text and "held fixed" in text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--sigmas", "0.25,0.5"], "largest first"),
        (["--tau", "0.1,0.2,0.3"], "one for each of the 2 stages"),
        (["--sigmas", "a"], "--sigmas"),
        (["--sigma", "0.5"], "--sigma does not go with --method cascade"),
        (["--bound", "randomised"], "--bound does not go with"),
        (["--budget", "300"], "--budget does not go with"),
        (["--sequence", "betting"], "--sequence does not go with"),
        (["--left", "0.1"], "--left does not go with"),
        (["--search_n", "100"], "--search_n does not go with"),
        (["--epsilon", "0.1"], "--epsilon does not go with"),
        (["--certificate", "soft"], "--certificate does not go with"),
        (["--stop_when_wrong"], "--stop_when_wrong does not go with"),
        (["--n", "3"], "smallest n"),
        (["--sigmas", "60,0.5"], "more than 10 times the range"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, words, why):
    assert why in refused("certify", NETWORK, "x.tsv", *METHOD, *DATA, *words, cwd=tmp_path)


def test_other_methods_take_no_stages_and_need_their_sigma(tmp_path):
    words = ["certify", NETWORK, "x.tsv", *DATA]
    assert "--method cascade" in refused(*words, "--sigma", "0.25", "--sigmas", "1,0.5", cwd=tmp_path)
    assert "required: --sigma" in refused(*words, cwd=tmp_path)


@pytest.mark.slow
def test_all_certificates_at_once_and_the_grid(tmp_path):
    words = ["--noise", "grid", "--simultaneous", "--n", "400"]
    qcrs_jax("certify", NETWORK, "x.tsv", *METHOD, *DATA, *words, cwd=tmp_path)
    run = read_results(tmp_path / "x.tsv")
    assert run.request["alpha"] == 0.001 / 4 and run.request["smoothing"]["name"] == "grid"
    said = qcrs_jax("verify", "x.tsv", "--recount", "1", cwd=tmp_path).stdout
    assert "drawn again: the same" in said


def test_the_library_runs_a_cascade(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(3, 4, 4, 3)).astype(np.float32)
    cascade = Cascade((0.5, 0.25))
    run = library.run(linear, (images, np.array([0, 1, 0])), tmp_path / "r.tsv", cascade, n=200, seed=1)
    assert len(run.records) == 3 and run.one_classifier
    library.verify(tmp_path / "r.tsv", linear, (images, np.array([0, 1, 0])))
    with pytest.raises(ValueError, match="a cascade takes no"):
        library.run(linear, (images, np.array([0, 1, 0])), tmp_path / "s.tsv", cascade, n=200, stop_when_wrong=True)


def test_each_stage_may_have_a_network_of_its_own(folder):
    words = [*METHOD, *DATA, "--skip", "250"]
    other = "zoo:fashion_mnist-lenet-macer-sigma0.25"
    qcrs_jax("certify", NETWORK, "two.tsv", *words, "--stages", other, cwd=folder)
    two, one = read_results(folder / "two.tsv"), read_results(folder / "a.tsv")
    classes = len(two.request["dataset"]["class_names"])
    assert two.records[0].stages0[:classes] == one.records[0].stages0[:classes]
    assert two.records[0].stages0[classes:] != one.records[0].stages0[classes:]
    hashes = [stage["weights_sha256"] for stage in two.request["stages"]]
    assert len(hashes) == 1 and hashes[0] != two.request["classifier"]["weights_sha256"]
    assert "drawn again: the same" in qcrs_jax("verify", "two.tsv", "--recount", "1", cwd=folder).stdout
    assert "2 networks beside that of the first" in refused(
        "certify", NETWORK, "x.tsv", *words, "--stages", other, other, cwd=folder
    )
    shape = "zoo:cifar10-resnet20-sigma0.25"
    assert "takes images of shape" in refused("certify", NETWORK, "x.tsv", *words, "--stages", shape, cwd=folder)


def test_verify_opens_no_network_of_a_stage_elsewhere(folder):
    sidecar = json.loads((folder / "a.tsv.json").read_text())
    sidecar["provenance"]["settings"]["network"]["stages"] = ["/etc/passwd"]
    (folder / "d.tsv").write_text((folder / "a.tsv").read_text())
    (folder / "d.tsv.json").write_text(json.dumps(sidecar))
    assert "network of a stage /etc/passwd" in refused("verify", "d.tsv", "--recount", "1", cwd=folder)


def test_predictions_of_a_cascade(folder):
    words = [NETWORK, "p.tsv", "--sigmas", "0.5,0.25", "--n", "300", "--seed", "0", *DATA]
    said = qcrs_jax("predict", *words, cwd=folder).stdout
    assert "correct" in said and "cascade 0.5, 0.25" in said
    run, certified = read_results(folder / "p.tsv"), read_results(folder / "a.tsv")
    assert [r.predict for r in run.records] == [r.predict for r in certified.records]
    assert [r.stages for r in run.records] == [r.stages for r in certified.records] and run.predicts
    verdict = qcrs_jax("verify", "p.tsv", "--recount", "1", cwd=folder).stdout
    assert "drawn again: the same" in verdict
    lines = [line.split("\t") for line in (folder / "p.tsv").read_text().splitlines()]
    lines[1][2:4] = "-1", "0"
    (folder / "q.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
    (folder / "q.tsv.json").write_text((folder / "p.tsv.json").read_text())
    assert "image 0: predict is -1" in refused("verify", "q.tsv", "--recount", "0", cwd=folder)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "--sigma, a noise level, or --sigmas"),
        (["--sigma", "0.5", "--sigmas", "0.5,0.25"], "--sigma, a noise level, or --sigmas"),
        (["--sigma", "0.5", "--tau", "0.1"], "--tau is of a cascade"),
        (["--sigmas", "0.25,0.5"], "largest first"),
        (["--sigmas", "0.5", "--n", "2"], "smallest n"),
    ],
)
def test_predictions_that_cannot_be_are_refused(tmp_path, words, why):
    assert why in refused("predict", NETWORK, "x.tsv", *DATA, *words, cwd=tmp_path)
