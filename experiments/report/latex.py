"""Text for LaTeX: escaped in a table, commented out around it."""

# The ten special characters of LaTeX, and three that its oldest fonts lack.
_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "{}_%&#$"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
)


def escape(text: str) -> str:
    """`text` on one line, escaped for a cell of a table."""
    escaped = _one_line(text).translate(_ESCAPES)
    while "--" in escaped:  # LaTeX would make a dash of it
        escaped = escaped.replace("--", "-{}-")
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped  # no argument of the \\ before


def comment(text: str) -> str:
    """`text` as lines of comments."""
    return "\n".join(f"% {_one_line(line)}" for line in text.splitlines())


def _one_line(text):
    return "".join(character if character.isprintable() else " " for character in text)
