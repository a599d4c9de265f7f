"""Reading files of torch.save: equality with torch.load, and nothing but a clear error for bad files."""

import collections
import dataclasses
import datetime
import enum
import gzip
import os
import pickle
import re
import struct
import tarfile
import zipfile
from argparse import Namespace
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from checkpoints import resnet, save
from damage import foreign, read_all, zip_archive
from tensors import assert_equal
from with_torch import torch

from qcrs_jax.convert.files.torch_file import load
from qcrs_jax.convert.files.unpickle import ODD_KEYS, Unused
from qcrs_jax.convert.load import load_classifier
from qcrs_jax.models.checkpoint import CheckpointError

BOTH = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
DTYPES = "float16 float32 float64 bfloat16 int8 int16 int32 int64 uint8 bool".split()


def assert_as_torch(content, path, legacy):
    save(content, path, legacy)
    assert_equal(load(path), torch.load(path, weights_only=False))


@BOTH
@pytest.mark.parametrize("name", DTYPES)
def test_every_storage_type(tmp_path, name, legacy):
    values = torch.from_numpy(np.random.default_rng(0).uniform(-100, 100, (3, 4, 5)))
    tensor = (values > 0) if name == "bool" else values.to(getattr(torch, name))
    content = {"w": tensor, "scalar": tensor[0, 0, 0].clone(), "empty": tensor[:0].clone()}
    assert_as_torch(content, tmp_path / "f", legacy)


@BOTH
def test_views_of_shared_storages(tmp_path, legacy):
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    views = {
        "base": base,
        "transposed": base.permute(2, 0, 1),
        "steps": base[:, ::2, 1::3],
        "tail": base[2, 3],
        "diagonal": base[0].diagonal(),
        "expanded": base[:1, :1].expand(7, 4, 5),
        "channels_last": torch.arange(48.0).reshape(1, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    }
    assert_as_torch(views, tmp_path / "f", legacy)


@BOTH
def test_arrays_do_not_share_memory_with_each_other(tmp_path, legacy):
    base = torch.zeros(4)
    content = load(save([base, base[:2]], tmp_path / "f", legacy))
    content[0].numpy()[:] = 1
    assert content[1].numpy().tolist() == [0, 0]


@BOTH
def test_parameters_and_containers(tmp_path, legacy):
    content = {
        "state_dict": OrderedDict(b=torch.nn.Parameter(torch.ones(2)), a=torch.nn.Parameter(torch.zeros(1), False)),
        "nested": [{"x": (1, 2.5, None, True, "é", torch.ones(1))}, -(2**70)],
        "size": torch.Size([3, 4]),
    }
    assert_as_torch(content, tmp_path / "f", legacy)


@BOTH
def test_fields_beside_the_weights_do_not_stand_in_the_way(tmp_path, legacy):
    weights = {"w": torch.arange(3.0)}
    extras = {"best": np.float64(93.5), "loss": np.float32(0.1), "epoch": np.int64(3), "args": Namespace(lr=0.1)}
    extras |= {"name": b"bytes", "device": None}
    content = load(save({**extras, "state_dict": weights}, tmp_path / "f", legacy))
    assert list(content) == [*extras, "state_dict"]
    assert_equal(content["state_dict"], weights)


@pytest.fixture(params=[False, True], ids=["zip", "legacy"])
def good(request, tmp_path):
    """A small file of either serialisation."""
    content = {
        "epoch": 3,
        "state_dict": OrderedDict(
            {"a.weight": torch.arange(24.0).reshape(4, 6).t(), "a.bias": torch.ones(6), "n": torch.tensor(7)}
        ),
        "best": np.float64(1.5),
    }
    return save(content, tmp_path / "good.pth", request.param)


def test_truncated_anywhere(good):
    data = good.read_bytes()
    for length in sorted({1, 2, 3, 4, 5, *range(10, len(data), 17), len(data) - 1}):
        good.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="good.pth"):
            load(good)


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "empty"),
        (b"idx\tlabel\tpredict\nnot weights at all\n", "not a PyTorch checkpoint"),
        (bytes(300), "not a PyTorch checkpoint"),
        (pickle.dumps({"state_dict": {}}), "magic number"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1002, 2), "not of version 1001"),
        (b"PK\x03\x04 and nothing of a zip archive", "zip archive"),
        (b"(" * 50_000, "not a PyTorch checkpoint"),
        (bytes(257) + b"ustar\x0000" + bytes(200), "tar format"),
    ],
    ids=["empty", "text", "zeros", "pickle", "version", "zip", "parentheses", "tar"],
)
def test_other_files(tmp_path, data, words):
    path = tmp_path / "other.pth"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=words) as error:
        load(path)
    assert str(path) in str(error.value)


