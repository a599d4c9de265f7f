"""Wide ResNets: published sizes, blocks and batch statistics against PyTorch's, folding, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import ddrs, images, save, wide_resnet
from flax import nnx
from with_torch import PreActivationBlock as TorchBlock
from with_torch import WideResNet as TorchWideResNet
from with_torch import randomise, torch

from qcrs_jax.convert.fill import count_parameters
from qcrs_jax.convert.load import load_classifier
from qcrs_jax.models.wide_resnet import PreActivationBlock, WideResNet


@pytest.mark.parametrize("depth, widen", [(10, 1), (16, 8), (28, 10), (34, 10), (40, 2)])
def test_as_many_parameters_as_pytorch(depth, widen):
    with torch.device("meta"):
        expected = sum(p.numel() for p in TorchWideResNet(depth, widen).parameters())
    model = nnx.eval_shape(lambda: WideResNet(3, 10, depth=depth, widen=widen, rngs=nnx.Rngs(0)))
    assert count_parameters(model) == expected


def test_published_numbers_of_parameters():
    """36.5 M and 11.0 M in table 4 of Zagoruyko and Komodakis (2016), 36 479 194 as PyTorch's programs print it."""
    sizes = {}
    for depth, widen in [(28, 10), (16, 8)]:
        model = nnx.eval_shape(lambda d=depth, k=widen: WideResNet(3, 10, depth=d, widen=k, rngs=nnx.Rngs(0)))
        sizes[depth, widen] = count_parameters(model)
    assert sizes == {(28, 10): 36_479_194, (16, 8): 10_961_370}


@pytest.mark.parametrize("depth, widen", [(41, 2), (4, 2), (40, 0)])
def test_impossible_sizes_are_refused(depth, widen):
    with pytest.raises(ValueError, match=f"{depth} and {widen}"):
        WideResNet(3, 10, depth=depth, widen=widen, rngs=nnx.Rngs(0))


@pytest.mark.slow_for("8-widens", "7", "8-strides", "8-identity")
@pytest.mark.parametrize("features, stride", [(32, 2), (32, 1), (16, 1)], ids=["strides", "widens", "identity"])
@pytest.mark.parametrize("size", [7, 8])
def test_block(features, stride, size):
    """A block on its own, where a shift by a pixel cannot drown in the pooling."""
    torch.manual_seed(0)
    theirs = randomise(TorchBlock(16, features, stride))
    ours = PreActivationBlock(16, features, stride, rngs=nnx.Rngs(0))
    ours.eval()
    pairs = [(ours.conv1.conv, theirs.conv1), (ours.conv2, theirs.conv2)]
    pairs += [(ours.shortcut, theirs.convShortcut)] if theirs.convShortcut else []
    assert (ours.shortcut is None) == (features == 16)
    for conv, other in pairs:
        conv.kernel[...] = jnp.asarray(other.weight.detach().numpy().transpose(2, 3, 1, 0))
    for norm, bn in [(ours.norm, theirs.bn1), (ours.conv1.norm, theirs.bn2)]:
        norm.scale[...], norm.bias[...] = (jnp.asarray(v.detach().numpy()) for v in (bn.weight, bn.bias))
        norm.mean[...], norm.var[...] = (jnp.asarray(v.numpy()) for v in (bn.running_mean, bn.running_var))
    x = images(2, (size, size, 16))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(ours(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_folding_keeps_the_logits_and_leaves_the_norms_before_a_relu_alone(tmp_path):
    classifier = load_classifier(save(ddrs(wide_resnet(16, 1)), tmp_path / "net.pth.tar"))
    folded = nnx.clone(classifier.model)
    folded.prepare_inference("cpu")
    norms = [module for _, module in nnx.iter_modules(folded) if isinstance(module, nnx.BatchNorm)]
    assert len(norms) == 3 * 2 + 1  # the first and the stacked blocks of three stages, and the last
    x = jnp.asarray(images(4, (32, 32, 3)))
    expected = nnx.jit(lambda model, x: model(x))(classifier.model, x)
    logits = nnx.jit(lambda model, x: model(x))(folded, x)
    assert abs(logits - expected).max() <= 1e-5 * abs(expected).max()


@pytest.mark.slow
def test_training_mode_gives_pytorch_s_logits_gradients_and_batch_statistics(tmp_path):
    model = load_classifier(save(ddrs(wide_resnet(16, 1)), tmp_path / "net.pth.tar")).model
    theirs = TorchWideResNet(16, 1)
    theirs.load_state_dict(wide_resnet(16, 1).state_dict())
    model.train()
    theirs.train()
    x = images(8, (32, 32, 3), seed=2)
    expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous())
    expected.square().mean().backward()

    @nnx.jit
    def step(model, x):
        def loss(model):
            logits = model(x)
            return (logits**2).mean(), logits

        return nnx.grad(loss, has_aux=True)(model)

    grads, logits = step(model, jnp.asarray(x))
    expected = expected.detach().numpy()
    assert abs(logits - expected).max() <= 1e-4 * abs(expected).max()
    for ours, other in [
        (grads.conv1.kernel[...], theirs.conv1.weight.grad.permute(2, 3, 1, 0)),
        (grads.block2.first.norm.scale[...], theirs.block2["layer"][0].bn1.weight.grad),
        (grads.block3.rest.conv2.kernel[0], theirs.block3["layer"][1].conv2.weight.grad.permute(2, 3, 1, 0)),
    ]:
        assert abs(ours - other.numpy()).max() <= 1e-3 * abs(other.numpy()).max()
    for ours, bn in [
        (nnx.state(model.norm), theirs.bn1),
        (nnx.state(model.block2.first.norm), theirs.block2["layer"][0].bn1),
        (jax.tree.map(lambda a: a[0], nnx.state(model.block3.rest.conv1.norm)), theirs.block3["layer"][1].bn2),
    ]:
        np.testing.assert_allclose(ours.mean[...], bn.running_mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(ours.var[...], bn.running_var, rtol=1e-2)  # PyTorch divides by n - 1
