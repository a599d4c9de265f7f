"""Certify a data set: the radius of every image.

RESULTS gets one line per image; RESULTS.json has the settings. A stopped run continues when the command is repeated.

  Cohen's certificates, at one sigma:
    qcrs-jax certify CHECKPOINT cohen.tsv --sigma 0.25 --method cohen
  QCRS, which searches a sigma for each image; here its Bayesian search:
    qcrs-jax certify CHECKPOINT qcrs.tsv --sigma 0.25 --search bayesian
  A cascade, one classifier for all images with several sigmas:
    qcrs-jax certify CHECKPOINT cascade.tsv --method cascade --sigmas 1,0.5,0.25
"""

import argparse
from pathlib import Path

from qcrs_jax.errors import SettingError

from .flags import Parser, refuse
from .method import add_request, cascade_of, print_unused, request_of, with_noise
from .sweep import add_sweep, sweep_of


def add_arguments(parser: Parser) -> None:
    add_request(parser, auto=True, cascade=True)
    add_sweep(parser)
    parser.screen("search", "collapse").add_argument(
        "--collapse",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure first at which sigma the network loses its accuracy under noise, on a hundred other images, and "
        "record it; it is kept in CHECKPOINT.collapse.json. It changes no count (default: yes)",
    )


def run(args) -> None:
    if args.method == "cascade":
        _certify_cascade(args)
        return
    refuse(args, ("sigmas", "tau", "stages"), "is of a cascade; give {method} cascade with it")
    request, sweep = request_of(args), sweep_of(args)  # before anything slow is imported or read
    if request.to_collapse and not args.collapse:
        raise SettingError("{sigma_upper} auto measures collapse; leave {collapse} out, or give a number")

    print_unused(args, request.search)

    from ..report.table import print_tables
    from ..run.certify import certify_dataset, check_batch

    check_batch(request, sweep)
    request, inputs = with_noise(args, request, sweep)
    path = certify_dataset(request, sweep, inputs, collapse=args.collapse)
    if path is None:  # only the first host has the file, and no dry run
        return
    print()
    print_tables([path])
    if request.search.widens:
        print(widened(path))


def _certify_cascade(args) -> None:
    request, sweep = cascade_of(args), sweep_of(args)

    from ..report.table import print_tables
    from ..run.certify import certify_cascade_dataset

    request, inputs = with_noise(args, request, sweep)
    path = certify_cascade_dataset(request, sweep, inputs)
    if path is not None:
        print()
        print_tables([path])


def widened(path: Path) -> str:
    """The sentence that counts for how many images of the results the search went beyond its bracket."""
    from qcrs_jax.results.records import read_run
    from qcrs_jax.search import search_of

    run = read_run(path)
    records, search = run.records, search_of(run.request["search"])  # whose bracket may have been ended
    rounding = 1e-6 * search.sigma_upper
    below = sum(record.sigma < search.sigma_lower - rounding for record in records)
    above = sum(record.sigma > search.sigma_upper + rounding for record in records)
    return (
        f"The bracket {search.sigma_lower:g} to {search.sigma_upper:g} was widened where its end was best: sigma lies "
        f"below it for {below} and above it for {above} of {len(records)} images."
    )
