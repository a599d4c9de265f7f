"""Results files: full precision, resuming behind a torn line, refusals, and the field's published files."""

import dataclasses
import datetime
import errno
import fcntl
import hashlib
import json
import math
import os
import resource

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import SHARED
from records_made import make_record
from requests_made import certificates

from qcrs_jax.results.records import (
    COLUMNS,
    INPUT_SPECIFIC,
    Record,
    RecordsError,
    count_unclassified,
    read_run,
    sidecar_path,
)
from qcrs_jax.results.writer import Writer, write_run

RESULTS = SHARED / "results"
REQUEST = certificates("qcrs") | {"sigma": 0.5, "seed": 0, "dataset": {"name": "npz", "fingerprint": "ab"}}


def write_all(path, records, request=REQUEST):
    with Writer(path, request, {"device": "cpu"}) as writer:
        done = writer.done
        for record in records:
            writer.write(record)
    return done


def read_back(path, record):
    write_all(path, [record])
    return read_run(path).records[0]


@given(
    radius=st.floats(0, 1e3),
    sigma=st.floats(2**-10, 2**10, width=32),
    pa_lower=st.floats(0, 1, exclude_max=True),
    predict=st.integers(-1, 999),
    counts=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4),
)
def test_a_line_keeps_full_precision(tmp_path_factory, radius, sigma, pa_lower, predict, counts):
    record = make_record(
        radius=radius,
        sigma=sigma,
        pa_lower=pa_lower,
        predict=predict,
        correct=predict == 3,
        counts=tuple(counts),
    )
    path = tmp_path_factory.getbasetemp() / "precision.tsv"
    path.write_text("\t".join(COLUMNS) + "\n" + record.line())
    found = read_run(path).records[0]
    assert (found.radius, found.pa_lower, found.predict) == (radius, pa_lower, predict)
    assert np.float32(found.sigma) == np.float32(sigma)
    assert found.counts == tuple(counts) and found.counts0 == record.counts0
    assert found.correct is (predict == 3) and found.search_samples == 5500


def test_the_columns_of_a_line():
    line = make_record(idx=7, radius=0.5, pa_lower=0.75).line()
    assert line == "7\t3\t3\t0.5\t1\t0.15000000596046448\t0.75\t0:00:01.250000\t5500\t1,2,3,94\t0,1,99,99900\n"
    assert COLUMNS[:8] == ("idx", "label", "predict", "radius", "correct", "best_sigma", "pABar", "time")


def test_a_soft_line_keeps_the_sums_of_its_bound(tmp_path):
    soft = dict(pb_upper=1 / 3, sums0=(2**22, 0), sums=(2**45, 1), squares=(2**60, 1))
    with Writer(tmp_path / "r.tsv", REQUEST, {}, Record.columns(soft)) as writer:
        writer.write(make_record(**soft))
    header, line = (tmp_path / "r.tsv").read_text().splitlines()
    assert header.split("\t") == [*COLUMNS, "pBBar", "sums0", "sums", "squares"]
    assert line.split("\t")[len(COLUMNS) :] == [repr(1 / 3), "4194304,0", f"{2**45},1", f"{2**60},1"]
    assert read_run(tmp_path / "r.tsv").records == [make_record(**soft)]


@pytest.mark.parametrize("seconds", [0.0, 0.000001, 59.999999, 3600.0, 86400.0, 2 * 86400 + 3661.5])
def test_times_of_a_day_and_more(tmp_path, seconds):
    record = make_record(seconds=seconds)
    assert str(datetime.timedelta(seconds=seconds)) in record.line()
    assert read_back(tmp_path / "r.tsv", record).seconds == pytest.approx(seconds, abs=1e-9)


def test_samples_count_search_selection_and_estimation():
    assert make_record().samples == 5500 + 100 + 100_000
    assert math.isnan(make_record(counts=None).samples)


def test_writer_resumes_and_the_sidecar_stays(tmp_path):
    path = tmp_path / "new/folder/r.tsv"
    assert write_all(path, [make_record(0), make_record(5)]) == []
    sidecar = json.loads(sidecar_path(path).read_text())
    done = write_all(path, [make_record(10)])
    assert [r.idx for r in done] == [0, 5]
    run = read_run(path)
    assert [r.idx for r in run.records] == [0, 5, 10]
    assert run.request == REQUEST and run.sidecar["provenance"] == {"device": "cpu"}
    after = json.loads(sidecar_path(path).read_text())
    assert after.pop("owner") != sidecar.pop("owner") and after == sidecar
    assert sorted(p.name for p in path.parent.iterdir()) == ["r.tsv", "r.tsv.json"]


