"""How to add a family of networks, a source of data, a search and a bound: each is one module and one line.

The modules below are whole. In the package each would be a file of its room, and its line a line of the registry.
"""

import importlib
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import SHAPE, at_distance, linear, slab
from flax import nnx
from jax.tree_util import Partial
from scipy import special
from with_torch import torch

from qcrs_jax import Fixed, GoldenSection, certify, load_dataset
from qcrs_jax.analysis.curves import Curves
from qcrs_jax.analysis.simulation import simulate
from qcrs_jax.bounds import clopper_pearson_lower
from qcrs_jax.certification.estimates import estimate_of
from qcrs_jax.certification.proportions import BOUNDS
from qcrs_jax.convert.export import export_file
from qcrs_jax.convert.load import load_classifier
from qcrs_jax.convert.names import places
from qcrs_jax.data.load import DataError, name_of
from qcrs_jax.data.source import Source
from qcrs_jax.data.sources import SOURCES, known_classes, source_of
from qcrs_jax.experiments.cli import parser_of
from qcrs_jax.experiments.commands.method import request_of
from qcrs_jax.experiments.commands.sweep import sweep_of
from qcrs_jax.experiments.run.request import Request
from qcrs_jax.models import FAMILIES, Spec, build
from qcrs_jax.models.checkpoint import CheckpointError
from qcrs_jax.models.family import LINEAR, Part
from qcrs_jax.sampling.smoothing import NOISES
from qcrs_jax.search import SEARCHES, search_of

KEY = jax.random.key(3)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a module, and imports it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.delitem(importlib.sys.modules, name, raising=False)
        return importlib.import_module(name)

    return write


FAMILY = '''
    """A small network with a stem of its own name: a convolution, blocks one after another, and a layer."""

    from flax import nnx

    from qcrs_jax.models.family import CONV, LINEAR, NORM, Family, Network, Part
    from qcrs_jax.models.layers import ConvNorm


    class Plain(nnx.Module):
        def __init__(self, channels, num_classes, *, depth=2, rngs):
            self.stem = nnx.Conv(channels, 4, (3, 3), padding=1, rngs=rngs)
            self.blocks = nnx.List([ConvNorm(4, 4, 3, rngs=rngs) for _ in range(depth)])
            self.head = nnx.Linear(4, num_classes, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.stem(x))
            for block in self.blocks:
                x = nnx.relu(block(x))
            return self.head(x.mean(axis=(1, 2)))


    class PlainFamily(Family):
        title = "plain networks"
        architectures = {"plain": Plain}
        stem = "stem.weight"
        parts = (
            Part("stem", "stem", CONV),
            *(
                part
                for i in range(9)
                for part in (
                    Part(f"blocks/{i}/conv", f"blocks.{i}.0", CONV),
                    Part(f"blocks/{i}/norm", f"blocks.{i}.1", NORM),
                )
            ),
            Part("head", "head", LINEAR),
        )

        def recognise(self, shapes):
            if "stem.weight" not in shapes:
                return None
            depth = len({key.split(".")[1] for key in shapes if key.startswith("blocks.")})
            channels, classes = shapes["stem.weight"][1], shapes["head.weight"][0]
            return Network("plain", classes, (8, 8, channels), {"depth": depth})


    PLAIN = PlainFamily()
'''


