"""`qcrs-jax report` as a user runs it, and its page as a browser shows it."""

import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import browser
from program import QCRS_FORMAT, qcrs_jax, refused, unwrapped
from records_made import make_record

from qcrs_jax.experiments.report import html as made
from qcrs_jax.results.records import read_run, sidecar_path

HOSTILE = '</script><img src=x onerror="document.title=1">&\u202e\x1b[31m'


class Text(HTMLParser):
    """The text of a page, the attributes of its elements, and the first table that is marked."""

    def __init__(self, page):
        super().__init__()
        self.words, self.elements, self.figures, self._key, self._inside = [], [], [], None, []
        self.feed(page)
        self.text = unwrapped(" ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = [tag]
        if tag == "td":
            self._key = dict(attrs).get("data-key")

    def handle_data(self, data):
        if self._inside[-1:] in (["script"], ["style"]):
            return
        self.words.append(data)
        if self._key:
            self.figures.append((self._key, data))
            self._key = None


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def figures_of_table(folder, *names):
    """What `table --format csv` says of runs."""
    return list(csv.DictReader(io.StringIO(qcrs_jax("table", *names, "--format", "csv", cwd=folder).stdout)))


@pytest.fixture
def page(certified, tmp_path):
    """The page of two runs, its text parsed."""
    qcrs_jax("report", "cohen.tsv", "golden.tsv", "--out", tmp_path / "r.html", cwd=certified)
    return (tmp_path / "r.html").read_text()


@pytest.mark.slow
def test_the_figures_are_those_of_table(certified, page):
    figures = Text(page).figures
    for run, row in enumerate(figures_of_table(certified, "cohen.tsv", "golden.tsv")):
        keys = [key for key in row if key == "acr" or re.fullmatch(r"certified_accuracy_[\d.]+", key)]
        own = dict(figures[run * len(set(dict(figures))) :][: len(set(dict(figures)))])
        assert own["acr"] == f"{float(row['acr']):.4f}"
        assert [own[key] for key in keys[1:]] == [f"{float(row[key]):.3f}" for key in keys[1:]]
        assert own["abstention"] == f"{float(row['abstention']):.3f}"
        assert own["samples"] == f"{float(row['samples']):,.0f}"


@pytest.mark.slow
def test_the_list_has_every_image_of_every_run(certified, page):
    runs = data_of(page)["runs"]
    assert [run["name"] for run in runs] == ["Cohen, sigma 0.25", "QCRS golden, sigma 0.25"]
    cohen, golden = (read_run(certified / f"{name}.tsv").records for name in ("cohen", "golden"))
    for run, records in zip(runs, (cohen, golden)):
        for row, record in zip(run["rows"], records, strict=True):
            assert row[:3] == [record.idx, record.label, record.predict]
            assert 0 <= record.radius - row[3] < 1e-4 and row[4] == pytest.approx(record.sigma, rel=1e-4)
            assert row[8] == sum(record.counts) and row[7][0][1] == max(record.counts)
    gains = [a.correct * a.radius - b.correct * b.radius for a, b in zip(golden, cohen)]
    assert [row[6] for row in runs[1]["rows"]] == [round(gain, 4) for gain in gains]
    assert {row[6] for row in runs[0]["rows"]} == {None}, "the reference"


@pytest.mark.slow
def test_thumbnails_are_of_the_recorded_data_set(page):
    pictures = data_of(page)["sets"][0]["pictures"]
    assert sorted(pictures) == ["0", "1", "2"] and all(uri.startswith("data:image/png;") for uri in pictures.values())


@pytest.mark.slow
def test_the_page_loads_nothing_and_says_how_it_is_verified(page):
    parsed = Text(page)
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base") and "src" not in attributes
        assert attributes.get("href", "#").startswith("#") and not any(name.startswith("on") for name in attributes)
    policy = [at["content"] for tag, at in parsed.elements if at.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy[0] and "unsafe-inline" not in policy[0].split("style-src")[0]
    assert parsed.text.count("not verified by this report") >= 2
    assert "qcrs-jax verify golden.tsv --recount all" in parsed.text
    assert "alpha = 0.001" in parsed.text and "held fixed" in parsed.text


@pytest.mark.slow
def test_without_the_data_set_there_is_a_sentence(certified, tmp_path):
    for name in ("golden.tsv", "golden.tsv.json"):
        shutil.copy(certified / name, tmp_path)
    qcrs_jax("report", "golden.tsv", "--out", "r.html", cwd=tmp_path)
    text = (tmp_path / "r.html").read_text()
    assert "No thumbnails: " in text and data_of(text)["sets"] == [{"pictures": {}, "files": {}}]
    np.savez(tmp_path / "other.npz", x=np.zeros((6, 28, 28), np.uint8), y=[4, 1, 4, 3, 4, 5])
    said = refused("report", "golden.tsv", "--data_dir", "other.npz", "--out", "s.html", cwd=tmp_path)
    assert "is not the one of golden.tsv" in said and not (tmp_path / "s.html").exists()


@pytest.mark.slow
def test_a_data_set_elsewhere_is_opened_where_its_path_is_trusted(certified, tmp_path):
    shutil.copy(certified / "golden.tsv", tmp_path)
    content = json.loads((certified / "golden.tsv.json").read_text())
    content["provenance"]["settings"]["data"]["data_dir"] = str(certified / "data.npz")
    (tmp_path / "golden.tsv.json").write_text(json.dumps(content))
    qcrs_jax("report", "golden.tsv", "--out", "r.html", cwd=tmp_path)
    assert "lies neither below the current folder" in Text((tmp_path / "r.html").read_text()).text
    qcrs_jax("report", "golden.tsv", "--trust_paths", "--out", "r.html", cwd=tmp_path)
    assert len(data_of((tmp_path / "r.html").read_text())["sets"][0]["pictures"]) == 3


@pytest.mark.slow
def test_verify_says_what_came_out(certified, tmp_path):
    out = tmp_path / "r.html"
    qcrs_jax("report", "cohen.tsv", "--verify", "1", "--out", out, cwd=certified)
    text = Text(out.read_text()).text
    assert "not verified as a whole" in text and "1 of them were drawn again" in text
    qcrs_jax("report", "cohen.tsv", "--verify", "all", "--out", out, cwd=certified)
    text = Text(out.read_text()).text
    assert "all 3 lines were drawn again and verified" in text and "not verified" not in text


@pytest.mark.slow
def test_the_report_marks_a_forged_file(certified, tmp_path):
    lines = (certified / "cohen.tsv").read_text().splitlines()
    fields = lines[1].split("\t")
    fields[3] = "9.5"  # the radius
    (certified / "forged.tsv").write_text("\n".join([lines[0], "\t".join(fields), *lines[2:]]) + "\n")
    shutil.copy(certified / "cohen.tsv.json", certified / "forged.tsv.json")
    out = tmp_path / "r.html"
    qcrs_jax("report", "forged.tsv", "--out", out, cwd=certified)
    assert "forged.tsv was changed after its run was finished" in Text(out.read_text()).text
    said = refused("report", "forged.tsv", "--verify", "1", "--out", out, cwd=certified)
    assert "not what was computed" in said and "not what was computed" in Text(out.read_text()).text


@pytest.mark.slow
def test_impossible_reports_are_refused(results, predicted):
    assert "end its name with .html" in refused("report", "qcrs.tsv", "--out", "r.pdf", cwd=results)
    assert "nowhere" in refused("report", "qcrs.tsv", "--out", "nowhere/r.html", cwd=results)
    assert "goes with --verify" in refused("report", "qcrs.tsv", "--checkpoint", "c", "--out", "r.html", cwd=results)
    (results / "empty.tsv").write_text(QCRS_FORMAT.format(""))
    assert "holds no results yet" in refused("report", "empty.tsv", "--out", "r.html", cwd=results)
    assert "holds predictions" in refused("report", "p60.tsv", "--out", "r.html", cwd=predicted)
    assert not list(results.glob("*.html"))


def test_logs_of_other_programs(results):
    qcrs_jax("report", "cohen_a.tsv", "qcrs.tsv", "others.tsv", "--out", "r.html", cwd=results)
    page = (results / "r.html").read_text()
    text = Text(page).text
    assert "It has no sidecar" in text and [run["name"] for run in data_of(page)["runs"]][:2] == [
        "cohen_a.tsv",
        "qcrs.tsv",
    ]
    assert [row[6] for row in data_of(page)["runs"][1]["rows"]] == [0.7, -0.3]
    assert "Over cohen_a.tsv it gains +0.2000 in ACR" in text


@pytest.mark.parametrize(
    "lines",
    [
        "0\t3\t-1\t0.0\t0\t0.5\t0.4\t0:00:06\n",
        "0\t3\t3\t0.5\t1\t0.5\t0.99\t0:00:06\n",
        "0\t3\t4\t0.5\t0\t0.5\t0.99\t0:00:06\n1\t3\t3\t5.5\t1\t0.7\t1.0\t0:00:06\n",
    ],
    ids=["abstains", "one image", "a bound of one"],
)
def test_small_and_strange_runs(tmp_path, lines):
    (tmp_path / "r.tsv").write_text(QCRS_FORMAT.format(lines))
    qcrs_jax("report", "r.tsv", "--out", "r.html", cwd=tmp_path)
    shown = (tmp_path / "r.html").read_text().split("<body>")[1].split("<script")[0]
    assert not re.search(r"\b(nan|inf)\b", shown)


def test_a_run_in_memory_and_shards(tmp_path):
    import jax.numpy as jnp

    import qcrs_jax as library

    x = np.random.default_rng(0).random((6, 4, 4, 1), np.float32)
    classify = lambda images: jnp.stack([images.mean((1, 2, 3)), 1 - images.mean((1, 2, 3))], axis=-1)  # noqa: E731
    labels = np.array([0, 1, 0, 1, 0, 1])
    for part in (1, 2):
        library.run(classify, (x, labels), tmp_path / f"r{part}.tsv", 0.25, n=100, n0=10, shard=(part, 2))
    qcrs_jax("report", "r1.tsv", "r2.tsv", "--out", "r.html", cwd=tmp_path)
    page = (tmp_path / "r.html").read_text()
    text = Text(page).text
    assert "were in the memory of a program" in text and "qcrs-jax verify r1.tsv r2.tsv" in text
    assert [row[0] for row in data_of(page)["runs"][0]["rows"]] == list(range(6))


def hostile_run(folder, source):
    """A run whose classes, network and paths are called what would run in a careless page."""
    content = json.loads(sidecar_path(source).read_text())
    content["request"]["dataset"] |= {"class_names": [f"{HOSTILE}{i}" for i in range(10)], "name": HOSTILE[:200]}
    content["request"]["classifier"]["arch"] = HOSTILE
    content["provenance"] |= {"devices": HOSTILE, "started": HOSTILE}
    (folder / "r.tsv").write_bytes(source.read_bytes())
    (folder / "r.tsv.json").write_text(json.dumps(content))


@pytest.mark.slow
def test_texts_of_files_are_texts(certified, tmp_path):
    hostile_run(tmp_path, certified / "golden.tsv")
    qcrs_jax("report", "r.tsv", "--title", HOSTILE, "--out", "r.html", cwd=tmp_path)
    page = (tmp_path / "r.html").read_text()
    parsed = Text(page)
    assert not [tag for tag, _ in parsed.elements if tag == "img"] and page.count("<script") == 2
    assert "\u202e" not in page and "\x1b" not in page and r"\u202e" in page
    assert data_of(page)["runs"][0]["classes"]["4"].startswith("</script>")
    text = (tmp_path / "r.html").read_text()
    assert "</script><img" not in text


def large_run(path, images, method):
    """A results file over many images, with a sidecar."""
    rng = np.random.default_rng(images + len(method))
    records = [
        make_record(
            idx=i,
            label=int(rng.integers(4)),
            predict=(predict := int(rng.integers(-1, 4))),
            correct=False,
            radius=float(rng.random()) * (predict >= 0),
            sigma=0.25 if method == "cohen" else float(np.float32(rng.uniform(0.1, 0.9))),
        )
        for i in range(images)
    ]
    records = [make_record(**{**vars(r), "correct": r.predict == r.label}) for r in records]
    path.write_text("\t".join(type(records[0]).columns()) + "\n" + "".join(record.line() for record in records))
    return records


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


def rows(page):
    """The texts of the list's rows."""
    return page.do("[...document.querySelectorAll('#list tbody tr')].map(r => [...r.cells].map(c => c.textContent))")


def choose(page, name, value):
    page.do(
        f"{{ const e = document.getElementById({name!r}); e.value = {value!r}; e.dispatchEvent(new Event('input')); }}"
    )


@pytest.mark.slow
def test_in_a_browser(chromium, certified, tmp_path):
    out = tmp_path / "r.html"
    qcrs_jax("report", "cohen.tsv", "golden.tsv", "--out", out, cwd=certified)
    for scheme in ("light", "dark"):
        chromium.emulate(scheme)
        chromium.open(out)
        assert chromium.errors == []
    assert chromium.do("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)", "dark"
    assert chromium.do("document.querySelectorAll('#list img, [data-picture] img').length") >= 3
    assert chromium.do("[...document.images].every(i => i.complete && i.naturalWidth === 28)")
    shown = chromium.do(
        "[...document.querySelectorAll('[data-table] [data-key=acr]')].map(c => c.firstChild.textContent)"
    )
    expected = [f"{float(row['acr']):.4f}" for row in figures_of_table(certified, "cohen.tsv", "golden.tsv")]
    assert shown == expected
    chromium.emulate(width=360)
    assert chromium.do("document.documentElement.scrollWidth <= innerWidth"), "narrow"
    assert chromium.pdf().startswith(b"%PDF-")
    assert chromium.errors == []


@pytest.mark.slow
def test_the_list_sorts_and_filters(chromium, tmp_path):
    records = large_run(tmp_path / "b.tsv", 450, "bayesian")
    reference = large_run(tmp_path / "a.tsv", 450, "cohen")
    reference = [
        make_record(**{**vars(r), "label": s.label, "correct": r.predict == s.label})
        for r, s in zip(reference, records)
    ]
    (tmp_path / "a.tsv").write_text("\t".join(type(records[0]).columns()) + "\n" + "".join(r.line() for r in reference))
    qcrs_jax("report", "a.tsv", "b.tsv", "--out", "r.html", cwd=tmp_path)
    chromium.emulate()
    chromium.open(tmp_path / "r.html")
    assert chromium.do("document.getElementById('run').selectedOptions[0].textContent") == "b.tsv", "what is compared"
    assert 100 <= len(rows(chromium)) <= 450
    # by keyboard: the radii, the largest first, and then the smallest
    for key, best in (
        ("Enter", sorted(records, key=lambda r: (-r.radius, r.idx))),
        (" ", sorted(records, key=lambda r: (r.radius, r.idx))),
    ):
        chromium.do("document.querySelector('#list button[data-key=\"3\"]').focus()")
        chromium.press(key, 13 if key == "Enter" else 32)
        assert [row[0] for row in rows(chromium)[:50]] == [str(record.idx) for record in best[:50]]
        assert chromium.do("document.activeElement.dataset.key") == "3"
    gains = [a.correct * a.radius - b.correct * b.radius for a, b in zip(records, reference)]
    choose(chromium, "gain", "more")
    assert chromium.do("document.getElementById('status').textContent").startswith(
        f"{sum(g > 0 for g in gains)} of 450 images"
    )
    choose(chromium, "gain", "all")
    choose(chromium, "answer", "wrong")
    choose(chromium, "label", "2")
    choose(chromium, "least", "0.5")
    due = [
        r
        for r in records
        if r.label == 2 and not r.correct and r.predict != -1 and np.floor(r.radius * 1e4) / 1e4 >= 0.5
    ]
    assert sorted(int(row[0]) for row in rows(chromium)) == [record.idx for record in due]
    chromium.do("document.querySelector('#filters button[type=reset]').click()")
    chromium.do("new Promise(done => setTimeout(done, 50))")
    choose(chromium, "text", "17")
    assert [row[0] for row in rows(chromium)] == ["17"]
    assert chromium.errors == []


@pytest.mark.slow
def test_ten_thousand_images(chromium, tmp_path):
    large_run(tmp_path / "b.tsv", 10_000, "bayesian")
    qcrs_jax("report", "b.tsv", "--out", "r.html", cwd=tmp_path)
    assert (tmp_path / "r.html").stat().st_size < 5_000_000
    chromium.emulate()
    chromium.open(tmp_path / "r.html")
    drawn = len(rows(chromium))
    assert 100 <= drawn <= 500
    chromium.do("document.getElementById('further').click()")
    assert len(rows(chromium)) >= drawn + 100
    assert "of 10000 images" not in chromium.do("document.getElementById('status').textContent")
    assert chromium.errors == []


@pytest.mark.slow
def test_nothing_of_a_hostile_file_runs(chromium, certified, tmp_path):
    hostile_run(tmp_path, certified / "golden.tsv")
    qcrs_jax("report", "r.tsv", "--out", "r.html", cwd=tmp_path)
    chromium.emulate()
    chromium.open(tmp_path / "r.html")
    title = chromium.do("document.title")
    assert chromium.errors == [] and title.startswith("Certification of </script>")
    assert (
        "onerror" in rows(chromium)[0][2 - 1]
        and chromium.do("document.querySelectorAll('#list img[src=x]').length") == 0
    )


def test_the_budget_of_thumbnails():
    from qcrs_jax.data.dataset import DataError
    from qcrs_jax.experiments.report.thumbnails import thumbnails

    class Images:
        def __getitem__(self, index):
            if index == 1:
                raise DataError("damaged")
            return np.full((8, 8, 3), index / 10, np.float32), 0

    all_of_them = thumbnails(Images(), range(5), 10**6)
    assert sorted(all_of_them) == [0, 2, 3, 4]
    few = thumbnails(Images(), [3, 1, 2, 0], len(all_of_them[3]) + len(all_of_them[2]))
    assert sorted(few) == [2, 3]


def test_the_templates_are_installed():
    assert (Path(made.ASSETS) / "report.js").is_file() and (Path(made.ASSETS) / "report.css").is_file()
