"""Flags made from settings, and the parser for them. A flag's name, type, default and help come from its field."""

import argparse
import contextlib
import dataclasses
import difflib
import functools
import inspect
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from qcrs_jax.errors import SettingError, UserError, text_of

from ..run.settings import share


class Parser(argparse.ArgumentParser):
    """The parser of one command.

    Flags are spelled in full, with _ or - between words. An unknown flag is answered with similar ones. Groups of a
    `screen` are left out of --help, and shown by --help-SCREEN.

    After parsing, `names` has for each setting the flag that was typed for it, or else its own flag.
    """

    def __init__(self, **options):
        options.setdefault("formatter_class", _Formatter)
        super().__init__(allow_abbrev=False, **options)
        self.names: dict[str, str] = {}
        self.screens: dict[str, list] = {}
        self._more = self.add_argument_group("more flags")
        self._late = []

    def screen(self, name: str, title: str) -> argparse._ArgumentGroup:
        """A group of flags that --help-NAME shows. --help has its name, and of the title of its first group the end."""
        group = self.add_argument_group(title)
        if name not in self.screens:
            self._more.add_argument(f"--help-{name}", action=_Screen, screen=name, help=title.partition(": ")[2])
        self.screens.setdefault(name, []).append(group)
        return group

    def late(self, add, screen: str = "") -> None:
        """Calls `add(parser)` for more flags, those of `screen`, before a command line is parsed that may have them."""
        self._late.append((screen, add))

    def complete(self, screen: str | None = None) -> "Parser":
        """Adds the postponed flags, or those of one screen."""
        chosen = [each for each in self._late if screen in (None, each[0])]
        self._late = [each for each in self._late if each not in chosen]
        for _, add in chosen:
            add(self)
        return self

    def format_help(self, screen: str | None = None) -> str:
        elsewhere = [self._more, *(group for groups in self.screens.values() for group in groups)]
        if self.screens and len(self._optionals._group_actions) == 1:  # --help alone
            elsewhere.append(self._optionals)
        shown = self.screens[screen] if screen else [g for g in self._action_groups if g not in elsewhere]
        formatter = self._get_formatter()
        formatter.add_text(None if screen else self.description)
        formatter.add_text(self.format_usage().rstrip())
        for group in [*shown, self._more]:
            formatter.start_section(group.title)
            formatter.add_text(group.description)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
        return formatter.format_help()

    def format_usage(self) -> str:
        words = [f"{a.metavar} ..." if a.nargs == "+" else a.metavar for a in self._actions if not a.option_strings]
        words += [
            f"{a.option_strings[0]} {a.metavar or a.dest.upper()}"
            for a in self._actions
            if a.option_strings and a.required
        ]
        return f"usage: {self.prog} {' '.join(words)} [flags]\n"

    def parse_known_args(self, args=None, namespace=None):
        words = [self._spelled(word) for word in args or ()]
        if not {"-h", "--help"} & set(words):
            self.complete(next((name for name in self.screens if f"--help-{name}" in words), None))
        words = [self._spelled(word) for word in words]
        known = self._option_string_actions
        flags = {action.dest: action.option_strings[0] for action in self._actions if action.option_strings}
        typed = {known[name].dest: name for word in words if (name := word.partition("=")[0]) in known}
        self.names |= {**flags, **typed}
        found, others = super().parse_known_args(words, namespace)
        if flag := next((word for word in others if word.startswith("-")), None):
            self.error(self._unknown(flag.partition("=")[0]))
        return found, others

    def _spelled(self, word):
        """A flag as this parser spells it: --data-dir is --data_dir."""
        name, equals, value = word.partition("=")
        spelled = "--" + name[2:].replace("-", "_")
        return spelled + equals + value if name.startswith("--") and spelled in self._option_string_actions else word

    def _unknown(self, flag):
        like = difflib.get_close_matches(flag, self._option_string_actions, n=3, cutoff=0.5)
        begins = [name for name in self._option_string_actions if name.startswith(flag) and len(flag) > 3]
        like = list(dict.fromkeys([*begins, *like]))[:3]
        return f"unknown flag {flag}" + (f"; do you mean {' or '.join(like)}?" if like else "")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Fills paragraphs to the width of the terminal. Lines that are set in stay as they are."""

    def _fill_text(self, text, width, indent):
        fill, keep = argparse.HelpFormatter._fill_text, super()._fill_text
        parts = [
            keep(p, width, indent) if "\n  " in f"\n{p}" else fill(self, p, width, indent) for p in text.split("\n\n")
        ]
        return "\n\n".join(parts)


class _Screen(argparse.Action):
    """Prints one screen of flags and exits."""

    def __init__(self, *args, screen, **options):
        super().__init__(*args, nargs=0, default=argparse.SUPPRESS, **options)
        self.screen = screen

    def __call__(self, parser, namespace, values, option_string=None):
        print(parser.format_help(self.screen), end="")
        parser.exit()


def add_settings(group, kind: type, names: str | None = None, **defaults: Any) -> None:
    """Adds flags for the fields of settings named in `names`, or for all. `defaults` replace defaults.

    Parsed arguments then have every field of `kind`: one without a flag has its default.
    """
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        default = defaults.get(field.name, field.default)
        if field.metadata.get("help") and (names is None or field.name in names.split()):
            _add(group, field.name, hints[field.name], default, field.metadata)
        elif default is not dataclasses.MISSING:
            group._defaults.setdefault(field.name, default)  # set_defaults would change flags that exist already


def _add(group, name, hint, default, metadata):
    """Adds the flag of one field, or its positional argument. A field without a default is required."""
    options = {key: metadata[key] for key in ("choices", "metavar", "nargs", "type") if metadata.get(key) is not None}
    help = metadata["help"].replace("%", "%%")
    if metadata.get("positional"):
        group.add_argument(name, metavar=name.upper(), type=_converter(hint), help=help)
        return
    flags = (f"--{name}", *metadata.get("aliases", ()))
    if hint is bool:
        group.add_argument(*flags, dest=name, action="store_true", default=default, help=help)
        return
    if metadata.get("action") == "boolean":
        group.add_argument(*flags, dest=name, action=argparse.BooleanOptionalAction, default=default, help=help)
        return
    if metadata.get("action"):
        options["action"] = metadata["action"]
    if default not in (None, (), dataclasses.MISSING) and "(default" not in help:
        help += f" (default: {default:g})" if isinstance(default, float) else f" (default: {default})"
    options.setdefault("type", _converter(hint))
    if options["type"] is str:
        del options["type"]
    elif "type" in metadata:
        options["type"] = _showing_errors(options["type"], {name: flags[0]})
    if default is dataclasses.MISSING:
        options["required"], default = True, None
    group.add_argument(*flags, dest=name, default=None if default == () else default, help=help, **options)


def _showing_errors(convert, names):
    """`convert`, with its UserErrors shown by argparse as they are."""

    @functools.wraps(convert)
    def converted(text):
        try:
            return convert(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(error.named(names)) from error

    return converted


def _converter(hint):
    """The function that converts a text to a value of this type."""
    members = [member for member in typing.get_args(hint) or (hint,) if member is not type(None)]
    kind = members[0]
    if kind is float:
        return share
    return kind if kind in (int, Path) else _truth if kind is bool else str


def _truth(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(text)
    return text == "yes"


share.__name__, _truth.__name__ = "number", "yes or no"  # as argparse calls them


def settings_of(kind: type, args: argparse.Namespace, **given: Any) -> Any:
    """Settings of `kind` from parsed arguments, to whose flags `add_settings` added its fields, and from `given`."""
    values = dict(given)
    for field in dataclasses.fields(kind):
        if field.name not in given:
            value = vars(args)[field.name]
            value = tuple(value) if isinstance(value, list) else value
            values[field.name] = field.default if value is None and field.default == () else value
    return kind(**values)


@contextlib.contextmanager
def possible() -> Iterator[None]:
    """A context in which a ValueError is an impossible request: it is raised as a UserError."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, UserError) and not isinstance(error, SettingError):
            raise
        raise UserError(f"impossible request: {text_of(error)}") from error