PAGE = b"\xef\xbb\xbf\n <!DOCTYPE html><html><head><title>Virus scan warning</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 2244782\n"


@pytest.mark.parametrize("name", ["net.pth", "net.pth.tar", "model.safetensors"])
@pytest.mark.parametrize(
    "data, words",
    [
        (POINTER, "Git LFS pointer.*2244782 bytes.*git lfs pull"),
        (PAGE, "web page.*download the file itself"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
        (b'{"message": "Not Found"}\n', "text file"),
        (gzip.compress(b"weights" * 100), "gzip; unpack"),
        (b"BZh91AY&SY", "bzip2; unpack"),
        (b"\xfd7zXZ\x00\x00", "xz; unpack"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd; unpack"),
        (b"7z\xbc\xaf\x27\x1c\x00", "7z archive; unpack"),
        (b"Rar!\x1a\x07", "RAR archive; unpack"),
        (b"\x89HDF\r\n\x1a\n\x00", "HDF5"),
        (b"\x93NUMPY\x01\x00", "NumPy array"),
        (b"\x89PNG\r\n", "image"),
    ],
    ids="pointer page xml json gzip bzip2 xz zstd 7z rar hdf5 npy png".split(),
)
def test_stand_ins_are_recognised_by_kind(tmp_path, name, data, words):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=words) as error:
        load_classifier(path)
    assert str(error.value).startswith(f"{path}: ")


def test_archives_that_hold_something_else(tmp_path):
    inner = save({"w": torch.ones(2)}, tmp_path / "net.pth")
    with tarfile.open(tmp_path / "a.pth.tar", "w") as archive:
        archive.add(inner, "net.pth")
    for name, members, method in (
        ("a.zip", {"net.pth": b"x"}, zipfile.ZIP_STORED),
        ("b.zip", {"net.pth": b"x"}, zipfile.ZIP_DEFLATED),
        ("c.npz", {"w.npy": b"x"}, zipfile.ZIP_STORED),
    ):
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            for member, data in members.items():
                archive.writestr(member, data)
    for name, words in (
        ("a.pth.tar", "unpack"),
        ("a.zip", "it holds net.pth; unpack"),
        ("b.zip", "unpack"),
        ("c.npz", "npz"),
    ):
        with pytest.raises(CheckpointError, match=words):
            load_classifier(tmp_path / name)


def test_safetensors_and_torch_files_under_each_other_s_names(tmp_path):
    from with_torch import save_file

    torch.save({"w": torch.ones(2)}, tmp_path / "net.safetensors")
    assert load(tmp_path / "net.safetensors")["w"].numpy().tolist() == [1, 1]
    for size in (2, 40):  # the length of a header may look like the beginning of a pickle
        save_file({"w" * size: torch.ones(2)}, tmp_path / "net.pth")
        with pytest.raises(CheckpointError, match="copy it to a name that ends in .safetensors"):
            load(tmp_path / "net.pth")
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(0x280)
    (tmp_path / "net.pth").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(CheckpointError, match="copy it to a name that ends in .safetensors"):
        load(tmp_path / "net.pth")


def test_directories_that_are_no_classifier_are_recognised_by_kind(tmp_path):
    path = save({"w": torch.ones(2)}, tmp_path / "net.pth")
    zipfile.ZipFile(path).extractall(tmp_path / "unpacked")
    (tmp_path / "empty").mkdir()
    (tmp_path / "run" / "training").mkdir(parents=True)
    (tmp_path / "run" / "training" / "request.json").write_text("{}")
    (inside,) = (tmp_path / "unpacked").iterdir()
    for folder, words in (
        (tmp_path / "unpacked", "unpacked inside of a file of torch.save.*zip -0 -r"),
        (inside, "unpacked inside of a file of torch.save.*zip -0 -r"),
        (tmp_path / "empty", "holds no file of weights"),
        (tmp_path / "run", "not finished; repeat its command"),
        (tmp_path, "open a file in it: net.pth"),
    ):
        with pytest.raises(CheckpointError, match=words) as error:
            load_classifier(folder)
        assert str(error.value).startswith(f"{folder}: ")


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read") as error:
            load(path)
        assert str(path) in str(error.value)


def rewrite(source, target, drop=(), change=None, add=None):
    """A copy of a zip file with records left out, changed or added, all by the end of their names."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            if not name.endswith(tuple(drop)):
                tail = name.removeprefix(root + "/")
                new.writestr(name, (change or {}).get(tail, lambda data: data)(old.read(name)))
        for tail, data in (add or {}).items():
            new.writestr(f"{root}/{tail}", data)
    return target


@pytest.fixture
def zipped(tmp_path):
    return save({"w": torch.arange(6.0), "v": torch.ones(3)}, tmp_path / "source.pth")


@pytest.mark.parametrize(
    "edit, words",
    [
        ({"drop": ["data.pkl"]}, "not of torch.save"),
        ({"add": {"constants.pkl": b""}}, "TorchScript"),
        ({"add": {"extra/data.pkl": b""}}, "not of torch.save"),
        ({"change": {"byteorder": lambda _: b"big"}}, "byte order"),
    ],
    ids=["no pickle", "TorchScript", "two pickles", "byte order"],
)
def test_zip_archives_of_another_kind(tmp_path, zipped, edit, words):
    path = rewrite(zipped, tmp_path / "edited.pth", **edit)
    with pytest.raises(CheckpointError, match=words) as error:
        load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "edit",
    [
        {"drop": ["data/0"]},
        {"change": {"data/0": lambda data: data[:-4]}},
        {"change": {"data/0": lambda data: data + b"0000"}},
    ],
    ids=["missing", "short", "long"],
)
def test_zip_storage_that_is_missing_or_of_another_size(tmp_path, zipped, edit):
    assert isinstance(read_all(rewrite(zipped, tmp_path / "edited.pth", **edit)), CheckpointError)


def test_zip_weights_with_flipped_bits_fail_their_checksum(zipped):
    data = bytearray(zipped.read_bytes())
    data[data.index(np.arange(6, dtype=np.float32).tobytes()) + 5] ^= 1
    zipped.write_bytes(data)
    assert isinstance(read_all(zipped), CheckpointError)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class _FakeStorage:
    """Tells torch.save's format to `pickle`: a storage is a persistent id."""


def test_tensors_outside_their_storage(tmp_path, zipped):
    rebuild = torch._utils._rebuild_tensor_v2

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", 6) if isinstance(obj, _FakeStorage) else None

    views = [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (-1, (2,), (1,)),
        (0, (2, 3), (4, 1)),
        (0, (2,), (-1,)),
        (5, (2,), (-5,)),
        (0, (6,), (1, 1)),
        (0, (-1,), (1,)),
        (0, (2.0,), (1,)),
        (2**62, (2**62, 4), (4, 1)),
    ]
    for view in [(0, (2, 3), (3, 1)), *views]:
        with open(tmp_path / "data.pkl", "wb") as file:
            Pickler(file, 2).dump({"w": Call(rebuild, _FakeStorage(), *view, False, OrderedDict())})
        crafted = (tmp_path / "data.pkl").read_bytes()
        path = rewrite(zipped, tmp_path / "edited.pth", change={"data.pkl": lambda _, p=crafted: p})
        if view in views:
            assert isinstance(read_all(path), CheckpointError), view
        else:  # the crafted file as such is in order
            assert load(path)["w"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


def side_effects(marker):
    return {
        "os.system": Call(os.system, f"touch {marker}"),
        "builtins.eval": Call(eval, f"open({str(marker)!r}, 'w').close()"),
        "builtins.open": Call(open, str(marker), "w"),
        "numpy.save": Call(np.save, str(marker), 0),
    }


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "builtins.open", "numpy.save"])
@pytest.mark.parametrize("where", ["zip", "legacy", "first pickle"])
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO")  # what the code opened, run here
def test_code_in_the_pickle_is_not_run(tmp_path, name, where):
    marker = tmp_path / "ran.npy"
    evil = side_effects(marker)[name]
    path = tmp_path / "evil.pth"
    if where == "first pickle":
        path.write_bytes(pickle.dumps(evil, 2))
        pickle.loads(path.read_bytes())
    else:
        save({"state_dict": {"w": torch.ones(2)}, "evil": evil}, path, where == "legacy")
        torch.load(path, weights_only=False)
    assert marker.exists()  # the file is a weapon
    marker.unlink()
    if where == "first pickle":
        assert str(path) in str(read_all(path))
    else:
        content = load(path)
        assert type(content["evil"]) is Unused and content["evil"].name.endswith(name.split(".")[1])
        assert foreign(content) == [] and content["state_dict"]["w"].numpy().tolist() == [1, 1]
    assert not marker.exists()
    with pytest.raises(CheckpointError) as error:
        load_classifier(path)
    assert str(path) in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "_sys.modules"),
        ("torch", "load"),
        ("torch._utils", "_import_dotted_name"),
        ("builtins", "getattr"),
        ("qcrs_jax.convert.files.torch_file", "sys"),
    ],
)
def test_no_way_around_the_list_of_names(tmp_path, module, name):
    path = tmp_path / "names.pth"
    named = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)) + b"\x93"
    path.write_bytes(named + b".")
    with pytest.raises(CheckpointError, match="magic number"):
        load(path)
    for call in (b"", b")R", b")\x81", b"N\x85R}b"):
        path.write_bytes(zip_archive([("a/data.pkl", named + call + b".")]))
        content = load(path)
        assert type(content) is Unused and content.name == f"{module}.{name}"
        with pytest.raises(CheckpointError, match=re.escape(f"a whole object ({module}.{name})")):
            load_classifier(path, "none")


