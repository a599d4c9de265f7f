"""Our sampler and PyTorch on the same GPU: rates, shares, memory, and the time to the first certificate."""

import gc
import os
import statistics

from qcrs_jax.errors import UserError

from .networks import NETWORKS, Network
from .sides import Clock, Result, compare, rate
from .theirs import COMPILERS

SHARE_SECONDS = 25.0  # expected time of the parts after the comparison


def run(
    networks: list[str],
    tries: list[str],
    batches: list[int] | None,
    seconds: float,
    turns: int,
    minutes: float | None,
) -> None:
    """`qcrs-jax benchmark` on a GPU: prints a table for each network."""
    tried = axes_of(tries)
    whole = Clock(minutes and 60 * minutes)
    for place, name in enumerate(networks):
        clock = Clock(None if minutes is None else whole.left() / (len(networks) - place))
        axes = ({"batch": tuple(batches)} if batches else {}) | tried
        for text in measure(NETWORKS[name], seconds, turns, clock=clock, report=print, **axes):
            print(text, flush=True)


_YES_OR_NO = {"no": False, "yes": True}
AXES = {
    **dict.fromkeys(("batch", "images"), int),
    "joined": lambda word: tuple(int(columns) for columns in word.split("x") if word != "none"),
    **dict.fromkeys(("unrolled", "packed", "folded"), _YES_OR_NO.__getitem__),
    "layout": {name: name for name in ("free", "nhwc", "nchw")}.__getitem__,
    "compiler": {name: name for name in COMPILERS}.__getitem__,
    "weights": {name: name for name in ("bfloat16", "autocast")}.__getitem__,
}


def axes_of(words: list[str]) -> dict[str, tuple]:
    """The values to try of each option, from words such as joined=none,2x2.

    Raises:
        UserError: no such option, or no such value of it.
    """
    found = {}
    for word in words:
        name, _, values = word.partition("=")
        try:
            found[name] = tuple(AXES[name](value) for value in values.split(","))
        except (KeyError, ValueError) as error:
            raise UserError(
                f"--try {word}: cannot be parsed ({error}); write for example batch=1024,2048 joined=none,2,2x2 "
                "images=1,4 unrolled=no,yes layout=free,nhwc compiler=default,reduce-overhead weights=bfloat16"
            ) from error
    return found


