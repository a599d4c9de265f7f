"""Results files that were forged: images dropped, columns changed, hashes taken out, and sidecars of a stranger."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from format_1 import as_format_1
from PIL import Image

from qcrs_jax.data import tfds_files
from qcrs_jax.data.load import DataError, load_dataset
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.run.inputs import digest, digest_of_all
from qcrs_jax.experiments.verification.sidecar import FIRST_NOISE, LATER_FLAGS
from qcrs_jax.results.records import checksum, sidecar_checksum

COMMAND = "zoo:fashion_mnist-lenet-sigma0.25"
HASHES = ("left_out", "sha256", "pixels_sha256", "sidecar_sha256")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the images, of which number 1 is damaged, and a run over the other four."""
    root = tmp_path_factory.mktemp("made")
    for name in range(10):
        (root / "images" / str(name)).mkdir(parents=True)
    for level in range(5):
        image = Image.fromarray(np.random.default_rng(level).integers(0, 256, (28, 28), np.uint8))
        image.save(root / "images" / "0" / f"{level}.png")
    (root / "images" / "0" / "1.png").write_bytes(b"no image")
    flags = f"--dataset folder --data_dir {root / 'images'} --sigma 0.25 --N0 10 --N 60 --method cohen --on_error skip"
    assert cli.main(["certify", COMMAND, str(root / "r.tsv"), *flags.split(), "--seed", "0"]) == 0
    return root


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    monkeypatch.chdir(made)
    for name in ("r.tsv", "r.tsv.json"):
        shutil.copy(made / name, tmp_path)
    run = tmp_path / "r.tsv"  # without the names of the images' files, so that counts are its last column
    header, *rows = (line.rpartition("\t") for line in run.read_text().splitlines())
    assert header[2] == "file"
    run.write_text("\n".join(line[0] for line in (header, *rows)) + "\n")
    sum_up(run, read(run))
    return run


def verify(path, capsys, *flags):
    status = cli.main(["verify", str(path), *map(str, flags)])
    said = capsys.readouterr()
    return status, said.out + said.err


def read(path):
    return json.loads(path.with_name(path.name + ".json").read_text())


def write(path, content):
    path.with_name(path.name + ".json").write_text(json.dumps(content))


def sum_up(path, content, images=None):
    """Writes a sidecar with the hashes of its content, of the file as it is, and of its images."""
    if images is not None:
        rows = path.read_text().splitlines()[1:]
        dataset = load_dataset("folder", images, on_error="skip")
        digests = {int(row.split("\t")[0]): digest(dataset[int(row.split("\t")[0])][0]) for row in rows}
        content = {**content, "pixels_sha256": digest_of_all(digests)}
    content = {**content, "sha256": checksum(path)}
    write(path, {**content, "sidecar_sha256": sidecar_checksum(content)})


def drop(path, index):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(f"{index}\t")))


def test_a_file_drawn_again_completely_is_verified_and_left_out_images_are_read(run, capsys):
    status, text = verify(run, capsys, "--recount", "all")
    assert status == 0 and text.rstrip().endswith("r.tsv: all 4 lines were drawn again and verified")
    assert "1 images without a line, read again: 1 of them cannot be read" in text
    assert "not proved, as no sidecar can prove it: that alpha, " in text and "--skip and --max" in text
    assert "the date, the devices, the versions and the times" in text
    status, text = verify(run, capsys, "--recount", 3)
    assert status == 0 and "verified" not in text
    assert (
        "consistent: its 4 lines agree with their counts; 3 of them were drawn again; a single forged line is" in text
    )
    assert text.rstrip().endswith("missed with probability 25%")
    status, text = verify(run, capsys, "--recount", 0)
    assert status == 0 and "verified" not in text and text.rstrip().endswith("missed with probability 100%")
    assert "1 images were left out; whether they can be read was not checked" in text


