"""Runs one program on many devices of many hosts, each with its share of the noisy copies; several images in step."""

import contextvars
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from jaxtyping import Array, Bool

from ..errors import UserError, setting
from ..machine import cores, own_cards, usable_cpus
from .classifiers import NoiseConditional

if TYPE_CHECKING:
    Device = Any  # jaxlib, whose class it is, has no types
else:
    Device = jax.Device

DEVICES = "devices"
"""The axis of the devices, inside a program that runs on several."""
IMAGES = "images"
"""The axis of the images that are certified together."""


def join_hosts(coordinator: str | None = None, process: tuple[int, int] | None = None) -> None:
    """Makes this process one of those that share the run, before anything touches a device.

    Several processes on a host with GPUs each take their own cards (`machine.own_cards`).

    Args:
        coordinator: HOST:PORT of the first process. JAX finds it, and the place of this process, by itself under Slurm,
            MPI, Kubernetes and on TPU pods.
        process: (i, n), this is process i of n, counted from 1.

    Raises:
        UserError: the others are not found, or there is no card for this process.
    """
    number, count = process or (None, None)
    cards = own_cards()
    try:
        jax.distributed.initialize(coordinator, count, None if number is None else number - 1, cards)
    except (ValueError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{setting('distributed')}: the other hosts were not found: {error}. JAX knows them under Slurm, MPI, "
            f"Kubernetes and on TPU pods; elsewhere give each process {setting('coordinator')} HOST:PORT, of the first "
            f"one, and {setting('process')} I/N"
        ) from error


