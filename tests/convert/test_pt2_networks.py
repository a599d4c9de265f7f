"""Whole networks from `.pt2` files: logits, gradients, vmap and exported programs, compared with PyTorch's."""

import jax
import numpy as np
import pytest
from pt2_files import FORMS, Read, export, numbers, save
from pt2_networks import MAKERS, denoiser, network
from with_torch import torch

from qcrs_jax import NoiseConditional, sample_counts
from qcrs_jax.convert.load import load_classifier
from qcrs_jax.models.checkpoint import CheckpointError

QUICK = ("resnet",)
NAMES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in MAKERS]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A function of a network's name, a form and a batch to the file, which is made once."""
    folder, made = tmp_path_factory.mktemp("pt2"), {}

    def file(name, form="functional", batch="any"):
        if (name, form, batch) not in made:
            path = folder / f"{name} {form} {batch}.pt2"
            examples = (torch.rand(1 if batch is None else 2, 3, 32, 32),)
            made[name, form, batch] = export(network(name), examples, path, form, batch)
        return made[name, form, batch]

    return file


def images(n, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, 32, 32, 3)).astype(np.float32)


def torch_logits(name, x):
    with torch.no_grad():
        return network(name)(torch.tensor(x).permute(0, 3, 1, 2)).numpy()


def logits(classifier, x):
    return np.asarray(jax.jit(lambda classify, x: classify(x))(classifier.classify, x))


def assert_near(found, wanted, tolerance=1e-5):
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_pytorch_at_any_batch(files, name):
    classifier = load_classifier(files(name))
    assert (classifier.spec.image_shape, classifier.spec.num_classes) == ((32, 32, 3), 10)
    for n in (1, 2, 7):
        assert_near(logits(classifier, images(n, n)), torch_logits(name, images(n, n)))


@pytest.mark.slow
@pytest.mark.parametrize("form", [FORMS[0], FORMS[2]])
@pytest.mark.parametrize("name", MAKERS)
def test_logits_of_the_other_forms(files, name, form):
    classifier = load_classifier(files(name, form))
    assert_near(logits(classifier, images(7)), torch_logits(name, images(7)))


@pytest.mark.parametrize("name", [*NAMES[:2], pytest.param("densenet", marks=pytest.mark.slow)])
def test_images_side_by_side_give_the_same_logits(files, name):
    apart, beside = (Read(files(name), "cpu", count) for count in (1, 4))
    assert not any(node.target == "ours.beside" for node in apart.graph.nodes)
    assert any(node.target == "ours.beside" for node in beside.graph.nodes)
    for n in (1, 6, 8):
        x = images(n, n)
        (found,) = beside(x.transpose(0, 3, 1, 2))
        assert_near(found, torch_logits(name, x))


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_the_form_for_other_platforms_gives_the_same_logits(files, name):
    classifier = load_classifier(files(name))
    found = jax.jit(lambda classify, x: classify(x))(classifier.inference("tpu"), images(3))
    assert_near(np.asarray(found), torch_logits(name, images(3)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("vit"), *(pytest.param(n, marks=pytest.mark.slow) for n in MAKERS)])
def test_the_gradient_is_pytorch_s(files, name):
    classify, x = load_classifier(files(name)).classify, images(2)
    found = jax.jit(jax.grad(lambda x: jax.nn.log_softmax(classify(x))[:, 3].sum()))(x)
    given = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    network(name)(given).log_softmax(1)[:, 3].sum().backward()
    assert_near(np.asarray(found), given.grad.permute(0, 2, 3, 1).numpy(), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("resnet"), *(pytest.param(n, marks=pytest.mark.slow) for n in MAKERS)])
def test_a_program_of_one_image_is_that_of_any_number_under_vmap(files, name):
    one, many, x = load_classifier(files(name, batch=None)), load_classifier(files(name)), images(5)
    assert_near(logits(one, x), logits(many, x))
    by_vmap = jax.jit(jax.vmap(lambda image: many.classify(image[None])[0]))(x)
    assert_near(np.asarray(by_vmap), logits(many, x))


