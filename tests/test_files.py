"""Errors of the operating system become messages if they concern files that the user named, and only then."""

import errno
import os
import sys

import pytest

from qcrs_jax.errors import UserError
from qcrs_jax.experiments import cli
from qcrs_jax.files import is_partial, is_there, lock, open_regular, output, reads, replacing, write_text, writing
from qcrs_jax.results.records import RecordsError, read_sidecar


def test_a_programming_error_that_is_an_oserror_has_its_traceback(monkeypatch):
    def fail(*_):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "4b69cad680e5114f9f7530c3fcff8303")

    monkeypatch.setattr(cli.COMMANDS["table"], "run", fail)
    with pytest.raises(FileNotFoundError):
        cli.main(["table", "r.tsv"])


def test_output_that_nobody_reads_any_more_ends_the_command(monkeypatch):
    def fail(*_):
        raise BrokenPipeError

    class Output:
        fileno = staticmethod(lambda: os.dup(1))

    monkeypatch.setattr(cli.COMMANDS["table"], "run", fail)
    monkeypatch.setattr(sys, "stdout", Output())
    assert cli.main(["table", "r.tsv"]) == 141


LOG = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t0.5\t1\t1.0\n"


@pytest.mark.parametrize(
    "words", ["table r.tsv --out no/table.md", "compare r.tsv r.tsv --out no/c.md", "plot r.tsv --out no/p.png"]
)
def test_a_file_that_cannot_be_written_is_named_with_the_remedy(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.tsv").write_text(LOG)
    assert cli.main(words.split()) == 2
    said = capsys.readouterr().err
    assert f"qcrs-jax: error: {words.split()[-1]}: cannot be written: No such file" in said


@pytest.mark.parametrize("number, remedy", [(errno.ENOSPC, "Make room"), (errno.EACCES, "may write"), (5, "another")])
def test_the_remedy_of_a_file_that_cannot_be_written(number, remedy):
    with pytest.raises(UserError, match=f"there: cannot be written: .*{remedy}"), writing("there"):
        raise OSError(number, os.strerror(number))


def test_only_errors_at_or_below_the_named_file_become_messages(tmp_path):
    @reads("path")
    def read(file, path=None):
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    for file, path in ((tmp_path / "a" / "b", tmp_path), (tmp_path, tmp_path), ("here", None)):
        with pytest.raises(UserError, match="cannot be read: Permission denied; name another"):
            read(file, path)
    for file, path in ((tmp_path / "ab", tmp_path / "a"), ("/elsewhere", None)):
        with pytest.raises(PermissionError):
            read(file, path)


def test_names_that_the_file_system_refuses(tmp_path, capsys):
    name = "x" * 300
    for words in (f"convert {name} out", f"certify {name} r.tsv --sigma 0.25", f"table {name}"):
        assert cli.main(words.split()) == 2
        assert "File name too long" in capsys.readouterr().err


def test_only_one_opening_holds_a_lock(tmp_path):
    with open(tmp_path / "f", "a") as one, open(tmp_path / "f", "a") as other:
        lock(one, "taken")
        with pytest.raises(UserError, match="taken"):
            lock(other, "taken")
    with open(tmp_path / "f", "a") as one:
        lock(one, "taken")


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    file = tmp_path / "f"
    for before in (None, b"before"):
        if before:
            file.write_bytes(before)
            file.chmod(0o640)
        with pytest.raises(KeyboardInterrupt), replacing(file) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt
        for name in ("fsync", "replace"):
            with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
                patch.setattr(os, name, lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space")))
                with replacing(file) as stream:
                    stream.write(b"whole")
        assert [f.name for f in tmp_path.iterdir()] == (["f"] if before else [])
        assert before is None or file.read_bytes() == before
    with replacing(file) as stream:
        stream.write(b"after")
        (partial,) = (f.name for f in tmp_path.iterdir() if f != file)
        assert is_partial(partial) and not is_partial("f") and file.read_bytes() == b"before"
    assert file.read_bytes() == b"after" and file.stat().st_mode & 0o777 == 0o640
    assert [f.name for f in tmp_path.iterdir()] == ["f"]


def test_links_and_devices(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "link").symlink_to("victim")
    write_text(tmp_path / "link", "asked for")  # the user named it: of a link the file behind it is written
    assert (tmp_path / "victim").read_text() == "asked for" and (tmp_path / "link").is_symlink()
    with replacing(tmp_path / "link") as stream:  # a file that the program names
        stream.write(b"ours")
    assert (tmp_path / "victim").read_text() == "asked for" and not (tmp_path / "link").is_symlink()
    with output("/dev/null") as stream:
        stream.write(b"nobody reads it")
    assert not os.path.isfile("/dev/null")


def test_names_that_are_not_utf_8_keep_their_bytes(tmp_path):
    write_text(tmp_path / "f", os.fsdecode(b"caf\xe9"))
    assert (tmp_path / "f").read_bytes() == b"caf\xe9"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)
    (tmp_path / "f").write_text("content")
    with open_regular(tmp_path / "f") as stream:
        assert stream.read() == b"content"


def test_a_table_that_cannot_be_written_whole_leaves_the_earlier_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.tsv").write_text(LOG)
    for words in ("table r.tsv --out t.md", "compare r.tsv r.tsv --out c.md", "plot r.tsv --out p.svg"):
        out = tmp_path / words.split()[-1]
        out.write_text("before")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space")))
            assert cli.main(words.split()) == 2
        assert out.read_text() == "before" and "No space" in capsys.readouterr().err
    assert not [f.name for f in tmp_path.iterdir() if is_partial(f.name)]


def test_a_file_whose_name_is_not_utf_8_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"caf\xe9.tsv")
    (tmp_path / name).write_text(LOG)
    assert cli.main(["table", name]) == 0
    assert "caf\\udce9.tsv" in capsys.readouterr().out
    for format in ("markdown", "latex"):
        assert cli.main(["table", name, "--format", format, "--out", "t.md"]) == 0
        assert format == "latex" or b"caf\\udce9" in (tmp_path / "t.md").read_bytes()
    assert cli.main(["plot", name, "--out", "p.svg"]) in (0, 2)
    assert cli.main(["table", os.fsdecode(b"no\xe9")]) == 2
    assert "no\\udce9" in capsys.readouterr().err


def test_whether_something_is_there_is_not_guessed(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("")
    names = ("link", "file", "nothing", "file/below", "nothing/below")
    assert [is_there(tmp_path / name) for name in names] == [True, True, False, False, False]

    def fail(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", fail)
        with pytest.raises(OSError, match="Input/output"):
            is_there(tmp_path / "file")
        with pytest.raises(RecordsError, match=r"r\.tsv\.json: cannot be read: .*Input/output"):
            read_sidecar(tmp_path / "r.tsv")
