"""Write the whole certification of an image as one program, which runs where JAX alone is installed.

FILE holds the network with its weights, the search for sigma, and the sampling, for every platform that is named; n0, n
and sigma are arguments of the program. The README shows how it is called, and how radii follow from its counts.
"""

from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.extras import needed_for
from qcrs_jax.files import output, writing

from .arguments import add_program_arguments
from .guarantees import NOT_ASKED
from .request import add_method_arguments, check


def add_arguments(parser):
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", type=Path, help="converted directory or PyTorch file")
    add("file", metavar="FILE", type=Path, help="program to write")
    add(
        "--platforms",
        nargs="+",
        default=["cpu", "cuda", "rocm", "tpu"],
        choices=["cpu", "cuda", "rocm", "tpu"],
        help="where it is to run (default: all)",
    )
    add_method_arguments(parser)
    parser.set_defaults(**NOT_ASKED)
    add_program_arguments(parser, seed=False)
    parser.set_defaults(seed=0, skip=1)  # those come with the key, and with the image


def run(args):
    from qcrs_jax import Fixed

    request = check(args)
    if request.estimate != Fixed() or request.own_n:
        raise UserError("a program counts classes at N samples: it knows no --tolerance and no soft certificate")
    if args.file.exists():
        raise UserError(f"{args.file}: already exists; choose another file or move it away")

    with needed_for("a program in a file"):
        import flatbuffers  # noqa: F401  JAX writes programs with it

    from qcrs_jax.convert.flags import opening_of, print_notes
    from qcrs_jax.convert.load import open_classifier

    from qcrs_jax.certification.export import export_certification

    opening = opening_of(args, "none" if args.macer else args.normalization)
    classifier = open_classifier(args.checkpoint, opening)
    print_notes(args.checkpoint, classifier)
    spec = classifier.spec
    program = export_certification(
        classifier.inference(args.platforms[0] if len(args.platforms) == 1 else None, args.dtype),
        spec.image_shape,
        search=request.search,
        n=request.n,
        alpha=request.alpha,
        batch_size=args.batch,
        platforms=args.platforms,
    )
    with writing(args.file):
        with output(args.file) as file:
            file.write(program.serialize())
    print(
        f"{args.checkpoint} -> {args.file}: {spec.arch}, normalisation {spec.mean} / {spec.std}, for "
        f"{', '.join(args.platforms)}; {args.file.stat().st_size / 1e6:.1f} MB"
    )
    shape = ", ".join(map(str, spec.image_shape))
    print(f"call(image float32 ({shape}), key uint32 (2,), sigma float32, n0 int32, n int32)")
