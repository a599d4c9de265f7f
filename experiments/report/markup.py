"""The HTML of the report's parts. All text from files goes through `e`."""

import html
import math

from qcrs_jax.printable import printable

from .words import interval_text


def e(text) -> str:
    """`text`, escaped for HTML."""
    return html.escape(printable(text))


def section(name, title, content):
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{content}</section>'


def p(text):
    return f"<p>{e(text)}</p>"


def table(name, header, rows, marks="", caption=""):
    """A table that scrolls sideways if it is wide.

    Args:
        header: titles of the columns. A column of text, not of numbers, has a title that begins with a blank.
    """
    titles = "".join(
        f"<th scope=col{' class=text' * title.startswith(' ')}>{e(title.strip())}</th>" for title in header
    )
    above = f"<caption>{e(caption)}</caption>" if caption else ""
    return (
        f'<div class=wide tabindex=0 role=region aria-label="{e(name)}"><table class=figures {marks}>{above}<thead><tr>'
        f"{titles}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def cell(row, key, form):
    value = row[key]
    text = "-" if value != value else format(value, form)
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    below = "" if low is None else f"<small>{e(interval_text(low, high, row['images']))}</small>"
    return f'<td data-key="{e(key)}">{text}{below}</td>'


def per_cent(part, whole):
    return f"{math.floor(1000 * part / whole) / 10:g}%"


def floor(number):
    """A bound, rounded down to four digits."""
    return math.floor(number * 10**4 + 1e-9) / 10**4
