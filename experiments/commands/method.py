"""What is asked of a certification: its flags, and the checked numbers that they stand for."""

import argparse
import dataclasses

from qcrs_jax.errors import SettingError, UserError

from ..run.request import Request
from .flags import check_arguments, share
from .guarantee import asked_estimate


def add_method_arguments(parser):
    add = parser.add_argument_group("method").add_argument
    add(
        "--method",
        choices=["cohen", "qcrs", "ddrs"],
        default="qcrs",
        help="fixed sigma, or sigma per input, by a search or by gradient ascent (default: qcrs)",
    )
    add("--sigma", type=float, required=True, help="noise level that the classifier was trained at")
    add(
        "--search",
        choices=["golden", "bisection", "shrinking", "grid", "bayesian"],
        default="golden",
        help="QCRS: golden section with common random numbers, bisection as published, the published program's ascent "
        "by shrinking strides, all sigmas EPSILON apart, or Bayesian optimisation on all counts together, which may "
        "widen the bracket (default: golden)",
    )
    add(
        "--objective",
        choices=["predictive", "lcb"],
        help="QCRS: what a search compares: the radius that N samples can be expected to certify, or, as published, "
        "the lower bound by the search's own samples (default: predictive, lcb for bisection and shrinking)",
    )
    add("--evaluations", type=int, default=15, help="QCRS bayesian: evaluations at most (default: 15)")
    add("--left", type=float, help="QCRS, DDRS: lower end of the bracket of sigmas (default: 0.25 SIGMA)")
    add("--right", type=float, help="QCRS, DDRS: upper end (default: 3.5 SIGMA)")
    add("--epsilon", type=float, help="QCRS: width of the bracket at which to stop (default: 0.1 SIGMA)")
    add(
        "--epsilon_step",
        type=float,
        default=0.4,
        help="QCRS bisection and shrinking: the central difference steps EPSILON / EPSILON_STEP to either side "
        "(default: 0.4)",
    )
    add("--gradient_n", type=int, default=500, help="QCRS: samples for each evaluation of the search (default: 500)")
    add(
        "--ddrs_preset",
        choices=["tuned", "paper", "package", "qcrs"],
        default="tuned",
        help="DDRS: settings of the ascent: ours, the paper's, those of its authors' package, or of the baseline in "
        "QCRS's repository; the flags below change single ones (default: tuned)",
    )
    add("--ddrs_steps", type=int, help="DDRS: steps of the ascent (tuned: 30)")
    add("--ddrs_draws", type=int, help="DDRS: noisy copies for each step (tuned: 100)")
    add("--ddrs_step_size", type=float, help="DDRS: sigma moves by this times the gradient (tuned: 0.02)")
    add(
        "--ddrs_decay",
        action=argparse.BooleanOptionalAction,
        help="DDRS: whether the step size falls to zero along half a cosine (tuned: yes)",
    )
    add("--ddrs_start", type=float, help="DDRS: the sigma to start from (tuned: SIGMA)")
    add("--ddrs_clamp", type=float, help="DDRS: probabilities are kept this far from 0 and 1 (tuned: 0.001)")
    add(
        "--certificate",
        choices=["hard", "soft"],
        default="hard",
        help="of the class that most copies fall into, or, as MACER's, of the largest mean softmax (default: hard)",
    )
    add("--beta", type=float, help="soft: inverse temperature of the softmax (default: 16)")
    add("--N0", type=int, default=100, help="samples that select the class (default: 100)")
    add("--N", type=int, default=100_000, help="samples that certify it (default: 100000)")
    add("--alpha", type=float, default=0.001, help="failure probability of each certificate (default: 0.001)")
    add(
        "--tolerance",
        type=share,
        metavar="SHARE",
        help="give each image as few of the N samples as can be expected, by its N0 selection samples, to keep its "
        "radius within SHARE of that of N, as 1%% or 0.01; the guarantee stays (default: N samples for all)",
    )
    add(
        "--budget",
        type=int,
        metavar="MEAN",
        help="instead of N samples for all, MEAN on average, spent where they can be expected to add most radius: all "
        "images are searched and looked at first, in RESULTS.pilot; the guarantee stays",
    )
    add(
        "--stop_when_wrong",
        action="store_true",
        help="draw no certification samples for an image whose selected class is not its label; it counts as an "
        "abstention. For evaluations, whose ACR and certified accuracy stay the same",
    )


