"""The networks: folding, sizes, scanned stages, shared programs, and the checks of a Spec."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import cohen, idelbayev, images, lenet, lenet_file, macer, resnet, save
from flax import nnx

from qcrs_jax.convert.fill import count_parameters
from qcrs_jax.convert.load import load_classifier
from qcrs_jax.models import ARCHITECTURES, Classifier, Spec, abstract, build, winograd
from qcrs_jax.models.checkpoint import fill
from qcrs_jax.models.layers import ConvNorm, Form, fold_norms, max_pool, put_apart, put_beside, scan_blocks, stack
from qcrs_jax.models.winograd import Winograd

CIFAR = {"num_classes": 10, "image_shape": (32, 32, 3), "mean": (0.0,), "std": (1.0,)}


def shapes(arch, **options):
    return abstract(Spec(arch, **CIFAR, options=options))


def constant(arch, value, **options):
    """A classifier with one number for all its weights, at no cost of drawing them."""
    model = shapes(arch, **options)
    weights = jax.tree.map(lambda leaf: np.full(leaf.shape, value, np.float32), nnx.to_pure_dict(nnx.state(model)))
    return Classifier(Spec(arch, **CIFAR, options=options), fill(model, weights))


def drawn(spec):
    """A classifier with weights and statistics that NumPy draws: nothing is compiled for it."""
    rng, model = np.random.default_rng(0), abstract(spec)

    def leaf(path, shape):
        if path[-1] == "kernel":
            return rng.normal(0, np.prod(shape[-4 if "conv" in path else -2 : -1]) ** -0.5, shape)
        return rng.uniform(*((0.5, 1.5) if path[-1] in ("scale", "var") else (-0.2, 0.2)), shape)

    state = nnx.traversals.flatten_mapping(nnx.to_pure_dict(nnx.state(model)))
    weights = {path: leaf(path, variable.shape) for path, variable in state.items()}
    return Classifier(spec, fill(model, nnx.traversals.unflatten_mapping(weights)))


@jax.jit
def run(classify, x):
    return classify(x)


@pytest.mark.slow_for("True")
@pytest.mark.parametrize("option_a", [False, True])
def test_classifier_is_the_unfolded_network_on_normalised_images(tmp_path, option_a):
    content = idelbayev(resnet(20, True)) if option_a else cohen(resnet(20), "cifar_resnet20")
    classifier = load_classifier(save(content, tmp_path / "net.pth"))
    x = jnp.asarray(images(4, (32, 32, 3)))
    mean, std = (jnp.asarray(v) for v in (classifier.spec.mean, classifier.spec.std))
    expected = nnx.jit(lambda model, x: model(x))(classifier.model, (x - mean) / std)
    for platform in ("cpu", "tpu"):
        logits = jax.jit(classifier.inference(platform))(x)
        assert abs(logits - expected).max() <= 1e-5 * abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arch, options",
    [("cifar_resnet20", {}), ("cifar_wide_resnet", {"depth": 16}), ("cifar_wide_resnet", {"depth": 16, "widen": 1})],
)
def test_the_form_of_a_tpu_is_the_same_function_under_vmap_and_with_derivatives(arch, options):
    spec = Spec(arch, 10, (32, 32, 3), (0.5,), (0.25,), options)
    forms = [drawn(spec).inference(platform) for platform in ("cpu", "tpu")]
    x = jnp.asarray(images(4, (32, 32, 3))).reshape(2, 2, 32, 32, 3)
    found = [jax.jit(jax.vmap(lambda x, form=form: jax.jvp(form, (x,), (0.1 * x,))))(x) for form in forms]
    for cpu, tpu in zip(*found):
        assert abs(tpu - cpu).max() <= 1e-5 * abs(cpu).max() > 0


@pytest.mark.slow_for("form2", "form4", "form6", "form0", "form5", "form7")
@pytest.mark.parametrize(
    "form",
    [
        Form(()),
        Form((2,), unrolled=True),
        Form((2, 2), slice_first=True),
        Form((2, 2), True, True),
        Form((4, 2), True),
        Form((), beside=2),
        Form((2,), beside=16),
        Form((4, 2), beside=3),
        Form((2,), winograd=True),
        Form((2,), beside=16, winograd=True),
    ],
)
def test_all_forms_are_the_same_function(form):
    spec = Spec("cifar_resnet20", 10, (32, 32, 3), (0.5,), (0.25,))
    classifier = drawn(spec)
    classify, x = classifier.inference(form), jnp.asarray(images(3, (32, 32, 3)))
    np.testing.assert_allclose(run(classify, x), run(classifier.classify, x), atol=1e-5)
    jaxpr = jax.make_jaxpr(classify)(x)
    assert str(jaxpr).count("scan[") - str(jaxpr).count("unroll=2") == (0 if form.unrolled else 3)
    joined = [layer.columns for _, layer in nnx.iter_modules(_network(classify)) if isinstance(layer, ConvNorm)]
    assert (joined.count(1) == len(joined)) == (not form.joined) and joined[0] == (4 if form.joined else 1)


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 36, 1), (30, 32, 3)])
def test_winograd_of_more_images_than_the_cache_holds(monkeypatch, shape):
    monkeypatch.setattr(winograd, "MOST", 2**17)  # of 32 channels one image at a time, of 64 two
    classifier = drawn(Spec("cifar_resnet14", 5, shape, (0.5,), (0.25,)))
    x = jnp.asarray(images(4, shape))
    form = Form((), winograd=True)
    np.testing.assert_allclose(run(classifier.inference(form), x), run(classifier.classify, x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64, 64, 3), (45, 38, 3), (33, 64, 1)], ids=["even", "odd", "grey"])
def test_a_packed_stem_is_the_same_function(shape):
    spec = Spec("resnet18", 7, shape, (0.5,), (0.25,))
    classifier = drawn(spec)
    x = jnp.asarray(images(2, shape))
    packed = classifier.inference(Form(packed=True))
    assert _network(packed).conv1.conv.kernel.shape == (4, 4, 16 if shape[2] == 3 else 8, 64)
    np.testing.assert_allclose(jax.jit(packed)(x), jax.jit(classifier.inference(Form()))(x), atol=1e-4)


@pytest.mark.parametrize(
    "platform, dtype, count", [("cpu", "float32", 6), ("cpu", "bfloat16", 0), ("tpu", "float32", 0)]
)
def test_winograd_is_for_a_cpu_and_float32(platform, dtype, count):
    network = _network(drawn(Spec("cifar_resnet14", 10, (32, 32, 3), (0.5,), (0.25,))).inference(platform, dtype))
    assert sum(isinstance(layer, Winograd) for _, layer in nnx.iter_modules(network)) == count


def _network(classify):
    return nnx.merge(classify.func.graph, nnx.State(classify.args[0]))


@pytest.mark.slow_for(*(f"shape{i}-{batch}" for i in range(4) for batch in (1, 6, 16) if (i, batch) != (0, 6)))
@pytest.mark.parametrize("batch", [1, 6, 16])
@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 36, 1), (30, 32, 3), (32, 30, 3)])
def test_images_side_by_side_do_not_see_each_other(batch, shape):
    spec = Spec("cifar_resnet14", 5, shape, (0.5,), (0.25,), {"shortcut": "option_a"})
    classifier = drawn(spec)
    x = jnp.asarray(images(batch, shape))
    beside, plain = (jax.jit(classifier.inference(form)) for form in (Form(beside=16), Form(())))
    np.testing.assert_allclose(beside(x), plain(x), atol=1e-5)
    alone = beside(x.at[1:].set(7.0))[0]
    np.testing.assert_allclose(alone, beside(x)[0], atol=1e-5)


@pytest.mark.parametrize("form", [Form(beside=16), Form(winograd=True)], ids=["beside", "winograd"])
def test_a_batch_of_any_size_is_exported(form):
    classifier = drawn(Spec("cifar_resnet14", 5, (32, 32, 3), (0.5,), (0.25,)))
    classify, x = classifier.inference(form), jnp.asarray(images(3, (32, 32, 3)))
    any_batch = jax.ShapeDtypeStruct(jax.export.symbolic_shape("batch, 32, 32, 3"), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x: classify(x)))(any_batch)
    np.testing.assert_allclose(exported.call(x), run(classifier.classify, x), atol=1e-5)


def test_images_side_by_side_come_apart_as_they_were():
    x = jnp.asarray(images(12, (5, 3, 2)))
    beside = put_beside(x, 4)
    assert beside.shape == (3, 5, 3, 4, 2)
    np.testing.assert_array_equal(beside[1, :, 2, 3], x[7, :, 2])
    np.testing.assert_array_equal(put_apart(beside), x)


def test_the_form_of_a_platform():
    assert Form.of("tpu") == Form((2, 2), slice_first=True)
    assert Form.of("cpu", (0, 7, 0)) == Form.of("cpu", (0, 10, 2)) == Form(winograd=True)
    assert Form.of("cpu", (0, 11, 0)) == Form.of("cpu", (0, 12, 0, 1)) == Form(beside=16, winograd=True)
    assert Form.of("cpu") == Form.of("cpu", jax.__version_info__)
    assert Form.of("gpu") == Form.of("cuda") == Form((4, 2), unrolled=True, packed=True)
    assert Form.of(Form(())) == Form(())


def test_folding_leaves_no_batch_normalisation_and_the_given_network_as_it_was(tmp_path):
    classifier = load_classifier(save(macer(resnet(20)), tmp_path / "net.pth"))
    before = classifier.fingerprint()
    assert Classifier(classifier.spec, classifier.model).fingerprint() == before
    assert any(isinstance(module, nnx.BatchNorm) for _, module in nnx.iter_modules(classifier.model))
    jaxpr = str(jax.make_jaxpr(classifier.classify)(jnp.zeros((1, 32, 32, 3))))
    assert "rsqrt" not in jaxpr


@pytest.mark.slow_for("resnet50", "cifar_resnet20", "cifar_wide_resnet")
@pytest.mark.parametrize("arch", ["lenet", "cifar_resnet20", "resnet50", "cifar_wide_resnet"])
def test_every_product_of_a_bfloat16_classifier_is_one_of_bfloat16(arch):
    shape = (28, 28, 1) if arch == "lenet" else (32, 32, 3)
    model = nnx.eval_shape(lambda: build(Spec(arch, 7, shape, (0.5,), (0.5,))))
    model = fill(model, jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01), nnx.to_pure_dict(nnx.state(model))))
    classify = Classifier(Spec(arch, 7, shape, (0.5,), (0.5,)), model).inference(dtype=jnp.bfloat16)
    assert jax.eval_shape(classify, jax.ShapeDtypeStruct((5, *shape), jnp.float32)).dtype == jnp.float32
    lines = str(jax.make_jaxpr(classify)(jnp.zeros((5, *shape)))).splitlines()
    products = [line for line in lines if "conv_general_dilated[" in line or "dot_general[" in line]
    assert len(products) >= 4 and all(":bf16[" in line for line in products)


@pytest.mark.slow
def test_bfloat16_logits_are_those_of_float32_rounded(tmp_path):
    classifier = load_classifier(save(cohen(resnet(20), "cifar_resnet20"), tmp_path / "net.pth"))
    x = jnp.asarray(images(4, (32, 32, 3)))
    exact, rounded = (jax.jit(f)(x) for f in (classifier.classify, classifier.inference(dtype=jnp.bfloat16)))
    assert 0 < abs(rounded - exact).max() <= 0.03 * abs(exact).max()


@pytest.mark.slow
def test_folding_survives_small_variances():
    unit = ConvNorm(2, 3, 3, rngs=nnx.Rngs(0))
    unit.eval()
    unit.norm.var[...] = jnp.array([1e-8, 1.0, 1e4])
    unit.norm.mean[...] = jnp.array([3.0, -2.0, 0.5])
    unit.norm.bias[...] = jnp.array([1.0, 2.0, 3.0])
    x = jnp.asarray(images(2, (8, 8, 2)))
    expected = unit(x)
    fold_norms(unit)
    assert unit.norm is None
    np.testing.assert_allclose(unit(x), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("depth", [20, 110])
@pytest.mark.parametrize("option_a", [False, True])
@pytest.mark.slow_for("110")
def test_as_many_parameters_as_pytorch(depth, option_a):
    expected = sum(p.numel() for p in resnet(depth, option_a).parameters())
    model = shapes(f"cifar_resnet{depth}", **({"shortcut": "option_a"} if option_a else {}))
    assert count_parameters(model) == expected


def test_shapes_of_a_network_are_those_of_one_that_is_built_and_a_copy_for_each_caller():
    spec = Spec("cifar_resnet8", 7, (32, 32, 3), (0.5,), (0.25,), {"max_pool": True})
    first, other = abstract(spec), abstract(dataclasses.replace(spec, image_shape=(16, 20, 3), mean=(0.1,)))
    assert nnx.graphdef(first) == nnx.graphdef(other) == nnx.graphdef(nnx.eval_shape(lambda: build(spec)))
    fill(first, jax.tree.map(lambda leaf: np.ones(leaf.shape), nnx.to_pure_dict(nnx.state(first))))
    first.max_pool = False
    for leaf in jax.tree.leaves(nnx.state(other)) + jax.tree.leaves(nnx.state(abstract(spec))):
        assert isinstance(leaf, jax.ShapeDtypeStruct)
    assert abstract(spec).max_pool is True and abstract(dataclasses.replace(spec, options={})).max_pool is False
    with pytest.raises(TypeError, match="colour"):
        abstract(dataclasses.replace(spec, options={"colour": 3}))


def test_published_numbers_of_parameters():
    """0.27 M and 1.7 M in table 6 of He et al. (2016), with option A."""
    assert count_parameters(shapes("cifar_resnet20", shortcut="option_a")) == 269_722
    assert count_parameters(shapes("cifar_resnet110", shortcut="option_a")) == 1_727_962


def test_lenet_has_as_many_parameters_as_pytorch(tmp_path):
    model = load_classifier(lenet_file(tmp_path)).model
    assert count_parameters(model) == sum(p.numel() for p in lenet().parameters())


def equations(jaxpr):
    """The number of equations, those inside scans and calls included."""
    total = 0
    for eqn in jaxpr.eqns:
        inner = [v for value in eqn.params.values() for v in jax.tree.leaves(value, is_leaf=_is_jaxpr) if _is_jaxpr(v)]
        total += 1 + sum(equations(getattr(v, "jaxpr", v)) for v in inner)
    return total


def _is_jaxpr(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def test_a_deep_network_is_no_longer_a_program_than_a_shallow_one():
    def length(arch):
        graph, state = nnx.split(shapes(arch))
        run = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))
        return equations(run(state, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)).jaxpr)

    assert length("cifar_resnet20") > 50
    assert length("cifar_resnet110") == length("cifar_resnet20")


@pytest.mark.slow
def test_stacked_blocks_run_in_order():
    blocks = stack(lambda rngs: nnx.Linear(3, 3, rngs=rngs), 4, nnx.Rngs(0))
    kernels, x = blocks.kernel[...], jnp.ones((2, 3))
    assert len({np.asarray(kernel).tobytes() for kernel in kernels}) == 4
    expected = x
    for kernel in kernels:
        expected = expected @ kernel
    np.testing.assert_allclose(scan_blocks(blocks, x), expected, rtol=1e-5)


def test_max_pool_drops_an_odd_last_row_and_keeps_negative_values():
    x = -jnp.arange(1.0, 16.0).reshape(1, 3, 5, 1)
    np.testing.assert_array_equal(max_pool(x)[0, :, :, 0], [[-1, -3]])


@pytest.mark.slow
def test_classifiers_of_one_architecture_share_a_program(tmp_path):
    lenets = []
    for seed in (0, 1):
        spec = Spec("lenet", 10, (28, 28, 1), (0.1 * seed,), (1.0 + seed,))
        lenets.append(Classifier(spec, build(spec, seed)))
    traces = []

    @jax.jit
    def logits(classify, x):
        traces.append(classify)
        return classify(x)

    x = jnp.asarray(images(2, (28, 28, 1)))
    out = [logits(c.classify, x) for c in (*lenets, lenets[0], load_classifier(lenet_file(tmp_path)))]
    assert len(traces) == 1
    np.testing.assert_array_equal(out[0], out[2])
    assert abs(out[0] - out[1]).max() > 0.01  # its own weights, not those of the first trace


def test_only_equal_architectures_share_a_program():
    function = constant("cifar_resnet20", 1.0).classify.func
    same = constant("cifar_resnet20", 2.0).classify.func
    assert function == same
    assert hash(function) == hash(same)
    assert function != constant("cifar_resnet20", 1.0, shortcut="option_a").classify.func


def test_fingerprint_changes_with_any_variable():
    classifier = constant("cifar_resnet20", 1.0)
    model, seen = classifier.model, [classifier.fingerprint()]
    assert constant("cifar_resnet20", 1.0).fingerprint() == seen[0]
    for variable in (model.conv1.norm.mean, model.layer2.rest.conv1.conv.kernel, model.fc.bias):
        variable[...] = variable[...] + 1e-3
        seen.append(classifier.fingerprint())
    assert len(set(seen)) == 4


@pytest.mark.parametrize(
    "change, words",
    [
        ({"arch": "vgg16"}, "unknown architecture 'vgg16'.*cifar_resnet20"),
        ({"mean": (0.1, 0.2)}, "mean .* 2 entries .* 3 channels"),
        ({"std": ()}, "std .* 0 entries"),
        ({"std": (0.1, 0.0, 0.1)}, "positive"),
        ({"std": (-1.0,)}, "positive"),
    ],
)
def test_spec_refuses(change, words):
    with pytest.raises(ValueError, match=words):
        Spec(**{"arch": "cifar_resnet20", **CIFAR, **change})


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.slow_for("resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2")
def test_every_architecture_gives_logits_per_image(arch):
    shape = (28, 28, 1) if arch == "lenet" else (32, 32, 3)
    spec = Spec(arch, 7, shape, (0.5,), (0.5,))
    graph, state = nnx.split(nnx.eval_shape(lambda: build(spec)))
    x = jax.ShapeDtypeStruct((5, *shape), jnp.float32)
    assert jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x), state, x).shape == (5, 7)
