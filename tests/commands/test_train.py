"""`qcrs-jax train` as a user runs it, on a few real images."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import program
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.special import ndtr

from qcrs_jax.convert.export import export_file
from qcrs_jax.convert.load import load_classifier
from qcrs_jax.data.load import Dataset
from qcrs_jax.errors import UserError
from qcrs_jax.experiments.commands import demo
from qcrs_jax.experiments.report.training_curve import read_log
from qcrs_jax.experiments.run.inputs import Inputs
from qcrs_jax.experiments.run.training import TrainingFolder, predictions, reader, teacher_of
from qcrs_jax.experiments.run.training_settings import Training
from qcrs_jax.models.checkpoint import is_classifier

PROGRAM = str(Path(sys.executable).with_name("qcrs-jax"))
SMALL = "--arch lenet --dataset npz --data_dir data --sigma 0.25 --schedule onecycle --batch 32 --lr 0.05".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    archive = np.load(demo.IMAGES)
    (folder / "data").mkdir()
    for split, part in (("train", slice(0, 128)), ("test", slice(128, 178))):
        np.savez(
            folder / "data" / f"{split}.npz",
            x=archive["x"][part],
            y=archive["y"][part],
            class_names=archive["class_names"],
        )
    return folder


def qcrs_jax(*words, cwd):
    return program.qcrs_jax(*words, cwd=cwd, ok=False)


@pytest.fixture(scope="module")
def unbroken(folder):
    done = qcrs_jax("train", "unbroken", *SMALL, "--epochs", 4, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def test_a_run_leaves_a_classifier_a_log_and_a_curve(folder, unbroken):
    classifier = load_classifier(folder / "unbroken")
    assert classifier.spec.arch == "lenet" and classifier.spec.source["sigma"] == 0.25
    assert classifier.spec.class_names == tuple(np.load(folder / "data" / "test.npz")["class_names"].tolist())
    rows = read_log(folder / "unbroken" / "training" / "log.tsv")
    assert [row.epoch for row in rows] == [1, 2, 3, 4]
    assert rows[-1].loss < rows[0].loss
    assert (folder / "unbroken" / "training" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "epoch 4/4" in unbroken.stdout and "certify unbroken" in unbroken.stdout


@pytest.mark.slow
def test_a_range_of_levels_is_recorded_and_no_level_within_it_is_warned_of(folder, tmp_path, capsys):
    words = [word if word != "--sigma" else "--sigma_range" for word in SMALL]
    words[words.index("--sigma_range") + 1] = "0.2,0.8"
    done = qcrs_jax("train", "range", *words, "--epochs", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    request = json.loads((folder / "range" / "training" / "request.json").read_text())
    assert request["sigma_range"] == [0.2, 0.8] and request["sigma"] == pytest.approx(0.4)
    assert "lenet, gaussian, sigma 0.2 to 0.8" in done.stdout
    export_file(load_classifier(folder / "range"), tmp_path / "range.pth")
    for file in (folder / "range", tmp_path / "range.pth"):
        classifier = load_classifier(file)
        assert classifier.spec.source["sigma_range"] == [0.2, 0.8]
        for sigma, warned in ((0.2, False), (0.8, False), (0.9, True), (0.1, True)):
            Inputs.warn_of_sigma(SimpleNamespace(classifier=classifier), sigma)
            warning = f"warning: the network was trained at sigma 0.2 to 0.8, but --sigma is {sigma:g}\n"
            assert capsys.readouterr().out == (warning if warned else "")
    done = qcrs_jax("train", "range", *words, "--epochs", 1, "--sigma_range", "0.2,0.7", cwd=folder)
    assert done.returncode == 2 and "sigma_range" in done.stderr


def test_a_run_without_a_level_is_refused(folder):
    words = [word for word in SMALL if word not in ("--sigma", "0.25")]
    done = qcrs_jax("train", "refused", *words, cwd=folder)
    assert done.returncode == 2 and "required: --sigma, the noise level, or --sigma_range" in done.stderr


@pytest.mark.slow
def test_a_run_starts_from_the_weights_it_is_given(folder, unbroken):
    words = [*SMALL, "--epochs", 1, "--init", "unbroken", "--lr", 1e-12]
    done = qcrs_jax("train", "further", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    before, after = (load_classifier(folder / name) for name in ("unbroken", "further"))
    np.testing.assert_allclose(after.model.fc2.kernel[...], before.model.fc2.kernel[...], atol=1e-9)
    assert after.spec.source["init"] == before.fingerprint()


def test_images_that_are_kept_are_those_of_the_data_set():
    raw = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    for x in (raw, (raw / 255.0).astype(np.float32)):
        dataset = Dataset("d", "train", "here", list("ab"), np.array([0, 1, 1, 0]), lambda i, x=x: x[i], "")
        images, labels = reader(dataset, "")(np.array([3, 1]))
        for image, label, index in zip(images, labels, (3, 1)):
            assert np.array_equal(image, dataset[index][0]) and label == dataset.labels[index]


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_weights(folder):
    """All in processes of their own, with the same devices."""

    def run(name):
        return subprocess.run([PROGRAM, "train", name, *words], cwd=folder, capture_output=True, text=True)

    words = [*SMALL, "--epochs", "4"]
    with subprocess.Popen(
        [PROGRAM, "train", "broken", *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch 2/4"):
                os.kill(process.pid, signal.SIGKILL)
                break
    assert not is_classifier(folder / "broken")
    done = run("broken")
    assert done.returncode == 0, done.stderr
    assert run("whole").returncode == 0
    assert "epochs are done" in done.stdout and "epoch 1/4" not in done.stdout
    broken, whole = (load_classifier(folder / name).fingerprint() for name in ("broken", "whole"))
    assert broken == whole
    logs = [read_log(folder / name / "training" / "log.tsv") for name in ("broken", "whole")]
    assert [replace(row, seconds=0.0) for row in logs[0]] == [
        replace(row, seconds=0.0) for row in logs[1]
    ]  # all but the seconds


def test_other_settings_are_refused_by_name(folder, unbroken):
    done = qcrs_jax("train", "unbroken", *SMALL, "--epochs", 4, "--seed", 5, cwd=folder)
    assert done.returncode == 2 and "seed: 0 in the file, 5 now" in done.stderr


def test_a_second_run_of_one_folder_is_refused(folder, unbroken, tmp_path):
    request = json.loads((folder / "unbroken" / "training" / "request.json").read_text())
    with TrainingFolder(folder / "unbroken", request):
        with pytest.raises(UserError, match="unbroken: another run is training there; wait for it"):
            TrainingFolder(folder / "unbroken", request)
        done = qcrs_jax("train", "unbroken", *SMALL, "--epochs", 4, cwd=folder)
        assert done.returncode == 2 and "another run is training there" in done.stderr
    with (
        TrainingFolder(folder / "unbroken", request),
        TrainingFolder(tmp_path / "new", {"seed": 0}),
    ):  # the first has ended
        pass
    with pytest.raises(UserError, match="seed: 0 in the file, 1 now"):
        TrainingFolder(tmp_path / "new", {"seed": 1})


@pytest.mark.parametrize("name", ["notes.txt", "training/notes.txt"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, name):
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("")
    with pytest.raises(UserError, match="is not empty and holds no training run"):
        TrainingFolder(tmp_path / "out", {})
    assert [f for f in (tmp_path / "out").rglob("*") if f.is_file()] == [file]


def test_a_run_that_was_killed_before_it_began_continues(tmp_path):
    (tmp_path / "out" / "training").mkdir(parents=True)
    for name in ("lock", "request.json.tmp"):
        (tmp_path / "out" / "training" / name).write_text("")
    with TrainingFolder(tmp_path / "out", {}):
        pass


@pytest.mark.parametrize(
    "words, message",
    [
        (["--sigma_range", "1,0.2"], "--sigma_range 1,0.2 must be LOW,HIGH with LOW below HIGH"),
        (["--sigma_range", "0,1"], "--sigma_range is the standard deviation of the noise and must be positive"),
        (["--sigma_range", "0.2"], "--sigma_range: '0.2' is not LOW,HIGH"),
        (["--sigma_range", "0.2,0.4,1"], "--sigma_range: '0.2,0.4,1' is not LOW,HIGH"),
        (["--sigma_range", "20,50"], "--sigma_range = 20 is more than 10 times the range [0, 1]"),
        (["--method", "macer", "--copies", "0"], "copies must be positive"),
        (["--method", "mcaer"], "--method 'mcaer' is not known; known are gaussian, macer, smoothadv"),
        (["--beta", "3"], "--beta is no setting of --method gaussian"),
        (["--method", "smoothmix", "--epsilon", "1"], "--epsilon is no setting of --method smoothmix"),
        (["--method", "catrs"], "--method catrs needs --teacher"),
        (["--teacher", "nowhere"], "--method gaussian has no --teacher"),
        (["--teacher_samples", "5"], "--method gaussian has no --teacher_samples"),
        (["--method", "catrs", "--teacher", "a", "--teacher_samples", "0"], "--teacher_samples must be positive"),
        (["--method", "catrs", "--teacher", "nowhere"], "nowhere: no such file"),
        (["--method", "catrs", "--teacher", "nowhere", "--sigma_range", "0.1,1"], "catrs takes one --sigma"),
        (
            ["--method", "catrs", "--teacher", "zoo:cifar10-resnet20-sigma0.25"],
            "--teacher zoo:cifar10-resnet20-sigma0.25: is",
        ),
        (["--batch", "1000"], "--batch 1000 is more than the 128 images"),
        (["--arch", "vgg"], "unknown architecture 'vgg'"),
        (["--init", "nowhere"], "nowhere: no such file"),
        (["--lr", "-1"], "--lr must be positive"),
        (["--momentum", "1.5"], "--momentum"),
    ],
)
def test_impossible_requests_are_refused(folder, words, message):
    done = qcrs_jax("train", "refused", *SMALL, *words, cwd=folder)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_images_that_the_network_cannot_take_are_refused(tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        x, y = np.zeros((64, 32, 32, 3), np.uint8), np.arange(64) % 2
        np.savez(tmp_path / "data" / f"{split}.npz", x=x, y=y, class_names=["a", "b"])
    done = qcrs_jax("train", "refused", *SMALL, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "--arch lenet does not take images of shape (32, 32, 3)" in done.stderr


@pytest.mark.slow
def test_a_method_with_a_teacher_keeps_its_predictions_and_continues(folder, unbroken):
    words = [*SMALL, "--method", "catrs", "--teacher", "unbroken", "--teacher_samples", 5, "--copies", 2, "--steps", 1]
    done = qcrs_jax("train", "catrs", *words, "--epochs", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    kept = np.load(folder / "catrs" / "training" / "predictions.npy")
    assert kept.shape == (128, 10) and np.allclose(kept.sum(axis=1), 1) and np.allclose(5 * kept, np.rint(5 * kept))
    request = json.loads((folder / "catrs" / "training" / "request.json").read_text())
    teacher = load_classifier(folder / "unbroken").fingerprint()
    assert (request["teacher"], request["teacher_samples"], request["copies"]) == (teacher, 5, 2)
    assert load_classifier(folder / "catrs").spec.source["lbd"] == 0.5
    again = qcrs_jax("train", "catrs", *words, "--epochs", 1, "--teacher_samples", 6, cwd=folder)
    assert again.returncode == 2 and "teacher_samples: 5 in the file, 6 now" in again.stderr


def test_a_teacher_of_another_level_is_warned_of_and_one_of_another_order_refused(folder, unbroken, capsys):
    names = list(load_classifier(folder / "unbroken").spec.class_names)
    image = np.zeros((28, 28, 1), np.uint8)
    for sigma, warned in ((0.25, False), (0.5, True)):
        training = Training(sigma=sigma, method="catrs", teacher=str(folder / "unbroken"))
        dataset = Dataset("d", "train", "here", names, np.arange(10), lambda i: image, "")
        assert teacher_of(training, dataset).spec.class_names == tuple(names)
        warning = "warning: the teacher was trained at sigma 0.25, but the noise is 0.5"
        assert (warning in capsys.readouterr().out) == warned
    swapped = Dataset("d", "train", "here", [names[1], names[0], *names[2:]], np.arange(10), lambda i: image, "")
    with pytest.raises(UserError, match="classes in another order than the data set"):
        teacher_of(training, swapped)


@pytest.mark.parametrize(
    "method, epochs, warned", [("smoothadv", 9, True), ("smoothmix", 10, False), ("macer", 1, False)]
)
def test_a_warm_up_that_never_ends_is_warned_of(folder, method, epochs, warned):
    done = qcrs_jax(
        "train", "refused", *SMALL, "--method", method, "--epochs", epochs, "--data_dir", "nowhere", cwd=folder
    )
    assert done.returncode == 2
    assert ("the warm-up takes 10 epochs and the training 9, so it never ends" in done.stdout) == warned


def test_predictions_are_the_shares_of_the_classes_under_noise():
    """A classifier of one pixel, whose probability of class 1 is known; the last batch is not full."""
    spec = SimpleNamespace(num_classes=2)
    teacher = SimpleNamespace(spec=spec, classify=lambda x: jnp.stack([0 * x[:, 0, 0, 0], x[:, 0, 0, 0]], axis=-1))
    pixels = np.linspace(-0.5, 0.5, 300, dtype=np.float32)[:, None, None, None]
    devices = Mesh(np.array(jax.devices()), ("devices",))
    sharding = NamedSharding(devices, PartitionSpec("devices"))
    read = lambda i: (pixels[i], np.zeros(len(i), np.int32))  # noqa: E731
    found = predictions(teacher, read, 300, 0.25, 1000, jax.random.key(0), sharding)
    assert found.dtype == np.float32 and np.allclose(found.sum(axis=1), 1)
    expected = ndtr(pixels[:, 0, 0, 0] / 0.25)
    assert np.abs(found[:, 1] - expected).max() < 5 * np.sqrt(0.25 / 1000)
    assert abs((found[:, 1] - expected).mean()) < 4 * np.sqrt(0.25 / 300_000)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["smoothadv", "consistency", "smoothmix"])
def test_each_method_trains_from_the_command(folder, method):
    done = qcrs_jax("train", method, *SMALL, "--method", method, "--copies", 2, "--epochs", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert load_classifier(folder / method).spec.source["method"] == method


@pytest.mark.slow
def test_macer_trains_and_its_export_certifies(folder):
    done = qcrs_jax("train", "macer", *SMALL, "--method", "macer", "--copies", 2, "--epochs", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert qcrs_jax("export", "macer", "macer.pth", cwd=folder).returncode == 0
    words = "certify macer.pth results.tsv --dataset npz --data_dir data --sigma 0.5 --N 100 --N0 10 --max 2".split()
    done = qcrs_jax(*words, "--method", "cohen", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "trained at sigma 0.25, but --sigma is 0.5" in done.stdout
