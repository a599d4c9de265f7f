"""Progress where the output is no terminal."""

import io

from qcrs_jax.experiments.run.progress import Lines, progress


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def lines_of(capsys):
    return capsys.readouterr().err.splitlines()


def test_one_line_a_minute(capsys):
    clock = Clock()
    with Lines(total=300, unit="images", initial=100, clock=clock) as bar:
        for image in range(200):
            clock.now += 1.5
            bar.set_postfix_str(f"ACR {image / 100:.4f}")
            bar.update()
    lines = lines_of(capsys)
    assert len(lines) == 5 + 1, "300 seconds, and the end"
    assert lines[0] == "140 of 300 images, ACR 0.3900, 60 s so far, about 4.0 min left"
    assert lines[-1].startswith("300 of 300 images, ACR 1.9900") and "left" not in lines[-1]
    assert max(map(len, lines)) < 100


def test_a_short_run_prints_no_progress(capsys):
    assert list(Lines(range(5), total=5)) == [0, 1, 2, 3, 4]
    assert lines_of(capsys) == []


def test_other_hosts_print_nothing(capsys):
    clock = Clock()
    bar = Lines(total=2, disable=True, clock=clock)
    clock.now = 1000.0
    bar.update()
    bar.write("said")
    assert capsys.readouterr() == ("said\n", "")


def test_a_terminal_has_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert list(progress([1, 2], total=2, unit="img")) == [1, 2]
    assert "2/2" in terminal.getvalue()
