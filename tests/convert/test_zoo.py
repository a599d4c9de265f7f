import numpy as np
import pytest

from qcrs_jax.convert import zoo
from qcrs_jax.convert.check import accuracy
from qcrs_jax.convert.load import load_classifier, load_denoiser
from qcrs_jax.data.load import Dataset, load_dataset
from qcrs_jax.errors import UserError
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands import demo
from qcrs_jax.experiments.report.training_curve import read_log


@pytest.mark.parametrize("name", zoo.entries())
def test_every_classifier_of_the_zoo_agrees_with_its_entry(name):
    entry = zoo.entries()[name]
    spec = load_classifier(f"zoo:{name}").spec
    assert (spec.arch, spec.source["sigma"]) == (entry["arch"], entry["sigma"])
    assert spec.source.get("sigma_range") == entry.get("sigma_range")
    assert ("--sigma_range" in entry["command"]) == ("sigma_range" in entry)
    last = read_log((zoo.FOLDER / entry["file"]).with_suffix(".tsv"))[-1]
    clean, noisy = last.clean_accuracy, last.noisy_accuracy
    assert (clean, noisy) == (entry["clean_accuracy"], entry["noisy_accuracy"])
    assert f"train {name} " in entry["command"] and f"--sigma {entry['sigma']:g}" in entry["command"]


@pytest.mark.slow_for("fashion_mnist-lenet-sigma0.25")
@pytest.mark.parametrize("name", [name for name in zoo.entries() if name.startswith("fashion_mnist")])
def test_its_accuracy_is_that_of_its_log(name):
    dataset, entry = load_dataset("npz", demo.IMAGES), zoo.entries()[name]
    measured = accuracy(load_classifier(f"zoo:{name}"), dataset, range(len(dataset)), entry["sigma"])
    assert measured == pytest.approx(entry["noisy_accuracy"], abs=0.05)  # 500 of its 10 000 images


@pytest.mark.parametrize("name", [name for name in zoo.entries() if name.startswith("cifar10")])
@pytest.mark.slow
def test_its_accuracy_is_that_of_its_log_on_cifar10(name, real_images):
    images, labels = real_images
    dataset = Dataset("cifar10", "test", "", list("abcdefghij"), labels, lambda i: images[i], "")
    entry = zoo.entries()[name]
    for sigma, expected in ((0.0, entry["clean_accuracy"]), (entry["sigma"], entry["noisy_accuracy"])):
        measured = accuracy(load_classifier(f"zoo:{name}"), dataset, range(len(dataset)), sigma)
        assert measured == pytest.approx(expected, abs=0.1)  # 250 images: a standard error of 0.03


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(UserError, match="zoo:lenet: not in the zoo, which holds zoo:fashion_mnist-lenet-sigma0.25"):
        load_classifier("zoo:lenet")


def test_the_list_names_them_and_their_commands(capsys):
    assert cli.main(["zoo"]) == 0
    listed = capsys.readouterr().out
    assert "zoo:fashion_mnist-lenet-sigma0.25\n  lenet on fashion_mnist" in listed
    assert "lenet on fashion_mnist, trained by gaussian at sigma 0.2 to 1\n" in listed
    assert "under noise of 0.5\n" in listed
    assert cli.main(["zoo", "--commands"]) == 0
    assert "qcrs-jax train fashion_mnist-lenet-sigma0.25" in capsys.readouterr().out


@pytest.mark.parametrize("name", zoo.denoisers())
def test_every_denoiser_of_the_zoo_agrees_with_its_entry(name, capsys):
    entry = zoo.denoisers()[name]
    spec = load_denoiser(f"zoo:{name}").spec
    assert (spec.arch, spec.levels) == (entry["arch"], tuple(entry["sigma_range"]))
    low, high = entry["sigma_range"]
    assert f"train {name} " in entry["command"] and f"--sigma_range {low:g},{high:g}" in entry["command"]
    assert cli.main(["zoo"]) == 0
    assert f"zoo:{name}\n  denoiser for {entry['dataset']}, trained at sigma {low:g} to" in capsys.readouterr().out


def test_a_denoiser_is_no_classifier():
    with pytest.raises(UserError, match="denoiser"):
        load_classifier(f"zoo:{next(iter(zoo.denoisers()))}")
    with pytest.raises(UserError, match="denoiser"):
        load_denoiser(f"zoo:{next(iter(zoo.entries()))}")


@pytest.mark.slow
def test_its_errors_are_those_of_its_entry(real_images):
    images, entry = real_images[0][:100], zoo.denoisers()["cifar10-denoiser-sigma0.1-1"]
    denoise = load_denoiser("zoo:cifar10-denoiser-sigma0.1-1").denoise
    for sigma, expected in entry["squared_errors"].items():
        noisy = images + float(sigma) * np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
        clean = np.asarray(denoise(noisy, np.full(len(images), float(sigma), np.float32)))
        assert np.square(clean - images).mean() == pytest.approx(expected, rel=0.15)
