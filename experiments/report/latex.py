"""Text that LaTeX reads as itself: in a table escaped, beside it commented out."""

# What LaTeX takes for something else: its ten special characters, and three that its oldest fonts do not have.
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
    """`text` on one line, as it is to be read in a cell of a table."""
    escaped = _one_line(text).translate(_ESCAPES)
    while "--" in escaped:  # a dash
        escaped = escaped.replace("--", "-{}-")
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped  # of the line's end before


def comment(text: str) -> str:
    """`text` as lines of comments."""
    return "\n".join(f"% {_one_line(line)}" for line in text.splitlines())


def _one_line(text):
    return "".join(character if character.isprintable() else " " for character in text)
