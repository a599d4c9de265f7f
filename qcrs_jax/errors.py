"""Errors whose message a command shows its user, without a traceback. They carry the settings that they name."""

import re

_MARKED = re.compile("\ue000(.*?)\ue001")  # private characters, which no other text has


def setting(name: str) -> str:
    """The name of a setting, for the text of a UserError: the library's own, which a command may put in other words."""
    return f"\ue000{name}\ue001"


def text_of(error: BaseException) -> str:
    """The message of an error, for one around it: of a UserError with the names of settings marked."""
    return error.text if isinstance(error, UserError) else str(error)


def quoted(error: BaseException) -> str:
    """The message of an error in one line of at most 300 characters: others quote the file, which may be hostile."""
    said = " ".join(str(error).split())
    return said if len(said) <= 300 else f"{said[:300]}..."


class UserError(ValueError):
    """Something that the user can mend; the message names the file or the setting, and the remedy.

    `str` names settings as the library does.

    Attributes:
        settings: names of the settings that the message names, in its order.
        text: the message with the names of settings marked, for a message around it.
    """

    def __init__(self, text: object = ""):
        self.text = str(text)
        self.settings = tuple(_MARKED.findall(self.text))
        super().__init__(self.named({}))

    def named(self, names: dict[str, str]) -> str:
        """The message with other `names` of settings, such as flags; and what was added to it since."""
        text = _MARKED.sub(lambda found: _named(found[1], names), self.text)
        return "\n".join([text, *getattr(self, "__notes__", ())])


def _named(name, names):
    """The name of a setting; of one inside others, as search.epsilon, beside its own."""
    last = name.rpartition(".")[2]
    return f"{names[last]} ({name})" if last in names and last != name else names.get(name, name)


class SettingError(UserError):
    """A setting out of its range, or settings that do not go together.

    Args:
        text: with {name} for each setting that it names.
    """

    def __init__(self, text: str):
        super().__init__(re.sub(r"\{(\w+)\}", lambda found: setting(found[1]), text))
