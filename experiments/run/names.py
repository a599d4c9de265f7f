"""Which paths of a sidecar `qcrs-jax verify` opens: a stranger may have written them."""

PYTHON = "python:"  # before the name of a classifier of one's own, a function in a file


def is_python(checkpoint) -> bool:
    """Whether the name of a checkpoint stands for a function in a file of Python."""
    return str(checkpoint).startswith(PYTHON)
