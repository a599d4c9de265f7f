"""Errors of a device whose memory is full, or used by others: JAX's words for them, and one line for the user."""

import subprocess

MEMORY_IS_FULL = ("RESOURCE_EXHAUSTED", "YNNPACK operation failed")  # the only message of XLA's convolutions on a CPU


# Messages of CUDA libraries that cannot allocate their first memory.
_NO_ROOM_TO_START = (
    "CUDA_ERROR_OUT_OF_MEMORY",
    "out of memory",
    "no supported devices found for platform CUDA",
    "DNN library initialization failed",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_NOT_INITIALIZED",
)
REMEDY = (
    "If another process uses the device (nvidia-smi lists them), end it, or choose a free device by "
    "CUDA_VISIBLE_DEVICES=1, or wait. XLA_PYTHON_CLIENT_PREALLOCATE=false makes JAX take no more than it needs"
)


def memory_is_full(error: Exception) -> bool:
    """Whether an error of JAX means that a call did not fit into the device's memory. A smaller call may fit."""
    return any(sign in str(error) for sign in MEMORY_IS_FULL)


def no_room(error: Exception) -> str | None:
    """One line for an error of a device whose memory is full, or used by others; None for other errors."""
    text = str(error)
    if not isinstance(error, RuntimeError) or not any(
        sign.lower() in text.lower() for sign in (*MEMORY_IS_FULL, *_NO_ROOM_TO_START)
    ):
        return None
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return f"the device's memory is full{in_use()}. {REMEDY}. JAX said: {first[:200]}"


def in_use() -> str:
    """The memory of each NVIDIA card that is in use, in brackets; empty if it is not known."""
    command = ["nvidia-smi", "--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        cards = [[int(number) / 1024 for number in line.split(",")] for line in said.split("\n") if line.strip()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return f" ({', '.join(f'{used:.1f} of {total:.1f} GiB in use' for used, total in cards)})" if cards else ""
