"""Text from files as it is printed. A character that would steer a terminal is shown, and has no effect."""

import unicodedata

_STEERS = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, marks of direction, halves of characters, ends of lines


def printable(text, keep: str = "") -> str:
    r"""`text` with every character that steers a terminal as its number: \x1b, \u202e.

    Args:
        text: any object; its str() is taken.
        keep: characters that stay as they are, as "\n\t" in a text of several lines.
    """
    return "".join(c if c in keep or c.isprintable() else _shown(c) for c in str(text))


def printable_lines(text) -> str:
    """`printable` for a text of several lines. Ends of lines and tabs stay."""
    return printable(text, "\n\t")


def _shown(character):
    if unicodedata.category(character) not in _STEERS:  # blanks of other widths, private and unknown characters
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
