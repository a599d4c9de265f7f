"""One-dimensional maximisers over a bracket, for functions that are costly and noisy. They know nothing of smoothing.

A search is a state machine of pure functions. It asks for a point, receives the value there, and in the end names the
best point. `run` drives a search under `lax.while_loop`. The body of that loop calls the function only once, so a
function that holds a whole network is compiled once.

Every search asks for `start` first: the point that is used when there is nothing better.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Real

Scalar = Real[ArrayLike, ""]

GOLDEN = (math.sqrt(5) - 1) / 2
_SHARES = (GOLDEN ** np.arange(1, 33)).astype(np.float32)  # more than float32 can narrow a bracket
SHRINK = 0.75
SLACK = 1 + 1e-4  # keeps rounding to float32 from deciding how often a stride shrinks


class AskTell(NamedTuple):
    """A search in ask-and-tell form; `state` is any pytree of arrays.

    init: the first state.
    ask: state -> the point to evaluate next.
    tell: (state, result of the evaluation) -> state.
    done: state -> whether to stop.
    best: state -> the answer, once done.
    """

    init: Any
    ask: Callable[[Any], Any]
    tell: Callable[[Any, Any], Any]
    done: Callable[[Any], Bool[Array, ""]]
    best: Callable[[Any], Any]


def run(search: AskTell, evaluate: Callable[[Any], Any]) -> Any:
    """The final state of `search`, where `evaluate` answers everything that it asks; jit- and vmap-compatible."""
    return jax.lax.while_loop(
        lambda state: ~search.done(state),
        lambda state: search.tell(state, evaluate(search.ask(state))),
        search.init,
    )


def maximise(search: AskTell, function: Callable[[Float[Array, ""]], Scalar]) -> Float[Array, ""]:
    """The point that `search` finds for `function`."""
    return search.best(run(search, function))


class _Golden(NamedTuple):
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    left: Float[Array, ""]  # the two interior points and their values
    left_value: Float[Array, ""]
    right: Float[Array, ""]
    right_value: Float[Array, ""]
    best: Float[Array, ""]
    best_value: Float[Array, ""]
    told: Int[Array, ""]
    asks_left: Bool[Array, ""]


def golden_section(
    lower: Scalar, upper: Scalar, tolerance: Scalar, start: Scalar, strides: Float[ArrayLike, "n"] | None = None
) -> AskTell:
    """Golden-section search (Kiefer 1953): one evaluation narrows the bracket by the factor 0.618.

    It stops when the bracket is at most `tolerance` wide. It answers the best point that it evaluated, `start`
    included. Where the two interior values tie, as on a plateau, it goes towards the best point so far.

    Args:
        lower, upper: ends of the bracket.
        tolerance: width of the bracket at which it stops.
        start: the first point to evaluate.
        strides: distances from the ends of the bracket to the points inside, as `golden_strides` computes them on the
            host. Then every point is one sum of two numbers, which rounds the same in all programs. A compiler may join
            a product and a sum into one operation, or not, depending on the code around them.
    """
    lower, upper, tolerance, start = _bracket(lower, upper, tolerance, start)
    strides = jnp.asarray((upper - lower) * _SHARES if strides is None else strides, jnp.float32)
    unknown = jnp.float32(-jnp.inf)
    left, right = upper - strides[0], lower + strides[0]
    init = _Golden(lower, upper, left, unknown, right, unknown, start, unknown, jnp.int32(0), jnp.bool_(True))

    def ask(s):
        return jnp.where(s.told == 0, start, jnp.where(s.asks_left, s.left, s.right))

    def tell(s, value):
        value = jnp.asarray(value, jnp.float32)
        point, first = ask(s), s.told == 0
        better = value > s.best_value
        s = s._replace(
            best=jnp.where(better, point, s.best),
            best_value=jnp.where(better, value, s.best_value),
            left_value=jnp.where(~first & s.asks_left, value, s.left_value),
            right_value=jnp.where(~first & ~s.asks_left, value, s.right_value),
            asks_left=jnp.where(first, True, ~s.asks_left),
            told=s.told + 1,
        )
        return jax.tree.map(lambda a, b: jnp.where(s.told < 3, a, b), s, narrow(s))

    def narrow(s):
        towards_best = s.best < (s.lower + s.upper) / 2
        keeps_left = jnp.where(s.left_value == s.right_value, towards_best, s.left_value > s.right_value)
        lower, upper = jnp.where(keeps_left, s.lower, s.left), jnp.where(keeps_left, s.right, s.upper)
        stride = strides[jnp.clip(s.told - 2, 0, len(strides) - 1)]
        return s._replace(
            lower=lower,
            upper=upper,
            left=jnp.where(keeps_left, upper - stride, s.right),
            left_value=jnp.where(keeps_left, unknown, s.right_value),
            right=jnp.where(keeps_left, s.left, lower + stride),
            right_value=jnp.where(keeps_left, s.left_value, unknown),
            asks_left=keeps_left,
        )

    return AskTell(init, ask, tell, lambda s: (s.told >= 3) & (s.upper - s.lower <= tolerance), lambda s: s.best)


class _Climb(NamedTuple):
    place: tuple[Float[Array, ""], Float[Array, ""]]
    below: Float[Array, ""]  # the value just below the place's point
    start_value: Float[Array, ""]
    best: Float[Array, ""]
    moved_up: Bool[Array, ""]
    phase: Int[Array, ""]


_PILOT, _BELOW, _ABOVE, _START, _FOUND, _END = range(6)


def bisection(lower: Scalar, upper: Scalar, tolerance: Scalar, start: Scalar, step: Scalar, floor: Scalar) -> AskTell:
    """Bisection on the sign of the central difference f(m + step) - f(m - step), as QCRS published it.

    A positive difference moves the lower end of the bracket to the midpoint m, a negative one the upper end. A zero
    difference (a plateau) first moves the upper end, and then always the end that did not move last. When the bracket
    is at most `tolerance` wide, `start` and the midpoint are evaluated afresh. The midpoint is the answer only if it is
    strictly better.

    There are two departures from the published program. Points below `floor` are raised to it; the program evaluates a
    negative sigma. The value at `start`, for which every search asks first, is not used.

    The program also has an older loop, which it does not call. That loop is this bisection up to details: the step is
    half the tolerance, it takes the differences at both ends first, and it answers an end where both have one sign.
    Where they differ, its moves go downhill. It is not repeated here.

    Source: Kung and Chen, AAAI 2024, algorithm 1, and the program published with it.
    """
    lower, upper, tolerance, start = _bracket(lower, upper, tolerance, start)

    def middle(bracket):
        return (bracket[0] + bracket[1]) / 2

    def move(bracket, up):
        return jnp.where(up, middle(bracket), bracket[0]), jnp.where(up, bracket[1], middle(bracket))

    def ends(bracket):
        return bracket[1] - bracket[0] <= tolerance

    return _climb((lower, upper), middle, move, ends, start, step, floor, moved_up=True)


def shrinking(lower: Scalar, upper: Scalar, tolerance: Scalar, start: Scalar, step: Scalar, floor: Scalar) -> AskTell:
    """Ascent from `start` by strides that shrink by 0.75. The sign of f(s + step) - f(s - step) decides up or down.

    A zero difference first goes up, and then always the other way than the last move. When the stride is at most
    `tolerance`, `start` and the point reached are evaluated afresh. The point reached is the answer only if it is
    strictly better. The maximum of a quasiconcave function, wherever in the bracket it is, is then at most 4/3 of
    `tolerance` and a step away.

    The published program contains this ascent but never calls it. There the first stride is given, no bracket keeps
    sigma positive, and the step is half the tolerance. Here the first stride is half the bracket, and no move leaves
    the bracket.

    Source: the program published with Kung and Chen, AAAI 2024.
    """
    lower, upper, tolerance, start = _bracket(lower, upper, tolerance, start)

    def move(place, up):
        point, stride = place
        return jnp.clip(jnp.where(up, point + stride, point - stride), lower, upper), SHRINK * stride

    def ends(place):
        return place[1] <= tolerance * SLACK

    place = (jnp.clip(start, lower, upper), (upper - lower) / 2)
    return _climb(place, lambda place: place[0], move, ends, start, step, floor, moved_up=False)


def _climb(place, point, move, ends, start, step, floor, moved_up) -> AskTell:
    """A search that moves a place by the sign of a central difference at its point, until `ends` holds.

    Args:
        place: the first place, two numbers.
        point: place -> the point that it stands for.
        move: (place, whether upwards) -> place.
        ends: place -> whether to compare its point with `start`, and stop.
        moved_up: assumed direction of the (non-existent) previous move; breaks a tie at the first step.
    """
    step, floor = jnp.asarray(step, jnp.float32), jnp.asarray(floor, jnp.float32)
    zero = jnp.float32(0)
    init = _Climb(place, zero, zero, start, jnp.bool_(moved_up), jnp.int32(_PILOT))

    def ask(s):
        at = point(s.place)
        below, above = jnp.maximum(at - step, floor), jnp.maximum(at + step, floor)
        return jnp.stack([start, below, above, start, at, at])[s.phase]

    def tell(s, value):
        value = jnp.asarray(value, jnp.float32)
        slope = value - s.below
        up = (slope > 0) | ((slope == 0) & ~s.moved_up)
        moves = s.phase == _ABOVE
        (first, second), (new_first, new_second) = s.place, move(s.place, up)
        place = jnp.where(moves, new_first, first), jnp.where(moves, new_second, second)
        after_move = jnp.where(ends(place), _START, _BELOW)
        return _Climb(
            place=place,
            below=jnp.where(s.phase == _BELOW, value, s.below),
            start_value=jnp.where(s.phase == _START, value, s.start_value),
            best=jnp.where((s.phase == _FOUND) & (value > s.start_value), point(s.place), s.best),
            moved_up=jnp.where(moves, up, s.moved_up),
            phase=jnp.where(moves, after_move, s.phase + 1),
        )

    return AskTell(init, ask, tell, lambda s: s.phase == _END, lambda s: s.best)


class _Grid(NamedTuple):
    best: Float[Array, ""]
    best_value: Float[Array, ""]
    told: Int[Array, ""]


def grid(lower: Scalar, upper: Scalar, tolerance: Scalar, start: Scalar) -> AskTell:
    """Exhaustive search of evenly spaced points, both ends included, at most `tolerance` apart."""
    lower, upper, tolerance, start = _bracket(lower, upper, tolerance, start)
    # A quotient such as 0.82 / 0.02 may be rounded to just above the whole number that it is.
    steps = jnp.maximum(jnp.ceil((upper - lower) / tolerance - 1e-4), 1)
    init = _Grid(start, jnp.float32(-jnp.inf), jnp.int32(0))

    def ask(s):
        return jnp.where(s.told == 0, start, lower + (upper - lower) * (s.told - 1).astype(jnp.float32) / steps)

    def tell(s, value):
        value = jnp.asarray(value, jnp.float32)
        better = value > s.best_value
        return _Grid(jnp.where(better, ask(s), s.best), jnp.where(better, value, s.best_value), s.told + 1)

    return AskTell(init, ask, tell, lambda s: s.told.astype(jnp.float32) > steps + 1, lambda s: s.best)


def golden_evaluations(lower: float, upper: float, tolerance: float) -> int:
    """The number of points that `golden_section` evaluates, `start` included."""
    ratio = (upper - lower) / tolerance
    return 2 + max(1, math.ceil(math.log(ratio, 1 / GOLDEN) - 1e-4)) if ratio > 1 else 3


def bisection_evaluations(lower: float, upper: float, tolerance: float) -> int:
    """The number of points that `bisection` evaluates, `start` included."""
    ratio = (upper - lower) / tolerance
    return 3 + 2 * max(1, math.ceil(math.log2(ratio) - 1e-4)) if ratio > 1 else 5


def shrinking_evaluations(lower: float, upper: float, tolerance: float) -> int:
    """The number of points that `shrinking` evaluates, `start` included."""
    ratio = (upper - lower) / tolerance
    return 3 + 2 * max(1, math.ceil(math.log(ratio / 2 / SLACK, 1 / SHRINK))) if ratio > 2 else 5


def grid_evaluations(lower: float, upper: float, tolerance: float) -> int:
    """The number of points that `grid` evaluates, `start` included."""
    return 2 + max(1, math.ceil((upper - lower) / tolerance - 1e-4))


def golden_strides(lower: float, upper: float) -> Float[np.ndarray, "n"]:
    """The distances from an end of the bracket to the point inside, in float32: one for each narrowing."""
    return _SHARES * (np.float32(upper) - np.float32(lower))


def _bracket(lower, upper, tolerance, start):
    """The four numbers as float32. The tolerance is at least what float32 can resolve, so that every search ends."""
    lower, upper, tolerance, start = (jnp.asarray(v, jnp.float32) for v in (lower, upper, tolerance, start))
    finest = 1e-6 * jnp.maximum(jnp.abs(lower), jnp.abs(upper))
    return lower, upper, jnp.maximum(tolerance, finest), start
