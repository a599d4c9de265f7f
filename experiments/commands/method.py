"""The flags of a certification, made from the fields of searches and estimates, and the Request that they make."""

import argparse
import dataclasses
import textwrap

from ..run.settings import Images, Network, share
from .flags import Parser, add_object, add_settings, given_fields, possible, refuse, summary

SEARCH = {
    "sigma_lower": ("left",),
    "sigma_upper": ("right",),
    "search_n": ("gradient_n",),
    "max_evaluations": ("evaluations",),
}
"""The published names of settings of a search, and earlier ones."""
ENDS = ("sigma_lower", "sigma_upper")
ESTIMATE = {"alpha_upper": ("decide_beta",)}
AUTO = "auto"
BRACKET = {"sigma_lower": 0.25, "sigma_upper": 3.5, "epsilon": 0.1}
"""Defaults of a search, in multiples of the original sigma."""


def add_request(parser: Parser, auto: bool = False, cascade: bool = False, images: bool = True) -> None:
    """Adds the flags of a Request.

    auto: whether the bracket may be ended where accuracy under noise is lost.
    cascade: whether the method may be a cascade.
    images: whether the command reads images, which decide the noise by default.
    """
    group = parser.add_argument_group("method")
    add_settings(group, Images, "")  # which share a budget
    add = group.add_argument
    add("--sigma", type=float, required=not cascade, help="noise level that the classifier was trained at")
    more = "; cascade: one classifier of several sigmas"
    add(
        "--method",
        choices=["cohen", "qcrs", "ddrs", *["cascade"] * cascade],
        default="qcrs",
        metavar="NAME",
        help="cohen: one fixed sigma; qcrs: a sigma for each image, by a search; ddrs: the same, by gradient ascent"
        f"{more * cascade} (default: qcrs)",
    )
    if cascade:
        add_cascade(group, parser.screen("cascade", "cascade: the classifier of --method cascade"))
    add(
        "--search",
        default="golden",
        metavar="NAME",
        help="how qcrs searches: golden, bisection (as published), bayesian or another of --help-search (default: "
        "golden)",
    )
    add("--n", "--N", dest="n", type=int, default=100_000, metavar="N", help="samples that certify (default: 100000)")
    add("--alpha", type=float, default=0.001, help="error probability of a certificate (default: 0.001)")
    search = parser.screen("search", "search: settings of --method qcrs and ddrs")
    ascent = parser.screen("search", "ascent: the settings of --method ddrs")
    guarantee = parser.screen("guarantee", "guarantee: the number of samples, and the claim that they support")
    add_noise(parser.screen("guarantee", "noise: its kind, and the norm of the radii"), images)
    parser.late(lambda parser: _add_search(search, ascent, parser.names, auto), "search")
    parser.late(lambda _: _add_estimate(guarantee), "guarantee")


def add_cascade(group, stages) -> None:
    """Adds the flags of a cascade: its noise levels to `group`, the others to `stages`."""
    group.add_argument(
        "--sigmas",
        type=numbers,
        metavar="S1,S2,...",
        help="levels of a cascade (default: 1,0.5,0.25)",
    )
    stages.add_argument(
        "--tau",
        type=numbers,
        metavar="T1,T2,...",
        help="a stage answers a class whose radius exceeds its threshold; one number for all stages, or one for each "
        "(default: 0, a majority)",
    )
    add_settings(stages, Network, "stages")


def add_noise(group, images: bool = True) -> None:
    """Adds the flag of the noise that is added to images.

    images: whether the command reads images, which decide the noise by default; see `with_noise`.
    """
    group.add_argument(
        "--noise",
        default=AUTO if images else "gaussian",
        metavar="NAME",
        help="gaussian: normal noise in float32; grid: normal noise rounded to the grid of 8-bit images, which is "
        "exact; auto: grid for images of 8 bits a channel, gaussian for others; uniform: radii are in L1 (default: "
        f"{AUTO if images else 'gaussian'})",
    )


def noise_of(args: argparse.Namespace):
    """The noise of parsed arguments; normal noise in the place of auto. Raises SettingError for an unknown one."""
    from qcrs_jax.sampling import smoothing

    if args.noise == AUTO:
        return smoothing.GAUSSIAN
    return smoothing.noise_of({"smoothing": {"name": args.noise}})


def with_noise(args: argparse.Namespace, request, sweep):
    """`request` with the noise of parsed arguments, and the inputs of the run if they were opened for that, else None.

    Raises:
        UserError: the inputs cannot be opened.
    """
    if args.noise != AUTO:
        return request, None
    from ..run.noise_of_data import with_noise_of_data

    return with_noise_of_data(request, sweep)


def refuse_auto_noise(args: argparse.Namespace) -> None:
    """Raises SettingError for the noise auto, in a command that reads no images."""
    from qcrs_jax.errors import SettingError

    if args.noise == AUTO:
        raise SettingError("{noise} auto depends on images, and this command reads none; give grid or gaussian")


