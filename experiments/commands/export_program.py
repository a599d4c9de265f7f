"""Write the whole certification of an image as one program, which runs where only JAX is installed.

FILE holds the network with its weights, the search for sigma, and the sampling, for every platform that is named. n0, n
and sigma are arguments of the program. The documentation explains, on a page of its own, how to call it and how radii
follow from its counts.
"""

from pathlib import Path

from qcrs_jax.extras import needed_for

from ..run.settings import Network, Program
from .flags import OPENING, Parser, add_settings, settings_of
from .method import add_request, refuse_auto_noise, request_of


def add_arguments(parser: Parser) -> None:
    add_settings(parser, Network, "checkpoint")
    add = parser.add_argument
    add("file", metavar="FILE", type=Path, help="program to write")
    add(
        "--platforms",
        nargs="+",
        default=["cpu", "cuda", "rocm", "tpu"],
        choices=["cpu", "cuda", "rocm", "tpu"],
        help="platforms on which it is to run (default: all)",
    )
    add_request(parser, images=False)
    program = parser.add_argument_group("program")
    add_settings(program, Program, "")
    program.add_argument("--batch_size", "--batch", type=int, metavar="B", help="noisy copies per forward pass")
    add_settings(program, Network, "denoiser dtype macer")
    add_settings(parser.add_argument_group("facts that a PyTorch file does not state"), Network, OPENING)


def run(args) -> None:
    from qcrs_jax import Fixed
    from qcrs_jax.errors import SettingError, UserError

    refuse_auto_noise(args)
    request, network = request_of(args), settings_of(Network, args)
    batch = settings_of(Program, args).batch_size
    if not isinstance(request.estimate, Fixed) or request.estimate.randomises or request.plans_n or request.at_once:
        raise SettingError("a program counts classes at N samples: it knows no {tolerance} and no soft certificate")
    if args.file.exists():
        raise UserError(f"{args.file}: already exists; choose another file or move it away")

    from qcrs_jax.convert.load import open_classifier

    with needed_for("a program in a file"):
        import flatbuffers  # noqa: F401  JAX writes programs with it

    from qcrs_jax.certification.export import export_certification
    from qcrs_jax.files import output, writing

    from ..run.inputs import behind, opening_of, print_notes

    classifier = behind(network.denoiser, open_classifier(network.checkpoint, opening_of(network)))
    print_notes(network.checkpoint, classifier)
    spec = classifier.spec
    program = export_certification(
        classifier.inference(args.platforms[0] if len(args.platforms) == 1 else None, network.dtype),
        spec.image_shape,
        search=request.search,
        noise=request.noise,
        n=request.n,
        alpha=request.alpha,
        estimate=request.estimate,
        batch_size=batch,
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