def choose_devices(count: int | None = None) -> list[Device]:
    """All devices of all hosts of the run, or the first `count` of each host.

    A CPU gives `count` devices, or one for each core that may be used all the time (`machine.usable_cpus`). That is
    faster than one device with many threads.

    Raises:
        UserError: this host has fewer devices.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        try:
            jax.config.update("jax_num_cpu_devices", count or usable_cpus())
            if usable_cpus() < cores():  # nor more threads than the quota keeps busy
                os.environ.setdefault("NPROC", str(usable_cpus()))
        except (RuntimeError, AttributeError):  # JAX is running already, or does not know this setting
            pass
    if count is not None and count > jax.local_device_count():
        there = jax.local_device_count()
        raise UserError(f"{setting('devices')} {count}: there are {there}; give that many at most, or all")
    hosts = {}
    for device in jax.devices():
        hosts.setdefault(device.process_index, []).append(device)
    return [device for host in hosts.values() for device in host[:count]]


def replicated(devices: Sequence[Device]) -> NamedSharding:
    """The sharding that puts a copy of an array on each of `devices`."""
    return NamedSharding(Mesh(devices, DEVICES), PartitionSpec())


def place(tree, devices: Sequence[Device]):
    """`tree` with its arrays on each of `devices`. Weights that are placed beforehand are not copied at every call.

    With devices of several hosts each host brings its own copies, and nothing is compared (`all_agree` does that).
    """
    sharding = replicated(devices)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(functools.partial(_place_own, sharding=sharding), tree)


def _place_own(leaf, sharding):
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _place_own(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    own = np.asarray(leaf)
    return jax.make_array_from_callback(own.shape, sharding, lambda index: own[index])


@functools.partial(jax.jit, static_argnames="devices")
def all_agree(arrays, devices: tuple[Device, ...]) -> Bool[Array, ""]:
    """Whether every device was given the same float32, int32 or uint32 `arrays`, by a checksum of 32 bits."""

    def compare(arrays):
        total = jnp.uint32(0)
        for leaf in jax.tree.leaves(arrays):
            bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
            total += (bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1)).sum(dtype=jnp.uint32)
        largest, least = jax.lax.pmax(jnp.stack([total, ~total]), DEVICES)
        return largest == ~least

    return _on_each(compare, devices)(arrays)


def _on_each(function, devices):
    everywhere = PartitionSpec()
    mesh = replicated(devices).mesh
    return jax.shard_map(function, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)


@jax.custom_batching.custom_vmap
def _one_batch(function, inputs):
    """`function(*inputs)`. Under vmap over several images their copies become one batch.

    A TPU's compiler would keep them apart in everything but the convolutions, which takes more than twice the time.
    """
    return function(*inputs)


@_one_batch.def_vmap
def _of_several(several, mapped, function, inputs):
    if not mapped[1][0] or any(jax.tree.leaves(mapped[0])):  # a vmap of the caller's, over classifiers
        axes = jax.tree.map(lambda is_mapped: 0 if is_mapped else None, tuple(mapped))
        return jax.vmap(lambda function, inputs: function(*inputs), axes, axis_size=several)(function, inputs), True
    each = [a if own else jnp.broadcast_to(a, (several, *a.shape)) for a, own in zip(inputs, mapped[1])]
    logits = _one_batch(function, tuple(a.reshape(-1, *a.shape[2:]) for a in each))
    return logits.reshape(several, -1, logits.shape[-1]), True


def _together(function, *inputs):
    return _one_batch(function, inputs)


def one_batch_of_all(classify):
    """`classify`, to be called under vmap over several images: their copies become one batch."""
    if isinstance(classify, NoiseConditional):
        return NoiseConditional(Partial(_together, classify.function))
    return Partial(_together, classify)


@dataclasses.dataclass(frozen=True)
class Call:
    """A prepared call of a program over images, as `first_call` returns it. It is not made yet.

    Attributes:
        program: the jitted function.
        arguments: (classify, images, own, *numbers), on its devices.
        static: its other arguments.
    """

    program: Callable
    arguments: tuple
    static: dict

    def __call__(self):
        return self.program(*self.arguments, **self.static)

    def with_arguments(self, *arguments) -> "Call":
        """The call of the same compiled program with other arguments of the same shapes."""
        devices = self.static["devices"]
        return dataclasses.replace(self, arguments=place(arguments, devices) if devices else arguments)

    def memory(self) -> int | None:
        """The bytes that the program needs on each device: arguments, results and intermediate values. None if unknown.

        The program is compiled for this, once for this and for all calls with such arguments.
        """
        analysis = self.program.lower(*self.arguments, **self.static).compile().memory_analysis()
        if analysis is None:
            return None
        return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes


class _NotMade(BaseException):
    """Carries a call out of the code that would have made it."""


_not_made = contextvars.ContextVar("not made", default=False)


def first_call(start: Callable[[], object]) -> Call:
    """The first call of a program over images that `start()` would make. It is not made, and `start` ends there."""
    token = _not_made.set(True)
    try:
        start()
    except _NotMade as stopped:
        return stopped.args[0]
    finally:
        _not_made.reset(token)
    raise ValueError("no program over images was called")


def over_images(one_image: Callable) -> Callable:
    """Jits a function of (classify, image, *own, *numbers), for one image or under vmap over several.

    The returned function is called with (classify, images, own, *numbers). own is a tuple of the arguments that each
    image has for itself, stacked if there are several images. With `devices` it runs on all of them in step, each with
    its share of the noisy copies. Its attribute `program` is the jitted function.
    """

    @functools.partial(jax.jit, static_argnames=("noise", "beta", "batch_size", "devices"))
    def program(classify, images, own, *numbers, devices, **static):
        def whole(classify, images, own, *numbers):
            together = one_batch_of_all(classify) if images.ndim == 4 else classify

            def one(image, own):
                return one_image(together, image, *own, *numbers, devices=devices, **static)

            axis, size = (0, len(images)) if images.ndim == 4 else (None, 1)
            return jax.vmap(one, axis, axis, axis_name=IMAGES, axis_size=size)(images, own)

        if devices:
            whole = _on_each(whole, devices)
        return whole(classify, images, own, *numbers)

    def place_and_run(*args, devices, **static):
        if devices:
            args = place(args, devices)
        call = Call(program, args, {"devices": devices, **static})
        if _not_made.get():
            raise _NotMade(call)
        return call()

    place_and_run.program = program
    return place_and_run


def any_image(flag: Bool[Array, ""]) -> Bool[Array, ""]:
    """Whether `flag` holds for any of the images that `over_images` has in step: one answer for all of them."""
    return jax.lax.pmax(flag.astype(jnp.int32), IMAGES) > 0


def agreement(arrays, devices: Sequence[Device]) -> Callable[[], None]:
    """Starts to compare the arguments of the hosts of `devices`. Returns a check that raises UserError if they differ.

    Devices of one host have one set of arguments, and nothing is compared.
    """
    if replicated(devices).is_fully_addressable:
        return lambda: None
    agree = all_agree(place(arrays, devices), tuple(devices))

    def check():
        if not agree:
            raise UserError(
                "the hosts do not compute the same: they differ in the command, the checkpoint or the data. Start all "
                "with one command, on the same files"
            )

    return check


def hosts_agree(settings, devices: Sequence[Device]) -> None:
    """Raises UserError if the hosts of `devices` have different `settings`, any object with a faithful `repr`."""
    digest = hashlib.sha256(repr(settings).encode()).digest()
    agreement(np.frombuffer(digest, np.uint32), devices)()


def broadcast_from_first(flags: Sequence[bool]) -> list[bool]:
    """The `flags` of the first process, on every process. All call it, with equally many flags."""
    if jax.process_count() == 1:
        return list(flags)
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return [bool(flag) for flag in broadcast_one_to_all(np.asarray(flags, np.int32))]
