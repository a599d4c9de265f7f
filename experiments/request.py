"""What is asked of a certification: its flags, and the checked numbers that they stand for."""

import argparse
import dataclasses
import re

from qcrs_jax.errors import UserError

from .arguments import check_arguments, share
from .guarantees import asked_estimate, shared_alpha


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


# Marks what a soft vote is, as `sampling.soft_votes` defines it. Another definition needs another mark.
VOTES = "softmax(beta logits) in units of 2**-15, logits in steps of 2**-10"

_FLAGS = {
    "sigma_lower": "--left",
    "sigma_upper": "--right",
    "tolerance": "--epsilon",
    "search_n": "--gradient_n",
    "max_evaluations": "--evaluations",
}
_DDRS_FLAGS = ("steps", "draws", "step_size", "decay", "start", "clamp")


@dataclasses.dataclass(frozen=True)
class Request:
    """The numbers of a run, checked."""

    method: str
    sigma: float
    n0: int
    n: int
    alpha: float
    seed: int
    skip: int
    qcrs: object  # a sigma.QCRS, or None
    ddrs: object  # a ddrs.DDRS, or None
    estimate: object  # how many of the n samples an image gets, and what follows: one of `qcrs_jax.estimates`
    simultaneous: dict | None = None  # the "alpha" of all "images" together, of which each has its part
    budget: dict | None = None  # how many certification samples an image has in the "mean", up to image "max"
    stop_when_wrong: bool = False

    @property
    def own_n(self) -> bool:
        """Whether an image's number of samples is decided before they are drawn, outside the estimate."""
        return bool(self.budget) or self.stop_when_wrong

    @property
    def search(self):
        """What chooses sigma; None keeps it fixed."""
        return self.qcrs or self.ddrs


def check(args) -> Request:
    """The checked request of the command's arguments.

    Raises:
        UserError: an impossible request; says which and what would be possible.
    """
    import numpy as np

    from qcrs_jax.certificate import check_request, check_search
    from qcrs_jax.ddrs import DDRS, PRESETS
    from qcrs_jax.sampling import SOFT_ONE
    from qcrs_jax.sigma import QCRS

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
        qcrs = ddrs = None
        bracket = {
            "sigma_lower": 0.25 * args.sigma if args.left is None else args.left,
            "sigma_upper": 3.5 * args.sigma if args.right is None else args.right,
        }
        if args.method == "ddrs":
            asked = {name: getattr(args, f"ddrs_{name}") for name in _DDRS_FLAGS}
            changed = {name: value for name, value in asked.items() if value is not None}
            ddrs = DDRS(**bracket, **{**PRESETS[args.ddrs_preset], **changed})
        if args.method == "qcrs":
            qcrs = QCRS(
                **bracket,
                tolerance=0.1 * args.sigma if args.epsilon is None else args.epsilon,
                search=args.search,
                search_n=args.gradient_n,
                epsilon_step=args.epsilon_step,
                alpha=args.alpha,
                objective=args.objective,
                max_evaluations=args.evaluations,
            )
        check_search(qcrs or ddrs, args.sigma)
    except ValueError as error:
        message = str(error)
        flags = _FLAGS | ({name: f"--ddrs_{name}" for name in _DDRS_FLAGS} if args.method == "ddrs" else {})
        for name, flag in flags.items():
            message = re.sub(rf"\b{name}\b", flag, message)
        raise UserError(f"impossible request: {message}") from error
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
    return Request(*numbers, qcrs, ddrs, estimate, budget=budget, stop_when_wrong=args.stop_when_wrong)


def request_of(request: Request, images: int, args) -> Request:
    """The request of each of the run's images."""
    return shared_alpha(request, images) if args.simultaneous else request


def recorded_numbers(request: Request) -> dict:
    """The request as a sidecar has it: without what was not asked."""
    numbers = {**dataclasses.asdict(request), **request.estimate.recorded()}
    del numbers["estimate"]
    return {name: v for name, v in numbers.items() if v or name not in ("simultaneous", "budget", "stop_when_wrong")}
