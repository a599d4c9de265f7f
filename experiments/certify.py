"""Certify a data set: the L2 radius of every image, by QCRS, DDRS or at a fixed sigma.

CHECKPOINT is a directory that `qcrs-jax convert` wrote or a PyTorch file. RESULTS is a tab-separated file, one line
an image, with a sidecar RESULTS.json. A run that was stopped goes on when the same command is given again.

  qcrs-jax certify models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar cifar_exp --sigma 0.25 \\
      --left 0.08 --right 0.9 --epsilon 0.03
"""

import argparse
import dataclasses
import re
from pathlib import Path

from qcrs_jax.errors import UserError

from .arguments import share
from .guarantees import add_guarantee_arguments, guarantee_options, shared_alpha
from .runner import Task, add_input_arguments, add_program_arguments, check_arguments, one_record, run_over_images


def add_arguments(parser):
    add_input_arguments(parser)
    add_method_arguments(parser)
    add_guarantee_arguments(parser)
    add_program_arguments(parser)


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


def run(args):
    from . import table

    request = check(args)  # before anything slow is imported or read
    path = certify_dataset(request, args)
    if path is None:  # the first of the hosts has it
        return
    print()
    table.print_tables([path])
    if request.qcrs and request.qcrs.search == "bayesian":
        print(widened(request, path))


