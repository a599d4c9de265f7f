import pytest

from qcrs_jax.convert import zoo
from qcrs_jax.convert.check import accuracy
from qcrs_jax.convert.load import load_classifier
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