class TorchPlain(torch.nn.Module):
    """The same network in PyTorch."""

    def __init__(self):
        super().__init__()
        block = lambda: torch.nn.Sequential(  # noqa: E731
            torch.nn.Conv2d(4, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU()
        )
        self.stem = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = torch.nn.Sequential(block(), block())
        self.head = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.head(self.blocks(torch.relu(self.stem(x))).mean(dim=(2, 3)))


def plain_net():
    torch.manual_seed(1)
    net = TorchPlain()
    for _ in range(3):  # batch statistics that are not those of the beginning
        net(torch.randn(16, 3, 8, 8))
    return net.eval()


@pytest.mark.slow
def test_a_family_of_networks(written, tmp_path, monkeypatch):
    net, file = plain_net(), tmp_path / "plain.pth"
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, file)
    with pytest.raises(CheckpointError, match="of a stem and stages"):
        load_classifier(file, "none")
    monkeypatch.setitem(FAMILIES, "plain", written("plain", FAMILY).PLAIN)

    with pytest.raises(CheckpointError, match="how images are normalised"):
        load_classifier(file)
    classifier = load_classifier(file, "none")
    assert (classifier.spec.arch, classifier.spec.image_shape) == ("plain", (8, 8, 3))
    x = np.random.default_rng(0).random((5, 8, 8, 3), np.float32)
    expected = net(torch.from_numpy(x).permute(0, 3, 1, 2)).detach().numpy()
    np.testing.assert_allclose(jax.jit(classifier.classify)(x), expected, atol=1e-5)
    certificate = certify(classifier.classify, jnp.asarray(x[0]), 0.25, key=KEY, n0=10, n=40)
    assert certificate.counts.sum() == 40

    export_file(classifier, tmp_path / "again.pth")
    again = load_classifier(tmp_path / "again.pth")
    assert again.fingerprint() == classifier.fingerprint() and again.spec.options == {"depth": 2}
    weights = torch.load(tmp_path / "again.pth", weights_only=True)["state_dict"]
    theirs = {f"1.{name}": value for name, value in net.state_dict().items()}
    assert list(weights) == list(theirs)  # in PyTorch's order
    assert all(torch.equal(weights[name], value) for name, value in theirs.items() if "batches" not in name)


def test_a_family_is_strict_both_ways(written, tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "plain", written("plain", FAMILY).PLAIN)
    weights = plain_net().state_dict()
    for change, words in (
        ({"head.bias": None}, "needs tensor 'head.bias', which the file lacks"),
        ({"head.scale": torch.zeros(4)}, "has no place for tensor 'head.scale'"),
        ({"head.bias": torch.zeros(5)}, "tensor 'head.bias' has shape"),
        ({"head.weight": torch.zeros(4, 4, 1, 1)}, "its axes should be out in"),
        ({"stem.bias": torch.full((4,), torch.inf)}, "not finite"),
    ):
        changed = {name: value for name, value in (weights | change).items() if value is not None}
        torch.save(changed, tmp_path / "changed.pth")
        with pytest.raises(CheckpointError, match=words):
            load_classifier(tmp_path / "changed.pth", "none")
    torch.save(weights, tmp_path / "whole.pth")
    with pytest.raises(CheckpointError, match="a part of the network's own layers"):
        load_classifier(tmp_path / "whole.pth", "none", leave_out="blocks.1.")


@pytest.mark.slow
def test_a_table_of_names_that_is_wrong_is_refused(written, monkeypatch):
    family = written("plain", FAMILY).PLAIN
    monkeypatch.setitem(FAMILIES, "plain", family)
    variables = nnx.to_flat_state(nnx.state(build(Spec("plain", 4, (8, 8, 3), (0.0,), (1.0,)))))
    for parts, words in (
        (family.parts[:-1], "the table of plain networks has no place for the variable head/bias"),
        ((*family.parts[:-1], Part("head", "stem", LINEAR)), "gives 'stem.bias' to two variables"),
    ):
        monkeypatch.setattr(type(family), "parts", parts)
        with pytest.raises(ValueError, match=words):
            list(places(family, [(path, variable.shape) for path, variable in variables]))


SOURCE = '''
    """Images of one level of grey, in NAME.raw: a byte for the label and a byte for the level of each."""

    import numpy as np

    from qcrs_jax.data.dataset import Dataset, digest
    from qcrs_jax.data.source import Source


    def read(root, split, limit):
        file = root / f"{split}.raw"
        if not file.is_file():
            return None
        labels, levels = np.frombuffer(limit.read(file), np.uint8).reshape(-1, 2).T
        image, mark = lambda i: np.full((4, 4, 3), levels[i]), digest(levels.tobytes())
        return Dataset("greys", split, str(file), ["dark", "bright"], labels.astype(int), image, mark)


    GREYS = Source(read, ("greys", ""), knows=lambda root: (root / "test.raw").is_file(), classes=("dark", "bright"))
'''


