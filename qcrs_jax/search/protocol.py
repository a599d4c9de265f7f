"""The protocol of searches for sigma. A search sees the classifier through class counts, or begins with `begin`."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from ..errors import SettingError
from ..sampling.smoothing import Noise
from ..sampling.streams import SEARCH
from .aim import Aim
from .maximisers import AskTell


class Query(NamedTuple):
    """Asks for the class counts of n noisy copies at sigma, from sample `first` on. (stage, draw) names the noise."""

    sigma: Float[Array, ""]
    n: Int[Array, ""]
    stage: Int[Array, ""]
    draw: Int[Array, ""]
    first: Int[Array, ""] | int = 0


def query(sigma, n, draw) -> Query:
    """A query of the search."""
    return Query(sigma, jnp.asarray(n, jnp.int32), jnp.int32(SEARCH), jnp.asarray(draw, jnp.int32))


def _flatten(search):
    static = {name: value for name, value in vars(search).items() if name in search.static}
    numbers = {name: _number(value) for name, value in vars(search).items() if name not in search.static}
    return tuple(numbers.values()), (tuple(numbers), tuple(static.items()))


def _unflatten(cls, static, leaves):
    search, (names, rest) = object.__new__(cls), static
    for name, value in (*zip(names, leaves), *rest):
        object.__setattr__(search, name, value)
    return search


def _number(value):
    """A number of the host in the type that a program takes. A traced value, or no number, stays as it is."""
    if isinstance(value, float | np.floating):
        return np.float32(value)
    return np.int32(value) if isinstance(value, int | np.integer) else value


class Search:
    """How an input gets its sigma: a frozen dataclass, and a pytree whose numbers are leaves.

    Another bracket or epsilon therefore compiles nothing anew. The attributes that decide the shapes of a program are
    named in `static`.

    method: name of its family in results files: "cohen", "qcrs" or "ddrs".
    name: its own name in results files.
    search_n: noisy copies that it counts in each evaluation.
    static: names of the attributes that are no leaves.
    sigma_upper: upper end of its bracket; None where it has no bracket.
    evaluations: largest number of sigmas at which it counts classes; 0 where it counts none.
    may_end_early: whether it may draw fewer than `samples`.
    widens: whether it may answer a sigma outside its bracket.
    keeps_sigma: whether it keeps sigma as it is.
    """

    method: ClassVar[str]
    name: ClassVar[str]
    static: ClassVar[tuple[str, ...]] = ()
    may_end_early: ClassVar[bool] = False
    widens: ClassVar[bool] = False
    keeps_sigma: ClassVar[bool] = False
    sigma_upper: float | Float[Array, ""] | None = None
    evaluations: int = 0
    search_n: int | Int[Array, ""] = 0

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        jax.tree_util.register_pytree_node(cls, _flatten, lambda static, leaves: _unflatten(cls, static, leaves))

    def check_start(self, sigma) -> None:
        """Raises SettingError where the search cannot start at `sigma`."""

    @property
    def samples(self) -> int:
        """The largest number of noisy copies that it draws for an image."""
        return 0

    @property
    def reach(self) -> float | Float[Array, ""] | None:
        """The largest sigma that it may answer; None where it has no bracket."""
        return self.sigma_upper

    def ending_at(self, sigma: float) -> "Search":
        """The search with a bracket that ends at `sigma`, which answers no sigma beyond."""
        return dataclasses.replace(self, sigma_upper=sigma)  # pyright: ignore[reportArgumentType]

    def check_noise(self, noise: Noise) -> None:
        """Raises SettingError where the search has no radii for `noise`."""

    def tables(self, aim: Aim) -> Any:
        """The tables for the certificates that it aims at: a pytree of arrays, made on the host."""
        return ()

    def begin(self, classify, image, sigma, key, *, batch_size, axis_name) -> tuple[Float[Array, ""], Any]:
        """The sigma that follows from the classifier itself, for example from gradients, and its trace."""
        return sigma, None

    def policy(self, sigma: Float[Array, ""], tables, num_classes: int) -> AskTell:
        """The policy that asks for counts (`Query`), receives them, and answers a sigma. It begins at `sigma`."""
        return fixed_policy(sigma)

    def trace(self, state, begun) -> Any:
        """The trace of the search, from the last state of its policy and the trace that `begin` returned."""
        return begun

    def spent(self, trace) -> int:
        """The number of noisy copies that were drawn for one image, by its trace."""
        return self.samples

    def recorded(self) -> dict:
        """The description of the search in a sidecar; `search_of` reads it."""
        fields = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]  (its subclasses are dataclasses)
        own = {field.name: getattr(self, field.name) for field in fields}
        return {"method": self.method, "name": self.name, **own}


@dataclasses.dataclass(frozen=True)
class FixedSigma(Search):
    """Keeps sigma as it is, for all inputs (Cohen et al., ICML 2019)."""

    method: ClassVar[str] = "cohen"
    name: ClassVar[str] = "fixed"
    keeps_sigma: ClassVar[bool] = True


def fixed_policy(sigma: Float[Array, ""]) -> AskTell:
    """A policy that asks for nothing and answers `sigma`."""
    init = jnp.asarray(sigma, jnp.float32)
    return AskTell(init, lambda s: query(s, 0, 0), lambda s, counts: s, lambda s: jnp.bool_(True), lambda s: s)


def check_bracket(sigma, sigma_lower: float, sigma_upper: float) -> None:
    """Raises SettingError if `sigma`, at which a search starts, lies outside its bracket."""
    if isinstance(sigma, Tracer):
        return
    values, slack = np.asarray(sigma, np.float64), 1e-6 * sigma_upper
    if not np.all((values >= sigma_lower - slack) & (values <= sigma_upper + slack)):
        raise SettingError(
            f"{{sigma}} = {sigma} lies outside the bracket of the search, {{sigma_lower}} {sigma_lower:g} to "
            f"{{sigma_upper}} {sigma_upper:g}; give the level that the classifier was trained at, and a bracket "
            "around it"
        )
