"""The pages of the command reference, made of the parsers that the program has."""

import html
import re

from mkdocs.structure.files import File

from qcrs_jax.experiments.cli import COMMANDS, parser_of

FOLDER = "reference/commands"
TITLES = {"positional arguments": "arguments", "options": "flags"}
"""Better names than argparse's."""


def on_config(config):
    """Puts the commands below the entry of their reference."""
    for entry in _entries(config.nav):
        for title, page in entry.items():
            if page == f"{FOLDER}/index.md":
                entry[title] = [page, *({name: f"{FOLDER}/{name}.md"} for name in COMMANDS)]
    return config


def on_files(files, config):
    for name in COMMANDS:
        files.append(File.generated(config, f"{FOLDER}/{name}.md", content=page_of(name)))
    return files


def on_page_markdown(markdown, page, **_):
    """The table of all commands, where the page has its mark."""
    return markdown.replace("{{ commands }}", table()) if page.file.src_uri == f"{FOLDER}/index.md" else markdown


def table() -> str:
    rows = [f"| [`qcrs-jax {name}`]({name}.md) | {_prose(summary(name))} |" for name in COMMANDS]
    return "\n".join(["| command | |", "|---|---|", *rows])


def summary(name: str) -> str:
    return COMMANDS[name].__doc__.strip().partition("\n")[0]


def page_of(name: str) -> str:
    """One command's page: its description, and every flag of its groups."""
    parser = parser_of(name).complete()
    lines = [f"# qcrs-jax {name}", "", *_description(COMMANDS[name].__doc__.strip()), ""]
    words = [action.metavar or action.dest.upper() for action in parser._actions if not action.option_strings]
    needed = [_flag(action) for action in parser._actions if action.option_strings and action.required]
    lines += ["```text", " ".join(["qcrs-jax", name, *words, *needed, "[flags]"]), "```", ""]
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if not a.dest.startswith("help")]
        if not actions:
            continue
        lines += [f"## {TITLES.get(group.title, group.title.partition(':')[0]).capitalize()}", ""]
        lines += ["```text", group.description, "```", ""] if group.description else []
        for action in actions:
            names = ", ".join(f"`{each}`" for each in action.option_strings) or f"`{action.metavar or action.dest}`"
            value = _value(action)
            lines += [f"{names}{f' `{value}`' if value else ''}", f":   {_prose(_help(action, parser))}", ""]
    return "\n".join(lines)


def _description(text):
    """Paragraphs, and lines that are set in as an example: of two spaces as a comment, of more as a command."""
    lines, inside = [], False
    for line in text.split("\n"):
        if line.startswith("  ") != inside and (line or not inside):
            inside = not inside
            lines += ["```sh"] if inside else ["```", ""]
        if inside and line:
            lines.append(line.strip() if line.startswith("    ") else f"# {line.strip()}")
        else:
            lines.append(_prose(line))
    return lines + ["```"] * inside


def _help(action, parser):
    return (action.help or "") % {**vars(action), "prog": parser.prog}


def _value(action):
    """What a flag takes, as a reader has to type it."""
    if action.nargs == 0:
        return ""
    if action.choices:
        return "|".join(map(str, action.choices))
    if not action.option_strings:
        return ""
    word = action.metavar or action.dest.upper()
    return f"{word} ..." if action.nargs in ("+", "*") else word


def _flag(action):
    return f"{action.option_strings[0]} {_value(action)}".strip()


def _prose(text):
    """Text in which nothing but code between backquotes is markup."""
    plain = lambda part: re.sub(r"([*_$|\\])", r"\\\1", html.escape(part, quote=False))  # noqa: E731
    return "".join(part if part.startswith("`") else plain(part) for part in re.split(r"(`[^`]*`)", text))


def _entries(nav):
    for entry in nav or ():
        if isinstance(entry, dict):
            yield entry
            for inside in entry.values():
                yield from _entries(inside if isinstance(inside, list) else ())
