"""The parts of the GPU check. Each takes a `report.Part` and reports its findings to it."""

import contextlib
import functools
import io
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from . import reference
from .report import Part, markdown, seconds_since
from .sides import Clock

ROOT = Path(__file__).resolve().parents[2]  # root of the checkout, if there is one


def devices():
    """JAX's first device, and a CPU of the same process; None if there is none."""
    import jax

    try:
        return jax.devices()[0], jax.devices("cpu")[0]
    except RuntimeError:
        return jax.devices()[0], None


def machine() -> str:
    """The first line of the page: the card, its driver, versions, and the precision of products."""
    import jax

    from qcrs_jax.version import version

    device = jax.devices()[0]
    try:
        command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        card = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        card = f"{device.device_kind} (no nvidia-smi)"
    platform = getattr(device.client, "platform_version", "").replace("\n", " ")
    return (
        f"{card}; {jax.device_count()} x {device.platform} {device.device_kind}; jax {jax.__version__}, jaxlib "
        f"{version('jaxlib')}, {platform}; torch {version('torch')}; "
        f"Python {sys.version.split()[0]}; {os.cpu_count()} cores; "
        f"default matmul precision {jax.config.jax_default_matmul_precision}; qcrs_jax {version('qcrs_jax')}"
    )


def _on_the_grid(image, sigma, copies):
    """Noisy copies of an image, with noise on the grid."""
    import jax
    import jax.numpy as jnp

    from qcrs_jax.sampling.smoothing import GridGaussian

    noise = GridGaussian()
    return noise.add(image, noise.level(sigma), jax.random.key(0), jnp.arange(copies))


