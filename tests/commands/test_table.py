"""`qcrs-jax table` as a user runs it."""

import csv
import io
import json
import re
import subprocess
import sys

import pytest
from program import COHEN_FORMAT, QCRS_FORMAT, RADII, qcrs_jax, refused, unwrapped

from qcrs_jax.results.records import INPUT_SPECIFIC, read_run


def test_table_on_the_terminal(results):
    lines = qcrs_jax("table", "cohen_a.tsv", "qcrs.tsv", *RADII, cwd=results).stdout.splitlines()
    assert lines[0] == "2 images, 0 to 1"
    header, cohen, qcrs = lines[2], lines[4], lines[6]  # below each its intervals
    assert re.split("  +", header)[:6] == ["run", "one classifier", "ACR", "r = 0", "r = 0.25", "r = 0.5"]
    # ACR .25 and .45; accuracy at 0: 1 and .5; at .25: .5 both; at .5: 0 and .5
    assert cohen.split() == ["cohen_a.tsv", "-", "0.2500", "*1.000", "*0.500", "0.000", "0.000", "-", "1.50"]
    assert qcrs.split() == ["qcrs.tsv", "no", "*0.4500", "0.500", "*0.500", "*0.500", "0.500", "-", "5.50"]


def test_table_in_markdown(results):
    lines = qcrs_jax("table", "cohen_a.tsv", "qcrs.tsv", *RADII, "--format", "markdown", cwd=results).stdout
    header = "| run | one classifier | ACR | r = 0 | r = 0.25 | r = 0.5 | abstains | samples | median s |"
    assert f"{header}\n| --- | ---: |" in lines
    assert "| cohen_a.tsv | - | 0.2500 | **1.000** | **0.500** | 0.000 | 0.000 | - | 1.50 |\n" in lines
    assert "| qcrs.tsv | no | **0.4500** | 0.500 | **0.500** | **0.500** | 0.500 | - | 5.50 |\n" in lines


def test_table_in_latex(results):
    text = qcrs_jax("table", "cohen_a.tsv", "qcrs.tsv", *RADII, "--format", "latex", cwd=results).stdout
    assert r"run & one classifier & ACR & $r = 0$ & $r = 0.25$ & $r = 0.5$ & abstains & samples & median s \\" in text
    assert r"cohen\_a.tsv & - & 0.2500 & \textbf{1.000} & \textbf{0.500} & 0.000 & 0.000 & - & 1.50 \\" in text
    assert r"qcrs.tsv & no & \textbf{0.4500} & 0.500" in text
    begin, end = text.index(r"\begin{tabular}"), text.index(r"\end{tabular}") + len(r"\end{tabular}")
    outside = (text[:begin] + text[end:]).splitlines()
    assert all(line.startswith("%") for line in outside if line), "everything else is a comment"


def test_table_in_csv(results):
    text = qcrs_jax("table", "cohen_a.tsv", "qcrs.tsv", "others.tsv", *RADII, "--format", "csv", cwd=results).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(r["run"], r["image_set"]) for r in rows] == [
        ("cohen_a.tsv", "1"),
        ("qcrs.tsv", "1"),
        ("others.tsv", "2"),
    ]
    assert float(rows[1]["acr"]) == 0.45 and float(rows[1]["certified_accuracy_0.5"]) == 0.5
    assert rows[1]["samples"] == "nan" and float(rows[1]["seconds"]) == 5.5
    assert rows[1]["acr_low"] == "nan" and float(rows[1]["certified_accuracy_0.5_low"]) < 0.5
    assert [r["guarantee"] for r in rows] == ["", INPUT_SPECIFIC, ""]


def test_names_and_columns_are_chosen(results):
    words = ["table", "cohen_a.tsv", "qcrs.tsv", "--names", "Cohen et al.", "ours", "--columns", "samples", "acr"]
    text = qcrs_jax(*words, "--format", "markdown", cwd=results).stdout
    assert "| run | samples | ACR |" in text and "| Cohen et al. | - | 0.2500 |" in text and "cohen_a.tsv" not in text
    assert "--names has 1 entries" in refused("table", "cohen_a.tsv", "qcrs.tsv", "--names", "a", cwd=results)
    assert "invalid choice" in refused("table", "qcrs.tsv", "--columns", "speed", cwd=results)
    for more in (["--format", "csv"], ["--classes"]):
        assert "--columns" in refused("table", "qcrs.tsv", "--columns", "acr", *more, cwd=results)


def test_the_shares_above_some_p_a(results):
    lines = "".join(
        f"{i}\t3\t{3 if i else 1}\t0.9\t{int(i > 0)}\t0.4\t{p}\t0:00:05\n"
        for i, p in enumerate([0.99999, 0.95, 0.99, 0.9999])
    )
    (results / "four.tsv").write_text(QCRS_FORMAT.format(lines))
    text = qcrs_jax("table", "four.tsv", "--columns", "p_a", "--format", "markdown", cwd=results).stdout
    assert "| p_A > 0.9 | p_A > 0.99 | p_A > 0.999 |" in text and "| 0.750 | 0.250 | 0.250 |" in text, (
        "a wrong answer is 0"
    )
    assert (
        "| - | - | - |"
        in qcrs_jax("table", "cohen_a.tsv", "--columns", "p_a", "--format", "markdown", cwd=results).stdout
    )


def test_a_latex_table_with_caption_and_label(results):
    words = "table cohen_a.tsv others.tsv --format latex --label tab:acr --caption".split()
    text = qcrs_jax(*words, r"ACR of $\sigma$", cwd=results).stdout
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2 and r"\caption{ACR of $\sigma$}" in text
    assert r"\label{tab:acr}" in text and r"\label{tab:acr-2}" in text, "a label is there once"
    assert text.count(r"\toprule") == 2 and r"% needs \usepackage{booktabs}" in text and r"\hline" not in text
    assert "go with --format latex" in refused("table", "qcrs.tsv", "--caption", "c", cwd=results)


