"""Files and folders found in the place of a checkpoint: their names, with the remedy."""

from pathlib import Path

_UNPACK = "unpack it first, and open the checkpoint in it"
_MAGIC = {
    b"\x1f\x8b": f"is compressed with gzip; {_UNPACK} (gunzip, or tar -xzf for a .tar.gz)",
    b"BZh": f"is compressed with bzip2; {_UNPACK} (bunzip2)",
    b"\xfd7zXZ\x00": f"is compressed with xz; {_UNPACK} (unxz)",
    b"\x28\xb5\x2f\xfd": f"is compressed with zstd; {_UNPACK} (unzstd)",
    b"7z\xbc\xaf\x27\x1c": f"is a 7z archive; {_UNPACK}",
    b"Rar!": f"is a RAR archive; {_UNPACK}",
    b"\x89HDF\r\n\x1a\n": "is an HDF5 file, as Keras writes it, and not of PyTorch; convert it to a PyTorch state_dict",
    b"\x93NUMPY": "is a NumPy array, not a checkpoint; save the model's state_dict with torch.save",
    b"\x89PNG": "is an image (PNG); give the file with the weights, or copy it again",
    b"\xff\xd8\xff": "is an image (JPEG); give the file with the weights, or copy it again",
    b"%PDF": "is a PDF document; give the file with the weights, or copy it again",
}
_WEB = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--", b"<script", b"<body")
WEIGHTS = (".pth", ".pt", ".th", ".tar", ".ckpt", ".bin", ".safetensors")


def stand_in(data) -> str | None:
    """A sentence on the bytes `data` of a file that is no checkpoint but stands in the place of one; else None."""
    head = bytes(data[:512])
    if head.startswith(b"version https://git-lfs"):
        size = next((line.split()[1].decode() for line in head.splitlines() if line.startswith(b"size ")), "unknown")
        return (
            f"is a Git LFS pointer, not the file itself (of {size} bytes); run `git lfs pull` in its repository, or "
            "download the file from its web page, and copy it here"
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB):
        return (
            "is a web page, not a checkpoint: the download gave a page (a login, a warning, a preview) instead of the "
            "file; open the link in a browser, download the file itself and copy it here"
        )
    for magic, words in _MAGIC.items():
        if head.startswith(magic):
            return words
    if head[257:262] == b"ustar":
        if head.split(b"\0")[0] in (b"sys_info", b"pickle", b"storages", b"tensors"):
            return "is in PyTorch's tar format of before 2017, which is not supported; open it with PyTorch and save it"
        return f"is in tar format, an archive; {_UNPACK} (tar -xf)"
    if 8 < len(head) and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= len(data) - 8:
        return "has the form of safetensors under another name; copy it to a name that ends in .safetensors"
    if b"\0" not in head and _is_text(head):
        return "is a text file, not a PyTorch checkpoint; give the file with the weights, or copy it again"
    return None


def _is_text(head):
    try:
        text = head[: len(head) - len(head) % 4].decode("utf-8", "strict")
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\r\n\t\f" for c in text)


def unpacked(folder: Path) -> str:
    """A sentence on a directory that is no converted classifier."""
    if any(folder.glob("classifier.safetensors.*")):
        return "holds the remains of a classifier whose writing was interrupted; convert or train again"
    if (folder / "training" / "request.json").is_file():
        return "holds a training run that is not finished; repeat its command, which continues it"
    for inside in (folder, *sorted(f for f in folder.iterdir() if f.is_dir())[:20]):
        if (inside / "data.pkl").is_file():
            root = inside.resolve()
            return (
                "is the unpacked inside of a file of torch.save, which is a zip archive that some browsers unpack; "
                "download the file again without unpacking it, or pack it again: "
                f"cd {root.parent} && zip -0 -r checkpoint.pth {root.name}"
            )
    files = [f for f in sorted(folder.rglob("*"))[:1000] if f.name.endswith(WEIGHTS) and f.is_file()]
    if files:
        names = ", ".join(str(f.relative_to(folder)) for f in files[:5]) + (", ..." if len(files) > 5 else "")
        return f"is a directory, but not one that `qcrs-jax convert` or `train` wrote; open a file in it: {names}"
    return "is a directory, but not one that `qcrs-jax convert` or `train` wrote, and holds no file of weights"