@pytest.mark.slow_for("resnet0")
@pytest.mark.parametrize("name", [pytest.param("resnet"), *(pytest.param(n, marks=pytest.mark.slow) for n in MAKERS)])
def test_the_program_is_exported_with_a_batch_of_any_size(files, name):
    classify = load_classifier(files(name)).inference("tpu")
    shape = jax.export.symbolic_shape("batch, 32, 32, 3")
    program = jax.export.export(jax.jit(lambda x: classify(x)), platforms=["cpu", "cuda", "tpu"])(
        jax.ShapeDtypeStruct(shape, np.float32)
    )
    assert_near(np.asarray(program.call(images(3))), torch_logits(name, images(3)))


@pytest.fixture(scope="module")
def denoising(tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "denoiser.pt2"
    return export(denoiser(), (torch.rand(2, 3, 32, 32), torch.rand(2) + 0.1), path)


@pytest.mark.slow
def test_a_denoiser_of_images_and_sigma_is_read(denoising):
    x, sigma = torch.rand(5, 3, 32, 32), torch.linspace(0.1, 1, 5)
    (found,) = Read(denoising, "cpu")(x.numpy(), sigma.numpy())
    with torch.no_grad():
        assert_near(numbers(found), numbers(denoiser()(x, sigma)))


@pytest.mark.slow
def test_programs_that_do_not_classify_images_and_sigma_are_refused(denoising, tmp_path):
    with pytest.raises(CheckpointError, match="numbers of the shape .'batch', 3, 32, 32.*a classifier gives logits"):
        load_classifier(denoising)

    class Scalar(torch.nn.Module):
        def forward(self, x, sigma):
            return x.mean((2, 3)) * sigma

    examples, batch = (torch.rand(2, 3, 8, 8), torch.tensor(0.5)), torch.export.Dim("batch")
    program = torch.export.export(Scalar().eval(), examples, dynamic_shapes=({0: batch}, None))
    path = save(program, tmp_path / "scalar.pt2")
    with pytest.raises(CheckpointError, match="its second input sigma is no batch of noise levels"):
        load_classifier(path)


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["any", None])
def test_a_classifier_of_images_and_sigma_is_told_each_sigma(tmp_path, batch):
    class Knowing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 4)

        def forward(self, x, sigma):
            return self.layer(x.mean((2, 3)) / (1 + sigma[:, None]))

    torch.manual_seed(0)
    model = Knowing().eval()
    examples = torch.rand(2 if batch else 1, 3, 8, 8), torch.rand(2 if batch else 1) + 0.1
    path = export(model, examples, tmp_path / "knowing.pt2", batch=batch)
    classify = load_classifier(path).classify
    assert isinstance(classify, NoiseConditional)
    x, sigma = torch.rand(5, 3, 8, 8), torch.linspace(0.1, 1, 5)
    with torch.no_grad():
        assert_near(np.asarray(classify(x.numpy().transpose(0, 2, 3, 1), sigma.numpy())), model(x, sigma).numpy())
    image = x[0].numpy().transpose(1, 2, 0)
    counts = np.asarray(sample_counts(classify, image, 0.3, jax.random.key(0), 100))
    told = np.asarray(sample_counts(lambda images: classify(images, 0.3), image, 0.3, jax.random.key(0), 100))
    np.testing.assert_array_equal(counts, told)


@pytest.mark.slow
def test_counts_are_those_of_our_own_network(tmp_path):
    """The same weights as a program and as a network of ours: the same counts, but for near ties, which are counted."""
    from checkpoints import cohen, resnet, save
    from checkpoints import images as pictures

    class Normalised(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = resnet(20)

        def forward(self, x):
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))
            return self.net((x - mean) / std)

    program = load_classifier(export(Normalised(), (torch.rand(2, 3, 32, 32),), tmp_path / "net.pt2"))
    ours = load_classifier(save(cohen(resnet(20), "cifar_resnet20"), tmp_path / "net.pth.tar"))
    moved = 0
    for i, image in enumerate(pictures(4, (32, 32, 3))):
        counts = [np.asarray(sample_counts(c.classify, image, 0.5, jax.random.key(i), 2000)) for c in (program, ours)]
        assert counts[0].sum() == counts[1].sum() == 2000
        moved += int(np.abs(counts[0] - counts[1]).sum()) // 2
    print(f"{moved} of 8000 copies are near ties")
    assert moved <= 4