@pytest.mark.slow
def test_a_line_of_csv_for_each_image(certified):
    from io import StringIO

    import pandas

    words = "table cohen.tsv golden.tsv --format csv --per_image --names A B".split()
    frame = pandas.read_csv(StringIO(qcrs_jax(*words, cwd=certified).stdout))
    assert list(frame.run) == ["A"] * 3 + ["B"] * 3 and list(frame.idx) == [0, 1, 2] * 2
    records = [r for name in ("cohen", "golden") for r in read_run(certified / f"{name}.tsv").records]
    assert frame.seconds.tolist() == [r.seconds for r in records] and frame.radius.tolist() == [
        r.radius for r in records
    ]
    assert [tuple(json.loads(text)) for text in frame.counts] == [r.counts for r in records]
    assert (frame.correct == (frame.predict == frame.label)).all() and frame.label_name.tolist() == frame.label.tolist()
    assert "robust" not in frame and frame.samples.tolist() == [r.samples for r in records]
    assert "give --format csv" in refused("table", "cohen.tsv", "--per_image", cwd=certified)


def test_a_single_run_has_nothing_marked(results):
    assert "*" not in qcrs_jax("table", "qcrs.tsv", cwd=results).stdout


@pytest.mark.parametrize("format", ["terminal", "markdown", "latex"])
def test_different_images_are_kept_apart_with_a_warning(results, format):
    words = ["table", "cohen_a.tsv", "others.tsv", "qcrs.tsv", "--format", format]
    text = qcrs_jax(*words, cwd=results).stdout
    assert "2 different sets of images" in text and "do not compare figures" in unwrapped(text)
    assert text.index("cohen") < text.index("qcrs.tsv") < text.index("others.tsv")
    first, second = text.index("2 images, 0 to 1"), text.index("2 images, 0 to 2")
    assert first < text.index("qcrs.tsv") < second < text.index("others.tsv")
    text = qcrs_jax("table", "cohen_a.tsv", "qcrs.tsv", "--format", format, cwd=results).stdout
    assert "different sets" not in text


@pytest.mark.slow
def test_the_guarantee_is_stated_where_sigma_is_chosen_per_input(results, certified):
    held_fixed = "certificate holds for the classifier smoothed with that input's sigma"
    assert held_fixed in unwrapped(qcrs_jax("table", "qcrs.tsv", "cohen_a.tsv", cwd=results).stdout)
    assert held_fixed not in unwrapped(qcrs_jax("table", "cohen_a.tsv", cwd=results).stdout)
    text = unwrapped(qcrs_jax("table", "golden.tsv", "cohen.tsv", cwd=certified).stdout)
    assert held_fixed in text and "alpha = 0.001; over 3 images expect up to 0.003 wrong ones" in text
    text = unwrapped(qcrs_jax("table", "cohen.tsv", cwd=certified).stdout)
    assert held_fixed not in text and "alpha = 0.001" in text


@pytest.mark.slow
def test_table_of_classes(certified):
    text = qcrs_jax("table", "golden.tsv", "--classes", cwd=certified).stdout
    assert re.findall(r"^(\w+) +(\d+) ", text, re.MULTILINE)[-3:] == [("1", "1"), ("4", "2"), ("all", "3")]


def test_table_writes_a_file(results):
    printed = qcrs_jax("table", "qcrs.tsv", cwd=results).stdout
    assert qcrs_jax("table", "qcrs.tsv", "--out", "t.txt", cwd=results).stdout == ""
    assert (results / "t.txt").read_text() == printed
    assert "nowhere" in refused("table", "qcrs.tsv", "--out", "nowhere/t.txt", cwd=results)
    before = (results / "qcrs.tsv").read_bytes()
    assert "would replace" in refused("table", "qcrs.tsv", "--out", "qcrs.tsv", cwd=results)
    (results / "cohen_a.tsv.json").write_text("{}")
    assert "would replace" in refused("table", "qcrs.tsv", "--out", "cohen_a.tsv", cwd=results)
    assert (results / "qcrs.tsv").read_bytes() == before


@pytest.mark.parametrize("command", [["table"], ["plot", "--out", "p.png"]])
def test_results_that_cannot_be_read_are_named(results, command):
    (results / "empty.tsv").write_text(COHEN_FORMAT.format(""))
    (results / "bad.tsv").write_text(COHEN_FORMAT.format("0\t3\t3\t0.2\t0\t1.5\n"))
    assert "none.tsv" in refused(*command, "none.tsv", cwd=results)
    assert "bad.tsv, line 2: " in refused(*command, "bad.tsv", cwd=results)
    assert "empty.tsv: holds no results yet" in refused(*command, "empty.tsv", cwd=results)


def test_the_table_of_a_results_file_computes_nothing(results):
    code = (
        "import sys\nfrom qcrs_jax.experiments.cli import main\n"
        "assert main(['table', 'cohen_a.tsv', 'qcrs.tsv']) == 0\n"
        "assert main(['plot', 'cohen_a.tsv', 'qcrs.tsv', '--out', 'p.svg']) == 0\n"
        "found = [m for m in sys.modules if m.split('.')[0] in ('jaxlib', 'flax', 'torch')]\n"
        "assert not found and 'qcrs_jax.certification.certificate' not in sys.modules, found"
    )
    subprocess.run([sys.executable, "-c", code], cwd=results, check=True, capture_output=True)