def exact(part: Part) -> None:
    """Checks that noise, and counts of a classifier that does not round, equal those of the CPU."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from qcrs_jax.sampling.noise import gaussian_noise

    device, cpu = devices()
    committed = np.array(reference.read()["exact"])
    if cpu is not None:
        copies = jnp.arange(64 if part.quick else 4096)
        noise = []
        for one in (device, cpu):
            with jax.default_device(one):
                noise.append(np.asarray(gaussian_noise(jax.random.key(0), copies, (32, 32, 3))))
        same = (noise[0].view(np.int32) == noise[1].view(np.int32)).mean()
        apart = np.abs(noise[0] - noise[1]).max()
        part.numbers["noise"] = {"same bits": float(same), "most apart": float(apart), "numbers": noise[0].size}
        part.say(f"Noise on the device and on the CPU: {same:.4%} of {noise[0].size:,} numbers have the same bits; "
                 f"the others are at most {apart:.3g} apart.")  # fmt: skip
        part.expect(apart < 1e-5, f"noise differs by {apart:.3g} from the CPU's")
        part.expect(bool((np.sign(noise[0]) == np.sign(noise[1])).all()), "a noise number has another sign")
        on_grid = []
        for one in (device, cpu):
            with jax.default_device(one):
                add = jax.jit(functools.partial(_on_the_grid, copies=len(copies)))
                on_grid.append(np.asarray(add(jnp.full((32, 32, 3), 0.4), jnp.float32(0.25))))
        unequal = int((on_grid[0].view(np.int32) != on_grid[1].view(np.int32)).sum())
        part.numbers["noise on the grid"] = {"unequal": unequal, "numbers": on_grid[0].size}
        part.say(f"Noisy images on the grid: {unequal} of {on_grid[0].size:,} numbers are not the CPU's, bit by bit.")
        part.expect(unequal == 0, f"{unequal} numbers of noisy images on the grid are not the CPU's")
    rows, cases = [], [(512, 1)] if part.quick else [(512, 1), (2048, 1), (96, 1), (2048, 4)]
    for batch, images in cases:
        found = reference.exact_counts(device, batch, images)
        differ = int(np.abs(found - committed).sum() // 2)
        rows.append([batch, images, found[0].tolist(), found[1].tolist(), differ])
        part.expect(differ == 0, f"batch {batch}, {images} images in step: {differ} copies are in another class")
    part.numbers["counts"], part.numbers["committed"] = rows, committed.tolist()
    header = ["batch", "images in step", "Cohen", "QCRS, golden", "copies in another class"]
    part.say(f"{reference.EXACT_N:,} copies by the signs of two pixels, and the committed counts of a CPU:\n\n"
             + markdown(header, rows))  # fmt: skip


def counts(part: Part) -> None:
    """LeNet and ResNet-20, compared with the committed counts of a CPU, in each number format."""
    import jax
    import numpy as np

    device, committed = devices()[0], reference.read()["networks"]
    n = reference.N[part.quick]
    rows = []
    formats = [("default", "float32"), ("highest", "float32"), ("default", "bfloat16")]
    for precision, dtype in formats[:1] if part.quick else formats:
        for name in (reference.LENET, reference.RESNET):
            if part.clock.left() < 15 and not part.quick:
                rows.append([name, dtype, precision, "left out: no time", "", "", ""])
                continue
            with jax.default_matmul_precision(None if precision == "default" else precision):
                found = reference.counts(name, n, device, dtype)
            moved, within = compared(found, np.array(committed[name][str(n)]), n)
            rows.append([name, dtype, precision, sum(moved), max(moved), f"{sum(moved) / n / len(moved):.3%}", within])
            part.numbers[f"{name}, {dtype}, {precision}"] = found.tolist()
            if (dtype, precision) == ("float32", "highest"):
                part.expect(within == len(moved), f"{name}, {precision}: {len(moved) - within} images differ by more "
                            "than near ties")  # fmt: skip
            header = ["network", "format", "precision", "copies in another class", "most of an image", "share",
                      f"images within the rule, of {len(moved)}"]  # fmt: skip
            part.say(f"{n:,} copies of {reference.IMAGES} images each, compared with the CPU's counts:\n\n"
                     + markdown(header, rows), "table")  # fmt: skip


def compared(found, committed, n) -> tuple[list[int], int]:
    """Copies of each image in another class, and the number of images within the rule for near ties."""
    from qcrs_jax.bounds import certified_radius, clopper_pearson_lower

    from ..verification.near_ties import SAME_ARITHMETIC, allowed, close, moved

    each, within, rule = [], 0, SAME_ARITHMETIC
    for one, other in zip(found.tolist(), committed.tolist()):
        each.append(moved(one, other, n))
        top = max(range(len(other)), key=other.__getitem__)
        radii = [
            float(certified_radius(clopper_pearson_lower(c[top], n, reference.ALPHA), reference.SIGMA))
            for c in (one, other)
        ]
        radii = [max(0.0, radius) for radius in radii]
        within += each[-1] <= allowed(n) or (each[-1] <= rule.share * n and close(*radii, rule.radius))
    return each, within


def benchmark(part: Part) -> None:
    """Our rates, PyTorch's, and the parts of ours."""
    from . import gpu
    from .networks import NETWORKS, Network

    options, seconds, turns, kind = dict(part.axes), 0.7, 3, "cuda"
    networks = [NETWORKS[name] for name in part.networks or NETWORKS]
    if part.quick:
        networks, seconds, turns, kind = [Network("cifar_resnet8", 10, (32, 32, 3), (8,))], 0.01, 1, "cpu"
        options = {"joined": ((2,),), "unrolled": (False,), "images": (1,), "layout": ("free",), "folded": (True,)}
        options |= {"compiler": ("graph alone",), "weights": ("bfloat16",)}
        options["only"] = "qcrs_jax, bfloat16", "torch.compile, bfloat16", "PyTorch eager, float32 (TF32)"
        part.say("**Tiny numbers, and no measurement.**")
    for place, network in enumerate(networks):
        clock = Clock(part.clock.left() / (len(networks) - place))
        raw = part.numbers.setdefault(network.arch, {})
        for number, text in enumerate(
            gpu.measure(
                network,
                seconds,
                turns,
                kind=kind,
                clock=Clock() if part.quick else clock,
                report=part.say,
                raw=raw,
                keep=part.report.write,
                first=not part.quick,
                **options,
            )
        ):
            part.say(text, f"{network.arch} {number}")


