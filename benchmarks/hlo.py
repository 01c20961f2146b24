"""Compiled programs as XLA prints them: operations by computation, and the bytes that kernels move.

Bytes are those of operands and results; of an operand that a kernel only takes slices of, those of the
slices. What stays in caches from kernel to kernel, or is read more than once, is not known here.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_BITS = {"pred": 8, "bf16": 16, "f16": 16, **{f"{kind}{n}": n for kind in "fsu" for n in (8, 16, 32, 64)}}
_TYPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
# These move nothing by themselves.
_NAMES = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all")
_PIXELWISE = ("convert", "select", "add", "subtract", "multiply", "compare", "maximum", "bitcast")


class Operation(NamedTuple):
    """A line of the compiled program."""

    result: str  # its type
    kind: str
    operands: tuple[str, ...]
    place: str  # in our code
    groups: int
    target: str  # of a custom call
    called: str  # the computation that it runs, if it is one
    parameter: int  # which one it is, else -1
    root: bool

    @property
    def convolution(self) -> bool:
        return "conv" in self.target or self.kind == "convolution"


Computation = Mapping[str, Operation]


class Kernel(NamedTuple):
    name: str
    operation: Operation
    read: float  # bytes
    written: int


def parse(text: str) -> tuple[dict[str, dict[str, Operation]], str]:
    """({computation: {name: operation}}, the computation that the program begins with)"""
    computations: dict[str, dict[str, Operation]] = {}
    entry = here = ""
    for line in text.splitlines():
        if begins := re.match(r"(ENTRY )?%(\S+) \(.*\{$", line):
            here = begins[2]
            computations[here] = {}
            entry = here if begins[1] else entry
        parts = re.match(r"\s+(ROOT )?%(\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*)", line)
        if not parts:
            continue
        root, name, result, kind, rest = parts.groups()

        def told(pattern: str, rest: str = rest) -> str:
            found = re.search(pattern, rest)
            return found[1] if found else ""

        computations[here][name] = Operation(
            result,
            kind,
            tuple(re.findall(r"%([\w.-]+)", rest.split(")")[0])),
            told(r'op_name="([^"]*)"'),
            int(told(r"feature_group_count=(\d+)") or 1),
            told(r'custom_call_target="([^"]*)"'),
            told(r"(?:calls|to_apply)=%([\w.-]+)"),
            int(rest.split(")")[0]) if kind == "parameter" else -1,
            bool(root),
        )
    return computations, entry


def size(result: str) -> int:
    """Bytes of a type, tuples included."""
    return sum(
        _BITS[kind] // 8 * math.prod(map(int, filter(None, sides.split(","))))
        for kind, sides in _TYPE.findall(result)
        if kind in _BITS
    )


def kernels(text: str) -> Iterator[Kernel]:
    """Those of a program for a GPU that every run of it starts; what depends on a condition is left out."""
    computations, entry = parse(text)

    def of(computation: Computation) -> Iterator[Kernel]:
        for name, operation in computation.items():
            if operation.kind == "call":
                yield from of(computations[operation.called])
            elif operation.kind not in (*_NAMES, "conditional", "while"):
                inner = computations.get(operation.called, {}) if operation.kind == "fusion" else {}
                places = {it.parameter: inside for inside, it in inner.items() if it.parameter >= 0}
                read = 0.0
                for place, operand in enumerate(operation.operands):
                    if operand in operation.operands[:place] or operand not in computation:
                        continue
                    whole = size(computation[operand].result)
                    read += whole * (_share(inner, places[place]) if place in places else 1)
                yield Kernel(name, operation, read, size(operation.result))

    return of(computations[entry])


def _share(computation: Computation, name: str) -> float:
    """How much of a value its users read, at most 1: less where all of them take slices of it, or of what is
    computed of it pixel by pixel.
    """
    whole, total = computation[name].result, 0.0
    for user, operation in computation.items():
        if name not in operation.operands:
            continue
        if operation.kind == "slice":
            total += size(operation.result) / size(whole)
        elif operation.kind in _PIXELWISE and not operation.root:
            total += _share(computation, user)
        else:
            return 1.0
    return min(1.0, total)
