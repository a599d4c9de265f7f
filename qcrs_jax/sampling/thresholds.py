"""Thresholds of 62-bit random magnitudes: the places where a rounded normal number changes, from whole numbers alone.

A standard normal Z has a magnitude above t with probability Q(t) = erfc(t / sqrt(2)). A magnitude drawn as a whole
number k, uniform on 0 to 2**62 - 1, lies above t where k < 2**62 Q(t). `thresholds` computes these numbers for the t at
which scale * |Z|, rounded to a whole number, changes: t = (i - 1/2) / scale, i = 1, 2, ... They are computed for any
scale inside jit, in whole numbers of 64 bits, each two words of 32 bits. They are the same on every platform, and right
to `UNITS` units of 2**-62.

Q is a polynomial of degree 8 on each of 592 pieces of [0, 9.25). Beyond, 2**62 Q is less than 1/4: a threshold of 0.
"""

import decimal
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

COUNT = 2**13
"""The number of thresholds: the largest whole number to which scale * |Z| is rounded."""
FARTHEST = 9.1
"""No magnitude lies beyond: the quantile of the smallest, 2**-63, is 9.08."""
UNITS = 32
"""The largest error of a threshold, in units of 2**-62: 3 from each of 5 long products, half from each coefficient, and
less than one from short products, from what the series leaves out, and from rounding. The tests find up to 7."""
LARGEST_STEPS = 255
"""The largest `steps`: the remainders of a division fit into 32 bits."""

_PIECES = 592
_PIECE = 64  # pieces to a unit of t
_LONG = 5  # coefficients of 64 bits; the following ones fit into 32
_SHORT = 4
_FRACTION = 40  # bits behind the point of a place among the pieces
_QUOTIENT = 48  # bits that a division gives


def largest_sigma(steps: int) -> float:
    """The largest sigma at which the thresholds separate all magnitudes, for `steps` steps in one unit."""
    return (COUNT - 1) / (FARTHEST * steps)


def thresholds(sigma: Float[Array, ""], steps: int) -> tuple[UInt32[Array, "8192"], UInt32[Array, "8192"]]:
    """The upper and the lower 31 bits of 2**62 Q((i - 1/2) / (sigma * steps)), i = 1, 2, ..., in descending order.

    They belong to a sigma that is larger by a share of at most 2**-33, if sigma is at most `largest_sigma(steps)`.

    Args:
        sigma: float32, positive.
        steps: 1 to LARGEST_STEPS.
    """
    place = _times(_pieces_to_a_step(sigma, steps), 2 * jnp.arange(1, COUNT + 1, dtype=jnp.uint32) - 1)
    piece = place[0] >> np.uint32(_FRACTION - 32)
    u = _shifted_left(place, 64 - _FRACTION)  # how far into the piece, in units of 2**-64
    at = jnp.minimum(piece, _PIECES - 1).astype(jnp.int32)
    short, high, low = (jnp.asarray(table)[:, at] for table in _coefficients())
    value = short[-1]
    for coefficient in short[-2::-1]:
        value = coefficient + _upper_of_signed(value, u[0])
    value = jax.lax.bitcast_convert_type(value, jnp.uint32)
    value = _negative(value), value  # the sign, in all bits of the upper word
    for coefficient in zip(high[::-1], low[::-1]):
        value = _sum(coefficient, _upper_of_product(value, u))
    there = (piece < _PIECES) & (_negative(value[0]) == 0)
    upper = jnp.where(there, value[0] << 1 | value[1] >> 31, 0)
    return upper, jnp.where(there, value[1] & np.uint32(2**31 - 1), 0)