def searches(part: Part) -> None:
    """Every search and estimation, on a few images, compared with the committed certificates of a CPU."""
    device, committed = devices()[0], reference.read()["searches"]
    names = ["cohen", "golden"] if part.quick else list(committed)
    rows = []
    for name, in_step in [(name, False) for name in names] + [("golden", True)] * (not part.quick):
        title = f"{name}, {reference.SEARCHED} images in step" if in_step else name
        if part.clock.left() < 6:
            rows.append([title, "left out: no time", "", "", ""])
            continue
        started = time.monotonic()
        try:
            found = reference.certificates(name, device, in_step)
        except Exception as error:
            part.expect(False, f"{title}: {type(error).__name__}: {str(error)[:300]}")
            rows.append([title, "failed", "", "", f"{seconds_since(started):.1f}"])
            continue
        copies, sigma, radius = differences(found, committed[name])
        finite = all(math.isfinite(one["radius"]) and one["sigma"] > 0 for one in found)
        rows.append([title, copies, f"{sigma:.2%}", f"{radius:.2%}", f"{seconds_since(started):.1f}"])
        part.numbers[title] = found
        part.expect(finite, f"{title}: a radius or a sigma is not finite")
        part.expect(radius <= 0.03, f"{title}: a radius differs from the CPU's by {radius:.1%}")
        header = ["what", "copies in another class", "sigma apart", "radius apart", "seconds"]
        part.say("Certificates of 100 and up to 1,000 copies, each beside the CPU's of the same seed; at another sigma "
                 "other copies are counted:\n\n" + markdown(header, rows), "table")  # fmt: skip
    if not part.quick and part.clock.left() > 15:
        out = part.scratch / "budget.tsv"
        words = "--dataset npz --sigma 0.25 --method qcrs --left 0.08 --right 0.9 --N 2000 --gradient_n 100 --max 3"
        status, said = command(
            "certify", reference.LENET, out, "--data_dir", shipped(), *words.split(), "--budget", 1000
        )
        part.say(f"`certify --budget 1000`: exit status {status}.\n\n```\n{said[:1500]}\n```")
        part.expect(status == 0, "certify --budget failed")
    part.numbers["compared"] = rows


def differences(found: list[dict], committed: list[dict]) -> tuple[int, float, float]:
    """Copies in another class if sigma is the same, and the largest relative differences of sigmas and radii."""
    from ..verification.near_ties import moved

    copies, sigma, radius = 0, 0.0, 0.0
    for one, other in zip(found, committed, strict=True):
        apart = abs(one["sigma"] - other["sigma"]) / other["sigma"]
        sigma = max(sigma, apart)
        if apart < 1e-6:
            copies += sum(moved(one[name], other[name], sum(other[name])) for name in ("counts0", "counts"))
        largest = max(one["radius"], other["radius"])
        radius = max(radius, abs(one["radius"] - other["radius"]) / largest if largest else 0.0)
    return copies, sigma, radius


GROUP = 32  # images that the table grows by, and more: several times those in step


