"""One-dimensional maximisers over a bracket, for functions that are costly and noisy. They know nothing of smoothing.

A search is a state machine of pure functions: it asks for a point, is told the value there, and in the end
names the best point. `run` drives one under `lax.while_loop` with a single call of the function in the loop's
body, so that a function that holds a whole network is compiled once.

Every search asks for `start` first: the point that is used when there is nothing better.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Real

Scalar = Real[ArrayLike, ""]

GOLDEN = (math.sqrt(5) - 1) / 2


class Search(NamedTuple):
    """A search in ask-and-tell form; `state` is any pytree of arrays.

    init: the first state.
    ask: state -> what to evaluate next.
    tell: (state, what the evaluation gave) -> state.
    done: state -> whether to stop.
    best: state -> the answer, once done.
    """

    init: Any
    ask: Callable[[Any], Any]
    tell: Callable[[Any, Any], Any]
    done: Callable[[Any], Bool[Array, ""]]
    best: Callable[[Any], Any]


def run(search: Search, evaluate: Callable[[Any], Any]) -> Any:
    """The final state of `search` when each thing it asks is answered by `evaluate`; jit- and vmap-compatible."""
    return jax.lax.while_loop(
        lambda state: ~search.done(state),
        lambda state: search.tell(state, evaluate(search.ask(state))),
        search.init,
    )


def maximise(search: Search, function: Callable[[Float[Array, ""]], Scalar]) -> Float[Array, ""]:
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


def golden_section(lower: Scalar, upper: Scalar, tolerance: Scalar, start: Scalar) -> Search:
    """Golden-section search (Kiefer 1953): one evaluation narrows the bracket by 0.618.

    Stops when the bracket is at most `tolerance` wide, and answers the best point it evaluated, `start`
    included. Where the two interior values tie, as on a plateau, it goes towards the best point so far.
    """
    lower, upper, tolerance, start = _bracket(lower, upper, tolerance, start)
    left, right = _interior(lower, upper)
    unknown = jnp.float32(-jnp.inf)
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
        left, right = _interior(lower, upper)
        return s._replace(
            lower=lower,
            upper=upper,
            left=jnp.where(keeps_left, left, s.right),
            left_value=jnp.where(keeps_left, unknown, s.right_value),
            right=jnp.where(keeps_left, s.left, right),
            right_value=jnp.where(keeps_left, s.left_value, unknown),
            asks_left=keeps_left,
        )

    return Search(init, ask, tell, lambda s: (s.told >= 3) & (s.upper - s.lower <= tolerance), lambda s: s.best)


class _Bisection(NamedTuple):
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    below: Float[Array, ""]  # the value just below the midpoint
    start_value: Float[Array, ""]
    best: Float[Array, ""]
    moved_up: Bool[Array, ""]
    phase: Int[Array, ""]


_PILOT, _BELOW, _ABOVE, _START, _FOUND, _END = range(6)


def bisection(lower: Scalar, upper: Scalar, tolerance: Scalar, start: Scalar, step: Scalar, floor: Scalar) -> Search:
    """Bisection on the sign of the central difference f(m + step) - f(m - step), as QCRS published it.

    A positive difference moves the lower end to the midpoint m, a negative one the upper end. A zero (a
    plateau) moves the upper end first and then always the other end than the last move. When the bracket is at
    most `tolerance` wide, `start` and the midpoint are evaluated afresh, and the midpoint has to be strictly
    better. Two departures: points below `floor` are raised to it, where the published program evaluates a
    negative sigma; and the value at `start` that every search asks first is not used.

    Source: Kung and Chen, AAAI 2024, algorithm 1, and the program published with it.
    """
    lower, upper, tolerance, start = _bracket(lower, upper, tolerance, start)
    step, floor = jnp.asarray(step, jnp.float32), jnp.asarray(floor, jnp.float32)
    zero = jnp.float32(0)
    init = _Bisection(lower, upper, zero, zero, start, jnp.bool_(True), jnp.int32(_PILOT))

    def ask(s):
        middle = (s.lower + s.upper) / 2
        below, above = jnp.maximum(middle - step, floor), jnp.maximum(middle + step, floor)
        return jnp.stack([start, below, above, start, middle, middle])[s.phase]

    def tell(s, value):
        value = jnp.asarray(value, jnp.float32)
        middle = (s.lower + s.upper) / 2
        slope = value - s.below
        up = (slope > 0) | ((slope == 0) & ~s.moved_up)
        moves = s.phase == _ABOVE
        new_lower = jnp.where(moves & up, middle, s.lower)
        new_upper = jnp.where(moves & ~up, middle, s.upper)
        after_move = jnp.where(new_upper - new_lower > tolerance, _BELOW, _START)
        return _Bisection(
            lower=new_lower,
            upper=new_upper,
            below=jnp.where(s.phase == _BELOW, value, s.below),
            start_value=jnp.where(s.phase == _START, value, s.start_value),
            best=jnp.where((s.phase == _FOUND) & (value > s.start_value), middle, s.best),
            moved_up=jnp.where(moves, up, s.moved_up),
            phase=jnp.where(moves, after_move, s.phase + 1),
        )

    return Search(init, ask, tell, lambda s: s.phase == _END, lambda s: s.best)


class _Grid(NamedTuple):
    best: Float[Array, ""]
    best_value: Float[Array, ""]
    told: Int[Array, ""]


def grid(lower: Scalar, upper: Scalar, tolerance: Scalar, start: Scalar) -> Search:
    """Exhaustive search of evenly spaced points, both ends included, at most `tolerance` apart."""
    lower, upper, tolerance, start = _bracket(lower, upper, tolerance, start)
    # A quotient such as 0.82 / 0.02 may come out just above the whole number that it is.
    steps = jnp.maximum(jnp.ceil((upper - lower) / tolerance - 1e-4), 1)
    init = _Grid(start, jnp.float32(-jnp.inf), jnp.int32(0))

    def ask(s):
        return jnp.where(s.told == 0, start, lower + (upper - lower) * (s.told - 1) / steps)

    def tell(s, value):
        value = jnp.asarray(value, jnp.float32)
        better = value > s.best_value
        return _Grid(jnp.where(better, ask(s), s.best), jnp.where(better, value, s.best_value), s.told + 1)

    return Search(init, ask, tell, lambda s: s.told > steps + 1, lambda s: s.best)


def evaluations(name: str, lower: float, upper: float, tolerance: float) -> int:
    """How many points the named search ("golden", "bisection" or "grid") evaluates, `start` included."""
    ratio = (upper - lower) / tolerance
    if name == "golden":
        return 2 + max(1, math.ceil(math.log(ratio, 1 / GOLDEN) - 1e-4)) if ratio > 1 else 3
    if name == "bisection":
        return 3 + 2 * max(1, math.ceil(math.log2(ratio) - 1e-4)) if ratio > 1 else 5
    if name == "grid":
        return 2 + max(1, math.ceil(ratio - 1e-4))
    raise ValueError(f"unknown search {name!r}: choose golden, bisection or grid")


def _interior(lower, upper):
    return upper - GOLDEN * (upper - lower), lower + GOLDEN * (upper - lower)


def _bracket(lower, upper, tolerance, start):
    """The four as float32, the tolerance raised to what float32 can still tell apart, so that every search ends."""
    lower, upper, tolerance, start = (jnp.asarray(v, jnp.float32) for v in (lower, upper, tolerance, start))
    finest = 1e-6 * jnp.maximum(jnp.abs(lower), jnp.abs(upper))
    return lower, upper, jnp.maximum(tolerance, finest), start
