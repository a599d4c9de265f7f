"""ImageNet from its two layouts, and its preparation against PyTorch's own resampling."""

import numpy as np
import pytest
import torch
from PIL import Image

from qcrs_jax.data import DataError, load_dataset
from qcrs_jax.image_files import resize_and_crop


def picture(width, height, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (256, 256), (300, 301), (640, 100)])
def test_prepared_as_pytorch_resamples(width, height):
    image = picture(width, height)
    ours = resize_and_crop(image)
    short = min(width, height)
    size = int(256 * height / short), int(256 * width / short)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    x = torch.nn.functional.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
    top, left = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    expected = x[0, :, top : top + 224, left : left + 224].permute(1, 2, 0).numpy()
    assert ours.shape == (224, 224, 3) and ours.dtype == np.uint8
    assert abs(ours - expected).max() <= 1.01  # of 255: PIL rounds after each of the two directions


def class_folders(root, count=1000):
    names = [f"n{10 * i + 1440000:08d}" for i in range(count)]
    for name in names:
        (root / name).mkdir(parents=True)
    return names


def test_folders_of_classes(tmp_path):
    names = class_folders(tmp_path / "val")
    for label, seed in ((3, 1), (3, 2), (999, 3)):
        picture(300 + seed, 280, seed).save(tmp_path / "val" / names[label] / f"{seed}.JPEG")
    dataset = load_dataset("imagenet", tmp_path)
    assert (len(dataset), dataset.labels.tolist(), dataset.class_names) == (3, [3, 3, 999], names)
    image, label = dataset[2]
    assert (image.shape, label) == ((224, 224, 3), 999)
    with Image.open(tmp_path / "val" / names[999] / "3.JPEG") as original:
        np.testing.assert_array_equal(image, resize_and_crop(original) / np.float32(255))


def test_some_of_the_classes_are_refused(tmp_path):
    names = class_folders(tmp_path, 10)
    picture(300, 280).save(tmp_path / names[0] / "a.JPEG")
    with pytest.raises(DataError, match="10 folders with 1 images.*--dataset folder"):
        load_dataset("imagenet", tmp_path)


@pytest.mark.parametrize("beside", [False, True])
def test_the_flat_official_folder(tmp_path, beside):
    flat = tmp_path / "val"
    flat.mkdir()
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in (1, 2)]
    for i, name in enumerate(names):
        picture(300, 260, i).convert("L" if i else "RGB").save(flat / name)
    with pytest.raises(DataError, match="no val.txt"):
        load_dataset("imagenet", tmp_path)
    (tmp_path if beside else flat).joinpath("val.txt").write_text(f"{names[0]} 65\n{names[1]} 970\n")
    dataset = load_dataset("imagenet", tmp_path)
    assert dataset.labels.tolist() == [65, 970]
    assert all(dataset[i][0].shape == (224, 224, 3) for i in range(2))  # the grey one too


@pytest.mark.parametrize(
    "line", ["ILSVRC2012_val_00000009.JPEG 1", "ILSVRC2012_val_00000001.JPEG 1000", "a", "a b", ""]
)
def test_a_list_that_does_not_fit_is_named_with_its_line(tmp_path, line):
    picture(300, 260).save(tmp_path / "ILSVRC2012_val_00000001.JPEG")
    (tmp_path / "val.txt").write_text(f"ILSVRC2012_val_00000001.JPEG 65\n{line}\n")
    with pytest.raises(DataError, match="val.txt, line 2"):
        load_dataset("imagenet", tmp_path)


def test_a_damaged_image_is_named(tmp_path):
    picture(300, 260).save(tmp_path / "ILSVRC2012_val_00000001.JPEG")
    (tmp_path / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 65\n")
    dataset = load_dataset("imagenet", tmp_path)
    path = tmp_path / "ILSVRC2012_val_00000001.JPEG"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="ILSVRC2012_val_00000001.JPEG: .*damaged"):
        dataset[0]