def share_the_card() -> None:
    """Makes JAX leave unused memory to PyTorch. Call it before JAX uses the device."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def sides_of(network: Network, device, theirs_on, only=None, **axes) -> list:
    """The sides that are compared, the most important first.

    theirs_on: PyTorch's device; None to leave PyTorch out.
    only: names of the sides to compare; None for all.
    axes: values of options to try instead of the usual ones.
    """
    from . import ours, theirs

    classifier = network.classifier()

    def some(*names):
        return {name: axes[name] for name in names if name in axes}

    own, eager = some("batch", "joined", "unrolled", "packed", "images", "layout"), some("batch")
    compiled = some("batch", "compiler", "folded")
    few = some("weights")
    wanted = [ours.side(network, classifier, device, "qcrs_jax, bfloat16", "bfloat16", None, **own)]
    if theirs_on is not None:
        wanted.append(theirs.eager(network, theirs_on, "PyTorch eager, bfloat16", "bfloat16", **eager))
        wanted.append(theirs.compiled(network, theirs_on, "torch.compile, bfloat16", "bfloat16", **compiled, **few))
    wanted.append(ours.side(network, classifier, device, "qcrs_jax, float32", "float32", None, **own))
    if theirs_on is not None:
        wanted.append(theirs.eager(network, theirs_on, "PyTorch eager, float32 (TF32)", "float32", **eager))
        wanted.append(theirs.compiled(network, theirs_on, "torch.compile, float32 (TF32)", "float32", **compiled))
    wanted.append(ours.side(network, classifier, device, "qcrs_jax, float32, highest", "float32", "highest", **own))
    return [side for side in wanted if only is None or side.name in only]


def measure(
    network: Network,
    seconds: float,
    turns: int,
    *,
    kind: str = "cuda",
    clock: Clock | None = None,
    report=lambda text: None,
    raw: dict | None = None,
    keep=lambda: None,
    first: bool = True,
    **axes,
):
    """Yields the results for a network, in markdown: the comparison, the shares, the time to the first certificate.

    kind: PyTorch's name of the device.
    raw: dict that receives all numbers.
    keep: function that is called whenever raw has changed.
    first: whether the time to the first certificate is measured.
    axes: arguments of `sides_of`: values of options, and `only`.
    """
    import jax

    from . import theirs

    clock, raw = clock or Clock(), {} if raw is None else raw
    device = jax.devices()[0]
    theirs_on, said = theirs.device_of(kind)
    if said:
        report(said)
        raw["torch"] = said
    sides = sides_of(network, device, theirs_on, **axes)

    def progress(results):
        raw["sides"] = [result.raw() for result in results]
        keep()

    reserve = Clock(None if clock.left() == float("inf") else max(0.0, clock.left() - SHARE_SECONDS))
    results = compare(sides, seconds=seconds, turns=turns, clock=reserve, report=progress)
    yield f"### {network.arch}, {network.shape[0]} x {network.shape[1]}, one device\n\n{table(results)}"
    yield ratios(results)
    own = results[0]
    for result in results[1:]:
        result.program = None
    gc.collect()
    if own.best is not None and clock.left() > SHARE_SECONDS / 4:
        raw["shares"] = shares(network, device, own.best.options, own.program, seconds)
        keep()
        yield describe_shares(raw["shares"])
    own.program = None
    theirs.free()
    if first and theirs_on is not None and clock.left() > 0.8 * SHARE_SECONDS:
        from .ours import first_certificate

        raw["first_certificate_seconds"] = first_certificate(network, device)
        keep()
        yield (
            f"From the PyTorch file to the first certificate by QCRS: {raw['first_certificate_seconds']:.1f} s, "
            "compilation included, after JAX has started."
        )
    stats = device.memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        raw["peak_bytes"] = stats["peak_bytes_in_use"]
        keep()
        yield f"Most memory that JAX has used in this process: {raw['peak_bytes'] / 2**30:.2f} GiB."


def table(results: list[Result]) -> str:
    """A table of the rates, in markdown."""
    lines = [
        "| side | samples/s | spread of turns | best options | compiled in | memory | trials |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for result in results:
        if result.best is None:
            errors = [trial.error for trial in result.trials if trial.error]
            why = result.left_out or (errors[0] if errors else "nothing was measured")
            lines.append(f"| {result.name} | left out: {why.replace('|', '/')} | | | | | {len(result.trials)} |")
            continue
        spread = f"{min(result.rates):,.0f} to {max(result.rates):,.0f}" if result.rates else "one trial"
        memory = "" if result.best.memory is None else f"{result.best.memory / 2**30:.2f} GiB"
        lines.append(
            f"| {result.name} | {result.rate:,.0f} | {spread} | {described(result.best.options)} | "
            f"{result.best.compile_seconds:.1f} s | {memory} | {len(result.trials)} |"
        )
    return "\n".join(lines)


def described(options: dict) -> str:
    """Options in words, without those of no effect."""
    return ", ".join(f"{name} {str(value).lower()}" for name, value in options.items() if value not in ("", None))


def ratios(results: list[Result]) -> str:
    """Ratios of our rates to theirs, by number format, from the same turns."""
    by_name, said = {result.name: result for result in results if result.best}, []
    for ours, theirs in (
        ("qcrs_jax, bfloat16", "torch.compile, bfloat16"),
        ("qcrs_jax, bfloat16", "PyTorch eager, bfloat16"),
        ("qcrs_jax, float32", "torch.compile, float32 (TF32)"),
        ("qcrs_jax, float32", "PyTorch eager, float32 (TF32)"),
    ):
        if ours in by_name and theirs in by_name:
            said.append(f"{ours} / {theirs}: {by_name[ours].rate / by_name[theirs].rate:.2f}")
    tried = [
        f"{result.name}: {described(trial.options)}: " + (trial.error or f"{trial.rate:,.0f}")
        for result in results
        for trial in result.trials
    ]
    return "\n".join([*(f"- {line}" for line in said), "", "Trials, samples/s:", "", *(f"- {line}" for line in tried)])


def shares(network: Network, device, options: dict, whole, seconds: float) -> dict:
    """Samples a second of our sampler in bfloat16 and of its parts: medians of alternating turns.

    options, whole: the best options, and the Program of the sampler with them.
    """
    from qcrs_jax.models.layers import Form

    from . import ours

    batch, images = options["batch"], options.get("images", 1)
    form = Form(options.get("joined", ()), options.get("unrolled", True), packed=options.get("packed", False))
    classify = network.classifier().inference(form, "bfloat16")
    programs = {
        "whole": whole,
        "network alone": ours.network_alone(classify, network, device, batch),
        "noise and counting alone": ours.sampler(ours.cheap(network.classes), network, device, batch, images),
    }
    rates = [{name: rate(program, seconds / 2) for name, program in programs.items()} for _ in range(3)]
    return {name: statistics.median(turn[name] for turn in rates) for name in programs}


def describe_shares(found: dict) -> str:
    """The shares in words."""
    whole = found["whole"]
    return (
        f"qcrs_jax, bfloat16: {whole:,.0f} samples/s in all, {found['network alone']:,.0f} of the network alone, "
        f"{found['noise and counting alone']:,.0f} of noise and counting alone (with a classifier that costs nothing). "
        f"Time that is not the network's: {1 - whole / found['network alone']:.1%}; noise and counting alone would "
        f"take {whole / found['noise and counting alone']:.1%}."
    )