def described(kind: type) -> dict[str, str]:
    """The descriptions of attributes in the docstrings of a class and of its bases, by name."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        section = re.search(
            r"^.*Attributes.*:\n((?:.*\n?)*)", inspect.cleandoc(each.__dict__.get("__doc__") or ""), re.M
        )
        if not section:
            continue
        paragraph = section[1].split("\n\n")[0]
        for names, text in re.findall(r"^ {4}(\w+(?:, \w+)*): ((?:.*\n?(?: {6,}.*\n?)*))", paragraph, re.M):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def summary(kind: type) -> str:
    """The first line of the docstring of a class."""
    return inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]


def add_object(
    group,
    kinds: Iterable[type],
    aliases: dict[str, Sequence[str]],
    help: dict[str, str] | None = None,
    prefix: str = "",
    without: Sequence[str] = (),
) -> None:
    """Adds a flag for each field of `kinds`, objects of the library. A flag that is not given is None.

    Args:
        aliases: other names of a field's flag.
        help: help of a field whose docstring is not enough.
        prefix: beginning of the names of all flags.
        without: fields that have no flag.
    """
    of: dict[str, list] = {}
    for kind in kinds:
        for field in dataclasses.fields(kind):
            if field.name not in without:
                of.setdefault(field.name, []).append((kind, field))
    for name, owners in of.items():
        kind, field = owners[0]
        hint = typing.get_type_hints(kind)[field.name]
        text = (help or {}).get(name) or described(kind).get(name, "").rstrip(".")
        if field.default not in (None, dataclasses.MISSING) and "default" not in text:
            text += f" (default: {field.default})"
        options: dict[str, Any] = {"help": text, "aliases": [f"--{alias}" for alias in aliases.get(name, ())]}
        options["metavar"] = {int: "N", float: "X"}.get(hint, None if hint is str else "X")
        if hint is bool:
            group.add_argument(
                f"--{prefix}{name}",
                dest=prefix + name,
                action=argparse.BooleanOptionalAction,
                help=text.replace("%", "%%"),
            )
            continue
        _add(group, prefix + name, hint, None, options)


def given_fields(kind: type, args: argparse.Namespace, prefix: str = "", without: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of `kind` that were given, with their values; `prefix` and `without` as for `add_object`."""
    names = [field.name for field in dataclasses.fields(kind) if field.name not in without]
    return {name: vars(args)[prefix + name] for name in names if vars(args)[prefix + name] is not None}


def refuse(args: argparse.Namespace, names: Iterable[str], reason: str) -> None:
    """Raises SettingError, "{NAME} REASON", for the first of the flags `names` that was given."""
    for name in names:
        if vars(args)[name] not in (None, ()):  # False is what --no-NAME gives
            raise SettingError(f"{{{name}}} {reason}")


OPENING = "normalization field prefix leave_out image_size max_pool"
"""The fields of Network for facts that a PyTorch file does not state."""
