"""A classifier behind a denoiser, and the training of both, as a user runs them."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx
from jax import export
from program import SMALL, qcrs_jax, refused

from qcrs_jax import Denoised, GoldenSection, NoiseConditional, certify, load_classifier, load_denoiser, run, verify
from qcrs_jax.errors import UserError
from qcrs_jax.experiments.commands import demo
from qcrs_jax.experiments.report.training_curve import DenoiserEpoch, read_log
from qcrs_jax.experiments.run.inputs import Inputs
from qcrs_jax.models.checkpoint import fill, write_denoiser
from qcrs_jax.models.denoiser import Denoiser, DenoiserSpec, build_denoiser
from qcrs_jax.results.records import read_run

COHEN = [*SMALL, "--method", "cohen", "--max", "3"]


def denoiser(seed=0, shape=(28, 28, 1)):
    spec = DenoiserSpec(shape, 2, source={"sigma_range": [0.1, 0.5]})
    model, rng = nnx.eval_shape(lambda: build_denoiser(spec)), np.random.default_rng(seed)
    shapes = nnx.to_pure_dict(nnx.state(model))
    return Denoiser(spec, fill(model, jax.tree.map(lambda a: 0.1 * rng.normal(size=a.shape), shapes)))


@pytest.fixture
def there(here):
    """Inputs of commands, and two denoisers."""
    for name, seed in (("dn", 0), ("other", 1)):
        write_denoiser(denoiser(seed), here / name)
    return here


@pytest.fixture
def behind(there):
    """A run behind a denoiser."""
    done = qcrs_jax("certify", "lenet.pth", "r.tsv", *COHEN, "--macer", "--denoiser", "dn", cwd=there)
    assert "dn: denoiser, unet of width 2, trained at sigma 0.1 to 0.5" in done.stdout
    assert "warning" not in done.stdout.replace("warning: the user chose", "")
    return there


def test_the_request_has_the_denoiser_and_another_is_refused(behind):
    recorded = json.loads((behind / "r.tsv.json").read_text())
    network = recorded["request"]["classifier"]
    made = load_denoiser(behind / "dn")
    assert network["denoiser"] == {"arch": "unet", "width": 2, "weights_sha256": made.fingerprint()}
    assert network["weights_sha256"] == load_classifier(behind / "lenet.pth", "none").fingerprint()
    assert recorded["provenance"]["settings"]["network"]["denoiser"] == "dn"
    words = ["certify", "lenet.pth", "r.tsv", *SMALL, "--method", "cohen", "--macer", "--max", "4"]
    said = refused(*words, "--denoiser", "other", cwd=behind)
    assert "results of another configuration" in said and "classifier.denoiser.weights_sha256" in said
    assert "classifier.denoiser" in refused(*words, cwd=behind)
    qcrs_jax(*words, "--denoiser", "dn", cwd=behind)
    assert len(read_run(behind / "r.tsv").records) == 4


@pytest.mark.slow
def test_verify_opens_the_denoiser_and_accepts_no_other(behind):
    done = qcrs_jax("verify", "r.tsv", "--recount", "all", cwd=behind)
    assert "all 3 lines were drawn again and verified" in done.stdout and "denoiser unet, weights" in done.stdout
    shutil.move(behind / "dn", behind / "moved")
    assert "--denoiser" in refused("verify", "r.tsv", cwd=behind)
    qcrs_jax("verify", "r.tsv", "--denoiser", "moved", cwd=behind)
    shutil.copytree(behind / "other", behind / "dn")
    assert "classifier.denoiser.weights_sha256" in refused("verify", "r.tsv", cwd=behind)


@pytest.mark.slow
def test_verify_opens_no_denoiser_that_lies_elsewhere(behind, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(behind / "dn", elsewhere / "dn")
    file = behind / "r.tsv.json"
    content = json.loads(file.read_text())
    content["provenance"]["settings"]["network"]["denoiser"] = str(elsewhere / "dn")
    content.pop("sidecar_sha256")
    file.write_text(json.dumps(content))
    said = refused("verify", "r.tsv", cwd=behind)
    assert "names the denoiser" in said and "Give --denoiser, or --trust_paths" in said


def test_the_lines_are_those_of_the_library(behind, tmp_path):
    classifier = load_classifier(behind / "lenet.pth", "none")
    made = Denoised(classifier, load_denoiser(behind / "dn"))
    assert isinstance(made.classify, NoiseConditional)
    archive = np.load(behind / "data.npz")
    data = archive["x"][..., None].astype(np.float32) / np.float32(255), archive["y"]
    found = run(made, data, tmp_path / "library.tsv", 0.25, n0=20, n=200, seed=0, stop=3)
    assert found.request["classifier"]["denoiser"]["weights_sha256"] == made.denoiser.fingerprint()
    for one, other in zip(found.records, read_run(behind / "r.tsv").records, strict=True):
        assert (one.counts0, one.counts) == (other.counts0, other.counts)
    assert verify(tmp_path / "library.tsv", made, data)
    with pytest.raises(UserError, match="classifier.denoiser"):
        verify(tmp_path / "library.tsv", classifier, data)


@pytest.mark.parametrize(
    "words, said",
    [
        (["lenet.pth", "--denoiser", "nowhere"], "nowhere: no such file"),
        (["lenet.pth", "--denoiser", "lenet.pth"], "lenet.pth: holds no denoiser.safetensors, and is no denoiser"),
        (
            ["dn", "--denoiser", "dn"],
            "dn: is a denoiser, and no classifier; name the classifier here, and the denoiser",
        ),
        (["lenet.pth", "--denoiser", "wide"], "--denoiser wide: the denoiser is for images of shape (32, 32, 3)"),
    ],
)
def test_what_cannot_be_opened_is_refused(there, words, said):
    write_denoiser(denoiser(shape=(32, 32, 3)), there / "wide")
    checkpoint, *others = words
    assert said in refused("certify", checkpoint, "r.tsv", *COHEN, "--macer", *others, cwd=there)


def test_levels_outside_those_of_the_training_are_noted(there, capsys):
    made = Denoised(load_classifier(there / "lenet.pth", "none"), load_denoiser(there / "dn"))
    inputs = SimpleNamespace(classifier=made)
    bracket = {"search": {"sigma_lower": 0.2, "sigma_upper": 0.8}}
    for request, noted in (
        (bracket, "0.2 to 0.8"),
        ({"search": {"sigmas": [0.5, 0.05]}}, "0.05 to 0.5"),
        ({"sigmas": [0.1, 0.6]}, "0.1 to 0.6"),
        ({"search": {"sigma_lower": 0.1, "sigma_upper": 0.5}}, ""),
        ({"search": {}}, ""),
    ):
        Inputs.note_levels(inputs, request)
        said = f"note: the denoiser was trained at sigma 0.1 to 0.5, and this run may use it from {noted}\n"
        assert capsys.readouterr().out == (said if noted else "")
    Inputs.warn_of_sigma(inputs, 0.7)
    assert "the denoiser was trained at sigma 0.1 to 0.5, but --sigma is 0.7" in capsys.readouterr().out
    Inputs.note_levels(SimpleNamespace(classifier=made.classifier), bracket)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_run_notes_such_levels_once(there):
    words = ["certify", "lenet.pth", "r.tsv", *SMALL, "--macer", "--denoiser", "dn", "--dry_run"]
    done = qcrs_jax(*words, "--left", "0.2", "--right", "0.8", cwd=there)
    note = "note: the denoiser was trained at sigma 0.1 to 0.5, and this run may use it from 0.2 to 0.8"
    assert done.stdout.count(note) == 1
    assert "note: the denoiser" not in qcrs_jax(*words, "--left", "0.2", "--right", "0.5", cwd=there).stdout


@pytest.mark.slow
def test_a_classifier_of_python_stands_behind_it_too(there):
    (there / "net.py").write_text(
        "import jax.numpy as jnp\n\n\ndef load():\n"
        "    return lambda images: jnp.stack([images.mean((1, 2, 3)) - 0.1 * k for k in range(10)], axis=-1)\n"
    )
    qcrs_jax("certify", "python:net.py:load", "own.tsv", *COHEN, "--denoiser", "dn", cwd=there)
    network = read_run(there / "own.tsv").request["classifier"]
    assert network["arch"] == "net.py:load" and network["denoiser"]["width"] == 2


@pytest.mark.slow
def test_the_other_commands_take_it(there):
    common = ["--dataset", "npz", "--data_dir", "data.npz", "--macer", "--denoiser", "dn"]
    qcrs_jax("predict", "lenet.pth", "p.tsv", *common, "--sigma", 0.25, "--N", 50, "--max", 2, cwd=there)
    qcrs_jax("curve", "lenet.pth", "c.tsv", *common, "--sigma", 0.25, "--curve_n", 20, "--max", 2, cwd=there)
    qcrs_jax("agreement", "lenet.pth", *common, "--sigma", 0.25, "--N", 50, "--stop", 2, cwd=there)
    numbers = ["--N", "40", "--N0", "10", "--seed", "0", "--max", "2"]
    words = ["certify", "lenet.pth", "cascade.tsv", *common, "--method", "cascade", "--sigmas", "0.5,0.25", *numbers]
    qcrs_jax(*words, cwd=there)
    for name in ("p", "c", "cascade"):
        assert "denoiser" in read_run(there / f"{name}.tsv").request["classifier"] if name != "c" else True
        qcrs_jax("verify", f"{name}.tsv", "--recount", "all", cwd=there)


@pytest.mark.slow
def test_a_program_in_a_file_has_it(there):
    words = ["lenet.pth", "program.jax", "--macer", "--sigma", 0.25, "--left", 0.1, "--right", 0.4, "--epsilon", 0.1]
    qcrs_jax("export-program", *words, "--n", 100, "--platforms", "cpu", "--denoiser", "dn", cwd=there)
    image = np.load(there / "data.npz")["x"][0][..., None] / np.float32(255)
    numbers = np.uint32([0, 7]), np.float32(0.25), np.int32(100), np.int32(100)
    found = export.deserialize(bytearray((there / "program.jax").read_bytes())).call(image, *numbers)
    classify = Denoised(
        load_classifier(there / "lenet.pth", normalization="none"), load_denoiser(there / "dn")
    ).classify
    search = GoldenSection(0.1, 0.4, epsilon=0.1)
    alone = certify(classify, image, 0.25, key=jax.random.key(7), n=100, search=search)
    assert found["counts"].tolist() == alone.counts.tolist() and float(found["sigma"]) == float(alone.sigma)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    archive = np.load(demo.IMAGES)
    (folder / "data").mkdir()
    for split, part in (("train", slice(0, 64)), ("test", slice(64, 96))):
        file = folder / "data" / f"{split}.npz"
        np.savez(file, x=archive["x"][part], y=archive["y"][part], class_names=archive["class_names"])
    return folder


TRAIN = "--dataset npz --data_dir data --schedule onecycle --batch 16".split()


@pytest.mark.slow
def test_a_denoiser_is_trained_and_fine_tuned_and_a_classifier_behind_it(folder):
    own = ["--method", "denoiser", "--sigma_range", "0.1,1", "--width", "2"]
    done = qcrs_jax("train", "dn", *TRAIN, *own, "--epochs", 3, "--lr", 0.01, cwd=folder)
    assert "denoiser of width 2, squared error, sigma 0.1 to 1: 64 images" in done.stdout
    assert "epoch 3/3" in done.stdout and "certify CLASSIFIER RESULTS --denoiser dn" in done.stdout
    first = load_denoiser(folder / "dn")
    assert first.spec.levels == (0.1, 1.0) and first.spec.image_shape == (28, 28, 1) and first.spec.width == 2
    rows = read_log(folder / "dn" / "training" / "log.tsv", DenoiserEpoch)
    assert rows[-1].loss < rows[0].loss and rows[-1].error_high < 0.3
    assert (folder / "dn" / "training" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "epoch" not in qcrs_jax("train", "dn", *TRAIN, *own, "--epochs", 3, "--lr", 0.01, cwd=folder).stderr
    said = refused("train", "dn", *TRAIN, *own, "--epochs", 4, "--lr", 0.01, cwd=folder)
    assert "epochs: 3 in the file, 4 now" in said

    zoo = "zoo:fashion_mnist-lenet-sigma0.2-1"
    words = ["train", "stable", *TRAIN, *own, "--epochs", 1, "--init", "dn", "--classifier", zoo]
    assert "stability" in qcrs_jax(*words, cwd=folder).stdout
    stable = load_denoiser(folder / "stable")
    assert stable.spec.source["init"] == first.fingerprint() != stable.fingerprint()
    assert stable.spec.source["classifier"] == load_classifier(zoo).fingerprint()

    words = ["train", "tuned", *TRAIN, "--init", zoo, "--denoiser", "dn", "--sigma_range", "0.1,1", "--epochs", 1]
    done = qcrs_jax(*words, "--lr", 1e-3, cwd=folder)
    assert "behind a denoiser" in done.stdout and "certify tuned RESULTS --denoiser dn" in done.stdout
    source = load_classifier(folder / "tuned").spec.source
    assert source["denoiser"] == first.fingerprint() and source["init"] == load_classifier(zoo).fingerprint()
    certify = ["certify", "tuned", "r.tsv", *COHEN[:2], "--data_dir", "data", "--sigma", 0.25, "--dry_run"]
    for flags, warned in (([], "none stands"), (["--denoiser", "stable"], "another one"), (["--denoiser", "dn"], "")):
        out = qcrs_jax(*certify, *flags, cwd=folder).stdout
        assert ("it was trained behind the denoiser" in out) == bool(warned) and warned in out


@pytest.mark.parametrize(
    "words, said",
    [
        (["--method", "denoiser"], "required: --sigma, the noise level, or --sigma_range"),
        (["--method", "denoiser", "--sigma", "0"], "must be positive"),
        (["--method", "denoiser", "--sigma_range", "0.1,1", "--sigma", "0.2"], "denoiser has no --sigma with"),
        (["--method", "denoiser", "--sigma", "0.2", "--arch", "lenet"], "--method denoiser has no --arch"),
        (["--method", "denoiser", "--sigma", "0.2", "--copies", "2"], "--copies is no setting of --method denoiser"),
        (
            ["--method", "denoiser", "--sigma", "0.2", "--normalization", "none"],
            "--normalization is no setting of --method denoiser",
        ),
        (["--method", "denoiser", "--sigma", "0.2", "--field", "a"], "--field is no setting of --method denoiser"),
        (["--method", "denoiser", "--sigma", "0.2", "--width", "0"], "--width must be positive"),
        (["--method", "denoiser", "--sigma", "0.2", "--init", "nowhere"], "nowhere: no such file"),
        (["--method", "denoiser", "--sigma", "0.2", "--classifier", "nowhere"], "nowhere: no such file"),
        (
            ["--method", "denoiser", "--sigma", "0.2", "--classifier", "zoo:cifar10-resnet20-sigma0.25"],
            "--classifier zoo:cifar10-resnet20-sigma0.25: takes images of shape (32, 32, 3)",
        ),
        (["--sigma", "0.2", "--width", "4"], "--method gaussian has no --width"),
        (["--sigma", "0.2", "--classifier", "a"], "--method gaussian has no --classifier"),
        (["--sigma", "0.2", "--arch", "lenet", "--denoiser", "nowhere"], "nowhere: no such file"),
        (["--sigma", "0.2", "--arch", "lenet", "--denoiser", "wide"], "wide: the denoiser is for images of shape"),
        (["--sigma", "0.2", "--method", "catrs", "--teacher", "a", "--denoiser", "wide"], "catrs has no --denoiser"),
    ],
)
def test_impossible_trainings_are_refused(folder, words, said):
    write_denoiser(denoiser(shape=(32, 32, 3)), folder / "wide")
    assert said in refused("train", "refused", *TRAIN, *words, cwd=folder)