@BOTH
def test_whole_models_are_refused_with_the_remedy(tmp_path, legacy):
    path = save(torch.nn.Linear(2, 2), tmp_path / "model.pth", legacy)
    assert load(path).name == "torch.nn.modules.linear.Linear"
    with pytest.raises(CheckpointError, match="Linear.*save the model's state_dict") as error:
        load_classifier(path)
    assert str(path) in str(error.value)
    path = save({"model": torch.nn.Linear(2, 2)}, path, legacy)
    with pytest.raises(CheckpointError, match="Objects are not read: model .torch.nn.modules.linear.Linear"):
        load_classifier(path)


class Setting(enum.Enum):
    ON = 1


class Settings(dict):
    """A configuration as some libraries keep it."""

    def __init__(self):
        super().__init__(lr=0.1)
        self.parent, self.items_seen = self, {("a", 1)}


@dataclasses.dataclass
class Options:
    lr: float = 0.1
    owner: object = None


def beside_the_weights():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1, momentum=0.9)
    cycle = Options()
    cycle.owner = [cycle, (cycle,)]
    return {
        "scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2]).state_dict(),
        "scheduler itself": torch.optim.lr_scheduler.StepLR(optimizer, 1),
        "optimizer": optimizer.state_dict(),
        "optimizer itself": optimizer,
        "losses": np.arange(5.0),
        "object array": np.array(["a", None], dtype=object),
        "best": np.float32(1.5),
        "rng": np.random.default_rng(0),
        "np rng": np.random.get_state(),
        "torch rng": torch.get_rng_state(),
        "args": Namespace(lr=0.1, path=Path("/data")),
        "started": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
        "path": PurePosixPath("/data"),
        "counter": collections.Counter("abca"),
        "default": collections.defaultdict(list, a=[1]),
        "deque": collections.deque([1, 2]),
        "sets": [{1, 2}, frozenset("ab")],
        "fraction": Fraction(1, 3),
        "decimal": Decimal("1.5"),
        "complex": 1 + 2j,
        "enumeration": Setting.ON,
        "configuration": Settings(),
        "options": cycle,
        "class": Options,
        "function": np.mean,
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "numbers of other kinds": torch.ones(2, dtype=torch.complex64),
        "odd keys": {("train", 1): 1, None: 2, True: 3, b"k": 4, float("inf"): 5, Setting.ON: 6, "lr": 7},
        "bytes": bytearray(b"abc"),
        "slice": slice(1, 2),
        "regular expression": re.compile("a"),
    }


