"""The zoo: classifiers and denoisers trained with `qcrs-jax train` that come with the package, opened as `zoo:NAME`.

`qcrs-jax certify zoo:NAME RESULTS ...` and `load_classifier("zoo:NAME")` open a classifier, `--denoiser zoo:NAME` and
`load_denoiser("zoo:NAME")` a denoiser. --commands prints the command that made each of them. The log of a classifier's
training lies beside its weights.
"""

from .flags import Parser


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--commands", action="store_true", help="print the commands that made them")


def run(args) -> None:
    from qcrs_jax.convert import zoo

    for name, entry in (zoo.entries() | zoo.denoisers()).items():
        print(f"{zoo.PREFIX}{name}")
        print(zoo.described(entry) if not args.commands else f"  {entry['command']}")
