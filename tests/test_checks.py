"""Images, keys and settings that cannot be meant are refused at the door of every public function."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import SHAPE, by_sign

from qcrs_jax import (
    DDRS,
    QCRS,
    Bayesian,
    Fixed,
    GoldenSection,
    Sequential,
    Soft,
    certify,
    load_classifier,
    predict,
    sample_counts,
    sample_curve,
    search_sigma,
)
from qcrs_jax.certification import certificate
from qcrs_jax.checks import as_images, as_key

KEY = jax.random.key(3)
IMAGE = np.full(SHAPE, 0.05, np.float32)
SEARCH = GoldenSection(0.1, 0.6, search_n=20)


@pytest.fixture(autouse=True)
def as_users_call(monkeypatch):
    """Functions that call each other do so without the type checks of these tests."""
    for name in ("draw", "draw_counts"):
        monkeypatch.setattr(certificate, name, inspect.unwrap(getattr(certificate, name)))


def plain(function):
    """The function as users call it: without the type checks of these tests."""
    return inspect.unwrap(function)


FUNCTIONS = {
    "certify": lambda image, key=KEY, **other: plain(certify)(by_sign, image, 0.25, key=key, n0=5, n=20, **other),
    "predict": lambda image, key=KEY, **other: plain(predict)(by_sign, image, 0.25, key=key, n=20, **other),
    "search_sigma": lambda image, key=KEY, **other: plain(search_sigma)(by_sign, image, 0.25, SEARCH, key=key, **other),
    "sample_curve": lambda image, key=KEY, **other: plain(sample_curve)(by_sign, image, [0.2], key=key, n=20, **other),
    "sample_counts": lambda image, key=KEY, **other: plain(sample_counts)(by_sign, image, 0.25, key, 20, **other),
}
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


@every_function
@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ((255 * IMAGE).astype(np.uint8), TypeError, "images.astype.np.float32. / 255 if they are 0 to 255"),
        (IMAGE.astype(int), TypeError, "floats in .0, 1., not int64"),
        (IMAGE > 0, TypeError, "not bool"),
        (255 * IMAGE, ValueError, "images / 255"),
        (2 * IMAGE - 1, ValueError, r"\(images \+ 1\) / 2.*value_range="),
        (50 * IMAGE * np.linspace(-1, 1, 3, dtype=np.float32), ValueError, "normalises them, after the noise"),
        (IMAGE + 0.97, ValueError, "np.clip"),
        (np.where(IMAGE > 0, np.nan, IMAGE), ValueError, "not finite"),
        (IMAGE + np.inf, ValueError, "not finite"),
        (np.zeros((3, 32, 32), np.float32), ValueError, r"transpose\(1, 2, 0\)"),
        (np.zeros((1, 28, 28), np.float32), ValueError, "channels came first"),
        (np.zeros((32, 32), np.float32), ValueError, r"\[..., None\]"),
        (np.zeros((9, 28, 28), np.float32), ValueError, "Grey images without an axis of channels"),
        (np.zeros((0, 4, 3), np.float32), ValueError, "must have shape"),
    ],
)
def test_images_of_another_kind_are_refused(function, image, error, message):
    with pytest.raises(error, match=message):
        function(image)


@pytest.mark.parametrize("name", ["certify", "predict", "search_sigma", "sample_curve"])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((5, 3, 32, 32), np.float32), r"transpose\(0, 2, 3, 1\)"),
        (np.zeros((28, 28, 1, 1), np.float32), r"images\[..., 0\]"),
        (np.zeros((32, 32, 3, 1), np.float32), r"images\[..., 0\]"),
        (np.zeros((32, 32, 3, 3), np.float32), r"np.moveaxis\(images, -1, 0\)"),
        (np.zeros((2, 13, 64, 64), np.float32), "would have 64 channels"),
        (np.zeros((2, 2, 4, 4, 3), np.float32), "must have shape"),
    ],
)
def test_several_images_of_another_layout_are_refused(name, images, message):
    with pytest.raises(ValueError, match=message):
        FUNCTIONS[name](images)


@every_function
def test_inside_jit_dtype_and_shape_are_still_checked(function):
    with pytest.raises(TypeError, match="uint8"):
        jax.jit(function)(np.zeros(SHAPE, np.uint8))
    with pytest.raises(ValueError, match="channels came first"):
        jax.jit(function)(np.zeros((3, 8, 8), np.float32))


def test_an_invalid_noise_level_certifies_nothing_inside_jit():
    certificate = jax.jit(lambda sigma: certify(by_sign, IMAGE, sigma, key=KEY, n=20))(jnp.float32(-0.2))
    assert certificate.prediction == -1 and certificate.radius == 0


def test_a_value_range_of_their_own_is_the_way_out():
    with pytest.raises(TypeError, match=r"write images.astype\(np.float32\)$"):
        plain(certify)(by_sign, (255 * IMAGE).astype(np.uint8), 64.0, key=KEY, n=20, value_range=(0, 255))
    scaled = 2 * IMAGE - 1
    plain(certify)(by_sign, scaled, 0.25, key=KEY, n=20, value_range=(-1, 1))
    plain(certify)(by_sign, 255 * IMAGE, 64.0, key=KEY, n=20, value_range=(0, 255))
    anything = np.full((3, 8, 8), -7.0, np.float32)
    jax.tree.map(np.testing.assert_array_equal, as_images(anything, None), anything)
    for wrong in ((1.0, 0.0), (0.0, np.nan)):
        with pytest.raises(ValueError, match="low < high"):
            plain(certify)(by_sign, IMAGE, 0.25, key=KEY, n=20, value_range=wrong)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
def test_images_of_any_float_are_taken(dtype):
    image = np.full(SHAPE, 0.5).astype(dtype)
    for kind in (image, jnp.asarray(image, jax.dtypes.canonicalize_dtype(dtype))):
        assert as_images(kind).dtype == jnp.float32 and as_images(kind).max() == 0.5
    assert as_images([[[0.5]]]).shape == (1, 1, 1)


@every_function
def test_keys_of_either_kind_are_one(function):
    ours, legacy = function(IMAGE), function(IMAGE, jax.random.PRNGKey(3))
    jax.tree.map(np.testing.assert_array_equal, ours, legacy)
    for no_key, message in (
        (3, r"key=jax.random.key\(3\)"),
        (np.int64(3), "jax.random.key"),
        (None, "jax.random.key"),
        (jnp.zeros(3), "jax.random.key"),
    ):
        with pytest.raises(TypeError, match=message):
            function(IMAGE, no_key)


@pytest.mark.slow
def test_keys_of_the_old_kind_go_with_every_bound_and_with_several_images():
    numbers = {"n0": 5, "n": 20, "estimate": Fixed("randomised")}
    images = np.stack([IMAGE, IMAGE + 0.1])
    for image, keys in (
        (IMAGE, (KEY, jax.random.PRNGKey(3))),
        (images, (jax.random.split(KEY), jax.random.split(jax.random.PRNGKey(3)))),
    ):
        ours, legacy = (certify(by_sign, image, 0.25, key=key, **numbers) for key in keys)
        jax.tree.map(np.testing.assert_array_equal, ours, legacy)
    with pytest.raises(ValueError, match="keys of shape"):
        certify(by_sign, images, 0.25, key=jax.random.split(KEY, 3), n=20)
    with pytest.raises(ValueError, match="keys of shape"):
        certify(by_sign, IMAGE, 0.25, key=jax.random.split(KEY, 1), n=20)
    assert jax.random.key_impl(as_key(jax.random.PRNGKey(0, impl="rbg"))) == "rbg"


@pytest.mark.parametrize("wrong", ["bayesian", "golden", True, False, 3, QCRS, DDRS, by_sign, {"search": "golden"}])
def test_an_invalid_search_is_a_type_error(wrong):
    for call in (
        lambda: plain(certify)(by_sign, IMAGE, 0.25, key=KEY, n=20, search=wrong),
        lambda: plain(search_sigma)(by_sign, IMAGE, 0.25, wrong, key=KEY),
    ):
        with pytest.raises(TypeError, match=r"search must be of the kind Search, not .*write search=GoldenSection\("):
            call()
    with pytest.raises(TypeError, match="write search="):
        plain(search_sigma)(by_sign, IMAGE, 0.25, None, key=KEY)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"estimate": 0.5}, TypeError, r"Sequential\(decide"),
        ({"estimate": Sequential}, TypeError, "the class Sequential itself"),
        ({"estimate": None}, TypeError, r"Sequential\(decide"),
        ({"n": 20.5}, TypeError, "n must be a whole number"),
        ({"n0": "100"}, TypeError, "n0 must be a whole number"),
        ({"labels": 0.5}, TypeError, "labels must be a whole number"),
        ({"labels": np.array([1, 2])}, ValueError, "labels has shape"),
        ({"n": np.array([20, 30])}, ValueError, "n has shape"),
        ({"sigma": np.array([0.1, 0.2, 0.3])}, ValueError, "sigma has shape .3,. for one image"),
        ({"sigma": "0.25"}, TypeError, "sigma is the standard deviation"),
        ({"sigma": 64}, ValueError, "64 out of 255 is 0.251"),
        ({"sigma": 25.0}, ValueError, "10 times the range"),
        ({"sigma": 0.9, "search": SEARCH}, ValueError, "outside the bracket"),
        ({"sigma": 0.05, "search": DDRS(0.1, 0.6)}, ValueError, "outside the bracket"),
        ({"search": GoldenSection(0.1, 60.0)}, ValueError, "sigma_upper = 60"),
        ({"batch_size": 0}, ValueError, "at least 1"),
        ({"batch_size": 2.5}, TypeError, "batch_size"),
        ({"devices": "all"}, TypeError, "jax.devices"),
        ({"devices": 2}, TypeError, "jax.devices"),
        ({"devices": []}, ValueError, "empty"),
        ({"classify": "resnet"}, TypeError, "must be a function of images"),
    ],
)
def test_requests_that_cannot_be_meant_are_refused(arguments, error, message):
    asked = {"classify": by_sign, "images": IMAGE, "sigma": 0.25, "key": KEY, "n": 20} | arguments
    with pytest.raises(error, match=message):
        plain(certify)(**asked)


@pytest.mark.parametrize(
    "call",
    [
        lambda f: certify(f, IMAGE, 0.25, key=KEY, n=20),
        lambda f: certify(f, np.stack([IMAGE] * 2), 0.25, key=KEY, n=20),
        lambda f: jax.jit(lambda image: certify(f, image, 0.25, key=KEY, n=20))(IMAGE),
        lambda f: certify(f, IMAGE, 0.25, key=KEY, n=20, search=DDRS(0.1, 0.6, steps=2, draws=5)),
        lambda f: certify(f, IMAGE, 0.25, key=KEY, n=200, estimate=Soft()),
        lambda f: predict(f, IMAGE, 0.25, key=KEY, n=20),
        lambda f: search_sigma(f, IMAGE, 0.25, SEARCH, key=KEY),
        lambda f: sample_curve(f, IMAGE, [0.2], key=KEY, n=20),
        lambda f: sample_counts(f, IMAGE, 0.25, KEY, 20),
    ],
)
def test_a_classifier_that_answers_once_for_all_copies_is_refused(call):
    # Its one answer would count for each copy.
    with pytest.raises(ValueError, match="one row for each; it returned .1, 4."):
        call(lambda images: by_sign(images[:1]))


def test_a_tolerance_as_wide_as_its_bracket_is_refused():
    with pytest.raises(ValueError, match="nothing would be searched"):
        GoldenSection(0.4, 0.6, epsilon=0.25)
    Bayesian(0.4, 0.6)  # which has none


def test_the_family_of_searches_is_no_search():
    with pytest.raises(TypeError, match=r"choose GoldenSection\(sigma_lower, sigma_upper\), Bisection"):
        QCRS(0.1, 0.6)


def test_whole_numbers_may_be_written_as_floats():
    ours, other = (certify(by_sign, IMAGE, 0.25, key=KEY, n0=5, n=n) for n in (20, np.int32(20)))
    jax.tree.map(np.testing.assert_array_equal, ours, other)
    assert plain(certify)(by_sign, IMAGE, 0.25, key=KEY, n0=5, n=2e1).n == 20


def test_the_object_that_holds_a_classifier_is_not_the_function():
    with pytest.raises(TypeError, match="write its .classify"):
        plain(certify)(load_classifier("zoo:fashion_mnist-lenet-sigma0.25"), IMAGE, 0.25, key=KEY)


STRICT = """
import sys, jax, numpy as np
from qcrs_jax import DDRS, Fixed, GoldenSection, GridGaussian, Sequential, Soft, Tolerance, Uniform, certify
from qcrs_jax import load_classifier, predict, sample_counts, sample_curve, search_sigma
from qcrs_jax.models import ARCHITECTURES, Classifier, Spec, build
from qcrs_jax.search import SEARCHES
assert jax.config.jax_debug_nans and jax.config.jax_numpy_rank_promotion == "raise"
classify = load_classifier("zoo:fashion_mnist-lenet-sigma0.25").classify
pixels, key = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1)), jax.random.key(0)
images = np.float32(pixels / 255)
alone = images[0]
golden = GoldenSection(0.1, 0.6, epsilon=0.2, search_n=20)
for kind in (kind for kind in SEARCHES.values() if kind.method == 'qcrs'):
    certify(classify, alone, 0.25, key=key, n=50, search=kind(0.1, 0.6, search_n=20))
