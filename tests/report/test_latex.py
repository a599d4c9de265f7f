"""LaTeX tables are valid for all names of files, classes and data sets."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests_made import certificates

from qcrs_jax.experiments.report.compare import comparison
from qcrs_jax.experiments.report.latex import comment, escape
from qcrs_jax.experiments.report.table import class_tables, tables
from qcrs_jax.results.records import Record, Run

HOSTILE = [
    r"a\b",
    "{x}",
    "a_b",
    "100%",
    "p&q",
    "n#1",
    "$x$",
    "a~b",
    "2^3",
    "<i>|<i>",
    "two\nlines",
    "car\rriage",
    "a\u2028b",
    "[0.5]",
    "*.tsv",
    "a--b",
    r"\begin{x}",
    r"%\_{}#$^~&",
    "tab\there",
    "nul\0",
]
COMMANDS = ("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "textbf")
STRUCTURE = re.compile(r"\\begin\{tabular\}\{lr+\}|\\end\{tabular\}|\\(?:top|mid|bottom)rule|\$r = [0-9.e+-]+\$| \\\\$")


def unescaped(text):
    """What LaTeX would take for something else in a text: neither escaped, nor a command of ours."""
    rest = re.sub(r"\\[{}_%&#$]", "", text)
    rest = re.sub(r"\\(?:" + "|".join(COMMANDS) + r")(?=[{])", "", rest)
    while "{" in rest and (fewer := re.sub(r"\{([^{}]*)\}", r"\1", rest)) != rest:  # groups that are closed
        rest = fewer
    return re.findall(r"[\\{}_%&#$~^<>|]", rest)


def check_document(text):
    """The rows of the only tables in `text`, of which all else is comments."""
    assert text.isprintable() or set(re.sub(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]", "", text)) == {"\n"}
    body = [line for line in text.split("\n") if line and not line.startswith("%")]
    rows, inside = [], False
    for line in body:
        if line.startswith(r"\begin{tabular}"):
            assert not inside
            inside = True
        elif line == r"\end{tabular}":
            inside = False
        else:
            assert inside, line
            cells = re.sub(STRUCTURE, "", line).split(" & ")
            assert not any(unescaped(cell) for cell in cells), line
            assert line[0] not in "[*", "the end of the line before would take it"
            if not re.fullmatch(r"\\(top|mid|bottom)rule", line):
                rows.append(cells)
    assert not inside and rows and len({len(row) for row in rows}) == 1
    return rows


@pytest.mark.parametrize("name", HOSTILE)
def test_escaped_text_has_nothing_special(name):
    escaped = escape(name)
    assert not unescaped(escaped) and escaped.isprintable() and "--" not in escaped
    assert escaped[0] not in "[*"


@given(st.text())
def test_any_text_can_be_escaped_and_commented(text):
    assert not unescaped(escape(text)) and escape(text).isprintable()
    assert all(line.startswith("% ") and line.isprintable() for line in comment(text).split("\n") if text)


def test_escapes_are_read_as_the_original_text():
    assert escape(r"\{}_%&#$~^") == r"\textbackslash{}\{\}\_\%\&\#\$\textasciitilde{}\textasciicircum{}"
    assert (
        escape("[a] *") == "{[}a] *"
        and escape("a---b") == "a-{}-{}-b"
        and escape("a <b> | c") == (r"a \textless{}b\textgreater{} \textbar{} c")
    )


def make_run(name, method="cohen", classes=None, **request):
    data = {"name": name, "split": "test", "fingerprint": "A", "class_names": classes or ["a", "b", name]}
    numbers = {"sigma": 0.25, "alpha": 0.001, "n": 10, "dataset": data}
    made = {"kind": "predictions"} if method == "predict" else certificates(method)
    request = made | numbers | request
    if method == "predict":
        records = [Record(i, i % 2, i % 2, None, True, counts=(5, 5)) for i in range(4)]
        return Run(Path(name), records, {"request": request | {"classifier": {}}})
    records = [Record(i, 2, 2 - i % 2, 0.5, i % 2 == 0, 0.25, 0.9, 1.0, 0, (1, 2, 7), (1, 2, 7)) for i in range(4)]
    return Run(Path(name), records, {"request": request})


QCRS = {"method": "qcrs"}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_a_table(name):
    runs = [make_run(name), make_run(f"2{name}", **QCRS)]
    rows = check_document(tables(runs, "latex", [0.0, 1e-5]))
    assert escape(f"({name})") in rows[1][0] and rows[0][3:5] == ["", ""]  # $r = 0$ and $r = 1e-05$
    other = make_run(name)
    other.sidecar["request"]["dataset"]["fingerprint"] = "B"
    check_document(tables([*runs, other], "latex"))
    rows = check_document(class_tables([make_run(name, classes=["a", name, name])], "latex"))
    assert rows[1][0] == escape(name) and escape(f"{name} (2)") == rows[1][-1]
    check_document(tables([make_run(name, "predict"), make_run(f"2{name}", "predict", n=9)], "latex"))
    check_document(tables([make_run(name, estimate={"name": "soft", "beta": 1.0})], "latex"))


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_a_comparison(name):
    text = comparison(make_run(name), [make_run(f"2{name}", **QCRS)], "latex")
    rows = check_document(text)
    assert rows[0][3] == r"gain in ACR (95\%)" and escape(f"({name})") in rows[1][0]
    assert f"Reference: Cohen, sigma 0.25 ({' '.join(re.split('[^ -~]', name))}), 4 images" in " ".join(
        text.split("\n% ")
    )


def test_a_log_without_a_sidecar():
    records = [Record(0, 1, 1, 0.5, True)]
    for name in HOSTILE:
        check_document(tables([Run(Path(name), records, {})], "latex"))
