"""The noise: normal to its tails, the documented one, and a function of key and sample alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from reference_noise import quantiles, reference_noise, threefry
from scipy import special, stats

from qcrs_jax.sampling.noise import _one_by_one, _together, gaussian_noise, normal_numbers, threefry2x32
from qcrs_jax.sampling.smoothing import GridGaussian, _rounded, _rounded_by_rows, _uniform

KEYS = {prng: jax.random.key(3, impl=impl) for prng, impl in (("threefry", "threefry2x32"), ("rbg", "rbg"))}
SHAPE = (5, 4, 3)


def words(k):
    """The words of positive numbers with magnitude k, of 62 bits."""
    return (k >> 31).astype(np.uint32), (k << 1 & 0xFFFFFFFF).astype(np.uint32)


def test_threefry_gives_the_published_words():
    # The known answers of Random123, and JAX's own.
    known = {
        (0, 0, 0, 0): (0x6B200159, 0x99BA4EFE),
        (0xFFFFFFFF,) * 4: (0x1CB996FC, 0xBB002BE7),
        (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3): (0xC4923A9C, 0x483DF7A0),
    }
    for inputs, outputs in known.items():
        inputs = np.array(inputs, np.uint32)
        assert tuple(int(word) for word in threefry2x32(*map(jnp.uint32, inputs))) == outputs
        assert tuple(threefry_2x32(inputs[:2], inputs[2:]).tolist()) == outputs


def test_every_magnitude_is_the_quantile_of_its_bits():
    rng = np.random.default_rng(0)
    spread = rng.integers(0, 2**62, 200_000) >> rng.integers(0, 62, 200_000)  # every order of magnitude alike
    ends = np.arange(300)
    corners = 2 ** np.arange(62) - 1
    k = np.concatenate([spread, ends, 2**62 - 1 - ends, 2**62 - 1 - spread, corners, 2 ** np.arange(62)])
    first, second = words(k)
    ours, exact = np.asarray(normal_numbers(first, second), float), quantiles(first, second)
    assert np.all(np.abs(ours - exact) <= 4e-7 * exact + 5e-10)
    # What is promised of T(Z): also from the edges of the cell that `exact` is the middle of.
    tail = np.stack([np.maximum(k, 1e-9), k + 1.0]) / 2.0**62
    inside = -special.ndtri(tail / 2)
    for limit, relative, absolute in ((7.5, 5e-7, 1e-9), (8, 0, 1.5e-5)):
        chosen = (exact > 0.5) & (inside[0] <= limit)
        assert np.all(np.abs(ours - inside)[:, chosen] <= relative * inside[:, chosen] + absolute)
    assert 9.08 < ours.max() < 9.09 and np.isfinite(ours).all() and ours.min() > 0


def test_signs_are_symmetric():
    first, second = threefry(KEYS["threefry"], 0, 1000)
    np.testing.assert_array_equal(normal_numbers(first ^ np.uint32(2**31), second), -normal_numbers(first, second))


@pytest.mark.parametrize("prng", KEYS)
@pytest.mark.slow_for("rbg")
def test_a_million_numbers_are_normal(prng):
    noise = np.asarray(gaussian_noise(KEYS[prng], jnp.arange(400), (50, 50)), float)
    z = noise.ravel()
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        spread = np.sqrt(stats.norm.moment(2 * power) - moment**2)
        assert abs((z**power).mean() - moment) < 4 * spread / np.sqrt(z.size)
    assert stats.kstest(z, "norm").pvalue > 0.001
    p = np.sort(special.ndtr(z))
    number = np.arange(1, z.size + 1)
    anderson_darling = -z.size - ((2 * number - 1) * (np.log(p) + np.log1p(-p[::-1]))).mean()
    assert anderson_darling < 6.0  # exceeded with probability 0.001
    for one, other in ((noise[:-1], noise[1:]), (noise[:, :-1], noise[:, 1:]), (noise[..., :-1], noise[..., 1:])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(one.size)


@pytest.mark.slow
def test_the_tails_hold_as_many_as_they_should():
    drawn = 2**26
    count = jax.jit(
        lambda key: jax.lax.map(
            lambda i: (jnp.abs(gaussian_noise(key, i[None], (2**18,))) > jnp.array([[4.0], [4.5], [5.0]])).sum(1),
            jnp.arange(2**8),
        ).sum(0)
    )
    for found, level in zip(count(KEYS["threefry"]), (4, 4.5, 5)):
        low, high = stats.poisson.interval(0.999, 2 * drawn * special.ndtr(-level))
        assert low <= found <= high


def test_the_noise_is_the_documented_one():
    index = np.array([0, 7, 2**31 - 1])
    ours = gaussian_noise(KEYS["threefry"], jnp.asarray(index), SHAPE)
    np.testing.assert_allclose(
        ours, [reference_noise(KEYS["threefry"], i, SHAPE) for i in index], rtol=4e-7, atol=5e-10
    )


@pytest.mark.slow
@pytest.mark.parametrize("prng", KEYS)
def test_the_noise_of_a_sample_depends_on_nothing_else(prng):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEYS[prng], jnp.arange(3))
    alone = np.stack([[gaussian_noise(key, jnp.array([i]), SHAPE)[0] for i in range(4)] for key in keys])
    for draw in (
        lambda key: gaussian_noise(key, jnp.arange(4), SHAPE),
        lambda key: gaussian_noise(key, jnp.arange(3, -1, -1), SHAPE)[::-1],
        lambda key: jax.vmap(lambda i: gaussian_noise(key, i[None], SHAPE)[0])(jnp.arange(4)),
    ):
        np.testing.assert_array_equal(jax.jit(jax.vmap(draw))(keys), alone)
    with jax.enable_x64(True), jax.threefry_partitionable(False):
        np.testing.assert_array_equal(gaussian_noise(keys[0], jnp.arange(4, dtype=jnp.int32), SHAPE), alone[0])


@pytest.mark.parametrize(
    ("make", "more"),
    [(normal_numbers, ()), (_rounded, GridGaussian().level(0.25)), (_uniform, ())],
    ids=["normal", "grid", "uniform"],
)
def test_the_program_for_accelerators_draws_the_same(make, more):
    words, index = jax.random.key_data(KEYS["threefry"]), jnp.arange(4, dtype=jnp.uint32)
    draws = (functools.partial(draw, make=make, shape=SHAPE) for draw in (_together, _one_by_one))
    together, one_by_one = (jax.jit(draw)(words, index, *more) for draw in draws)
    np.testing.assert_array_equal(together, one_by_one)


@pytest.mark.parametrize("sigma", [0.02, 0.25, 3.5])
def test_the_program_for_tpus_rounds_the_same(sigma):
    words, index, level = (
        jax.random.key_data(KEYS["threefry"]),
        jnp.arange(40, dtype=jnp.uint32),
        GridGaussian().level(sigma),
    )
    dense = jax.jit(functools.partial(_together, make=_rounded, shape=(33, 20, 3)))(words, index, *level)
    rows = jax.jit(functools.partial(_rounded_by_rows, shape=(33, 20, 3)))(words, index, *level)
    np.testing.assert_array_equal(rows, dense)


def test_keys_of_other_generators_are_refused():
    with pytest.raises(ValueError, match="unsafe_rbg"):
        gaussian_noise(jax.random.key(3, impl="unsafe_rbg"), jnp.arange(2), SHAPE)