@pytest.mark.slow
def test_a_file_torn_at_any_byte_is_completed_to_the_same_bytes(tmp_path):
    records = [make_record(i) for i in range(2)]
    whole_path = tmp_path / "whole.tsv"
    write_all(whole_path, records)
    whole = whole_path.read_bytes()
    path = tmp_path / "torn.tsv"
    write_all(path, [])
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with Writer(path, REQUEST, {}) as writer:
            done = {r.idx for r in writer.done}
            assert len(done) == max(whole[:length].count(b"\n") - 1, 0)
            for record in records:
                if record.idx not in done:
                    writer.write(record)
        assert path.read_bytes() == whole


def test_a_full_disk_is_reported_and_loses_nothing(tmp_path):
    records, path = [make_record(i) for i in range(6)], tmp_path / "r.tsv"
    write_all(tmp_path / "whole.tsv", records)
    whole = (tmp_path / "whole.tsv").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Writer(path, REQUEST, {}) as writer:
        writer.write(*records[:3])
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) - 10, limits[1]))
            with pytest.raises(RecordsError, match=r"r\.tsv: cannot be written: File too large\. Make room") as error:
                writer.write(*records[3:])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "continues after the last whole line" in str(error.value)
    assert whole.startswith(path.read_bytes()) and [r.idx for r in read_run(path).records] == [0, 1, 2]
    assert len(write_all(path, records[3:])) == 3 and path.read_bytes() == whole


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Make room"),
        (errno.EROFS, "Choose a folder that you may write to"),
        (errno.EACCES, "Choose a folder that you may write to"),
        (errno.ENOLCK, "no locks"),
        (errno.EIO, "Choose another file"),
    ],
)
def test_a_file_that_cannot_be_begun_is_named_with_the_remedy(tmp_path, monkeypatch, number, remedy):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(RecordsError, match=rf"r\.tsv: cannot be written: .*{remedy}"):
        Writer(tmp_path / "r.tsv", REQUEST, {})


def test_where_locks_do_nothing_one_of_two_runs_stops(tmp_path, monkeypatch):
    # As on some file systems of a network. Neither loses a line, and no image has two.
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    path = tmp_path / "r.tsv"
    with Writer(path, REQUEST, {}) as first:
        first.write(make_record(0))
        with Writer(path, REQUEST, {}) as second:
            assert second.done == [make_record(0)]
            with pytest.raises(RecordsError, match="another run has begun to write to it"):
                first.write(make_record(1))
            with pytest.raises(RecordsError, match="another run has begun to write to it"):
                first.finish([], "0")
            second.write(make_record(1))
            second.finish([], "0")
        with pytest.raises(RecordsError, match="another run has begun to write to it"):
            first.write(make_record(2))
    assert [record.idx for record in read_run(path).records] == [0, 1] and "owner" not in read_run(path).sidecar


def test_results_are_only_written_to_regular_files():
    with pytest.raises(RecordsError, match="/dev/null: is not a regular file, so no results can be written to it"):
        Writer("/dev/null", REQUEST, {})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("best_sigma\t", ""), "its first line was changed"),
        (lambda text: text.replace("\t0.5\t", "\t"), "line 3: not a result: it has another number of fields"),
        (lambda text: text.replace("99900", "99901"), "line 2: .*counts are not those of 100000 .*sum to 100001"),
        (lambda text: text.replace("1,2,3,94", "1,2,-3,94"), "line 2: .*counts0 are not those of 100 samples"),
        (lambda text: text.replace("99900", "many"), "line 2: not a result"),
    ],
)
def test_a_file_edited_by_hand_is_not_continued(tmp_path, edit, message):
    request = {**REQUEST, "n0": 100, "n": 100_000}
    path = tmp_path / "r.tsv"
    write_all(path, [make_record(0), make_record(1, radius=0.5)], request)
    path.write_text(edit(path.read_text()))
    before = path.read_bytes()
    with pytest.raises(RecordsError, match=rf"r\.tsv(.*, |: ){message}") as error:
        Writer(path, request, {})
    assert path.read_bytes() == before and ("or choose another" in str(error.value) or "delete it" in str(error.value))


