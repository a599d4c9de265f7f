"""Exports the whole certification of an image as one program in a file, which JAX runs without this package."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import export

from ..checks import check_execution, instance_of, whole_number
from ..errors import SettingError
from ..sampling.classifiers import Classifier, as_pytree
from ..sampling.counts import default_batch_size
from ..sampling.smoothing import GAUSSIAN, Noise
from ..search import FixedSigma, Search
from .certificate import check_request
from .estimates import Fixed
from .procedure import draw_votes

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export_certification(
    classify: Classifier,
    image_shape: tuple[int, int, int],
    *,
    search: Search | None = None,
    noise: Noise = GAUSSIAN,
    n: int = 100_000,
    alpha: float = 0.001,
    estimate: Fixed = Fixed(),  # noqa: B008
    batch_size: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> export.Exported:
    """Returns `certify` up to its counts, compiled for `platforms` when it is called there. The weights are inside.

    Its `serialize()` is the content of a file, and `jax.export.deserialize` gives the program back. It is called with
    (image, key, sigma, n0, n). image is float32 (h, w, c) in [0, 1]. key is uint32 (2,), the `jax.random.key_data` of a
    threefry key. sigma is float32, n0 and n are int32.

    It returns a dict. "counts0" are the class counts of the n0 samples that select the class, "counts" those of the n
    that certify it, and "sigma" is their noise level. They are those of `certify` with the same key.

    Args:
        classify: the classifier, as for `certify`.
        image_shape: (h, w, c).
        search: search that chooses sigma; None keeps it fixed.
        noise: noise that is added, as for `certify`. With noise on a grid the program rounds images to the grid.
        n, alpha, estimate: those of the certificate that a search looks ahead to. The program may be called with
            another n, and certifies as well.
        batch_size: noisy copies per forward pass. It changes no count.
        platforms: names of platforms, among `PLATFORMS`.

    Raises:
        TypeError: `search` is no search, or `classify` no classifier.
        ValueError: no count can certify with this n, or a platform is unknown.
    """
    if unknown := set(platforms) - set(PLATFORMS):
        raise SettingError(f"unknown platform {sorted(unknown)[0]!r}; {{platforms}} takes {', '.join(PLATFORMS)}")
    check_execution(classify, batch_size, None)
    search = FixedSigma() if search is None else search
    instance_of("search", search, (Search,), "search=GoldenSection(0.08, 0.9)")
    n = whole_number("n", n, least=None)
    check_request(1.0, 1, n, alpha, estimate)
    search.check_noise(noise)
    tables = search.tables(estimate.aim(n, float(alpha), noise))

    def certification(image, key, sigma, n0, n):
        votes0, votes, _, _, sigma, _ = draw_votes(
            as_pytree(classify),
            image,
            (
                sigma,
                jax.random.wrap_key_data(key, impl="threefry2x32"),
                jnp.stack([jnp.int32(search.search_n), n0, n]),
                None,
            ),
            search,
            tables,
            None,
            None,
            noise=noise,
            beta=None,
            batch_size=batch_size or max(default_batch_size(image_shape, platform) for platform in platforms),
            devices=None,
        )
        return {"counts0": votes0.counts, "counts": votes.counts, "sigma": sigma}

    number = jax.ShapeDtypeStruct((), jnp.int32)
    arguments = (
        jax.ShapeDtypeStruct(image_shape, jnp.float32),
        jax.ShapeDtypeStruct((2,), jnp.uint32),
        jax.ShapeDtypeStruct((), jnp.float32),
        number,
        number,
    )
    return export.export(jax.jit(certification), platforms=tuple(platforms))(*arguments)
