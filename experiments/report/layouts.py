"""The layouts of a table: for a terminal, in markdown, in LaTeX; and of the page around it."""

import dataclasses
import textwrap

from qcrs_jax.errors import UserError
from qcrs_jax.files import write_text, writing
from qcrs_jax.printable import printable, printable_lines
from qcrs_jax.results.records import sidecar_path

from .latex import comment, escape

COLUMNS = ("one_classifier", "acr", "radii", "p_a", "abstains", "samples", "seconds")
"""The columns that a table may have.

one_classifier states whether certificates are sound for one classifier of all inputs. radii are the certified
accuracies, p_a the shares of images above some p_A.
"""
FORMATS = ("terminal", "markdown", "latex", "csv")


def check_replaceable(out, paths) -> None:
    """Raises UserError if `out` is one of the results files `paths`, or any results file. None is the terminal."""
    if out is None:
        return
    with writing(out):
        if out in paths or sidecar_path(out).exists():
            raise UserError(f"{out}: holds the results of a run, which the table would replace; choose another file")


def write(text, out) -> None:
    """Writes `text`, printable, to the file `out`, or to the terminal if that is None."""
    if out is None:
        print(printable_lines(text), end="")
    else:
        with writing(out):
            write_text(out, printable_lines(text))


class Body(str):
    """A table in its format; the other parts of a page are prose."""


def page(parts, format) -> str:
    """Tables and prose, one after another. In LaTeX the prose is commented out."""
    if format == "latex":
        parts = [r"needs \usepackage{booktabs}", *parts]
        parts = [part if isinstance(part, Body) else comment(part) for part in parts]
    elif format == "terminal":
        parts = [part if isinstance(part, Body) else textwrap.fill(part, 100) for part in parts]
    else:
        parts = [part if isinstance(part, Body) else printable(part) for part in parts]
    return "\n\n".join(parts) + "\n"


@dataclasses.dataclass(frozen=True)
class Float:
    """The caption and the label around a table in LaTeX, as the user wrote them; one may be None."""

    caption: str | None = None
    label: str | None = None

    def around(self, body: str, number: int = 1) -> str:
        """`body` in a table environment, if there is a caption or a label. A second table gets a label of its own."""
        if self == PLAIN:
            return body
        lines = [r"\begin{table}", r"\centering"]
        lines += [rf"\caption{{{self.caption}}}"] if self.caption else []
        lines += [rf"\label{{{self.label}{'' if number == 1 else f'-{number}'}}}"] if self.label else []
        return "\n".join([*lines, body, r"\end{table}"])


PLAIN = Float()


def _marked(rows, mark):
    """The texts of the cells. The best of each column is marked if there is more than one row to compare."""
    compared = [[row[i][1] for row in rows if row[i][1] is not None] for i in range(len(rows[0]))]
    return [
        [
            mark(text) if len(compared[i]) > 1 and number == max(compared[i]) else text
            for i, (text, number) in enumerate(row)
        ]
        for row in rows
    ]


def _terminal(header, rows):
    body = [[printable(cell) for cell in row] for row in (header, *_marked(rows, lambda text: f"*{text}"))]
    widths = [max(len(row[i]) for row in body) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        for row in body
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *(line.rstrip() for line in lines[1:])])


def _markdown(header, rows):
    body = [header, ["---", *["---:"] * (len(header) - 1)], *_marked(rows, lambda text: f"**{text}**")]
    return "\n".join("| " + " | ".join(printable(cell).replace("|", "\\|") for cell in row) + " |" for row in body)


def _latex(header, rows):
    body = _marked(
        [[(escape(text), number) for text, number in row] for row in rows], lambda text: rf"\textbf{{{text}}}"
    )
    header = [f"${cell}$" if cell.startswith("r = ") else escape(cell) for cell in header]
    lines = [r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}", r"\toprule"]
    lines += [" & ".join(header) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


LAYOUTS = {"terminal": _terminal, "markdown": _markdown, "latex": _latex}