certify(classify, images, 0.25, key=key, n=50, search=golden, devices=jax.devices())
certify(classify, alone, 0.25, key=key, n=50, search=DDRS(0.1, 0.6, steps=3, draws=5))
certify(classify, alone, 0.25, key=key, n=200, estimate=Soft())
certify(classify, alone, 0.25, key=key, n=200, estimate=Sequential(decide=0.1))
certify(classify, alone, 0.25, key=key, n=200, estimate=Sequential(precision=0.3, sequence="betting"))
certify(classify, alone, 0.25, key=key, n=200, estimate=Tolerance(0.1))
certify(classify, alone, 0.25, key=key, n=200, estimate=Fixed("randomised"))
certify(classify, images, 0.25, key=key, n=[200, 300], labels=[1, 2])
jax.jit(lambda image: certify(classify, image, 0.25, key=key, n=50))(alone)
for noise in (GridGaussian(), Uniform()):
    certify(classify, images, 0.25, key=key, n=50, search=golden, noise=noise)
    jax.jit(lambda image: certify(classify, image, 0.25, key=key, n=50, noise=noise))(alone)
    sample_counts(classify, alone, 0.25, jax.random.key(0, impl="rbg"), 50, noise=noise)
predict(classify, images, 0.25, key=jax.random.PRNGKey(0), n=50)
sample_curve(classify, images, [0.1, 0.2], key=key, n=50)
sample_counts(classify, alone, 0.25, jax.random.key(0, impl="rbg"), 50)
search_sigma(classify, alone, 0.25, golden, key=key)
for arch in ("cifar_resnet20", "resnet18", "resnet50", "cifar_wide_resnet"):
    shape = (32, 32, 3) if arch.startswith("cifar") else (224, 224, 3)
    spec = Spec(arch, 10, shape, (0.5,) * 3, (0.5,) * 3)
    classifier = Classifier(spec, build(spec))
    for dtype in ("float32", "bfloat16"):
        for platform in ("cpu", "tpu"):
            jax.eval_shape(classifier.inference(platform, dtype), jax.ShapeDtypeStruct((2, *shape), np.float32))
