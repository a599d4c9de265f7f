"""Ways to sample, compared: hill climbing for the best options of each, then alternating turns."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Mapping

LEVEL = 1.01  # options are taken if their rate is higher by this factor
FIRST = 30.0  # seconds that the first trial of a side is expected to take


@dataclasses.dataclass(frozen=True)
class Program:
    """One way to sample, ready to run.

    run: (copies) -> seconds for the class counts of that number of noisy copies, waiting included.
    copies: copies in one forward pass.
    compile_seconds: seconds to make the program and to run it once.
    memory: bytes of device memory that it needs; None if unknown.
    """

    run: Callable[[int], float]
    copies: int
    compile_seconds: float
    memory: int | None = None


@dataclasses.dataclass(frozen=True)
class Side:
    """A way to sample.

    name: short, for the table.
    axes: values to try for each option; climbing starts from the first of each. For numbers, larger ones are tried as
        long as they help, and smaller ones if none did.
    build: (**options) -> the Program.
    """

    name: str
    axes: Mapping[str, tuple]
    build: Callable[..., Program]


@dataclasses.dataclass
class Trial:
    """A choice of options with its result: samples a second, or the error."""

    options: dict
    rate: float = 0.0
    compile_seconds: float | None = None
    memory: int | None = None
    seconds: float = 0.0
    error: str | None = None


@dataclasses.dataclass
class Result:
    """The results of a side: all trials, the best one, and the rates of its turns."""

    name: str
    trials: list[Trial] = dataclasses.field(default_factory=list)
    best: Trial | None = None
    program: Program | None = None
    rates: list[float] = dataclasses.field(default_factory=list)
    left_out: str | None = None

    @property
    def rate(self) -> float:
        """Median samples a second of the turns; of the best trial if there were none."""
        return statistics.median(self.rates) if self.rates else self.best.rate if self.best else math.nan

    def raw(self) -> dict:
        """All results as plain values, for JSON."""
        trials = [dataclasses.asdict(trial) for trial in self.trials]
        best = self.best and self.best.options
        return {"name": self.name, "best": best, "rates": self.rates, "trials": trials, "left_out": self.left_out}


class Clock:
    """A deadline in `seconds` from now; None for none."""

    def __init__(self, seconds: float | None = None):
        self.end = math.inf if seconds is None else time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.end - time.monotonic()


def climb(axes: Mapping[str, tuple]) -> Generator[dict, float, None]:
    """Yields options to try, and is sent the rate of each. It varies one option at a time, from the best so far."""
    best = {name: values[0] for name, values in axes.items()}
    highest = yield dict(best)
    for name, values in axes.items():
        for direction in _directions(values):
            start = best[name]
            for value in direction:
                rate = yield {**best, name: value}
                if rate > LEVEL * highest:
                    best[name], highest = value, rate
                elif _is_number(value):
                    break
            if best[name] != start:
                break


def _directions(values):
    first, *others = values
    if not _is_number(first):
        return [others]
    return [sorted(v for v in others if v > first), sorted((v for v in others if v < first), reverse=True)]


def _is_number(value):
    return isinstance(value, int) and not isinstance(value, bool)


def rate(program: Program, seconds: float) -> float:
    """Samples a second, measured for about `seconds`. The program has to have run before."""
    n = 4 * program.copies
    spent = program.run(n)
    while spent < seconds:
        n = program.copies * math.ceil(n / program.copies * max(2, min(100, 1.1 * seconds / max(spent, 1e-6))))
        spent = program.run(n)
    return n / spent


def compare(
    sides: Iterable[Side],
    *,
    seconds: float,
    turns: int,
    clock: Clock | None = None,
    report: Callable[[list[Result]], None] = lambda results: None,
) -> list[Result]:
    """The best options of each side, then the rates of `turns` turns of about `seconds` each, in alternation.

    First every side is tried with its first options, in order; then each tries one thing after another, in rotation.
    Trials and turns for which there is no time are left out. A trial that fails is recorded, and counts as slow.

    report: function that is called with all results after each trial and each turn.
    """
    clock, sides = clock or Clock(), list(sides)
    results = [Result(side.name) for side in sides]
    climbs = {side.name: climb(side.axes) for side in sides}
    waiting = {name: next(options) for name, options in climbs.items()}
    while waiting:
        for side, result in zip(sides, results):
            if side.name not in waiting:
                continue
            reserve = 1.2 * turns * seconds * sum(r.best is not None for r in results) + 1
            expected = max((trial.seconds for trial in result.trials), default=FIRST if result is not results[0] else 0)
            if clock.left() - reserve < expected:
                if not result.trials:
                    result.left_out = "no time"
                waiting.pop(side.name)
                continue
            trial, program = _try(side, waiting[side.name], seconds / 3)
            result.trials.append(trial)
            if program and (result.best is None or trial.rate > LEVEL * result.best.rate):
                result.best, result.program = trial, program
            del program
            report(results)
            try:
                waiting[side.name] = climbs[side.name].send(trial.rate)
            except StopIteration:
                waiting.pop(side.name)
    for _ in range(turns):
        for result in results:
            if result.program and clock.left() > 2 * seconds:
                result.rates.append(rate(result.program, seconds))
        report(results)
    return results


def _try(side, options, seconds):
    """The Trial of `options`, and its Program; None if it failed."""
    started, trial, program = time.monotonic(), Trial(options), None
    try:
        program = side.build(**options)
        trial.compile_seconds, trial.memory = program.compile_seconds, program.memory
        trial.rate = rate(program, seconds)
    except Exception as error:  # errors of compilers and of full memory have many types
        lines = [line for line in str(error).splitlines() if line.strip()]
        trial.error, program = f"{type(error).__name__}: {lines[0][:300] if lines else ''}", None
    trial.seconds = time.monotonic() - started
    return trial, program
