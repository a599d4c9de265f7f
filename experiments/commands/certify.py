"""Certify a data set: the L2 radius of every image, by QCRS, DDRS or at a fixed sigma.

CHECKPOINT is a directory that `qcrs-jax convert` wrote or a PyTorch file. RESULTS is a tab-separated file, one line
an image, with a sidecar RESULTS.json. A run that was stopped goes on when the same command is given again.

  qcrs-jax certify models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar cifar_exp --sigma 0.25 \\
      --left 0.08 --right 0.9 --epsilon 0.03
"""

from pathlib import Path

from ..run.certify import certify_dataset
from ..run.request import Request
from .flags import add_input_arguments, add_program_arguments
from .guarantee import add_guarantee_arguments
from .method import add_method_arguments, check


def add_arguments(parser):
    add_input_arguments(parser)
    add_method_arguments(parser)
    add_guarantee_arguments(parser)
    add_program_arguments(parser)


def run(args):
    from ..report import table

    request = check(args)  # before anything slow is imported or read
    path = certify_dataset(request, args)
    if path is None:  # the first of the hosts has it; a dry run has none
        return
    print()
    table.print_tables([path])
    if request.search.widens:
        print(widened(request, path))


def widened(request: Request, path: Path) -> str:
    """Says for how many images of the results the search went beyond its bracket."""
    from qcrs_jax.results.records import read_run

    records, settings = read_run(path).records, request.search
    rounding = 1e-6 * settings.sigma_upper
    lower, upper = settings.sigma_lower - rounding, settings.sigma_upper + rounding
    below, above = sum(r.sigma < lower for r in records), sum(r.sigma > upper for r in records)
    return (
        f"The bracket {settings.sigma_lower:g} to {settings.sigma_upper:g} was widened where its end was best: sigma "
        f"lies below it for {below} and above it for {above} of {len(records)} images."
    )