def test_a_finished_run_names_the_images_that_were_left_out(tmp_path):
    path = tmp_path / "r.tsv"
    write_all(path, [make_record(0)])
    assert "left_out" not in read_run(path).sidecar
    with Writer(path, REQUEST, {"device": "another"}) as writer:
        writer.finish([4, 7], "0")
    sidecar = read_run(path).sidecar
    assert (sidecar["request"], sidecar["provenance"], sidecar["left_out"]) == (REQUEST, {"device": "cpu"}, [4, 7])
    assert sidecar["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert write_all(path, [make_record(5)]) == [make_record(0)]
    assert not {"left_out", "sha256"} & set(read_run(path).sidecar)  # until it is finished again


def test_a_finished_run_that_was_changed_is_not_continued(tmp_path):
    path = tmp_path / "r.tsv"
    write_all(path, [make_record(0), make_record(1)])
    with Writer(path, REQUEST, {}) as writer:
        writer.finish([4], "0")
    with Writer(path, REQUEST, {}) as writer:  # an extension of it
        assert (writer.finished["left_out"], writer.finished["pixels_sha256"]) == ([4], "0")
        assert read_run(path).sidecar["left_out"] == [4]  # so long as nothing is appended
        writer.finish([], "0")
    text = path.read_text()
    for changed in (text.replace("3", "4", 1), text[:-1], "".join(text.splitlines(True)[:-1])):
        path.write_text(changed)
        with pytest.raises(
            RecordsError, match=("r.tsv: was changed after the run was finished.*all hashes in r.tsv.json")
        ):
            Writer(path, REQUEST, {})
        assert path.read_text() == changed
    sidecar = json.loads(sidecar_path(path).read_text())  # as the message says
    sidecar_path(path).write_text(json.dumps({k: v for k, v in sidecar.items() if not k.endswith("sha256")}))
    with Writer(path, REQUEST, {}) as writer:
        assert len(writer.done) == 1 and "pixels_sha256" not in writer.finished


def test_every_line_is_on_disk_before_the_next(tmp_path):
    path = tmp_path / "r.tsv"
    with Writer(path, REQUEST, {}) as writer:
        for i in range(3):
            writer.write(make_record(i))
            assert [r.idx for r in read_run(path).records] == list(range(i + 1))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sigma": 0.25}, "sigma: 0.5 in the file, 0.25 now"),
        ({"dataset": {"name": "npz", "fingerprint": "cd"}}, "dataset.fingerprint: 'ab' in the file, 'cd' now"),
        ({"alpha": 0.01}, "alpha: None in the file, 0.01 now"),
    ],
)
def test_another_request_is_refused_and_named(tmp_path, change, named):
    path = tmp_path / "r.tsv"
    write_all(path, [make_record()])
    before = path.read_bytes() + b"torn"
    path.write_bytes(before)
    with pytest.raises(RecordsError, match=named) as error:
        Writer(path, REQUEST | change, {})
    assert "r.tsv" in str(error.value) and "seed" not in str(error.value)
    assert path.read_bytes() == before  # not even the torn line is touched


def test_a_request_with_tuples_is_the_same_when_read_back(tmp_path):
    path = tmp_path / "r.tsv"
    write_all(path, [make_record()], {"mean": (0.5, 0.1)})
    assert len(write_all(path, [], {"mean": (0.5, 0.1)})) == 1


@pytest.mark.parametrize("method, says", [("qcrs", True), ("ddrs", True), ("cohen", False)])
def test_the_sidecar_of_an_input_specific_method_says_what_its_certificates_hold_for(tmp_path, method, says):
    with Writer(tmp_path / "r.tsv", certificates(method), {}):
        pass
    content = json.loads(sidecar_path(tmp_path / "r.tsv").read_text())
    assert (content.get("guarantee") == INPUT_SPECIFIC) == says
    assert "held fixed" in INPUT_SPECIFIC and "search sigma again" in INPUT_SPECIFIC


def test_a_file_without_sidecar_is_not_continued(tmp_path):
    path = tmp_path / "r.tsv"
    path.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.5\t1\t1.0\n")
    before = path.read_bytes()
    with pytest.raises(RecordsError, match=r"r\.tsv: exists, without the sidecar r\.tsv\.json"):
        Writer(path, REQUEST, {})
    assert path.read_bytes() == before and not sidecar_path(path).exists()


