"""`python -m convert CHECKPOINT OUT_DIR`, the same as `qcrs-jax convert`."""

import sys

from qcrs_jax.experiments.cli import main

sys.exit(main(["convert", *sys.argv[1:]]))
