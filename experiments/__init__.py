"""The commands: whole data sets certified, and their results turned into tables and plots."""

if __name__ == "experiments":
    raise ImportError("the folder experiments is the package qcrs_jax.experiments: import that")
