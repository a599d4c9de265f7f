"""The pages of the GPU check, written as the findings of the parts arrive."""

import json
import os
import tarfile
import time
from pathlib import Path

TABLES, NUMBERS, LOG, FILES = "tables.md", "numbers.json", "log.txt", "results.tar.gz"


class Report:
    """The findings of the parts, in memory and in a folder: a page in markdown, and the numbers in JSON.

    Each change is written at once, to a new file that then takes the place of the old one.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.state = {"machine": "the machine is not known yet", "parts": {}, "running": None}
        if (folder / NUMBERS).exists():
            self.state = json.loads((folder / NUMBERS).read_text())

    def part(self, name: str) -> dict:
        """The state of a part: status, seconds, texts by key, troubles, numbers."""
        empty = {"status": "not begun", "seconds": None, "texts": {}, "troubles": [], "numbers": {}}
        return self.state["parts"].setdefault(name, empty)

    def write(self) -> None:
        """Writes both files."""
        replace(self.folder / NUMBERS, json.dumps(self.state, indent=1, default=str) + "\n")
        replace(self.folder / TABLES, self.page())

    def page(self) -> str:
        """The page in markdown."""
        lines = [self.state["machine"], "", "| part | status | seconds |", "| --- | --- | ---: |"]
        for name, part in self.state["parts"].items():
            seconds = "" if part["seconds"] is None else f"{part['seconds']:.0f}"
            lines.append(f"| {name} | {part['status']} | {seconds} |")
        for name, part in self.state["parts"].items():
            lines += ["", f"## {name}", ""]
            lines += [f"- **{trouble}**" for trouble in part["troubles"]] + [""] * bool(part["troubles"])
            lines += ["\n\n".join(part["texts"].values()) or part["status"]]
        return "\n".join(lines) + "\n"


class Part:
    """A running part: its resources, and the report of its findings.

    quick: whether numbers are tiny, and nothing is measured.
    images: an .npz of test images, or None.
    scratch: a folder that is removed after the last part.
    clock: the time that is left for the part.
    networks, axes: for the benchmark: names of the networks, and values of options to try; None for the usual ones.
    """

    def __init__(
        self,
        name: str,
        report: Report,
        clock,
        quick: bool,
        images: Path | None,
        scratch: Path,
        networks: list[str] | None = None,
        axes: dict | None = None,
    ):
        self.name, self.report, self.clock = name, report, clock
        self.quick, self.images, self.scratch = quick, images, scratch
        self.networks, self.axes = networks, axes or {}
        self.found = report.part(name)

    @property
    def numbers(self) -> dict:
        """All numbers of the part, for JSON."""
        return self.found["numbers"]

    def say(self, text: str, key: str | None = None) -> None:
        """Adds a text to the page, or replaces the one of the same key."""
        texts = self.found["texts"]
        texts[key or f"text {len(texts)}"] = text
        self.report.write()

    def expect(self, holds: bool, said: str) -> None:
        """Records the text `said` as a trouble unless `holds`."""
        if not holds:
            self.found["troubles"].append(said)
            self.report.write()

    def keep_files(self, folder: Path) -> None:
        """Puts the files of `folder` next to the page, in one archive."""
        target = self.report.folder / FILES
        partial = target.with_name(f".{target.name}")
        with tarfile.open(partial, "w:gz") as archive:
            archive.add(folder, folder.name)
        os.replace(partial, target)


def replace(path: Path, text: str) -> None:
    """Replaces a file as a whole."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(text)
    os.replace(partial, path)


def markdown(header, rows) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)


def seconds_since(started: float) -> float:
    """Seconds since `started`, of time.monotonic."""
    return time.monotonic() - started
