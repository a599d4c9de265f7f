"""Is R(sigma) quasiconcave? Counts the images of `qcrs-jax curve` whose band contains some quasiconcave function.

QCRS needs R(sigma) to rise and then fall. An image speaks against this where R(sigma) certainly dips: where its upper
bound at one sigma is less than its lower bounds at a smaller and at a larger sigma. All bounds of an image hold
together with probability 1 - ALPHA. With --out the exceptions are drawn, the deepest dips first.
"""

from pathlib import Path

from qcrs_jax.printable import printable_lines


def add_arguments(parser):
    parser.add_argument("curves", metavar="CURVES", nargs="+", type=Path, help="files of `qcrs-jax curve`")
    parser.add_argument(
        "--alpha", type=float, default=0.001, help="failure probability of each image's band (default: 0.001)"
    )
    parser.add_argument("--out", type=Path, help="draw the exceptions: FILE.png, FILE.pdf or FILE.svg")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what is printed to this file as well")


def run(args):
    from qcrs_jax.analysis.curves import read_all_curves
    from qcrs_jax.bounds import check_alpha
    from qcrs_jax.files import write_text, writing

    from ..report.figures import check_ending
    from ..report.layouts import check_replaceable
    from ..report.quasiconcavity import draw_exceptions, report

    check_replaceable(args.report, args.curves)
    check_alpha(args.alpha)
    if args.out is not None:
        check_ending(args.out)
    files = read_all_curves(args.curves)
    text = "\n\n".join(report(path, curves, args.alpha) for path, curves in files)
    print(printable_lines(text))
    if args.report is not None:
        with writing(args.report):
            write_text(args.report, printable_lines(text) + "\n")
    if args.out is not None:
        count = draw_exceptions([curves for _, curves in files], args.alpha, args.out)
        print(f"\n{args.out}: the {count} deepest dips" if count else f"\nno exception, so {args.out} is not written")
