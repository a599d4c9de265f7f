"""Compiles programs for a TPU on a machine without one, and reads the estimates of XLA's cost model.

The compiler is in the package libtpu, which has to be in a folder of its own: next to JAX it would be used as a TPU.
"""

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from qcrs_jax.errors import UserError

# A v5e chip by Google's documentation; at this clock its 4 arrays of 128 x 128 reach the peak.
CLOCK = 1.5e9
PEAK_FLOPS = 197e12
PEAK_BYTES = 819e9
MEMORY = 16 * 2**30
TOPOLOGIES = {4: ("v5e:2x2", (2, 2, 1)), 16: ("v5e:4x4", (2, 2, 1))}  # 16 chips are four hosts
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")
_UNTIMED = ("parameter", "constant", "bitcast", "tuple", "get-tuple-element", "while", "after-all")


class Cost(NamedTuple):
    """The cost of one run of a program. Loops count as often as they turn, if that is known, else once.

    cycles: cycles of the chip, the sum of the compiler's estimates for all operations.
    flops: floating-point operations of convolutions and matrix products.
    traffic: bytes between main memory and the chip.
    memory: bytes of main memory in use at once.
    """

    cycles: float
    flops: float
    traffic: float
    memory: int

    @property
    def seconds(self) -> float:
        """Seconds by the cycles, or by the peaks of products and memory if these take longer."""
        return max(self.cycles / CLOCK, self.flops / PEAK_FLOPS, self.traffic / PEAK_BYTES)


def devices(libtpu: Path, chips: int):
    """The chips of a v5e slice to compile for; this machine need not have any.

    Raises:
        UserError: no libtpu in that folder, or one that this JAX cannot use.
    """
    if not (Path(libtpu) / "libtpu").is_dir():
        raise UserError(f"{libtpu}: no libtpu there; {install_hint()}")
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        TPU_WORKER_HOSTNAMES="localhost",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    )
    sys.path.append(str(libtpu))
    from jax.experimental import topologies

    name, host = TOPOLOGIES[min(size for size in TOPOLOGIES if size >= chips)]
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=name, chips_per_host_bounds=host)
    except Exception as error:  # mismatched versions fail in many ways
        raise UserError(f"{libtpu}: this JAX cannot use it; {install_hint()}. {error}") from error
    return topology.devices[:chips]


def install_hint() -> str:
    """The command that installs the libtpu which the installed JAX requires."""
    import importlib.metadata

    wanted = next(r for r in importlib.metadata.requires("jax") if r.startswith("libtpu"))
    return f"pip install --no-deps --target FOLDER '{wanted.split(';')[0].strip()}'"


def replicated(devices, tree):
    """`tree` as shapes, each on all `devices`."""
    import jax

    sharding = jax.sharding.NamedSharding(jax.sharding.Mesh(devices, "devices"), jax.sharding.PartitionSpec())
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)


def cost(compiled) -> Cost:
    """The Cost of a program that was compiled for a TPU, by the compiler's estimates."""
    computations, entry = _parse(compiled.as_text())
    stats = compiled.memory_analysis()
    memory = stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes
    return Cost(*_sum(computations, entry), memory + stats.generated_code_size_in_bytes)


class _Operation(NamedTuple):
    name: str
    type: str
    opcode: str
    operands: list[str]
    line: str


def _parse(text):
    """The computations of a program's text by name, each a list of operations, and the name of the first to run."""
    computations, entry = {}, None
    for line in text.splitlines():
        if match := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            operations = computations[match[2]] = []
            entry = match[2] if match[1] else entry
        elif match := re.match(r"  (?:ROOT )?%([\w.\-]+) = (.*?) ([a-z][\w\-]*)\(([^)]*)\)", line):
            operations.append(_Operation(*match.groups()[:3], re.findall(r"%([\w.\-]+)", match[4]), line))
    return computations, entry


def _sum(computations, name):
    """(cycles, flops, traffic) of the computation `name`."""
    types = {op.name: op.type for op in computations[name]}
    cycles = flops = traffic = 0
    for op in computations[name]:
        if loop := re.search(r"condition=%([\w.\-]+), body=%([\w.\-]+)", op.line):
            turns = _turns(computations[loop[1]])
            inner = _sum(computations, loop[2])
            cycles, flops, traffic = (a + turns * b for a, b in zip((cycles, flops, traffic), inner))
        if estimate := re.search(r'"estimated_cycles":"(\d+)"', op.line):
            cycles += int(estimate[1])
        flops += _flops(computations, op, types)
        if op.opcode.endswith("-start"):  # a copy from or to main memory, beside other operations
            traffic += min((_size(array) for array in _arrays(op.type) if array[1]), default=0)
        elif op.opcode not in _UNTIMED and not op.opcode.endswith("-done"):
            moved = [array for t in (op.type, *(types.get(o, "") for o in op.operands)) for array in _arrays(t)]
            traffic += sum(_size(array) for array in moved if "S(" not in array[2])
    return cycles, flops, traffic


def _turns(condition):
    """The turns of a loop: the constant with which its counter, from 0, is compared; 1 if it is not constant."""
    limits = [int(c) for op in condition for c in re.findall(r"^  .*s32\[\]\S* constant\((\d+)\)", op.line)]
    counts = any(op.opcode == "compare" and "direction=LT" in op.line for op in condition)
    return limits[0] if counts and len(limits) == 1 else 1


def _flops(computations, op, types):
    """The operations of the convolutions in `op` or in its fusion. Matrix products are compiled to convolutions too."""
    if op.opcode == "convolution":
        image, kernel = (_dimensions(types[operand]) for operand in op.operands)
        image_labels, labels = re.search(r"dim_labels=(\w+)_(\w+)->", op.line).groups()
        # The kernel may be larger than the input, and be mostly over padding.
        taps = [min(size, image[image_labels.index(d)]) for size, d in zip(kernel, labels) if d.isdigit()]
        return 2 * _product(taps) * kernel[labels.index("i")] * _product(_dimensions(op.type))
    called = re.search(r"calls=%([\w.\-]+)", op.line) if op.opcode == "fusion" else None
    if not called:
        return 0
    inner = computations[called[1]]
    inner_types = {o.name: o.type for o in inner}
    return sum(_flops(computations, o, inner_types) for o in inner)


def _arrays(text):
    """The arrays of a type: (element type, dimensions, layout with the memory it is in)."""
    return [match.groups("") for match in _ARRAY.finditer(text)]


def _size(array):
    return _BYTES.get(array[0], 4) * _product(int(d) for d in array[1].split(",") if d)


def _dimensions(text):
    return [int(d) for d in _arrays(text)[0][1].split(",") if d]


def _product(numbers):
    import math

    return math.prod(numbers)
