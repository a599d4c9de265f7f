"""Attack the images of a finished run: an upper bound of the true radius beside each certified one.

For each image with a correct certificate it looks for the nearest image, in L2, that is answered otherwise: by gradient
ascent through soft votes, at several distances. An answer counts as changed only if fresh samples show it. `qcrs-jax
table RESULTS ATTACKS` and `qcrs-jax plot RESULTS ATTACKS` show the gap between certified and attacked. Runs resume:
repeat the command.

--method is the classifier that is attacked:

  cohen   smoothed with the sigma of the image's certificate, held fixed. That is what it is about, so inside
          its radius the attack fails, but for alpha
  frozen  the rule that searches sigma anew at every input. No certificate is about it, and inside the radius the attack
          may succeed
  cascade the cascade, of a run of one. Its certificates are about it, so inside their radius the attack fails

An image that the attack does not change is not thereby robust. A gradient on a CPU is slow: an image takes about a
minute. Fewer --attempts, --restarts, --steps or --draws are faster, and weaker.

  qcrs-jax attack results.tsv attacks.tsv
  qcrs-jax attack results.tsv frozen.tsv --method frozen --n 10000
"""

import dataclasses
from pathlib import Path

from qcrs_jax.errors import UserError

from ..run.settings import IN_MEMORY, Noise, Program
from .flags import Parser, add_object, add_settings, given_fields, possible, settings_of


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("results", metavar="RESULTS", type=Path, help="finished results file of `qcrs-jax certify`; it stays as it is")
    add("out", metavar="ATTACKS", type=Path, help="file of attacks to write or resume, best in the folder of RESULTS")
    method = parser.add_argument_group("method")
    method.add_argument(
        "--method",
        metavar="NAME",
        help="the classifier that is attacked (default: cascade for a run of a cascade, else cohen)",
    )
    method.add_argument(
        "--n", "--N", dest="n", type=int, metavar="N", help="samples of each check (default: the run's)"
    )
    method.add_argument(
        "--alpha", type=float, help="failure probability of all checks of an image together (default: the run's)"
    )
    parser.late(lambda _: _add_attack(method))
    program = parser.add_argument_group("program")
    add_settings(program, Program, "batch_size devices")
    add_settings(program, Noise, "seed")
    places = parser.add_argument_group("present places of the run's inputs")
    places.add_argument("--checkpoint", type=Path, help="checkpoint (default: the recorded one)")
    places.add_argument("--denoiser", type=Path, help="denoiser before it (default: the recorded one)")
    places.add_argument("--data_dir", type=Path, help="data set (default: the recorded one)")
    places.add_argument(
        "--trust_paths", action="store_true", help="open the paths in the sidecar of RESULTS, wherever these lead"
    )


def _add_attack(group):
    from qcrs_jax.analysis.attack import Attack

    add_object(group, [Attack], {})


def run(args) -> None:
    from qcrs_jax.analysis.attack import Attack
    from qcrs_jax.results.attacks import read_runs_and_attacks

    from ..report.gaps import gap_text
    from ..run.attack import attack_dataset, request_of
    from ..verification.inputs import recorded_sweep
    from ..verification.trusted_paths import Where

    program = settings_of(Program, args)
    with possible():
        request, run = request_of(args.results, args.method, Attack(**given_fields(Attack, args)), args.n, args.alpha)
    network = run.sidecar["provenance"]["settings"].get("network", {})
    if args.checkpoint is None and str(network.get("checkpoint")).startswith(IN_MEMORY):
        raise UserError(
            f"{args.results}: was made by a program, of a classifier in its memory; `qcrs_jax.attack` there attacks "
            "its images one by one"
        )
    sweep = recorded_sweep(args.results, settings_of(Where, args, inputs=None, otherwise=""))
    data = dataclasses.replace(sweep.data, on_error="stop")
    noise = dataclasses.replace(sweep.noise, seed=args.seed)
    sweep = dataclasses.replace(sweep, data=data, noise=noise, program=program, results=args.out)
    if attack_dataset(request, run, sweep) is None:
        raise UserError("several hosts cannot share an attack")
    runs, attacks = read_runs_and_attacks([args.results, args.out])
    print()
    print(gap_text(runs, attacks), end="")
