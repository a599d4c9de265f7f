"""The error that a command shows its user as a message, without a traceback."""


class UserError(ValueError):
    """Something that the user can mend; the message names the file or the field, and the remedy."""
