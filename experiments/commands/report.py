"""A page to hand to a reviewer or a safety board: the content of results files as one HTML file.

It has the table and the curves, radii and noise levels, a row for each class, a list of all images to sort and to
filter, the images that gained and lost most over a run of one sigma (--method cohen) where one is given, what alpha
amounts to, where the results come from, and the command that verifies them. It explains the certificates in plain
words.

The page is one file that loads nothing, works without network, in dark and in light, by keyboard and in print. Nothing
is certified again. Where the data set can be opened as the run recorded it, or is given by --data_dir, the list has
thumbnails. Paths that a results file names are opened as `qcrs-jax verify` opens them.

With --verify N, N images are drawn again, as `qcrs-jax verify --recount N` does, and the page reports the outcome. If
anything differs, the command ends with status 2.

  qcrs-jax report cohen.tsv qcrs.tsv --out report.html
  qcrs-jax report qcrs.tsv --data_dir images --verify 5 --out report.html
"""

import dataclasses
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from qcrs_jax.errors import UserError, text_of

from .table import add_beyond
from .verify import count


def add_arguments(parser):
    add = parser.add_argument
    add("results", metavar="RESULTS", nargs="+", type=Path, help="results files of certificates")
    add("--out", type=Path, required=True, metavar="FILE", help="FILE.html")
    add("--title", help="default: the network and the data set")
    add("--data_dir", type=Path, help="where the data set is now (default: where it was)")
    add_beyond(parser)
    add("--verify", type=count, metavar="N", help="draw N images of each file again, or all, and report the outcome")
    add("--checkpoint", type=Path, help="goes with --verify: where the checkpoint is now (default: where it was)")
    add("--denoiser", type=Path, help="goes with --verify: where the denoiser is now (default: where it was)")
    add(
        "--trust_paths",
        action="store_true",
        help="open the checkpoint and the data set that the sidecar names, wherever they are",
    )


def run(args):
    from ..verification.trusted_paths import Where

    for name, place in {"checkpoint": args.checkpoint, "denoiser": args.denoiser}.items():
        if place is not None and not args.verify:
            raise UserError(f"--{name} goes with --verify, which alone opens a {name}")
    where = Where(
        checkpoint=args.checkpoint, denoiser=args.denoiser, data_dir=args.data_dir, trust_paths=args.trust_paths
    )
    write_report(args.results, args.out, where, args.title, args.verify or 0, args.beyond)
    print(args.out)


def write_report(
    results: Sequence[Path],
    out: Path,
    where,
    title: str | None = None,
    recount: int | float = 0,
    beyond: float | None = None,
) -> None:
    """Writes the page of the runs in `results` to the file `out`.

    Args:
        where: where checkpoint and data set are now (`trusted_paths.Where`).
        recount: how many images of each file are drawn again.
        beyond: the sigma beyond which images are counted; None takes the one that each run recorded.

    Raises:
        UserError: a file cannot be read, or no page can be made of it; or, after the page was written, a file is not
            what was computed.
    """
    from qcrs_jax.files import write_text, writing

    from ..report.html import page
    from ..report.layouts import check_replaceable

    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: the page is HTML; end its name with .html")
    check_replaceable(out, results)
    with writing(out):  # before the slow part
        if not out.absolute().parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(out))
    parts = _parts(results)
    if recount:
        parts = [_verified(part, recount, where) for part in parts]
    text = page(parts, _pictures(parts, where), title, beyond)
    with writing(out):
        write_text(out, text)
    if wrong := [part for part in parts if part.verified and part.verified.troubles]:
        names = ", ".join(str(file) for part in wrong for file in part.files)
        raise UserError(f"{names}: not what was computed, see {out}: {wrong[0].verified.troubles[0]}")


def _parts(paths):
    """The runs in `paths`, the shards of each together. Raises UserError for files that no report can be made of."""
    from qcrs_jax.results.records import read_run
    from qcrs_jax.results.shards import gather, join

    from ..report.parts import Part

    parts = []
    for group in gather([read_run(path) for path in paths]):
        (run,) = join(group)
        if run.predicts:
            raise UserError(f"{run.path}: holds predictions, which have no radii; a report is of files of certify")
        if not run.records:
            raise UserError(f"{run.path}: holds no results yet")
        parts.append(Part(run, [member.path for member in group]))
    return parts


def _verified(part, recount, where):
    """`part` with the findings about its files."""
    from ..report.parts import Verified
    from ..verification.check import Checks, Found
    from ..verification.choice import Choice

    checks, found = Checks(Choice(recount), asked=True, where=where), []
    for file in part.files:
        each = Found()
        found.append((file, list(checks.verify(file, each)), each))
    troubles = [f"{file.name}: {trouble}" for file, _, each in found for trouble in each.troubles]
    verdict = "; ".join(
        f"{file.name} is {each.verdict()}" if len(found) > 1 else each.verdict() for file, _, each in found
    )
    lines = [f"{file.name}: {line}" for file, said, _ in found for line in said]
    whole = not troubles and all(each.whole for _, _, each in found)
    return dataclasses.replace(part, verified=Verified(verdict, lines, troubles, whole))


def _pictures(parts, where):
    """The pictures of each set of images, by the place of its first run."""
    from ..report.parts import Pictures
    from ..report.words import group_by_images
    from ..verification.pictures import open_pictures

    found, runs = {}, [part.run for part in parts]
    for group in group_by_images(runs):
        place = next(i for i, run in enumerate(runs) if run is group[0])
        try:
            found[place] = Pictures(open_pictures(group[0], parts[place].files[0], where))
        except UserError as error:
            if where.data_dir is not None:
                raise
            found[place] = Pictures(None, text_of(error).rstrip("."))
    return found
