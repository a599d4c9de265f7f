"""The whole certification of an image as one program in a file, which JAX runs without this package."""

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
    batch_size: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> export.Exported:
    """`certify` up to its counts, compiled for `platforms` when it is called there; the weights are inside.

    Its `serialize()` is the content of a file, and `jax.export.deserialize` gives it back. It is called with
    (image, key, sigma, n0, n): float32 (h, w, c) in [0, 1]; uint32 (2,), `jax.random.key_data` of a threefry key;
    float32; int32; int32. It returns a dict: "counts0" and "counts", the class counts of the n0 samples that select
    the class and of the n that certify it, and their "sigma". They are those of `certify` with the same key.

    Args:
        search: what chooses sigma; None keeps it fixed.
        noise: what is added, as of `certify`. On a grid the program rounds images to it.
        n, alpha: of the certificate that a search is to look ahead to; another n may be asked of the program, and
            certifies as well.
        batch_size: noisy copies per forward pass; changes no count.

    Raises:
        TypeError: a search, or a classifier, that is none.
        ValueError: an n at which no count can certify, or an unknown platform.
    """
    if unknown := set(platforms) - set(PLATFORMS):
        raise SettingError(f"unknown platform {sorted(unknown)[0]!r}; {{platforms}} takes {', '.join(PLATFORMS)}")
    check_execution(classify, batch_size, None)
    search = FixedSigma() if search is None else search
    instance_of("search", search, (Search,), "search=GoldenSection(0.08, 0.9)")
    n = whole_number("n", n, least=None)
    check_request(1.0, 1, n, alpha)
    search.check_noise(noise)
    tables = search.tables(n, alpha, noise)

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
