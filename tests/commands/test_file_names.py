"""The names of images' files in results files."""

import json

import pytest
from program import qcrs_jax, refused

from qcrs_jax.results.records import read_run


def header(path):
    return path.read_text().split("\n")[0].split("\t")


def test_a_run_over_files_names_them(folder):
    images, words = folder
    odd = images / "class0" / "a\tb\n\u202e.png"
    (images / "class0" / "0.png").rename(odd)
    here = images.parent
    qcrs_jax(*words, cwd=here)
    run = read_run(here / "r.tsv")
    assert header(here / "r.tsv")[-1] == "file"
    assert [record.file for record in run.records] == [r"class0/a\x09b\x0a\u202e.png", "class1/0.png", "class2/0.png"]
    assert run.to_pandas().file[1] == "class1/0.png"
    assert (
        "all 3 lines were drawn again and verified" in qcrs_jax("verify", "r.tsv", "--recount", "all", cwd=here).stdout
    )
    table = qcrs_jax("table", "r.tsv", "--format", "csv", "--per_image", cwd=here).stdout
    assert "class2/0.png" in table
    # a name that was changed is found, though the file has no hash any more
    text = (here / "r.tsv").read_text().replace("class2/0.png", "class9/0.png")
    (here / "r.tsv").write_text(text)
    content = json.loads((here / "r.tsv.json").read_text())
    for name in ("sha256", "pixels_sha256", "sidecar_sha256", "left_out"):
        content.pop(name)
    (here / "r.tsv.json").write_text(json.dumps(content))
    assert "its file is 'class9/0.png', but 'class2/0.png'" in refused("verify", "r.tsv", cwd=here)


def test_a_file_without_the_column_continues_without_it(folder):
    images, words = folder
    here = images.parent
    qcrs_jax(*words, cwd=here)
    lines = [line.rsplit("\t", 1)[0] for line in (here / "r.tsv").read_text().splitlines()]
    (here / "old.tsv").write_text("\n".join(lines[:2]) + "\n")
    content = json.loads((here / "r.tsv.json").read_text())
    for name in ("sha256", "pixels_sha256", "sidecar_sha256", "left_out"):
        content.pop(name)
    (here / "old.tsv.json").write_text(json.dumps(content))
    qcrs_jax(*["old.tsv" if word == "r.tsv" else word for word in words], cwd=here)
    assert "file" not in header(here / "old.tsv") and len(read_run(here / "old.tsv").records) == 3
    assert "3 lines" in qcrs_jax("verify", "old.tsv", "--recount", "1", cwd=here).stdout


@pytest.mark.slow
def test_a_run_over_arrays_has_no_names(certified):
    assert "file" not in header(certified / "cohen.tsv")
