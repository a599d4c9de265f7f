"""Check results files: bounds from their counts, hashes from their inputs, and some counts from their seeds.

Every line's bound, radius and class are computed again from its counts, and the file is compared with its sum in the
sidecar. The checkpoint and the data set are opened as the run opened them, and compared with what the sidecar says of
them, and the images' pixels with their sum in it. Then K images, chosen anew each time, are done over from their seeds,
and each of their numbers compared. What is changed by hand, in counts and all that follows from them, shows where the
image is among these K; the output says how likely that is. --recount all does all of them over.

RESULTS may be a folder: then each results file in it is checked. Of a run with --budget, RESULTS.pilot is checked too.
A file that `qcrs-jax memory` made is made again of the one that it was made of. A log without counts is checked as far
as it can be, and the output says what was not checked. Times are not checked, and images that the run might have ended
before are not missed.

Another program or device may put a copy that is nearly a tie into another class. The output says how many copies of an
image moved. They are accepted where they are at most 2 copies (and at most 1 in 100), or at most 0.1% of the copies and
the radius is the same within 1%; the class has to be the same, and over all lines they must not lean to the certified
class. Where a search went another way, the counts at the file's own sigma are compared so, and the radius of the search
here is the same within 3%.

An image that the run left out is read again: one that can be read was dropped. "verified" is said of a finished file
that was drawn again whole. Anything less is "consistent", and the output says how likely it is that a forged line was
missed. Nothing can be known from a file of when its settings were chosen; the output lists that as not proved. A seed
that is committed to the request is derived again. Of one that the user chose the output says so.

Whoever made a file wrote the paths in its sidecar too. They are opened where they lie below the current folder or below
that of the file, or come with the package, and with --trust_paths. Others have to be given: --checkpoint, --data_dir.

It ends with status 2 where anything differs by more, where the sums of a file are not there, or where lines were to be
drawn again and could not be.

  qcrs-jax verify cifar_exp --recount 5
  qcrs-jax verify cifar_exp --confidence 95% --forged 5%
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
        help="images whose counts are drawn again, or all; 0 opens neither checkpoint nor data (default: 2)",
    )
    add(
        "--confidence",
        type=share,
        metavar="C",
        help="instead of --recount: draw so many images again that a forged one is among them with probability C, as "
        "95%% or 0.95, where a share --forged of them is forged",
    )
    add("--forged", type=share, metavar="S", help="goes with --confidence: the share, as 5%% or 0.05")
    add(
        "--recount_seed",
        type=int,
        metavar="SEED",
        help="chooses the images that are drawn again (default: a fresh one each time, which is printed)",
    )
    add("--checkpoint", type=Path, help="where the checkpoint is now (default: where it was)")
    add("--data_dir", type=Path, help="where the data set is now (default: where it was)")
    add(
        "--trust_paths",
        action="store_true",
        help="open the checkpoint and the data set that the sidecar names, wherever they are, and let TensorFlow "
        "Datasets download what they lack there",
    )
    add = parser.add_argument_group("logs of other programs, which have no sidecar").add_argument
    add("--sigma", type=float, help="noise level of all images, where the log has no column of sigmas")
    add("--n", "--N", dest="n", type=int, help="samples for each certificate")
    add("--alpha", type=float, help="failure probability of each certificate")


def count(text: str) -> int | float:
    """The number of images that `text` stands for; infinite for all."""
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
        where=settings_of(Where, args, inputs=None),
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
        print(f"{len(paths) - len(failed)} of {len(paths)} files passed what is said of each above")
    if failed:
        raise UserError(f"{len(failed)} of {len(paths)} files did not pass: {', '.join(map(str, failed))}")


def _check(args) -> None:
    """Raises UserError for flags that do not go together."""
    if (args.confidence is None) != (args.forged is None):
        raise UserError(
            "--confidence and --forged go together: the one says how surely, the other how many forged lines"
        )
    if args.confidence is not None and args.recount is not None:
        raise UserError("--recount says how many images are drawn again, and so does --confidence; give one of them")
    if args.confidence is not None and not (0 < args.confidence <= 1 and 0 < args.forged <= 1):
        raise UserError(
            f"--confidence {args.confidence:g}, --forged {args.forged:g}: both lie above 0 and up to 1, as 95% and 5%"
        )
