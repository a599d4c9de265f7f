"""Sidecars and results files from a stranger: their limits, and safe printing."""

import csv
import dataclasses
import io
import json
import os

import pytest
from requests_made import certificates

from qcrs_jax.analysis.curves import read_all_curves
from qcrs_jax.errors import UserError
from qcrs_jax.experiments.run.settings import Data, Images, Network, Noise
from qcrs_jax.files import check_regular, read_regular
from qcrs_jax.printable import printable, printable_lines
from qcrs_jax.results import sidecar
from qcrs_jax.results.records import RecordsError, read_run, read_sidecar
from qcrs_jax.results.shards import read_runs
from qcrs_jax.results.sidecar import LARGEST, Unfit, parse
from qcrs_jax.results.writer import Writer

RUN = {"format": 2, "request": certificates(sigma=0.25, n0=10, n=100), "provenance": {}}
HEADER = "idx\tlabel\tpredict\tradius\tcorrect\n"


FORMAT_1 = {"request": {"method": "cohen", "sigma": 0.25, "n0": 10, "n": 100}, "provenance": {}}


def changed(path, value, run=RUN):
    content = json.loads(json.dumps(run))
    *parts, last = path.split(".")
    inner = content
    for part in parts:
        inner = inner.setdefault(part, {})
    inner[last] = value
    return content


def test_a_sidecar_of_a_run_passes():
    assert parse(json.dumps(RUN).encode()) == RUN
    more = changed("request.of_a_later_version", {"a": [1, 2.5, None, True]})
    assert parse(json.dumps(more).encode()) == more


@pytest.mark.parametrize(
    "path, value",
    [
        ("request", []),
        ("provenance", None),
        ("format", 3),
        ("format", "2"),
        ("request.kind", "guess"),
        ("request.kind", ["certificates"]),
        ("request.search.method", "guess"),
        ("request.search.name", 5),
        ("request.sigma", "0.25"),
        ("request.sigma", 0),
        ("request.sigma", True),
        ("request.n", 2**30 + 1),
        ("request.n", 0),
        ("request.n", 100.5),
        ("request.n0", 10**12),
        ("request.n0", False),
        ("request.alpha", 1),
        ("request.seed", 2**32),
        ("request.seed", -1),
        ("request.skip", 0),
        ("request.sigmas", [0.1] * 10_002),
        ("request.search", {"name": "golden", "search_n": 5}),
        ("request.search", {"method": "qcrs", "name": "golden", "max_evaluations": 10**9}),
        ("request.budget", 5),
        ("request.estimate", {"name": "sequential", "look_every": 0}),
        ("request.estimate.bound", 1),
        ("request.shard", {"part": 1, "of": 2**40, "images": 3}),
        ("request.classifier", "resnet"),
        ("request.classifier.weights_sha256", "0" * 65),
        ("request.dataset.class_names", ["cat", 3]),
        ("request.dataset.class_names", "cat"),
        ("request.dataset.class_names", ["x"] * 100_001),
        ("request.dataset.name", "x" * 256),
        ("request.stored_balls.source", "../x"),
        ("request.stored_balls.source", ".."),
        ("request.stored_balls.source", "a\0b"),
        ("request.stored_balls.source", ""),
        ("request.anything", 2**64),
        ("request.anything", "x" * 20_001),
        ("request." + "x" * 201, 1),
        ("provenance.settings.network.checkpoint", 3),
        ("provenance.settings.network.checkpoint", "a\nqcrs-jax: verified"),
        ("provenance.settings.data.data_dir", "x" * 4097),
        ("provenance.settings.data.resize", 10**9),
        ("provenance.settings.data.split", "/etc"),
        ("provenance.batch", 2**40),
        ("provenance.versions", {"jax": 3}),
        ("left_out", [-1]),
        ("left_out", {"0": 1}),
        ("sha256", 5),
        ("account", ["x"]),
    ],
)
def test_other_types_and_ranges_are_refused_and_named(path, value):
    with pytest.raises(Unfit) as error:
        parse(json.dumps(changed(path, value)).encode())
    said = str(error.value)
    assert len(said) < 400 and (path[:200] in said or path.rpartition(".")[0] in said or path.count(".") > 3), said


