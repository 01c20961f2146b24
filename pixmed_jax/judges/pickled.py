"""Arrays out of pickled weights, without executing a pickle.

A pickle is a program: it may import anything and call it. Here its instructions are looked at one by one
(`pickletools.genops`, which runs none). Those that write numbers, texts, lists and dicts are followed; for an
import there is a `_Name`, for a call a `_Made` that remembers what would have been called with what. Neither
does anything, and names that the format at hand has no use for are refused, as are other instructions.

Two formats: TorchScript's archive, a zip of `data.pkl` and raw arrays, and a dict of dicts of NumPy arrays.
float32 alone, in memory order. Sizes are compared before an array is made. Errors: PixmedError, without the
file's name, which the caller knows.
"""

import io
import math
import pickletools
import warnings
import zipfile
from collections.abc import Collection
from typing import Any

import numpy as np

from pixmed_jax.errors import PixmedError

_ENTRIES = 2000  # files in an archive, and objects in a tree
_DEPTH, _AXES = 12, 4  # of a tree, and of an array
_TREE_BYTES = 1 << 20  # of data.pkl
_NUMPY = frozenset({"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"})
_REBUILD = "torch._utils _rebuild_tensor_v2"
_TORCH = frozenset(
    {_REBUILD, "torch FloatStorage", "torch.jit._pickle build_intlist", "collections OrderedDict"}
)
_CLASSES = "__torch__."  # the modules that a TorchScript file describes itself


class _Name(str):
    """What a pickle would have imported, as "MODULE NAME"."""


class _Made:
    """What a pickle would have made by calling `name` with `args`, and the state it would have set."""

    def __init__(self, name: str, args: Any):
        self.name, self.args, self.state = name, args, None


def from_numpy_pickle(data: bytes) -> dict[str, np.ndarray]:
    """{"A/B/C": array} of nested dicts of arrays."""
    return {"/".join(path): _numpy_array(made) for path, made in _leaves(_followed(data, _NUMPY))}


def from_torchscript(data: bytes) -> dict[str, np.ndarray]:
    """{"a.b.c": array} of the tensors of a module and of those within it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            entries = {entry.filename: entry for entry in packed.infolist()}
            # Nothing is compressed in such an archive, so nothing can be larger than it is.
            if len(entries) > _ENTRIES or sum(entry.file_size for entry in entries.values()) > len(data):
                raise PixmedError("an archive that unpacks to more than it holds is no TorchScript file")
            trees = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(trees) != 1 or entries[trees[0]].file_size > _TREE_BYTES:
                raise PixmedError("no TorchScript file: one data.pkl of a megabyte at most is needed")
            root = trees[0].removesuffix("data.pkl")
            tree = _followed(packed.read(trees[0]), _TORCH, classes=_CLASSES)
            return {
                ".".join(path): _tensor(packed, root, made)
                for path, made in _leaves(tree)
                if made.name == _REBUILD
            }
    # ValueError: a damaged directory makes zipfile look in front of the file.
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise PixmedError(f"no readable TorchScript archive ({type(error).__name__})") from None


# ---------------------------------------------------------------- instructions
def _followed(data: bytes, names: Collection[str], *, classes: str = "") -> Any:
    """What a pickle describes: numbers, texts, tuples, lists, dicts, and records of what it would make.

    names: what it may ask for, and `classes` how further ones begin.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in texts that are refused anyway
        return _follow(data, names, classes)