def _pieces_to_a_step(sigma, steps):
    """_PIECE / (2 sigma steps), two words with _FRACTION bits behind the point; rounded down, and at most 2**10.

    This is the number of pieces between the middle and the end of the numbers that are rounded to one. Where it is
    2**10, no magnitude reaches the first threshold.
    """
    bits = jax.lax.bitcast_convert_type(jnp.asarray(sigma, jnp.float32), jnp.uint32)
    exponent = (bits >> 23).astype(jnp.int32) - 150  # sigma = significand * 2**exponent
    divisor = (bits & np.uint32(2**23 - 1) | np.uint32(2**23)) * np.uint32(steps)
    start = 22 + math.floor(math.log2(steps))  # 2**start is less than the divisor

    def digit(_, state):
        remainder, *quotient = state
        double = remainder << 1
        goes = (remainder >> 31 == 1) | (double >= divisor)
        high, low = _shifted_left(quotient, 1)
        return jnp.where(goes, double - divisor, double), high, low | goes.astype(jnp.uint32)

    zero = jnp.zeros_like(divisor)
    _, *quotient = jax.lax.fori_loop(0, _QUOTIENT, digit, (zero + np.uint32(2**start), zero, zero))
    # quotient = 2**(start + _QUOTIENT) / divisor, and wanted is _PIECE / 2 * 2**(_FRACTION - exponent) / divisor
    shift = start + _QUOTIENT - (int(math.log2(_PIECE // 2)) + _FRACTION - exponent)
    shift = jnp.clip(shift, -31, 63)
    right = _shifted_right(quotient, jnp.maximum(shift, 0).astype(jnp.uint32))
    left = _shifted_left(quotient, jnp.maximum(-shift, 0).astype(jnp.uint32))
    most = (jnp.uint32(1 << (10 + _FRACTION - 32)), jnp.uint32(0))
    leaves = quotient[0] >> jnp.clip(32 + shift, 0, 31).astype(jnp.uint32) != 0  # bits that a shift to the left loses
    found = tuple(jnp.where(shift > 0, down, up) for down, up in zip(right, left))
    over = (shift < 0) & leaves | (found[0] >= most[0])
    return tuple(jnp.where(over, m, f) for m, f in zip(most, found))


@functools.cache
def _coefficients():
    """The coefficients of Q on each piece, lowest power of u first, in units of 2**-62: short ones and long ones.

    Short are the higher ones, int32 (_SHORT, _PIECES). Long ones are two words each. All come, rounded, from the Taylor
    series at the left end, in 50 digits.
    """
    with decimal.localcontext() as context:
        context.prec = 50
        density = decimal.Decimal(2 / 1).sqrt() / _pi().sqrt()  # of |Z| at 0
        value, step = decimal.Decimal(1), decimal.Decimal(1) / _PIECE
        rows = []
        for piece in range(_PIECES):
            t = piece * step
            here = density * (-t * t / 2).exp()
            # Q' = -here, and the derivatives of here are Hermite polynomials times here, with changing signs.
            hermite, series = [decimal.Decimal(1), t], [value]
            for order in range(1, 24):
                series.append((-1) ** order * here * hermite[order - 1] * step**order / math.factorial(order))
                hermite.append(t * hermite[order] - order * hermite[order - 1])
            rows.append([int((c * 2**62).to_integral_value()) for c in series[: _LONG + _SHORT]])
            value = sum(series)
    table = np.array(rows, np.int64).T
    words = table[:_LONG].view(np.uint64)
    short = table[_LONG:].astype(np.int32)
    if np.any(short != table[_LONG:]):
        raise AssertionError("a short coefficient does not fit into 32 bits")
    return short, (words >> np.uint64(32)).astype(np.uint32), words.astype(np.uint32)


def _pi():
    """Pi in the digits of the context, by Machin's formula."""

    def arctan_of_inverse(x):
        power, total, n = decimal.Decimal(1) / x, decimal.Decimal(0), 0
        while power > decimal.Decimal(10) ** -55:
            total += (-1) ** n * power / (2 * n + 1)
            power, n = power / (x * x), n + 1
        return total

    return 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))


# Numbers of 64 bits are pairs of words, the upper one first. Sums and products leave out what lies beyond 64 bits.


def _product(a, b):
    """The two words of a product of two words."""
    half = np.uint32(0xFFFF)
    a1, a0, b1, b0 = a >> 16, a & half, b >> 16, b & half
    middle = a1 * b0 + (a0 * b0 >> 16)  # at most (2**16 - 1) * 2**16
    other = a0 * b1 + (middle & half)
    return a1 * b1 + (middle >> 16) + (other >> 16), a * b


def _sum(a, b):
    low = a[1] + b[1]
    return a[0] + b[0] + (low < b[1]).astype(jnp.uint32), low


def _times(a, b):
    """A pair times a word."""
    high, low = _product(a[1], b)
    return a[0] * b + high, low


def _shifted_left(a, by):
    """A pair shifted by 0 to 32 bits, or by more if that is known beforehand."""
    if isinstance(by, int) and by >= 32:
        return a[1] << np.uint32(by - 32), jnp.zeros_like(a[1])
    by = jnp.asarray(by, jnp.uint32)
    return a[0] << by | (a[1] >> 1) >> (31 - by), a[1] << by


def _shifted_right(a, by):
    """A pair shifted by 0 to 63 bits."""
    few = jnp.minimum(by, 31)
    near = a[0] >> few, a[1] >> few | (a[0] << 1) << (31 - few)
    far = jnp.zeros_like(a[0]), a[0] >> jnp.where(by >= 32, by - 32, 0)
    return tuple(jnp.where(by >= 32, f, n) for f, n in zip(far, near))


def _negative(word):
    """All bits set where a word in two's complement is negative, else none."""
    return jnp.where(word >= np.uint32(2**31), jnp.uint32(2**32 - 1), jnp.uint32(0))


def _upper_of_signed(a, u):
    """The upper word of an int32 times a word, int32, rounded down."""
    bits = jax.lax.bitcast_convert_type(a, jnp.uint32)
    upper = _product(bits, u)[0] - (u & _negative(bits))
    return jax.lax.bitcast_convert_type(upper, jnp.int32)


def _upper_of_product(a, u):
    """The upper pair of a signed pair times a pair, too small by less than 3 units: the lowest product is left out."""
    left, right = _product(a[0], u[1])[0], _product(a[1], u[0])[0]
    value = _sum(_product(a[0], u[0]), _sum((jnp.zeros_like(left), left), (jnp.zeros_like(right), right)))
    below = u[0] & _negative(a[0]), u[1] & _negative(a[0])
    low = value[1] - below[1]
    return value[0] - below[0] - (value[1] < below[1]).astype(jnp.uint32), low
