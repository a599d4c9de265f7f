"""Reads pickles as plain data, by an interpreter of its own.

It builds the tensors and containers that `torch.save` writes.

Nothing that a pickle names is imported. It can call only the functions of the caller's table. Every other name becomes
a placeholder, and operations on a placeholder are dropped. Every operation takes bounded time and memory. The length of
the pickle, at most LIMIT bytes, therefore bounds the whole.
"""

import io
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from types import FunctionType
from typing import Any

from qcrs_jax.models.checkpoint import CheckpointError

LIMIT = 2**22
SAVE_WEIGHTS_ALONE = "if you trust the file, open it with PyTorch and save the model's state_dict alone"


class Unused:
    """Stands in for an object that is neither a tensor nor a plain container. Operations on it are dropped.

    name: its name in the pickle.
    """

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self):
        return f"<{self.name}, not read>"


ODD_KEYS = Unused("a key that is neither text nor a small number")  # the key of items whose own key is such


def unpickle(stream: io.BytesIO, names: dict[tuple[str, str], Any], persistent_load: Callable[[Any], Any]) -> Any:
    """The value of the pickle at the position of `stream`. The stream then stands after the pickle."""
    position = stream.tell()
    try:
        return _Machine(names, persistent_load).run(stream)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        if stream.tell() >= LIMIT:
            raise CheckpointError(
                f"its pickles are longer than {LIMIT >> 20} MiB, or damaged; {SAVE_WEIGHTS_ALONE}"
            ) from error
        raise CheckpointError(
            f"truncated or damaged in the pickle at byte {position} ({type(error).__name__}: {str(error)[:200]}); "
            "copy it again"
        ) from error


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_SET = Unused("a set")


