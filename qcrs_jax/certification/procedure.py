"""Search, selection and estimation of an image as one loop, with its sampling: compiled programs over images."""

import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ..sampling.classifiers import num_classes
from ..sampling.counts import Votes, no_votes, sample_votes
from ..sampling.devices import DEVICES, Call, any_image, over_images
from ..sampling.streams import CURVE, END, ESTIMATION, SEARCH, SELECTION, stream
from ..search import Query
from ..search.maximisers import AskTell, run
from .sequential import Looks


class _Stages(NamedTuple):
    stage: Int[Array, ""]
    policy: object
    votes: Votes  # one entry for each stage
    turn: Int[Array, ""]  # turn of the estimation; like the stage, it is the same for all images in step
    looks: Int[Array, ""]  # number of looks at the counts of the estimation
    going: Bool[Array, ""]  # whether the estimation takes more samples


def _certification(
    policy: AskTell, ns: Int[Array, "stages"], wanted, enough, sequential: Looks | None, nothing: Votes
) -> AskTell:
    """CERTIFY as a search over queries: the queries of the policy, then selection and estimation at the sigma it chose.

    `enough` has the number of samples of the estimation for each top count of the selection; None takes it from ns.
    Where `wanted` is given, and differs from the selected class, the estimation draws nothing. With `sequential` the
    estimation takes several turns. Each draws the samples between two looks, until `sequential` says stop.

    All stages are turns of one loop, so the network stands once in the compiled program. Images in step leave a stage
    together: an image whose search or estimation ends first waits, and nothing more is counted for it.
    """
    votes = jax.tree.map(lambda a: jnp.zeros((END, *a.shape), a.dtype), nothing)
    first_stage = jnp.where(any_image(~policy.done(policy.init)), SEARCH, SELECTION).astype(jnp.int32)
    init = _Stages(first_stage, policy.init, votes, jnp.int32(0), jnp.int32(0), jnp.bool_(True))

    def ask(state):
        searching = state.stage == SEARCH
        query = policy.ask(state.policy)
        n = ns[state.stage]
        if enough is not None:
            n = jnp.where(state.stage == ESTIMATION, enough[state.votes.counts[SELECTION].max()], n)
        if wanted is not None:
            wrong = jnp.argmax(state.votes.counts[SELECTION]) != wanted
            n = jnp.where((state.stage == ESTIMATION) & wrong, 0, n)
        first = jnp.int32(0)
        if sequential is not None:
            estimating = state.stage == ESTIMATION
            first = jnp.where(estimating & (state.turn > 0), sequential.n[state.turn - 1], 0)
            n = jnp.where(estimating, sequential.n[state.turn] - first, n)
            n = jnp.where(state.stage == END, 0, n)  # under a vmap of certify, an image that waits for others
        return Query(
            sigma=jnp.where(searching, query.sigma, policy.best(state.policy)),
            n=n,
            stage=state.stage,
            draw=jnp.where(searching, query.draw, 0),
            first=first,
        )

    def tell(state, votes):
        searching = (state.stage == SEARCH) & ~policy.done(state.policy)
        # All images in step are at one stage, so outside the search no posterior is computed.
        told = jax.lax.cond(state.stage == SEARCH, policy.tell, lambda before, _: before, state.policy, votes.counts)
        told = jax.tree.map(lambda new, old: jnp.where(searching, new, old), told, state.policy)
        stays = (state.stage == SEARCH) & any_image(~policy.done(told))
        estimating = state.stage == ESTIMATION
        counts = ~estimating | state.going
        votes = jax.tree.map(lambda all, new: all.at[state.stage].add(jnp.where(counts, new, 0)), state.votes, votes)
        going = state.going
        if sequential is not None:
            successes = votes.counts[ESTIMATION, jnp.argmax(votes.counts[SELECTION])]
            going &= ~(estimating & sequential.stops(jnp, state.turn, successes, policy.best(state.policy)))
            stays |= estimating & any_image(going)
        return _Stages(
            stage=jnp.where(stays, state.stage, state.stage + 1),
            policy=told,
            votes=votes,
            turn=state.turn + estimating.astype(jnp.int32),
            looks=state.looks + (estimating & state.going).astype(jnp.int32),
            going=going,
        )

    return AskTell(init, ask, tell, lambda state: state.stage == END, lambda state: policy.best(state.policy))


