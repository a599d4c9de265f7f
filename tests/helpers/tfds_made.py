"""Images for data sets of TFDS."""

import io

import numpy as np
from PIL import Image


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def as_png(image):
    stream = io.BytesIO()
    Image.fromarray(image.squeeze()).save(stream, "png")
    return stream.getvalue()
