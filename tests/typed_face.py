"""The public face as a type checker sees it: `.ci/check` fails where a name is Any, or has another type. Not run."""

from pathlib import Path
from typing import assert_type

import jax
import jax.numpy as jnp

from qcrs_jax import (
    Bayesian,
    Certificate,
    Fixed,
    GoldenSection,
    Prediction,
    SigmaAscent,
    SigmaSearch,
    certify,
    conclude,
    draw,
    load_classifier,
    load_dataset,
    predict,
    read_curves,
    search_sigma,
)
from qcrs_jax.analysis.curves import Curves
from qcrs_jax.certification.estimates import Drawn
from qcrs_jax.data.dataset import Dataset
from qcrs_jax.models import Classifier


def classify(images: jax.Array) -> jax.Array:
    return jnp.stack([images.mean((1, 2, 3)), -images.mean((1, 2, 3))], axis=-1)


image, key = jnp.ones((8, 8, 3)), jax.random.key(0)
search = GoldenSection(0.08, 0.9)

assert_type(certify(classify, image, 0.25, key=key, search=search, estimate=Fixed("randomised")), Certificate)
assert_type(draw(classify, image, 0.25, key=key), Drawn)
assert_type(conclude(draw(classify, image, 0.25, key=key)), Certificate)
assert_type(predict(classify, image, 0.25, key=key), Prediction)
assert_type(search_sigma(classify, image, 0.25, Bayesian(0.08, 0.9), key=key), SigmaSearch | SigmaAscent)
assert_type(load_classifier("model.pth"), Classifier)
assert_type(load_dataset("cifar10", Path("data")), Dataset)
assert_type(read_curves("curves.tsv"), Curves)

certify(classify, image, 0.25, key=key, searches=search)  # pyright: ignore[reportCallIssue]  (no such argument)
GoldenSection(0.08)  # pyright: ignore[reportCallIssue]  (the upper end is missing)
