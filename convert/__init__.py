"""PyTorch checkpoints to Flax classifiers, without PyTorch: reading the file, naming its parts, filling the network."""

import sys

if __name__ == "convert" and sys.argv[:1] != ["-m"]:  # `python -m convert` runs the command alone
    raise ImportError("the folder convert is the package qcrs_jax.convert: import that")
