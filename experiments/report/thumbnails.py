"""Thumbnails of images for an HTML page."""

import base64
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from qcrs_jax.errors import UserError

SIDE = 64  # largest number of pixels of the longer side
LOSSLESS = 1000  # largest number of images for which small ones keep every pixel


def thumbnails(dataset, indices: Iterable[int], budget: int) -> dict[int, str]:
    """A data URI for each image of `indices` that can be read, in order, up to `budget` characters in all."""
    indices, found, left = list(indices), {}, budget
    for index in indices:
        try:
            image, _ = dataset[index]
        except UserError:
            continue
        uri = _uri(image, lossless=len(indices) <= LOSSLESS)
        if len(uri) > left:
            break
        found[index], left = uri, left - len(uri)
    return found


def _uri(image, lossless):
    """An image (h, w, c) in [0, 1] as a data URI."""
    pixels = np.rint(255 * np.asarray(image)).astype(np.uint8)
    if pixels.shape[2] not in (1, 3):
        pixels = pixels[..., :1]
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    small = max(picture.size) <= SIDE
    if not small:
        picture.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    if small and lossless:
        kind = "png"
        picture.save(stream, "PNG", optimize=True)
    else:
        kind = "jpeg"
        picture.save(stream, "JPEG", quality=75, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
