"""Errors whose message a command shows its user, without a traceback."""


class UserError(ValueError):
    """Something that the user can mend; the message names the file or the field, and the remedy."""


class SettingError(ValueError):
    """A setting out of its range.

    `str` names settings as the library does. A command that has other names for them asks for `named`.

    Args:
        text: with {name} for each setting that it names.
    """

    def __init__(self, text: str):
        self.text = text
        super().__init__(self.named({}))

    def named(self, names: dict[str, str]) -> str:
        """The text with other `names` of settings."""
        return self.text.format_map(_Names(names))


class _Names(dict):
    def __missing__(self, key):
        return key
