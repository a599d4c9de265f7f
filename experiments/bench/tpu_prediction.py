"""Predicts the sampler on a TPU v5e by XLA's cost model, step by step. No TPU is needed.

Each row of the tables is the sampler, compiled for one chip. The lines below are the whole program of `qcrs-jax
certify` for one chip and for slices. Cycles are the compiler's estimates of every operation of the program, summed with
the turns of its loops, at 1.5 GHz; nothing is measured.
"""

import math
from typing import NamedTuple

from . import tpu


class Job(NamedTuple):
    """A published job: evaluations of a search with 500 samples each, and seconds an image on the authors' GPU."""

    name: str
    arch: str
    classes: int
    shape: tuple[int, int, int]
    evaluations: int
    seconds: float

    def batches(self, batch: int) -> int:
        """Forward passes for one image. Each query of 500, 100 or 100 000 samples takes whole batches."""
        return self.evaluations * math.ceil(500 / batch) + math.ceil(100 / batch) + math.ceil(100_000 / batch)


JOBS = {
    "cifar_resnet110": Job("CIFAR-10, ResNet-110", "cifar_resnet110", 10, (32, 32, 3), 15, 4.9),
    "resnet50": Job("ImageNet, ResNet-50", "resnet50", 1000, (224, 224, 3), 13, 46.0),
}


class Step(NamedTuple):
    """A configuration to compile: form of the network, dtype, copies in a batch, precision, compiler options.

    form: that of a platform, or what it was made from: with "norms" apart, "plain" (these folded), "uncut" (the form of
        a TPU, except that no block's weights are cut from their stack beforehand).
    runs: whether `qcrs-jax certify` runs this on a TPU, by default or by a flag.
    """

    title: str
    batch: int
    form: str = "tpu"
    dtype: str = "float32"
    precision: str = "default"
    options: dict = {}
    runs: bool = False
    noise: str = "gaussian"


UNPACKED = {"xla_jf_bf16_propagation": False}
STEPS = {
    "cifar_resnet110": [
        Step("float32, batch normalisation apart", 512, "norms"),
        Step("+ folded", 512, "plain"),
        Step("+ columns joined as on a CPU", 512, "cpu"),
        Step("+ those of 32 channels too", 512, "uncut"),
        Step("+ weights cut before each block: `--dtype float32`", 512, runs=True),
        Step("`--dtype float32`, activations not packed (option)", 512, options=UNPACKED),
        Step("`--dtype float32`, products of full precision", 512, precision="highest"),
        Step("`--dtype float32`, noise on the grid", 512, noise="grid"),
        Step("`--dtype float32`", 256),
        Step("`--dtype float32`", 1024),
        Step("bfloat16, columns not joined", 512, "plain", "bfloat16"),
        Step("`--dtype bfloat16`", 512, dtype="bfloat16", runs=True),
    ],
    "resnet50": [
        Step("float32, weights cut in convolutions", 128, "uncut"),
        Step("+ cut before each block: `--dtype float32`", 128, runs=True),
        Step("`--dtype float32`, noise on the grid", 128, noise="grid"),
        Step("`--dtype float32`, activations not packed (option)", 128, options=UNPACKED),
        Step("`--dtype bfloat16`", 128, dtype="bfloat16", runs=True),
        Step("`--dtype bfloat16`", 32, dtype="bfloat16"),
        Step("`--dtype bfloat16`", 256, dtype="bfloat16"),
        Step("`--dtype bfloat16`", 512, dtype="bfloat16"),
    ],
}


