"""A replay's loops and matrix products as programs: lists of instructions without Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nnx.calls import Run, Scope
from nnx_numpy.replay import NumpyReplay

from . import blas, dense, loops
from .compiler import compiled
from .instructions import DTYPES, SPECS, instruction, operands
from .native import launch

Array = np.ndarray[Any, Any]
Instruction = tuple[Any, Any, list[Any]]  # the loop or BLAS function, the dtype, its operands
Varying = dict[int, tuple[int, Array]]  # arrays that vary and their numbers, by id of their memory


class NumbaReplay(NumpyReplay):
    """As on NumPy; calls that can are made as programs."""

    in_place = 1 << 16  # bytes: giving a program an address takes as long as copying so many

    def assemble(self, runs: list[Run], varying: list[Array]) -> list[Scope]:
        roots = {id(self.root(a)): (i, a) for i, a in enumerate(varying)}
        scopes = []
        for scope in super().assemble(runs, varying):
            made, part = list[Run](), list[Instruction]()
            for run in scope.runs:
                found = translated(run)
                if found is None:
                    made += _program(part, roots, varying)
                    made.append(run)
                    part = []
                else:
                    part.append(found)
            scopes.append(scope._replace(runs=[*made, *_program(part, roots, varying)]))
        return scopes


NUMBA = NumbaReplay()


def translated(run: Run) -> Instruction | None:
    """The call as an instruction, where there is one for it."""
    f, args, attrs = run
    arrays = [a for a in args if isinstance(a, np.ndarray)]
    if not arrays or arrays[0].dtype not in DTYPES:
        return None
    dtype = arrays[0].dtype
    if f in SPECS and not attrs:
        return f, dtype, operands(f, args)
    if attrs or any(a.dtype != dtype for a in arrays):
        return None
    if f in (np.dot, np.matmul) and len(args) == 3:
        found = blas.product(*args)
        if found is None or (f is np.matmul and min(*args[0].shape, *args[1].shape) == 1):
            return None  # matmul has ways of its own with rows and columns
        return found[0], dtype, found[1]
    if f is np.add and len(args) == 3 and _is_bias(*args):
        return dense.add_bias, dtype, operands(dense.add_bias, (args[2], args[1]))
    if f is np.copyto and len(arrays) == 2 and _flat(*args):
        flat = (args[1].reshape(-1), args[0].reshape(-1))
        return loops.copied, dtype, operands(loops.copied, flat)
    return None


def _is_bias(y: Any, b: Any, out: Any) -> bool:
    """y += b, one number a column"""
    if y is not out or y.ndim != 2 or not (isinstance(b, np.ndarray) and b.ndim == 1):
        return False
    return bool(y.flags.c_contiguous and b.flags.c_contiguous and b.size == y.shape[1])


def _flat(a: Array, b: Array) -> bool:
    return bool(a.shape == b.shape and a.flags.c_contiguous and b.flags.c_contiguous)


def _program(
    part: list[Instruction], roots: Varying, varying: list[Array]
) -> Iterator[Run]:  # fmt: skip
    """The calls that run these instructions, after those that tell it where arrays lie now."""
    if not part:
        return
    made = Program(part, roots)
    for i, places in made.places.items():
        yield made.point, (places, varying[i]), {}
    yield made.runner(), (), {}


class Program:
    """Instructions and their operands.

    places   by number of the array that varies: which operands point into it, and how far in
    """

    def __init__(self, part: list[Instruction], roots: Varying) -> None:
        self.names = [f if isinstance(f, str) else f.__name__ for f, _, _ in part]
        self.places: dict[int, list[tuple[int, int]]] = {}
        self._kept: list[Any] = []  # what the addresses are of
        numbers, starts = list[int](), list[int]()
        for _, _, given in part:
            starts.append(len(numbers))
            for value in given:
                numbers.append(self._number(value, len(numbers), roots))
        self._operands = np.array(numbers, np.int64)
        self._table = np.empty((len(part), 2), np.int64)
        for i, (loop, dtype, _) in enumerate(part):
            code = instruction(loop, dtype)
            self._kept.append(code)
            self._table[i] = code.address, address(self._operands) + 8 * starts[i]

    def _number(self, value: Any, place: int, roots: Varying) -> int:
        if not isinstance(value, np.ndarray):
            return int(value)
        root = NumpyReplay.root(value)
        if id(root) in roots:
            i, stands = roots[id(root)]
            self.places.setdefault(i, []).append((place, NumpyReplay.offset(value, stands)))
        else:
            self._kept.append(value)
        return int(address(value))

    def point(self, places: list[tuple[int, int]], array: Array) -> None:
        """Those operands point into that array from now on."""
        start, operands = address(array), self._operands
        for place, offset in places:
            operands[place] = start + offset

    def runner(self) -> Callable[[], None]:
        """What runs the program, and keeps all that it needs."""

        def program(table: Array = self._table, mine: Program = self) -> None:
            launch(table)

        program.note = ", ".join(self.names)  # type: ignore[attr-defined]
        return program


@compiled()
def address(array: Any) -> Any:
    return array.ctypes.data