def table(part: Part) -> None:
    """Cohen, the published bisection and the Bayesian search at the papers' scale, as `qcrs-jax certify` runs them."""
    network = reference.RESNET if part.images else reference.LENET
    images = part.images or shipped()
    folder = part.scratch / "table"
    folder.mkdir(exist_ok=True)
    bracket = "--method qcrs --left 0.08 --right 0.9 --epsilon 0.03 --search"
    methods = {
        "cohen": "--method cohen",
        "bisection": f"{bracket} bisection",
        "bayesian": f"{bracket} bayesian --gradient_n 100 --evaluations 20",
    }
    if part.quick:
        methods.pop("bayesian")
    n, size = (100, 2) if part.quick else (100_000, 500)
    common = ["--dataset", "npz", "--data_dir", images, "--sigma", 0.25, "--N", n, "--no-collapse"]
    files = [folder / f"{name}.tsv" for name in methods]
    done, upto, each = 0, min(size, GROUP), None
    while upto > done:
        started = time.monotonic()
        for file, words in zip(files, methods.values()):
            status, said = command("certify", network, file, *common, "--max", upto, *words.split())
            if status != 0:
                raise RuntimeError(f"certify {words}: exit status {status}: {said[-1500:]}")
            part.keep_files(folder)
        spent = seconds_since(started)
        if done:  # the first ones include compilation
            each = spent / (upto - done)
        done = upto
        shown = [command(name, *files, "--format", "markdown")[1] for name in ("table", "compare")]
        part.numbers["images"], part.numbers["seconds an image, three methods"] = done, each
        rate = "" if each is None else f" {each:.2f} s an image for the three together."
        why = "" if done == size else f" Not all {size}: the time was over."
        part.say(f"{network}, {done} images of {Path(images).name}, N = {n:,}, alpha = 0.001, float32.{rate}{why} The "
                 "results files are in the archive.\n\n" + "\n\n".join(shown), "table")  # fmt: skip
        left = part.clock.left() - 3
        more = int(left > 10) if each is None else int(0.85 * left / each / GROUP)
        upto = min(size, done + GROUP * more)


def memory(part: Part) -> None:
    """`--batch auto`, a batch that does not fit into memory, and a card that another process fills."""
    import jax

    from ..run.batch_size import fastest_batch

    device = devices()[0]
    if part.quick:
        classify, shape = jax.tree_util.Partial(reference.by_sign), (4, 4, 3)
    else:
        classify, shape = reference.classify(reference.LENET, device), (28, 28, 1)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        chosen = fastest_batch(classify, shape, [device])
    part.numbers["auto"] = chosen
    part.say(f"`--batch auto`: {said.getvalue().strip()}")
    if device.platform != "gpu":
        part.say("A batch that is too large, and a card that is full: only on a GPU.")
        return
    words = [
        "--dataset",
        "npz",
        "--data_dir",
        shipped(),
        "--sigma",
        0.25,
        "--method",
        "cohen",
        "--N",
        200_000,
        "--max",
        1,
    ]
    usual = part.scratch / "usual.tsv"
    command("certify", reference.LENET, usual, *words)
    small = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.02", "XLA_PYTHON_CLIENT_PREALLOCATE": "true"}
    for title, batch, environment in (
        ("a batch of 65536 where JAX may take 2% of the card", 2**16, small),
        ("a batch of 1048576, the largest", 2**20, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}),
    ):
        if part.clock.left() < 12:
            part.say(f"{title}: left out: no time")
            continue
        out = part.scratch / f"batch_{batch}.tsv"
        status, said = process(
            ["certify", reference.LENET, out, *words, "--images", 1, "--batch", batch], environment, part.clock.left()
        )
        halved = "does not hold" in said
        same = status == 0 and _counts(out) == _counts(usual)
        part.numbers[title] = {"status": status, "halved": halved, "same counts": same}
        part.say(f"{title}: exit status {status}, halved: {halved}, the counts are those of the usual batch: {same}."
                 f"\n\n```\n{said[-1200:]}\n```")  # fmt: skip
        part.expect(status == 0 and (halved or batch > 2**16), f"{title}: exit status {status}")
        part.expect("Traceback" not in said, f"{title}: ended in a traceback")
    if part.clock.left() < 20:
        part.say("A card that another process fills: left out: no time")
        return
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    try:
        part.say(f"Somebody else: {holder.stdout.readline().strip()}")
        status, said = process(
            ["certify", reference.LENET, part.scratch / "taken.tsv", *words], {"XLA_PYTHON_CLIENT_PREALLOCATE": "true"},
            part.clock.left(),
        )  # fmt: skip
    finally:
        holder.kill()
        holder.wait()
    last = [line for line in said.splitlines() if "qcrs-jax: error" in line]
    part.numbers["taken"] = {"status": status, "said": last}
    part.say(f"A card that another process fills: exit status {status}.\n\n```\n{said[-2500:]}\n```")
    part.expect(status in (0, 2) and "Traceback" not in said, "a card that is full ended in a traceback")


