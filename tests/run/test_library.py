"""The whole program for a classifier in memory: a file that resumes, its table, and its verification."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import qcrs_jax
from qcrs_jax import Fixed, GoldenSection, Tolerance, certify
from qcrs_jax.errors import UserError
from qcrs_jax.experiments import cli

SHAPE = (4, 4, 1)
NUMBERS = {"n0": 20, "n": 300, "alpha": 0.01}


def brightness(weights, images):
    """Two classes: dark and bright."""
    level = images.mean((1, 2, 3)) - 0.5
    return jnp.stack([-level, level], axis=-1) * weights


CLASSIFY = Partial(brightness, jnp.float32(3.0))
IMAGES = np.linspace(0.2, 0.8, 5, dtype=np.float32)[:, None, None, None] * np.ones((1, *SHAPE), np.float32)
LABELS = np.array([0, 0, 1, 1, 1])


def start(path, **options):
    return qcrs_jax.run(CLASSIFY, (IMAGES, LABELS), path, 0.25, **{**NUMBERS, **options})


def test_a_run_has_the_certificates_of_certify_and_continues(tmp_path, capsys):
    path = tmp_path / "r.tsv"
    first = start(path, stop=2, seed=0)
    assert [record.idx for record in first.records] == [0, 1]
    done = start(path, seed=0)
    assert "2 of 5 images are done" in capsys.readouterr().out and len(done.records) == 5
    for record in done.records:
        key = jax.random.fold_in(jax.random.key(0), record.idx)
        made = certify(CLASSIFY, IMAGES[record.idx], 0.25, key=key, **NUMBERS)
        assert record.counts == tuple(made.counts.tolist()) and record.radius == made.radius
    with pytest.raises(UserError, match="alpha: 0.01 in the file, 0.02 now"):
        start(path, alpha=0.02, seed=0)
    assert cli.main(["table", str(path)]) == 0 and "Cohen, sigma 0.25" in capsys.readouterr().out
    frame = qcrs_jax.read_results(path).to_pandas()
    assert list(frame.idx) == list(range(5)) and list(frame.label) == LABELS.tolist() and frame.radius.max() > 0


@pytest.mark.slow
def test_a_search_an_estimate_and_shards(tmp_path):
    search = GoldenSection(0.1, 0.6, epsilon=0.2, search_n=40)
    whole = start(tmp_path / "whole.tsv", search=search, estimate=Tolerance(0.1), n=4000)
    parts = [start(tmp_path / f"{i}.tsv", search=search, estimate=Tolerance(0.1), n=4000, shard=(i, 2)) for i in (1, 2)]
    found = sorted((record for part in parts for record in part.records), key=lambda record: record.idx)
    assert [(r.counts, r.n, r.sigma) for r in found] == [(r.counts, r.n, r.sigma) for r in whole.records]
    assert whole.request["search"]["epsilon"] == 0.2 and whole.request["estimate"]["tolerance"] == 0.1


def test_a_run_in_memory_is_verified_with_its_objects(tmp_path, capsys):
    path = tmp_path / "r.tsv"
    start(path, simultaneous=True)
    said = qcrs_jax.verify(path, CLASSIFY, (IMAGES, LABELS), recount=math.inf)
    assert said[-1] == "all 5 lines were drawn again and verified"
    with pytest.raises(UserError, match="weights_sha256"):
        qcrs_jax.verify(path, Partial(brightness, jnp.float32(4.0)), (IMAGES, LABELS))
    with pytest.raises(UserError, match="fingerprint"):
        qcrs_jax.verify(path, CLASSIFY, (IMAGES[::-1], LABELS))
    with pytest.raises(UserError, match="qcrs_jax.verify"):
        qcrs_jax.verify(path)
    assert qcrs_jax.verify(path, recount=0)[-1].startswith("consistent: its 5 lines agree with their counts")
    capsys.readouterr()
    assert cli.main(["verify", str(path)]) == 2 and "in its memory" in capsys.readouterr().err
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *lines[2:]]))
    with pytest.raises(UserError, match="was changed after the run was finished|is missing"):
        qcrs_jax.verify(path, CLASSIFY, (IMAGES, LABELS))


def test_inputs_that_do_not_fit_are_refused_before_a_file_is_written(tmp_path):
    path = tmp_path / "r.tsv"
    for classify, data, message in (
        (CLASSIFY, (IMAGES, LABELS + 1), "has 2 classes"),
        (CLASSIFY, (IMAGES, LABELS[1:]), "integer labels"),
        (CLASSIFY, (IMAGES, LABELS - 1), "count from 0"),
        (lambda images: images[:, :3, 0, 0] @ np.ones((2, 2)), (IMAGES, LABELS), "takes no images of shape"),
    ):
        with pytest.raises(UserError, match=message):
            qcrs_jax.run(classify, data, path, 0.25, **NUMBERS)
    with pytest.raises(UserError, match="n = 3"):
        start(path, n=3)
    assert not path.exists()


def test_the_sidecar_names_the_classifier(tmp_path):
    start(tmp_path / "r.tsv", name="my_net", stop=1)
    content = json.loads((tmp_path / "r.tsv.json").read_text())
    assert content["request"]["classifier"]["arch"] == "my_net"
    assert content["provenance"]["settings"]["network"]["checkpoint"] == "memory:my_net"


def test_a_certificate_is_printed_in_a_few_lines():
    search = GoldenSection(0.1, 0.6, epsilon=0.2, search_n=40)
    made = certify(CLASSIFY, IMAGES, 0.25, key=jax.random.key(0), search=search, estimate=Fixed(), **NUMBERS)
    text = repr(made)
    assert len(text) < 700 and "search=SigmaSearch(...)" in text and "prediction=[ 0,  0, -1" in text
    assert "counts=[" in text and "u=" not in text


@pytest.mark.slow
def test_a_run_records_collapse_where_that_is_asked_for(tmp_path, capsys):
    images = np.linspace(0.3, 0.7, 60, dtype=np.float32)[:, None, None, None] * np.ones((1, *SHAPE), np.float32)
    labels = (np.arange(60) >= 30).astype(int)
    search = GoldenSection(0.1, 2.0, search_n=50)

    def start(name, **options):
        asked = {"search": search, "skip": 20, "seed": 0, **NUMBERS, **options}
        return qcrs_jax.run(CLASSIFY, (images, labels), tmp_path / name, 0.25, **asked)

    plain, recorded = start("a.tsv"), start("b.tsv", collapse=True)
    assert "collapse: first 285 noisy copies of 57 other images" in capsys.readouterr().out
    assert [r.counts for r in plain.records] == [r.counts for r in recorded.records], "it changes no count"
    assert "collapse" not in plain.sidecar["provenance"]
    record = recorded.sidecar["provenance"]["collapse"]
    assert record["levels"][0]["accuracy"] > 0.9 and record["other_images"] and not record["ends_bracket"]
    assert "collapse" not in start("c.tsv", search=None, collapse=True).sidecar["provenance"]
    assert qcrs_jax.verify(tmp_path / "b.tsv", CLASSIFY, (images, labels))
