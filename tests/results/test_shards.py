"""Files of a split run are read as one; overlaps, holes and mismatches are refused by name."""

import pytest
from records_made import make_record
from requests_made import certificates

from qcrs_jax.experiments import cli
from qcrs_jax.experiments.report import table
from qcrs_jax.results.records import RecordsError, read_run
from qcrs_jax.results.shards import read_runs
from qcrs_jax.results.writer import Writer

IMAGES, SKIP = 7, 10
REQUEST = certificates() | {"sigma": 0.5, "dataset": {"name": "npz", "split": "test", "fingerprint": "ab"}}


def write_shard(path, part, of, leave_out=(), finish=True, images=IMAGES, **changes):
    """A shard of a run over images 0, 10, ..., 60; without those in `leave_out`."""
    request = {**REQUEST, "skip": SKIP, "shard": {"part": part, "of": of, "images": images}, **changes}
    with Writer(path, request, {"device": "cpu"}) as writer:
        for idx in range(0, images * SKIP, SKIP)[part - 1 :: of]:
            if idx not in leave_out:
                writer.write(make_record(idx))
        if finish:
            writer.finish(leave_out, "0")
    return path


@pytest.fixture
def shards(tmp_path):
    return [write_shard(tmp_path / f"run-{part}.tsv", part, 3) for part in (1, 2, 3)]


def test_shards_are_one_run_in_the_order_of_its_images(tmp_path, shards):
    with Writer(tmp_path / "whole.tsv", {**REQUEST, "skip": SKIP}, {}) as writer:
        writer.write(*(make_record(idx) for idx in range(0, IMAGES * SKIP, SKIP)))
    other = write_shard(tmp_path / "other.tsv", 1, 1, sigma=0.25)
    run, whole, single = read_runs([shards[2], tmp_path / "whole.tsv", other, *shards[:2]])
    assert run.records == whole.records and run.request == whole.request and run.images == whole.images
    assert run.path.name == "run-*.tsv" and single.path.name == "other.tsv"
    assert run.sidecar["provenance"] == {"device": "cpu"}


def test_images_that_were_left_out_are_no_hole(tmp_path, shards):
    shards[0].unlink()
    write_shard(shards[0], 1, 3, leave_out=[30])
    assert [r.idx for r in read_runs(shards)[0].records] == [0, 10, 20, 40, 50, 60]
    # Once it is taken up again, it may still find them.
    shards[0].write_text("".join(shards[0].read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(RecordsError, match=r"run-1\.tsv: shard 1/3 is not finished: 1 of its 3 images are missing"):
        read_runs(shards)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (lambda s: s[:2], r"run-1\.tsv, .*run-2\.tsv: of the 3 shards of this run, number 3 is missing"),
        (lambda s: s[1:2], r"run-2\.tsv: of the 3 shards of this run, number 1, 3 is missing"),
        (lambda s: [*s, s[0]], r"run-1\.tsv and .*run-1\.tsv: are both shard 1/3 of one run"),
        (
            lambda s: [*s[:2], write_shard(s[2].with_name("b.tsv"), 3, 3, sigma=0.25)],
            r"number 3 is missing(.|\n)*b\.tsv is a shard of another run\. Different are\n  "
            r"sigma: 0\.5 in .*run-1\.tsv, 0\.25 in .*b\.tsv",
        ),
        (
            lambda s: [*s[:2], write_shard(s[2].with_name("b.tsv"), 3, 3, images=9)],
            r"shard\.images: 7 in .*run-1\.tsv, 9 in .*b\.tsv",
        ),
        (
            lambda s: [*s[:2], write_shard(s[2].with_name("b.tsv"), 3, 3, leave_out=[50], finish=False)],
            r"b\.tsv: shard 3/3 is not finished: 1 of its 2 images are missing, the first is 50",
        ),
    ],
)
def test_overlaps_holes_and_other_configurations_are_refused(shards, files, message):
    with pytest.raises(RecordsError, match=message):
        read_runs(files(shards))


def test_an_image_of_another_shard_is_named(shards):
    with open(shards[0], "a") as file:
        file.write(make_record(10).line())
    with pytest.raises(RecordsError, match=r"run-1\.tsv: shard 1/3 has image 10, which belongs to another shard"):
        read_runs(shards)


def test_tables_and_comparisons_take_them_for_one_run(tmp_path, shards, capsys):
    assert cli.main(["table", *map(str, shards)]) == 0
    text = capsys.readouterr().out
    assert "7 images of npz" in text and "(run-*.tsv)" in text and "shard" not in text
    table.print_tables([shards[0]])
    assert "shard 1/3 (run-1.tsv)" in capsys.readouterr().out
    others = [write_shard(tmp_path / f"b-{part}.tsv", part, 2, sigma=0.25) for part in (1, 2)]
    assert cli.main(["compare", *map(str, [*shards, *others])]) == 0
    text = capsys.readouterr().out
    assert "run-*.tsv" in text and "b-*.tsv" in text and "7 images" in text
    assert len(read_run(shards[0]).records) == 3
