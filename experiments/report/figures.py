"""The common parts of figures: file format, axes, and the band of a curve of R(sigma). Reads no file."""

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy import special

from qcrs_jax.errors import UserError
from qcrs_jax.extras import needed_for
from qcrs_jax.files import output

from .styles import METHODS

COHEN, QCRS, BAND = METHODS["cohen"], METHODS["bisection"], "0.5"  # markers and lightness differ too
SIGMA = r"$\sigma$"
NORMS = {"L2": r"$\ell_2$", "L1": r"$\ell_1$"}
"""The norms of radii, as figures write them."""


def check_ending(out) -> None:
    """Raises UserError if the ending of the file `out` is no known format, or Matplotlib is missing."""
    if out.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"--out {out}: the ending sets the format; it must be .png, .pdf or .svg")
    with needed_for("a plot"):  # before the figure is computed
        import matplotlib  # noqa: F401


def pyplot():
    """Matplotlib's pyplot, set to write files and to open no window. Fonts are TrueType: venues refuse Type 3."""
    with needed_for("a plot"):
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"pdf.fonttype": 42, "ps.fonttype": 42})
    return plt


@dataclasses.dataclass(frozen=True)
class Look:
    """The size and the letters of a figure.

    width: width in inches.
    height: height, as a share of the width.
    font: size of all letters in points; None keeps the usual sizes.
    titled: whether the figure has a title by default.
    """

    width: int | float = 6.4
    height: int | float = 0.66
    font: int | float | None = None
    titled: bool = True

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which figures have these letters, and lines that fit them."""
        with needed_for("a plot"):
            import matplotlib

        sizes = (
            "font.size",
            "axes.labelsize",
            "axes.titlesize",
            "legend.fontsize",
            "xtick.labelsize",
            "ytick.labelsize",
        )
        thin = {"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "lines.linewidth": 1.2}
        with matplotlib.rc_context({} if self.font is None else dict.fromkeys(sizes, self.font) | thin):
            yield

    def size(self, panels: int = 1) -> tuple[float, float]:
        """Width and height of a figure with one panel, or with two side by side."""
        return float(self.width), float(self.width * self.height * (1 if panels == 1 else 0.7))


LOOKS = {"page": Look(), "paper": Look(width=3.25, height=0.9, font=8, titled=False)}
"""`paper` is as wide as one of two columns, with letters of the size of a caption."""


def literal(text: str) -> str:
    """A name as text for Matplotlib: dollars start no mathematics, and a leading _ hides nothing from a legend."""
    text = text.encode(errors="replace").decode()  # a file name may have bytes that are no text
    return text.replace("$", r"\$").replace("_", " _", text.startswith("_"))


def tidy(axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def log_sigma(axes, lower, upper) -> None:
    """Makes the x axis that of sigma, logarithmic, with round numbers at its ticks."""
    with needed_for("a plot"):
        from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

    round_numbers = [m * 10.0**e for e in range(-4, 5) for m in (1, 2, 3, 5, 7)]
    while sum(lower <= tick <= upper for tick in round_numbers) > 8:
        round_numbers = round_numbers[::2]
    axes.set_xscale("log")
    axes.set_xlim(lower, upper)
    axes.xaxis.set_major_locator(FixedLocator(round_numbers))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(FixedLocator([]))


def draw_band(axes, sigmas, successes, n, alpha, top, unit_radius=special.ndtri):
    """Draws the estimate of R(sigma), and its band up to `top`, lighter where the band has no upper end.

    Returns the handles of both, for a legend.
    """
    from qcrs_jax.analysis.curves import radius_band  # needs JAX, unlike all other figures

    successes = np.asarray(successes)
    lower, upper = radius_band(successes, n, sigmas, alpha, unit_radius)
    open_ended = np.isinf(upper)
    beside = open_ended | np.append(open_ended[1:], False) | np.insert(open_ended[:-1], 0, False)
    axes.fill_between(sigmas, lower, 2 * top, where=beside, color=BAND, alpha=0.12, linewidth=0)
    band = axes.fill_between(sigmas, lower, np.minimum(upper, 2 * top), where=~open_ended, color=BAND, alpha=0.35, lw=0)
    axes.plot(sigmas, lower, color=BAND, linewidth=0.8)
    share = np.where(successes < n, np.maximum(successes / n, 0.5), np.nan)
    (estimate,) = axes.plot(sigmas, sigmas * unit_radius(share), color="black", linewidth=1.2)
    return estimate, band


def radius_label(norm: str) -> str:
    """The label of an axis of radii."""
    return f"{NORMS[norm]} radius, pixels in [0, 1]"


def save(figure, out) -> None:
    """Writes the figure to `out` and closes it.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with output(out) as file:
            figure.savefig(file, format=out.suffix[1:].lower(), dpi=150)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        pyplot().close(figure)
