"""A replay's loops and matrix products as programs: lists of instructions without Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nnx.calls import Run, Scope
from nnx.lanes import Lanes
from nnx_numpy.replay import NumpyReplay

from .compiler import compiled
from .instructions import instruction
from .native import launch
from .translate import Instruction, translated

Array = np.ndarray[Any, Any]
Varying = dict[int, tuple[int, Array]]  # arrays that vary and their numbers, by id of their memory


class NumbaReplay(NumpyReplay):
    """As on NumPy; calls that can are made as programs."""

    in_place = 1 << 16  # bytes: giving a program an address takes as long as copying so many

    def assemble(self, runs: list[Run], varying: list[Array]) -> list[Scope]:
        roots = {id(self.root(a)): (i, a) for i, a in enumerate(varying)}
        return [
            scope._replace(runs=_programs(scope.runs, roots, varying))
            for scope in super().assemble(runs, varying)
        ]


NUMBA = NumbaReplay()


def _programs(runs: list[Run], roots: Varying, varying: list[Array]) -> list[Run]:
    """These calls, with programs in place of those that can be."""
    made, part = list[Run](), list[Instruction]()
    for run in runs:
        f = run[0]
        found = None if isinstance(f, Lanes) else translated(run)
        if found is not None:
            part += found
            continue
        made += _program(part, roots, varying)
        part = []
        if isinstance(f, Lanes):
            run = Lanes([_programs(lane, roots, varying) for lane in f.lanes]), (), {}
        made.append(run)
    return [*made, *_program(part, roots, varying)]


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
        return int(value.__array_interface__["data"][0])

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