@pytest.mark.slow_for("0", "2")
@pytest.mark.parametrize("index", [0, 2, 4])
def test_an_image_that_was_dropped_is_found(run, made, capsys, index):
    before = run.read_text()
    drop(run, index)
    content = read(run)
    for left_out in ([1, index], [index]):
        sum_up(run, {**content, "left_out": left_out}, made / "images")
        status, text = verify(run, capsys, "--recount", "all")
        assert status == 2 and f"image {index}: is left out, though it can be read" in text and "verified" not in text
    sum_up(run, content, made / "images")
    status, text = verify(run, capsys, "--recount", 1)
    assert status == 2 and f"image {index}: is missing" in text
    write(run, {name: value for name, value in content.items() if name not in HASHES})
    status, text = verify(run, capsys, "--recount", "all")
    assert status == 2 and "has no hashes: the run is not finished, or they were taken out" in text
    assert (f"image {index}: is missing" in text) == (index != 4)  # an unfinished run may end there
    run.write_text(before)
    for left_out, message in (([1, 2], "image 2: is left out, and has a line"), ([1, 9], "is not an image of the run")):
        sum_up(run, {**content, "left_out": left_out})
        status, text = verify(run, capsys, "--recount", 1)
        assert status == 2 and message in text


@pytest.mark.parametrize(
    "columns, message",
    [
        (lambda row: [*row[:3], "9.9", *row[3:]], "it has 'radius' 2 times"),
        (lambda row: [*row, "9.9"], "'extra' is not a column of this run"),
        (lambda row: row[:8] + row[9:], "it lacks 'search_samples'"),
        (lambda row: [row[1], row[0], *row[2:]], "the columns are in another order"),
        (lambda row: [" " + row[0], *row[1:]], "first line"),
    ],
)
def test_the_first_line_is_that_of_the_request(run, made, capsys, columns, message):
    header, *rows = (line.split("\t") for line in run.read_text().splitlines())
    changed = ["radius" if name == "9.9" else name for name in columns(header)]
    if message.startswith("'extra'"):
        changed[-1] = "extra"
    run.write_text("\n".join("\t".join(row) for row in [changed, *map(columns, rows)]) + "\n")
    sum_up(run, read(run))
    status, text = verify(run, capsys, "--recount", 0)
    assert status == 2 and message in text and "consistent" not in text
    assert "Traceback" not in text


def without(content, *names):
    """A sidecar without some of what it says of the file, or of the request, or of how the run was started."""
    content = {name: value for name, value in content.items() if name not in names}
    return content | {
        part: {name: value for name, value in content[part].items() if name not in names}
        for part in ("request", "provenance")
    }


def test_a_sidecar_that_lost_its_sums_is_refused(run, capsys):
    content = read(run)
    for names, message in (
        (HASHES, "has no hashes"),
        (HASHES[1:], "has no hashes"),
        (HASHES[2:], "pixels_sha256, sidecar_sha256 was taken out"),
        (HASHES[3:], "sidecar_sha256 was taken out"),
        (HASHES[:1], "its hash differs"),
        ((*HASHES, "settings"), "how the run was started (provenance.settings) was taken out"),
        (
            (*HASHES, "settings", "account", "images", "dtype"),
            ("Every version that records noise in this way also records that"),
        ),
    ):
        write(run, without(content, *names))
        for recount in (0, "all"):
            status, text = verify(run, capsys, "--recount", recount)
            assert status == 2 and message in text, text
            assert "consistent" not in text and "verified" not in text


def test_a_forger_who_makes_a_file_of_an_earlier_version_proves_nothing(run, capsys):
    content = without(as_format_1(read(run)), *HASHES, "arguments", "account", "images", "dtype")
    write(run, {**content, "request": {**content["request"], "noise": FIRST_NOISE}})
    status, text = verify(run, capsys, "--recount", 0)
    assert status == 0 and "not proved: its 4 lines agree with their counts, and nothing shows that these were" in text
    assert "Anybody can write such a file" in text and "consistent" not in text and "verified" not in text
    assert verify(run, capsys, "--recount", 1)[0] == 2