def test_a_source_of_data(written, tmp_path, monkeypatch):
    written("greys", SOURCE)
    monkeypatch.setitem(SOURCES, "greys", "greys:GREYS")
    with pytest.raises(DataError, match=r"greys \(test\) was not found(.|\n)*greys/greys\n(.|\n)*data_dir"):
        load_dataset("greys", tmp_path / "greys")
    (tmp_path / "data" / "greys").mkdir(parents=True)
    (tmp_path / "data" / "greys" / "test.raw").write_bytes(bytes([0, 51, 1, 204]))
    dataset = load_dataset("greys", tmp_path / "data")
    assert [(float(image.max()), label) for image, label in dataset] == [(np.float32(0.2), 0), (np.float32(0.8), 1)]
    assert name_of(tmp_path / "data") == "greys" and known_classes("greys") == ("dark", "bright")
    with pytest.raises(DataError, match="train and test, and no val"):
        load_dataset("greys", tmp_path / "data", "val")
    words = f"c r --sigma 0.5 --dataset greys --data_dir {tmp_path / 'data'}".split()
    assert sweep_of(parser_of("certify").parse_args(words)).data.dataset == "greys"


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_where_its_line_says(name):
    assert isinstance(source_of(name), Source)


SEARCH = '''
    """The better of the two ends of the bracket."""

    import dataclasses

    from qcrs_jax.search.maximisers import grid
    from qcrs_jax.search.qcrs import QCRS, Tables


    @dataclasses.dataclass(frozen=True)
    class Ends(QCRS):
        name = "ends"
        common_noise = True
        evaluations = 3  # the original sigma comes first

        def maximiser(self, sigma, tables, num_classes):
            return grid(self.sigma_lower, self.sigma_upper, self.sigma_upper - self.sigma_lower, sigma)

        def tables(self, aim):
            return Tables(aim.predictive(self.search_n))
'''


def test_a_search_for_sigma(written, monkeypatch):
    monkeypatch.setitem(SEARCHES, "ends", written("ends", SEARCH).Ends)
    search = SEARCHES["ends"](0.1, 0.9)
    found = certify(Partial(slab, 1.2), jnp.zeros(SHAPE), 0.3, key=KEY, n=300, search=search).search
    assert found.evaluations == 3 and sorted(np.round(found.sigmas[:3], 4).tolist()) == pytest.approx([0.1, 0.3, 0.9])
    assert search_of(search.recorded()) == search
    words = "c r --sigma 0.25 --search ends --left 0.1 --search_n 40".split()
    assert request_of(parser_of("certify").parse_args(words)).search == SEARCHES["ends"](0.1, 0.875, search_n=40)

    sigmas, n = np.geomspace(0.05, 1.5, 20), 100_000
    inside = np.round(n * (1 - 2 * special.ndtr(-1.2 / sigmas))).astype(int)
    curve = np.stack([inside, n - inside], axis=-1)[None]
    curves = Curves(np.array([0]), np.array([0]), sigmas, 8, curve, n, {})
    simulated = simulate(curves, search, key=KEY, repeats=4)
    assert simulated.sigma.shape == (4, 1) and (simulated.samples == 3 * search.search_n).all()


BOUND = '''
    """Hoeffding's bound: simple, and never above the exact one."""

    import math

    import numpy as np

    from qcrs_jax.certification.proportions import Bound


    class Hoeffding(Bound):
        name = "hoeffding"

        def lower(self, successes, n, alpha, u):
            return np.maximum(np.asarray(successes) / n - np.sqrt(-math.log(alpha) / (2 * np.asarray(n))), 0.0)

        def smallest_n(self, alpha):
            return math.floor(-2 * math.log(alpha)) + 1
'''