# Takes all memory of the card but 200 MiB, by PyTorch, or else by JAX.
HOLDER = """
import sys, time
held = 0
try:
    import torch
    blocks = []
    for size in (2**30, 2**27, 2**24):
        while torch.cuda.mem_get_info()[0] > 200 * 2**20 + size:
            blocks.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
            held += size
except Exception as error:
    print(f"PyTorch could not hold it: {error!r}", file=sys.stderr)
    import os
    os.environ.update(XLA_PYTHON_CLIENT_PREALLOCATE="true", XLA_PYTHON_CLIENT_MEM_FRACTION="0.97")
    import jax
    x = jax.numpy.ones(8).block_until_ready()
    held = jax.devices()[0].memory_stats()["bytes_limit"]
print(f"a process holds {held / 2**30:.1f} GiB", flush=True)
time.sleep(120)
"""


def again(part: Part) -> None:
    """`verify` of a run of this device, an exported program under JAX alone, a directory made on a CPU, bfloat16."""
    device = devices()[0]
    data = ["--dataset", "npz", "--data_dir", shipped()]
    n = 200 if part.quick else 10_000
    results = part.scratch / "verified.tsv"
    batch = ["--batch", 50] if part.quick else []
    method = ["--method", "cohen"] if part.quick else ["--left", 0.08, "--right", 0.9]
    status, said = command(
        "certify", reference.LENET, results, *data, "--sigma", 0.25, "--N", n, "--max", 3, *method, *batch
    )
    part.expect(status == 0, f"certify: {said[-500:]}")
    status, said = command("verify", results, "--recount", "all")
    part.say(f"`verify --recount all` of a run of this device: exit status {status}.\n\n```\n{said[-1500:]}\n```")
    part.expect(status == 0, "verify did not accept a run of this device")
    if part.clock.left() > 8:
        _program(part, device)
    if part.clock.left() > 8:
        _directory(part, device)
    if part.clock.left() > 8:
        few = ["--skip", 250, "--N", 100] if part.quick else ["--skip", 25, "--N", 10_000]
        status, said = command("agreement", reference.LENET, *data, "--sigma", 0.25, *few, *batch)
        part.say(f"bfloat16 compared with float32, copy by copy: exit status {status}.\n\n```\n{said[-1500:]}\n```")
        part.expect(status == 0, "agreement failed")


ALONE = """
import json, sys
import jax, numpy as np
from jax import export
assert "qcrs_jax" not in sys.modules and "flax" not in sys.modules
program = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
image = np.load(sys.argv[2])
key = jax.random.key_data(jax.random.key(5))
found = program.call(image, key, np.float32(0.25), np.int32(100), np.int32(int(sys.argv[3])))
print(json.dumps([np.asarray(found["counts"]).tolist(), jax.devices()[0].platform]))
"""


