"""A classifier: a network, the normalisation before it, and metadata that identify both."""

import dataclasses
import functools
import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Float

from .layers import Form, compute_in
from .registry import architecture, family_of
from .winograd import use_winograd


@dataclasses.dataclass(frozen=True)
class Spec:
    """The description of a classifier without its weights; written beside them as JSON.

    Attributes:
        arch: name of the architecture, known to `architecture`.
        num_classes: length of the logits.
        image_shape: shape (h, w, c) of the images, which are in [0, 1].
        mean, std: normalisation per channel, (x - mean) / std, applied after the noise.
        options: further arguments of the architecture, such as {"shortcut": "option_a"}.
        source: origin of the weights: file, SHA-256, layout. "notes" are sentences that are printed at opening.
        class_names: names of the classes in the order of the logits; None if they are not known.
    """

    arch: str
    num_classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: dict = dataclasses.field(default_factory=dict)
    source: dict = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] | None = None

    def __post_init__(self):
        architecture(self.arch)
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.image_shape[-1]):
                raise ValueError(
                    f"{name} of the normalisation has {len(getattr(self, name))} entries for images of "
                    f"{self.image_shape[-1]} channels"
                )
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError(f"the normalisation needs finite numbers and a positive std, not {self.mean} / {self.std}")
        if self.class_names is not None:
            if not all(isinstance(name, str) for name in self.class_names):
                raise ValueError(f"class_names are texts, not {self.class_names}")
            if len(self.class_names) != self.num_classes:
                raise ValueError(f"class_names has {len(self.class_names)} names for {self.num_classes} classes")


def build(spec: Spec, seed: int = 0) -> nnx.Module:
    """The network of `spec` with fresh weights, in evaluation mode. `abstract` has its shapes at no cost."""
    make = architecture(spec.arch)
    model = make(spec.image_shape[-1], spec.num_classes, rngs=nnx.Rngs(seed), **spec.options)
    model.eval()
    return model


def abstract(spec: Spec) -> nnx.Module:
    """The network of `spec` with shapes in place of weights, in evaluation mode; a new object for each call."""
    options = tuple(sorted((name, type(value), value) for name, value in spec.options.items()))
    try:
        return nnx.clone(_traced(family_of(spec.arch), spec.arch, spec.image_shape, spec.num_classes, options))
    except TypeError:  # of options that cannot be keys, or of the network itself, which says it again
        return nnx.eval_shape(lambda: build(spec))


@functools.lru_cache(maxsize=64)
def _traced(family, arch, image_shape, num_classes, options):
    """What `abstract` copies. Tracing takes a hundred times as long as a copy."""
    spec = Spec(arch, num_classes, image_shape, (0.0,), (1.0,), {name: value for name, _, value in options})
    return nnx.eval_shape(lambda: build(spec))


def normalise(spec: Spec, images: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c"]:
    """The input of the network of `spec` for `images` in [0, 1]."""
    mean, std = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, -1) for v in (spec.mean, spec.std))
    return (images - mean) / std


class Classifier:
    """A network with its metadata.

    Attributes:
        spec: the metadata.
        model: the Flax network, including batch normalisation; it takes normalised images.
        classify: `inference()` in float32, for JAX's default platform.
    """

    def __init__(self, spec: Spec, model: nnx.Module):
        self.spec = spec
        self.model = model
        self.classify = self.inference()

    def inference(self, platform: str | Form | None = None, dtype=jnp.float32) -> Partial:
        """A function of images (batch, h, w, c) in [0, 1] to logits (batch, num_classes), both float32.

        It includes the normalisation. Batch normalisation is folded into the network. The network has the form that is
        fastest on `platform` ("cpu", "tpu", or another of JAX's), by default the one on which JAX would run it; or it
        has the form that is given. Jit-compatible; the weights are leaves of the pytree.

        In another `dtype` ("bfloat16") images are normalised in float32 and then rounded, as the folded weights are.
        """
        inference = nnx.clone(self.model)
        inference.eval()
        prepare = getattr(inference, "prepare_inference", None)
        form, dtype = Form.of(platform or jax.default_backend()), jnp.dtype(dtype)
        form = dataclasses.replace(form, winograd=form.winograd and dtype == jnp.float32)
        if prepare is not None:
            prepare(form, *self.spec.image_shape[:2])
        compute_in(inference, dtype)
        if form.winograd:
            use_winograd(inference)
        graph, weights = nnx.split(inference)
        mean, std = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, -1) for v in (self.spec.mean, self.spec.std))
        return Partial(_Apply(graph, dtype), nnx.to_pure_dict(weights), mean, std)

    def fingerprint(self) -> str:
        """SHA-256 of every variable of the network with its name."""
        return fingerprint_of(self.model)


def fingerprint_of(model: nnx.Module) -> str:
    """SHA-256 of every variable of a network with its name."""
    sha = hashlib.sha256()
    for name, variable in sorted(nnx.to_flat_state(nnx.state(model)), key=lambda item: str(item[0])):
        sha.update(repr((name, variable.shape)).encode())
        sha.update(np.asarray(variable[...], "<f4").tobytes())
    return sha.hexdigest()


class _Apply:
    """The forward function of one network structure. It is equal for equal structures, so programs are reused."""

    def __init__(self, graph, dtype):
        self.graph, self.dtype = graph, dtype

    def __call__(self, weights, mean, std, images: Float[Array, "batch h w c"]) -> Float[Array, "batch num_classes"]:
        normalised = ((images - mean) / std).astype(self.dtype)
        return nnx.merge(self.graph, nnx.State(weights))(normalised).astype(jnp.float32)

    def __eq__(self, other):
        return isinstance(other, _Apply) and (self.graph, self.dtype) == (other.graph, other.dtype)

    def __hash__(self):
        return hash((self.graph, self.dtype))
