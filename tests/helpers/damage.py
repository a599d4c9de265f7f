"""Damages checkpoint files in bulk and reads them, in a process of its own with a limit on its memory.

    python tests/helpers/damage.py FOLDER COUNT

reads COUNT damaged copies of each file of FOLDER, and all of its file `hostile`, a pickled list of files by name. It
writes what was accepted to FOLDER/accepted, and prints a JSON object with counts. Reading a damaged file has to end
with tensors or a CheckpointError. Anything else ends the process: code that runs, a MemoryError, or 60 seconds for one
file.

PyTorch is not imported here, because the reader must work without it.
"""

import codecs
import faulthandler
import io
import json
import pickle
import pickletools
import random
import resource
import struct
import sys
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

EXTREMES = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**63, 2**64 - 1)


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """`data` with a few bits flipped, bytes removed, inserted, copied or cut off, or a number set to an extreme."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at, length = rng.randrange(len(data)), rng.choice([1, 1, 2, 4, 8, rng.randrange(1, 200)])
        match rng.randrange(7):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.randrange(256)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = rng.randbytes(length)
            case 4:
                data[at:at] = data[at : at + length]
            case 5:
                size = rng.choice([1, 2, 4, 8])
                data[at : at + size] = (rng.choice(EXTREMES) % 256**size).to_bytes(size, "little")
            case 6 if rng.random() < 0.3:
                del data[at:]
        data = data or bytearray(1)
    return bytes(data)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def named(module: str, name: str) -> list[bytes]:
    """The two ways in which a pickle names something."""
    return [f"c{module}\n{name}\n".encode(), text(module) + text(name) + b"\x93"]


CALLED = ("os.system", "posix.system", "builtins.eval", "builtins.exec", "builtins.getattr", "builtins.__import__")
CALLED += ("subprocess.Popen", "importlib.import_module", "operator.attrgetter", "functools.partial", "torch.load")
CALLED += ("collections.OrderedDict.fromkeys", "torch._utils._import_dotted_name", "pickle.loads", "builtins.tuple")
ALLOWED = ("collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter")
ALLOWED += ("torch.Size", "torch.FloatStorage", "argparse.Namespace", "numpy.dtype", "_codecs.encode")


def operations() -> list[bytes]:
    """The operations of hostile pickles: all without an argument, and many with one."""
    plain = [op.code.encode("latin-1") for op in pickletools.opcodes if op.arg is None]
    names = [code for name in CALLED + ALLOWED for code in named(*name.rsplit(".", 1))]
    command, endings = text("echo ran > ran"), (b"\x85R", b"\x85\x81", b"\x85}\x92")
    calls = [name + command + ending for name in names for ending in endings]
    calls += [f"(S'echo ran > ran'\ni{name.replace('.', chr(10), 1)}\n".encode() for name in CALLED + ALLOWED]
    calls += [b"(" + name + command + b"o" for name in names]
    numbers = [number(sign * value) for value in EXTREMES for sign in (1, -1)]
    sizes = [b"\x8b", b"B", b"X", b"T", b"\x8d", b"\x8e", b"\x96", b"\x95"]
    sizes = [code + struct.pack("<Q", size)[: 4 if code in b"\x8bBXT" else 8] for code in sizes for size in EXTREMES]
    memo = [code + struct.pack("<I", size % 2**32) for code in (b"r", b"j") for size in EXTREMES]
    bombs = [b"2\x86" * 40, b"q\x00h\x00\x86" * 40, b"\x85" * 3000, b"]" * 3000, b"(" * 300, b"}" * 300, b"\x94" * 300]
    other = [b"\x80" + bytes([version]) for version in (0, 1, 3, 4, 5, 6, 255)]
    other += [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"Pstorage\n", b"p0\n", b"g0\n", b"I01\n"]
    other += [b"I" + b"9" * 5000 + b"\n", b"Fnan\n", b"L5L\n", b"G" + b"\x7f\xf8" * 4]
    other += [b"}" + key + b"Ns" for key in [*numbers[:4], b"N)\x86", b"]", b"}", text("k" * 2000), b"C\x01k"]]
    return plain * 4 + names + calls + numbers * 2 + sizes + memo + bombs * 3 + other


OPERATIONS = operations()


def damage_pickle(data: bytes, rng: random.Random) -> bytes:
    """`data` with some of its operations removed, doubled, exchanged, replaced by or joined by hostile ones."""
    positions = [position for _, _, position in pickletools.genops(data)] + [len(data)]
    parts = [data[start:end] for start, end in zip(positions, positions[1:])]
    for _ in range(rng.choice([1, 1, 2, 3, 6])):
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        match rng.randrange(6):
            case 0:
                del parts[at]
            case 1:
                parts[at:at] = parts[at : at + rng.randrange(1, 30)] * rng.choice([1, 1, 2, 50])
            case 2:
                parts[at], parts[other] = parts[other], parts[at]
            case 3:
                parts[at] = rng.choice(OPERATIONS)
            case 4:
                parts[at:at] = [rng.choice(OPERATIONS)]
            case 5:  # a number for a number: sizes, strides, offsets, storages
                numbers = [i for i, part in enumerate(parts) if part[:1] in b"KMJ\x8a"]
                if numbers:
                    parts[rng.choice(numbers)] = number(rng.choice([*range(9), *EXTREMES, -1, -(2**60)]))
        parts = parts or [b"."]
    return b"".join(parts)


def zip_archive(records: list[tuple[str, bytes]], rng: random.Random | None = None) -> bytes:
    """A zip archive as `torch.save` writes it, of zip64. With `rng`, some of its headers are wrong."""
    body, directory, count = b"", b"", 0

    def lie(value, size):
        if rng is None or rng.random() > 1 / (9 * len(records)):
            return value
        near = [value + 1, max(value - 1, 0), rng.randrange(len(body) + 200)]
        return rng.choice([*near, *EXTREMES]) % 256**size

    for name, content in records:
        method = 8 if rng and rng.random() < 0.2 / len(records) else 0
        packed = zlib.compress(content)[2:-4] if method else content
        fields = struct.pack("<3H4x", 0, lie(0x808, 2), lie(method, 2))
        sizes = struct.pack("<3I", lie(zlib.crc32(content), 4), lie(len(packed), 4), lie(len(content), 4))
        start = lie(len(body), 4)
        body += b"PK\x03\x04" + fields + sizes + struct.pack("<2H", lie(len(name), 2), lie(7, 2)) + name.encode()
        body += b"FB\x03\x00ZZZ" + packed
        fields = struct.pack("<4H4x", 0, 0, lie(0x808, 2), lie(method, 2))
        sizes = struct.pack("<3I", lie(zlib.crc32(content), 4), lie(len(packed), 4), lie(len(content), 4))
        extra = b"" if rng is None or rng.random() > 0.02 else struct.pack("<2H2Q", 1, lie(16, 2), lie(5, 8), 7)
        directory += b"PK\x01\x02" + fields + sizes + struct.pack("<3H", lie(len(name), 2), len(extra), lie(0, 2))
        directory += struct.pack("<2HII", 0, 0, 0, start) + name.encode() + extra
        count += 1
    start, size, end = lie(len(body), 8), lie(len(directory), 8), lie(len(body) + len(directory), 8)
    directory += b"PK\x06\x06" + struct.pack("<Q2H2I4Q", 44, 0, 0, 0, 0, lie(count, 8), lie(count, 8), size, start)
    directory += b"PK\x06\x07" + struct.pack("<IQI", 0, end, 1)
    wide = [lie(count, 8) % 2**16, count % 2**16, lie(size % 2**32, 4), lie(start % 2**32, 4)]
    return body + directory + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, *wide, lie(0, 2))


def zip_records(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def damage_zip(data: bytes, rng: random.Random) -> bytes:
    """The zip archive `data` with a damaged pickle, untrue headers, or records removed, doubled, renamed, changed."""
    records = zip_records(data)
    kind = rng.random()
    if kind < 0.6:
        records = [(n, damage_pickle(c, rng) if n.endswith("data.pkl") else c) for n, c in records]
        return zip_archive(records)
    if kind < 0.8:
        return zip_archive(records, rng)
    for _ in range(rng.randint(1, 2)):
        at, other = rng.randrange(len(records)), rng.randrange(len(records))
        name, content = records[at]
        match rng.randrange(5):
            case 0:
                del records[at]
            case 1:
                records.insert(other, records[at])
            case 2:
                records[at] = records[other][0], content
            case 3:
                records[at] = name, damage_bytes(content or b"0", rng)
            case 4:
                folder = name.rsplit("/", 1)[0]
                records.insert(other, (folder + rng.choice(["/data.pkl", "/constants.pkl", "/x"]), content))
        records = records or [("x", b"")]
    return zip_archive(records)


def legacy_pickles(data: bytes) -> list[bytes]:
    """The five pickles of a legacy file, and the bytes after them."""
    stream, ends = io.BytesIO(data), [0]
    for _ in range(5):
        *_, (_, _, _) = pickletools.genops(stream)
        ends.append(stream.tell())
    return [data[start:end] for start, end in zip(ends, [*ends[1:], len(data)])]


def damage_legacy(data: bytes, rng: random.Random) -> bytes:
    """The legacy file `data` with a damaged pickle, mostly that of the content, or an untrue size of a storage."""
    parts = legacy_pickles(data)
    at = rng.choice([0, 1, 2, 3, 3, 3, 3, 3, 4, 4, 5])
    if at == 5:
        size = struct.pack("<Q", rng.choice([*range(30), *EXTREMES]))
        parts[5] = size + parts[5][8:] if rng.random() < 0.5 else damage_bytes(parts[5], rng)
    else:
        parts[at] = damage_pickle(parts[at], rng)
    return b"".join(parts)


def damage_safetensors(data: bytes, rng: random.Random) -> bytes:
    """The safetensors file `data` with another header, or another length of it."""
    (length,) = struct.unpack_from("<Q", data)
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    entries = [entry for key, entry in header.items() if key != "__metadata__"]
    for _ in range(rng.randint(1, 2)):
        entry, extreme = rng.choice(entries), rng.choice([*EXTREMES, -1, 1.5, "1", None, [], [0] * 70, 2**70])
        match rng.randrange(5):
            case 0:
                entry["shape"] = [*entry.get("shape", []), extreme][-rng.randint(1, 3) :]
            case 1:
                entry["data_offsets"] = [rng.choice([0, 4, 8, extreme]), rng.choice([4, 8, 96, extreme])]
            case 2:
                entry["dtype"] = rng.choice(["F64", "F16", "BF16", "BOOL", "F8_E4M3", "F4", "C64", "U64", "", extreme])
            case 3:
                entry.pop(rng.choice(["shape", "data_offsets", "dtype"]), None)
            case 4:
                empty = {"shape": [0, 2**62], "data_offsets": [0, 0], "dtype": "U8"}
                header["x" * rng.choice([1, 2000])] = rng.choice([entry, extreme, empty])
    encoded = json.dumps(header).encode()
    if rng.random() < 0.1:
        encoded = b"[" * 5000 + encoded
    return struct.pack("<Q", len(encoded) if rng.random() < 0.8 else rng.choice(EXTREMES)) + encoded + body


def damage(data: bytes, rng: random.Random) -> bytes:
    """`data`, a checkpoint file, damaged in bytes or in the terms of its own format."""
    if rng.random() < 0.35:
        return damage_bytes(data, rng)
    if data[:4] == b"PK\x03\x04":
        return damage_zip(data, rng)
    return damage_legacy(data, rng) if data[:1] == b"\x80" else damage_safetensors(data, rng)


def tensors(content) -> list:
    """The tensors in `content`, which may hold itself; those among its first hundred thousand parts."""
    from qcrs_jax.convert.files.tensor import Tensor

    stack, seen, found = [content], set(), []
    while stack and len(seen) < 10**5:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            if isinstance(node, Tensor):
                found.append(node)
            elif isinstance(node, dict | list | tuple):
                stack += node.values() if isinstance(node, dict) else node
    return found


def foreign(content) -> list:
    """Objects among the first hundred thousand parts of `content` that are no tensor, plain data or placeholder."""
    from qcrs_jax.convert.files.tensor import Storage, Tensor
    from qcrs_jax.convert.files.torch_file import _NAMES
    from qcrs_jax.convert.files.unpickle import Unused

    plain = {Storage, Tensor, Unused, bytes, bytearray, str, int, float, bool, type(None), *map(type, _NAMES.values())}
    named = [value for value in _NAMES.values() if callable(value)]  # the table's own functions, uncalled
    stack, seen, found = [content], set(), []
    while stack and len(seen) < 10**5:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            if type(node) in (dict, OrderedDict):
                stack += node.values()
                found += [key for key in node if type(key) not in (str, int, float, Unused)]
            elif type(node) in (list, tuple):
                stack += node
            elif type(node) not in plain or (callable(node) and node not in named):
                found.append(node)
    return found


def read_all(path: Path):
    """The content of `path`, with every tensor read, or the CheckpointError of the reader."""
    from qcrs_jax.convert.files.torch_file import load
    from qcrs_jax.models.checkpoint import CheckpointError

    try:
        content = load(path)
    except CheckpointError as error:
        assert str(error).startswith(f"{path}: ") and len(str(error)) < 2000, str(error)[:3000]
        chain = error
        while chain:
            assert not isinstance(chain, MemoryError), f"needs too much memory: {error}"
            chain = chain.__context__
        return error
    assert not foreign(content), foreign(content)[:3]
    for tensor in tensors(content):
        assert tensor.numpy().shape == tensor.shape
    return content


def forbid_side_effects(allowed: str) -> None:
    """Ends the process when anything is imported, compiled, executed, started, or opened but below `allowed`."""
    kinds = (
        "import",
        "compile",
        "exec",
        "code.",
        "function.",
        "pickle.",
        "ctypes.",
        "socket.",
        "subprocess.",
        "shutil.",
    )
    kinds += ("os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.remove", "os.rmdir", "os.putenv")

    def watch(event, arguments):
        opened = str(arguments[0]) if event == "open" else allowed
        if event.startswith(kinds) or not opened.startswith((allowed, "/proc/self/status")):
            raise SystemExit(f"ran: {event} {arguments}"[:1000])

    sys.addaudithook(watch)


def memory(field: str) -> int:
    """Bytes that Linux counts for this process: VmSize, VmHWM and the like."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def main(folder: Path, count: int) -> None:
    files = sorted(file for file in folder.iterdir() if file.suffix in (".pth", ".safetensors"))
    hostile = pickle.loads((folder / "hostile").read_bytes())
    accepted = folder / "accepted"
    accepted.mkdir()
    for file in files:
        assert tensors(read_all(file)), file  # and everything is imported
    codecs.lookup("raw_unicode_escape")  # an import, once a pickle has old text
    before = memory("VmHWM")
    limit = memory("VmSize") + 512 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    forbid_side_effects(str(folder))
    refused = {}
    for file in files:
        data = file.read_bytes()
        refused[file.name] = 0
        for seed in range(count):
            path = folder / f"damaged{file.suffix}"
            path.write_bytes(damage(data, random.Random(seed)))
            faulthandler.dump_traceback_later(60, exit=True)
            if isinstance(read_all(path), Exception):
                refused[file.name] += 1
            elif path.read_bytes() != data:
                path.rename(accepted / f"{file.stem}-{seed}{file.suffix}")
    errors = {}
    for name, data in hostile.items():
        path = folder / name
        path.write_bytes(data)
        faulthandler.dump_traceback_later(60, exit=True)
        result = read_all(path)
        errors[name] = str(result) if isinstance(result, Exception) else None
        del result  # before the next takes its memory
    print(json.dumps({"refused": refused, "errors": errors, "peak": memory("VmHWM") - before}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
