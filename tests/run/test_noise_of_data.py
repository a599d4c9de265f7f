"""The noise for images: on the grid where the images have 8 bits a channel."""

import numpy as np

from qcrs_jax.data.dataset import DataError, Dataset
from qcrs_jax.experiments.run import noise_of_data
from qcrs_jax.experiments.run.noise_of_data import noise_for
from qcrs_jax.sampling.smoothing import check_largest

BYTES = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)


def chosen(images, sigma=0.25, problems=None):
    """The name of the noise for a data set of these images at `sigma`."""

    def read(index):
        if images[index] is None:
            raise DataError("cannot be read")
        return images[index]

    dataset = Dataset("d", "test", "memory", ["0"], np.zeros(len(images), int), read, "0", problems or {})
    return noise_for(dataset, lambda noise: check_largest(noise, sigma)).name


def test_images_of_8_bits_have_noise_on_the_grid_and_others_do_not(capsys):
    assert chosen(BYTES) == "grid"
    assert "noise: grid, because the images have 8 bits a channel" in capsys.readouterr().out
    assert chosen(BYTES / np.float32(255)) == "gaussian"
    assert "noise: gaussian, because the images are not of 8 bits a channel" in capsys.readouterr().out
    assert chosen([None, BYTES[0]]) == "grid" and chosen([BYTES[0] / 255, BYTES[1]], problems={0: "bad"}) == "grid"
    assert chosen([None]) == "gaussian"


def test_large_sigmas_and_large_images_have_normal_noise(capsys, monkeypatch):
    assert chosen(BYTES, sigma=4) == "gaussian"
    assert "because a sigma may exceed 3.53, the largest for noise on the grid" in capsys.readouterr().out
    monkeypatch.setattr(noise_of_data, "LARGEST_IMAGE", 47)
    assert chosen(BYTES) == "gaussian"
    assert "because the images have more than 47 numbers" in capsys.readouterr().out
