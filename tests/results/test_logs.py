"""Logs of other programs: other names and spellings of the same columns are read, and nothing else is in silence."""

import math
import subprocess
import sys

import pytest
from places import SHARED

from qcrs_jax.experiments.report.table import tables
from qcrs_jax.results.records import INPUT_SPECIFIC, RecordsError, read_run

COHEN = "idx\tlabel\tpredict\tradius\tcorrect\ttime"


def log(tmp_path, *lines, encoding="utf-8", end="\n"):
    path = tmp_path / "log.tsv"
    path.write_bytes(("\n".join(lines) + end).encode(encoding))
    return path


def values(path):
    return [(r.idx, r.label, r.predict, r.radius, r.correct) for r in read_run(path).records]


@pytest.mark.parametrize(
    "line, expected",
    [
        ("0\t3\t3\t0.5\tTrue\t1.0", (0, 3, 3, 0.5, True)),
        ("0.0\t3.0\t3.0\t0.5\t1.0\t1.0", (0, 3, 3, 0.5, True)),
        (" 0 \t 3\t4 \t 0.5 \t false \t 1.0 ", (0, 3, 4, 0.5, False)),
        ("0\t3\t-2\t0.0\t0\t1.0", (0, 3, -1, 0.0, False)),
        ("0\t3\t-2.0\t-1.0\tFalse\t1.0", (0, 3, -1, 0.0, False)),
        ("0\t3\t-1\tnan\t0\t1.0", (0, 3, -1, 0.0, False)),
        ("0\t3\t-1\t\t0\t1.0", (0, 3, -1, 0.0, False)),
    ],
)
def test_other_spellings_of_numbers(tmp_path, line, expected):
    assert values(log(tmp_path, COHEN, line)) == [expected]


@pytest.mark.parametrize(
    "line",
    ["0\t3.5\t3\t0.5\t0\t1.0", "0\t3\t-3\t0.5\t0\t1.0", "0\t-1\t-1\t0.0\t1\t1.0", "0\t3\t3\t0.5\tyes\t1.0"],
)
def test_lines_that_are_no_results_are_refused(tmp_path, line):
    with pytest.raises(RecordsError, match="log.tsv, line 2: not a result"):
        read_run(log(tmp_path, COHEN, line))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_padding_and_repeated_headers(tmp_path, encoding):
    padded = COHEN.replace("\t", " \t ")
    path = log(tmp_path, padded, "0\t3\t3\t0.51\t1\t1.0", COHEN, "", padded, "7\t3\t3\t0.4\t1\t1.0", encoding=encoding)
    assert values(path) == [(0, 3, 3, 0.51, True), (7, 3, 3, 0.4, True)]
    with pytest.raises(RecordsError, match="line 6: image 0 is listed twice"):  # as the file counts its lines
        read_run(log(tmp_path, padded, "0\t3\t3\t0.51\t1\t1.0", COHEN, "", padded, "0\t3\t3\t0.4\t1\t1.0"))


def test_tabs_behind_the_last_field(tmp_path):
    assert values(log(tmp_path, COHEN + "\t", "0\t3\t3\t0.5\t1\t1.0\t", COHEN, "1\t3\t3\t0.5\t1\t1.0"))[1][0] == 1
    assert read_run(log(tmp_path, "idx\tlabel\tpredict\tcorrect\ttime\t", "0\t3\t3\t1\t1.0\t")).predicts


def test_joined_logs_of_two_kinds_are_refused(tmp_path):
    with pytest.raises(RecordsError, match="line 3: .*header of other columns.*file of its own"):
        read_run(log(tmp_path, COHEN, "0\t3\t3\t0.5\t1\t1.0", "idx\tlabel\tpredict\tcorrect\ttime", "1\t3\t3\t1\t1.0"))


@pytest.mark.parametrize("name", ["l2_radius", "L2 radius", "Certified_Radius", "certified-radius"])
def test_other_names_of_columns(tmp_path, name):
    path = log(tmp_path, f"index\ttarget\tpred\t{name}\tCorrect\tprob_lb", "0\t3\t3\t0.5\t1\t0.9")
    (record,) = read_run(path).records
    assert (record.idx, record.label, record.predict, record.radius) == (0, 3, 3, 0.5) and record.pa_lower == 0.9
    assert not read_run(path).predicts


@pytest.mark.parametrize("name", ["radius proved", "R", "linf_radius", "eps", "radii", "prob_lb", "cert"])
def test_a_file_without_radius_is_no_run_of_predict_because_its_column_has_another_name(tmp_path, name):
    path = log(tmp_path, f"idx\tlabel\tpredict\t{name}\tcorrect\ttime", "0\t3\t3\t0.5\t1\t1.0")
    with pytest.raises(RecordsError, match=f"no column radius, and is no run of PREDICT.*{name!r}.*call it"):
        read_run(path)