def _add_search(search, ascent, names, auto):
    from qcrs_jax.search import DDRS, SEARCHES
    from qcrs_jax.search.ddrs import PRESETS

    scaled = {"sigma_lower": "lower end of the bracket of sigmas", "sigma_upper": "upper end"}
    scaled |= {"epsilon": "width of the bracket at which the search stops; for grid, the distance between its sigmas"}
    texts = {name: f"{text} (default: {BRACKET[name]:g} SIGMA)" for name, text in scaled.items()}
    kinds = [kind for kind in SEARCHES.values() if kind.method == "qcrs"]
    if auto:
        texts["sigma_upper"] = (
            f"upper end; auto ends it where accuracy under noise is lost, which is measured before the run (default: "
            f"{BRACKET['sigma_upper']:g} SIGMA)"
        )
    add_object(search, kinds, SEARCH, texts, without=("alpha",))
    for action in search._group_actions:
        if action.dest == "sigma_upper" and auto:
            action.type = number_or_auto
    search.description = "\n".join(
        textwrap.fill(f"{kind.name:<10} {summary(kind)}", 76, initial_indent="  ", subsequent_indent=" " * 13)
        for kind in kinds
    )
    ascent.add_argument(
        "--ddrs_preset",
        choices=PRESETS,
        default="tuned",
        help="settings of the ascent. tuned: ours; paper: the paper's; package: those of its authors' package; qcrs: "
        "those of the baseline in QCRS's repository. The flags below change single settings (default: tuned)",
    )
    add_object(ascent, [DDRS], {}, prefix="ddrs_", without=ENDS)
    names["labels"] = "--stop_when_wrong"
    names |= {name: f"--ddrs_{name}" for name in _fields(DDRS) if name not in ENDS}


def numbers(text: str) -> tuple[float, ...]:
    """The numbers in "1,0.5,0.25"."""
    return tuple(float(part) for part in text.split(","))


numbers.__name__ = "numbers, with commas between,"  # as argparse calls them


def number_or_auto(text: str) -> float | str:
    """The number in `text`, or "auto"."""
    return AUTO if text == AUTO else share(text)


number_or_auto.__name__ = "number or auto"  # as argparse calls it


def _add_estimate(guarantee):
    from qcrs_jax.certification.estimates import BOUNDS, ESTIMATES
    from qcrs_jax.certification.sequential import SEQUENCES

    add = guarantee.add_argument
    add("--n0", "--N0", dest="n0", type=int, default=100, help="samples that select the class (default: 100)")
    add(
        "--certificate",
        choices=["hard", "soft"],
        default="hard",
        help="hard: certifies the class that most copies fall into; soft: the class with the largest mean softmax, as "
        "MACER does (default: hard)",
    )
    add_object(guarantee, ESTIMATES.values(), ESTIMATE)
    for action in guarantee._group_actions:
        action.choices = {"bound": tuple(BOUNDS), "sequence": SEQUENCES}.get(action.dest, action.choices)
    add(
        "--budget",
        type=int,
        metavar="MEAN",
        help="MEAN samples per image on average, instead of N for each, spent where they can be expected to add most "
        "radius. All images are first searched and sampled into RESULTS.pilot. The guarantee stays the same",
    )
    add(
        "--stop_when_wrong",
        action="store_true",
        help="draw no certification samples for an image whose selected class is not its label; it abstains. For "
        "evaluations: ACR and certified accuracy stay the same",
    )
    add(
        "--simultaneous",
        action="store_true",
        help="use ALPHA / M for each of the run's M images: all certificates hold together with probability 1 - ALPHA",
    )


DEFAULT_SIGMAS = (1.0, 0.5, 0.25)
"""The stages of a cascade."""


def cascade_of(args: argparse.Namespace):
    """The checked CascadeRequest of parsed arguments. Errors as for `request_of`."""
    from qcrs_jax.search import SEARCHES

    from ..run.cascade import CascadeRequest

    of_searches = [name for kind in SEARCHES.values() if kind.method == "qcrs" for name in _fields(kind)]
    others = dict.fromkeys([*_settings(), *of_searches, "sigma", "budget"])
    others |= dict.fromkeys(["stop_when_wrong"] * args.stop_when_wrong + ["certificate"] * (args.certificate != "hard"))
    refuse(args, [name for name in others if name != "alpha"], "does not go with {method} cascade; leave it out")
    with possible():
        cascade = given_cascade(args)
        request = CascadeRequest(cascade, args.n0, args.n, args.alpha, noise_of(args), args.simultaneous)
        request.check()
    return request


def given_cascade(args: argparse.Namespace):
    """The Cascade of parsed arguments.

    Raises:
        SettingError: a number is out of its range, or there is not one network for each stage.
    """
    from qcrs_jax.certification.cascade import Cascade
    from qcrs_jax.errors import SettingError

    sigmas = args.sigmas or DEFAULT_SIGMAS
    if args.stages and len(args.stages) + 1 != len(sigmas):
        raise SettingError(
            f"{{stages}} has {len(args.stages)} networks beside that of the first stage, and {{sigmas}} {len(sigmas)} "
            "stages; give one for each, or leave {stages} out"
        )
    return Cascade(sigmas, args.tau or 0.0)


