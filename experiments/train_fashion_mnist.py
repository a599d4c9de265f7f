"""Makes the demo's assets: LeNet trained with Gaussian noise on Fashion-MNIST, and a sample of its test images.

    python -m experiments.train_fashion_mnist --data_dir FOLDER_WITH_IDX_FILES --out experiments/assets

Fresh noise at every step (Cohen et al. 2019), Adam, one-cycle learning rate. The network is saved as a PyTorch file in
MACER's layout. Two CPU cores take three minutes for six epochs, to 87% accuracy on noisy test images.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from qcrs_jax.convert.export import export_file
from tqdm import tqdm

from qcrs_jax.data import load_dataset
from qcrs_jax.models import Classifier, Spec, build


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    images, labels = _arrays("train", args.data_dir)
    spec = Spec("lenet", 10, (28, 28, 1), (0.0,), (1.0,))
    model = build(spec, args.seed)
    steps = args.epochs * (len(labels) // args.batch)
    schedule = optax.cosine_onecycle_schedule(steps, args.learning_rate)
    optimizer = nnx.Optimizer(model, optax.adamw(schedule, weight_decay=1e-4), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y, key):
        def loss(model):
            logits = model(x + args.sigma * jax.random.normal(key, x.shape))
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    rng, key, count = np.random.default_rng(args.seed), jax.random.key(args.seed), 0
    for epoch in range(args.epochs):
        order = rng.permutation(len(labels))[: steps // args.epochs * args.batch].reshape(-1, args.batch)
        losses = []
        for index in tqdm(order, desc=f"epoch {epoch + 1}/{args.epochs}", leave=False):
            x, y = jnp.asarray(images[index]) / 255.0, jnp.asarray(labels[index])
            losses.append(step(model, optimizer, x, y, jax.random.fold_in(key, count)))
            count += 1
        print(f"epoch {epoch + 1}: loss {np.mean(jax.device_get(losses)):.4f}")
    print(f"accuracy on noisy test images: {_noisy_accuracy(model, args):.4f}")
    export_file(Classifier(spec, model), args.out / f"lenet_fashion_mnist_noise_{args.sigma}.pth")
    _save_sample(args.data_dir, args.out / "fashion_mnist_test_500.npz")


def _arrays(split, data_dir):
    dataset = load_dataset("fashion_mnist", data_dir, split)
    return np.stack([dataset.read(i) for i in range(len(dataset))]), dataset.labels


def _noisy_accuracy(model, args):
    images, labels = _arrays("test", args.data_dir)
    key = jax.random.key(args.seed + 1)

    @nnx.jit
    def hits(model, x, y, key):
        return (model(x / 255.0 + args.sigma * jax.random.normal(key, x.shape)).argmax(-1) == y).sum()

    chunks = zip(np.split(images, 20), np.split(labels, 20))
    return sum(int(hits(model, x, y, jax.random.fold_in(key, i))) for i, (x, y) in enumerate(chunks)) / len(labels)


def _save_sample(data_dir, path):
    dataset = load_dataset("fashion_mnist", data_dir, "test")
    index = np.arange(0, len(dataset), 20)
    images, names = np.stack([dataset.read(i) for i in index]), np.array(dataset.class_names)
    np.savez_compressed(path, x=images, y=dataset.labels[index].astype(np.uint8), class_names=names)


if __name__ == "__main__":
    main()