def test_predictions_are_still_read(tmp_path):
    run = read_run(log(tmp_path, "idx\tlabel\tpredict\tcorrect\ttime", "0\t3\t-2\t0\t1.0"))
    assert run.predicts and run.records[0].predict == -1


def test_two_radii_of_which_none_is_called_radius(tmp_path):
    with pytest.raises(RecordsError, match="l2_radius and certified_radius.*call one of them radius"):
        read_run(log(tmp_path, "idx\tlabel\tpredict\tl2_radius\tcertified_radius\tcorrect", "0\t3\t3\t0.5\t0.4\t1"))
    with pytest.raises(RecordsError, match="column 'radius' twice"):
        read_run(log(tmp_path, "idx\tlabel\tpredict\tradius\tradius\tcorrect", "0\t3\t3\t0.5\t0.4\t1"))


@pytest.mark.parametrize("name", ["sigma", "min_sigma", "opt_sigma", "Sigma per image", "best_sigma"])
def test_sigmas_of_images(tmp_path, name):
    header = f"idx\tlabel\tpredict\tradius\tcorrect\tsigma_0\t{name}"
    run = read_run(log(tmp_path, header, "0\t3\t3\t0.5\t1\t0.25\t0.31", "1\t3\t3\t0.5\t1\t0.25\t0.22"))
    assert [record.sigma for record in run.records] == [0.31, 0.22] and run.input_specific
    assert INPUT_SPECIFIC in tables([run], "markdown")
    one = read_run(log(tmp_path, header.replace("sigma_0", "k"), "0\t3\t3\t0.5\t1\t7\t0.31"))
    assert one.input_specific  # in doubt
    with pytest.raises(RecordsError, match="line 2: .*sigma -0.31"):
        read_run(log(tmp_path, header.replace("sigma_0", "k"), "0\t3\t3\t0.5\t1\t7\t-0.31"))


def test_one_sigma_for_all_images_is_no_search(tmp_path):
    header = COHEN.replace("time", "sigma")
    assert not read_run(log(tmp_path, header, "0\t3\t3\t0.5\t1\t0.25", "1\t3\t3\t0.5\t1\t0.25")).input_specific


@pytest.mark.parametrize(
    "header, last",
    [
        (COHEN, "20\t3\t3\t0.4"),
        (COHEN, "20\t3\t3\t0.4\t1\t0:00:0"),
        (COHEN, "20\t3\t3\t0.4\t1\t15"),
        ("idx\tlabel\tpredict\tcorrect\tradius", "20\t3\t3\t1\t0.4"),
    ],
)
def test_a_cut_last_line_is_refused(tmp_path, header, last):
    with pytest.raises(RecordsError, match=r"log.tsv, line 2: .*cut.*delete it, or put the whole line there"):
        read_run(log(tmp_path, header, last, end=""))


def test_a_whole_last_line_without_a_newline(tmp_path):
    path = log(tmp_path, COHEN, "20\t3\t3\t0.4\t1\t0:00:01.2", end="")
    assert values(path) == [(20, 3, 3, 0.4, True)] and math.isclose(read_run(path).records[0].seconds, 1.2)


def test_commas_are_told_from_tabs(tmp_path):
    with pytest.raises(RecordsError, match="separate the columns by tabs"):
        read_run(log(tmp_path, COHEN.replace("\t", ","), "0,3,3,0.4,1,1.0"))


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    script, out = SHARED / "cases" / "logs.py", tmp_path_factory.mktemp("logs")
    if not script.exists():
        pytest.skip("the files of kinds are not here")
    subprocess.run([sys.executable, script, out], check=True)
    return out


@pytest.mark.parametrize(
    "name, images", [("min_sigma", 2), ("joined", 2), ("byte_order_mark", 1), ("padded_header", 1)]
)
def test_logs_of_these_kinds_are_read(cases, name, images):
    run = read_run(cases / f"{name}.tsv")
    assert len(run.records) == images and not run.predicts and run.records[0].radius == 0.51
    assert run.input_specific == (name == "min_sigma") == (INPUT_SPECIFIC in tables([run], "markdown"))


@pytest.mark.parametrize(
    "name, message", [("radius_proved", "no column radius.*'radius proved'"), ("cut", "line 3: .*cut")]
)
def test_logs_of_these_kinds_are_refused(cases, name, message):
    with pytest.raises(RecordsError, match=message):
        read_run(cases / f"{name}.tsv")
