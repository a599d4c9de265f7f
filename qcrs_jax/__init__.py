"""Randomized-smoothing certification in JAX: Cohen's RS, QCRS and DDRS.

Names are imported when first used, so that `qcrs-jax --help` answers at once.
"""

import importlib
from pathlib import Path

_HOME = {
    "ABSTAIN": "verdict",
    "Certificate": "verdict",
    "Prediction": "verdict",
    "certify": "certificate",
    "draw": "certificate",
    "conclude": "certificate",
    "draw_counts": "certificate",
    "decide": "certificate",
    "Fixed": "estimates",
    "Tolerance": "estimates",
    "Soft": "estimates",
    "predict": "certificate",
    "GoldenSection": "search",
    "Bisection": "search",
    "Shrinking": "search",
    "Grid": "search",
    "Bayesian": "search",
    "DDRS": "search",
    "QCRS": "search",
    "SigmaSearch": "search",
    "SigmaAscent": "search",
    "Sequential": "sequential",
    "search_sigma": "certificate",
    "sample_counts": "sampling",
    "sample_curve": "certificate",
    "read_curves": "curves",
    "save_classifier": "checkpoint",
    "load_classifier": "convert.load",
}

__all__ = list(_HOME)

_here = Path(__file__).parent
if not (_here / "convert").is_dir():  # in a checkout convert and experiments lie beside this folder, not in it
    __path__.append(str(_here.parent))


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
