"""The experiments of the papers, each one command: runs, then tables and figures made from the results files alone.

Without NAME it lists them: the question of each, its source, the time it takes and the result to expect. Experiments
resume: repeat the command. --quick takes few images and samples. It shows that every step works, and nothing else.

  qcrs-jax experiment acr --out results/acr
  qcrs-jax experiment frontier frontier_cifar10
"""

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.extras import needed_for
from qcrs_jax.files import writing

from ..presets import PRESETS, describe

RUNS = ("certify", "predict", "curve")
"""Commands over images, which take time."""


def add_arguments(parser):
    parser.add_argument("names", metavar="NAME", nargs="*", help=", ".join(PRESETS))
    parser.add_argument(
        "--out", type=Path, help="folder of the results; for several experiments it holds a folder each (default: .)"
    )
    parser.add_argument("--base", type=Path, default=Path("."), help="folder of models, weights and data (default: .)")
    parser.add_argument("--quick", action="store_true", help="few images and samples, to see that every step works")
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="only print the runs that are left, with images, samples, time and memory of each, estimated by a "
        "measurement of some seconds for each network. Nothing is written",
    )


def run(args):
    if unknown := set(args.names) - set(PRESETS):
        raise UserError(f"unknown experiment {sorted(unknown)[0]!r}; known are {', '.join(PRESETS)}")
    if not args.names:
        print("\n\n".join(describe(name) for name in PRESETS))
        return
    if args.quick and args.out is None:
        raise UserError("--quick needs --out: its results must not be taken for those of the experiment")
    for name in args.names:
        out = args.out or Path(name)
        out = out / name if args.out and len(args.names) > 1 else out
        commands = commands_of(name, args.base.absolute(), args.quick)
        print(describe(name))
        print_costs(args.invoked.arguments_of, commands, out.absolute(), args.dry_run)
        if not args.dry_run:
            run_commands(args.invoked.main, commands, out)


def commands_of(name: str, base: Path, quick: bool) -> list[list[str]]:
    """The commands of an experiment, with models, weights and data below `base`, as their words."""
    found = []
    for command in PRESETS[name].commands:
        words = shlex.split(command.format(base=shlex.quote(str(base))))
        if quick and words[0] in RUNS:
            words += shlex.split(PRESETS[name].quick)
            words += ["--budget", "200"] if "--budget" in words else []
        found.append(words)
    return found


def print_costs(arguments_of: Callable, commands: list[list[str]], out: Path, each: bool) -> None:
    """Prints the cost of the runs among `commands`, whose results are in the folder `out`: the sum, or also `each`.

    arguments_of: the name of a command and its words -> its parsed arguments.

    Raises:
        UserError: one of them would be refused.
    """
    import contextlib
    import io

    from ..run.cost import NOTHING, THOROUGH, Estimates

    trained = {words[1] for words in commands if words[0] == "train"}
    later = [words for words in commands if words[0] == "train" or words[1] in trained]
    runs = [words for words in commands if words[0] in RUNS and words not in later]
    estimates = Estimates(THOROUGH, shared=True, waits=False) if each else Estimates(shared=True)
    total = NOTHING
    for name, *words in runs:
        args = arguments_of(name, words)
        args.results, args.dry_run, estimates.costs = out / args.results, estimates, []
        with contextlib.redirect_stdout(io.StringIO()):  # the run itself prints it again
            args.invoked.run(args)
        images = max(cost.images for cost in estimates.costs)  # a run of two passes has them twice
        cost = dataclasses.replace(sum(estimates.costs, NOTHING), images=images)
        if each:
            print(f"\nqcrs-jax {shlex.join([name, *words])}\n  {cost}", flush=True)
        total += cost
    if runs:
        print(f"\n{len(runs)} runs, in sum: {total}", flush=True)
    if later:
        print(f"\n{len(trained)} trainings, and the runs of their networks, whose cost is not estimated", flush=True)


def run_commands(main: Callable, commands: list[list[str]], out: Path) -> None:
    """Runs the commands of an experiment, one after another, in the folder `out`."""
    import contextlib

    with needed_for("an experiment"):  # before hours of work
        import matplotlib  # noqa: F401

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(out):
        for words in commands:
            for flag in {"--out", "--report"} & set(words):
                earlier = Path(words[words.index(flag) + 1])
                with writing(earlier):
                    earlier.unlink(missing_ok=True)
            print(f"\nqcrs-jax {shlex.join(words)}", flush=True)
            if status := main(words):
                raise SystemExit(status)
