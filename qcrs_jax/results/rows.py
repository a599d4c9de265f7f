"""Lines of tab-separated files. Header, writer and parser follow from the fields of a dataclass."""

import dataclasses
import datetime
import functools
import math
import types
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

LARGEST = 2**63
R = TypeVar("R", bound="Row")
Seconds = typing.Annotated[float, "h:mm:ss"]
"""A time in seconds, as it is written."""


def column(
    default: Any = dataclasses.MISSING, *, name: str = "", parse: Callable | None = None, where: str = "always"
) -> Any:
    """A field that is a column of the file.

    Args:
        default: value in a file without the column, or with an empty field; without a default the column is required.
        name: name of the column, if it differs from the field's.
        parse: parser of a field's text, if it differs from the field's type.
        where: "always"; "asked", only in files of runs that have it; or "never".
    """
    return dataclasses.field(default=default, metadata={"name": name, "parse": parse, "where": where})


class Row:
    """A line of a file, as a dataclass.

    Numbers are written in full, tuples with commas, times as h:mm:ss.ffffff; what is None or NaN is empty.
    """

    @classmethod
    def columns(cls, asked: Collection[str] = ()) -> tuple[str, ...]:
        """The header of a file; `asked` names those fields that are not in every file."""
        found = _columns_of(cls).values()
        return tuple(c.name for c in found if c.where == "always" or c.where == "asked" and c.field in asked)

    def line(self, columns: Sequence[str] | None = None) -> str:
        """The line of a file with these columns, with its newline."""
        known = _columns_of(type(self))
        names = type(self).columns() if columns is None else columns
        return "\t".join(_text(getattr(self, known[name].field), known[name]) for name in names) + "\n"

    @classmethod
    def of(cls: type[R], row: dict[str, str]) -> R:
        """The object for a line, {column: text}.

        Raises:
            ValueError, KeyError: a required column is missing, or cannot be parsed.
        """
        values = {}
        for name, each in _columns_of(cls).items():
            if each.needed or row.get(name):
                try:
                    values[each.field] = each.parse(row[name])
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
            elif each.default is dataclasses.MISSING:
                values[each.field] = None
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class _Column:
    field: str
    name: str
    kind: Any
    parse: Callable
    where: str
    needed: bool
    default: Any


@functools.cache
def _columns_of(kind: type) -> dict[str, _Column]:
    hints, found = typing.get_type_hints(kind, include_extras=True), {}
    for field in dataclasses.fields(kind):
        said, hint = field.metadata, hints[field.name]
        members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        hint = members[0]
        name = said.get("name") or field.name
        where = said.get("where", "always")
        needed = field.default is dataclasses.MISSING and types.NoneType not in members
        parse = said.get("parse") or _PARSERS[hint if hint == Seconds else typing.get_origin(hint) or hint]
        if where != "never":
            found[name] = _Column(field.name, name, hint, parse, where, needed, field.default)
    return found


def _text(value, column):
    if value is None or value != value:
        return ""
    if column.kind == Seconds:
        return str(datetime.timedelta(seconds=value))
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if column.kind is bool:
        return str(int(value))
    return repr(float(value)) if column.kind is float else str(value)


def whole_number(text: str) -> int:
    """The whole number written as 3 or 3.0."""
    try:
        number = int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise ValueError(f"{text!r} is not a whole number") from None
    if not -LARGEST <= number < LARGEST:
        raise ValueError("a number of more than 63 bits")
    return int(number)


def parse_counts(text: str) -> tuple[int, ...]:
    """The class counts in a field: 1,2,3."""
    counts = tuple(int(value) for value in text.split(","))
    if not -LARGEST <= min(counts) <= max(counts) < LARGEST:
        raise ValueError("a count of more than 63 bits")
    return counts


def parse_seconds(text: str | None) -> float:
    """The seconds written as h:mm:ss.ffffff or as "1 day, 2:03:04.5"; NaN for an empty text."""
    if not text:
        return math.nan
    days, _, clock = text.rpartition(", ")
    parts = [float(part) for part in clock.split(":")]
    return sum(part * 60**i for i, part in enumerate(reversed(parts))) + 86400 * int(days.split()[0] if days else 0)


def parse_truth(text: str) -> bool:
    """The truth value written as 0 or 1, 0.0 or 1.0, false or true."""
    truth = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
    if text.lower() not in truth:
        raise ValueError(f"{text!r} is neither 0 nor 1")
    return truth[text.lower()]


_PARSERS = {int: whole_number, float: float, bool: parse_truth, tuple: parse_counts, str: str, Seconds: parse_seconds}