@pytest.mark.parametrize(
    "path, value",
    [
        ("request.method", "guess"),
        ("request.n", 0),
        ("request.qcrs", {"search_n": 5}),
        ("request.qcrs", {"search": "golden", "max_evaluations": 10**9}),
        ("request.sequential", {"step": 0}),
        ("request.memory.source", "../x"),
        ("provenance.arguments.checkpoint", 3),
        ("provenance.arguments.resize", 10**9),
        ("provenance.arguments.split", "/etc"),
        ("format", 1),
    ],
)
def test_wrong_types_in_format_1_are_refused(path, value):
    assert parse(json.dumps(FORMAT_1).encode()) == FORMAT_1
    with pytest.raises(Unfit, match=path.rpartition(".")[2]):
        parse(json.dumps(changed(path, value, FORMAT_1)).encode())


def test_the_schema_knows_every_setting_that_a_sidecar_records():
    kinds = {"network": Network, "data": Data, "images": Images, "noise": Noise}
    assert sidecar._SETTINGS.keys() == kinds.keys()
    for name, kind in kinds.items():
        recorded = {field.name for field in dataclasses.fields(kind)} - {"tfds"}
        assert sidecar._SETTINGS[name].keys() == recorded, name


@pytest.mark.parametrize(
    "text, message",
    [
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 100_000, "nested deeper"),
        (b'{"request": ' + b"[" * 20 + b"]" * 20 + b"}", "nested deeper"),
        (b" " * (LARGEST + 1), "bytes"),
        (b'{"request": {"n": 1' + b"0" * 5000 + b"}}", "not JSON|bits"),
        (b'{"request": {"sigma": NaN}, "provenance": {}}', "request.sigma"),
        (b'{"request": {"sigma": 1e999}, "provenance": {}}', "request.sigma"),
        (b'{"request": {"n": 1, "n": 2}, "provenance": {}}', "'n' twice"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"request": {}}', "provenance is missing"),
        (b"", "not JSON"),
    ],
)
def test_an_invalid_sidecar_gives_one_line(tmp_path, text, message):
    with pytest.raises(Unfit, match=message):
        parse(text)
    path = tmp_path / "r.tsv"
    path.write_text(HEADER + "0\t3\t3\t0.5\t1\n")
    path.with_name("r.tsv.json").write_bytes(text)
    with pytest.raises(RecordsError) as error:
        read_run(path)
    assert "r.tsv.json" in str(error.value) and len(str(error.value)) < 600 and "\n" not in str(error.value)


def test_a_run_that_no_reader_would_take_is_not_begun(tmp_path):
    with pytest.raises(RecordsError, match="r.tsv.json: such a run cannot be recorded: provenance.batch"):
        Writer(tmp_path / "r.tsv", RUN["request"], {"batch": 2**40})
    assert not (tmp_path / "r.tsv.json").exists()


