"""`.pt2` files as classifiers: opened, converted, certified, verified and refused."""

import json
import os
import re
import subprocess
import sys
import warnings
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pt2_files import FORMS, export, exported, in_form, save
from pt2_golden import FOLDER, images
from pt2_operations import Many
from readme import PAGES, blocks_of
from with_torch import torch

import qcrs_jax
from qcrs_jax import load_classifier
from qcrs_jax.convert.pt2.schema import MAJOR
from qcrs_jax.experiments import cli
from qcrs_jax.models.checkpoint import CheckpointError, save_classifier

GOLDEN = ("convolutions", "tokens")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_archives_give_the_logits_of_pytorch(name):
    classifier = load_classifier(FOLDER / f"{name}.pt2")
    wanted = np.load(FOLDER / "logits.npz")[name]
    found = np.asarray(jax.jit(lambda classify, x: classify(x))(classifier.classify, images()))
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_the_metadata_of_a_program():
    spec = load_classifier(FOLDER / "tokens.pt2").spec
    assert (spec.image_shape, spec.num_classes, spec.class_names) == ((8, 8, 3), 3, ("a", "b", "c"))
    assert (spec.source["sigma"], spec.mean, spec.std) == (0.25, (0.0,), (1.0,))
    assert load_classifier(FOLDER / "convolutions.pt2").spec.class_names is None


@pytest.mark.slow
def test_no_pytorch_is_needed():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from qcrs_jax import load_classifier; import numpy as np\n"
        f"classify = load_classifier({str(FOLDER / 'convolutions.pt2')!r}).classify\n"
        "print(classify(np.zeros((2, 8, 8, 3), 'f')).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert (done.stdout.strip(), done.returncode) == ("(2, 3)", 0), done.stderr


@pytest.mark.slow
def test_a_converted_program_is_the_same_classifier(tmp_path):
    first = load_classifier(FOLDER / "tokens.pt2")
    save_classifier(first, tmp_path / "net")
    again = load_classifier(tmp_path / "net")
    assert again.fingerprint() == first.fingerprint() and again.spec == first.spec
    np.testing.assert_array_equal(again.classify(images()), first.classify(images()))
    assert [file.name for file in (tmp_path / "net").iterdir()] == ["classifier.pt2"]
    save_classifier(first, tmp_path / "net", overwrite=True)


def test_the_fingerprint_is_of_graph_and_weights(tmp_path):
    sums = {load_classifier(FOLDER / f"{name}.pt2").fingerprint() for name in GOLDEN}
    changed = rewritten(tmp_path / "a.pt2", tensors={"data/weights/weight_0": lambda data: data[:-4] + b"\0\0\0\x3f"})
    graph = rewritten(tmp_path / "b.pt2", document=lambda document: nodes(document, "relu")[0].update(target=SILU))
    traces = rewritten(tmp_path / "c.pt2", document=lambda document: [n.pop("metadata") for n in all_nodes(document)])
    sums |= {load_classifier(path).fingerprint() for path in (changed, graph)}
    assert len(sums) == 4
    assert load_classifier(traces).fingerprint() == load_classifier(FOLDER / "convolutions.pt2").fingerprint()


SILU = "torch.ops.aten.silu.default"