@pytest.mark.slow_for("zip-4", "zip-2")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", [2, 4])
@BOTH
def test_other_content_of_a_checkpoint_is_dropped_unread(tmp_path, legacy, protocol):
    weights, path = {"w": torch.arange(3.0)}, tmp_path / "f"
    beside = beside_the_weights()
    content = {**beside, "state_dict": weights}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    found = load(path)
    assert list(found) == list(content) and foreign(found) == []
    assert_equal(found["state_dict"], weights)
    for name in ("scheduler itself", "losses", "args", "counter", "configuration", "options", "enumeration", "class"):
        assert type(found[name]) is Unused, name
    assert found["counter"].name == "collections.Counter"
    assert [key for key in found["odd keys"] if key is not ODD_KEYS] == ["lr"]


@BOTH
def test_a_placeholder_among_the_weights_is_an_error_that_names_it(tmp_path, legacy):
    net = {**resnet(20).state_dict(), "bn1.extra": np.arange(3)}
    path = save({"state_dict": net}, tmp_path / "net.pth", legacy)
    with pytest.raises(CheckpointError, match="bn1.extra.*numpy.*not read.*leave_out bn1.extra") as error:
        load_classifier(path, "none")
    assert str(path) in str(error.value)
    path = save({"state_dict": {**resnet(20).state_dict(), 5: torch.ones(1)}}, tmp_path / "net.pth", legacy)
    with pytest.raises(CheckpointError, match="keys that are no texts"):
        load_classifier(path, "none")


