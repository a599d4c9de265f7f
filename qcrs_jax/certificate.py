"""Certify and predict with a smoothed classifier: Cohen's RS at one sigma, QCRS and DDRS at one found per input."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from . import bounds
from .ddrs import DDRS, SigmaAscent, ascend
from .sampling import Classifier, as_pytree, default_batch_size, num_classes, sample_counts
from .search import Search, run
from .sigma import (
    CURVE,
    END,
    ESTIMATION,
    QCRS,
    SEARCH,
    SELECTION,
    Query,
    SigmaSearch,
    fixed_policy,
    qcrs_policy,
)

ABSTAIN = -1
MAX_N = 2**30


class Certificate(NamedTuple):
    """What CERTIFY returns; NumPy scalars and arrays, or traced arrays inside jit. `*m` is () or (images,).

    With probability at least 1 - alpha over the certification samples, for each image: the classifier smoothed
    with this sigma, held fixed, predicts `prediction` everywhere within L2 distance `radius` of the image. A
    sigma that was searched belongs to this image: nothing is said of a classifier that would search sigma again
    at the perturbed image.

    prediction: the class, or ABSTAIN (-1).
    radius: L2 radius in units of pixels in [0, 1]; 0 where it abstains.
    pa_lower: lower bound of the probability of the selected class.
    sigma: the noise level of the certificate.
    counts: class counts of the n certification samples, (*m, num_classes).
    counts0: class counts of the n0 samples that selected the class, (*m, num_classes).
    search: how QCRS or DDRS chose sigma; None at a fixed sigma.
    """

    prediction: Int[Array | np.ndarray, "*m"] | np.integer
    radius: Float[Array | np.ndarray, "*m"] | np.floating
    pa_lower: Float[Array | np.ndarray, "*m"] | np.floating
    sigma: Float[Array | np.ndarray, "*m"] | np.floating
    counts: Int[Array | np.ndarray, "*m num_classes"]
    counts0: Int[Array | np.ndarray, "*m num_classes"]
    search: SigmaSearch | SigmaAscent | None


class Prediction(NamedTuple):
    """What PREDICT returns; NumPy scalars and arrays, or traced arrays inside jit. `*m` is () or (images,).

    prediction: the class, or ABSTAIN (-1).
    counts: class counts of the n samples, (*m, num_classes).
    """

    prediction: Int[Array | np.ndarray, "*m"] | np.integer
    counts: Int[Array | np.ndarray, "*m num_classes"]


def certify(
    classify: Classifier,
    images: Float[Array | np.ndarray, "*m h w c"],
    sigma: Float[ArrayLike, ""],
    *,
    key,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    search: QCRS | DDRS | None = None,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Certificate:
    """A certified L2 radius for each image (CERTIFY of Cohen et al. 2019), at `sigma` or at one searched for the image.

    Selection, estimation and search each draw noise of their own. Counts are exact integers; from them the
    bound and the radius are computed in float64 on the host. Inside jit they are float32, rounded down.

    Args:
        classify: images (batch, h, w, c) in [0, 1] to logits (batch, num_classes), jit-compatible, normalisation
            inside. Weights bound with `jax.tree_util.Partial` are passed as arguments of the compiled program.
        images: one image (h, w, c), or several (m, h, w, c), which are then certified together under vmap.
        sigma: the noise level; with `search`, the one the classifier was trained at, where the search starts.
        key: a PRNG key, `jax.random.key(seed)`. Several images draw from `fold_in(key, position)`.
        n0: samples that select the class.
        n: samples that estimate its probability.
        alpha: failure probability of each image's certificate.
        search: settings of the search for sigma, QCRS or DDRS; None keeps sigma fixed.
        batch_size: noisy copies per forward pass of an image on a device; changes no count.
        devices: devices that share the noisy copies, `jax.devices()` for all; changes no count. None leaves the
            choice to JAX: one device.

    Raises:
        ValueError: an argument out of its range, or an n at which no count can certify.
    """
    check_request(sigma, n0, n, alpha)
    images = jnp.asarray(images, jnp.float32)
    counts0, counts, sigma, trace = _draw(
        as_pytree(classify),
        images,
        jnp.asarray(sigma, jnp.float32),
        _image_keys(key, images),
        jnp.asarray([search.search_n if isinstance(search, QCRS) else 0, n0, n], jnp.int32),
        search=search,
        batch_size=batch_size or default_batch_size(),
        devices=devices and tuple(devices),
    )
    return make_certificate(counts0, counts, sigma, n, alpha)._replace(search=trace)


def make_certificate(counts0, counts, sigma, n: int, alpha: float) -> Certificate:
    """The certificate that follows from raw counts: selection counts0, estimation counts of n samples at sigma."""
    xp = jnp if isinstance(counts, jax.core.Tracer) else np
    counts0, counts, sigma = xp.asarray(counts0), xp.asarray(counts), xp.asarray(sigma)
    selected = xp.argmax(counts0, axis=-1)
    successes = xp.take_along_axis(counts, selected[..., None], axis=-1)[..., 0]
    if xp is jnp:
        pa_lower = bounds.look_up(bounds.pa_lower_table(n, alpha), successes)
        radius = sigma * bounds.look_up(bounds.radius_table(n, alpha), successes)
    else:
        pa_lower = bounds.clopper_pearson_lower(successes, n, alpha)
        radius = bounds.certified_radius(pa_lower, sigma)
    abstains = pa_lower < 0.5
    return Certificate(
        prediction=xp.where(abstains, ABSTAIN, selected)[()],
        radius=xp.where(abstains, 0.0, radius)[()],
        pa_lower=pa_lower,
        sigma=sigma[()],
        counts=counts,
        counts0=counts0,
        search=None,
    )


def search_sigma(
    classify: Classifier,
    images: Float[Array | np.ndarray, "*m h w c"],
    sigma: Float[ArrayLike, ""],
    search: QCRS | DDRS,
    *,
    key,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> SigmaSearch | SigmaAscent:
    """The sigma that QCRS or DDRS chooses for each image, with the trace of the search; certifies nothing.

    `certify(..., search=search)` with the same key chooses the same sigma. Arguments as there.
    """
    images = jnp.asarray(images, jnp.float32)
    return _search(
        as_pytree(classify),
        images,
        jnp.asarray(sigma, jnp.float32),
        _image_keys(key, images),
        search=search,
        batch_size=batch_size or default_batch_size(),
        devices=devices and tuple(devices),
    )


def sample_curve(
    classify: Classifier,
    images: Float[Array | np.ndarray, "*m h w c"],
    sigmas: Float[Array | np.ndarray, "s"] | Sequence[float],
    *,
    key,
    n: int,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Int[Array, "*m s num_classes"]:
    """Class counts of n noisy copies of each image at each of `sigmas`; `curves.radius_band` makes R(sigma) of them.

    The noise is the same at all sigmas, and another than that of certificates with the same key. Arguments as for
    `certify`; certifies nothing.
    """
    images = jnp.asarray(images, jnp.float32)
    return _curve_counts(
        as_pytree(classify),
        images,
        jnp.asarray(sigmas, jnp.float32),
        _image_keys(key, images),
        jnp.asarray(n, jnp.int32),
        batch_size=batch_size or default_batch_size(),
        devices=devices and tuple(devices),
    )


def predict(
    classify: Classifier,
    images: Float[Array | np.ndarray, "*m h w c"],
    sigma: Float[ArrayLike, ""],
    *,
    key,
    n: int = 100_000,
    alpha: float = 0.001,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Prediction:
    """The smoothed classifier's class for each image, or ABSTAIN (PREDICT of Cohen et al. 2019).

    With probability at least 1 - alpha for each image, the answer is ABSTAIN or the true top class of the
    smoothed classifier. Arguments as for `certify`, whose n estimation samples it draws too: at one key and sigma
    the samples of a smaller n are the first of a larger.
    """
    check_prediction(sigma, n, alpha)
    images = jnp.asarray(images, jnp.float32)
    counts = _predict_counts(
        as_pytree(classify),
        images,
        jnp.asarray(sigma, jnp.float32),
        _image_keys(key, images),
        jnp.asarray(n, jnp.int32),
        batch_size=batch_size or default_batch_size(),
        devices=devices and tuple(devices),
    )
    xp = jnp if isinstance(counts, jax.core.Tracer) else np
    counts = xp.asarray(counts)
    top, second = -xp.sort(-counts, axis=-1)[..., 0], -xp.sort(-counts, axis=-1)[..., 1]
    if xp is jnp:
        threshold = bounds.look_up(bounds.predict_table(n, alpha), top + second)
    else:
        threshold = bounds.predict_threshold(top + second, alpha)
    accepted = top >= threshold
    return Prediction(xp.where(accepted, xp.argmax(counts, axis=-1), ABSTAIN)[()], counts)


def check_request(sigma, n0: int, n: int, alpha: float) -> None:
    """Raises ValueError for a request that cannot be met, before anything is computed."""
    bounds.check_alpha(alpha)
    if not isinstance(sigma, jax.core.Tracer) and not 0 < np.float32(sigma) < np.inf:
        raise ValueError(f"sigma is the standard deviation of the noise and must be positive and finite, not {sigma}")
    if n0 < 1:
        raise ValueError(f"n0 = {n0} samples select no class; it must be at least 1")
    if n < bounds.smallest_n(alpha):
        raise ValueError(
            f"n = {n} samples can certify nothing at alpha = {alpha}: even if all agree the bound stays below "
            f"1/2. The smallest n that could is {bounds.smallest_n(alpha)}"
        )
    if max(n0, n) > MAX_N:
        raise ValueError(f"n0 = {n0} and n = {n} must be at most {MAX_N}: samples are numbered in 32 bits")


def check_prediction(sigma, n: int, alpha: float) -> None:
    """Raises ValueError for a request of PREDICT that cannot be met, before anything is computed."""
    bounds.check_alpha(alpha)
    if n < bounds.smallest_n(alpha / 2):
        raise ValueError(
            f"n = {n} samples can decide nothing at alpha = {alpha}; the smallest n that could is "
            f"{bounds.smallest_n(alpha / 2)}"
        )
    check_request(sigma, 1, n, alpha)


class _Stages(NamedTuple):
    stage: Int[Array, ""]
    policy: object
    counts: Int[Array, "stages num_classes"]


def _certification(policy: Search, ns: Int[Array, "stages"], classes: int) -> Search:
    """CERTIFY as a search over queries: the policy's own, then selection and estimation at the sigma it chose.

    All stages are turns of one loop, so that the network stands once in the compiled program.
    """
    first_stage = jnp.where(policy.done(policy.init), SELECTION, SEARCH).astype(jnp.int32)
    init = _Stages(first_stage, policy.init, jnp.zeros((END, classes), jnp.int32))

    def ask(state):
        searching = state.stage == SEARCH
        query = policy.ask(state.policy)
        return Query(
            sigma=jnp.where(searching, query.sigma, policy.best(state.policy)),
            n=ns[state.stage],
            stage=state.stage,
            draw=jnp.where(searching, query.draw, 0),
        )

    def tell(state, counts):
        searching = state.stage == SEARCH
        told = policy.tell(state.policy, counts)
        stays = searching & ~policy.done(told)
        return _Stages(
            stage=jnp.where(stays, SEARCH, state.stage + 1),
            policy=jax.tree.map(lambda new, old: jnp.where(searching, new, old), told, state.policy),
            counts=state.counts.at[state.stage].set(counts),
        )

    return Search(init, ask, tell, lambda state: state.stage == END, lambda state: policy.best(state.policy))


def _oracle(classify, image, key, batch_size, devices):
    """The count oracle of one image: Query -> class counts."""

    def answer(query):
        stream = jax.random.fold_in(jax.random.fold_in(key, query.stage), query.draw)
        return sample_counts(
            classify, image, query.sigma, stream, query.n, batch_size=batch_size, axis_name=_axis_name(devices)
        )

    return answer


def _axis_name(devices):
    return "devices" if devices else None


def _over_images(one_image):
    """Jits a function of (classify, image, sigma, key, *numbers), for one image or under vmap over several.

    With `devices` it runs on all of them in step, each with its share of the noisy copies.
    """

    @functools.partial(jax.jit, static_argnames=("search", "batch_size", "devices"))
    def program(classify, images, sigma, keys, *numbers, devices, **static):
        def whole(classify, images, sigma, keys, *numbers):
            def one(image, key):
                return one_image(classify, image, sigma, key, *numbers, devices=devices, **static)

            return one(images, keys) if images.ndim == 3 else jax.vmap(one)(images, keys)

        if devices:
            mesh, everywhere = replicated(devices).mesh, jax.sharding.PartitionSpec()
            whole = jax.shard_map(whole, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)
        return whole(classify, images, sigma, keys, *numbers)

    def place_and_run(*args, devices, **static):
        if devices:
            args = jax.device_put(args, replicated(devices))
        return program(*args, devices=devices, **static)

    return place_and_run


def replicated(devices: Sequence[jax.Device]) -> jax.sharding.NamedSharding:
    """The sharding that puts a copy of an array on each of `devices`.

    Weights placed so beforehand, `jax.device_put(classify, replicated(devices))`, are not copied at every call.
    """
    return jax.sharding.NamedSharding(jax.sharding.Mesh(devices, "devices"), jax.sharding.PartitionSpec())


@_over_images
def _draw(classify, image, sigma, key, ns, search, batch_size, devices):
    oracle, trace = _oracle(classify, image, key, batch_size, devices), None
    if isinstance(search, DDRS):  # needs gradients, which no oracle of counts can give
        trace = ascend(search, classify, image, sigma, key, batch_size=batch_size, axis_name=_axis_name(devices))
        sigma = trace.sigma
    policy = qcrs_policy(search, sigma) if isinstance(search, QCRS) else fixed_policy(sigma)
    procedure = _certification(policy, ns, num_classes(classify, image.shape))
    final = run(procedure, oracle)
    if isinstance(search, QCRS):
        trace = final.policy.trace
    return final.counts[SELECTION], final.counts[ESTIMATION], procedure.best(final), trace


@_over_images
def _search(classify, image, sigma, key, search, batch_size, devices):
    if isinstance(search, DDRS):
        return ascend(search, classify, image, sigma, key, batch_size=batch_size, axis_name=_axis_name(devices))
    return run(qcrs_policy(search, sigma), _oracle(classify, image, key, batch_size, devices)).trace


@_over_images
def _predict_counts(classify, image, sigma, key, n, batch_size, devices):
    query = Query(sigma, n, jnp.int32(ESTIMATION), jnp.int32(0))
    return _oracle(classify, image, key, batch_size, devices)(query)


@_over_images
def _curve_counts(classify, image, sigmas, key, n, batch_size, devices):
    oracle = _oracle(classify, image, key, batch_size, devices)
    return jax.lax.map(lambda sigma: oracle(Query(sigma, n, jnp.int32(CURVE), jnp.int32(0))), sigmas)


def _image_keys(key, images):
    if images.ndim == 3:
        return key
    if images.ndim != 4:
        raise ValueError(f"images must have shape (h, w, c) or (m, h, w, c), not {images.shape}")
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(images.shape[0]))
