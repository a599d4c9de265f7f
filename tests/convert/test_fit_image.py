"""Images that a network takes otherwise than they are."""

from pathlib import Path

import numpy as np
import pytest


def test_grey_images_among_those_of_a_network_that_takes_colours():
    from qcrs_jax.convert.check import fit_image
    from qcrs_jax.data.load import Dataset
    from qcrs_jax.errors import UserError
    from qcrs_jax.models import Spec

    spec = Spec("cifar_resnet20", 10, (32, 32, 3), (0.0,), (1.0,))
    dataset = Dataset("d", "test", "here", ["c"], np.zeros(1, int), np.zeros, "", files=[Path("c/0.png")])
    grey = np.random.default_rng(0).random((32, 32, 1)).astype(np.float32)
    np.testing.assert_array_equal(fit_image(spec, dataset, 0, grey, "net.pth"), np.concatenate([grey] * 3, axis=-1))
    with pytest.raises(
        UserError, match=r"net\.pth takes images of shape \(32, 32, 3\), but c/0\.png has shape \(31, 32, 1\)"
    ):
        fit_image(spec, dataset, 0, grey[1:], "net.pth")