def test_a_file_of_the_version_with_one_sum_is_never_verified(run, capsys):
    content = without(as_format_1(read(run)), *HASHES[2:])
    arguments = {name: v for name, v in content["provenance"]["arguments"].items() if name not in LATER_FLAGS}
    write(run, {**content, "provenance": {**content["provenance"], "arguments": arguments}})
    status, text = verify(run, capsys, "--recount", "all")
    assert status == 0 and "verified" not in text and "4 of them were drawn again" in text
    assert text.rstrip().endswith(
        "the hashes of its pixels and of its sidecar are not recorded, as in files of an earlier version"
    )


def test_a_file_of_ours_without_its_sidecar_is_refused(run, capsys):
    run.with_name("r.tsv.json").unlink()
    status, text = verify(run, capsys, "--recount", 0)
    assert status == 2 and "but the sidecar r.tsv.json is missing" in text


def test_lines_without_counts_are_not_taken_for_another_program_s(run, capsys):
    header, first, *rest = run.read_text().splitlines()
    run.write_text("\n".join([header, "\t".join([*first.split("\t")[:-1], ""]), *rest]) + "\n")
    sum_up(run, read(run))
    status, text = verify(run, capsys, "--recount", 0)
    assert status == 2 and "image 0: has no counts" in text


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("request.n", 10**9, "Lines with more than 100000000 are not drawn again"),
        ("request.n0", 10**9, "n0 = 1000000000"),
        ("request.n", 2**31, "request.n is 2147483648"),
        ("request.noise", None, "request.noise is null"),
        ("request.search", {"method": "qcrs", "name": "fastest"}, "unknown search 'fastest'"),
        ("request.search", {"method": "qcrs", "name": "golden", "sigma_lower": 0.1}, "'golden' has other settings"),
        ("request.search", {"method": "qcrs", "name": "golden", "sigma_lower": "abc"}, "request.search.sigma_lower is"),
        ("request.search", {"method": "ddrs", "name": "ddrs", "steps": 2.5}, "request.search.steps is 2.5"),
        ("request.search", None, "request.search is null"),
        ("request.estimate", {"name": "tolerance", "tolerance": True}, "request.estimate.tolerance is true"),
        ("request.estimate", {"name": "fixed", "bound": "none"}, "unknown bound 'none'"),
        ("request.extra", 1, "extra: 1 in the sidecar, None by the inputs"),
        ("provenance.settings.network.dtype", "float16", "provenance.settings.network.dtype is"),
        ("provenance.settings.images.skip", 3, "skip: 1 in the sidecar, 3 by the inputs"),
        ("provenance.settings.network", {}, "settings of Network are missing"),
        (
            "provenance.settings.network.checkpoint",
            "/etc/hostname",
            "names the checkpoint /etc/hostname, which lies neither",
        ),
        ("provenance.settings.network.checkpoint", "zoo:../../x", "not in the zoo"),
        ("provenance.settings.data.data_dir", "/etc", "names the data set /etc, which lies neither below the current"),
        ("provenance.settings.data.data_dir", "images/../..", "lies neither"),
        ("request.classifier.arch", "\x1b[2J\nforged: verified", "\\x1b[2J\\x0aforged"),
        ("provenance.devices", "\x1b]0;x\x07", "\\x1b]0;x\\x07"),
    ],
)
def test_a_hostile_sidecar_has_a_plain_message(run, capsys, path, value, message):
    content = read(run)
    *parts, last = path.split(".")
    inner = content
    for part in parts:
        inner = inner[part]
    inner[last] = value
    sum_up(run, content)
    status, text = verify(run, capsys, "--recount", 1)
    assert (status == 2 or last == "devices") and message in text, text
    assert not set(text) & {"\x1b", "\x07"} and "Traceback" not in text and "\nforged" not in text