@pytest.mark.parametrize("content", [b"notes", b"idx\tlabel\tpredicted", b"\n", b"\x80\x02 no text"])
def test_a_small_file_of_someone_else_is_left_alone(tmp_path, content):
    path = tmp_path / "r.tsv"
    path.write_bytes(content)
    with pytest.raises(RecordsError, match="without the sidecar"):
        Writer(path, REQUEST, {})
    assert path.read_bytes() == content


def test_a_run_without_results_binds_no_request(tmp_path):
    path = tmp_path / "r.tsv"
    Writer(path, REQUEST, {}).__exit__()
    other = {**REQUEST, "seed": 12345}
    with Writer(path, other, {}) as writer:
        writer.write(make_record())
    assert len(read_run(path).records) == 1 and read_run(path).request == json.loads(json.dumps(other))


@pytest.mark.parametrize("soft", [False, True])
def test_a_whole_run_is_written_once_and_keeps_all_fields(tmp_path, soft):
    others = {"pb_upper": 0.25, "sums0": (1, 2), "sums": (3, 4), "squares": (5, 6)} if soft else {}
    unknown = {"sigma": None, "pa_lower": None, "seconds": 0.5, "counts0": None, "counts": None}
    records = [make_record(0, **others), make_record(1, **others, **unknown)]
    path = tmp_path / "new/r.tsv"
    write_run(path, records, REQUEST, {})
    run = read_run(path)
    assert run.records == records and run.request == REQUEST
    with pytest.raises(RecordsError, match="r.tsv: already exists"):
        write_run(path, [], REQUEST, {})
    path.unlink()
    with pytest.raises(RecordsError, match="r.tsv.json: already exists"):
        write_run(path, [], {**REQUEST, "sigma": 9}, {})
    write_run(path, records, REQUEST, {})  # a sidecar of this request alone is left of a write that was cut off
    assert read_run(path).records == records


@pytest.mark.parametrize("step", [0, 1])
def test_a_run_that_is_written_whole_or_not_at_all(tmp_path, monkeypatch, step):
    path, done, replace = tmp_path / "r.tsv", [], os.replace

    def killed(*names):
        if len(done) == step:
            raise KeyboardInterrupt
        done.append(replace(*names))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        write_run(path, [make_record(0)], REQUEST, {})
    assert not path.exists()
    write_run(path, [make_record(0)], REQUEST, {})
    assert len(read_run(path).records) == 1 and sorted(f.name for f in tmp_path.iterdir()) == ["r.tsv", "r.tsv.json"]


def test_a_link_in_the_place_of_a_sidecar_or_of_its_draft_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("r.tsv.json", "r.tsv.json.tmp"):
        (tmp_path / name).symlink_to(victim)
    with Writer(tmp_path / "r.tsv", REQUEST, {}) as writer:
        writer.write(make_record(0))
    assert victim.read_text() == "precious" and not sidecar_path(tmp_path / "r.tsv").is_symlink()


def test_two_runs_cannot_write_to_one_file(tmp_path):
    path = tmp_path / "r.tsv"
    with Writer(path, REQUEST, {}):
        with pytest.raises(RecordsError, match="another run is writing"):
            Writer(path, REQUEST, {})
    Writer(path, REQUEST, {}).__exit__()


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"request": {}}), json.dumps({"request": 3})])
def test_a_damaged_sidecar_is_named(tmp_path, content):
    path = tmp_path / "r.tsv"
    write_all(path, [make_record()])
    sidecar_path(path).write_text(content)
    with pytest.raises(RecordsError, match=r"r\.tsv\.json: not the sidecar of a run"):
        read_run(path)
    with pytest.raises(RecordsError, match=r"r\.tsv\.json"):
        Writer(path, REQUEST, {})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("0\t3\t3\t0.5\t1\t1.0", "image 0 is listed twice"),
        ("1\t3\t3\tfive\t1\t1.0", "not a result.*five"),
        ("1\t3\tcat\t0.5\t1\t1.0", "not a result.*cat"),
        ("1\t3\t3\t-0.5\t1\t1.0", "radius -0.5"),
        ("1\t3\t3\tnan\t1\t1.0", "radius nan"),
        ("1\t3\t3\tinf\t1\t1.0", "radius inf"),
        ("1\t3\t3\t0.5\t2\t1.0", "not a result"),
        ("1\t3\t3\t0.5\t0\t1.0", "correct is 0, but predict 3 and label 3"),
        ("1\t3\t-1\t0.0\t1\t1.0", "correct is 1, but predict -1 and label 3"),
        ("1\t3\t3\t0.5\t1", "number of fields"),
        ("1\t3\t3\t0.5\t1\t1.0\t8", "number of fields"),
        ("1\t3\t3\t0.5\t1\tnoon", "not a result.*noon"),
    ],
)
def test_a_bad_line_is_named(tmp_path, bad, message):
    path = tmp_path / "r.tsv"
    path.write_text(f"idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.5\t1\t1.0\n{bad}\n")
    with pytest.raises(RecordsError, match=rf"r\.tsv, line 3: .*{message}"):
        read_run(path)