def run(libtpu, archs, slices=(4, 16)) -> None:
    """Prints the tables of the networks `archs`, for a chip, and what slices of several chips need."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    chips = {size: tpu.devices(libtpu, size) for size in (1, *slices)}
    print(
        f"Predicted for a chip of TPU v5e by the compiler's cost model (jax {jax.__version__}); nothing is measured.\n"
        "`s/image`: one image of the published job. `matrix`, `memory`: its share in which matrix units and main\n"
        f"memory would work at their peaks, {tpu.PEAK_FLOPS / 1e12:.0f} TFLOP/s and {tpu.PEAK_BYTES / 1e9:.0f} GB/s.\n"
        "`GiB`: of 16. `noise`: drawn alone. `not network`: the sampler less the network alone.\n"
        f"The option is {', '.join(f'{name}={value}'.lower() for name, value in UNPACKED.items())}.\n"
    )
    for arch in archs:
        job = JOBS[arch]
        print(f"| {job.name} | batch | samples/s | s/image | matrix | memory | GiB | noise | not network |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
        for step in STEPS[arch]:
            print(row(job, step, chips[1]), flush=True)
        print(f"\nThe authors' GPU took {job.seconds:g} s an image. The whole program of `qcrs-jax certify`:")
        for size in chips:
            for step in STEPS[arch]:
                if step.runs:
                    print(_of_certify(job, step, chips[size]), flush=True)
        print()


def _of_certify(job, step, chips) -> str:
    """A line on the whole program of `qcrs-jax certify` on some chips, from one turn of its loop over batches."""
    whole, images = compiled_certifier(job, step, chips)
    cost = tpu.cost(whole)
    return (
        f"{len(chips)} chips, {step.dtype}, {images} images in step: {len(chips) * step.batch / cost.seconds:,.0f} "
        f"samples/s, {cost.memory / 2**30:.2f} GiB a chip, {whole.as_text().count(' all-reduce(')} all-reduce."
    )


def row(job: Job, step: Step, chips) -> str:
    """A line of the table, in markdown."""
    whole = tpu.cost(compiled_sampler(job, step, chips))
    network = tpu.cost(compiled_network(job, step, chips))
    noise = tpu.cost(compiled_noise(job, step, chips))
    cells = (
        step.title,
        str(step.batch),
        f"{step.batch / whole.seconds:,.0f}",
        f"{job.batches(step.batch) * whole.seconds:.2f}",
        f"{whole.flops / tpu.PEAK_FLOPS / whole.seconds:.0%}",
        f"{whole.traffic / tpu.PEAK_BYTES / whole.seconds:.0%}",
        f"{whole.memory / 2**30:.2f}",
        f"{noise.seconds / whole.seconds:.1%}",
        f"{1 - network.seconds / whole.seconds:.1%}",
    )
    return f"| {' | '.join(cells)} |"


def classify(job: Job, step: Step):
    """The network of `job` in the form of `step`, as a pytree of shapes."""
    from flax import nnx

    from qcrs_jax.models import Classifier, Spec, build
    from qcrs_jax.models.layers import fold_norms
    from qcrs_jax.models.resnet import Stage

    spec = Spec(job.arch, job.classes, job.shape, (0.5,), (0.25,))
    model = build(spec)
    if step.form == "plain":
        fold_norms(model)
    elif step.form != "norms":
        model.prepare_inference("tpu" if step.form == "uncut" else step.form)
    for _, stage in nnx.iter_modules(model):
        if isinstance(stage, Stage) and step.form == "uncut":
            stage.slice_first = False
    model.prepare_inference = lambda *_: None
    return Classifier(spec, model).inference("tpu", step.dtype)


def compiled_sampler(job: Job, step: Step, chips):
    """`sample_counts` over `chips`, which share the copies."""
    import jax
    import jax.numpy as jnp

    from qcrs_jax.sampling.counts import sample_counts
    from qcrs_jax.sampling.smoothing import NOISES

    def sample(classify, image, sigma, key, n):
        key = jax.random.wrap_key_data(key, impl="threefry2x32")
        how = {"noise": NOISES[step.noise](), "batch_size": step.batch, "axis_name": "devices"}
        return sample_counts(classify, image, sigma, key, n, **how)

    mesh, everywhere = jax.sharding.Mesh(chips, "devices"), jax.sharding.PartitionSpec()
    sample = jax.shard_map(sample, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)
    numbers = [jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.uint32)]
    numbers.append(jax.ShapeDtypeStruct((), jnp.int32))
    arguments = (classify(job, step), jax.ShapeDtypeStruct(job.shape, jnp.float32), *numbers)
    return _compile(sample, step, chips, arguments)


def compiled_certifier(job: Job, step: Step, chips):
    """The whole program of `qcrs-jax certify` on `chips`, with its search, and its number of images in step."""
    import jax
    import jax.numpy as jnp

    from qcrs_jax import GoldenSection
    from qcrs_jax.certification.procedure import draw_votes
    from qcrs_jax.sampling.smoothing import NOISES
    from qcrs_jax.search import Aim

    from ..run.runner import default_images

    m, settings = default_images(chips, job.shape), GoldenSection(0.08, 0.9)
    numbers = [jax.ShapeDtypeStruct((m, *job.shape), jnp.float32), jax.ShapeDtypeStruct((m,), jnp.float32)]
    numbers += [jax.ShapeDtypeStruct((m,), jax.random.key(0).dtype), jax.ShapeDtypeStruct((m, 3), jnp.int32)]
    noise = NOISES[step.noise]()
    tables = settings.tables(Aim(100_000, 0.001, noise))
    arguments = (classify(job, step), numbers[0], (*numbers[1:], None), settings, tables)
    with jax.default_matmul_precision(step.precision):
        lowered = draw_votes.program.lower(
            *tpu.replicated(chips, (*arguments, None, None)),
            noise=noise,
            beta=None,
            batch_size=step.batch // m,
            devices=tuple(chips),
        )
    return lowered.compile(compiler_options=step.options), m


def compiled_network(job: Job, step: Step, chips):
    """The network alone, on images in memory."""
    import jax
    import jax.numpy as jnp

    images = jax.ShapeDtypeStruct((step.batch, *job.shape), jnp.float32)
    return _compile(lambda classify, images: classify(images), step, chips, (classify(job, step), images))


def compiled_noise(job: Job, step: Step, chips):
    """Noisy copies alone, written to memory."""
    import jax
    import jax.numpy as jnp

    from qcrs_jax.sampling.smoothing import NOISES

    noise = NOISES[step.noise]()

    def noisy(image, level, key, first):
        key = jax.random.wrap_key_data(key, impl="threefry2x32")
        return noise.add(image, level, key, first + jnp.arange(step.batch))

    level = jax.eval_shape(noise.level, jax.ShapeDtypeStruct((), jnp.float32))
    image, key = jax.ShapeDtypeStruct(job.shape, jnp.float32), jax.ShapeDtypeStruct((2,), jnp.uint32)
    return _compile(noisy, step, chips, (image, level, key, jax.ShapeDtypeStruct((), jnp.int32)))


def _compile(function, step, chips, arguments):
    import jax

    with jax.default_matmul_precision(step.precision):
        lowered = jax.jit(function).lower(*tpu.replicated(chips, arguments))
    return lowered.compile(compiler_options=step.options)
