"""Benchmark: runs in a checkout alone. The bench is not part of the installed package."""

from qcrs_jax.errors import UserError


def add_arguments(parser):
    parser.prefix_chars = "\0"  # whatever is asked, the answer is the same
    parser.add_argument("words", nargs="*")


def run(args):
    raise UserError("benchmark needs a checkout of qcrs_jax: run it there, after pip install -e '.[cli,bench]'")