def _oracle(classify, image, key, noise, batch_size, devices, beta=None):
    """The oracle of one image: Query -> votes, with soft votes if `beta` is given."""

    def answer(query):
        own = stream(key, query.stage, query.draw)
        how = {"noise": noise, "beta": beta, "batch_size": batch_size, "axis_name": _axis_name(devices)}
        return sample_votes(classify, image, query.sigma, own, query.n, first=query.first, **how)

    return answer


def _count_oracle(*args):
    """The oracle of one image that only counts: Query -> class counts."""
    oracle = _oracle(*args)
    return lambda query: oracle(query).counts


def _axis_name(devices):
    return DEVICES if devices else None


@over_images
def draw_votes(
    classify, image, sigma, key, ns, wanted, search, tables, enough, sequential, noise, beta, batch_size, devices
):
    oracle = _oracle(classify, image, key, noise, batch_size, devices, beta)
    classes = num_classes(classify, image.shape)
    sigma, begun = search.begin(classify, image, sigma, key, batch_size=batch_size, axis_name=_axis_name(devices))
    policy = search.policy(sigma, tables, classes)
    procedure = _certification(policy, ns, wanted, enough, sequential, no_votes(classes, beta))
    final = run(procedure, oracle)
    votes0, votes = (jax.tree.map(operator.itemgetter(stage), final.votes) for stage in (SELECTION, ESTIMATION))
    n = ns[ESTIMATION] if enough is None else enough[votes0.counts.max()]
    if wanted is not None:
        n = jnp.where(jnp.argmax(votes0.counts) == wanted, n, 0)
    if sequential is not None:
        n = sequential.n[final.looks - 1]
    return votes0, votes, n, final.looks, procedure.best(final), search.trace(final.policy, begun)


@over_images
def draw_search(classify, image, sigma, key, search, tables, noise, batch_size, devices):
    sigma, begun = search.begin(classify, image, sigma, key, batch_size=batch_size, axis_name=_axis_name(devices))
    policy = search.policy(sigma, tables, num_classes(classify, image.shape))
    return search.trace(run(policy, _count_oracle(classify, image, key, noise, batch_size, devices)), begun)


@over_images
def draw_prediction(classify, image, sigma, key, n, noise, batch_size, devices):
    query = Query(sigma, n, jnp.int32(ESTIMATION), jnp.int32(0))
    return _count_oracle(classify, image, key, noise, batch_size, devices)(query)


@over_images
def draw_stage(classify, image, key, n, sigma, purpose, stage, noise, batch_size, devices):
    """The counts at one stage of a cascade; `purpose` is SELECTION or ESTIMATION."""
    return _count_oracle(classify, image, key, noise, batch_size, devices)(Query(sigma, n, purpose, stage))


@over_images
def draw_curve(classify, image, key, sigmas, n, noise, batch_size, devices):
    oracle = _count_oracle(classify, image, key, noise, batch_size, devices)
    return jax.lax.map(lambda sigma: oracle(Query(sigma, n, jnp.int32(CURVE), jnp.int32(0))), sigmas)


def with_samples(call: Call, n: int) -> tuple[Call, int]:
    """The same compiled program with n samples in one query and none in the others, and the number of queries with n.

    It is for measurements: it runs as long as an image's search without its samples, plus n samples. A curve has n
    samples at each sigma. An ascent of DDRS keeps its copies.
    """
    classify, images, own, *numbers = call.arguments
    if call.program is draw_stage.program:
        key, number = own
        return call.with_arguments(classify, images, (key, np.full(number.shape, n, number.dtype)), *numbers), 1
    if call.program is not draw_votes.program:
        *numbers, number = numbers
        queries = len(numbers[0]) if call.program is draw_curve.program else 1
        return call.with_arguments(classify, images, own, *numbers, np.full(number.shape, n, number.dtype)), queries
    sigma, key, ns, wanted = own
    search, tables, enough, looks = numbers
    selected = np.zeros(ns.shape, ns.dtype)
    selected[..., SELECTION] = n
    if enough is not None:
        enough = np.zeros(enough.shape, enough.dtype)
    if looks is not None:  # the first one has no samples, and ends the estimation
        never = np.full(looks.start.shape, np.iinfo(np.int32).max, looks.start.dtype)
        looks = looks._replace(n=np.zeros(looks.n.shape, looks.n.dtype), start=never)
    return call.with_arguments(classify, images, (sigma, key, selected, wanted), search, tables, enough, looks), 1
