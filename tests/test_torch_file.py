"""Reading files of torch.save: equality with torch.load, and nothing but a clear error for bad files."""

import os
import pickle
import zipfile
from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest
import torch
from checkpoints import save
from damage import read_all
from qcrs_jax.convert.torch_file import Tensor, load

from qcrs_jax.checkpoint import CheckpointError

BOTH = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
DTYPES = "float16 float32 float64 bfloat16 int8 int16 int32 int64 uint8 bool".split()


def assert_equal(ours, theirs, seen=None):
    """`ours` is what torch.load gives, tensor by tensor and container by container."""
    seen = {} if seen is None else seen  # containers may hold themselves
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, Tensor)
        assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
        values, expected = ours.numpy(), theirs.detach()
        if expected.dtype == torch.bfloat16:  # NumPy has none of its own: its bits
            values, expected = values.view(np.int16), expected.view(torch.int16)
        np.testing.assert_array_equal(values, expected.numpy(), strict=True)
    elif isinstance(theirs, dict | list | tuple):
        if id(theirs) in seen:
            assert seen[id(theirs)] == id(ours) or type(theirs) is tuple
            return
        seen[id(theirs)] = id(ours)
        assert len(ours) == len(theirs)
        if isinstance(theirs, dict):
            assert type(ours) is type(theirs)
            assert list(ours) == list(theirs)
        for key in theirs if isinstance(theirs, dict) else range(len(theirs)):
            assert_equal(ours[key], theirs[key], seen)
    elif isinstance(theirs, int | float | str | bytes | None):
        assert type(ours) is type(theirs)
        assert ours == theirs or ours != ours
    else:  # only damaged files hold functions and storages as such
        assert callable(theirs) or "Storage" in type(theirs).__name__


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
    with pytest.raises(CheckpointError, match="nothing of it was run") as error:
        load(path)
    assert not marker.exists()
    assert str(path) in str(error.value)
    assert name.split(".")[1] in str(error.value)


@pytest.mark.parametrize(
    "module, name",
    [
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "_sys.modules"),
        ("torch", "load"),
        ("torch._utils", "_import_dotted_name"),
        ("builtins", "getattr"),
        ("qcrs_jax.convert.torch_file", "sys"),
    ],
)
def test_no_way_around_the_list_of_names(tmp_path, module, name):
    path = tmp_path / "names.pth"
    path.write_bytes(b"\x80\x04" + b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)) + b"\x93.")
    with pytest.raises(CheckpointError, match="which a checkpoint of weights does not need"):
        load(path)


@BOTH
def test_whole_models_are_refused_with_the_remedy(tmp_path, legacy):
    path = save(torch.nn.Linear(2, 2), tmp_path / "model.pth", legacy)
    with pytest.raises(CheckpointError, match="save the model's state_dict") as error:
        load(path)
    assert str(path) in str(error.value)


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
    from safetensors.torch import save_file

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
    from safetensors.torch import save_file

    path = tmp_path / "net.safetensors"
    save_file({"w": torch.ones(5)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError) as error:
        load(path)
    assert str(path) in str(error.value)