def test_complex_weights_are_refused(tmp_path):
    net = {
        key: value.to(torch.complex64) if key == "fc.bias" else value for key, value in resnet(20).state_dict().items()
    }
    with pytest.raises(CheckpointError, match="fc.bias.*complex"):
        load_classifier(save({"state_dict": net}, tmp_path / "net.pth"), "none")


def test_attributes_of_tensors_cannot_be_set(tmp_path):
    path = tmp_path / "forged.pth"
    torch.save({"state_dict": {"w": torch.arange(3.0)}}, path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    name = next(n for n in content if n.endswith("data.pkl"))
    # Behind the REDUCE (R) that makes the tensor, a dictionary and BUILD (b), which would set its attributes.
    evil = pickle.dumps({"shape": (2,)}, 2)[2:-1]
    last = content[name].rindex(b"R", 0, content[name].rindex(b"s"))
    content[name] = content[name][: last + 1] + evil + b"b" + content[name][last + 1 :]
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in content.items():
            archive.writestr(entry, data)
    with pytest.raises(CheckpointError, match="attributes for a Tensor"):
        load(path)


def test_safetensors(tmp_path):
    from with_torch import save_file

    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    tensors = {str(kind): torch.arange(6).reshape(2, 3).to(kind) for kind in kinds}
    tensors |= {"scalar": torch.tensor(2.5), "none": torch.zeros(0, 3)}
    save_file(tensors, tmp_path / "net.safetensors")
    content = load(tmp_path / "net.safetensors")
    assert content.keys() == tensors.keys()
    for name, tensor in tensors.items():
        array = content[name].numpy()
        assert array.shape == tensor.shape
        np.testing.assert_array_equal(array.astype(np.float64), tensor.double().numpy())


@pytest.mark.parametrize("kept", [4, 60, -1])
def test_damaged_safetensors(tmp_path, kept):
    from with_torch import save_file

    path = tmp_path / "net.safetensors"
    save_file({"w": torch.ones(5)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError) as error:
        load(path)
    assert str(path) in str(error.value)