def test_pipes_and_devices_are_not_opened(tmp_path):
    path = tmp_path / "r.tsv"
    os.mkfifo(path)
    with pytest.raises(RecordsError, match="not a regular file"):
        read_run(path)
    with pytest.raises(UserError, match="is not opened"):
        check_regular(path)
    check_regular(tmp_path), check_regular(tmp_path / "nothing")
    path.unlink()
    path.write_text(HEADER + "0\t3\t3\t0.5\t1\n")
    os.mkfifo(path.with_name("r.tsv.json"))
    for read in (read_run, read_sidecar):
        with pytest.raises(RecordsError, match="not a regular file"):
            read(path)
    path.with_name("r.tsv.json").unlink()
    path.with_name("r.tsv.json").symlink_to("/dev/zero")
    with pytest.raises(RecordsError, match="not a regular file"):
        read_run(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_regular(tmp_path / "a\0b")


@pytest.mark.parametrize(
    "line, message",
    [
        ("0\t3\t3\t" + "5" * (4 * 2**20 + 1) + "\t1", "a field of 4,194,305 characters"),
        ("0\t3\t" + "x" * 10_000 + "\t0.5\t1", "not a result"),
        ("1" + "0" * 400 + "\t3\t3\t0.5\t1", "63 bits"),
        ("1" + "0" * 5000 + "\t3\t3\t0.5\t1", "not a result"),
        ("0\t1e300\t3\t0.5\t1", "63 bits"),
    ],
)
def test_fields_of_absurd_length_have_one_short_line(tmp_path, line, message):
    path = tmp_path / "r.tsv"
    path.write_text(HEADER + line + "\n")
    with pytest.raises(RecordsError, match=message) as error:
        read_run(path)
    assert len(str(error.value)) < 600
    path.write_text("\t".join(f"c{i}" for i in range(2000)) + "\n")
    with pytest.raises(RecordsError, match="2,000 columns"):
        read_run(path)
    path.write_text("x" * 100_000 + "\n")
    with pytest.raises(RecordsError, match="100,000 characters"):
        read_run(path)


def test_shards_of_absurdly_many_images_are_missing_at_once(tmp_path):
    path = tmp_path / "r.tsv"
    path.write_text(HEADER + "0\t3\t3\t0.5\t1\n")
    request = {"skip": 1, "shard": {"part": 1, "of": 1, "images": 2**31 - 1}}
    path.with_name("r.tsv.json").write_text(json.dumps({"format": 2, "request": request, "provenance": {}}))
    with pytest.raises(RecordsError, match="2147483646 of its 2147483647 images are missing, the first is 1;"):
        read_runs([path])
    request["shard"]["of"] = 2**31 - 1
    path.with_name("r.tsv.json").write_text(json.dumps({"format": 2, "request": request, "provenance": {}}))
    with pytest.raises(RecordsError, match=r"number 2, 3, .*, \.\.\. is missing"):
        read_runs([path])


def test_curves_whose_sidecar_has_other_sigmas(tmp_path):
    path = tmp_path / "c.tsv"
    path.write_text("idx\tlabel\tsigma\tcounts\n0\t1\t0.5\t3,7\n0\t1\t0.25\t1,2,3\n")
    for sigma, message in ((0.125, "is not among its sigmas"), (0.25, "and the first line has")):
        request = {"sigma": sigma, "sigmas": [0.25, 0.5], "n": 10}
        path.with_name("c.tsv.json").write_text(json.dumps({"format": 2, "request": request, "provenance": {}}))
        with pytest.raises(RecordsError, match=message):
            read_all_curves([path])


def test_control_characters_are_shown_as_text():
    assert printable("a\x1b[2Jb\r\n\t\x9b\x7f\u202e\u2028\ud800é 猫\u3000") == (
        "a\\x1b[2Jb\\x0d\\x0a\\x09\\x9b\\x7f\\u202e\\u2028\\ud800é 猫\u3000"
    )
    assert printable_lines("a\n\tb\x1b") == "a\n\tb\\x1b"


def test_tables_show_control_characters_as_text(tmp_path, capsys):
    from qcrs_jax.experiments import cli

    path = tmp_path / "r\x1b[31m.tsv"
    path.write_text(HEADER + "0\t0\t0\t0.5\t1\n1\t1\t0\t0.5\t0\n")
    names = ["cat\x1b]0;owned\x07", "dog\nforged row"]
    request = {
        **certificates("qcrs", name="\x1b[2J"),
        "sigma": 0.25,
        "dataset": {"name": "d\x1bc", "split": "te\x07st", "class_names": names},
    }
    path.with_name(path.name + ".json").write_text(json.dumps({"format": 2, "request": request, "provenance": {}}))
    for flags in ([], ["--classes"], ["--format", "markdown"], ["--format", "csv"]):
        assert cli.main(["table", str(path), *flags]) == 0
        text = capsys.readouterr().out
        assert "\\x1b[31m" in text and not set(text) & {"\x1b", "\x07"} and "\nforged row" not in text
    assert cli.main(["compare", str(path), str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    path.write_text("\x1b[2J\tlabel\n")
    assert cli.main(["table", str(path)]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_tables_say_how_many_images_were_left_out(tmp_path, capsys):
    from qcrs_jax.experiments import cli

    path, sidecar = tmp_path / "r.tsv", tmp_path / "r.tsv.json"
    path.write_text(HEADER + "0\t0\t0\t0.5\t1\n2\t1\t0\t0.5\t0\n")
    content = {**RUN, "left_out": [1, 3]}
    sidecar.write_text(json.dumps(content))
    for command in (["table", str(path)], ["table", str(path), "--classes"], ["compare", str(path), str(path)]):
        assert cli.main(command) == 0
        assert "2 images could not be read and were left out" in capsys.readouterr().out
    assert cli.main(["table", str(path), "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["left_out"] == "2"
    sidecar.write_text(json.dumps({**RUN, "provenance": {"settings": {}}}))
    assert cli.main(["table", str(path)]) == 0
    assert "is not finished, or the record of left-out images was taken out" in capsys.readouterr().out
    sidecar.write_text(json.dumps({**RUN, "left_out": []}))
    assert cli.main(["table", str(path)]) == 0
    assert "left out" not in capsys.readouterr().out
