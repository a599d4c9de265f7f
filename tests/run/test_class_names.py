"""Names of classes that a network knows, beside those of a data set."""

import re
import types

import pytest

from qcrs_jax.data import sources
from qcrs_jax.experiments.run.class_names import known_classes, order_warning

CIFAR10 = list(sources.known_classes("cifar10"))
RENAMED = sorted(["plane", "car", *CIFAR10[2:]])


@pytest.mark.parametrize(
    ("known", "found"),
    [
        (None, ["a", "b"]),
        ((), ["a", "b"]),
        (CIFAR10, CIFAR10),
        (CIFAR10, ["Airplane", "AUTOMOBILE", *CIFAR10[2:]]),
        (["T-shirt/top", "Ankle boot"], ["t_shirt top", "ankle-boot"]),
        (CIFAR10, ["plane", "car", *CIFAR10[2:]]),  # other words at their place
        (CIFAR10, [str(i) for i in range(10)]),
        (["n01440764"], ["tench"]),
        (["crane", "crane", "a"], ["a", "crane", "crane"]),  # ImageNet's twice
    ],
)
def test_no_warning_if_the_order_is_the_same_or_not_known(known, found):
    assert order_warning(known, found, "net.pth") is None


@pytest.mark.parametrize(
    ("known", "found", "said"),
    [
        (CIFAR10, RENAMED, r"bird \(2 there, 0 here\), cat \(3 there, 2 here\), .*\.\.\."),
        (["a", "b"], ["B", "A"], r"B \(1 there, 0 here\), A \(0 there, 1 here\)"),
        ([str(i) for i in range(12)], sorted(map(str, range(12))), r"10 \(10 there, 2 here\)"),
    ],
)
def test_another_order_gives_a_warning_with_the_remedy(known, found, said):
    sentence = order_warning(known, found, "net.pth")
    assert re.match(rf"net\.pth has its classes in another order.*{said}.*--class_order FILE", sentence)


def test_the_class_names_of_a_network():
    classifier = lambda **fields: types.SimpleNamespace(spec=types.SimpleNamespace(**fields))  # noqa: E731
    assert known_classes(classifier(), "net.pth") is None
    assert known_classes(classifier(class_names=None), "net.pth") is None
    assert known_classes(classifier(class_names=("a", "b")), "net.pth") == ("a", "b")
    assert known_classes(classifier(), "zoo:cifar10-resnet20-sigma0.25") == tuple(CIFAR10)
    assert known_classes(classifier(class_names=None), "zoo:fashion_mnist-lenet-sigma0.25")[9] == "Ankle boot"
