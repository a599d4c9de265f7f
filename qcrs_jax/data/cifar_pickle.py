"""The pickles of CIFAR as plain data, by an interpreter of its own: arrays, bytes, texts, numbers, lists and dicts.

Nothing that a pickle names is imported or called. Every operation takes memory by the bytes of the file that it stands
for; OPERATIONS and the size of the file bound the whole.
"""

import io
import pickletools
import re
from typing import Any

import numpy as np

OPERATIONS = 2**21
"""Largest number of operations. CIFAR-100's training file, the longest, has a tenth."""

_NAMES = {
    ("_codecs", "encode"),  # how Python 3 writes bytes in the protocol of Python 2
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((module, "_reconstruct") for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")),
}


class _Name(str):
    """A name that a pickle uses; it is only ever compared."""


class _Dtype:
    def __init__(self, text):
        self.text, self.order = text, "|"

    def numpy(self):
        if not re.fullmatch(r"b1|[iuf][1248]", self.text) or self.order not in ("|", "<", ">", "="):
            raise ValueError(f"its array is of {self.order!r} {self.text!r}, not of numbers")
        return np.dtype(self.order + self.text)


class _Array:
    value: np.ndarray | None = None


def unpickle(content: bytes) -> Any:
    """The value of a pickle of protocol 0 to 4; texts of Python 2 are bytes.

    Raises:
        Exception: of any kind, if the pickle is damaged, or has anything that the pickles of CIFAR have not.
    """
    stack, below, memo = [], [], {}

    def pop_mark():
        nonlocal stack
        items, stack = stack, below.pop()
        return items

    for count, (operation, argument, _) in enumerate(pickletools.genops(io.BytesIO(content))):
        if count >= OPERATIONS:
            raise ValueError(f"its pickle has more than {OPERATIONS} operations")
        match operation.name:
            case "PROTO" | "FRAME":
                pass
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[argument])
            case "BININT" | "BININT1" | "BININT2" | "INT" | "LONG" | "LONG1" | "BINFLOAT" | "FLOAT":
                stack.append(argument)
            case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                stack.append(argument)
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING":  # of Python 2; pickletools has a character for each byte
                stack.append(str(argument).encode("latin-1"))
            case "NONE":
                stack.append(None)
            case "NEWTRUE":
                stack.append(True)
            case "NEWFALSE":
                stack.append(False)
            case "MARK":
                below.append(stack)
                stack = []
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                items = pop_mark()
                stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(operation.name[-1])
                if len(stack) < size:
                    raise ValueError("its pickle takes more from the stack than is there")
                stack[-size:] = [tuple(stack[-size:])]
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                items = pop_mark()
                stack.append(items)
            case "APPEND":
                item = stack.pop()
                _list(stack[-1]).append(item)
            case "APPENDS":
                items = pop_mark()
                _list(stack[-1]).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                items = pop_mark()
                stack.append({})
                _set(stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set(stack[-1], [key, value])
            case "SETITEMS":
                items = pop_mark()
                _set(stack[-1], items)
            case "GLOBAL":
                stack.append(_name(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_name(module, name))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
            case "BUILD":
                state = stack.pop()
                _build(stack[-1], state)
            case "STOP":
                return _plain(stack.pop())
            case other:
                raise ValueError(f"its pickle has the operation {other}, which is not part of CIFAR")
    raise ValueError("its pickle has no end")


def _list(target):
    if type(target) is not list:
        raise ValueError("its pickle appends to something else than a list")
    return target


def _set(target, items):
    keys = items[::2]
    if type(target) is not dict or any(type(key) not in (bytes, str) for key in keys):
        raise ValueError("its pickle has items whose keys are no texts")
    target.update(zip(keys, items[1::2], strict=True))


def _name(module, name):
    if (module, name) not in _NAMES:
        raise ValueError(f"names {module}.{name}, which is not part of CIFAR")
    return _Name(name)


def _call(function, arguments):
    if type(function) is not _Name or type(arguments) is not tuple:
        raise ValueError("its pickle calls something that is no function")
    if function == "encode":
        text, _ = arguments
        return text.encode("latin-1")
    if function == "dtype":
        return _Dtype(_text(arguments[0]))
    if function == "_reconstruct":
        return _Array()
    raise ValueError(f"its pickle calls {function}, as those of CIFAR do not")


def _build(target, state):
    if type(target) is _Dtype:
        target.order = _text(state[1])
    elif type(target) is _Array:
        shape, dtype, fortran, content = state[-4:]
        array = np.frombuffer(content, dtype.numpy())
        if any(type(size) is not int or size < 0 for size in shape):
            raise ValueError(f"its array has the shape {shape}")
        target.value = array.reshape(shape, order="F" if fortran else "C")
    else:
        raise ValueError("its pickle sets the state of something that has none")


def _text(value):
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _plain(value):
    """The dict with texts as keys, its stand-ins replaced by arrays."""
    if type(value) is not dict:
        raise ValueError("its pickle is no dict")
    plain = {key.decode() if isinstance(key, bytes) else key: item for key, item in value.items()}
    return {key: item.value if type(item) is _Array else item for key, item in plain.items()}
