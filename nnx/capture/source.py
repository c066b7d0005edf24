"""A plan's calls as one Python function: straight-line code, arrays by name."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..backend import Array
from ..calls import Run, Scope
from ..lanes import Lanes, at_once, flat

LOCALS = ("args", "attrs", "begun", "f", "lane")  # the function's own names, beside those of holes
LOOP = 64  # calls in a row that read the same arrays each time: a list of them, not lines


class Hole(NamedTuple):
    """An array that is another one in each replay: an argument, or a new one for a result.

    stands   the array that stands for it in the calls
    """

    name: str
    stands: Array


class Source:
    """Writes the function.

    memory   the backend's `replay()`, which knows views
    holes    arguments first, in the order of the function's parameters
    """

    def __init__(self, memory: Any, arguments: Sequence[Hole], results: Sequence[Hole]) -> None:
        self.memory = memory
        self.holes = {id(memory.root(h.stands)): h for h in (*arguments, *results)}
        self.names: dict[str, Any] = {}
        self._known: dict[Any, str] = {}
        self._views: dict[str, str] = {}
        self.lines = [f"def replay({', '.join(h.name for h in arguments)}):"]
        for h in results:
            new, order = self._constant(memory.new, "empty"), memory.order(h.stands)
            dtype = self._constant(h.stands.dtype, str(h.stands.dtype))
            laid = "" if order is None else f", {order}"
            self.lines.append(f"    {h.name} = {new}({tuple(h.stands.shape)}, {dtype}{laid})")
        self._returned = "".join(f"{h.name}, " for h in results)

    def write(self, scopes: Iterable[Scope]) -> None:
        for scope in scopes:
            if scope.begin is None:
                self._write(scope.runs, "    ")
                continue
            begin, end = self._constant(scope.begin), self._constant(scope.end)
            self.lines += [f"    begun = {begin}()", "    try:"]
            self._write(scope.runs, "        ")
            self.lines += ["    finally:", f"        {end}(begun)"]

    def _write(self, runs: list[Run], indent: str) -> None:
        fixed: list[Run] = []
        for run in runs:
            lanes = isinstance(run[0], Lanes)
            if not lanes and not self._varies(run):
                fixed.append(run)
                continue
            self._write_fixed(fixed, indent)
            fixed = []
            if lanes:
                self._write_lanes(run[0], indent)
            else:
                self.lines.append(self._line(run, indent))
        self._write_fixed(fixed, indent)

    def _write_lanes(self, lanes: Any, indent: str) -> None:
        """Each as a function, which has views of its own beside those around it."""
        names = [f"lane{i}" for i in range(len(lanes.lanes))]
        for name, runs in zip(names, lanes.lanes, strict=True):
            self.lines.append(f"{indent}def {name}():")
            around, self._views = self._views, dict(self._views)
            self._write(runs, indent + "    ")
            self._views = around
        self.lines.append(f"{indent}{self._constant(at_once)}({', '.join(names)})")

    def _write_fixed(self, runs: list[Run], indent: str) -> None:
        if len(runs) < LOOP:
            for run in runs:
                note = getattr(run[0], "note", None)
                self.lines += [f"{indent}# {note}"] if note else []
                self.lines.append(self._line(run, indent))
            return
        calls = self._constant([(f, args, dict(attrs)) for f, args, attrs in runs], "calls")
        self.lines.append(f"{indent}for f, args, attrs in {calls}: f(*args, **attrs)")

    def _varies(self, run: Run) -> bool:
        return any(self._hole(a) is not None for a in (*run[1], *run[2].values()))

    def _line(self, run: Run, indent: str) -> str:
        f, args, attrs = run
        parts = [self._expression(a, indent) for a in args]
        parts += [f"{key}={self._expression(a, indent)}" for key, a in attrs.items()]
        return f"{indent}{self._constant(f)}({', '.join(parts)})"

    def _hole(self, value: Any) -> Hole | None:
        return self.holes.get(id(self.memory.root(value))) if self.memory.is_array(value) else None

    def _expression(self, value: Any, indent: str) -> str:
        hole = self._hole(value)
        if hole is None:
            return self._constant(value)
        found = view(self.memory, hole, value)
        assert found is not None  # `visible` has seen to it
        if found == hole.name:
            return found
        if found not in self._views:
            if found.startswith("view("):
                self.names["view"] = self.memory.view
            self._views[found] = f"{hole.name}_{len(self._views)}"
            self.lines.append(f"{indent}{self._views[found]} = {found}")
        return self._views[found]

    def _constant(self, value: Any, name: str = "") -> str:
        """Its literal, or a name for it, the same for the same object."""
        if value is None or type(value) in (bool, int, str):
            return repr(value)
        key = ("number", value, repr(value)) if type(value) is float else id(value)
        if key not in self._known:
            stem = name or ("a" if self.memory.is_array(value) else _name(value))
            count = sum(1 for known in self.names if known.rstrip("0123456789") == stem)
            made = stem if not count and stem != "a" else f"{stem}{count}"
            self._known[key], self.names[made] = made, value
        return self._known[key]

    def function(self) -> Callable[..., tuple[Array, ...]]:
        """The function: it gives the new arrays of the results."""
        self.lines.append(f"    return ({self._returned})")
        made = dict(self.names)
        exec(compile(self.text, "<nnx replay>", "exec"), made)
        # Taken out, or function and globals keep each other, and all arrays, until a collection.
        found: Callable[..., tuple[Array, ...]] = made.pop("replay")
        return found

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def _name(value: Any) -> str:
    name = getattr(value, "__name__", type(value).__name__).strip("_<>").lower()
    name = "".join(c if c.isalnum() else "_" for c in name)
    taken = keyword.iskeyword(name) or name in LOCALS or name[-1:].isdigit()
    return f"{name}_" if taken or not name.isidentifier() else name


def view(memory: Any, hole: Hole, array: Array) -> str | None:
    """The array as an expression of the hole's name; None if it is none that is known."""
    stands = hole.stands
    if array.dtype != stands.dtype:
        return None
    at = memory.offset(array, stands)
    if at == 0 and memory.same_layout(array, stands):
        return hole.name
    if at == 0 and memory.same_layout(array, stands.T):
        return f"{hole.name}.T"
    whole = at == 0 and array.size == stands.size
    if whole and memory.contiguous(array) and memory.contiguous(stands):
        return f"{hole.name}.reshape({tuple(array.shape)})"
    if not memory.dense(stands):
        return None
    return f"view({hole.name}, {tuple(array.shape)}, {at}, {tuple(array.strides)})"


def visible(memory: Any, hole: Hole, touching: list[list[Run]]) -> bool:
    """Whether all calls that touch the hole's memory show it, as a view that can be written.

    touching   what each recorded call that touches it became
    """
    key = id(memory.root(hole.stands))

    def shows(run: Run) -> bool:
        return any(at_key(a) for a in (*run[1], *run[2].values()))

    def at_key(value: Any) -> bool:
        return memory.is_array(value) and id(memory.root(value)) == key

    for runs in touching:
        shown = list(flat(runs))
        if not any(map(shows, shown)):
            return False
        for f, args, attrs in shown:
            values = (*args, *attrs.values())
            if any(at_key(getattr(v, "__self__", None)) for v in (f, *values)):  # its own method
                return False
            for value in values:
                if isinstance(value, (tuple, list, dict)) and _holds(value, at_key):
                    return False
                if at_key(value) and view(memory, hole, value) is None:
                    return False
    return True


def _holds(value: Any, found: Callable[[Any], bool]) -> bool:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return any(_holds(v, found) for v in value)
    return found(value)
