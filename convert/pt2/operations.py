"""Imports all operations, which fills the registry."""

from . import (  # noqa: F401
    attention,
    convolution,
    creation,
    elementwise,
    indexing,
    normalisation,
    pooling,
    reductions,
    resampling,
    shapes,
    symbols,
)
