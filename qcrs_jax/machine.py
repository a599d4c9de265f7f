"""The CPUs, memory and cards that this process may use, if a container or a job has only a part of the machine."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from .errors import UserError

ROOT = Path("/")
"""The root of the file system that reports these limits."""
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_LOCAL_RANKS = ("SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK")


def cores() -> int:
    """The cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # no such system call on this platform
        return os.cpu_count() or 1


def cpu_quota(root: Path | None = None) -> float | None:
    """CPUs' worth of time that the control groups of this process grant, such as 1.5; None if they set no limit."""
    quotas = []
    for folder in _groups("cpu", root or ROOT):
        of_v2 = _numbers(folder / "cpu.max")
        of_v1 = _numbers(folder / "cpu.cfs_quota_us") + _numbers(folder / "cpu.cfs_period_us")
        quotas += [pair[0] / pair[1] for pair in (of_v2, of_v1) if len(pair) == 2 and min(pair) > 0]
    return min(quotas, default=None)


def usable_cpus(root: Path | None = None) -> int:
    """The number of CPUs that this process can keep busy: its cores, or the whole part of its quota, and at least one.

    More threads would be halted together whenever the quota is used up.
    """
    quota = cpu_quota(root)
    return cores() if quota is None else max(1, min(cores(), int(quota)))


def usable_memory(root: Path | None = None) -> int | None:
    """The bytes that this process may use: the machine's memory, or less if a control group sets a limit.

    None if the system reports neither.
    """
    limits = []
    for folder in _groups("memory", root or ROOT):
        limits += _numbers(folder / "memory.max") + _numbers(folder / "memory.limit_in_bytes")
    try:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # not on this platform
        pass
    return min((limit for limit in limits if limit > 0), default=None)


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the control groups of this process, of both versions: its own and all visible ones above."""
    top = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if not names:
            mounts = [top, top / "unified"]
        elif controller in names.split(","):
            mounts = [top / names, top / controller]
        else:
            continue
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # above the root that a container sees
            parts = []
        for mount in mounts:
            yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


def _numbers(file: Path) -> list[int]:
    """The numbers at the beginning of a file of a control group; none if it has "max", or does not exist."""
    try:
        return [int(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []


def own_cards(environ: Mapping[str, str] = os.environ) -> list[int] | None:
    """The places of this process's own cards among those that it sees, if several processes share a host.

    JAX by itself gives the nth process of a host the nth card. That fails if each process sees only its own card, as
    Slurm arranges it with --gpus-per-task=1.

    Returns:
        Places of cards; None if JAX's choice is right, or nothing is known of cards.

    Raises:
        UserError: the process sees too few cards for its place among those of the host.
    """
    name = next((name for name in _VISIBLE if name in environ), None)
    if name is None or environ.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    cards = [card for card in environ[name].split(",") if card.strip() not in ("", "-1", "NoDevFiles")]
    each, place = _cards_of_a_task(environ), next((environ[r] for r in _LOCAL_RANKS if r in environ), "")
    if len(cards) == each:
        return list(range(each))
    if not cards or not place.isdecimal():
        return None
    first = each * int(place)
    if first + each > len(cards):
        raise UserError(
            f"this is process {int(place) + 1} of its host, and the cards that it sees ({name}={environ[name]}) do not "
            f"suffice for that many processes of {each} each. Start as many processes on a host as it has cards, or "
            "give each cards of its own (under Slurm: --gpus-per-task=1), or name the places of its cards in "
            "JAX_LOCAL_DEVICE_IDS"
        )
    return list(range(first, first + each))


def _cards_of_a_task(environ):
    """The number of cards for each task that was requested from Slurm; 1 if it is not known."""
    asked = re.search(r"(\d+)$", environ.get("SLURM_GPUS_PER_TASK", ""))
    asked = asked or re.search(r"gres/gpu[:=](?:[^,:=]+[:=])?(\d+)", environ.get("SLURM_TRES_PER_TASK", ""))
    return max(1, int(asked[1])) if asked else 1