def test_tables_for_absurd_numbers_are_not_made(run, capsys):
    content, estimate = read(run), {"name": "tolerance", "tolerance": 0.05, "bound": "clopper-pearson"}
    sum_up(run, {**content, "request": {**content["request"], "n0": 10**9, "n": 10**9, "estimate": estimate}})
    run.write_text(run.read_text().replace("counts0\tcounts", "counts0\tcounts\tn").replace("\n0\t", "\n0\t"))
    header, *rows = run.read_text().splitlines()
    run.write_text("\n".join([header, *(f"{row}\t60" for row in rows)]) + "\n")
    status, text = verify(run, capsys, "--recount", 0)
    assert status == 2 and "no table is made for n0 = 1000000000" in text


def test_paths_of_a_sidecar_are_opened_where_they_are_near_or_trusted(run, made, capsys, monkeypatch, tmp_path):
    assert verify(run, capsys, "--recount", 1)[0] == 0  # below the current folder
    monkeypatch.chdir(tmp_path)
    status, text = verify(run, capsys, "--recount", 1)
    assert status == 2 and "--data_dir" in text and "--trust_paths" in text and "it was not opened" in text
    assert verify(made / "r.tsv", capsys, "--recount", 1)[0] == 0  # below the folder of the results
    assert verify(run, capsys, "--recount", 1, "--trust_paths")[0] == 0
    assert verify(run, capsys, "--recount", 1, "--data_dir", made / "images")[0] == 0
    (tmp_path / "link").symlink_to(made / "images")
    content = read(run)
    content["provenance"]["settings"]["data"]["data_dir"] = "link"
    sum_up(run, content)
    status, text = verify(run, capsys, "--recount", 1)
    assert status == 2 and "names the data set link" in text
    os.mkfifo(tmp_path / "pipe")
    content["provenance"]["settings"]["data"]["data_dir"] = str(made / "images")
    content["provenance"]["settings"]["network"]["checkpoint"] = "pipe"
    sum_up(run, content)
    status, text = verify(run, capsys, "--recount", 1, "--trust_paths")
    assert status == 2 and "pipe: is neither a regular file nor a folder, and is not opened" in text


def test_pipes_are_not_waited_for(run, capsys, tmp_path):
    os.mkfifo(tmp_path / "pipe.tsv")
    status, text = verify(tmp_path / "pipe.tsv", capsys)
    assert status == 2 and "not a regular file" in text
    run.with_name("r.tsv.json").unlink()
    os.mkfifo(run.with_name("r.tsv.json"))
    status, text = verify(run, capsys)
    assert status == 2 and "r.tsv.json: cannot be read: it is not a regular file" in text


@pytest.mark.parametrize("arguments, asks", [({"data_dir": "images"}, None), ({"data_dir": None}, False)])
def test_tfds_neither_downloads_nor_writes_where_a_sidecar_says(run, capsys, monkeypatch, arguments, asks):
    asked = []

    def load(*_, prepare=True, limit=None):
        asked.append(prepare)
        raise DataError("not prepared")

    monkeypatch.setattr(tfds_files, "load", load)
    content = read(run)
    content["provenance"]["settings"]["data"] |= {"dataset": "svhn_cropped", **arguments}
    sum_up(run, content)
    status, text = verify(run, capsys, "--recount", 1)
    assert status == 2 and asked == ([] if asks is None else [asks])
    assert ("TensorFlow Datasets was not asked" in text) == (asks is None)
    verify(run, capsys, "--recount", 1, "--trust_paths")
    assert asked[-1] is True


def test_data_sets_that_are_not_prepared_are_not_downloaded(tmp_path, monkeypatch):
    class Builder:
        data_dir = str(tmp_path / "mnist")

        def is_prepared(self):
            return False

    monkeypatch.setattr(tfds_files, "_builder", lambda *_: Builder())
    monkeypatch.setattr(tfds_files, "write", None)
    with pytest.raises(DataError, match="nothing is downloaded here"):
        load_dataset("mnist", tmp_path, tfds="read")
    assert not list(tmp_path.iterdir())


def memory_of(run, source, **more):
    content = read(run)
    made = {"procedure": "x", "source": source, "source_sha256": "0" * 64, **more}
    return {**content, "request": {**content["request"], "stored_balls": made}}