@pytest.mark.slow
def test_a_bound(written, monkeypatch):
    module = written("hoeffding", BOUND)
    with pytest.raises(ValueError, match="unknown bound 'hoeffding'; known are clopper-pearson, randomised, classes"):
        Fixed("hoeffding")
    monkeypatch.setitem(BOUNDS, "hoeffding", module.Hoeffding())
    arguments = {"key": KEY, "n0": 50, "n": 500, "alpha": 0.01}
    exact, found = (
        certify(linear, at_distance(0.3), 0.25, **arguments, estimate=Fixed(name))
        for name in ("clopper-pearson", "hoeffding")
    )
    np.testing.assert_array_equal(found.counts, exact.counts)  # the same samples
    assert found.pa_lower == found.counts.max() / 500 - np.sqrt(np.log(100) / 1000) < exact.pa_lower
    assert 0 < found.radius < exact.radius and found.u is None

    inside = jax.jit(lambda image: certify(linear, image, 0.25, **arguments, estimate=Fixed("hoeffding")))
    np.testing.assert_allclose(inside(at_distance(0.3)).radius, found.radius, rtol=1e-5)
    assert estimate_of(Fixed("hoeffding").recorded()) == Fixed("hoeffding")
    with pytest.raises(ValueError, match="n"):
        certify(linear, at_distance(0.3), 0.25, **{**arguments, "n": 9}, estimate=Fixed("hoeffding"))


NOISE = '''
    """Laplace noise: radii of L1 (Teng et al. 2020)."""

    import dataclasses
    import math
    from typing import ClassVar

    import jax.numpy as jnp
    import numpy as np

    from qcrs_jax.sampling.noise import bits, is_negative, magnitude_words, numbers_of


    @dataclasses.dataclass(frozen=True)
    class Laplace:
        name: ClassVar[str] = "laplace"
        norm: ClassVar[str] = "L1"
        lost: ClassVar[float] = 0.0
        largest_sigma: ClassVar[float] = math.inf

        def check_images(self, images):
            pass

        def level(self, sigma):
            return sigma

        def add(self, image, level, key, index):
            return image + level * numbers_of(_laplace, key, index, image.shape)

        def unit_radius(self, p):
            p = np.asarray(p, float)
            return np.sign(p - 0.5) * -np.log(2 * np.minimum(p, 1 - p)) / math.sqrt(2)

        def draws(self, prng):
            return f"{bits(prng)}, the logarithm of 31 bits and a sign"

        def recorded(self):
            return {"name": self.name, "norm": self.norm}


    def _laplace(first, second):
        share = (magnitude_words(first, second)[0].astype(jnp.float32) + 0.5) * np.float32(2**-31)
        return jnp.where(is_negative(first), 1, -1) * jnp.log(share) / math.sqrt(2)
'''


@pytest.mark.slow
def test_a_noise(written, monkeypatch):
    Laplace = written("laplace", NOISE).Laplace
    monkeypatch.setitem(NOISES, "laplace", Laplace)
    arguments = {"key": KEY, "n0": 50, "n": 2000, "noise": Laplace()}
    fixed = certify(Partial(slab, 0.4), jnp.zeros(SHAPE), 0.1, value_range=None, **arguments)
    assert fixed.radius == pytest.approx(-0.1 / np.sqrt(2) * np.log(2 * (1 - fixed.pa_lower))) and fixed.radius < 0.4
    search = GoldenSection(0.05, 0.5)
    found = certify(Partial(slab, 0.4), jnp.zeros(SHAPE), 0.1, value_range=None, search=search, **arguments)
    assert 0 < found.radius < 0.4 and found.sigma != 0.1
    words = "c r --sigma 0.5 --noise laplace".split()
    request = request_of(parser_of("certify").parse_args(words))
    assert request.noise == Laplace() and Request.of(request.recorded()) == request


def test_the_bounds_are_those_of_the_formulas():
    k, u = np.arange(51), 0.3
    np.testing.assert_array_equal(
        BOUNDS["clopper-pearson"].lower(k, 50, 0.01, None), clopper_pearson_lower(k, 50, 0.01)
    )
    assert (BOUNDS["randomised"].lower(k, 50, 0.01, u) >= clopper_pearson_lower(k, 50, 0.01)).all()


def test_the_flag_knows_every_bound():
    for name in BOUNDS:
        words = f"c r --sigma 0.5 --method cohen --bound {name}".split()
        assert request_of(parser_of("certify").parse_args(words)).estimate == Fixed(name)
