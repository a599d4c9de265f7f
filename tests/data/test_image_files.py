"""ImageNet from its layouts, its preparation against torchvision's, label files, and damaged images."""

import numpy as np
import pytest
import scipy.io
from PIL import Image
from with_torch import torch

from qcrs_jax.data.image_files import resize_and_crop, resized
from qcrs_jax.data.imagenet_files import known_to_tfds
from qcrs_jax.data.load import DataError, load_dataset


def picture(width, height, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])


SIZES = [
    (500, 375),
    (375, 500),
    (256, 256),
    (300, 301),
    (640, 100),
    (255, 256),
    (224, 225),
    (17, 90),
    (1, 3),
    (333, 1024),
]


@pytest.mark.parametrize(("width", "height"), SIZES)
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


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK"])
def test_the_pixels_are_those_of_torchvision(width, height, mode):
    # What Resize(256) and CenterCrop(224) do with an image that its loader opened, step by step.
    image = picture(width, height).convert(mode)
    loaded = image.convert("RGB")
    if width <= height:
        loaded = loaded.resize((256, int(256 * height / width)), Image.BILINEAR)
    else:
        loaded = loaded.resize((int(256 * width / height), 256), Image.BILINEAR)
    top, left = int(round((loaded.height - 224) / 2.0)), int(round((loaded.width - 224) / 2.0))
    expected = np.array(loaded)[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(resize_and_crop(image), expected)


def test_other_sizes_and_grey_images(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (3, 40, 60), np.uint8)
    np.savez(tmp_path / "grey.npz", x=x, y=[0, 1, 0])
    np.savez(tmp_path / "rgb.npz", x=np.stack([x] * 3, axis=-1), y=[0, 1, 0])
    grey, rgb = (resized(load_dataset("npz", tmp_path / f"{name}.npz"), 36, 32, 28) for name in ("grey", "rgb"))
    assert grey[0][0].shape == (32, 28, 1) and rgb[0][0].shape == (32, 28, 3)
    expected = Image.fromarray(x[1]).resize((54, 36), Image.BILINEAR).crop((13, 2, 41, 34))
    for dataset in (grey, rgb):
        np.testing.assert_array_equal(
            dataset[1][0], np.array(expected)[..., None] / np.float32(255) + 0 * dataset[1][0]
        )
    assert grey.fingerprint != load_dataset("npz", tmp_path / "grey.npz").fingerprint
    with pytest.raises(DataError, match="resize 31: must be at least 32") as error:
        resized(grey, 31, 32, 28)
    assert error.value.settings == ("resize",)
    np.savez(tmp_path / "float.npz", x=x / 255, y=[0, 1, 0])
    with pytest.raises(DataError, match=r"image 2 of float \(.*8 bits"):
        resized(load_dataset("npz", tmp_path / "float.npz"), 36, 32, 28)[2]


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
    with pytest.raises(DataError, match="10 folders with 1 images.*dataset folder") as error:
        load_dataset("imagenet", tmp_path)
    assert error.value.settings == ("dataset",)


NAMES = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in (1, 2, 3)]
WORDNET_IDS = known_to_tfds("labels.txt")


@pytest.fixture
def flat(tmp_path):
    """Three of the official validation images, the second one grey, without a label file."""
    (tmp_path / "val").mkdir()
    for i, name in enumerate(NAMES):
        picture(300, 260, i).convert("L" if i == 1 else "RGB").save(tmp_path / "val" / name)
    return tmp_path / "val"


