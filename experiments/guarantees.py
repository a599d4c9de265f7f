"""What a certificate's guarantee is spent on: the flags of sequential estimation, of the bound, and of alpha."""

import dataclasses

from qcrs_jax.errors import UserError

from .arguments import share


def add_guarantee_arguments(parser):
    add = parser.add_argument_group("guarantee").add_argument
    add(
        "--decide",
        type=float,
        metavar="RADIUS",
        help="sample until it is known whether the image is certifiably robust at RADIUS, at most N times: the column "
        "robust says 1, wrongly with probability at most ALPHA, or 0, wrongly with probability at most DECIDE_BETA, or "
        "-1 where N samples could not decide",
    )
    add(
        "--precision",
        type=share,
        metavar="SHARE",
        help="sample until the radius is known within SHARE of it, as 5%% or 0.05, at most N times",
    )
    add(
        "--decide_beta",
        type=float,
        metavar="BETA",
        help="decide, precision: failure probability of the upper bounds (default: ALPHA)",
    )
    add(
        "--sequence",
        choices=["union", "betting", "stages", "fixed"],
        help="decide, precision: bounds that hold at all looks at once: by a union bound over geometric looks, by "
        "betting, over looks at N / 100, N / 10 and N, or one look at N (default: union)",
    )
    add("--look_every", type=int, metavar="K", help="decide, precision: samples between looks at least (default: 50)")
    add(
        "--bound",
        choices=["clopper-pearson", "randomised"],
        default="clopper-pearson",
        help="of the probability; the randomised one is larger, and fails with probability ALPHA exactly; the number "
        "that randomises it is drawn from the image's key and recorded (default: clopper-pearson)",
    )
    add(
        "--simultaneous",
        action="store_true",
        help="give each of the run's M images ALPHA / M: all certificates hold at once with probability 1 - ALPHA",
    )


NOT_ASKED = {
    **dict.fromkeys(("decide", "precision", "decide_beta", "sequence", "look_every")),
    "bound": "clopper-pearson",
    "simultaneous": False,
}
"""What these flags say in commands that have none of them."""


def asked_estimate(args):
    """The estimate that the flags ask for.

    Raises:
        UserError: flags out of range, or that do not go together.
    """
    from qcrs_jax.certification.estimates import Fixed, Soft, Tolerance

    kinds = {
        "--decide or --precision": _sequential(args),
        "--tolerance": None if args.tolerance is None else Tolerance(args.tolerance, args.bound),
        "--certificate soft": Soft(16.0 if args.beta is None else args.beta) if args.certificate == "soft" else None,
    }
    if args.beta is not None and args.certificate != "soft":
        raise UserError("--beta is of the soft certificate; give --certificate soft with it")
    asked = {flag: estimate for flag, estimate in kinds.items() if estimate is not None}
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} are different ways to certify; choose one")
    (estimate,) = asked.values() or (Fixed(args.bound),)
    if args.bound != NOT_ASKED["bound"] and not hasattr(estimate, "bound"):
        raise UserError(
            f"--bound {args.bound} is of a number of samples that is fixed beforehand, not of {next(iter(asked))}"
        )
    return estimate


def _sequential(args):
    """The sequential estimation that the flags ask for, or None."""
    from qcrs_jax.certification.sequential import Sequential

    given = {"beta": args.decide_beta, "sequence": args.sequence, "step": args.look_every}
    given = {name: value for name, value in given.items() if value is not None}
    if args.decide is None and args.precision is None:
        if given:
            raise UserError("--decide_beta, --sequence and --look_every go with --decide or --precision; give one")
        return None
    try:
        return Sequential(decide=args.decide, precision=args.precision, **given)
    except ValueError as error:
        raise UserError(f"impossible request: {error}") from error


def shared_alpha(request, images: int):
    """The request of each of `images` images whose certificates are to hold at once: alpha / images.

    Raises:
        UserError: nothing could be certified so.
    """
    from qcrs_jax.certification.certificate import check_request

    alpha = request.alpha / images
    try:
        check_request(request.sigma, request.n0, request.n, alpha, request.estimate)
        if request.search.keeps_sigma:
            request.estimate.check_reach(request.sigma, request.n, alpha)
    except ValueError as error:
        raise UserError(f"--simultaneous, {images} images: {error}") from error
    return dataclasses.replace(request, alpha=alpha, simultaneous={"alpha": request.alpha, "images": images})