def request_of(args: argparse.Namespace):
    """The checked Request of parsed arguments.

    Raises:
        UserError: the request is impossible; the message says why, and what would be possible.
    """
    from qcrs_jax.checks import check_sigma
    from qcrs_jax.errors import SettingError

    from ..run.request import Request

    if args.sigma is None:
        raise SettingError("required: {sigma}, the noise level that the classifier was trained at")
    to_collapse = args.sigma_upper == AUTO
    if to_collapse:
        args = argparse.Namespace(**{**vars(args), "sigma_upper": None})
    with possible():
        check_sigma(args.sigma)  # defaults of a search are multiples of it
        request = Request(
            sigma=args.sigma,
            n0=args.n0,
            n=args.n if args.budget is None else args.budget,
            alpha=args.alpha,
            search=_search(args),
            estimate=_estimate(args),
            noise=noise_of(args),
            stop_when_wrong=args.stop_when_wrong,
            budget=None if args.budget is None else {"mean": args.budget, "stop": args.stop},
            at_once=args.simultaneous,
            to_collapse=to_collapse and args.method != "cohen",
        )
        request.check()
    return request


def print_unused(args: argparse.Namespace, search) -> None:
    """Prints a note on the flags of other searches that were given beside those of `search`: they change nothing."""
    from qcrs_jax.search import DDRS, SEARCHES

    flags = {name: name for kind in SEARCHES.values() if kind.method == "qcrs" for name in _fields(kind)}
    flags |= {f"ddrs_{name}": name for name in _fields(DDRS) if name not in ENDS}
    own = "ddrs_" if search.method == "ddrs" else ""
    used = {*(f"{own}{name}" for name in _fields(type(search))), *ENDS, "alpha"}
    unused = [flag for flag in flags if flag not in used and vars(args)[flag] not in (None, "predictive")]
    if unused:
        said = ", ".join(args.invoked.names[flag] for flag in unused)
        chosen = args.search if args.method == "qcrs" else args.method
        print(f"note: without effect, because {chosen} has no such setting: {said}")


def _search(args):
    """The search for sigma of the arguments. Raises ValueError for a setting out of its range."""
    from qcrs_jax.errors import SettingError
    from qcrs_jax.search import DDRS, SEARCHES, FixedSigma
    from qcrs_jax.search.ddrs import PRESETS

    relative = {name: scale * args.sigma for name, scale in BRACKET.items()}
    if args.method == "cohen":
        return FixedSigma()
    if args.method == "ddrs":
        ends = {name: relative[name] if vars(args)[name] is None else vars(args)[name] for name in ENDS}
        return DDRS(**PRESETS[args.ddrs_preset] | given_fields(DDRS, args, "ddrs_", without=ENDS) | ends)
    kind = SEARCHES.get(args.search)
    if kind is None or kind.method != "qcrs":
        known = ", ".join(name for name, kind in SEARCHES.items() if kind.method == "qcrs")
        raise SettingError(f"{{search}} {args.search!r} is not known; known are {known}")
    own = {name: value for name, value in relative.items() if name in _fields(kind)}
    given = given_fields(kind, args) | ({"alpha": args.alpha} if "alpha" in _fields(kind) else {})
    if args.objective == "lcb" and "objective" not in _fields(kind):
        raise SettingError(f"{{search}} {args.search} compares expected radii; it has no {{objective}}")
    return kind(**own | given)


def _estimate(args):
    """The estimate of the arguments. Raises ValueError for arguments that do not go together."""
    from qcrs_jax.certification.estimates import ESTIMATES
    from qcrs_jax.errors import SettingError

    owners = {name: [kind for kind in ESTIMATES.values() if name in _fields(kind)] for name in _settings()}
    given = {name: value for name in owners if (value := vars(args)[name]) is not None}
    soft = args.certificate == "soft"
    if "beta" in given and not soft:
        raise SettingError("{beta} is of the soft certificate; give {certificate} soft with it")
    if ("alpha_upper" in given or "sequence" in given or "look_every" in given) and not {"decide", "precision"} & set(
        given
    ):
        raise SettingError("{alpha_upper}, {sequence} and {look_every} go with {decide} or {precision}; give one")
    kinds = [kind for kind in ESTIMATES.values() if (kind.name == "soft") == soft]
    fitting = [kind for kind in kinds if set(given) <= set(_fields(kind))]
    if not fitting:
        marks = [f"{{{name}}}" for name in ("decide", "precision", "tolerance", "bound") if name in given]
        marks += ["{certificate} soft"] * soft
        raise SettingError(f"{' and '.join(marks)} are different ways to certify; choose one")
    return fitting[0](**given)


def _fields(kind):
    """The names of the settings of a search or an estimate."""
    return [field.name for field in dataclasses.fields(kind)]


def _settings():
    """The names of all settings of estimates."""
    from qcrs_jax.certification.estimates import ESTIMATES

    return list(dict.fromkeys(name for kind in ESTIMATES.values() for name in _fields(kind)))
