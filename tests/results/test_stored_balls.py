"""Memory-based post-processing: its promises for any certificates, and its rule in plain Python."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcrs_jax.results import stored_balls as memory
from qcrs_jax.results.stored_balls import correct

ROUNDING = 1e-12


@st.composite
def certificates(draw):
    """Images of few pixels, so close and with such radii that many balls overlap, nest and touch; some abstentions."""
    pixels, m = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    coordinate = st.one_of(st.integers(0, 6).map(lambda k: k / 6), st.floats(0, 1, width=32))
    images = draw(st.lists(st.lists(coordinate, min_size=pixels, max_size=pixels), min_size=m, max_size=m))
    predictions = draw(st.lists(st.integers(-1, 2), min_size=m, max_size=m))
    radius = st.one_of(st.integers(0, 4).map(lambda k: k / 6), st.floats(0, 0.7))
    radii = draw(st.lists(radius, min_size=m, max_size=m))
    predictions, radii = np.array(predictions), np.array(radii)
    return np.array(images, np.float32)[:, :, None, None], predictions, np.where(predictions < 0, 0, radii)


def distances(images):
    flat = images.reshape(len(images), -1).astype(np.float64)
    return np.sqrt(((flat[:, None] - flat) ** 2).sum(axis=-1))


@settings(max_examples=200, deadline=None)
@given(certificates())
def test_no_two_balls_of_different_classes_overlap_and_none_grows(given_):
    images, predictions, radii = given_
    ours = correct(*given_)
    different = (ours.predictions[:, None] != ours.predictions) & (ours.predictions[:, None] >= 0)
    different &= ours.predictions >= 0
    assert np.all(distances(images)[different] >= (ours.radii[:, None] + ours.radii)[different] - ROUNDING)
    assert np.all(ours.radii <= radii) and np.all(ours.radii >= 0)
    np.testing.assert_array_equal(ours.predictions < 0, predictions < 0)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(certificates())
def test_abstentions_neither_store_nor_trim(given_):
    images, predictions, radii = given_
    ours, kept = correct(*given_), predictions >= 0
    without = correct(images[kept], predictions[kept], radii[kept])
    np.testing.assert_array_equal(ours.predictions[kept], without.predictions)
    np.testing.assert_array_equal(ours.radii[kept], without.radii)
    assert np.all(ours.predictions[~kept] == -1) and np.all(ours.radii[~kept] == 0)


@settings(max_examples=50, deadline=None)
@given(certificates(), st.integers(0, 12))
def test_answers_do_not_depend_on_later_images(given_, m):
    whole, first = correct(*given_), correct(*(a[:m] for a in given_))
    np.testing.assert_array_equal(whole.predictions[:m], first.predictions)
    np.testing.assert_array_equal(whole.radii[:m], first.radii)


@settings(max_examples=50, deadline=None)
@given(certificates())
def test_a_second_pass_changes_nothing(given_):
    once = correct(*given_)
    twice = correct(given_[0], *once)
    assert np.all(np.abs(once.radii - twice.radii) <= ROUNDING)


def rule(images, predictions, radii):
    """Algorithm 2, a line for each of its cases; the radius after a change of class is not let grow."""
    stored = []
    for x, c, r in zip(images.reshape(len(images), -1).astype(np.float64), predictions.tolist(), radii.tolist()):
        if c >= 0:
            holding = [(s - np.sqrt(np.sum((x - y) ** 2)), k) for y, k, s in stored if k != c]
            depth, k = max(holding, default=(-np.inf, c))
            if depth > 0:
                c, r = k, min(r, depth)
            elif -depth < r:
                r = -depth
            stored.append((x, c, r))
        yield c, r


@pytest.mark.parametrize("block", [1, 7, 256])
def test_is_the_rule_written_out_whatever_the_block(monkeypatch, block):
    monkeypatch.setattr(memory, "BLOCK", block)
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(60, 2, 1, 1)).astype(np.float32)
    predictions, radii = rng.integers(-1, 3, 60), rng.uniform(0, 1, 60)
    ours = correct(images, predictions, radii)
    expected = list(rule(images, predictions, radii))
    np.testing.assert_array_equal(ours.predictions, [c for c, _ in expected])
    np.testing.assert_allclose(ours.radii, [r for _, r in expected], rtol=1e-12)
    assert (ours.predictions != predictions).sum() > 3 and (ours.radii < radii).sum() > 10


def test_each_case():
    images = np.array([0.0, 0.75, 0.125, 1.0, 0.5], np.float32)[:, None, None, None]
    # Apart from the first; in its ball; of the second's class; an abstention in the first's ball.
    ours = correct(images, np.array([0, 1, 1, 1, -1]), np.array([0.625, 0.25, 0.9, 0.5, 0.0]))
    assert ours.predictions.tolist() == [0, 1, 0, 1, -1]
    assert ours.radii.tolist() == [0.625, 0.125, 0.5, 0.375, 0.0]
    # A radius that the change of class would have let grow.
    assert correct(images[[0, 2]], np.array([0, 1]), np.array([0.625, 0.25])).radii.tolist() == [0.625, 0.25]


def test_near_images_among_large_ones_are_told_apart():
    # 3072 pixels near 1 that differ by 1e-7 in one: a product of matrices alone would lose that.
    images = np.full((2, 32, 32, 3), 1, np.float32)
    images[1, 0, 0, 0] = np.nextafter(np.float32(1), np.float32(0))
    ours = correct(images, np.array([0, 1]), np.array([0.0, 1e-6]))
    assert ours.predictions.tolist() == [0, 1]
    assert ours.radii[1] == 2.0**-24


@pytest.mark.parametrize("m", [0, 1])
def test_nothing_to_compare(m):
    ours = correct(np.zeros((m, 2, 2, 1), np.float32), np.zeros(m, int), np.full(m, 0.5))
    assert ours.radii.tolist() == [0.5] * m


class ReadAgain:
    """Images that are made anew whenever they are asked for; counts those that somebody still holds."""

    def __init__(self, images):
        self.images, self.alive, self.most, self.reads = images, [], 0, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, place):
        self.alive = [image for image in self.alive if image() is not None]
        made = self.images[place].copy()
        self.alive.append(weakref.ref(made))
        self.most, self.reads = max(self.most, len(self.alive)), self.reads + 1
        return made


@pytest.mark.slow_for("0-shape1", "0-shape2", "0-shape3", "5-shape0", "5-shape1", "5-shape2")
@pytest.mark.parametrize("shape", [(20, 3, 1), (7,), (33, 17, 3), (1, 40, 2)])
@pytest.mark.parametrize("kept", [0, 5])
def test_images_read_one_at_a_time_give_the_answer_of_all_at_once(monkeypatch, shape, kept):
    monkeypatch.setattr(memory, "BLOCK", 16)
    rng = np.random.default_rng(1)
    centres = rng.uniform(size=(6, *shape))
    images = (centres[rng.integers(0, 6, 80)] + 0.02 * rng.normal(size=(80, *shape))).astype(np.float32)
    predictions = rng.integers(-1, 3, 80)
    radii = rng.uniform(0, 0.03 * np.sqrt(2 * np.prod(shape)), 80)
    monkeypatch.setattr(memory, "KEPT", kept * images[0].nbytes)
    lazy = ReadAgain(images)
    ours = correct(lazy, predictions, radii)
    whole = correct(images, predictions, radii)
    expected = list(rule(images, predictions, radii))
    for found in (ours, whole):
        np.testing.assert_array_equal(found.predictions, [c for c, _ in expected])
        np.testing.assert_allclose(found.radii, [r for _, r in expected], rtol=1e-9)
    np.testing.assert_array_equal(ours.radii, whole.radii)
    assert (ours.predictions != predictions).any() and (ours.radii < radii).sum() > 3
    gc.collect()
    assert lazy.most <= max(2, kept) + 4  # the first one, and those whose distance is computed
    assert lazy.reads > len(images)


def test_images_far_apart_are_read_once():
    rng = np.random.default_rng(2)
    lazy = ReadAgain(rng.uniform(size=(300, 24, 24, 1)).astype(np.float32))
    correct(lazy, rng.integers(0, 10, 300), np.full(300, 0.5))
    assert lazy.reads == 301  # the first tells the shape


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_sketches_are_no_further_apart_than_images(shape, seed):
    one, other = np.random.default_rng(seed).normal(size=(2, *shape))
    apart = np.linalg.norm(memory.sketch(one) - memory.sketch(other))
    assert apart <= np.linalg.norm(one - other) * (1 + 1e-12)
    assert memory.sketch(one).size == np.prod([min(n, memory.GRID) for n in shape[:2]] + shape[2:])


def test_images_of_different_shapes_have_no_distance():
    class Two:
        def __len__(self):
            return 2

        def __getitem__(self, place):
            return np.zeros((64 + place, 64, 1), np.float32)

    with pytest.raises(ValueError, match=r"images 0 and 1 have shapes \(64, 64, 1\) and \(65, 64, 1\)"):
        correct(Two(), np.zeros(2, int), np.zeros(2))