@pytest.mark.parametrize(
    "source, message",
    [
        ("../r.tsv", "should be the name of a file in the same folder"),
        ("/etc/passwd", "should be the name of a file in the same folder"),
        ("r.tsv", "names the file itself as its source"),
        ("nothing.tsv", "was made from nothing.tsv, which is missing"),
        ("pipe", "not a regular file"),
    ],
)
def test_the_source_of_a_memory_based_file_is_beside_it(run, capsys, source, message):
    os.mkfifo(run.with_name("pipe"))
    write(run, memory_of(run, source))
    status, text = verify(run, capsys)
    assert status == 2 and message in text


def test_files_that_name_each_other_end(run, capsys):
    other = run.with_name("other.tsv")
    shutil.copy(run, other)
    write(other, memory_of(run, "r.tsv", source_sha256=checksum(run)))
    write(run, memory_of(run, "other.tsv", source_sha256=checksum(other)))
    status, text = verify(run, capsys, "--recount", 0)
    assert status == 2 and "which is memory-based itself" in text
    content = read(run)
    request = {name: value for name, value in content["request"].items() if name != "stored_balls"}
    write(run, {**content, "request": {**request, "budget": {"mean": 60, "stop": -1}}})
    header, *rows = run.read_text().splitlines()
    run.write_text("\n".join([f"{header}\tn", *(f"{row}\t60" for row in rows)]) + "\n")
    shutil.copy(run, run.with_name("r.tsv.pilot"))
    pilot = memory_of(run, "r.tsv", source_sha256=checksum(run))
    write(Path(f"{run}.pilot"), {**pilot, "request": {**pilot["request"], "kind": "pilot"}})
    status, text = verify(run, capsys, "--recount", 0)
    assert status == 2 and "is not the pilot of r.tsv" in text


@pytest.mark.slow
def test_a_pilot_of_another_request_is_not_this_run_s(run, capsys, made, tmp_path):
    data = f"--dataset folder --data_dir {made / 'images'} --sigma 0.25 --N0 10 --on_error skip --method cohen".split()
    for name, seed in (("one.tsv", 0), ("other.tsv", 1)):
        words = ["certify", COMMAND, str(tmp_path / name), *data, "--budget", "60", "--seed", str(seed)]
        assert cli.main(words) == 0
    for ending in ("", ".json"):
        shutil.copy(tmp_path / f"other.tsv.pilot{ending}", tmp_path / f"one.tsv.pilot{ending}")
    status, text = verify(tmp_path / "one.tsv", capsys, "--recount", 0)
    assert status == 2 and "one.tsv.pilot: seed: 0 in one.tsv, 1 in its pilot" in text


def test_the_output_of_memory_records_images_left_out(run, capsys, made):
    path = run.with_name("memory.tsv")
    data = ["--dataset", "folder", "--data_dir", str(made / "images")]
    status = cli.main(["memory", str(run), "--out", str(path), *data])
    if status:  # a data set with an image that cannot be read
        pytest.skip(capsys.readouterr().err)
    assert "memory.tsv): 1 images could not be read and were left out" in capsys.readouterr().out.replace("\n", " ")
    status, text = verify(path, capsys, "--recount", "all")
    assert status == 0 and "memory` on r.tsv; there, all 4 lines were drawn again and verified" in text
    status, text = verify(path, capsys, "--recount", 1)
    assert status == 0 and "memory` on r.tsv, which is consistent" in text and "verified" not in text
    content = read(path)
    del content["request"]["stored_balls"]["left_out"]
    write(path, content)
    assert verify(path, capsys, "--recount", "all")[0] == 2


@pytest.mark.slow
def test_a_request_that_lacks_one_of_its_fields_is_told_in_one_message(run, capsys):
    content = read(run)
    for name in content["request"]:
        sum_up(run, {**content, "request": {key: value for key, value in content["request"].items() if key != name}})
        status, text = verify(run, capsys, "--recount", 0)
        assert status == 2 or name in ("platform", "dtype"), text
        assert cli.main(["table", str(run)]) in (0, None, 2)
