"""Records of results files."""

import numpy as np

from qcrs_jax.results.records import (
    Record,
)


def make_record(idx=0, **changes):
    fields = dict(
        idx=idx,
        label=3,
        predict=3,
        radius=0.1 + idx / 3,
        correct=True,
        sigma=float(np.float32(0.15)),
        pa_lower=2 / 3,
        seconds=1.25,
        search_samples=5500,
        counts0=(1, 2, 3, 94),
        counts=(0, 1, 99, 99900),
    )
    return Record(**{**fields, **changes})
