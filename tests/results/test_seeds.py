"""Committed seeds as hashes of requests, and runs with one request and different seeds."""

import hashlib
import json
import os

import pytest
from requests_made import certificates

from qcrs_jax.results import seeds
from qcrs_jax.results.records import read_sidecar
from qcrs_jax.results.writer import Writer

REQUEST = certificates(
    sigma=0.25,
    n0=100,
    n=1000,
    alpha=0.001,
    skip=2,
    noise="threefry",
    platform="cpu, matmul precision None",
    dataset={"name": "d", "fingerprint": "ab", "class_names": ["a", "b"]},
    classifier={"arch": "lenet", "weights_sha256": "cd", "mean": [0.5, 1.0]},
)


def test_the_hash_is_of_the_request_in_one_form():
    text = (
        '{"images":5,"request":{"alpha":0.001,"classifier":{"arch":"lenet","mean":[0.5,1],"weights_sha256":"cd"},'
        '"dataset":{"class_names":["a","b"],"fingerprint":"ab","name":"d"},'
        '"estimate":{"bound":"clopper-pearson","name":"fixed"},"kind":"certificates","n":1000,"n0":100,'
        '"noise":"threefry","search":{"method":"cohen","name":"fixed"},"sigma":0.25,"skip":2}}'
    )
    expected = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "images": 5}
    assert seeds.committed(REQUEST, 5) == expected
    same = {**REQUEST, "n": 1000.0, "classifier": {**REQUEST["classifier"], "mean": (0.5, 1)}, "seed": 7}
    assert seeds.committed(same, 5) == expected


def changes(value, path=()):
    """Each way to a value inside others."""
    if isinstance(value, dict):
        return [found for name, inner in value.items() for found in changes(inner, (*path, name))]
    return [path]


@pytest.mark.parametrize("path", changes({k: v for k, v in REQUEST.items() if k != "platform"}), ids=".".join)
def test_whatever_else_is_asked_has_another_seed(path):
    request = json.loads(json.dumps(REQUEST))
    inner = request
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = "another"
    assert seeds.committed(request, 5) != seeds.committed(REQUEST, 5)
    del inner[path[-1]]
    assert seeds.committed(request, 5) != seeds.committed(REQUEST, 5)


def test_new_settings_and_the_number_of_images_change_the_seed():
    assert seeds.committed({**REQUEST, "another object": {"a": 1}}, 5) != seeds.committed(REQUEST, 5)
    assert seeds.committed(REQUEST, 6) != seeds.committed(REQUEST, 5)


def test_shards_platforms_and_the_pilot_of_a_run_have_its_seed():
    whole = seeds.committed(REQUEST, 5)
    for more in (
        {"shard": {"part": 1, "of": 2, "images": 5}},
        {"shard": {"part": 2, "of": 2, "images": 5}},
        {"platform": "gpu, matmul precision None"},
        {"kind": "pilot"},
        {"seed": whole},
    ):
        assert seeds.committed({**REQUEST, **more}, 5) == whole


def make(path, seed, **more):
    Writer(path, {**REQUEST, "seed": seed, **more}, {}).__exit__()


def test_files_with_the_same_request_and_another_seed_are_found(tmp_path):
    committed = seeds.committed(REQUEST, 5)
    make(tmp_path / "one.tsv", 1)
    make(tmp_path / "same.tsv", 2)
    make(tmp_path / "another.tsv", 3, alpha=0.01)
    make(tmp_path / "pilot.tsv", 4, kind="pilot")
    make(tmp_path / "committed.tsv", committed)
    (tmp_path / "damaged.tsv.json").write_text("{")
    (tmp_path / "large.tsv.json").write_text(" " * (seeds.LARGEST + 1))
    os.mkfifo(tmp_path / "pipe.tsv.json")
    (tmp_path / "of_something_else.json").write_text('{"a": 1}')
    found = seeds.files_with_other_seeds(tmp_path / "new.tsv", {**REQUEST, "seed": 2})
    assert sorted(other["file"] for other in found) == ["committed.tsv", "one.tsv"]
    assert {other["file"]: other["seed"] for other in found} == {"one.tsv": 1, "committed.tsv": committed}
    assert seeds.files_with_other_seeds(tmp_path / "nowhere" / "new.tsv", {**REQUEST, "seed": 2}) == []
    make(tmp_path / "new.tsv", 2)
    provenance = {"other_seeds": found}
    Writer(tmp_path / "noted.tsv", {**REQUEST, "seed": 2}, provenance).__exit__()
    assert read_sidecar(tmp_path / "noted.tsv")["provenance"] == provenance


def test_the_number_of_files_that_are_read_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(seeds, "MOST_FILES", 3)
    for age in range(5):
        make(tmp_path / f"{age}.tsv", age)
        os.utime(tmp_path / f"{age}.tsv.json", (10**9 - age, 10**9 - age))
    found = seeds.files_with_other_seeds(tmp_path / "new.tsv", {**REQUEST, "seed": 9})
    assert [other["seed"] for other in found] == [0, 1, 2]


def test_requests_that_differ_in_the_seed_alone():
    def asked(seed, **more):
        return {**REQUEST, "seed": seed, **more}

    committed = seeds.committed(REQUEST, 5)
    assert seeds.equal_but_for_seed([asked(1), asked(2), asked(1, alpha=0.01)]) == [[0, 1]]
    assert seeds.equal_but_for_seed([asked(1), asked(1), {}]) == []
    assert seeds.equal_but_for_seed([asked(committed), asked(1)]) == [[0, 1]]
    assert seeds.equal_but_for_seed([asked(committed), asked(seeds.committed(REQUEST, 6))]) == []  # nobody chose them
    assert seeds.equal_but_for_seed([asked(1), asked(2, kind="pilot")]) == []
