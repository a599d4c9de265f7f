"""The cost of a run, before it starts: images, samples, an estimate of time and of memory.

The time is that of forward passes. The run's own program is compiled, which the run needs in any case. It is called for
one group of black images: once without samples, and once with so many in one query that their passes take a measurable
time. An image takes as many passes as its queries need, each query in whole passes. Timing the first group instead
would show no more than the progress bar, and for a large network only after minutes.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import jax

from qcrs_jax.certification.procedure import with_samples
from qcrs_jax.errors import UserError
from qcrs_jax.sampling.devices import broadcast_from_first, first_call

from .full_card import memory_is_full
from .pipeline import check_hosts

MEASURED = 0.3  # approximate seconds of passes for a measurement at the start of a run
THOROUGH = 2.0  # the same for a dry run
DROWNED = 0.05  # passes with a smaller share of a call than this cannot be measured
SHARE = 50  # at most this part of the run's passes is measured beforehand: one in so many
DIFFERENTIATED = 2.5  # a differentiated copy of DDRS takes about as long as this number of others


@dataclasses.dataclass(frozen=True)
class Draws:
    """The noisy copies that are drawn for one image.

    queries: numbers of copies at a time, one query after another.
    differentiated: number of further copies that DDRS differentiates.
    at_most: whether the image may need fewer.
    """

    queries: tuple[int, ...]
    differentiated: int = 0
    at_most: bool = False

    @property
    def samples(self) -> int:
        return sum(self.queries) + self.differentiated


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of a run: groups of images in step, each as the draws of its images, and the number of such groups."""

    groups: tuple[tuple[tuple[Draws, ...], int], ...] = ()

    @classmethod
    def of(cls, draws: Callable[[int], Draws], todo: Sequence[int], together: int) -> "Work":
        """The work for the images `todo`, `together` of them in step. `draws` maps an index to the draws there."""
        drawn, found = [draws(index) for index in todo], {}
        for i in range(0, len(drawn), together):
            group = tuple(drawn[i : i + together])
            same = tuple(map(id, group))  # in most runs all images share one object
            found[same] = group, found.get(same, (group, 0))[1] + 1
        return cls(tuple(found.values()))

    @property
    def images(self) -> int:
        return sum(len(group) * number for group, number in self.groups)

    @property
    def samples(self) -> int:
        return sum(number * sum(draws.samples for draws in group) for group, number in self.groups)

    @property
    def at_most(self) -> bool:
        return any(draws.at_most for group, _ in self.groups for draws in group)

    @property
    def ascent(self) -> int:
        """The largest number of copies of an image that are differentiated."""
        return max((draws.differentiated for group, _ in self.groups for draws in group), default=0)

    def passes(self, copies: int) -> int:
        """Forward passes of `copies` of each image. A query takes whole passes, as many as the longest image needs."""
        return sum(
            number * sum(-(-max(query) // copies) for query in zip(*(draws.queries for draws in group)))
            for group, number in self.groups
        )

    def seconds(self, rate: "Rate") -> float:
        """The seconds that the work takes at `rate`."""
        ascent = 0.0
        if rate.of_another:
            ascents = sum(number * max(draws.differentiated for draws in group) for group, number in self.groups)
            ascent = DIFFERENTIATED * ascents / rate.copies
        groups = sum(number for _, number in self.groups)
        return rate.fixed * groups + rate.turn * (self.passes(rate.copies) + ascent)


@dataclasses.dataclass(frozen=True)
class Rate:
    """The measurements of a network.

    fixed: seconds of a group without its samples, for the arithmetic of the search or the ascent of DDRS.
    turn: seconds of a forward pass on all devices, noise and counting included.
    copies: copies of each image in such a pass.
    of_another: whether another run of this network measured it, perhaps with another search.
    clear: whether the passes were long enough to be separated from the rest; else `turn` is only a bound.
    """

    fixed: float
    turn: float
    copies: int
    of_another: bool = False
    clear: bool = True

    def for_another(self) -> "Rate":
        """The rate of another run of the same network."""
        return dataclasses.replace(self, fixed=0.0, of_another=True)


def measure(call, copies: int, least: float, most: int, agreed: Callable[[bool], bool]) -> Rate:
    """The rate of a call of a program over images.

    Args:
        call: a compiled `devices.Call`.
        copies: noisy copies of each image in a forward pass of all devices.
        least: approximate seconds of passes to measure; at most four times as many.
        most: largest number of passes.
        agreed: whether to continue -> whether to continue, for several hosts, which must make the same calls.
    """
    seconds_of(call, 0)  # a first call takes longer
    fixed, _ = seconds_of(call, 0)
    passes = 1
    while True:
        whole, queries = seconds_of(call, passes * copies)
        spent, made = whole - fixed, passes * queries
        if not agreed(spent < least and 4 * made <= most):
            return Rate(fixed, max(spent, DROWNED * whole) / made, copies, clear=spent > DROWNED * whole)
        passes *= 4


def measure_ascent(call, copies: int, differentiated: int) -> Rate:
    """The rate of a call with an ascent of DDRS over this number of copies. Only the ascent is measured.

    An ascent cannot be shortened, and a few passes more would not be visible.
    """
    fixed, _ = seconds_of(call, 0)
    return Rate(fixed, fixed * copies / (DIFFERENTIATED * differentiated), copies)


def seconds_of(call, n: int) -> tuple[float, int]:
    """Seconds of a call with n samples in one query only, and the number of queries with n, as for `with_samples`."""
    smaller, queries = with_samples(call, n)
    started = time.perf_counter()
    jax.block_until_ready(smaller())
    return time.perf_counter() - started, queries


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a run, or of several.

    seconds: an estimate; None if it is not known yet.
    a_second: samples per second in full passes; None if nothing was measured.
    on_device: bytes on each device; None if not known.
    on_host: bytes of images on this machine.
    devices: number and kind of the devices.
    why: reason why the time is not known.
    """

    images: int
    samples: int
    at_most: bool = False
    seconds: float | None = None
    a_second: float | None = None
    on_device: int | None = None
    on_host: int = 0
    devices: str = ""
    why: str = ""

    def __str__(self):
        if not self.images:
            return "nothing is left to do"
        most = "at most " if self.at_most else ""
        said = [f"{self.images:,} image{'s' * (self.images != 1)} to do, {most}{self.samples:,} samples"]
        if self.seconds is not None:
            rate = f", by {self.a_second:,.0f} samples a second in full passes" if self.a_second else ""
            said.append(f"{most}about {duration(self.seconds)}{rate}")
        elif self.why:
            said.append(f"time: {self.why}")
        memory = [] if self.on_device is None else [f"{size(self.on_device)} on {self.devices}"]
        said.append(f"memory: {', '.join([*memory, f'{size(self.on_host)} of images on the host'])}")
        return "; ".join(said)

    def __add__(self, other: "Cost") -> "Cost":
        known = None not in (self.seconds, other.seconds)
        memories = [cost.on_device for cost in (self, other) if cost.on_device is not None]
        return Cost(
            self.images + other.images,
            self.samples + other.samples,
            self.at_most or other.at_most,
            self.seconds + other.seconds if known else None,
            None,
            max(memories, default=None),
            max(self.on_host, other.on_host),
            self.devices or other.devices,
            self.why or other.why,
        )


NOTHING = Cost(0, 0, seconds=0.0)
"""The cost of no run: the start of a sum."""


@dataclasses.dataclass
class Estimates:
    """Estimates the costs of runs, and keeps them.

    least: seconds to measure.
    shared: whether runs of one network share the measurement of the first one's program, memory included.
    waits: whether an ascent of DDRS, which cannot be shortened, is left to the run's first group.
    costs: the estimates, in order.
    rates: the measurements, by network.
    """

    least: float = dataclasses.field(default_factory=lambda: MEASURED)
    shared: bool = False
    waits: bool = True
    costs: list[Cost] = dataclasses.field(default_factory=list)
    rates: dict = dataclasses.field(default_factory=dict)

    def estimate(self, work: Work, inputs, launch: Callable[[int], Callable], together: int, copies: int) -> Cost:
        """The cost of `work`.

        Args:
            inputs: classifier, data set and devices of the run.
            launch: copies -> a function that launches a group of black images, as the run launches its own.
            together: images in step.
            copies: copies of each image in a forward pass of a device.

        Raises:
            UserError: several hosts are at work, and the memory of one is full.
            Stopped: another host is gone.
        """
        image = 4 * math.prod(inputs.classifier.spec.image_shape)
        cost = Cost(
            work.images,
            work.samples,
            work.at_most,
            on_host=inputs.dataset.held + 3 * together * image,  # read ahead, launched, waited for
            devices=f"each of {len(inputs.devices)} devices" if len(inputs.devices) > 1 else "the device",
        )
        if work.images:
            cost = self._measured(cost, work, inputs, launch, together, copies)
        self.costs.append(cost)
        return cost

    def _measured(self, cost, work, inputs, launch, together, copies):
        spec = inputs.classifier.spec
        program = (inputs.common_request["dtype"], together, copies, len(inputs.devices))
        network = repr((spec.arch, spec.options, spec.image_shape, spec.num_classes, program))
        rate, memory = self.rates.get(network, (None, None)) if self.shared else (None, None)
        if rate is not None:
            rate = rate.for_another()
        else:
            each = copies * len(inputs.devices)
            try:
                call = first_call(launch(copies))
                memory = call.memory()
                if work.ascent and self.waits:
                    return dataclasses.replace(cost, on_device=memory, why="printed after the first images")
                if work.ascent:
                    rate = measure_ascent(call, each, work.ascent)
                else:
                    most = max(1, work.passes(each) // (SHARE if self.waits else 1))
                    rate = measure(call, each, self.least, most, lambda more: broadcast_from_first([more])[0])
            except jax.errors.JaxRuntimeError as error:
                check_hosts(error)
                if not memory_is_full(error):
                    raise
                if jax.process_count() > 1:
                    raise UserError(
                        f"the device's memory is full; give all hosts a smaller --batch_size: {error}"
                    ) from error
                why = f"not measured: memory does not hold {copies * together} noisy copies in a forward pass"
                return dataclasses.replace(cost, on_device=memory, why=why)
            self.rates[network] = rate, memory
        return dataclasses.replace(
            cost,
            seconds=work.seconds(rate),
            a_second=rate.copies * together / rate.turn if rate.clear else None,
            on_device=memory,
        )


def estimates_of(dry_run: "bool | Estimates") -> Estimates:
    """The estimates of a run: brief before a run, thorough for a dry run, or those of several runs."""
    if isinstance(dry_run, Estimates):
        return dry_run
    return Estimates(THOROUGH, waits=False) if dry_run else Estimates()


def duration(seconds: float) -> str:
    """Seconds in words, with about two digits: 40 s, 12 min, 3.4 h, 2.1 days."""
    for unit, length, least in (("days", 86400, 48 * 3600), ("h", 3600, 5400), ("min", 60, 90)):
        if seconds >= least:
            number = seconds / length
            return f"{number:,.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "1 s"


def size(number: int) -> str:
    """Bytes in words."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:,.1f} MiB"