def write_devkit(folder, ids):
    """The devkit's two files, its own numbers in an order of their own, and a synset that is no class."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {label: 1000 - label for label in range(1000)}
    rows = [(numbers[label], WORDNET_IDS[label]) for label in range(1000)] + [(1001, "n00001740")]
    synsets = np.zeros((len(rows), 1), [("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)])
    for row, (number, wordnet_id) in zip(synsets[:, 0], rows):
        row["ILSVRC2012_ID"], row["WNID"], row["num_children"] = np.array([[number]]), wordnet_id, np.array([[0]])
    scipy.io.savemat(folder / "meta.mat", {"synsets": synsets})
    text = "".join(f"{numbers[label]}\n" for label in ids)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(text)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("kind", ["val.txt", "LOC_val_solution.csv", "devkit", None])
def test_the_flat_official_folder(flat, kind, beside):
    labels = [7, 970, 65] if kind else [65, 970, 230]  # without a file: as everybody has them
    folder = flat.parent if beside else flat
    if kind == "devkit":
        write_devkit(folder / ("ILSVRC2012_devkit_t12/data" if beside else ""), labels)
    elif kind == "val.txt":
        folder.joinpath(kind).write_text("".join(f"{n} {label}\n" for n, label in zip(NAMES, labels)) + "\n")
    elif kind:
        lines = [f"{n[:-5]},{WORDNET_IDS[label]} 1 2 3 4 n01440764 1 2 3 4\n" for n, label in zip(NAMES, labels)]
        folder.joinpath(kind).write_text("ImageId,PredictionString\n" + "".join(reversed(lines)))
    dataset = load_dataset("imagenet", flat.parent)
    assert dataset.labels.tolist() == labels and dataset.class_names == WORDNET_IDS
    assert all(dataset[i][0].shape == (224, 224, 3) for i in range(3))  # the grey one too
    assert dataset.where(2) == str(flat / NAMES[2])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ILSVRC2012_val_00000009.JPEG 1", "there is no image 'ILSVRC2012_val_00000009.JPEG'"),
        ("ILSVRC2012_val_00000002.JPEG 1000", "'1000' is neither a label of 0 to 999 nor the WordNet id"),
        ("ILSVRC2012_val_00000002.JPEG -1", "'-1' is neither"),
        ("ILSVRC2012_val_00000002.JPEG n1", "'n1' is neither"),
        ("ILSVRC2012_val_00000002.JPEG 1.0", "'1.0' is neither"),
        ("ILSVRC2012_val_00000001.JPEG 65", "is there already, in line 1"),
        ("ILSVRC2012_val_00000002.JPEG", "is not a name and a label"),
        ("a b c", "is not a name and a label"),
        ("", "is not a name and a label"),
        ("\0 \0", "there is no image"),
    ],
)
def test_a_label_that_does_not_fit_is_named_with_its_line(flat, line, message):
    (flat.parent / "val.txt").write_text(f"{NAMES[0]} 65\n{line}\n{NAMES[2]} 3\n")
    with pytest.raises(DataError, match=rf"val\.txt, line 2: .*{message}(.|\n)*on_error skip") as error:
        load_dataset("imagenet", flat.parent)
    assert error.value.settings == ("on_error",)
    dataset = load_dataset("imagenet", flat.parent, on_error="skip")
    assert dataset[2][1] == 3  # what fits stays
    for index in dataset.problems:
        with pytest.raises(DataError, match=r"val\.txt"):
            dataset[index]
    assert 1 in dataset.problems, "the second image has no label"


def test_a_label_file_with_too_few_lines(flat):
    (flat / "val.txt").write_text(f"{NAMES[0]} 65\n")
    with pytest.raises(DataError, match=rf"val\.txt: has no line for {NAMES[1]}, and 1 more"):
        load_dataset("imagenet", flat.parent)
    assert load_dataset("imagenet", flat.parent, on_error="skip")[0][1] == 65


def test_a_devkit_without_its_numbers_or_with_wrong_ones(flat):
    write_devkit(flat, [1, 2, 3])
    path = flat / "ILSVRC2012_validation_ground_truth.txt"
    path.write_text(path.read_text().replace("997", "1001"))
    with pytest.raises(DataError, match="ground_truth.txt, line 3: 'n00001740' is neither"):
        load_dataset("imagenet", flat)
    path.write_text("0\n1\n2\n")
    with pytest.raises(DataError, match="ground_truth.txt, line 1: 'number 0 of the devkit' is neither"):
        load_dataset("imagenet", flat)
    (flat / "meta.mat").write_bytes(b"damaged")
    with pytest.raises(DataError, match="meta.mat: needed to read"):
        load_dataset("imagenet", flat)


FORMATS = {
    "png": "RGB P 1 RGBA",
    "jpg": "RGB L CMYK",
    "gif": "P",
    "webp": "RGB",
    "tif": "RGB",
    "bmp": "RGB",
    "ppm": "RGB",
}


@pytest.mark.filterwarnings("ignore")  # Pillow's, about damaged TIFFs
@pytest.mark.parametrize("ending", FORMATS)
def test_damaged_images_of_all_kinds_are_named_or_read(tmp_path, ending):
    rng = np.random.default_rng(0)
    file = tmp_path / "c" / f"image.{ending}"
    file.parent.mkdir()
    for mode in FORMATS[ending].split():
        picture(30, 40).convert(mode).save(file)
        whole, refused = file.read_bytes(), 0
        assert load_dataset("folder", tmp_path)[0][0].shape[:2] == (40, 30)
        for cut in rng.integers(0, len(whole), 20):
            damaged = bytearray(whole[:cut] if cut % 2 else whole)
            for place in rng.integers(0, max(min(len(damaged), 60), 1), 4 * bool(damaged)):
                damaged[place] = rng.integers(256)
            file.write_bytes(damaged)
            try:
                load_dataset("folder", tmp_path)[0]
            except DataError as error:
                assert str(file) in str(error)
                refused += 1
        assert refused > 5


def test_images_of_16_bits_are_refused_and_other_formats_never_opened(tmp_path):
    file = tmp_path / "c/0.png"
    file.parent.mkdir()
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(file)
    with pytest.raises(DataError, match=r"0\.png: has more than 8 bits.*dataset npz") as error:
        load_dataset("folder", tmp_path)[0]
    assert error.value.settings == ("dataset",)
    picture(8, 8).save(file, "EPS")  # Pillow would start another program
    with pytest.raises(DataError, match=r"0\.png: not an image"):
        load_dataset("folder", tmp_path)[0]


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    (tmp_path / "c").mkdir()
    first, second = (Image.new("RGB", (6, 5), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "c/0.gif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(load_dataset("folder", tmp_path)[0][0], np.array(first) / np.float32(255))


def test_a_damaged_image_is_named(flat):
    path = flat / NAMES[0]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="ILSVRC2012_val_00000001.JPEG: .*damaged"):
        load_dataset("imagenet", flat.parent)[0]