def _program(part, device):
    import json

    import jax
    import numpy as np

    from qcrs_jax import certify

    from ..verification.near_ties import moved

    n, file, image = 100 if part.quick else 10_000, part.scratch / "program.bin", part.scratch / "image.npy"
    platforms = ["cpu"] if device.platform == "cpu" else ["cuda", "cpu"]
    words = ["--sigma", 0.25, "--method", "cohen", "--platforms", *platforms]
    status, said = command("export-program", reference.LENET, file, *words)
    part.expect(status == 0, f"export-program: {said[-500:]}")
    np.save(image, reference.images(reference.LENET, 1)[0][0])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(file), str(image), str(n)],
        capture_output=True, text=True, cwd=part.scratch, env=environment, timeout=max(20, part.clock.left()),
    )  # fmt: skip
    if done.returncode != 0:
        part.expect(False, f"the exported program: {done.stderr[-1500:]}")
        return
    alone, platform = json.loads(done.stdout.splitlines()[-1])
    options = {"key": jax.random.key(5), "n": n, "devices": [device], "batch_size": 50 if part.quick else 512}
    own = certify(reference.classify(reference.LENET, device), np.load(image), 0.25, **options).counts.tolist()
    part.say(f"The exported program, run by JAX alone on {platform}: {alone}; `certify` here: {own}.")
    part.expect(moved(alone, own, n) <= max(2, 0.001 * n), "the exported program counts otherwise")


def _directory(part, device):
    """Opens a directory that a process on a CPU converted."""
    import numpy as np

    from qcrs_jax.convert import zoo
    from qcrs_jax.convert.load import load_classifier

    directory = part.scratch / "converted"
    words = ["convert", zoo.resolve(reference.RESNET), directory]
    status, said = process(words, {"JAX_PLATFORMS": "cpu"}, max(20, part.clock.left()))
    part.expect(status == 0, f"convert on a CPU: {said[-500:]}")
    x = reference.images(reference.RESNET, 4)[0]
    functions = [load_classifier(path).inference(device.platform) for path in (directory, reference.RESNET)]
    one, other = (np.asarray(function(x)) for function in functions)
    part.say(f"A directory that was converted on a CPU opens here; its logits are at most {abs(one - other).max():.2g} "
             "from those of the PyTorch file.")  # fmt: skip
    part.expect(np.allclose(one, other, atol=1e-6), "a directory converted on a CPU has other logits")


def shipped() -> Path:
    """The test images of Fashion-MNIST that come with the package."""
    from ..presets import IMAGES

    return IMAGES


def command(*words) -> tuple[int, str]:
    """Runs a command of `qcrs-jax` in this process. Returns its exit status, and its output without progress."""
    from .. import cli

    with io.StringIO() as text, contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            status = cli.main([str(word) for word in words])
        except SystemExit as error:
            status = error.code
        return status, _without_progress(text.getvalue())


def process(words, environment: dict, seconds: float) -> tuple[int, str]:
    """The same in a process of its own, which may take `seconds`. The status is -1 if it needs more."""
    own = {**os.environ, **environment, **python_path()}
    if "XLA_PYTHON_CLIENT_PREALLOCATE" not in environment:
        own.pop("XLA_PYTHON_CLIENT_PREALLOCATE", None)
    line = "import sys; from qcrs_jax.experiments.cli import main; sys.exit(main(sys.argv[1:]))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", line, *map(str, words)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=own, timeout=max(5, seconds),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return -1, f"stopped after {seconds:.0f} s: {_without_progress((error.stdout or b'').decode(errors='replace'))}"
    return done.returncode, _without_progress(done.stdout)


def python_path() -> dict[str, str]:
    """The environment variable with which a child process finds the package of a checkout."""
    if not (ROOT / "qcrs_jax" / "__init__.py").exists():
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def _without_progress(text):
    lines = [line.split("\r")[-1] for line in text.splitlines()]
    return "\n".join(line for line in lines if not re.search(r"\d+%\|", line))


def _counts(path):
    from qcrs_jax.results.records import read_run

    return [record.counts for record in read_run(path).records]


@functools.cache
def parts() -> dict:
    """The parts, the most important first, and the share of the time by which each has to end."""
    return {
        "exact classifier": (exact, 0.08),
        "counts": (counts, 0.18),
        "benchmark": (benchmark, 0.54),
        "searches": (searches, 0.67),
        "table": (table, 0.81),
        "memory": (memory, 0.89),
        "again": (again, 1.0),
    }