_FLAGS = {
    "sigma_lower": "--left",
    "sigma_upper": "--right",
    "tolerance": "--epsilon",
    "search_n": "--gradient_n",
    "epsilon_step": "--epsilon_step",
    "max_evaluations": "--evaluations",
}


_DDRS_FLAGS = {name: f"--ddrs_{name}" for name in ("steps", "draws", "step_size", "decay", "start", "clamp")}


def check(args) -> Request:
    """The checked request of the command's arguments.

    Raises:
        UserError: an impossible request; says which and what would be possible.
    """
    import numpy as np

    from qcrs_jax.certification.certificate import check_request, check_search
    from qcrs_jax.sampling.counts import SOFT_ONE

    check_arguments(args)
    n = args.N if args.budget is None else args.budget
    try:
        estimate = asked_estimate(args)
        check_request(args.sigma, args.N0, n, args.alpha, estimate, args.stop_when_wrong)
        if args.method == "cohen":
            estimate.check_reach(args.sigma, n, args.alpha)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"impossible request: {error}") from error
    try:
        search = asked_search(args)
        check_search(search, args.sigma)
    except SettingError as error:
        flags = _FLAGS | (_DDRS_FLAGS if args.method == "ddrs" else {})
        raise UserError(f"impossible request: {error.named(flags)}") from error
    except ValueError as error:
        raise UserError(f"impossible request: {error}") from error
    if args.budget is not None:
        try:
            estimate.check(args.N0, np.array([n]), args.alpha, args.stop_when_wrong)
        except ValueError as error:
            raise UserError(
                "--budget decides an image's samples; it goes with hard certificates of these samples alone"
            ) from error
    if estimate.votes_beta is not None and isinstance(args.batch, int) and args.batch > SOFT_ONE:
        raise UserError(f"--batch {args.batch}: soft votes are summed exactly for {SOFT_ONE} at most")
    numbers = (args.method, args.sigma, args.N0, n, args.alpha, args.seed, args.skip)
    budget = None if args.budget is None else {"mean": args.budget, "max": args.max}
    return Request(*numbers, search, estimate, budget=budget, stop_when_wrong=args.stop_when_wrong)


def asked_search(args):
    """The search for sigma that the command's arguments ask for.

    Raises:
        ValueError: a setting of it is out of its range.
    """
    from qcrs_jax.search import DDRS, SEARCHES, FixedSigma
    from qcrs_jax.search.ddrs import PRESETS

    if args.method == "cohen":
        return FixedSigma()
    ends = (
        0.25 * args.sigma if args.left is None else args.left,
        3.5 * args.sigma if args.right is None else args.right,
    )
    if args.method == "ddrs":
        asked = {name: getattr(args, f"ddrs_{name}") for name in _DDRS_FLAGS}
        return DDRS(*ends, **PRESETS[args.ddrs_preset] | {name: v for name, v in asked.items() if v is not None})
    kind = SEARCHES[args.search]
    asked = {
        "tolerance": 0.1 * args.sigma if args.epsilon is None else args.epsilon,
        "search_n": args.gradient_n,
        "epsilon_step": args.epsilon_step,
        "alpha": args.alpha,
        "objective": args.objective,
        "max_evaluations": args.evaluations,
    }
    own = {field.name for field in dataclasses.fields(kind)}
    if args.objective == "lcb" and "objective" not in own:
        raise ValueError(f"--search {args.search} compares expected radii; it has no --objective")
    return kind(*ends, **{name: value for name, value in asked.items() if name in own and value is not None})
