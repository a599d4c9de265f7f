"""Runs with committed seeds and with chosen ones, from the start to the table."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import qcrs_jax
from qcrs_jax import certify
from qcrs_jax.errors import UserError
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands import demo
from qcrs_jax.experiments.run.inputs import digest, digest_of_all, root_key
from qcrs_jax.results.records import checksum, sidecar_checksum
from qcrs_jax.results.seeds import committed

SHAPE, NUMBERS = (4, 4, 1), {"n0": 20, "n": 2000, "alpha": 0.01}
IMAGES = np.linspace(0.2, 0.8, 5, dtype=np.float32)[:, None, None, None] * np.ones((1, *SHAPE), np.float32)
LABELS = np.array([0, 0, 1, 1, 1])


def brightness(weights, images):
    """Two classes: dark and bright."""
    level = images.mean((1, 2, 3)) - 0.5
    return jnp.stack([-level, level], axis=-1) * weights


CLASSIFY = Partial(brightness, jnp.float32(3.0))


def start(path, classify=CLASSIFY, images=IMAGES, labels=LABELS, **options):
    return qcrs_jax.run(classify, (images, labels), path, 0.25, **{**NUMBERS, **options})


def verify(path, recount: float = math.inf):
    return qcrs_jax.verify(path, CLASSIFY, (IMAGES, LABELS), recount=recount)


def read(path):
    return json.loads(path.with_name(f"{path.name}.json").read_text())


def write(path, content):
    """Writes a sidecar with the right hashes."""
    indices = [int(line.split("\t")[0]) for line in path.read_text().splitlines()[1:]]
    pixels = digest_of_all({index: digest(IMAGES[index]) for index in indices})
    content = {**content, "sha256": checksum(path), "pixels_sha256": pixels}
    text = json.dumps({**content, "sidecar_sha256": sidecar_checksum(content)})
    path.with_name(f"{path.name}.json").write_text(text)


def counts(run):
    return {record.idx: record.counts for record in run.records}


@pytest.mark.slow
def test_the_noise_follows_from_what_is_asked(tmp_path):
    run = start(tmp_path / "r.tsv")
    seed = run.request["seed"]
    assert seed == committed({name: value for name, value in run.request.items() if name != "seed"}, 5)
    assert run.sidecar["provenance"]["settings"]["noise"] == {"prng": "threefry"}
    words = np.frombuffer(bytes.fromhex(seed["sha256"])[:8], ">u4").astype(np.uint32)
    root = jax.random.wrap_key_data(words, impl="threefry2x32")
    for record in run.records:
        key = jax.random.fold_in(root, record.idx)
        made = certify(CLASSIFY, IMAGES[record.idx], 0.25, key=key, **NUMBERS)
        assert record.counts == tuple(made.counts.tolist()) and record.radius == made.radius
    assert counts(start(tmp_path / "again.tsv")) == counts(run)
    other = start(tmp_path / "alpha.tsv", alpha=0.02)
    assert other.request["seed"]["sha256"] != seed["sha256"] and counts(other) != counts(run)
    for name, options in (
        ("weights", {"classify": Partial(brightness, jnp.float32(3.000001))}),
        ("images", {"images": IMAGES + np.float32(1e-6)}),
        ("labels", {"labels": LABELS[::-1]}),
        ("skip", {"skip": 2}),
        ("stop", {"stop": 4}),
    ):
        assert start(tmp_path / f"{name}.tsv", **options).request["seed"]["sha256"] != seed["sha256"], name


def test_a_key_takes_as_many_bits_as_it_has():
    seed = {"sha256": "0123456789abcdef" * 4, "images": 1}
    assert jax.random.key_data(root_key(seed, "threefry2x32")).tolist() == [0x01234567, 0x89ABCDEF]
    assert jax.random.key_data(root_key(seed, "rbg")).tolist() == [0x01234567, 0x89ABCDEF] * 2
    for name in ("threefry2x32", "rbg"):
        assert (jax.random.key_data(root_key(5, name)) == jax.random.key_data(jax.random.key(5, impl=name))).all()


def test_shards_and_a_resumed_run_have_the_seed_of_the_whole(tmp_path):
    whole = start(tmp_path / "whole.tsv")
    parts = [start(tmp_path / f"{i}.tsv", shard=(i, 2)) for i in (1, 2)]
    assert [part.request["seed"] for part in parts] == [whole.request["seed"]] * 2
    assert counts(parts[0]) | counts(parts[1]) == counts(whole)
    assert [verify(tmp_path / f"{i}.tsv")[-1].split(" lines")[0] for i in (1, 2)] == ["all 3", "all 2"]
    path = tmp_path / "cut.tsv"
    path.write_text("".join((tmp_path / "whole.tsv").read_text().splitlines(keepends=True)[:3]))
    kept = {name: value for name, value in read(tmp_path / "whole.tsv").items() if "sha256" not in name}
    path.with_name("cut.tsv.json").write_text(json.dumps(kept))
    assert counts(start(path)) == counts(whole)


def test_a_run_of_a_committed_seed_is_not_extended_and_says_how_one_is(tmp_path):
    start(tmp_path / "r.tsv", stop=2)
    with pytest.raises(UserError, match="seed: 'committed, .* of 2 images' in the file") as error:
        start(tmp_path / "r.tsv")
    assert "cannot be extended. A run that is started with seed can" in str(error.value)
    start(tmp_path / "chosen.tsv", stop=2, seed=3)
    assert len(start(tmp_path / "chosen.tsv", seed=3).records) == 5
    with pytest.raises(UserError, match="The run was started with a chosen seed; seed 3 continues it"):
        start(tmp_path / "chosen.tsv")


def test_verify_says_where_a_seed_comes_from(tmp_path):
    start(tmp_path / "r.tsv")
    start(tmp_path / "chosen.tsv", seed=3)
    said = "\n".join(verify(tmp_path / "r.tsv"))
    assert "the hash of the request, the weights, the data and the 5 images" in said and "were drawn again and" in said
    assert "chosen by the user" not in said
    said = "\n".join(verify(tmp_path / "chosen.tsv"))
    assert "seed 3 was chosen by the user: nothing shows that no other was tried before" in said


@pytest.mark.parametrize("recount", [0, 1])
@pytest.mark.parametrize(
    "forge, message",
    [
        (lambda request: request["seed"].update(sha256="0" * 64), "seed: it is not the hash of the request"),
        (lambda request: request["seed"].update(images=4), "seed: it is not the hash of the request"),
        (lambda request: request["seed"].update(more=1), "seed: it is not the hash of the request"),
        (lambda request: request["dataset"].update(split="train"), "seed: it is not the hash of the request"),
        (lambda request: request.update(something=1), "seed: it is not the hash of the request"),
    ],
)
def test_a_committed_seed_that_is_not_its_hash_is_refused(tmp_path, forge, message, recount):
    path = tmp_path / "r.tsv"
    start(path)
    content = read(path)
    forge(content["request"])
    write(path, content)
    with pytest.raises(UserError, match=message):
        verify(path, recount)


def test_fewer_images_than_the_seed_is_of_are_found_without_opening_anything(tmp_path):
    path = tmp_path / "r.tsv"
    start(path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    content = read(path)
    write(path, content)
    with pytest.raises(UserError, match="2 of the 5 images that the seed is for are missing"):
        verify(path, 0)
    content["provenance"]["settings"]["images"]["stop"] = 3
    write(path, content)
    with pytest.raises(UserError, match="2 of the 5 images that the seed is for are missing"):
        verify(path)
    content["request"]["seed"] = committed(content["request"], 3)  # whose noise is another
    write(path, content)
    assert "consistent" in verify(path, 0)[-1]
    with pytest.raises(UserError, match="when drawn again"):
        verify(path)


def test_a_chosen_seed_does_not_pass_for_a_committed_one(tmp_path):
    path = tmp_path / "r.tsv"
    start(path, seed=3)
    content = read(path)
    content["request"]["seed"] = committed(content["request"], 5)
    del content["provenance"]["settings"]["noise"]["seed"]
    write(path, content)
    with pytest.raises(UserError, match="counts is .* when drawn again"):
        verify(path)


def test_another_seed_beside_a_result_is_reported_everywhere(tmp_path, capsys):
    first, second = tmp_path / "first.tsv", tmp_path / "second.tsv"
    start(first, seed=1)
    assert "warning" not in capsys.readouterr().err
    start(second, seed=2)
    said = capsys.readouterr().err
    assert "second.tsv: seed 2 is not the first: runs in the same folder" in said and "first.tsv (seed 1)" in said
    assert read(second)["provenance"]["other_seeds"] == [{"file": "first.tsv", "seed": 1}]
    assert any("started beside first.tsv, which has the same request with seed 1" in line for line in verify(second, 0))
    start(tmp_path / "committed.tsv")
    assert "warning" not in capsys.readouterr().err
    assert "other_seeds" not in read(tmp_path / "committed.tsv")["provenance"]
    for words in (("table",), ("table", "--format", "markdown"), ("table", "--format", "latex"), ("compare",)):
        assert cli.main([words[0], str(first), str(second), *words[1:]]) == 0
        said = " ".join(capsys.readouterr().out.replace("\\", "").split())
        assert (
            "all runs: seed chosen by the user" in said and "these have the same request, with different seeds" in said
        )
        assert "was started beside first.tsv (seed 1)" in said
    assert cli.main(["table", str(first), str(tmp_path / "committed.tsv"), "--format", "csv"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    place = header.split(",").index("seed")
    assert [row.split(",")[place] for row in rows if row.split(",")[0]] and "chosen by the user" in rows[0]
    assert "committed" in rows[1]
    assert cli.main(["table", str(tmp_path / "committed.tsv")]) == 0
    assert "seed" not in capsys.readouterr().out


def test_a_dry_run_prints_the_seed_that_the_run_will_have(tmp_path, capsys):
    words = ["certify", "zoo:fashion_mnist-lenet-sigma0.25", str(tmp_path / "r.tsv"), "--data_dir", str(demo.IMAGES)]
    words += "--dataset npz --sigma 0.25 --method cohen --N 100 --N0 10 --max 2".split()
    assert cli.main([*words, "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert cli.main(words) == 0
    capsys.readouterr()
    assert f"committed seed {read(tmp_path / 'r.tsv')['request']['seed']['sha256']}: the hash of" in said
    assert cli.main([*words[:2], str(tmp_path / "chosen.tsv"), *words[3:], "--seed", "0", "--dry_run"]) == 0
    assert "committed" not in capsys.readouterr().out
