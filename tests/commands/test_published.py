"""The commands that the papers' programs document."""

import io
import pickle

import numpy as np
import pytest
from program import PUBLISHED, assert_certificates, qcrs_jax
from with_torch import CifarResNet, randomise, torch

from qcrs_jax.results.records import read_run


def cifar10_pickle(data, labels):
    """A batch in the opcodes of Python 2, which has no bytes: the arrays' buffers are its strings."""

    class Python2Pickler(pickle._Pickler):
        dispatch = dict(pickle._Pickler.dispatch)

        def save_string(self, obj):
            text = obj if isinstance(obj, bytes) else obj.encode("ascii")
            self.write(pickle.BINSTRING + len(text).to_bytes(4, "little") + text)
            self.memoize(obj)

        dispatch[bytes] = dispatch[str] = save_string

    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump({b"data": data, b"labels": labels})
    return stream.getvalue()


@pytest.mark.parametrize("name", ["cohen", "macer"])
@pytest.mark.slow
def test_published_commands_work(tmp_path, name):
    torch.manual_seed(0)
    state_dict = randomise(CifarResNet(110)).state_dict()
    if name == "cohen":
        content = {
            "epoch": 90,
            "arch": "cifar_resnet110",
            "state_dict": {f"1.{key}": value for key, value in state_dict.items()},
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.001, "params": [0]}]},
        }
    else:
        content = {"net": state_dict, "epoch": 440}
    words = PUBLISHED[name].split()
    checkpoint = tmp_path / words[0]
    checkpoint.parent.mkdir(parents=True)
    torch.save(content, checkpoint)
    data = np.random.default_rng(0).integers(0, 256, (1, 3072), dtype=np.uint8)
    batches = tmp_path / "data/cifar-10-batches-py"
    batches.mkdir(parents=True)
    (batches / "test_batch").write_bytes(cifar10_pickle(data, [3]))
    small = "--N 64 --N0 16 --gradient_n 32 --batch 16".split()
    qcrs_jax("certify", *words, *small, cwd=tmp_path)
    path = tmp_path / words[1]
    assert_certificates(path, n=64)
    run = read_run(path)
    (record,) = run.records
    assert (record.idx, record.label) == (0, 3)
    mean = {"cohen": [0.4914, 0.4822, 0.4465], "macer": [0.0]}[name]
    classifier = run.request["classifier"]
    assert classifier["arch"] == "cifar_resnet110"
    np.testing.assert_allclose(np.broadcast_to(classifier["mean"], 3), np.broadcast_to(mean, 3))
