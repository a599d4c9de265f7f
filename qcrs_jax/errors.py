"""Errors whose message a command shows to its user, without a traceback. They carry the settings that they name."""

import re

_MARKED = re.compile("\ue000(.*?)\ue001")  # private characters, which no other text has


def setting(name: str) -> str:
    """The name of a setting in the text of a UserError. It is the library's own name; a command may replace it."""
    return f"\ue000{name}\ue001"


def text_of(error: BaseException) -> str:
    """The message of an error, for an error around it. In that of a UserError the names of settings stay marked."""
    return error.text if isinstance(error, UserError) else str(error)


def quoted(error: BaseException) -> str:
    """The message of an error in one line of at most 300 characters. Messages quote the file, which may be hostile."""
    said = " ".join(str(error).split())
    return said if len(said) <= 300 else f"{said[:300]}..."


class UserError(ValueError):
    """An error that the user can mend. The message names the file or the setting, and the remedy.

    `str` names settings as the library does.

    Attributes:
        settings: names of the settings in the message, in its order.
        text: the message with the names of settings marked, for a message around it.
    """

    def __init__(self, text: object = ""):
        self.text = str(text)
        self.settings = tuple(_MARKED.findall(self.text))
        super().__init__(self.named({}))

    def named(self, names: dict[str, str]) -> str:
        """The message with other `names` of settings, such as flags, and with the notes that were added to it since."""
        text = _MARKED.sub(lambda found: _named(found[1], names), self.text)
        return "\n".join([text, *getattr(self, "__notes__", ())])


def _named(name, names):
    """The name of a setting. That of a nested setting, as search.epsilon, stands beside its own."""
    last = name.rpartition(".")[2]
    return f"{names[last]} ({name})" if last in names and last != name else names.get(name, name)


class SettingError(UserError):
    """A setting out of its range, or settings that do not go together.

    Args:
        text: the message, with {name} for each setting that it names.
    """

    def __init__(self, text: str):
        super().__init__(re.sub(r"\{(\w+)\}", lambda found: setting(found[1]), text))
