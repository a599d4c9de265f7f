"""The README and the pages of the site, and the code in them."""

import re
import shlex
from pathlib import Path

from places import ROOT

README = (ROOT / "README.md").read_text()
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text()
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
"""The text of each page, by its path in the repository."""


def blocks(language: str, pages: dict[str, str] = PAGES) -> list[str]:
    """The blocks of code in a language, of all pages."""
    return [code for text in pages.values() for code in blocks_of(text, language)]


def blocks_of(text: str, language: str) -> list[str]:
    """The blocks of code in a language, of one page."""
    return re.findall(rf"^```{language}\b[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """The words of each call of our program in the shell blocks of a page, without the program's name."""
    found = []
    for code in blocks_of(text, "sh"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            places = [i for i, word in enumerate(words) if Path(word).name == "qcrs-jax"]
            found += [_until_the_next(words[place + 1 :]) for place in places]
    return found


def _until_the_next(words):
    """The words of one command of a line of several."""
    ends = [i for i, word in enumerate(words) if word in ("&&", "||", "|", ";")]
    return words[: ends[0]] if ends else words