def _follow(data: bytes, names: Collection[str], classes: str) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    argument: Any

    def since_mark() -> list[Any]:
        start = marks.pop()
        taken = stack[start:]
        del stack[start:]
        return taken

    def pairs(target: Any, items: list[Any]) -> None:
        if not isinstance(target, dict) or len(items) % 2:
            raise PixmedError("a pickle that puts pairs into something else than a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:  # hashing anything else could take for ever
                raise PixmedError("a pickle with a key that is no text")
            target[key] = value

    try:
        for code, argument, _ in pickletools.genops(data):
            match code.name:
                case "PROTO":
                    pass
                case "STOP":
                    return stack.pop()
                case "MARK":
                    marks.append(len(stack))
                case "NONE" | "NEWTRUE" | "NEWFALSE":
                    stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[code.name])
                case "BININT" | "BININT1" | "BININT2" | "BINUNICODE" | "BINBYTES" | "SHORT_BINBYTES":
                    stack.append(argument)
                case "EMPTY_TUPLE":
                    stack.append(())
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    items = [stack.pop() for _ in range(int(code.name[-1]))]
                    stack.append(tuple(reversed(items)))
                case "TUPLE":
                    stack.append(tuple(since_mark()))
                case "EMPTY_LIST":
                    stack.append([])
                case "APPENDS":
                    items = since_mark()
                    if not isinstance(stack[-1], list):
                        raise PixmedError("a pickle that appends to something else than a list")
                    stack[-1].extend(items)
                case "EMPTY_DICT":
                    stack.append({})
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    pairs(stack[-1], [key, value])
                case "SETITEMS":
                    items = since_mark()
                    pairs(stack[-1], items)
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    if argument not in names and not (classes and argument.startswith(classes)):
                        raise PixmedError(f"a pickle that asks for {argument[:80]!r}, which no weights need")
                    stack.append(_Name(argument))
                case "REDUCE" | "NEWOBJ":
                    args, called = stack.pop(), stack.pop()
                    if not isinstance(called, _Name) or not isinstance(args, tuple):
                        raise PixmedError("a pickle that calls something without a name")
                    stack.append(_Made(called, args))
                case "BINPERSID":
                    stack.append(_Made("storage", stack.pop()))
                case "BUILD":
                    state = stack.pop()
                    if not isinstance(stack[-1], _Made) or stack[-1].state is not None:
                        raise PixmedError("a pickle that sets the state of something else than an object")
                    stack[-1].state = state
                case other:
                    raise PixmedError(f"a pickle with the instruction {other}, which no weights need")
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise PixmedError(f"a damaged pickle ({type(error).__name__})") from None
    raise PixmedError("a damaged pickle (it does not end)")


def _leaves(tree: Any) -> list[tuple[tuple[str, ...], _Made]]:
    """All (path, record) below nested dicts and objects; what is met in them beside is passed over."""
    found: list[tuple[tuple[str, ...], _Made]] = []
    ahead: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    count = 0
    while ahead:
        path, node = ahead.pop()
        count += 1
        if count > _ENTRIES or len(path) > _DEPTH:
            raise PixmedError("a pickle that is nested deeper, or holds more, than weights do")
        if isinstance(node, _Made) and isinstance(node.state, dict):
            node = node.state
        if isinstance(node, dict):
            ahead += [((*path, key), value) for key, value in node.items() if isinstance(value, dict | _Made)]
        elif isinstance(node, _Made):
            found.append((path, node))
    return found


# ---------------------------------------------------------------- arrays
def _numpy_array(made: _Made) -> np.ndarray:
    """`_reconstruct(...)` with the state (version, shape, dtype, in Fortran's order, bytes)."""
    match made.state:
        case (
            1,
            tuple(shape),
            _Made(name="numpy dtype", args=("f4", *_), state=(_, "<", *_)),
            False,
            bytes(raw),
        ):
            return _shaped(raw, shape)
    raise PixmedError("a pickle with an array that is not of float32 as NumPy writes it")


def _tensor(packed: zipfile.ZipFile, root: str, made: _Made) -> np.ndarray:
    """`_rebuild_tensor_v2(storage, offset, shape, strides, ...)`, the storage a file of its own."""
    match made.args:
        case (
            _Made(name="storage", args=("storage", "torch FloatStorage", str(key), "cpu", int(count))),
            0,
            tuple(shape),
            tuple(strides),
            *_,
        ) if key.isdecimal() and _in_order(shape, strides):
            try:
                entry = packed.getinfo(f"{root}data/{key}")
            except KeyError:
                raise PixmedError(f"no TorchScript file: it lacks data/{key}") from None
            if entry.file_size != 4 * count:
                raise PixmedError(f"data/{key} has {entry.file_size} bytes instead of {4 * count}")
            return _shaped(packed.read(entry), shape)
    raise PixmedError("a TorchScript file with a tensor that is not of float32 in memory order")


def _in_order(shape: tuple, strides: tuple) -> bool:
    if len(shape) > _AXES or not all(type(n) is int and n > 0 for n in shape):
        return False
    return strides == tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def _shaped(raw: bytes, shape: tuple) -> np.ndarray:
    if (
        len(shape) > _AXES
        or not all(type(n) is int and n > 0 for n in shape)
        or 4 * math.prod(shape) != len(raw)
    ):
        raise PixmedError(f"an array of shape {str(shape)[:80]} with {len(raw)} bytes of float32")
    return np.frombuffer(raw, "<f4").reshape(shape)
