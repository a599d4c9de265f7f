"""The rate of a sampler."""

import time


def rate(sampler, batch: int, seconds: float) -> float:
    """Samples a second, measured for about `seconds`, without the first calls, which may compile."""
    sampler(batch, batch)
    started = time.perf_counter()
    sampler(batch, 4 * batch)
    n = max(1, round(4 * seconds / (time.perf_counter() - started))) * batch
    started = time.perf_counter()
    sampler(batch, n)
    return n / (time.perf_counter() - started)
