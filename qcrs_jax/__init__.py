"""Randomized-smoothing certification in JAX: Cohen's RS, QCRS and DDRS.

Names are imported when first used, so that a command's help answers at once.
"""

import importlib
from pathlib import Path

_HOME = {
    "ABSTAIN": "certification.verdict",
    "Certificate": "certification.verdict",
    "Prediction": "certification.verdict",
    "certify": "certification.certificate",
    "draw": "certification.certificate",
    "conclude": "certification.certificate",
    "draw_counts": "certification.certificate",
    "decide": "certification.certificate",
    "Fixed": "certification.estimates",
    "Tolerance": "certification.estimates",
    "Soft": "certification.estimates",
    "predict": "certification.certificate",
    "GoldenSection": "search",
    "Bisection": "search",
    "Shrinking": "search",
    "Grid": "search",
    "Bayesian": "search",
    "DDRS": "search",
    "QCRS": "search",
    "SigmaSearch": "search",
    "SigmaAscent": "search",
    "Sequential": "certification.sequential",
    "search_sigma": "certification.certificate",
    "sample_counts": "sampling.counts",
    "sample_curve": "certification.certificate",
    "read_curves": "analysis.curves",
    "load_dataset": "data.load",
    "save_classifier": "models.checkpoint",
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
