"""`python -m qcrs_jax.convert CHECKPOINT OUT_DIR`, the same as `qcrs-jax convert`."""

import sys


def main() -> int:
    """Runs the command. It belongs to the program, not to the converter."""
    from qcrs_jax.experiments.cli import main

    return main(["convert", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