def test_a_bad_line_stops_a_resume(tmp_path):
    path = tmp_path / "r.tsv"
    write_all(path, [make_record(0), make_record(1)])
    before = path.read_bytes() + make_record(1).line().encode()
    path.write_bytes(before)
    with pytest.raises(RecordsError, match="line 4: image 1 is listed twice"):
        Writer(path, REQUEST, {})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "idx\tlabel\tradius\n", "a,b\n1,2\n"])
def test_other_files_are_no_results_files(tmp_path, content):
    path = tmp_path / "r.tsv"
    path.write_text(content)
    with pytest.raises(RecordsError, match=r"r\.tsv: not a results file.*predict"):
        read_run(path)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "binary.tsv").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.tsv", "binary.tsv", "."):
        with pytest.raises(RecordsError, match="cannot be read as a results file"):
            read_run(tmp_path / name)


def test_our_files_know_whether_sigma_was_chosen_per_input(tmp_path):
    def run(name, method, sigmas):
        path = tmp_path / name
        write_all(path, [make_record(i, sigma=s) for i, s in enumerate(sigmas)], certificates(method))
        return read_run(path)

    assert run("a", "qcrs", [0.5, 0.5]).input_specific
    assert not run("b", "cohen", [0.5, 0.5]).input_specific
    (tmp_path / "c").write_text(
        "idx\tlabel\tpredict\tradius\tcorrect\tbest_sigma\n0\t1\t1\t0.1\t1\t0.3\n1\t1\t1\t0.1\t1\t0.4\n"
    )
    assert read_run(tmp_path / "c").input_specific


@pytest.mark.slow_for("qcrs_cifar10_resnet110_sigma0.50-10000-first3-True")
@pytest.mark.parametrize(
    ("name", "images", "first", "specific"),
    [
        ("cohen_cifar10_resnet110_sigma0.25", 500, (0, 3, 3, 0.378, None, 15.4), False),
        ("cohen_cifar10_resnet110_sigma0.50", 500, (0, 3, 3, 0.486, None, 16.6), False),
        ("cohen_imagenet_resnet50_sigma0.50", 500, (0, 0, 394, 0.0125, None, 152.717239), False),
        (
            "qcrs_cifar10_resnet110_sigma0.50",
            10_000,
            (0, 3, 3, 0.7700592317576768, 0.35453124999999996, 4.995791),
            True,
        ),
    ],
)
def test_published_files(name, images, first, specific):
    path = RESULTS / f"{name}.tsv"
    if not path.exists():
        pytest.skip("the published results are not here")
    run = read_run(path)
    record = run.records[0]
    assert len(run.records) == images and run.request == {} and run.input_specific is specific
    found = (record.idx, record.label, record.predict, record.radius, record.sigma)
    assert found == first[:-1] and record.seconds == pytest.approx(first[-1])
    assert record.counts is None and math.isnan(record.samples)


def test_copies_of_no_class_are_those_that_were_drawn_and_are_not_counted():
    request = {"n0": 10, "n": 100}
    record = Record(0, 1, 1, 0.0, True, counts0=(4, 5), counts=(90, 7))
    assert count_unclassified([record], request) == (4, 110)
    assert count_unclassified([record, dataclasses.replace(record, n=97)], request) == (5, 217)
    assert count_unclassified([dataclasses.replace(record, counts=(0, 0), n=0)], request) == (1, 10)  # none were drawn
    assert count_unclassified([dataclasses.replace(record, counts=None), record], {}) == (0, 0)
