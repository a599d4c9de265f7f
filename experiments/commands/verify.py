"""Check results files: bounds from their counts, hashes from their inputs, and some counts from their seeds.

The bound, radius and class of every line are computed again from its counts. The file, the checkpoint, the data set and
the pixels are compared with their hashes in the sidecar. K images, chosen anew each time, are certified again from
their seeds. RESULTS may be a folder: then each results file in it is checked.

The verdict is "verified" for a finished file that --recount all drew again as a whole. Anything less is "consistent",
and the output states how likely it is that a forged line was missed. The documentation has the rule for copies that are
nearly ties, and what no file can prove.

Whoever made a file also wrote the paths in its sidecar. They are opened if they lie below the current folder or below
that of the file, or come with the package. Others must be given: --checkpoint, --data_dir, or --trust_paths.

The exit status is 2 if anything differs, if the hashes of a file are missing, or if lines were to be drawn again and
could not be.

  qcrs-jax verify results.tsv --recount 5
  qcrs-jax verify results.tsv --confidence 95% --forged 5%
"""

import argparse
import math
from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.printable import printable_lines

from ..run.settings import share
from .flags import settings_of

RECOUNT = 2


def add_arguments(parser):
    add = parser.add_argument
    add("results", metavar="RESULTS", nargs="+", type=Path, help="results files, or folders of them")
    add(
        "--recount",
        type=count,
        metavar="K",
        help="number of images whose counts are drawn again, or all; 0 opens neither checkpoint nor data (default: 2)",
    )
    add(
        "--confidence",
        type=share,
        metavar="C",
        help="instead of --recount: draw enough images again to find a forged one with probability C, such as 95%% or "
        "0.95, if a share --forged of all images is forged",
    )
    add("--forged", type=share, metavar="S", help="share of forged images for --confidence, such as 5%% or 0.05")
    add(
        "--recount_seed",
        type=int,
        metavar="SEED",
        help="seed that chooses the images to draw again (default: a fresh one each time, which is printed)",
    )
    add("--checkpoint", type=Path, help="present place of the checkpoint (default: the recorded one)")
    add("--denoiser", type=Path, help="present place of the denoiser before it (default: the recorded one)")
    add("--data_dir", type=Path, help="present place of the data set (default: the recorded one)")
    add(
        "--trust_paths",
        action="store_true",
        help="open the checkpoint and the data set at the paths in the sidecar, wherever these lead, and let "
        "TensorFlow Datasets download what is missing there",
    )
    add = parser.add_argument_group("logs of other programs, which have no sidecar").add_argument
    add("--sigma", type=float, help="noise level of all images, if the log has no column of sigmas")
    add("--n", "--N", dest="n", type=int, help="samples for each certificate")
    add("--alpha", type=float, help="failure probability of each certificate")


def count(text: str) -> int | float:
    """The number of images in `text`; infinite for "all"."""
    if text == "all":
        return math.inf
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of images nor all")
    return int(text)


def run(args):
    from ..verification.check import Checks, results_files
    from ..verification.choice import Choice
    from ..verification.trusted_paths import Where

    _check(args)
    checks = Checks(
        Choice(RECOUNT if args.recount is None else args.recount, args.confidence, args.forged, args.recount_seed),
        asked=args.recount is not None or args.confidence is not None,
        where=settings_of(Where, args, inputs=None, otherwise=Where.otherwise),
        numbers={"sigma": args.sigma, "n": args.n, "alpha": args.alpha},
    )
    paths, failed = list(results_files(args.results)), []
    for path in paths:
        try:
            checks.check(path)
        except UserError as error:
            if len(paths) == 1:
                raise
            failed.append(path)
            said = error.named(args.invoked.names)
            print(printable_lines(said if str(path) in said else f"{path}: {said}"), flush=True)
    if len(paths) > 1:
        print(f"{len(paths) - len(failed)} of {len(paths)} files passed the checks listed above")
    if failed:
        raise UserError(f"{len(failed)} of {len(paths)} files did not pass: {', '.join(map(str, failed))}")


def _check(args) -> None:
    """Raises UserError for flags that do not go together."""
    if (args.confidence is None) != (args.forged is None):
        raise UserError(
            "--confidence and --forged go together: the probability of finding a forged line, and the share of forged "
            "lines"
        )
    if args.confidence is not None and args.recount is not None:
        raise UserError("--recount and --confidence both set how many images are drawn again; give one of them")
    if args.confidence is not None and not (0 < args.confidence <= 1 and 0 < args.forged <= 1):
        raise UserError(
            f"--confidence {args.confidence:g}, --forged {args.forged:g}: both must be above 0 and at most 1, such as "
            "95% and 5%"
        )