def classifier_file(path, forward=None, batch="any", n=2, form="functional", **extra):
    """A program of a forward function of images (b, 3, 8, 8)."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner(forward)

        def forward(self, x):
            return self.inner(x)

    class Inner(torch.nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function or (lambda x: x.mean((2, 3)))

        def forward(self, x):
            return self.function(x)

    return export(Net(), (torch.rand(n, 3, 8, 8),), path, form, batch, **extra)


@pytest.mark.slow
def test_the_exporter_s_paths_are_not_stored(tmp_path):
    path = classifier_file(tmp_path / "net.pt2")
    where = os.path.dirname(__file__).encode()
    assert where in path.read_bytes()
    save_classifier(load_classifier(path), tmp_path / "net")
    stored = (tmp_path / "net" / "classifier.pt2").read_bytes()
    assert where not in stored and b"stack_trace" not in stored and b"nn_module_stack" not in stored


def refused(path, **options):
    with pytest.raises(CheckpointError) as error:
        load_classifier(path, **options)
    text = str(error.value)
    assert text.startswith(str(path)), text
    return text.removeprefix(f"{path}: ")


def test_unknown_operations_are_listed_with_their_modules(tmp_path):
    path = classifier_file(tmp_path / "net.pt2", lambda x: (torch.special.i0(x) + torch.digamma(x)).mean((2, 3)))
    words = refused(path)
    assert "operations that are not supported" in words
    assert "aten.special_i0.default in inner" in words and "aten.digamma.default in inner" in words


def test_random_operations_are_refused(tmp_path):
    path = classifier_file(tmp_path / "net.pt2", lambda x: (x + torch.randn_like(x) + torch.rand(8)).mean((2, 3)))
    words = refused(path)
    assert "random operations" in words and "aten.randn_like.default in inner" in words and "aten.rand" in words


@pytest.mark.parametrize("form", ["as exported", "functional"])
def test_training_mode_is_refused(tmp_path, form):
    net = torch.nn.Sequential(
        torch.nn.BatchNorm2d(3), torch.nn.Dropout(0.5), torch.nn.Flatten(), torch.nn.Linear(192, 2)
    )
    program = exported(net.train(), (torch.rand(2, 3, 8, 8),))
    words = refused(save(in_form(program, form), tmp_path / "net.pt2"))
    assert "model.eval() before torch.export" in words


def test_statistics_of_a_batch_are_refused(tmp_path):
    """They join the images of a batch, so that counts would depend on its size."""
    norm = torch.nn.functional.batch_norm
    path = classifier_file(tmp_path / "net.pt2", lambda x: norm(x, None, None, training=True).mean((2, 3)))
    assert "operations in training mode" in refused(path)


@pytest.mark.parametrize("forward", ["view", "whole"])
def test_a_tensor_that_others_share_is_not_changed(tmp_path, forward):
    def through_a_view(x):
        y = x * 2
        y[:, 0] = 1.0
        return y.mean((2, 3))

    def with_a_view(x):
        y = x * 2
        view = y[:, 0]
        y.add_(1)
        return y.mean((2, 3)) + view.mean((1, 2))[:, None]

    function = {"view": through_a_view, "whole": with_a_view}[forward]
    words = refused(classifier_file(tmp_path / "a.pt2", function, form="as exported"))
    assert "changed in place" in words and "run_decompositions({})" in words
    path, x = classifier_file(tmp_path / "b.pt2", function), torch.rand(3, 3, 8, 8)
    found = load_classifier(path).classify(x.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(found, function(x), rtol=1e-5)


def test_a_tensor_changed_in_place_is_the_changed_one_for_all_who_have_it(tmp_path):
    def forward(x):
        y = x * 2
        z = y.add_(1)
        z.mul_(y)
        return (y + z).mean((2, 3))

    path, x = classifier_file(tmp_path / "a.pt2", forward, form="as exported"), torch.rand(3, 3, 8, 8)
    found = load_classifier(path).classify(x.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(found, forward(x), rtol=1e-5)


@pytest.mark.slow
def test_parts_without_gradients_are_computed(tmp_path):
    def forward(x):
        with torch.no_grad():
            y = torch.nn.functional.conv2d(x, torch.ones(2, 3, 3, 3)).relu_()
        return y.mean((2, 3)) + x.mean((1, 2))[:, :2]

    x = torch.rand(3, 3, 8, 8)
    for form in FORMS:
        path = classifier_file(tmp_path / f"{form}.pt2", forward, form=form)
        found = load_classifier(path).classify(x.permute(0, 2, 3, 1).numpy())
        np.testing.assert_allclose(found, forward(x), rtol=1e-5)


def test_parts_in_another_number_format_are_refused_or_exact(tmp_path):
    def forward(x):
        with torch.autocast("cpu", torch.bfloat16):
            y = torch.nn.functional.conv2d(x, torch.ones(2, 3, 3, 3))
        return y.float().mean((2, 3))

    words = refused(classifier_file(tmp_path / "a.pt2", forward, form="as exported"))
    assert "autocast" in words and "run_decompositions({})" in words
    x = torch.rand(3, 3, 8, 8)
    found = load_classifier(classifier_file(tmp_path / "b.pt2", forward)).classify(x.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(found, forward(x), rtol=1e-2)


def test_statistics_of_a_batch_within_a_part_are_refused(tmp_path):
    def forward(x):
        with torch.no_grad():
            y = torch.nn.functional.batch_norm(x, None, None, training=True)
        return y.mean((2, 3))

    assert "operations in training mode" in refused(classifier_file(tmp_path / "a.pt2", forward, form="as exported"))


def test_another_fixed_batch_is_refused_with_the_recipe(tmp_path):
    words = refused(classifier_file(tmp_path / "net.pt2", batch=None, n=3))
    assert "exactly 3 images" in words and "torch.export.Dim" in words


@pytest.mark.slow
def test_a_batch_is_cut_to_the_recorded_range(tmp_path):
    def ranged(document):
        (name,) = document["range_constraints"]
        document["range_constraints"][name] = {"min_val": 2, "max_val": 4}

    path = rewritten(tmp_path / "net.pt2", document=ranged)
    free, ranged = load_classifier(FOLDER / "convolutions.pt2"), load_classifier(path)
    x = np.random.default_rng(0).uniform(size=(11, 8, 8, 3)).astype(np.float32)
    for n in (0, 1, 2, 3, 4, 5, 9, 11):
        seen = jax.make_jaxpr(ranged.classify)(x[:n])
        found = jax.jit(ranged.classify)(x[:n])
        assert found.shape == (n, 3)
        np.testing.assert_allclose(found, jax.jit(free.classify)(x[:n]), rtol=1e-5, atol=1e-6)
        convolved = [size for size in batches(seen.jaxpr)]
        assert convolved and all(2 <= size <= 4 for size in convolved)
    with pytest.raises(CheckpointError, match="batches of 2 to 4 images"):
        shape = jax.export.symbolic_shape("b, 8, 8, 3")
        jax.export.export(jax.jit(lambda x: ranged.classify(x)))(jax.ShapeDtypeStruct(shape, jnp.float32))


def batches(program):
    """The batch of each convolution of a program."""
    for equation in program.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation.invars[0].aval.shape[0]
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from batches(inner)


def test_a_network_of_any_image_size_needs_image_size(tmp_path):
    d = torch.export.Dim

    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    with_sizes = torch.export.export(
        Mean(), (torch.rand(2, 3, 8, 9),), dynamic_shapes=({0: d("b"), 2: d("h"), 3: d("w")},)
    )
    path = save(with_sizes, tmp_path / "net.pt2")
    assert "image_size" in refused(path)
    classifier = load_classifier(path, image_size=(5, 7))
    assert classifier.spec.image_shape == (5, 7, 3)
    save_classifier(classifier, tmp_path / "net")
    assert load_classifier(tmp_path / "net").spec.image_shape == (5, 7, 3)


def test_functions_that_return_no_classifier_are_refused(tmp_path):
    assert "gives 2 results" in refused(classifier_file(tmp_path / "a.pt2", lambda x: (x.mean((2, 3)), x.sum((2, 3)))))
    assert "logits (batch, classes)" in refused(classifier_file(tmp_path / "b.pt2", lambda x: x * 2))
    assert "logits (batch, classes)" in refused(classifier_file(tmp_path / "c.pt2", lambda x: x.mean((0, 2, 3))[None]))
    tokens = export(Many({"x": lambda x: x.mean(1)}), (torch.rand(2, 3, 8),), tmp_path / "d.pt2")
    assert "no batch of images" in refused(tokens)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"normalization": "cifar10"}, "has its normalisation within it"),
        ({"prefix": "net."}, "no prefix"),
        ({"field": "state_dict"}, "no field"),
        ({"leave_out": "head"}, "no leave_out"),
        ({"max_pool": True}, "no max_pool"),
        ({"image_size": 16}, "takes images of 8 x 8"),
    ],
)
def test_options_of_checkpoints_are_refused_for_programs(options, words):
    assert words in refused(FOLDER / "tokens.pt2", **options)
    load_classifier(FOLDER / "tokens.pt2", normalization="none", image_size=8)


def test_training_and_export_of_a_program_are_refused(tmp_path, capsys):
    classifier = load_classifier(FOLDER / "tokens.pt2")
    with pytest.raises(CheckpointError, match="exported program, not a network of ours"):
        _ = classifier.model
    with pytest.raises(CheckpointError, match="number formats of its export"):
        classifier.inference(dtype="bfloat16")
    assert cli.main(["export", str(FOLDER / "tokens.pt2"), str(tmp_path / "net.pth.tar")]) != 0
    assert "not a network of ours" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "fits"), [('{"0": "a", "1": "b", "2": "c"}', True), ("a\nb\nc\n", True), ("a\nb", False)]
)
def test_class_names_of_extra_files(tmp_path, text, fits):
    path = classifier_file(tmp_path / "net.pt2", labels__txt=text)
    if fits:
        assert load_classifier(path).spec.class_names == ("a", "b", "c")
    else:
        assert "does not name its 3 classes" in refused(path)


def test_numbers_that_are_tied_are_stored_once(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = self.b = torch.nn.Linear(3, 3, bias=False)
            self.unused = torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.b(self.a(x.mean((2, 3))))

    classifier = load_classifier(export(Tied(), (torch.rand(2, 3, 8, 8),), tmp_path / "net.pt2"))
    assert len(jax.tree.leaves(classifier.classify)) == 1
    assert classifier.count_parameters() == 9


@pytest.mark.slow
def test_a_program_is_certified_and_verified(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    np.savez("data.npz", x_test=x, y_test=np.arange(4) % 3)
    network = str(FOLDER / "convolutions.pt2")
    data = ["--dataset", "npz", "--data_dir", "data.npz"]
    numbers = ["--sigma", "0.25", "--n0", "16", "--n", "64", "--skip", "1", "--method", "cohen"]
    assert cli.main(["convert", network, "net", "--check", "npz", "--data_dir", "data.npz", "--skip", "1"]) in (0, None)
    assert "accuracy on 4 images" in capsys.readouterr().out
    for name, file in (("of_file", network), ("of_folder", "net")):
        assert cli.main(["certify", file, name, *data, *numbers]) in (0, None)
    first, second = (qcrs_jax.read_results(name) for name in ("of_file", "of_folder"))
    assert len(first.records) == 4
    assert [record.counts for record in first.records] == [record.counts for record in second.records]
    assert first.request["classifier"] == second.request["classifier"]
    capsys.readouterr()
    assert cli.main(["verify", "of_folder", "--trust_paths"]) in (0, None)
    assert cli.main(["export-program", network, "program", "--sigma", "0.25", "--n", "64", "--platforms", "cpu"]) in (
        0,
        None,
    )


@pytest.mark.slow
def test_the_recipes_of_the_guide_write_what_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, second, module = blocks_of(PAGES["docs/guides/pytorch-programs.md"], "python")
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, 16), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(784, 2)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"torch": torch, "model": model}
        exec(recipe, names)
        exec(module, names)

    class Diffusion(torch.nn.Module):
        def forward(self, x, step):
            return 0.1 * x + 0.001 * step[:, None, None, None]

    small = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names["denoised"] = denoised = names["Denoised"](Diffusion(), small, torch.linspace(0.999, 0.01, 50))
        exec(second, names)
    assert load_classifier("model.pt2").spec.image_shape == (224, 224, 3)
    x, sigma = torch.rand(3, 3, 32, 32), torch.tensor([0.1, 0.3, 0.8])
    with torch.no_grad():
        expected = denoised(x, sigma).numpy()
    found = load_classifier("denoised.pt2").classify(x.numpy().transpose(0, 2, 3, 1), sigma.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# What follows reads archives that were changed by hand.


def rewritten(path, name="convolutions", document=None, tensors=None, config=None, **others):
    """A golden archive with another document, other bytes of records, or another configuration of weights."""
    with zipfile.ZipFile(FOLDER / f"{name}.pt2") as golden:
        records = {entry: golden.read(entry) for entry in golden.namelist()}
    root = next(iter(records)).split("/")[0]
    for entry, change in (
        (f"{root}/models/model.json", document),
        (f"{root}/data/weights/model_weights_config.json", config),
    ):
        if change is not None:
            found = json.loads(records[entry])
            change(found)
            records[entry] = json.dumps(found).encode()
    for entry, change in {**(tensors or {}), **others}.items():
        records[f"{root}/{entry}"] = change(records.get(f"{root}/{entry}", b"")) if callable(change) else change
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in records.items():
            archive.writestr(zipfile.ZipInfo(entry), content)
    return path


def all_nodes(document):
    return document["graph_module"]["graph"]["nodes"]


def nodes(document, operation):
    return [node for node in all_nodes(document) if node["target"].split(".")[3] == operation]


def weight(config, name="stem.weight"):
    return config["config"][name]


def meta(config, name="stem.weight"):
    return weight(config, name)["tensor_meta"]


def values(document):
    return document["graph_module"]["graph"]["tensor_values"]


CHANGES = {
    "pickled weight": ({"config": lambda c: weight(c).update(use_pickle=True)}, "stored as a pickle"),
    "sparse weight": ({"config": lambda c: meta(c).update(layout=1)}, "sparse"),
    "unknown format": ({"config": lambda c: meta(c).update(dtype=29)}, "number format .code 29."),
    "offset": ({"config": lambda c: meta(c).update(storage_offset={"as_int": 1})}, "does not fit its storage"),
    "negative stride": ({"config": lambda c: meta(c)["strides"][0].update(as_int=-1)}, "size, stride or offset"),
    "huge stride": ({"config": lambda c: meta(c)["strides"][0].update(as_int=2**40)}, "does not fit its storage"),
    "huge by stride 0": (
        {"config": lambda c: meta(c).update(sizes=[{"as_int": 2**30}], strides=[{"as_int": 0}])},
        "does not fit its storage",
    ),
    "symbolic size": ({"config": lambda c: meta(c)["sizes"][0].update(as_expr={})}, "size, stride or offset"),
    "other shape": ({"config": lambda c: meta(c)["sizes"].reverse()}, "by the graph|does not fit"),
    "other kind": ({"config": lambda c: meta(c).update(dtype=4)}, "is int32 of the shape"),
    "path": ({"config": lambda c: weight(c).update(path_name="../constants/tensor_0")}, "no place"),
    "lost": ({"config": lambda c: weight(c).update(path_name="weight_77")}, "no record"),
    "no entry": ({"config": lambda c: c["config"].pop("stem.weight")}, "is not in the archive"),
    "short record": ({"tensors": {"data/weights/weight_0": lambda data: data[:-8]}}, "does not fit its storage"),
    "odd record": ({"tensors": {"data/weights/weight_0": lambda data: data[:-1]}}, "bytes instead of"),
    "big-endian": ({"tensors": {"byteorder": b"big"}}, "big-endian"),
    "no JSON": ({"tensors": {"models/model.json": b"{"}}, "no JSON"),
    "deep JSON": ({"tensors": {"models/model.json": b"[" * 10**6}}, "no JSON"),
    "NaN": ({"tensors": {"models/model.json": b'{"a": NaN}'}}, "no JSON"),
    "long JSON": ({"tensors": {"models/model.json": b" " * (24 * 2**20 + 1)}}, "more than 24 MiB"),
    "major": ({"document": lambda d: d["schema_version"].update(major=MAJOR + 1)}, "schema 9"),
    "minor": ({"document": lambda d: d["schema_version"].update(minor=8)}, "schema 8.8"),
    "no graph": ({"document": lambda d: d.pop("graph_module")}, "not as torch.export writes it"),
    "twice": ({"document": lambda d: all_nodes(d).append(all_nodes(d)[0])}, "computed twice"),
    "before": ({"document": lambda d: all_nodes(d).reverse()}, "used before it is computed"),
    "output": (
        {"document": lambda d: d["graph_module"]["graph"]["outputs"][0]["as_tensor"].update(name="none")},
        "not computed",
    ),
    "unknown argument": (
        {"document": lambda d: nodes(d, "relu")[0]["inputs"][0].update(arg={"as_rumour": 1})},
        "kind as_rumour",
    ),
    "code": (
        {"document": lambda d: nodes(d, "relu")[0].update(target="__import__('os').system('true')")},
        "not supported",
    ),
    "dunder": (
        {"document": lambda d: nodes(d, "relu")[0].update(target="torch.ops.aten.__class__.x")},
        "not supported",
    ),
    "argument name": (
        {"document": lambda d: nodes(d, "relu")[0]["inputs"][0].update(name="compute")},
        "cannot be computed",
    ),
    "shape of a value": ({"document": lambda d: values(d)["relu"]["sizes"][1].update(as_int=5)}, "by the file"),
    "kind of a value": ({"document": lambda d: values(d)["relu"].update(dtype=5)}, "by the file"),
    "huge value": ({"document": lambda d: values(d)["relu"]["sizes"][1].update(as_int=2**35)}, "more than"),
    "mutation": (
        {
            "document": lambda d: d["graph_module"]["signature"]["output_specs"].insert(
                0, {"buffer_mutation": {"arg": {"name": "x"}, "buffer_name": "norm.running_mean"}}
            )
        },
        "outputs of the graph|changes its buffer",
    ),
    "token": (
        {"document": lambda d: d["graph_module"]["signature"]["input_specs"].append({"token": {"arg": {"name": "t"}}})},
        "input of the kind token",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_archive_is_refused_in_a_sentence(change, tmp_path):
    given, words = CHANGES[change]
    assert re.search(words, refused(rewritten(tmp_path / "net.pt2", **given)))


def test_expressions_in_the_file_are_not_evaluated(tmp_path):
    def hostile(document):
        for value in values(document).values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = "__import__('os').abort()"
        document["guards_code"] = ["__import__('os').abort()"]

    classifier = load_classifier(rewritten(tmp_path / "net.pt2", document=hostile))
    assert classifier.classify(images()).shape == (3, 3)


MADE = {
    "arange": {"end": {"as_int": 2**40}},
    "full": {"size": {"as_ints": [2**20, 2**20]}, "fill_value": {"as_int": 1}},
    "eye": {"n": {"as_int": 2**30}},
    "linspace": {"start": {"as_int": 0}, "end": {"as_int": 1}, "steps": {"as_int": 2**40}},
    "tril_indices": {"row": {"as_int": 2**20}, "col": {"as_int": 2**20}},
}


@pytest.mark.parametrize("operation", MADE)
def test_nothing_large_is_made_out_of_nothing(operation, tmp_path):
    def hostile(document):
        inputs = [{"name": name, "arg": arg, "kind": 1} for name, arg in MADE[operation].items()]
        target = f"torch.ops.aten.{operation}.default"
        all_nodes(document).insert(
            0, {"target": target, "inputs": inputs, "outputs": [{"as_tensor": {"name": "huge"}}]}
        )

    assert "at most" in refused(rewritten(tmp_path / "net.pt2", document=hostile))


def test_other_versions_and_files_are_named(tmp_path):
    old = tmp_path / "old.pt2"
    with zipfile.ZipFile(old, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    assert "torch 2.8 or earlier" in refused(old)
    pickled = rewritten(tmp_path / "pickled.pt2", tensors={"data/weights/model.pt": b"\x80\x02."})
    assert "weights in pickles" in refused(pickled)
    (tmp_path / "text.pt2").write_text("hello, this is no archive at all")
    assert "text file" in refused(tmp_path / "text.pt2")
    (tmp_path / "empty.pt2").write_bytes(b"")
    assert "empty" in refused(tmp_path / "empty.pt2")
    (tmp_path / "cut.pt2").write_bytes((FOLDER / "tokens.pt2").read_bytes()[:-100])
    assert "truncated or damaged" in refused(tmp_path / "cut.pt2")
    other = tmp_path / "program.pt"  # known by what it holds, whatever its name is
    other.write_bytes((FOLDER / "tokens.pt2").read_bytes())
    assert load_classifier(other).spec.num_classes == 3


def test_the_installed_pytorch_writes_what_is_read(tmp_path):
    """Fails when a new PyTorch writes another schema."""
    path = classifier_file(tmp_path / "net.pt2")
    with zipfile.ZipFile(path) as archive:
        document = json.loads(archive.read("net/models/model.json"))
    assert document["schema_version"]["major"] == MAJOR


def damaged(content, rng):
    """The JSON `content` with one change somewhere in it, and what is there otherwise."""
    places = []

    def visit(value):
        if isinstance(value, dict | list):
            for key in value if isinstance(value, dict) else range(len(value)):
                places.append((value, key))
                visit(value[key])

    visit(content)
    value, key = places[rng.integers(len(places))]
    other, place = places[rng.integers(len(places))]
    kind = rng.integers(6)
    if kind == 0:
        del value[key]
    elif kind == 1:
        value[key] = [None, True, -1, 0, 1, 3, 2**31, 2**63, 1e300, "", "x", [], {}, [[]], "NaN"][rng.integers(15)]
    elif kind == 2:
        value[key] = json.loads(json.dumps(other[place]))
    elif kind == 3 and isinstance(value[key], int):
        value[key] += int(rng.integers(-3, 4))
    elif kind == 4 and isinstance(value[key], str):
        value[key] = value[key][: rng.integers(len(value[key]) + 1)]
    elif isinstance(value, list):
        value.insert(int(rng.integers(len(value) + 1)), json.loads(json.dumps(other[place])))
    return content


@pytest.mark.parametrize("count", [40, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_archives_end_in_a_classifier_or_a_clear_error(count, tmp_path):
    """Of each a change in the graph, in the weights' configuration, or of single bytes of the archive."""
    rng, ends = np.random.default_rng(count), {"opened": 0, "refused": 0}
    whole = {name: (FOLDER / f"{name}.pt2").read_bytes() for name in GOLDEN}
    path = tmp_path / "net.pt2"
    for i in range(count):
        name = GOLDEN[i % 2]
        kind = ("document", "document", "config", "bytes")[rng.integers(4)]
        if kind == "bytes":
            data = bytearray(whole[name])
            for _ in range(rng.integers(1, 4)):
                data[rng.integers(len(data))] = rng.integers(256)
            path.write_bytes(data)
        else:
            rewritten(path, name, **{kind: lambda content: damaged(content, rng)})
        try:
            load_classifier(path)
            ends["opened"] += 1
        except CheckpointError as error:
            assert str(error).startswith(str(path))
            ends["refused"] += 1
    print(f"{count} archives: {ends}")
    assert ends["refused"] > count // 10