def widened(request: "Request", path: Path) -> str:
    """Says for how many images of the results the search went beyond its bracket."""
    from qcrs_jax.records import read_run

    records, settings = read_run(path).records, request.qcrs
    rounding = 1e-6 * settings.sigma_upper
    lower, upper = settings.sigma_lower - rounding, settings.sigma_upper + rounding
    below, above = sum(r.sigma < lower for r in records), sum(r.sigma > upper for r in records)
    return (
        f"The bracket {settings.sigma_lower:g} to {settings.sigma_upper:g} was widened where its end was best: sigma "
        f"lies below it for {below} and above it for {above} of {len(records)} images."
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
    options: dict  # what else `certify` is told: of samples, bounds and the soft certificate; empty for none of them
    simultaneous: dict | None = None  # the "alpha" of all "images" together, of which each has its part
    budget: dict | None = None  # how many certification samples an image has in the "mean", up to image "max"
    stop_when_wrong: bool = False

    @property
    def search(self):
        """What chooses sigma; None keeps it fixed."""
        return self.qcrs or self.ddrs


def check(args) -> Request:
    """The checked request of the command's arguments.

    Raises:
        UserError: an impossible request; says which and what would be possible.
    """
    from qcrs_jax.certificate import check_request
    from qcrs_jax.ddrs import DDRS, PRESETS
    from qcrs_jax.sampling import SOFT_ONE
    from qcrs_jax.sigma import QCRS

    check_arguments(args)
    options = guarantee_options(args) | ({} if args.tolerance is None else {"tolerance": args.tolerance})
    if args.certificate == "soft":
        options |= {"certificate": "soft", "beta": 16.0 if args.beta is None else args.beta}
        if isinstance(args.batch, int) and args.batch > SOFT_ONE:
            raise UserError(f"--batch {args.batch}: soft votes are summed exactly for {SOFT_ONE} at most")
    elif args.beta is not None:
        raise UserError("--beta is of the soft certificate; give --certificate soft with it")
    n = args.N if args.budget is None else args.budget
    if args.budget is not None and {"tolerance", "sequential", "certificate"} & set(options):
        raise UserError("--budget decides an image's samples; it goes with hard certificates of these samples alone")
    try:
        check_request(args.sigma, args.N0, n, args.alpha, labels=args.stop_when_wrong, **options)
        if args.method == "cohen" and "sequential" in options:
            options["sequential"].check_reach(args.sigma, n, args.alpha)
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
    except ValueError as error:
        message = str(error)
        flags = _FLAGS | ({name: f"--ddrs_{name}" for name in _DDRS_FLAGS} if args.method == "ddrs" else {})
        for name, flag in flags.items():
            message = re.sub(rf"\b{name}\b", flag, message)
        raise UserError(f"impossible request: {message}") from error
    numbers = (args.method, args.sigma, args.N0, n, args.alpha, args.seed, args.skip)
    budget = None if args.budget is None else {"mean": args.budget, "max": args.max}
    return Request(*numbers, qcrs, ddrs, options, budget=budget, stop_when_wrong=args.stop_when_wrong)


def certify_dataset(request: Request, args) -> Path | None:
    """Certifies the data set; returns what `run_over_images` does, and raises what it raises."""
    from .budget import plan

    plans = plan(request, args) if request.budget else None
    return run_over_images(lambda m: task(request_of(request, m, args), plans), args)


def request_of(request: Request, images: int, args) -> Request:
    """The request of each of the run's images."""
    return shared_alpha(request, images) if args.simultaneous else request


def recorded_numbers(request: Request) -> dict:
    """The request as a sidecar has it: without what was not asked."""
    numbers = dataclasses.asdict(request)
    numbers |= numbers.pop("options")
    return {name: v for name, v in numbers.items() if v or name not in ("simultaneous", "budget", "stop_when_wrong")}


def task(request: Request, plans: dict | None) -> Task:
    """What is done at each image, and recorded. `plans`, by index: what was found out of it before."""
    from qcrs_jax.records import columns_of

    numbers = recorded_numbers(request)

    def start(classify, images, **program):
        return certify_image(request, classify, images, wait=False, **program)

    def records(index, label, seconds, certificate):
        found = fields(request, certificate)
        if plans:
            found["search_samples"] = plans[index].search_samples
            seconds += plans[index].seconds
        return one_record(index, label, seconds, found)

    def own(indices, labels):
        import numpy as np

        known = {"labels": labels} if request.stop_when_wrong else {}
        if plans:
            known["sigma"] = np.array([plans[index].sigma for index in indices], np.float32)
            known["n"] = np.array([plans[index].n for index in indices])
        return known

    recorded = []
    if "certificate" in numbers:
        numbers["votes"] = VOTES
        recorded += ["pb_upper", "sums0", "sums", "squares"]
    if {"tolerance", "budget", "stop_when_wrong"} & set(numbers):
        recorded += ["n"]
    if "sequential" in numbers:
        recorded += ["n", "radius_upper"] + ["robust"] * (request.options["sequential"].decide is not None)
    if "bound" in numbers:
        recorded += ["u"]
    score = ("ACR", lambda record: record.correct * record.radius)
    even = "n" not in recorded
    return Task(numbers, start, records, score, file={"columns": columns_of(recorded)}, even=even, own=own)


def certify_image(request: Request, classify, image, **program):
    """The certificate that is requested of one image, or of several; `program` has the other arguments of `certify`.

    Where it has sigma, that was searched before.
    """
    from qcrs_jax import certify

    search = None if "sigma" in program else request.search
    numbers = {"sigma": request.sigma, "n0": request.n0, "n": request.n, "alpha": request.alpha, "search": search}
    return certify(classify, image, **{**numbers, **request.options, **program})


def search_samples(request: Request, trace) -> int:
    """Noisy copies spent on the choice of sigma; DDRS differentiates on each of its own."""
    if trace is None:
        return 0
    if request.qcrs:
        return int(trace.evaluations) * request.qcrs.search_n
    return request.ddrs.samples if request.ddrs else 0


def fields(request: Request, certificate) -> dict:
    """A certificate as fields of a Record, in Python's own numbers."""
    found = {
        "predict": int(certificate.prediction),
        "radius": float(certificate.radius),
        "sigma": float(certificate.sigma),
        "pa_lower": float(certificate.pa_lower),
        "search_samples": search_samples(request, certificate.search),
        "counts0": tuple(certificate.counts0.tolist()),
        "counts": tuple(certificate.counts.tolist()),
    }
    if {"tolerance", "sequential"} & set(request.options) or request.budget or request.stop_when_wrong:
        found["n"] = int(certificate.n)
    if certificate.radius_upper is not None:
        found["radius_upper"] = float(certificate.radius_upper)
    if certificate.robust is not None:
        found["robust"] = int(certificate.robust)
    if certificate.u is not None:
        found["u"] = float(certificate.u)
    if votes := certificate.soft:
        found["pb_upper"] = float(votes.pb_upper)
        found |= {name: tuple(getattr(votes, name).tolist()) for name in ("sums0", "sums", "squares")}
    return found