class _Machine:
    """Python's machine for pickles: a stack, the stacks below its marks, and a memo."""

    def __init__(self, names, persistent_load):
        self.names, self.persistent_load = names, persistent_load
        self.stack, self.below = [], []
        self.memo, self.first = [], 0  # and the index of the memo's first item
        self.left = LIMIT  # items of lists that calls may still copy
        self.unused = {}  # placeholders by name

    def run(self, stream):
        for operation, argument, _ in pickletools.genops(stream):
            stack = self.stack
            match operation.name:
                case "BINPUT" | "LONG_BINPUT":
                    self.put(argument)
                case "MEMOIZE":
                    self.put(self.first + len(self.memo))
                case "BINGET" | "LONG_BINGET":
                    stack.append(self.get(argument))
                case "BININT1" | "BININT2" | "BININT" | "LONG1" | "INT" | "BINFLOAT":
                    stack.append(argument)
                case "BINUNICODE" | "SHORT_BINUNICODE" | "BINBYTES" | "SHORT_BINBYTES":
                    stack.append(argument)
                case "BINUNICODE8" | "BINBYTES8" | "BYTEARRAY8" | "LONG4":
                    stack.append(argument)
                case "BINSTRING" | "SHORT_BINSTRING":  # Python 2's; pickletools gives each byte as a character
                    stack.append(_text_or_bytes(argument.encode("latin-1")))
                case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE" as name:
                    stack.append(_CONSTANTS[name])
                case "MARK":
                    self.below.append(stack)
                    self.stack = []
                case "TUPLE":
                    items = self.pop_mark()
                    self.stack.append(tuple(items))
                case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                    items = [stack.pop() for _ in range(int(name[-1]))]
                    stack.append(tuple(items[::-1]))
                case "EMPTY_LIST":
                    stack.append([])
                case "APPEND":
                    item = stack.pop()
                    _extend(stack[-1], [item])
                case "APPENDS":
                    items = self.pop_mark()
                    _extend(self.stack[-1], items)
                case "EMPTY_DICT":
                    stack.append({})
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    set_items(stack[-1], [(key, value)])
                case "SETITEMS":
                    items = self.pop_mark()
                    set_items(self.stack[-1], zip(items[::2], items[1::2], strict=True))
                case "EMPTY_SET":
                    stack.append(_SET)
                case "ADDITEMS":
                    self.pop_mark()
                    if type(self.stack[-1]) is not Unused:
                        raise ValueError(f"items of a set for a {type(self.stack[-1]).__name__}")
                case "FROZENSET":
                    self.pop_mark()
                    self.stack.append(_SET)
                case "POP":
                    if stack:
                        stack.pop()
                    else:
                        self.pop_mark()
                case "POP_MARK":
                    self.pop_mark()
                case "GLOBAL":
                    stack.append(self.find(*argument.split(" ", 1)))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    stack.append(self.find(module, name))
                case "REDUCE" | "NEWOBJ":
                    arguments, function = stack.pop(), stack.pop()
                    stack.append(self.call(function, arguments))
                case "NEWOBJ_EX":
                    del stack[-2:]
                    stack.append(self.call(stack.pop(), ()))
                case "OBJ":  # an instance of a class of Python 2
                    function, *arguments = self.pop_mark()
                    self.stack.append(self.call(function, tuple(arguments)))
                case "INST":
                    arguments = self.pop_mark()
                    self.stack.append(self.call(self.find(*argument.split(" ", 1)), tuple(arguments)))
                case "BUILD":
                    stack.pop()
                    if type(stack[-1]) not in (OrderedDict, Unused):
                        raise ValueError(f"attributes for a {type(stack[-1]).__name__}")
                case "BINPERSID":
                    stack.append(self.persistent_load(stack.pop()))
                case "STOP":
                    return stack.pop()
                case "PROTO" if argument <= 5:
                    pass
                case "FRAME":
                    pass
                case name:
                    raise ValueError(f"operation {name}, which torch.save does not write")

    def pop_mark(self):
        """The items above the last mark, with the stack below it in their place."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def put(self, index):
        """Into the memo. Picklers count up, from 0 or (Python 2's) from 1."""
        if not self.memo:
            self.first = index
        if not 0 <= index - self.first <= len(self.memo):
            raise ValueError(f"memo {index} after {len(self.memo)}")
        self.memo[index - self.first : index - self.first + 1] = [self.stack[-1]]

    def get(self, index):
        if index < self.first:
            raise ValueError(f"memo {index}, which is empty")
        return self.memo[index - self.first]

    def find(self, module, name):
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name that is no text")
        if (module, name) in self.names:
            return self.names[module, name]
        full = f"{module:.100}.{name:.100}"
        return self.unused.setdefault(full, Unused(full))

    def call(self, function, arguments):
        if type(function) is Unused:
            return function
        if type(function) is not FunctionType or type(arguments) is not tuple or len(arguments) > 8:
            raise ValueError(f"a call of a {type(function).__name__} with a {type(arguments).__name__}")
        self.left -= sum(len(argument) for argument in arguments if type(argument) is list)
        if self.left < 0:
            raise ValueError("calls with the same list over and over")
        return function(*arguments)


def _text_or_bytes(value):
    """A value that Python 2 wrote as a string: text, or the bytes of a number of NumPy's."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _extend(container, items):
    if type(container) is Unused:
        return
    if type(container) is not list:
        raise ValueError(f"items for a {type(container).__name__}")
    container.extend(items)


def set_items(container, pairs):
    """Sets the items of a dict or OrderedDict; those of an Unused are dropped.

    Keys are text or numbers, as the hash of nested tuples can take for ever. Numbers can be chosen to collide, so that
    only so many are let in. Items with other keys are dropped; the key ODD_KEYS marks a dictionary that had such items.
    """
    if type(container) is Unused:
        return
    if type(container) not in (dict, OrderedDict):
        raise ValueError(f"keys for a {type(container).__name__}")
    for key, value in pairs:
        text = type(key) is str and len(key) <= 1000
        number = type(key) in (int, float) and abs(key) < 2**60 and len(container) < 10_000
        if text or number:
            container[key] = value
        else:
            container[ODD_KEYS] = None