"""


@pytest.mark.slow
def test_everything_runs_where_jax_is_strict():
    # In a process of its own: what is traced before stays as it was.
    modes = {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_DEBUG_NANS": "1"}
    done = subprocess.run([sys.executable, "-c", STRICT], env=os.environ | modes, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_command_runs_where_jax_is_strict(tmp_path):
    modes = {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_DEBUG_NANS": "1"}
    data = Path(__file__).parents[1] / "experiments/assets/fashion_mnist_test_500.npz"
    words = f"certify zoo:fashion_mnist-lenet-sigma0.25 out.tsv --dataset npz --data_dir {data} --max 2 --sigma 0.25"
    command = [str(Path(sys.executable).with_name("qcrs-jax")), *words.split(), *"--N 200 --gradient_n 50".split()]
    done = subprocess.run(command, env=os.environ | modes, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def equations(jaxpr, under=()):
    """Every equation of a jaxpr, with the names of the primitives that it stands under."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, under
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner, (*under, equation.primitive.name))


@pytest.mark.slow_for("several")
@pytest.mark.parametrize("images", [IMAGE, np.stack([IMAGE] * 3)], ids=["one image", "several"])
def test_a_posterior_is_fitted_at_the_turns_of_the_search_alone(images):
    search = Bayesian(0.1, 0.6, search_n=20, max_evaluations=4)

    def program(images):
        return certify(by_sign, images, 0.25, key=KEY, n=50, search=search)

    found = [under for name, under in equations(jax.make_jaxpr(program)(images).jaxpr) if name == "cholesky"]
    assert found and all("cond" in under for under in found)
