"""The reference of the GPU check: images, settings, and the committed counts of a CPU."""

import json
from pathlib import Path

FILE = Path(__file__).with_name("reference_counts.json")
LENET, RESNET = "zoo:fashion_mnist-lenet-sigma0.25", "zoo:cifar10-resnet20-sigma0.25"
SIGMA, ALPHA = 0.25, 0.001
IMAGES = 6  # number of images with committed counts
SEARCHED = 3  # number of images with committed certificates
N = {False: 10_000, True: 128}  # copies of an image: {whether quick: number}
EXACT_N = 100_000


def read() -> dict:
    """The committed numbers."""
    return json.loads(FILE.read_text())


def write() -> None:
    """Computes the committed numbers on this machine, which should be a CPU, and writes them."""
    import jax

    if jax.default_backend() != "cpu":
        raise RuntimeError("the reference has to be computed on a CPU: set JAX_PLATFORMS=cpu")
    device = jax.devices()[0]
    found = {"made_on": f"jax {jax.__version__}, {device.platform}", "exact": exact_counts(device).tolist()}
    found["networks"] = {
        name: {str(n): counts(name, n, device).tolist() for n in N.values()} for name in (LENET, RESNET)
    }
    found["searches"] = {name: certificates(name, device) for name in settings()}
    FILE.write_text(
        json.dumps(found, indent=None).replace('"networks"', '\n"networks"').replace('], "', '],\n"') + "\n"
    )


def by_sign(images):
    """Four classes from the signs of two pixels: exact for any order of the arithmetic."""
    import jax.numpy as jnp

    return jnp.eye(4)[2 * (images[:, 0, 0, 0] > 0) + (images[:, 1, 1, 1] > 0)]


def exact_counts(device, batch_size: int = 512, images: int = 1):
    """Class counts by `by_sign` of an image that is slightly off the boundaries, by QCRS and without: (2, 4)."""
    import jax
    import numpy as np

    from qcrs_jax import GoldenSection, certify

    image, key = np.full((4, 4, 3), 0.05, np.float32), jax.random.key(1)
    if images > 1:
        image = np.stack([image] * images)
        key = jax.numpy.stack([key] * images)
    program = {"key": key, "n": EXACT_N, "batch_size": batch_size // images, "devices": [device]}
    searches = None, GoldenSection(0.08, 0.9, epsilon=0.1)
    found = [certify(by_sign, image, SIGMA, search=search, **program).counts for search in searches]
    return np.stack([np.asarray(one).reshape(-1, 4)[-1] for one in found])


def images(name: str, count: int):
    """Images for the network `name` of the zoo, (count, h, w, c) in [0, 1], and their labels.

    They are the Fashion-MNIST images of the package. The ResNet, of CIFAR-10, sees them padded, in grey.
    """
    import numpy as np

    from ..presets import IMAGES as SHIPPED

    with np.load(SHIPPED) as archive:
        x, y = archive["x"][:count].astype(np.float32) / 255, archive["y"][:count]
    x = x.reshape(len(x), 28, 28, 1)
    if name == RESNET:
        x = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))).repeat(3, axis=-1)
    return x, y


def classify(name: str, device, dtype: str = "float32"):
    """The network `name` of the zoo, in the form for `device`."""
    from qcrs_jax import load_classifier

    return load_classifier(name).inference(device.platform, dtype)


def counts(name: str, n: int, device, dtype: str = "float32"):
    """Class counts of n noisy copies of each image, (images, classes)."""
    import jax
    import numpy as np

    from qcrs_jax import predict

    function, found = classify(name, device, dtype), []
    batch = 16 if device.platform == "cpu" else 512
    for place, image in enumerate(images(name, IMAGES)[0]):
        key = jax.random.fold_in(jax.random.key(2), place)
        found.append(predict(function, image, SIGMA, key=key, n=n, batch_size=batch, devices=[device]).counts)
    return np.asarray(found)


def settings() -> dict[str, dict]:
    """Arguments of `certify` by name: every search, every estimation."""
    from qcrs_jax import DDRS, Fixed, Sequential, Soft, Tolerance
    from qcrs_jax.search import SEARCHES

    bracket, common = (0.08, 0.9), {"search_n": 100}
    searches = {
        name: {"search": SEARCHES[name](*bracket, epsilon=0.2, **common)}
        for name in ("golden", "bisection", "shrinking", "grid")
    }
    return {
        "cohen": {},
        **searches,
        "bayesian": {"search": SEARCHES["bayesian"](*bracket, max_evaluations=6, **common)},
        "ddrs": {"search": DDRS(*bracket, steps=5, draws=32)},
        "sequential, decide": {"estimate": Sequential(decide=0.2)},
        "sequential, precision": {"estimate": Sequential(precision=0.1)},
        "soft": {"estimate": Soft()},
        "tolerance": {"estimate": Tolerance(0.1)},
        "randomised": {"estimate": Fixed("randomised")},
    }


def certificates(name: str, device, in_step: bool = False) -> list[dict]:
    """The certificates of some images with the settings `name`, as plain values; with `in_step`, all at once."""
    import jax
    import numpy as np

    from qcrs_jax import certify

    function, x = classify(LENET, device), images(LENET, SEARCHED)[0]
    keys = jax.random.split(jax.random.key(3), SEARCHED)
    program = {"n0": 100, "n": 1000, "alpha": ALPHA, "devices": [device]}
    program |= {"batch_size": 20 if device.platform == "cpu" else 100, **settings()[name]}
    if in_step:
        found = certify(function, x, SIGMA, key=keys, **program)
        found = [
            jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], found._replace(search=None)) for i in range(SEARCHED)
        ]
    else:
        found = [certify(function, image, SIGMA, key=key, **program) for image, key in zip(x, keys)]
    return [
        {
            "prediction": int(one.prediction),
            "sigma": float(one.sigma),
            "radius": float(one.radius),
            "counts0": np.asarray(one.counts0).tolist(),
            "counts": np.asarray(one.counts).tolist(),
        }
        for one in found
    ]
